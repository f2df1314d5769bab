"""The pool's figures for Prometheus; needs the extra `prometheus`.

A collector is asked when it is scraped, mostly on a thread of its own, and reads snapshots then. Nothing is
installed in the connectors, so requests cost the same with it and without it. Names follow
https://prometheus.io/docs/practices/naming/.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

try:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
        SummaryMetricFamily,
    )
except ImportError as exc:
    raise ImportError("wirespeed.observe.prometheus needs prometheus-client: wirespeed[prometheus]") from exc

from .reading import MaybeReadable, Watched, with_methods
from .stats import WAIT_BOUNDS, PoolStats, Spread

BUCKETS = (*map(str, WAIT_BOUNDS), "+Inf")
# The label of the origins that have none of their own. No origin is called so: they have schemes.
OTHER = "other"


class Figure(NamedTuple):
    """A figure of PoolStats and how Prometheus gets it: the name below the namespace, the help text."""

    attribute: str
    name: str
    help: str


STATES = ("in_use", "idle", "dialling")
COUNTERS = (
    Figure("created", "connections_opened", "Connections that were made."),
    Figure("reused", "connections_reused", "Requests that got a connection from the pool."),
    Figure("requests", "requests", "Requests sent; redirects and retries are requests of their own."),
    Figure("refused", "waits_refused", "Callers refused because max_waiters were waiting."),
    Figure("wait_timeouts", "wait_timeouts", "Callers whose time passed while they waited for a slot."),
    Figure("dial_failures", "dial_failures", "Connections that could not be made."),
    Figure("stale_retries", "stale_retries", "Requests sent again because a reused connection was dead."),
    Figure("bytes_in", "received_bytes", "Bytes received, heads included, TLS removed."),
    Figure("bytes_out", "sent_bytes", "Bytes sent, heads included, before TLS."),
)
WAITS = Figure("waits", "wait_seconds", "Time that callers waited for a slot that they got.")
SPREADS = (
    Figure("dials", "dial_seconds", "Time to make a connection, name resolution and TLS included."),
    Figure("tls_handshakes", "tls_handshake_seconds", "Time of TLS handshakes."),
    Figure("requests_per_connection", "connection_requests", "Requests that closed connections had served."),
)
MAXIMA = (
    Figure("waits", "wait_max_seconds", "The longest wait for a slot."),
    Figure("dials", "dial_max_seconds", "The longest time to make a connection."),
    Figure("tls_handshakes", "tls_handshake_max_seconds", "The longest TLS handshake."),
    Figure("requests_per_connection", "connection_max_requests", "Most requests that a connection served."),
)

# What only grows, by attribute and what it is of it (a reason, a bucket, a sum): one number each.
Flows = dict[tuple[str, str | int], float]


class PoolCollector:
    """A collector of the figures of connectors: `registry.register(PoolCollector(session.connector))`.

    Connectors are held weakly; the figures of one that is gone are gone with it. Connectors that have
    an origin in common are summed. Each origin is a value of the label `origin`, up to `max_origins` of them:
    the busiest by requests; what the others had is summed under `origin="other"`. An origin that becomes
    one of the busiest goes on under its own label from there, so that no counter ever falls.

    Args:
        connectors: connectors of wirespeed's.
        max_origins: how many origins get a label of their own.
        namespace: what the names of the metrics start with.

    Raises:
        TypeError: a connector has no figures; aiohttp's own do not.
        ValueError: `max_origins` is negative.
    """

    def __init__(
        self, *connectors: MaybeReadable, max_origins: int = 100, namespace: str = "wirespeed"
    ) -> None:
        if max_origins < 0:
            raise ValueError(f"max_origins must not be negative, got {max_origins}")
        self._prefix = f"{namespace}_pool" if namespace else "pool"
        self._max_origins = max_origins
        self._watched = Watched()
        # Scrapes may overlap: what follows changes with each of them, under the lock.
        self._lock = threading.Lock()
        self._last: dict[tuple[int, str], PoolStats] = {}
        self._labelled: set[str] = set()
        self._grown: dict[str, Flows] = {}  # by label
        for connector in connectors:
            self.add(connector)

    def add(self, connector: MaybeReadable) -> None:
        """Collect the figures of this connector too; once is enough.

        Raises:
            TypeError: it has no figures.
        """
        self._watched.add(with_methods(connector, "stats_by_origin"))

    def describe(self) -> Iterable[Metric]:
        """Name the metrics, so that registering reads nothing."""
        return Exposition(self._prefix).families()

    def collect(self) -> Iterable[Metric]:
        """Read the connectors; called by the registry for each scrape, from whatever thread."""
        with self._lock:
            now = {
                (number, origin): stats
                for number, by_origin in self._watched.read().items()
                for origin, stats in by_origin.items()
            }
            labels = self._choose_labels(now)
            self._count_growth(now, labels)
            exposition = Exposition(self._prefix)
            members: dict[str, list[PoolStats]] = {OTHER: []} if OTHER in self._grown else {}
            for (_, origin), stats in now.items():
                members.setdefault(labels[origin], []).append(stats)
            for label, figures in members.items():
                exposition.add(label, figures, self._grown[label])
        return exposition.families()

    def _choose_labels(self, now: Mapping[tuple[int, str], PoolStats]) -> dict[str, str]:
        """Map each origin to its label."""
        requests: dict[str, int] = {}
        for (_, origin), stats in now.items():
            requests[origin] = requests.get(origin, 0) + stats.requests
        # Among equals who has a label keeps it.
        ranked = sorted(
            requests, key=lambda origin: (-requests[origin], origin not in self._labelled, origin)
        )
        self._labelled = set(ranked[: self._max_origins])
        return {origin: origin if origin in self._labelled else OTHER for origin in ranked}

    def _count_growth(self, now: dict[tuple[int, str], PoolStats], labels: Mapping[str, str]) -> None:
        """Add what happened since the last scrape to the labels under which it is shown.

        Sums of the figures as they are would fall when an origin changes its label, or when one of several
        connectors is gone, and a counter that falls counts as a restart: rate() would take all
        that is left for new.
        """
        # Origins that the connectors forgot start again; one that lost its label may get it back.
        kept = {*labels, OTHER} if labels else set()
        self._grown = {label: flows for label, flows in self._grown.items() if label in kept}
        for key, stats in now.items():
            grown = self._grown.setdefault(labels[key[1]], {})
            before = self._last.get(key)
            if stats == before:
                continue
            old = flows_of(before) if before is not None else {}
            for name, value in flows_of(stats).items():
                least = old.get(name, 0)
                # Less than before: the connector had forgotten the origin, and met it again.
                grown[name] = grown.get(name, 0) + (value - least if value >= least else value)
        self._last = now


def flows_of(stats: PoolStats) -> Flows:
    """Take apart what only grows."""
    flows: Flows = {(figure.attribute, ""): getattr(stats, figure.attribute) for figure in COUNTERS}
    for reason, count in stats.closed.items():
        flows["closed", reason.name.lower()] = count
    for figure in SPREADS:
        spread: Spread = getattr(stats, figure.attribute)
        flows[figure.attribute, "count"] = spread.count
        flows[figure.attribute, "sum"] = spread.total
    flows["waits", "sum"] = stats.waits.total
    for bucket, count in enumerate(stats.waits.counts):
        flows["waits", bucket] = count
    return flows


class Exposition:
    """The metrics of one scrape, in the making."""

    def __init__(self, prefix: str) -> None:
        label = ["origin"]
        self._connections = GaugeMetricFamily(
            f"{prefix}_connections", "Connections by state, now.", labels=[*label, "state"]
        )
        self._waiters = GaugeMetricFamily(
            f"{prefix}_waiters", "Callers that wait for a slot, now.", labels=label
        )
        self._learned = GaugeMetricFamily(
            f"{prefix}_learned_keepalive_seconds",
            "Idle time after which connections are not used any more, as learned.",
            labels=label,
        )
        self._closed = CounterMetricFamily(
            f"{prefix}_connections_closed", "Connections closed, by reason.", labels=[*label, "reason"]
        )
        self._waits = HistogramMetricFamily(f"{prefix}_{WAITS.name}", WAITS.help, labels=label)
        self._counters = [
            (item.attribute, CounterMetricFamily(f"{prefix}_{item.name}", item.help, labels=label))
            for item in COUNTERS
        ]
        self._spreads = [
            (item.attribute, SummaryMetricFamily(f"{prefix}_{item.name}", item.help, labels=label))
            for item in SPREADS
        ]
        self._maxima = [
            (item.attribute, GaugeMetricFamily(f"{prefix}_{item.name}", item.help, labels=label))
            for item in MAXIMA
        ]

    def families(self) -> Iterator[Metric]:
        """All metrics, in an order that does not change."""
        yield self._connections
        yield self._waiters
        yield self._learned
        yield self._closed
        yield self._waits
        for _, family in self._counters:
            yield family
        for _, summary in self._spreads:
            yield summary
        for _, gauge in self._maxima:
            yield gauge

    def add(self, label: str, members: list[PoolStats], flows: Flows) -> None:
        """Add the samples of one label: of its members as they are now, and of what has flowed."""
        for state in STATES:
            self._connections.add_metric([label, state], sum(getattr(stats, state) for stats in members))
        self._waiters.add_metric([label], sum(stats.waiting for stats in members))
        learned = [stats.learned_keepalive for stats in members if stats.learned_keepalive is not None]
        if learned and label != OTHER:
            self._learned.add_metric([label], min(learned))
        for attribute, gauge in self._maxima:
            gauge.add_metric([label], max((getattr(stats, attribute).max for stats in members), default=0))
        for attribute, counter in self._counters:
            counter.add_metric([label], flows.get((attribute, ""), 0))
        for (attribute, part), count in flows.items():
            if attribute == "closed":
                self._closed.add_metric([label, str(part)], count)
        for attribute, summary in self._spreads:
            count = flows.get((attribute, "count"), 0)
            summary.add_metric([label], int(count), flows.get((attribute, "sum"), 0))
        self._add_waits(label, flows)

    def _add_waits(self, label: str, flows: Flows) -> None:
        below = 0.0
        buckets = []
        for bucket, bound in enumerate(BUCKETS):
            below += flows.get(("waits", bucket), 0)
            buckets.append((bound, below))
        self._waits.add_metric([label], buckets, flows.get(("waits", "sum"), 0))
