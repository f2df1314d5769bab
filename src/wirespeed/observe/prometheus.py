"""The pool's figures for Prometheus; needs the extra `prometheus`.

A collector is asked when it is scraped, mostly on a thread of its own, and reads snapshots then. Nothing is
installed in the connectors, so requests cost the same with it and without it. Names follow
https://prometheus.io/docs/practices/naming/.
"""

import threading
from collections.abc import Iterable, Iterator
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

from .growth import OTHER, Flows, Growth
from .policies import MaybePolicies, PolicyMetric, PolicyReader, Values
from .reading import MaybeReadable, WatchedConnectors, with_methods
from .stats import WAIT_BOUNDS, PoolStats, Spread

BUCKETS = (*map(str, WAIT_BOUNDS), "+Inf")


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


class PoolCollector:
    """A collector of the figures of connectors: `registry.register(PoolCollector(session.connector))`.

    Connectors are held weakly; the figures of one that is gone are gone with it. Connectors that have
    an origin in common are summed. Each origin is a value of the label `origin`, up to `max_origins` of them:
    the busiest by requests; what the others had is summed under `origin="other"`. An origin that becomes
    one of the busiest goes on under its own label from there, so that no counter ever falls.

    Policies are shown in the same way: each of their figures as `wirespeed_policy_<policy>_<figure>`, and
    what attempts came to as `wirespeed_policy_attempts_total{outcome}`. `origin` is what the policy keeps
    apart, as a string; the busiest are those with the highest counters. Policies of a kind that have an
    origin in common are summed, and so are all others under `other`; but of seconds and rates the highest is
    shown, and none for the others. A state, such as a circuit's, is a label; its value is how many have it.

    Args:
        connectors: connectors of wirespeed's.
        policies: `Policies`, or single ones that are used alone; see `add_policies`.
        max_origins: how many origins get a label of their own.
        namespace: what the names of the metrics start with.

    Raises:
        TypeError: a connector has no figures; aiohttp's own do not. Or what was given for policies is none.
        ValueError: `max_origins` is negative.
    """

    def __init__(
        self,
        *connectors: MaybeReadable,
        policies: Iterable[MaybePolicies] = (),
        max_origins: int = 100,
        namespace: str = "wirespeed",
    ) -> None:
        if max_origins < 0:
            raise ValueError(f"max_origins must not be negative, got {max_origins}")
        self._prefix = f"{namespace}_" if namespace else ""
        self._watched = WatchedConnectors()
        # Scrapes may overlap: growth changes with each of them.
        self._lock = threading.Lock()
        self._growth: Growth[PoolStats] = Growth(max_origins, flows_of, requests_of)
        self._policies = PolicyReader(max_origins)
        for connector in connectors:
            self.add(connector)
        for one in policies:
            self.add_policies(one)

    def add(self, connector: MaybeReadable) -> None:
        """Collect the figures of this connector too; once is enough.

        Raises:
            TypeError: it has no figures.
        """
        self._watched.add(with_methods(connector, "stats_by_origin"))

    def add_policies(self, policies: MaybePolicies) -> None:
        """Collect the figures of these policies too; once is enough. From any thread.

        They are held weakly. A policy that is part of several `Policies` is counted once.

        Args:
            policies: `Policies`, or a single policy that is used alone, as a middleware or by hand.

        Raises:
            TypeError: they are neither.
        """
        self._policies.add(policies)

    def describe(self) -> Iterable[Metric]:
        """Name the metrics, so that registering reads nothing."""
        yield from Exposition(f"{self._prefix}pool").families()
        for figure in self._policies.known():
            yield self._family_of(figure, {})

    def collect(self) -> Iterable[Metric]:
        """Read the connectors and policies; called by the registry for each scrape, from whatever thread."""
        exposition = Exposition(f"{self._prefix}pool")
        with self._lock:
            for label, members in self._growth.update(self._watched.read()).items():
                exposition.add(label, members, self._growth.by_label[label])
        yield from exposition.families()
        for figure, values in self._policies.read().items():
            yield self._family_of(figure, values)

    def _family_of(self, figure: PolicyMetric, values: Values) -> Metric:
        family = GaugeMetricFamily if figure.kind == "gauge" else CounterMetricFamily
        policy = f"{figure.policy}_" if figure.policy else ""
        metric = family(
            f"{self._prefix}policy_{policy}{figure.name}", figure.help, labels=["origin", figure.part]
        )
        for (label, part), value in values.items():
            # What has no parts has the first label alone.
            metric.add_metric([label, part] if part else [label], value)
        return metric


def requests_of(stats: PoolStats) -> int:
    return stats.requests


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
