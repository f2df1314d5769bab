"""The pool's metrics for OpenTelemetry, under the names of its conventions; needs the extra `opentelemetry`.

Names, units, attributes and buckets are those of
https://opentelemetry.io/docs/specs/semconv/http/http-metrics/#http-client. Numbers of connections and of
requests are read when a reader collects; the two durations come from the connector's observers, which
`instrument()` adds and `uninstrument()` takes off. Until then nothing of this is in the way of a request.
"""

import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping

try:
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
except ImportError as exc:
    raise ImportError(
        "wirespeed.observe.opentelemetry needs opentelemetry-api: wirespeed[opentelemetry]"
    ) from exc

from .._version import __version__
from .observer import Observable
from .reading import MaybeReadable, Watched, with_methods
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
DEFAULT_PORTS = {"http": 80, "https": 443}
# Origins whose attributes are remembered; a connector remembers about as many.
ORIGINS = 1024

Attributes = Mapping[str, str | int]


class Instrumentation:
    """What `instrument()` returns: a connector and the metrics that it has part in."""

    def __init__(self, connector: Observable, instruments: "Instruments") -> None:
        self._connector = weakref.ref(connector)
        self._instruments = instruments

    def uninstrument(self) -> None:
        """Take the observer off and stop reading the connector; again does nothing.

        To be called on the thread of the connector's loop. What was recorded stays with the SDK.
        """
        connector = self._connector()
        if connector is not None:
            self._instruments.remove(connector)


class Instruments:
    """The four instruments of one meter provider, over all connectors that are instrumented with it.

    One set for all: of an instrument that is made again the SDK drops the callbacks, and of two observations
    with the same attributes the first. It is the connectors' observer, too.
    """

    def __init__(self, meter_provider: MeterProvider) -> None:
        self._watched = Watched()
        self._methods = known_methods()
        meter = metrics.get_meter("wirespeed", __version__, meter_provider, SCHEMA_URL)
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
    return Instrumentation(observable, instruments)


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
