"""What a response tells of its way: `timings` and `connection_info`, on both lanes."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import dataclasses
import io
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.checks import eventually, express_session, nothing_left
from support.local import BLOCK, Exchange, LocalServer, client_tls, server_tls
from support.names import Names
from support.pools import figures, held, hold, needs_pool, read, respond_after, start

import wirespeed
from wirespeed.observe import ConnectionInfo, Timings

if wirespeed.NATIVE:
    from support.pools import GatedConnector

pytestmark = needs_pool

DELAY = 0.15
LEAST = DELAY - 0.01  # loops' clocks have milliseconds, and uvloop's timers fire a little early


async def _timed(session: wirespeed.ClientSession, url: str, **kwargs: Any) -> tuple[Timings, float]:
    """The timings of a request that was read whole, and how long it took seen from outside."""
    began = time.perf_counter()
    async with session.get(url, **kwargs) as resp:
        await resp.read()
        took = time.perf_counter() - began
        timings = resp.timings
        # Nothing is added once the response is complete.
        await asyncio.sleep(0.01)
        assert resp.timings == timings
    _check(timings, took)
    return timings, took


def _check(timings: Timings, took: float) -> None:
    """Each stage is a time, and together they are no longer than the whole seen from outside."""
    for item in dataclasses.fields(timings):
        value = getattr(timings, item.name)
        assert value is not None, f"{item.name} is not known"
        assert 0 <= value <= took, timings
    assert timings.total is not None
    assert timings.total <= took, timings
    # And not much shorter: what is left is this process's own work. A busy machine may do something else.
    assert took - timings.total < 0.05 + 0.5 * took, (timings, took)


async def test_request_on_a_new_connection() -> None:
    async with LocalServer() as server, express_session() as session:
        timings, _ = await _timed(session, server.url("/ok"))
        assert timings.connect > 0
        assert timings.send is not None
        assert timings.first_byte
        # Nothing to encrypt, and to resolve no more than an address.
        assert timings.tls == 0
        assert timings.dns < LEAST


async def test_request_on_a_connection_that_was_there() -> None:
    async with LocalServer(ssl_context=server_tls()) as server:
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            await read(session, server.url("/ok"))
            timings, _ = await _timed(session, server.url("/ok"))
            assert (timings.dns, timings.connect, timings.tls) == (0, 0, 0)
            assert timings.first_byte


async def test_name_that_is_slow_to_resolve() -> None:
    async with LocalServer() as server:
        resolver = Names(delay=DELAY)
        async with express_session(connector=wirespeed.TCPConnector(resolver=resolver)) as session:
            timings, took = await _timed(session, server.url("/ok", host="slow.test"))
            assert resolver.asked == ["slow.test"]
            assert timings.dns >= LEAST
            assert timings.total is not None
            # The rest is what is left of the whole: none of it counts twice.
            assert timings.total - timings.dns <= took - LEAST
            assert timings.connect <= took - LEAST
            timings, _ = await _timed(session, server.url("/ok", host="slow.test"))
            assert timings.dns == 0


async def test_server_that_is_slow_to_answer() -> None:
    async with LocalServer() as server, express_session(at_least=2) as session:
        server.routes["/slow"] = respond_after(DELAY)
        for _ in range(2):
            timings, took = await _timed(session, server.url("/slow"))
            assert timings.first_byte is not None
            assert timings.first_byte >= LEAST
            assert timings.body is not None
            assert timings.body <= took - LEAST


async def test_body_that_is_slow_to_come() -> None:
    def trickle(exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-")
        loop.call_later(DELAY, exchange.send, b"other")
        loop.call_later(DELAY, exchange.finish)

    async with LocalServer() as server, express_session() as session:
        server.routes["/slow"] = trickle
        timings, took = await _timed(session, server.url("/slow"))
        assert timings.body is not None
        assert timings.body >= LEAST
        assert timings.first_byte is not None
        assert timings.first_byte <= took - LEAST


async def test_stages_that_are_not_over_are_not_known() -> None:
    async with LocalServer() as server, express_session() as session:
        resp = await session.get(server.url("/half"))
        timings = resp.timings
        assert timings.send is not None
        assert timings.first_byte is not None
        assert (timings.body, timings.total) == (None, None)
        server.held[0].send(b"other")
        assert await resp.read() == b"half-other"
        after = resp.timings
        assert after.body is not None
        assert after.total is not None
        assert dataclasses.replace(after, body=None) == timings


async def test_upload_that_takes_its_time() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.sleep(DELAY)
        yield b"end"

    async with LocalServer() as server, express_session(at_least=2) as session:
        for _ in range(2):
            began = time.perf_counter()
            async with session.post(server.url("/ok"), data=body()) as resp:
                await resp.read()
                timings, took = resp.timings, time.perf_counter() - began
            _check(timings, took)
            assert timings.send is not None
            assert timings.send >= LEAST
            assert timings.first_byte is not None
            assert timings.first_byte <= took - LEAST


async def test_answer_before_the_upload_is_over() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"begin"
        await asyncio.sleep(30)

    async with LocalServer() as server, nothing_left():
        server.early_routes["/early"] = lambda x: x.respond(403, b"no")
        async with express_session() as session:
            async with session.post(server.url("/early"), data=body()) as resp:
                assert await resp.read() == b"no"
            timings = resp.timings
            # However it is divided, no stage is negative, and the answer did come.
            assert timings.first_byte is not None
            assert timings.first_byte >= 0
            assert all(value is None or value >= 0 for value in vars(timings).values()), timings


async def test_upload_in_one_piece_and_large_body() -> None:
    async with LocalServer() as server, express_session() as session:
        began = time.perf_counter()
        async with session.post(server.url("/bytes?n=5000000"), data=io.BytesIO(BLOCK * 40)) as resp:
            assert len(await resp.read()) == 5_000_000
            _check(resp.timings, time.perf_counter() - began)


async def test_wait_for_a_slot() -> None:
    async with LocalServer() as server:
        connector = wirespeed.TCPConnector(limit=1)
        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            timed = start(_timed(session, server.url("/ok")))
            await figures(connector, waiting=1)
            await asyncio.sleep(DELAY)
            server.held[0].respond()
            timings, took = await timed
            await holder
            assert timings.queue >= LEAST
            assert timings.queue <= took
            assert (timings.dns, timings.connect, timings.tls) == (0, 0, 0)


async def test_freed_connection_that_came_before_the_dial_is_a_wait() -> None:
    async with LocalServer() as server, nothing_left():
        connector = GatedConnector()
        async with express_session(connector=connector) as session:
            holder = await hold(session, server)
            connector.is_gated = True
            timed = start(_timed(session, server.url("/ok")))
            await connector.dials_waiting(1)
            await asyncio.sleep(DELAY)
            server.held[0].respond()
            timings, _ = await timed
            await holder
            assert timings.queue >= LEAST
            assert (timings.dns, timings.connect, timings.tls) == (0, 0, 0)
            connector.gates[0].set_result(None)
            await figures(connector, idle=2)


async def test_tls_is_a_stage() -> None:
    async with LocalServer(ssl_context=server_tls()) as server:
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            timings, _ = await _timed(session, server.url("/ok"))
            assert timings.tls > 0
            assert timings.connect > 0


async def test_timings_are_those_of_the_last_hop() -> None:
    async with LocalServer() as server, express_session() as session:
        loop = asyncio.get_running_loop()
        server.routes["/slow"] = lambda x: loop.call_later(
            2 * DELAY, x.respond, 302, b"", [("Location", "/ok")]
        )
        began = time.perf_counter()
        async with session.get(server.url("/slow")) as resp:
            await resp.read()
            took = time.perf_counter() - began
        assert resp.timings.total is not None
        assert resp.timings.total <= took - 2 * LEAST
        (hop,) = resp.history
        assert hop.timings.first_byte >= 2 * LEAST
        # The connection was that of the first hop.
        assert (hop.connection_info.requests, resp.connection_info.requests) == (1, 2)
        assert (hop.connection_info.reused, resp.connection_info.reused) == (False, True)


async def test_timings_on_the_full_lane() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        server.routes["/slow"] = respond_after(DELAY)
        for is_reused in (False, True):
            began = time.perf_counter()
            async with session.get(server.url("/slow"), proxy=server.url()) as resp:
                await resp.read()
                timings, took = resp.timings, time.perf_counter() - began
            assert isinstance(timings, Timings)
            # What is told is true; aiohttp's own code does not tell everything.
            known = [value for value in vars(timings).values() if value is not None]
            assert all(0 <= value <= took for value in known)
            assert sum(known) <= took
            if timings.first_byte is not None:
                assert timings.first_byte >= LEAST
            assert (timings.connect > 0) is not is_reused


async def test_timings_of_a_traced_request() -> None:
    async with LocalServer() as server, express_session(trace_configs=[aiohttp.TraceConfig()]) as session:
        timings, _ = await _timed(session, server.url("/ok"))
        assert timings.connect > 0
        timings, _ = await _timed(session, server.url("/ok"))
        assert timings.connect == 0


# The connection


def _addresses(server: LocalServer, number: int) -> tuple[Any, Any]:
    """The addresses of a connection as the server knows them: the client's, its own."""
    transport = server.connections[number].transport
    return transport.get_extra_info("peername"), transport.get_extra_info("sockname")


async def _info(session: wirespeed.ClientSession, url: str, **kwargs: Any) -> ConnectionInfo:
    async with session.get(url, **kwargs) as resp:
        info = resp.connection_info
        await resp.read()
        # What it was then; not what has become of it.
        assert resp.connection_info == info
    assert isinstance(info, ConnectionInfo)
    return info


@pytest.mark.parametrize("lane", ["express", "full"])
async def test_connection_new_and_reused(lane: str) -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        options = {"proxy": server.url()} if lane == "full" else {}
        began = time.perf_counter()
        first = await _info(session, server.url("/ok"), **options)
        assert (first.reused, first.idle_for, first.requests) == (False, 0, 1)
        assert 0 <= first.age <= time.perf_counter() - began
        await asyncio.sleep(DELAY)
        second = await _info(session, server.url("/ok"), **options)
        took = time.perf_counter() - began
        assert (second.reused, second.requests) == (True, 2)
        assert LEAST <= second.idle_for <= second.age <= took
        assert second.age >= first.age + LEAST
        third = await _info(session, server.url("/ok"), **options)
        assert (third.reused, third.requests) == (True, 3)
        assert third.idle_for <= took
        assert len(server.connections) == 1
        for info in (first, second, third):
            assert (info.local, info.peer) == _addresses(server, 0)
            assert (info.tls_version, info.tls_cipher) == (None, None)


async def test_connections_are_told_apart() -> None:
    async with LocalServer() as server, express_session() as session:
        tasks = [start(session.get(server.url("/hold"))) for _ in range(3)]
        await held(server, 3)
        for exchange in server.held:
            exchange.respond(200, str(exchange.connection.number).encode())
        for task in tasks:
            async with await task as resp:
                number = int(await resp.text())
                info = resp.connection_info
                assert (info.local, info.peer) == _addresses(server, number)
                assert (info.reused, info.requests) == (False, 1)


async def test_prewarmed_connection_is_reused() -> None:
    async with LocalServer() as server, express_session() as session:
        await session.prewarm(server.url())
        await asyncio.sleep(DELAY)
        info = await _info(session, server.url("/ok"))
        assert (info.reused, info.requests) == (True, 1)
        assert LEAST <= info.idle_for <= info.age


async def test_connection_over_tls() -> None:
    async with LocalServer(ssl_context=server_tls()) as server:
        async with express_session(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            for n in (1, 2):
                info = await _info(session, server.url("/ok"))
                assert info.requests == n
                own = server.connections[0].transport.get_extra_info("ssl_object")
                assert (info.tls_version, info.tls_cipher) == (own.version(), own.cipher()[0])
                assert (info.local, info.peer) == _addresses(server, 0)


async def test_connection_over_a_unix_socket(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    async with LocalServer(path=path) as server:
        async with express_session(connector=wirespeed.UnixConnector(path)) as session:
            info = await _info(session, server.url("/ok", host="somewhere"))
            assert info.peer == path
            assert (info.reused, info.requests, info.tls_version) == (False, 1, None)


async def test_connection_of_a_retry_is_the_one_that_answered() -> None:
    async with LocalServer() as server, express_session() as session:
        dropped = []

        def drop_once(exchange: Exchange) -> None:
            if dropped:
                exchange.respond(200, b"ok")
            else:
                dropped.append(exchange)
                exchange.connection.transport.close()

        server.routes["/once"] = drop_once
        await read(session, server.url("/ok"))
        info = await _info(session, server.url("/once"))
        assert len(server.connections) == 2
        assert (info.local, info.peer) == _addresses(server, 1)
        assert (info.reused, info.requests) == (False, 1)


async def test_what_is_known_stays_known_when_the_connection_is_gone() -> None:
    async with LocalServer() as server, nothing_left():
        async with express_session() as session:
            resp = await session.get(server.url("/half"))
            timings, info = resp.timings, resp.connection_info
            expected = _addresses(server, 0)
            server.connections[0].transport.abort()
            with pytest.raises(aiohttp.ClientPayloadError):
                await resp.read()
            await eventually(lambda: not server.open, "connection gone")
            assert resp.connection_info == info
            assert (info.local, info.peer) == expected
            assert dataclasses.replace(resp.timings, body=None) == timings
        assert resp.connection_info == info
