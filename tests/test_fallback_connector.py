"""The connectors and responses that stand in where the native core is missing: aiohttp's pool, watched.

They need no core to run, nor its absence: here sessions get them as somebody's own connector.
"""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import contextlib
import io
import logging
import os
import random
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from support.checks import eventually, nothing_left
from support.local import LocalServer, client_tls, port_that_never_accepts, server_tls

import wirespeed
from wirespeed import CloseReason, PoolFull, PoolTimeout
from wirespeed.fallback import ClientResponse, TCPConnector, UnixConnector, connectors
from wirespeed.fallback.ledger import Ledger
from wirespeed.observe import PoolStats
from wirespeed.stamps import StampedResponse

Timeout = aiohttp.ClientTimeout
SHORT = 0.05


def new_session(connector: Any = None, **kwargs: Any) -> wirespeed.ClientSession:
    connector = TCPConnector() if connector is None else connector
    return wirespeed.ClientSession(connector=connector, response_class=ClientResponse, **kwargs)


async def read(session: Any, url: str, **kwargs: Any) -> bytes:
    async with session.get(url, **kwargs) as resp:
        return await resp.read()  # type: ignore[no-any-return]


class Held:
    """A request that has a connection until it is let go."""

    def __init__(self, session: Any, server: LocalServer, path: str = "/hold") -> None:
        self.server, self.count = server, len(server.held)
        self.task = asyncio.create_task(read(session, server.url(path)), name="holder")

    async def __aenter__(self) -> "Held":
        await eventually(lambda: len(self.server.held) > self.count, "request held")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.let_go()

    async def let_go(self) -> None:
        if not self.task.done():
            self.server.held[self.count].respond(200, b"held")
            assert await self.task == b"held"


def recount(connector: TCPConnector) -> tuple[int, int]:
    """What aiohttp's own dictionaries say: in use, idle and connected."""
    held = [protocol for protocol in connector._acquired if isinstance(protocol, ResponseHandler)]
    idle = [protocol for conns in connector._conns.values() for protocol, _ in conns]
    return len(held), sum(protocol.is_connected() for protocol in idle)


def check_sums(connector: TCPConnector) -> PoolStats:
    """Origins add up to the whole, and what was made is open or was closed."""
    whole, parts = connector.stats(), connector.stats_by_origin().values()
    for name in ("in_use", "idle", "created", "reused", "requests", "dial_failures"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts), name
    assert whole.created == whole.open + sum(whole.closed.values())
    assert whole.requests_per_connection.count == sum(whole.closed.values())
    return whole


# What they are


async def test_they_are_aiohttps() -> None:
    async with TCPConnector() as connector, UnixConnector("/run/none.sock") as unix:
        assert isinstance(connector, aiohttp.TCPConnector)
        assert isinstance(unix, aiohttp.UnixConnector)
        assert issubclass(ClientResponse, aiohttp.ClientResponse)


def test_without_the_core_a_session_uses_them(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import asyncio, sys, aiohttp, wirespeed
from wirespeed import fallback
sys.path.insert(0, sys.argv[1])
from support.local import LocalServer

async def main():
    assert not wirespeed.NATIVE
    assert wirespeed.TCPConnector is fallback.TCPConnector
    assert wirespeed.UnixConnector is fallback.UnixConnector
    assert wirespeed.ClientResponse is fallback.ClientResponse
    async with LocalServer() as server:
        async with wirespeed.ClientSession() as session:
            assert type(session.connector) is wirespeed.TCPConnector
            assert await session.prewarm(server.url(), 2) == 2
            async with session.get(server.url("/ok")) as resp:
                assert await resp.read() == b"ok"
                assert resp.timings.total > 0 and resp.connection_info.reused
            assert session.connector.stats().requests == 1
        async with wirespeed.request("GET", server.url("/ok")) as resp:
            assert type(resp) is wirespeed.ClientResponse
        wirespeed.install()
        async with aiohttp.ClientSession() as session:
            assert type(session.connector) is wirespeed.TCPConnector
        wirespeed.uninstall()
        assert aiohttp.TCPConnector is not wirespeed.TCPConnector

asyncio.run(main())
"""
    )
    environ = {**os.environ, "WIRESPEED_NO_EXTENSIONS": "1"}
    arguments = [sys.executable, "-W", "error", str(program), str(Path(__file__).parent)]
    done = subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


async def test_one_line_tells_the_state() -> None:
    async with LocalServer() as server:
        async with new_session(TCPConnector(limit=7, limit_per_host=3)) as session:
            async with Held(session, server):
                assert repr(session.connector) == (
                    "<TCPConnector: 1 in use, 0 dialling, 0 idle, 0 waiting; limit 7, 3 per host; "
                    "1 created, 0 reused>"
                )
    connector = TCPConnector(limit=0)
    await connector.close()
    assert repr(connector).startswith("<TCPConnector closed: 0 in use")
    assert "limit none" in repr(connector)
    assert repr(TCPConnector.__new__(TCPConnector)) == "<TCPConnector closed>"


async def test_parameters_without_effect_are_told_once_and_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connectors._log_once.cache_clear()
    with caplog.at_level(logging.DEBUG, "wirespeed"):
        await TCPConnector().close()
        await TCPConnector(learn_keepalive=False, track_leaks=False).close()
        assert not caplog.records
        for _ in range(2):
            connector = TCPConnector(track_leaks=True, learn_keepalive=True)
            assert connector.leaks() == []
            await connector.close()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "learn_keepalive has no effect: the native core is missing"),
        ("INFO", "track_leaks has no effect: the native core is missing"),
    ]


async def test_connector_that_is_not_closed_complains_and_goes_away() -> None:
    async with LocalServer() as server:
        session = new_session()
        await read(session, server.url("/ok"))
        reference = weakref.ref(session.connector)
        holder = [session._connector]
        session.detach()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *args: None)
        with pytest.warns(ResourceWarning, match="Unclosed connector <TCPConnector"):
            holder.clear()
        loop.set_exception_handler(None)
        assert reference() is None


# Limits and waiting


async def test_pool_timeout_names_the_limit_and_the_holders() -> None:
    async with LocalServer() as server, nothing_left():
        async with new_session(TCPConnector(limit=1, pool_timeout=SHORT)) as session:
            async with Held(session, server):
                with pytest.raises(PoolTimeout) as caught:
                    await read(session, server.url("/ok"))
                exc = caught.value
                assert exc.args == (f"Connection timeout to host {server.url('/ok')}",)
                assert (exc.limit_name, exc.limit, exc.in_use, exc.waiting) == ("limit", 1, 1, 0)
                assert SHORT * 0.8 <= exc.waited < 2
                (holder,) = exc.holders
                assert (holder.origin, holder.task) == (server.url(""), "holder")
                assert holder.age >= exc.waited
                stats = check_sums(session.connector)
                assert (stats.wait_timeouts, stats.waiting, stats.waits.count) == (1, 0, 0)
            assert await read(session, server.url("/ok")) == b"ok"


async def test_connect_timeout_in_the_queue_is_a_pool_timeout_where_one_is_set() -> None:
    async with LocalServer() as server, nothing_left():
        async with new_session(TCPConnector(limit_per_host=1)) as session:
            async with Held(session, server):
                with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
                    await read(session, server.url("/ok"), timeout=Timeout(connect=SHORT))
                assert type(caught.value) is aiohttp.ConnectionTimeoutError
        async with new_session(TCPConnector(limit_per_host=1, pool_timeout=9)) as session:
            async with Held(session, server):
                with pytest.raises(PoolTimeout, match="limit_per_host=1 reached: 1 in use"):
                    await read(session, server.url("/ok"), timeout=Timeout(connect=SHORT))


async def test_total_timeout_in_the_queue_and_connect_timeout_of_a_dial_are_none() -> None:
    with port_that_never_accepts() as port:
        async with LocalServer() as server, nothing_left():
            async with new_session(TCPConnector(limit=1, pool_timeout=9)) as session:
                async with Held(session, server):
                    with pytest.raises(asyncio.TimeoutError) as caught:
                        await read(session, server.url("/ok"), timeout=Timeout(total=SHORT))
                    assert not isinstance(caught.value, PoolTimeout)
                with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
                    await read(session, f"http://127.0.0.1:{port}/", timeout=Timeout(connect=SHORT))
                assert not isinstance(caught.value, PoolTimeout)
                stats = check_sums(session.connector)
                assert (stats.wait_timeouts, stats.dial_failures, stats.dialling) == (0, 1, 0)


async def test_session_of_aiohttps_finds_it_as_the_cause() -> None:
    async with LocalServer() as server:
        connector = TCPConnector(limit=1, pool_timeout=SHORT)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with Held(session, server):
                with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
                    await read(session, server.url("/ok"))
                assert isinstance(caught.value.__cause__ or caught.value, PoolTimeout)


@pytest.mark.parametrize("most", [0, 2])
async def test_no_more_wait_than_may(most: int) -> None:
    async with LocalServer() as server, nothing_left():
        connector = TCPConnector(limit=1, max_waiters=most)
        async with new_session(connector) as session:
            async with Held(session, server):
                waiters = [asyncio.create_task(read(session, server.url("/ok"))) for _ in range(most)]
                await eventually(lambda: connector.stats().waiting == most, "callers wait")
                with pytest.raises(PoolFull, match=f"max_waiters={most} wait already: limit=1 re") as caught:
                    await read(session, server.url("/ok"))
                assert caught.value.waiting == most
            assert await asyncio.gather(*waiters) == [b"ok"] * most
            stats = check_sums(connector)
            assert (stats.refused, stats.waits.count, stats.requests) == (1, most, most + 1)
            assert sum(stats.waits.counts) == most


async def test_slot_of_a_waiter_that_was_woken_and_cancelled_goes_to_the_next() -> None:
    async with LocalServer() as server, nothing_left():
        connector = TCPConnector(limit=1)
        async with new_session(connector) as session:
            holder = Held(session, server)
            async with holder:
                first, second = (asyncio.create_task(read(session, server.url("/ok"))) for _ in range(2))
                await eventually(lambda: connector.stats().waiting == 2, "both wait")
                (queue,) = connector._waiters.values()
                # In the step in which it is woken, as when its timeout passes just then.
                next(iter(queue)).add_done_callback(lambda _: first.cancel())
                await holder.let_go()
            assert await asyncio.wait_for(second, 5) == b"ok"
            with pytest.raises(asyncio.CancelledError):
                await first


async def test_connector_goes_on_after_cancellations_in_the_queue() -> None:
    async with LocalServer() as server, nothing_left():
        connector = TCPConnector(limit=2, pool_timeout=5)
        async with new_session(connector) as session:
            chance = random.Random(3)

            async def one() -> None:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(read(session, server.url("/ok")), chance.choice((0.001, 0.01, 5)))

            for _ in range(5):
                await asyncio.gather(*(one() for _ in range(30)))
            stats = check_sums(connector)
            assert (stats.in_use, stats.waiting, stats.dialling) == (0, 0, 0)
            assert (stats.in_use, stats.idle) == recount(connector)
            assert await read(session, server.url("/ok")) == b"ok"


# Lifetime


@pytest.mark.parametrize(("reuse", "number"), [("fifo", 0), ("lifo", 1)])
async def test_connection_is_taken_from_the_end_that_was_asked_for(reuse: str, number: int) -> None:
    async with LocalServer() as server:
        async with new_session(TCPConnector(reuse=reuse)) as session:
            first, second = Held(session, server), None
            async with first:
                second = Held(session, server)
                async with second:
                    await first.let_go()
            for _ in range(2):
                await read(session, server.url("/ok"))
                assert server.exchanges[-1].connection.number == (number if reuse == "lifo" else _ % 2)


async def test_connection_serves_as_many_requests_as_it_may() -> None:
    async with LocalServer() as server, nothing_left():
        connector = TCPConnector(max_requests_per_connection=2)
        async with new_session(connector) as session:
            for _ in range(5):
                await read(session, server.url("/ok"))
            stats = check_sums(connector)
            assert stats.closed == {CloseReason.MAX_REQUESTS: 2}
            assert (stats.created, stats.reused, stats.requests_per_connection.max) == (3, 2, 2)


async def test_connection_is_not_used_when_it_is_too_old() -> None:
    async with LocalServer() as server, nothing_left():
        connector = TCPConnector(max_connection_age=0.2)
        async with new_session(connector) as session:
            for _ in range(2):
                await read(session, server.url("/ok"))
            assert connector.stats().reused == 1
            await asyncio.sleep(0.25)
            await read(session, server.url("/ok"))
            # In use when its time comes: closed when it is given back.
            async with Held(session, server):
                await asyncio.sleep(0.25)
            stats = check_sums(connector)
            assert stats.closed == {CloseReason.MAX_AGE: 2}
            assert stats.idle == 0


async def test_longest_idle_connection_makes_room() -> None:
    async with LocalServer() as one, LocalServer() as two, LocalServer() as three, nothing_left():
        connector = TCPConnector(max_open=2, pool_timeout=9)
        assert connector.limit == 2
        async with new_session(connector) as session:
            for server in (one, two, one, three):
                await read(session, server.url("/ok"))
            assert connector.stats(two.url()).closed == {CloseReason.EVICTED: 1}
            assert check_sums(connector).idle == 2
            async with Held(session, one), Held(session, three):
                with pytest.raises(PoolTimeout, match="max_open=2 reached: 2 in use"):
                    await read(session, two.url("/ok"), timeout=Timeout(connect=SHORT))


# Prewarming


async def test_prewarmed_connections_are_there_and_used() -> None:
    async with LocalServer() as server, nothing_left():
        connector = TCPConnector()
        async with new_session(connector) as session:
            assert await session.prewarm(server.url("/any?x=1"), 3) == 3
            stats = connector.stats()
            assert (stats.created, stats.idle, stats.requests, stats.reused) == (3, 3, 0, 0)
            assert await connector.prewarm(server.url(), 2) == 3
            async with session.get(server.url("/ok")) as resp:
                await resp.read()
                info: Any = resp.connection_info  # type: ignore[attr-defined]
            assert (info.reused, info.requests) == (True, 1)
            assert check_sums(connector).created == len(server.connections) == 3


async def test_prewarming_counts_those_in_use_and_those_being_made() -> None:
    async with LocalServer() as server:
        connector = TCPConnector()
        async with new_session(connector) as session, Held(session, server):
            both = await asyncio.gather(
                connector.prewarm(server.url(), 3), connector.prewarm(server.url(), 3)
            )
            assert both == [3, 3]
            assert connector.stats().created == 3


@pytest.mark.parametrize(
    "limits", [{"limit": 2}, {"limit_per_host": 2}, {"max_open": 2, "limit": 9}], ids=str
)
async def test_prewarming_keeps_the_limits_and_waits_for_nobody(limits: dict[str, int]) -> None:
    async with LocalServer() as server, nothing_left():
        connector = TCPConnector(**limits)
        async with new_session(connector) as session:
            async with Held(session, server):
                assert await asyncio.wait_for(connector.prewarm(server.url(), 5), 2) == 2
                async with Held(session, server):
                    assert await asyncio.wait_for(connector.prewarm(server.url(), 5), 2) == 2
            assert len(server.connections) == 2


async def test_prewarming_what_is_not_there_is_an_error() -> None:
    connector = TCPConnector()
    server = LocalServer()
    async with server:
        url = server.url()
    with pytest.raises(aiohttp.ClientConnectorError):
        await connector.prewarm(url, 2)
    assert connector.stats(url).dial_failures == 2
    with port_that_never_accepts() as port, pytest.raises(aiohttp.ConnectionTimeoutError):
        await connector.prewarm(f"http://127.0.0.1:{port}", timeout=Timeout(connect=SHORT))
    for bad, error in (("/path", ValueError), ("ftp://a.test", ValueError)):
        with pytest.raises(error, match="origin"):
            await connector.prewarm(bad)
    for n, error in ((0, ValueError), (True, TypeError)):
        with pytest.raises(error, match="n has to be"):
            await connector.prewarm(url, n)
    await connector.close()
    with pytest.raises(aiohttp.ClientConnectionError, match="closed"):
        await connector.prewarm(url)


# Figures


async def test_figures_of_a_known_sequence() -> None:
    async with LocalServer() as server, LocalServer(ssl_context=server_tls()) as tls, nothing_left():
        connector = TCPConnector(ssl=client_tls())
        async with new_session(connector) as session:
            for _ in range(3):
                await read(session, server.url("/ok"))
            await read(session, tls.url("/ok"))
            async with Held(session, server):
                plain, other = connector.stats(server.url("/ignored")), connector.stats(tls.url())
                assert (plain.in_use, plain.idle, plain.created) == (1, 0, 1)
                assert (plain.requests, plain.reused) == (4, 3)
                assert (other.in_use, other.idle, other.open) == (0, 1, 1)
            assert (plain.tls_handshakes.count, other.tls_handshakes.count) == (0, 1)
            assert 0 < other.tls_handshakes.max < other.dials.max
            assert connector.stats_by_origin().keys() == {server.url(""), tls.url("")}
            assert connector.stats("http://unknown.test") == PoolStats()
            check_sums(connector)
        stats = check_sums(connector)
        assert stats.closed == {CloseReason.POOL_CLOSED: 2}
        assert (stats.idle, stats.in_use, stats.requests_per_connection.max) == (0, 0, 4)


async def test_figures_equal_a_recount_in_whatever_happens() -> None:
    chance = random.Random(11)
    async with LocalServer() as one, LocalServer() as two, nothing_left():
        connector = TCPConnector(limit=4, limit_per_host=3, keepalive_timeout=0.05, pool_timeout=0.5)
        async with new_session(connector) as session:
            paths = (
                "/ok",
                "/ok",
                "/ok",
                "/drop",
                "/bytes?n=200000",
                "/half",
                "/redirect?to=/ok",
                "/status?n=404",
            )

            async def one_request() -> None:
                url = chance.choice((one, two)).url(chance.choice(paths))
                try:
                    async with session.get(url, timeout=Timeout(total=0.2)) as resp:
                        if chance.random() < 0.8:
                            await resp.read()
                except (aiohttp.ClientError, asyncio.TimeoutError):
                    pass

            for _ in range(12):
                await asyncio.gather(*(one_request() for _ in range(8)))
                await asyncio.sleep(chance.choice((0, 0.02)))
                stats = check_sums(connector)
                assert (stats.in_use, stats.idle) == recount(connector)
                assert (stats.waiting, stats.dialling) == (0, 0)
        stats = check_sums(connector)
        assert stats.open == 0
        assert {CloseReason.LOST, CloseReason.ABANDONED} <= stats.closed.keys()


async def test_websocket_is_a_connection_in_use_and_then_upgraded() -> None:
    async def handler(request: Any) -> Any:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    connector = TCPConnector()
    async with new_session(connector) as session:
        async with session.ws_connect(f"http://127.0.0.1:{port}/") as ws:
            await ws.send_str("hello")
            assert await ws.receive_str() == "hello"
            assert connector.stats().in_use == 1
        assert connector.stats().closed == {CloseReason.UPGRADED: 1}
        check_sums(connector)
    await runner.cleanup()


async def test_what_a_test_puts_in_the_place_of_a_connection_is_tolerated() -> None:
    class Other(TCPConnector):
        async def _create_connection(self, *args: Any) -> Any:
            handler = await super()._create_connection(*args)
            transport, other = handler.transport, ResponseHandler(asyncio.get_running_loop())
            transport.set_protocol(other)
            other.connection_made(transport)
            return other

    async with LocalServer() as server:
        connector = Other()
        async with new_session(connector) as session:
            for _ in range(2):
                async with session.get(server.url("/ok")) as resp:
                    assert await resp.read() == b"ok"
                    assert resp.connection_info is None  # type: ignore[attr-defined]
                    assert resp.timings.total > 0  # type: ignore[attr-defined]
            stats = connector.stats()
            assert (stats.requests, stats.created, stats.open) == (2, 0, 0)


def test_ledger_forgets_origins_without_connections_but_not_what_they_add_up_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Key:
        is_ssl = False

        def __init__(self, host: str, port: int = 80) -> None:
            self.host, self.port = host, port

    monkeypatch.setattr("wirespeed.fallback.ledger.MAX_ORIGINS", 3)
    ledger = Ledger()
    busy = ledger.of(Key("busy.test"))
    busy.in_use = 1
    for n in range(5):
        key = Key(f"{n}.test")
        account = ledger.of(key)
        assert ledger.of(key) is account
        account.requests = 1
        account.waits.add(0.003)
    assert list(ledger.snapshots()) == ["http://busy.test", "http://3.test", "http://4.test"]
    whole = ledger.whole().snapshot()
    assert (whole.requests, whole.in_use, whole.waits.count, whole.waits.counts[2]) == (5, 1, 5, 5)
    assert str(ledger.of(Key("::1", 8080)).origin) == "http://[::1]:8080"


# Timings


async def test_stages_of_a_request() -> None:
    async with LocalServer(ssl_context=server_tls()) as server:
        async with new_session(TCPConnector(ssl=client_tls())) as session:
            async with session.get(server.url("/bytes?n=3000000", host="localhost")) as resp:
                first: Any = resp.timings  # type: ignore[attr-defined]
                assert first.body is None
                assert first.total is None
                await resp.read()
                timings: Any = resp.timings  # type: ignore[attr-defined]
                info: Any = resp.connection_info  # type: ignore[attr-defined]
            assert min(timings.dns, timings.connect, timings.tls, timings.first_byte, timings.body) > 0
            assert timings.queue == 0
            assert (info.reused, info.idle_for, info.requests) == (False, 0, 1)
            assert info.peer == ("127.0.0.1", server.port)
            assert info.tls_version.startswith("TLSv1")
            assert info.tls_cipher
            async with session.get(server.url("/ok", host="localhost")) as resp:
                await resp.read()
                again: Any = resp.timings  # type: ignore[attr-defined]
                info = resp.connection_info  # type: ignore[attr-defined]
            assert (again.dns, again.connect, again.tls) == (0, 0, 0)
            assert (info.reused, info.requests) == (True, 2)
            assert 0 < info.idle_for < info.age


async def test_wait_and_upload_are_stages() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"part"
            await asyncio.sleep(SHORT)

    async with LocalServer() as server:
        connector = TCPConnector(limit=1)
        async with new_session(connector) as session:
            async with Held(session, server) as holder:
                task = asyncio.create_task(session.post(server.url("/echo"), data=slowly()))
                await eventually(lambda: connector.stats().waiting == 1, "waits")
                await asyncio.sleep(SHORT)
                await holder.let_go()
                resp = await task
                await resp.read()
            timings: Any = resp.timings  # type: ignore[attr-defined]
            assert timings.queue >= SHORT * 0.9
            assert timings.send >= 3 * SHORT * 0.9
            assert timings.first_byte >= 0


async def test_answer_before_the_upload_is_over() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.sleep(30)

    async with LocalServer() as server, nothing_left():
        server.early_routes["/early"] = lambda x: x.respond(403, b"no")
        connector = TCPConnector()
        async with new_session(connector) as session:
            async with session.post(server.url("/early"), data=endless()) as resp:
                assert await resp.read() == b"no"
            timings: Any = resp.timings  # type: ignore[attr-defined]
            assert timings.first_byte == 0
            assert timings.total > 0
            await eventually(lambda: connector.stats().in_use == 0, "given back")
            assert check_sums(connector).closed == {CloseReason.UPLOAD_UNFINISHED: 1}


async def test_file_as_body_and_connector_of_aiohttps() -> None:
    """Without a word from the connector the response knows its own moments."""
    async with LocalServer() as server:
        async with new_session(aiohttp.TCPConnector()) as session:
            async with session.post(server.url("/echo"), data=io.BytesIO(b"x" * 10_000)) as resp:
                await resp.read()
            assert isinstance(resp, StampedResponse)
            assert resp.timings is not None
            assert (resp.timings.queue, resp.timings.connect) == (0, 0)
            assert resp.timings.total is not None
            assert resp.connection_info is None


async def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with LocalServer(path=path) as server:
        connector = UnixConnector(path, max_waiters=0, limit=1)
        async with new_session(connector) as session:
            async with session.get(server.url("/ok", host="some.host")) as resp:
                await resp.read()
            info: Any = resp.connection_info  # type: ignore[attr-defined]
            assert info.peer == path
            assert list(connector.stats_by_origin()) == ["http://some.host"]


# Observers


class Notes:
    def __init__(self) -> None:
        self.requests: list[tuple[Any, ...]] = []
        self.connections: list[tuple[Any, ...]] = []

    def request_ended(
        self, origin: str, method: str, status: int | None, duration: float, error: BaseException | None
    ) -> None:
        assert duration >= 0
        self.requests.append((origin, method, status, type(error) if error else None))

    def connection_closed(self, origin: str, duration: float, reason: CloseReason) -> None:
        assert duration >= 0
        self.connections.append((origin, reason))


async def test_observers_are_told_of_each_end_once() -> None:
    async with LocalServer() as server, nothing_left():
        notes, connector = Notes(), TCPConnector(limit=1, pool_timeout=9)
        connector.add_observer(notes)
        origin = server.url("")
        async with new_session(connector) as session:
            await read(session, server.url("/ok"))
            async with session.head(server.url("/ok")):
                pass
            async with session.get(server.url("/endless")):
                assert len(notes.requests) == 2
            await read(session, server.url("/redirect?to=/ok"))
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post(server.url("/drop"))
            with pytest.raises(asyncio.TimeoutError):
                await read(session, server.url("/hold"), timeout=Timeout(total=SHORT))
            server.routes["/cut"] = lambda x: (
                x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-"),
                x.connection.transport.close(),
            )
            with pytest.raises(aiohttp.ClientPayloadError):
                await read(session, server.url("/cut"))
            async with Held(session, server):
                with pytest.raises(PoolTimeout):
                    await read(session, server.url("/ok"), timeout=Timeout(connect=SHORT))
            assert notes.requests == [
                (origin, "GET", 200, None),
                (origin, "HEAD", 200, None),
                (origin, "GET", 200, None),
                (origin, "GET", 302, None),
                (origin, "GET", 200, None),
                (origin, "POST", None, aiohttp.ServerDisconnectedError),
                (origin, "GET", None, asyncio.TimeoutError),
                (origin, "GET", 200, aiohttp.ClientPayloadError),
                (origin, "GET", None, PoolTimeout),
                (origin, "GET", 200, None),
            ]
            connector.remove_observer(notes)
            with pytest.raises(ValueError, match="not in list"):
                connector.remove_observer(notes)
            await read(session, server.url("/ok"))
            assert len(notes.requests) == 10
            assert notes.connections == [
                (origin, CloseReason.ABANDONED),
                (origin, CloseReason.LOST),
                (origin, CloseReason.TIMED_OUT),
                (origin, CloseReason.LOST),
            ]


async def test_observer_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Notes):
        def request_ended(self, *args: Any) -> None:
            raise LookupError("oops")

        connection_closed = request_ended

    async with LocalServer() as server:
        notes, connector = Notes(), TCPConnector()
        connector.add_observer(Failing())
        connector.add_observer(notes)
        async with new_session(connector) as session:
            assert await read(session, server.url("/ok")) == b"ok"
        assert len(notes.requests) == len(notes.connections) == 1
        assert caplog.text.count("an observer of the pool failed") == 2
