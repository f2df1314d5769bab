"""The Prometheus collector: its metrics and labels, counters that never fall, and a real endpoint scraped."""

import asyncio
import dataclasses
import gc
import math
import subprocess
import sys
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from support.checks import eventually
from support.local import LocalServer, client_tls, server_tls
from support.observed import FakeConnector, busy, origin, while_requests_run
from support.scraping import Scrape, endpoint, fetch, scrape

import wirespeed
from wirespeed.observe import CloseReason, PoolStats, Spread
from wirespeed.observe.growth import OTHER
from wirespeed.observe.prometheus import PoolCollector

needs_figures = pytest.mark.skipif(
    not hasattr(wirespeed.TCPConnector, "stats_by_origin"), reason="aiohttp's own connectors have no figures"
)


def registered(*connectors: Any, **options: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(PoolCollector(*connectors, **options))
    return registry


def test_importing_wirespeed_imports_no_exporter() -> None:
    code = (
        "import sys, wirespeed, wirespeed.observe\n"
        "print([name for name in ('prometheus_client', 'opentelemetry') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done


def test_every_figure_has_its_metric() -> None:
    connector = FakeConnector(a=busy())
    shown = scrape(registered(connector))
    a = origin("a")
    assert {
        state: shown.get("connections", origin=a, state=state) for state in ("in_use", "idle", "dialling")
    } == {"in_use": 2, "idle": 3, "dialling": 4}
    assert shown.get("waiters", origin=a) == 5
    counters = {
        "connections_opened": 6,
        "connections_reused": 7,
        "requests": 1,
        "waits_refused": 8,
        "wait_timeouts": 9,
        "dial_failures": 10,
        "stale_retries": 11,
        "received_bytes": 12,
        "sent_bytes": 13,
    }
    assert {name: shown.get(f"{name}_total", origin=a) for name in counters} == counters
    assert shown.get("connections_closed_total", origin=a, reason="idle_eof") == 14
    assert shown.get("connections_closed_total", origin=a, reason="max_age") == 15
    assert shown.get("connections_closed_total", origin=a, reason="lost") is None
    assert shown.get("wait_seconds_count", origin=a) == 3
    assert shown.get("wait_seconds_sum", origin=a) == 0.3125
    assert shown.get("wait_seconds_bucket", origin=a, le="0.001") == 1
    assert shown.get("wait_seconds_bucket", origin=a, le="0.02") == 1
    assert shown.get("wait_seconds_bucket", origin=a, le="0.05") == 2
    assert shown.get("wait_seconds_bucket", origin=a, le="60.0") == 3
    assert shown.get("wait_seconds_bucket", origin=a, le="+Inf") == 3
    assert (shown.get("dial_seconds_count", origin=a), shown.get("dial_seconds_sum", origin=a)) == (17, 1.5)
    assert shown.get("tls_handshake_seconds_sum", origin=a) == 2.5
    assert shown.get("connection_requests_count", origin=a) == 19
    assert shown.get("connection_requests_sum", origin=a) == 190
    assert shown.get("wait_max_seconds", origin=a) == 0.25
    assert shown.get("dial_max_seconds", origin=a) == 0.75
    assert shown.get("tls_handshake_max_seconds", origin=a) == 0.5
    assert shown.get("connection_max_requests", origin=a) == 20
    assert shown.get("learned_keepalive_seconds", origin=a) == 4.5


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(PoolStats)])
def test_no_figure_is_left_out(field: str) -> None:
    """Also holds a figure to account that is added to PoolStats one day."""
    before, after = busy(), getattr(busy(), field)
    changed = {CloseReason.EVICTED: 1} if field == "closed" else None
    if isinstance(after, Spread):
        changed = dataclasses.replace(after, total=after.total + 1)
    connector = FakeConnector(a=before)
    one = scrape(registered(connector)).samples
    connector.set("a", **{field: after + 1 if changed is None else changed})
    assert scrape(registered(connector)).samples != one


def test_types_and_help_are_those_of_the_conventions() -> None:
    connector = FakeConnector(a=busy())
    families = scrape(registered(connector)).families
    types = {name: family.type for name, family in families.items()}
    assert types["wirespeed_pool_connections"] == types["wirespeed_pool_waiters"] == "gauge"
    assert types["wirespeed_pool_wait_seconds"] == "histogram"
    assert types["wirespeed_pool_dial_seconds"] == "summary"
    assert types["wirespeed_pool_requests"] == "counter"
    for family in families.values():
        assert family.documentation.endswith("."), family
        is_counted = {sample.name.endswith("_total") for sample in family.samples}
        assert is_counted == {family.type == "counter"}, family


def test_openmetrics_takes_it() -> None:
    connector = FakeConnector(a=busy(), b=PoolStats())
    registry = registered(connector)
    text = generate_openmetrics(registry).decode()
    assert {family.name for family in parse_openmetrics(text)} == set(scrape(registry).families)


def test_another_namespace() -> None:
    connector = FakeConnector(a=busy())
    text = generate_latest(registered(connector, namespace="shop")).decode()
    assert "\nshop_pool_requests_total{" in text
    assert "wirespeed" not in text


def test_registering_reads_nothing_and_finds_duplicates() -> None:
    connector = FakeConnector(a=busy())
    registry = CollectorRegistry(auto_describe=True)
    registry.register(PoolCollector(connector))
    assert connector.reads == 0
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(PoolCollector(connector))
    registry.register(PoolCollector(connector, namespace="other"))


def test_one_metric_can_be_asked_for() -> None:
    connector = FakeConnector(a=busy())
    restricted = registered(connector).restricted_registry(["wirespeed_pool_requests_total"])
    assert [family.name for family in restricted.collect()] == ["wirespeed_pool_requests"]


def test_what_has_no_figures_is_refused() -> None:
    with pytest.raises(TypeError, match="Expected a connector of wirespeed's"):
        PoolCollector(object())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_origins"):
        PoolCollector(max_origins=-1)


def test_without_connectors_there_are_no_samples() -> None:
    assert scrape(registered()).samples == {}


# The bound of the labels


def test_the_busiest_origins_keep_their_label() -> None:
    connector = FakeConnector(**{f"h{number}": busy(requests=number) for number in range(250)})
    shown = scrape(registered(connector))
    assert shown.labels() == {origin(f"h{number}") for number in range(150, 250)} | {OTHER}
    assert shown.get("requests_total", origin=OTHER) == sum(range(150))
    assert shown.get("connections", origin=OTHER, state="idle") == 150 * 3
    assert shown.get("connections_closed_total", origin=OTHER, reason="max_age") == 150 * 15
    assert shown.get("wait_seconds_bucket", origin=OTHER, le="+Inf") == 150 * 3
    assert shown.get("dial_max_seconds", origin=OTHER) == 0.75
    assert shown.get("learned_keepalive_seconds", origin=OTHER) is None
    assert shown.sum("requests_total") == sum(range(250))


def test_a_bound_of_none_puts_all_under_other() -> None:
    connector = FakeConnector(a=busy(1), b=busy(2))
    shown = scrape(registered(connector, max_origins=0))
    assert shown.labels() == {OTHER}
    assert shown.get("requests_total", origin=OTHER) == 3


def test_up_to_the_bound_there_is_no_other() -> None:
    connector = FakeConnector(a=busy(), b=busy())
    assert scrape(registered(connector, max_origins=2)).labels() == {origin("a"), origin("b")}


def test_a_change_of_label_makes_no_counter_fall() -> None:
    connector = FakeConnector(a=busy(100), b=busy(10))
    registry = registered(connector, max_origins=1)
    a, b = origin("a"), origin("b")
    first = scrape(registry)
    assert (first.get("requests_total", origin=a), first.get("requests_total", origin=OTHER)) == (100, 10)

    connector.set("b", requests=150)  # 140 more: it is the busiest now
    second = scrape(registry)
    assert second.labels() == {b, OTHER}
    assert (second.get("requests_total", origin=b), second.get("requests_total", origin=OTHER)) == (140, 10)

    connector.set("a", requests=101)  # counted where it is shown now
    assert scrape(registry).get("requests_total", origin=OTHER) == 11

    connector.set("a", requests=200)  # back under its label: it goes on where that was
    last = scrape(registry)
    assert last.labels() == {a, OTHER}
    assert (last.get("requests_total", origin=a), last.get("requests_total", origin=OTHER)) == (199, 11)


def test_among_equals_the_label_stays() -> None:
    connector = FakeConnector(b=busy(5))
    registry = registered(connector, max_origins=1)
    scrape(registry)
    connector.set("a", requests=5)
    assert origin("b") in scrape(registry).labels()


def test_an_origin_that_was_forgotten_takes_nothing_from_other() -> None:
    connector = FakeConnector(a=busy(100), b=busy(10), c=busy(20))
    registry = registered(connector, max_origins=1)
    assert scrape(registry).get("requests_total", origin=OTHER) == 30
    del connector.figures[origin("c")]
    assert scrape(registry).get("requests_total", origin=OTHER) == 30
    connector.set("c", requests=4)  # met again
    shown = scrape(registry)
    assert shown.get("requests_total", origin=OTHER) == 34
    assert shown.get("connections", origin=OTHER, state="idle") == 3


def test_an_origin_that_started_again_between_two_scrapes_is_counted_from_nothing() -> None:
    connector = FakeConnector(a=busy(100))
    registry = registered(connector)
    scrape(registry)
    connector.set("a", requests=3)
    assert scrape(registry).get("requests_total", origin=origin("a")) == 103


# Several connectors, and their end


def test_connectors_with_an_origin_in_common_are_summed() -> None:
    one, two = FakeConnector(a=busy(1)), FakeConnector(a=busy(2), b=busy(4))
    two.set("a", dials=Spread(1, 3.0, 3.0), learned_keepalive=2.0)
    shown = scrape(registered(one, two))
    a = origin("a")
    assert shown.get("requests_total", origin=a) == 3
    assert shown.get("connections", origin=a, state="in_use") == 4
    assert shown.get("dial_seconds_count", origin=a) == 18
    assert shown.get("dial_seconds_sum", origin=a) == 4.5
    assert shown.get("dial_max_seconds", origin=a) == 3.0
    assert shown.get("learned_keepalive_seconds", origin=a) == 2.0
    assert shown.get("requests_total", origin=origin("b")) == 4


def test_a_connector_is_added_once() -> None:
    connector = FakeConnector(a=busy(1))
    collector = PoolCollector(connector)
    collector.add(connector)
    registry = CollectorRegistry()
    registry.register(collector)
    assert scrape(registry).get("requests_total", origin=origin("a")) == 1


def test_a_connector_that_is_gone_is_not_shown() -> None:
    one, two = FakeConnector(a=busy(1), b=busy(1)), FakeConnector(a=busy(2))
    registry = registered(one, two)
    assert scrape(registry).labels() == {origin("a"), origin("b")}
    one.inbox.run()
    del one
    gc.collect()
    shown = scrape(registry)
    assert shown.labels() == {origin("a")}
    assert shown.get("requests_total", origin=origin("a")) == 3  # a counter does not fall
    assert shown.get("connections", origin=origin("a"), state="idle") == 3
    two.inbox.run()
    del two
    gc.collect()
    assert scrape(registry).samples == {}


def test_a_connector_that_loses_its_owner_during_a_scrape_ends_on_its_loop() -> None:
    """Its finalizer closes transports, which is for the loop's thread alone."""
    ended: list[str] = []

    class LosesItsOwner(FakeConnector):
        def stats_by_origin(self) -> dict[str, PoolStats]:
            owners.clear()
            return super().stats_by_origin()

        def __del__(self) -> None:
            ended.append("collected")

    owners = [LosesItsOwner(a=busy())]
    inbox = owners[0].inbox
    registry = registered(owners[0])
    assert scrape(registry).labels() == {origin("a")}
    gc.collect()
    assert ended == []
    inbox.run()
    gc.collect()
    assert ended == ["collected"]


def test_the_loop_of_a_connector_may_be_closed() -> None:
    connector = FakeConnector(a=busy())
    connector._loop = loop = asyncio.new_event_loop()
    loop.close()
    assert scrape(registered(connector)).labels() == {origin("a")}


# A real endpoint, real requests


def assert_shows(shown: Scrape, name: str, stats: PoolStats) -> None:
    """What was scraped for an origin is what the connector says."""
    expected = {
        ("connections", ("state", "in_use")): stats.in_use,
        ("connections", ("state", "idle")): stats.idle,
        ("connections", ("state", "dialling")): stats.dialling,
        ("waiters",): stats.waiting,
        ("connections_opened_total",): stats.created,
        ("connections_reused_total",): stats.reused,
        ("requests_total",): stats.requests,
        ("waits_refused_total",): stats.refused,
        ("wait_timeouts_total",): stats.wait_timeouts,
        ("dial_failures_total",): stats.dial_failures,
        ("stale_retries_total",): stats.stale_retries,
        ("received_bytes_total",): stats.bytes_in,
        ("sent_bytes_total",): stats.bytes_out,
        ("wait_seconds_count",): stats.waits.count,
        ("wait_seconds_sum",): stats.waits.total,
        ("dial_seconds_count",): stats.dials.count,
        ("dial_seconds_sum",): stats.dials.total,
        ("dial_max_seconds",): stats.dials.max,
        ("tls_handshake_seconds_count",): stats.tls_handshakes.count,
        ("tls_handshake_seconds_sum",): stats.tls_handshakes.total,
        ("connection_requests_count",): stats.requests_per_connection.count,
        ("connection_requests_sum",): stats.requests_per_connection.total,
        **{
            ("connections_closed_total", ("reason", reason.name.lower())): count
            for reason, count in stats.closed.items()
        },
    }
    for (metric, *labels), value in expected.items():
        found = shown.get(metric, origin=name, **dict(labels))
        assert found is not None, (metric, labels)
        assert math.isclose(found, value, abs_tol=1e-9), (metric, labels, found, value)


@needs_figures
@pytest.mark.parametrize("lane", ["express", "full"])
async def test_a_scraped_endpoint_shows_what_the_connector_says(lane: str) -> None:
    registry = CollectorRegistry()
    async with LocalServer() as server, wirespeed.ClientSession(trust_env=lane == "full") as session:
        registry.register(PoolCollector(session.connector))
        name = server.url("").rstrip("/")
        with endpoint(registry) as url:
            for path in ("/ok", "/ok", "/status?n=404"):
                await (await session.get(server.url(path))).read()
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post(server.url("/drop"))
            held = asyncio.ensure_future(session.get(server.url("/hold")))
            await eventually(lambda: server.held, "the request held")

            shown = Scrape(await asyncio.to_thread(fetch, url))
            assert shown.labels() == {name}
            assert_shows(shown, name, session.connector.stats_by_origin()[name])
            assert shown.get("connections", origin=name, state="in_use") == 1
            assert_shows(shown, name, session.connector.stats())
            assert shown.get("requests_total", origin=name) == 5
            assert shown.get("connections_opened_total", origin=name) == 2
            text = await asyncio.to_thread(fetch, url, "application/openmetrics-text")
            assert "wirespeed_pool_requests" in {family.name for family in parse_openmetrics(text)}

            server.held.pop().respond(200, b"late")
            await (await held).read()
            shown = Scrape(await asyncio.to_thread(fetch, url))
            assert shown.get("connections", origin=name, state="in_use") == 0
            assert shown.get("connections", origin=name, state="idle") == 1
            if wirespeed.NATIVE:
                counted = session.native_stats()
                assert bool(counted["express"]) == (lane == "express"), counted


@needs_figures
async def test_the_end_of_a_connection_is_shown_with_its_reason() -> None:
    registry = CollectorRegistry()
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        registry.register(PoolCollector(session.connector))
        await (await session.get(server.url("/ok"))).read()
        server.open[0].transport.close()
        await eventually(lambda: session.connector.stats().idle == 0, "the idle connection dropped")
        name = server.url("").rstrip("/")
        shown = scrape(registry)
        assert shown.get("connections_closed_total", origin=name, reason="idle_eof") == 1
        assert shown.labels("reason") == {"idle_eof"}
        assert shown.get("connection_requests_sum", origin=name) == 1


@needs_figures
async def test_tls_and_waits_are_shown() -> None:
    registry = CollectorRegistry()
    connector = wirespeed.TCPConnector(limit=1, ssl=client_tls())
    async with (
        LocalServer(ssl_context=server_tls()) as server,
        wirespeed.ClientSession(connector=connector) as session,
    ):
        registry.register(PoolCollector(connector))
        first = asyncio.ensure_future(session.get(server.url("/hold")))
        await eventually(lambda: server.held, "the request held")
        second = asyncio.ensure_future(session.get(server.url("/ok")))
        await eventually(lambda: connector.stats().waiting, "the second waits")
        name = server.url("").rstrip("/")
        assert scrape(registry).get("waiters", origin=name) == 1
        server.held.pop().respond(200, b"late")
        for task in (first, second):
            await (await task).read()
        shown = scrape(registry)
        assert shown.get("tls_handshake_seconds_count", origin=name) == 1
        assert shown.get("wait_seconds_count", origin=name) == 1
        assert_shows(shown, name, connector.stats())


@needs_figures
async def test_a_real_connector_that_is_collected_disappears() -> None:
    registry = CollectorRegistry()
    async with LocalServer() as server:

        async def use_a_session() -> None:
            async with wirespeed.ClientSession() as session:
                collector = PoolCollector(session.connector)
                registry.register(collector)
                await (await session.get(server.url("/ok"))).read()
                assert scrape(registry).labels() == {server.url("").rstrip("/")}

        await use_a_session()
        gc.collect()
        await eventually(lambda: gc.collect() >= 0 and not scrape(registry).samples, "the connector gone")


@needs_figures
async def test_scrapes_on_a_thread_while_requests_run() -> None:
    """Counters never fall, and no scrape fails, whatever the pool is doing."""
    registry = CollectorRegistry()
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        registry.register(PoolCollector(session.connector))
        requests, seen = await while_requests_run(
            session, server.url("/ok"), lambda: scrape(registry).sum("requests_total")
        )
        assert seen == sorted(seen)
        assert scrape(registry).sum("requests_total") == session.connector.stats().requests
        assert session.connector.stats().requests == requests
