"""The pool's metrics for OpenTelemetry, under the names of its conventions; needs the extra `opentelemetry`.

Names, units, attributes and buckets are those of
https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#http-client. Numbers of connections and of
requests are read when a reader collects; the two durations come from the connector's observers, which
`instrument()` adds and `uninstrument()` takes off. Until then nothing of this is in the way of a request.
There are no conventions for traffic policies; their figures are read, too, and have names of our own.
"""

import functools
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

try:
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
except ImportError as exc:
    raise ImportError(
        "wirespeed.observe.opentelemetry needs opentelemetry-api: wirespeed[opentelemetry]"
    ) from exc

from .._version import __version__
from .observer import Observable
from .policies import MaybePolicies, PolicyMetric, PolicyReader, Values
from .reading import MaybeReadable, WatchedConnectors, with_methods
from .reasons import CloseReason
from .stats import PoolStats

SCHEMA_URL = "https://opentelemetry.io/schemas/1.42.0"

OPEN_CONNECTIONS = "http.client.open_connections"
CONNECTION_DURATION = "http.client.connection.duration"
ACTIVE_REQUESTS = "http.client.active_requests"
REQUEST_DURATION = "http.client.request.duration"

# Seconds; what the conventions advise.
CONNECTION_BOUNDARIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
REQUEST_BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

# RFC 9110 section 9, RFC 5789 and the QUERY method; every other is OTHER_METHOD, so that the set is bounded.
KNOWN_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
KNOWN_METHODS_VARIABLE = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS"
OTHER_METHOD = "_OTHER"
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
# Origins whose attributes are remembered; a connector remembers about as many.
ORIGINS = 1024

# Seconds for which instruments that are collected one after the other share what was read of the policies.
COLLECTION_SECONDS = 1.0
POLICY_KEY = "wirespeed.policy.key"

Attributes = Mapping[str, str | int]

_ORIGIN = re.compile(r"(?:https?|wss?)://[^/?#]+")


class Instrumentation:
    """What `instrument()` and `instrument_policies()` return: what is read, and how to stop that."""

    def __init__(self, instrumented: object, remove: Callable[[Any], None]) -> None:
        self._instrumented = weakref.ref(instrumented)
        self._remove = remove

    def uninstrument(self) -> None:
        """Stop reading a connector, and take its observer off; or stop reading policies. Again does nothing.

        To be called on the thread of a connector's loop. What was recorded stays with the SDK.
        """
        instrumented = self._instrumented()
        if instrumented is not None:
            self._remove(instrumented)


class Instruments:
    """The instruments of one meter provider, over all connectors and policies that are instrumented with it.

    One set for all: of an instrument that is made again the SDK drops the callbacks, and of two observations
    with the same attributes the first. It is the connectors' observer, too.
    """

    def __init__(self, meter_provider: MeterProvider) -> None:
        self._watched = WatchedConnectors()
        self._methods = known_methods()
        meter = metrics.get_meter("wirespeed", __version__, meter_provider, SCHEMA_URL)
        self.policies = PolicyInstruments(meter)
        meter.create_observable_up_down_counter(
            OPEN_CONNECTIONS,
            [self._observe_connections],
            unit="{connection}",
            description="Number of outbound HTTP connections that are active or idle on the client.",
        )
        meter.create_observable_up_down_counter(
            ACTIVE_REQUESTS,
            [self._observe_requests],
            unit="{request}",
            description="Number of active HTTP requests.",
        )
        self._connection_duration = meter.create_histogram(
            CONNECTION_DURATION,
            unit="s",
            description="The duration of the successfully established outbound HTTP connections.",
            explicit_bucket_boundaries_advisory=CONNECTION_BOUNDARIES,
        )
        self._request_duration = meter.create_histogram(
            REQUEST_DURATION,
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=REQUEST_BOUNDARIES,
        )

    def add(self, connector: Observable) -> None:
        """Observe a connector; once is enough."""
        if self._watched.add(connector):
            connector.add_observer(self)

    def remove(self, connector: Observable) -> None:
        """Stop observing a connector."""
        if self._watched.discard(connector):
            connector.remove_observer(self)

    # Called by the connectors

    def request_ended(
        self, origin: str, method: str, status: int | None, duration: float, error: BaseException | None
    ) -> None:
        attributes: dict[str, str | int] = {**attributes_of(origin)}
        attributes["http.request.method"] = method if method in self._methods else OTHER_METHOD
        if status is not None:
            attributes["http.response.status_code"] = status
        if error is not None:
            attributes["error.type"] = error_type(error)
        elif status is not None and status >= 400:
            attributes["error.type"] = str(status)
        self._request_duration.record(duration, attributes)

    def connection_closed(self, origin: str, duration: float, reason: CloseReason) -> None:
        self._connection_duration.record(duration, {**attributes_of(origin)})

    # Called by readers, on their threads

    def _observe_connections(self, _: CallbackOptions) -> Iterable[Observation]:
        for state, count in (("active", active_connections), ("idle", idle_connections)):
            for origin, number in self._sum(count).items():
                yield Observation(number, {**attributes_of(origin), "http.connection.state": state})

    def _observe_requests(self, _: CallbackOptions) -> Iterable[Observation]:
        for origin, number in self._sum(active_requests).items():
            yield Observation(number, {**attributes_of(origin)})

    def _sum(self, count: Callable[[PoolStats], int]) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for by_origin in self._watched.read().values():
            for origin, stats in by_origin.items():
                numbers[origin] = numbers.get(origin, 0) + count(stats)
        return numbers


class PolicyInstruments:
    """The instruments for the figures of policies: one for each, made with the first policy that has it."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._meter = meter
        self._reader = PolicyReader(max_labels=None)
        self._lock = threading.Lock()
        self._made: set[str] = set()
        # What was read, when, and which instruments have had it.
        self._values: dict[PolicyMetric, Values] = {}
        self._read_at = 0.0
        self._served: set[str] = set()

    def add(self, policies: MaybePolicies) -> None:
        """Read these; once is enough.

        Raises:
            TypeError: they are no policies.
        """
        self._reader.add(policies)
        with self._lock:
            known = {instrument_name(metric): metric for metric in self._reader.known()}
            missing = {name: metric for name, metric in known.items() if name not in self._made}
            self._made.update(missing)
        # Not under the lock: the SDK has one of its own, which it may hold while it calls us.
        for name, metric in missing.items():
            self._make(name, metric)

    def remove(self, policies: MaybePolicies) -> None:
        """Read these no more."""
        self._reader.discard(policies)

    def _make(self, name: str, metric: PolicyMetric) -> None:
        make = (
            self._meter.create_observable_gauge
            if metric.kind == "gauge"
            else self._meter.create_observable_counter
        )
        unit = "s" if metric.name.endswith("_seconds") else ""
        make(name, [functools.partial(self._observe, metric)], unit=unit, description=metric.help)

    def _observe(self, metric: PolicyMetric, _: CallbackOptions) -> Iterable[Observation]:
        for (key, part), value in self._read(metric).items():
            attributes = {**attributes_of_key(key)}
            if part:
                attributes[f"wirespeed.{metric.part}"] = part
            yield Observation(value, attributes)

    def _read(self, metric: PolicyMetric) -> Values:
        """Read the policies, once for all instruments of a collection."""
        with self._lock:
            name, now = instrument_name(metric), time.monotonic()
            if name in self._served or now - self._read_at > COLLECTION_SECONDS:
                self._values, self._read_at, self._served = self._reader.read(), now, set()
            self._served.add(name)
            return self._values.get(metric, {})


def instrument_name(metric: PolicyMetric) -> str:
    return ".".join(filter(None, ("wirespeed.policy", metric.policy, metric.name)))


def attributes_of_key(key: str) -> Attributes:
    """The attributes of what a policy keeps apart: those of an origin, where it is one."""
    return attributes_of(key) if _ORIGIN.fullmatch(key) else {POLICY_KEY: key}


def active_connections(stats: PoolStats) -> int:
    return stats.in_use


def idle_connections(stats: PoolStats) -> int:
    return stats.idle


def active_requests(stats: PoolStats) -> int:
    """Requests are active for their callers while they wait for a slot or a connection, too."""
    return stats.in_use + stats.dialling + stats.waiting


@functools.lru_cache(ORIGINS)
def attributes_of(origin: str) -> Attributes:
    """The attributes that all metrics of an origin have; to be copied, since SDKs may keep what they get."""
    scheme, _, authority = origin.partition("://")
    host, _, port = authority.rpartition(":")
    if not host or not port.isdigit():  # no port, or what follows the last colon is of an IPv6 address
        host, port = authority, ""
    return {
        "server.address": host.removeprefix("[").removesuffix("]"),
        "server.port": int(port or DEFAULT_PORTS.get(scheme, 0)),
        "url.scheme": scheme,
    }


def error_type(error: BaseException) -> str:
    """The qualified name of an exception's class; Python's own classes have no module in it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def known_methods() -> frozenset[str]:
    """The methods that are told apart; the environment may name others instead, as the conventions say."""
    names = os.environ.get(KNOWN_METHODS_VARIABLE)
    if names is None:
        return KNOWN_METHODS
    return frozenset(name.strip() for name in names.split(",") if name.strip())


_made: "weakref.WeakKeyDictionary[MeterProvider, Instruments]" = weakref.WeakKeyDictionary()
_of_the_process: Instruments | None = None
_making = threading.Lock()


def instrument(connector: MaybeReadable, meter_provider: MeterProvider | None = None) -> Instrumentation:
    """Report a connector's connections and requests as OpenTelemetry metrics.

    To be called on the thread of the connector's loop. The connector is not kept alive; what is reported of
    connectors that have an origin in common is summed. Instrumenting twice does what once does.

    `http.client.open_connections` has an `http.connection.state` of "active" or "idle".
    `http.client.active_requests` counts requests that wait for a connection too; a dial without a request
    (`prewarm`) counts as one. `http.client.request.duration` has an `error.type`: the status from 400 on, or
    the class of the exception, which is one of aiohttp's, TimeoutError or CancelledError. How many
    origins are told apart is up to the SDK's cardinality limit: 2,000 sets of attributes, unless configured.

    Args:
        connector: a connector of wirespeed's.
        meter_provider: where the metrics go; the process's own provider by default, which may be set later.

    Returns:
        A handle whose `uninstrument()` stops it.

    Raises:
        TypeError: the connector has no figures; aiohttp's own do not.
    """
    observable = with_methods(connector, "stats_by_origin", "add_observer", "remove_observer")
    instruments = _instruments_of(meter_provider)
    instruments.add(observable)
    return Instrumentation(observable, instruments.remove)


def instrument_policies(
    policies: MaybePolicies, meter_provider: MeterProvider | None = None
) -> Instrumentation:
    """Report the figures of policies as OpenTelemetry metrics. From any thread.

    Each figure is `wirespeed.policy.<policy>.<figure>`, and attempts by what they came to are
    `wirespeed.policy.attempts` with the attribute `wirespeed.outcome`. All have `server.address`,
    `server.port` and `url.scheme` where the policy keeps origins apart, else `wirespeed.policy.key`. A state,
    such as a circuit's, is an attribute, `wirespeed.state`: 1 for the one that it is in, 0 for the others.
    What keys had counted that were forgotten before it was reported is under the key "other".

    The policies are not kept alive. Those of a kind that have a key in common are summed, but for seconds and
    rates: of these, the highest is reported. Instrumenting twice does what once does.

    Args:
        policies: `Policies`, or a single policy that is used alone, as a middleware or by hand.
        meter_provider: where the metrics go; the process's own provider by default, which may be set later.

    Returns:
        A handle whose `uninstrument()` stops it.

    Raises:
        TypeError: they are no policies.
    """
    instruments = _instruments_of(meter_provider).policies
    instruments.add(policies)
    return Instrumentation(policies, instruments.remove)


def _instruments_of(meter_provider: MeterProvider | None) -> Instruments:
    global _of_the_process
    of_the_process = metrics.get_meter_provider()
    with _making:
        if meter_provider is None or meter_provider is of_the_process:
            # Made before there was a provider, they have become those of the one that was set since.
            if _of_the_process is None:
                _of_the_process = _made.get(of_the_process) or Instruments(of_the_process)
            return _of_the_process
        if meter_provider not in _made:
            _made[meter_provider] = Instruments(meter_provider)
        return _made[meter_provider]
