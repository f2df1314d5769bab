"""What Prometheus sees: a scrape taken apart, and a real endpoint to fetch one from."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families as parse


class Scrape:
    """The samples of one scrape, by name below the prefix and labels."""

    def __init__(self, text: str, prefix: str = "wirespeed_pool_") -> None:
        self._prefix = prefix
        self.families = {family.name: family for family in parse(text)}
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float | None:
        return self.samples.get((f"{self._prefix}{name}", tuple(sorted(labels.items()))))

    def sum(self, name: str) -> float:
        """Add up all samples of a name."""
        return sum(value for (known, _), value in self.samples.items() if known == f"{self._prefix}{name}")

    def labels(self, label: str = "origin") -> set[str]:
        return {value for _, labels in self.samples for name, value in labels if name == label}


def scrape(registry: CollectorRegistry, prefix: str = "wirespeed_pool_") -> Scrape:
    return Scrape(generate_latest(registry).decode(), prefix)


@contextmanager
def endpoint(registry: CollectorRegistry) -> Iterator[str]:
    """Serve a registry as programs do, on a thread; gives the URL."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetch(url: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as resp:
        return str(resp.read().decode())
