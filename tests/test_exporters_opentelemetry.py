"""The OpenTelemetry metrics: names, units and attributes of the conventions, values, and their end."""

import asyncio
import gc
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality
from support.checks import eventually
from support.collected import Metrics
from support.local import LocalServer
from support.observed import FakeConnector, busy, origin, while_requests_run

import wirespeed
from wirespeed.observe import CloseReason, PoolStats
from wirespeed.observe.opentelemetry import Instruments, attributes_of, instrument

OPEN = "http.client.open_connections"
LIFETIMES = "http.client.connection.duration"
ACTIVE = "http.client.active_requests"
REQUESTS = "http.client.request.duration"

needs_figures = pytest.mark.skipif(
    not hasattr(wirespeed.TCPConnector, "stats_by_origin"), reason="aiohttp's own connectors have no figures"
)


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    metrics = Metrics()
    yield metrics
    metrics.provider.shutdown()


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that refuses connections: it is bound, and nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


# With a connector that is told what to say


def test_names_units_and_descriptions_are_those_of_the_conventions(metrics: Metrics) -> None:
    connector = FakeConnector(a=busy())
    instrument(connector, metrics.provider)
    connector.observers[0].request_ended(origin("a"), "GET", 200, 0.1, None)
    connector.observers[0].connection_closed(origin("a"), 1.5, CloseReason.MAX_AGE)
    found = metrics.collect()
    assert {name: metric.unit for name, metric in found.items()} == {
        OPEN: "{connection}",
        ACTIVE: "{request}",
        LIFETIMES: "s",
        REQUESTS: "s",
    }
    for name in (OPEN, ACTIVE):
        data = found[name].data
        assert not data.is_monotonic
        assert data.aggregation_temporality == AggregationTemporality.CUMULATIVE
    assert all(metric.description for metric in found.values())


def test_buckets_are_those_that_the_conventions_advise(metrics: Metrics) -> None:
    connector = FakeConnector()
    instrument(connector, metrics.provider)
    connector.observers[0].request_ended(origin("a"), "GET", 200, 0.1, None)
    connector.observers[0].connection_closed(origin("a"), 45.0, CloseReason.MAX_AGE)
    (request,) = metrics.points(REQUESTS).values()
    (lifetime,) = metrics.points(LIFETIMES).values()
    assert request.explicit_bounds == (
        0.005,
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
        0.25,
        0.5,
        0.75,
        1,
        2.5,
        5,
        7.5,
        10,
    )
    assert lifetime.explicit_bounds == (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
    assert (request.count, request.sum) == (1, 0.1)
    assert (lifetime.count, lifetime.sum) == (1, 45.0)


def test_connections_are_told_apart_by_state(metrics: Metrics) -> None:
    connector = FakeConnector(a=busy(), b=PoolStats(idle=1))
    instrument(connector, metrics.provider)
    assert metrics.values(OPEN, "server.address", "http.connection.state") == {
        ("a.example", "active"): 2,
        ("a.example", "idle"): 3,
        ("b.example", "active"): 0,
        ("b.example", "idle"): 1,
    }
    for labels in metrics.points(OPEN):
        assert dict(labels)["server.port"] == 443
        assert dict(labels)["url.scheme"] == "https"
        assert len(labels) == 4


def test_requests_that_wait_for_a_connection_are_active(metrics: Metrics) -> None:
    connector = FakeConnector(a=busy())
    instrument(connector, metrics.provider)
    assert metrics.values(ACTIVE, "server.address") == {"a.example": 2 + 4 + 5}


def test_attributes_of_a_request(metrics: Metrics) -> None:
    connector = FakeConnector()
    instrument(connector, metrics.provider)
    connector.observers[0].request_ended("http://127.0.0.1:8080", "POST", 201, 0.1, None)
    assert [dict(labels) for labels in metrics.points(REQUESTS)] == [
        {
            "http.request.method": "POST",
            "http.response.status_code": 201,
            "server.address": "127.0.0.1",
            "server.port": 8080,
            "url.scheme": "http",
        }
    ]


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (200, None, None),
        (399, None, None),
        (404, None, "404"),
        (503, None, "503"),
        (None, aiohttp.ServerDisconnectedError(), "aiohttp.client_exceptions.ServerDisconnectedError"),
        (None, TimeoutError(), "TimeoutError"),
        (200, aiohttp.ClientPayloadError(), "aiohttp.client_exceptions.ClientPayloadError"),
        (500, aiohttp.ClientPayloadError(), "aiohttp.client_exceptions.ClientPayloadError"),
        (None, asyncio.CancelledError(), "asyncio.exceptions.CancelledError"),
    ],
)
def test_type_of_error(
    metrics: Metrics, status: int | None, error: BaseException | None, expected: str | None
) -> None:
    connector = FakeConnector()
    instrument(connector, metrics.provider)
    connector.observers[0].request_ended(origin("a"), "GET", status, 0.1, error)
    (labels,) = (dict(labels) for labels in metrics.points(REQUESTS))
    assert labels.get("error.type") == expected
    assert labels.get("http.response.status_code") == status


def test_unknown_methods_are_one(metrics: Metrics) -> None:
    connector = FakeConnector()
    instrument(connector, metrics.provider)
    for method in ("GET", "QUERY", "PROPFIND", "X1", "X2", "get"):
        connector.observers[0].request_ended(origin("a"), method, 200, 0.1, None)
    assert metrics.values(REQUESTS, "http.request.method") == {"GET": 1, "QUERY": 1, "_OTHER": 4}


def test_the_environment_names_the_known_methods(metrics: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, PROPFIND")
    connector = FakeConnector()
    instrument(connector, metrics.provider)
    for method in ("GET", "PROPFIND", "POST"):
        connector.observers[0].request_ended(origin("a"), method, 200, 0.1, None)
    assert metrics.values(REQUESTS, "http.request.method") == {"GET": 1, "PROPFIND": 1, "_OTHER": 1}


@pytest.mark.parametrize(
    ("url", "address", "port", "scheme"),
    [
        ("https://example.org", "example.org", 443, "https"),
        ("http://example.org", "example.org", 80, "http"),
        ("http://127.0.0.1:8080", "127.0.0.1", 8080, "http"),
        ("http://[::1]:8080", "::1", 8080, "http"),
        ("https://[2001:db8::1]", "2001:db8::1", 443, "https"),
    ],
)
def test_parts_of_an_origin(url: str, address: str, port: int, scheme: str) -> None:
    assert attributes_of(url) == {"server.address": address, "server.port": port, "url.scheme": scheme}


def test_connectors_with_an_origin_in_common_are_summed(metrics: Metrics) -> None:
    one, two = FakeConnector(a=busy()), FakeConnector(a=busy())
    instrument(one, metrics.provider)
    instrument(two, metrics.provider)
    assert metrics.values(ACTIVE, "server.address") == {"a.example": 22}
    assert metrics.values(OPEN, "http.connection.state") == {"active": 4, "idle": 6}


def test_instrumenting_twice_does_what_once_does(metrics: Metrics) -> None:
    connector = FakeConnector(a=busy())
    first = instrument(connector, metrics.provider)
    second = instrument(connector, metrics.provider)
    assert len(connector.observers) == 1
    assert metrics.values(ACTIVE, "server.address") == {"a.example": 11}
    second.uninstrument()
    first.uninstrument()
    assert connector.observers == []


def test_uninstrument_stops_it(metrics: Metrics) -> None:
    connector, other = FakeConnector(a=busy()), FakeConnector(b=busy())
    handle = instrument(connector, metrics.provider)
    instrument(other, metrics.provider)
    assert metrics.values(ACTIVE, "server.address") == {"a.example": 11, "b.example": 11}
    handle.uninstrument()
    handle.uninstrument()
    assert connector.observers == []
    assert metrics.values(ACTIVE, "server.address") == {"b.example": 11}
    reads = connector.reads
    assert metrics.values(OPEN, "server.address", "http.connection.state").keys() == {
        ("b.example", "active"),
        ("b.example", "idle"),
    }
    assert connector.reads == reads
    instrument(connector, metrics.provider)
    assert metrics.values(ACTIVE, "server.address") == {"a.example": 11, "b.example": 11}


def test_two_providers_have_their_own(metrics: Metrics) -> None:
    another = Metrics()
    connector = FakeConnector(a=busy())
    instrument(connector, metrics.provider)
    handle = instrument(connector, another.provider)
    assert len(connector.observers) == 2
    handle.uninstrument()
    assert metrics.values(ACTIVE, "server.address") == {"a.example": 11}
    assert another.values(ACTIVE, "server.address") == {}
    another.provider.shutdown()


def test_a_connector_that_is_gone_is_not_reported(metrics: Metrics) -> None:
    connector = FakeConnector(a=busy())
    handle = instrument(connector, metrics.provider)
    assert metrics.values(ACTIVE, "server.address") == {"a.example": 11}
    connector.inbox.run()
    del connector
    gc.collect()
    assert metrics.values(ACTIVE, "server.address") == {}
    handle.uninstrument()


def test_a_provider_that_is_gone_leaves_nothing() -> None:
    gc.collect()
    before = sum(type(thing) is Instruments for thing in gc.get_objects())
    another, connector = Metrics(), FakeConnector(a=busy())
    instrument(connector, another.provider).uninstrument()
    another.provider.shutdown()
    del another
    gc.collect()
    assert sum(type(thing) is Instruments for thing in gc.get_objects()) == before


def test_what_has_no_figures_is_refused(metrics: Metrics) -> None:
    with pytest.raises(TypeError, match="Expected a connector of wirespeed's"):
        instrument(object(), metrics.provider)  # type: ignore[arg-type]


PROVIDER_SET_LATER = """
import sys

sys.path.insert(0, sys.argv[1])
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from support.observed import FakeConnector, busy, while_requests_run
from wirespeed.observe.opentelemetry import instrument

early, late, explicit = (FakeConnector(**{name: busy()}) for name in "abc")
instrument(early)
reader = InMemoryMetricReader()
provider = MeterProvider([reader], shutdown_on_exit=False)
metrics.set_meter_provider(provider)
instrument(late)
instrument(explicit, provider)
early.observers[0].request_ended("https://a.example", "GET", 200, 0.1, None)
(resource,) = reader.get_metrics_data().resource_metrics
(scope,) = resource.scope_metrics
for metric in scope.metrics:
    print(metric.name, sorted({point.attributes["server.address"] for point in metric.data.data_points}))
"""


def test_the_provider_of_the_process_may_be_set_later() -> None:
    command = [sys.executable, "-c", PROVIDER_SET_LATER, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert set(done.stdout.splitlines()) == {
        f"{OPEN} ['a.example', 'b.example', 'c.example']",
        f"{ACTIVE} ['a.example', 'b.example', 'c.example']",
        f"{REQUESTS} ['a.example']",
    }, done
    assert done.stderr == ""


# With real connections


def session_of(lane: str, **options: Any) -> wirespeed.ClientSession:
    """A session whose requests all take this lane."""
    return wirespeed.ClientSession(trust_env=lane == "full", **options)


def assert_lane(session: wirespeed.ClientSession, lane: str) -> None:
    if wirespeed.NATIVE:
        counted = session.native_stats()
        assert (counted["express"] == 0, counted["full"] == {}) == (lane == "full", lane == "express"), (
            counted
        )


both_lanes = pytest.mark.parametrize("lane", ["express", "full"])
# Strict: the marks go when the connector tells of aiohttp's own requests, too.
both_lanes_told = pytest.mark.parametrize("lane", ["express", "full"])


@needs_figures
@both_lanes_told
async def test_requests_and_connections_of_a_session(metrics: Metrics, lane: str) -> None:
    async with LocalServer() as server, session_of(lane) as session:
        instrument(session.connector, metrics.provider)
        for path in ("/ok", "/ok", "/status?n=404", "/redirect?to=/ok"):
            async with session.get(server.url(path)) as resp:
                await resp.read()
        async with session.post(server.url("/echo"), data=b"x") as resp:
            await resp.read()
        assert metrics.values(REQUESTS, "http.request.method", "http.response.status_code", "error.type") == {
            ("GET", 200, None): 3,
            ("GET", 302, None): 1,
            ("GET", 404, "404"): 1,
            ("POST", 200, None): 1,
        }
        for labels, point in metrics.points(REQUESTS).items():
            assert dict(labels)["server.address"] == "127.0.0.1"
            assert dict(labels)["server.port"] == server.port
            assert dict(labels)["url.scheme"] == "http"
            assert 0 < point.sum < 5
        assert metrics.values(OPEN, "http.connection.state") == {"active": 0, "idle": 1}
        assert metrics.values(ACTIVE, "server.address") == {"127.0.0.1": 0}

        held = asyncio.ensure_future(session.get(server.url("/hold")))
        await eventually(lambda: server.held, "the request held")
        assert metrics.values(OPEN, "http.connection.state") == {"active": 1, "idle": 0}
        assert metrics.values(ACTIVE, "server.port") == {server.port: 1}
        server.held.pop().respond(200, b"late")
        await (await held).read()
        assert_lane(session, lane)


@needs_figures
@both_lanes_told
async def test_a_lost_connection_has_its_error(metrics: Metrics, lane: str) -> None:
    async with LocalServer() as server, session_of(lane) as session:
        instrument(session.connector, metrics.provider)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(server.url("/drop"))
        assert metrics.values(REQUESTS, "http.request.method", "http.response.status_code", "error.type") == {
            ("POST", None, "aiohttp.client_exceptions.ServerDisconnectedError"): 1
        }
        assert_lane(session, lane)


@needs_figures
@both_lanes_told
async def test_a_refused_connection_has_its_error(metrics: Metrics, lane: str, unused_port: int) -> None:
    async with session_of(lane) as session:
        instrument(session.connector, metrics.provider)
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{unused_port}/")
        assert metrics.values(REQUESTS, "server.port", "error.type") == {
            (unused_port, "aiohttp.client_exceptions.ClientConnectorError"): 1
        }
        assert metrics.values(LIFETIMES, "server.port") == {}


@needs_figures
@both_lanes
async def test_connections_that_end_have_their_duration(metrics: Metrics, lane: str) -> None:
    async with LocalServer() as server:
        async with session_of(lane) as session:
            instrument(session.connector, metrics.provider)
            for _ in range(2):
                await (await session.get(server.url("/ok"))).read()
            assert metrics.values(LIFETIMES, "server.port") == {}
            await asyncio.sleep(0.05)
        assert metrics.values(LIFETIMES, "server.port") == {server.port: 1}
        (point,) = metrics.points(LIFETIMES).values()
        assert 0.05 <= point.sum < 5


@needs_figures
@both_lanes_told
async def test_uninstrumented_connectors_record_nothing_more(metrics: Metrics, lane: str) -> None:
    async with LocalServer() as server:
        async with session_of(lane) as session:
            handle = instrument(session.connector, metrics.provider)
            await (await session.get(server.url("/ok"))).read()
            assert metrics.values(REQUESTS, "server.port") == {server.port: 1}
            handle.uninstrument()
            await (await session.get(server.url("/ok"))).read()
            assert metrics.values(REQUESTS, "server.port") == {server.port: 1}
            assert metrics.values(OPEN, "http.connection.state") == {}
        assert metrics.values(LIFETIMES, "server.port") == {}


@needs_figures
async def test_a_reader_may_collect_while_requests_run(metrics: Metrics) -> None:
    async with LocalServer() as server, session_of("express") as session:
        instrument(session.connector, metrics.provider)
        requests, _ = await while_requests_run(session, server.url("/ok"), metrics.collect)
        assert metrics.values(REQUESTS, "server.port") == {server.port: requests}
        assert metrics.values(ACTIVE, "server.port") == {server.port: 0}
