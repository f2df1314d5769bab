"""What many requests of every outcome leave behind: nothing."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import gc
import os
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from support.checks import assert_express, eventually, full_session, nothing_left, open_fds
from support.local import Exchange, LocalServer, client_tls, server_tls

import wirespeed

REQUESTS = 20_000 if os.environ.get("WIRESPEED_LONG") else 2_000  # a soak takes a minute
Request = Callable[[wirespeed.ClientSession, LocalServer], Awaitable[None]]


async def _ok(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/ok"), params={"a": "b"}, headers={"X-A": "b"}) as resp:
        assert await resp.read() == b"ok"


async def _json(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.post(server.url("/echo"), json={"k": "v"}, cookies={"c": "d"}) as resp:
        assert (await resp.json())["body"] == '{"k": "v"}'


async def _stream(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/chunked?n=200000")) as resp:
        assert sum([len(piece) async for piece in resp.content.iter_any()]) == 200_000


async def _upload(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"piece"

    async with session.put(server.url("/ok"), data=body()) as resp:
        assert resp.status == 200


async def _redirect(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/redirect?to=/redirect%3Fto=/ok")) as resp:
        assert len(resp.history) == 2


async def _status_error(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(aiohttp.ClientResponseError):
        async with session.get(server.url("/status?n=503"), raise_for_status=True):
            pass


async def _server_drops(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(aiohttp.ClientConnectionError):
        async with session.post(server.url("/drop"), data=b"x"):
            pass


async def _refused(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(aiohttp.ClientConnectorError):
        async with session.get("http://127.0.0.1:1/"):
            pass


async def _malformed(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(aiohttp.ClientResponseError):
        async with session.get(server.url("/malformed")):
            pass


async def _bad_input(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(ValueError, match=r"(?i)header"):
        async with session.get(server.url("/ok"), headers={"X": "a\r\nb"}):
            pass


async def _timeout(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with session.get(server.url("/hold"), timeout=aiohttp.ClientTimeout(total=0.01)):
            pass


async def _cancelled(session: wirespeed.ClientSession, server: LocalServer) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(session.get(server.url("/hold")), 0.005)


async def _cancelled_in_body(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/half")) as resp:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(resp.read(), 0.005)


async def _left_unread(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/endless")) as resp:
        await resp.content.readany()


async def _closed_unread(session: wirespeed.ClientSession, server: LocalServer) -> None:
    (await session.get(server.url("/half"))).close()


MIX: list[Request] = [
    *(_ok, _json, _stream, _upload, _redirect, _status_error, _server_drops, _refused, _malformed),
    *(_bad_input, _timeout, _cancelled, _cancelled_in_body, _left_unread, _closed_unread),
]


def _malformed_answer(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 abc\r\n\r\n")


async def _run_mix(session: wirespeed.ClientSession, server: LocalServer, count: int) -> None:
    """`count` requests of all kinds, 20 at a time."""
    server.routes["/malformed"] = _malformed_answer
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await MIX[number % len(MIX)](session, server)

    await asyncio.gather(*(worker() for _ in range(20)))
    _forget(server)


def _forget(server: LocalServer) -> None:
    """The server's own records must not count."""
    server.exchanges.clear()
    server.held.clear()
    server.connections[:] = server.open


@contextmanager
def _without_gc() -> Iterator[None]:
    """Only reference counts free what is dropped in the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_mixed_requests_leave_nothing_after_close() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=15)
        async with wirespeed.ClientSession(connector=connector) as session:
            await _run_mix(session, server, REQUESTS)
            assert_express(session, REQUESTS // 2)
        assert gc.garbage == []
        await eventually(lambda: not server.open, "connections closed")


async def test_mixed_requests_leave_only_idle_connections_before_close() -> None:
    async with LocalServer() as server, nothing_left() as watch:
        connector = wirespeed.TCPConnector(limit=15)
        async with wirespeed.ClientSession(connector=connector) as session:
            await _run_mix(session, server, 300)
            # An idle connection is one descriptor here and one at the server.
            await eventually(
                lambda: len(open_fds() - watch.fds) == 2 * len(server.open) <= 30,
                "descriptors of failed requests closed",
            )
            # One for keep-alive, at most one for deadlines, one of `eventually`.
            assert len(watch.new_timers()) <= 3
            before = len(server.connections)
            for _ in range(5):
                await _ok(session, server)
            assert len(server.connections) <= before + 1


async def test_memory_is_flat_over_rounds() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=15)
        async with wirespeed.ClientSession(connector=connector) as session:
            blocks = []
            for _ in range(6):
                await _run_mix(session, server, 300)
                await asyncio.sleep(0.02)
                _forget(server)
                gc.collect()
                blocks.append(sys.getallocatedblocks())
            # 900 requests later: less than one block kept for each.
            assert blocks[5] - blocks[2] < 600, blocks


async def test_memory_is_flat_over_sessions() -> None:
    async with LocalServer() as server, nothing_left():
        blocks = []
        for _ in range(6):
            for _ in range(30):
                async with wirespeed.ClientSession() as session:
                    await _ok(session, server)
            await eventually(lambda: not server.open, "connections closed")
            _forget(server)
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        assert blocks[5] - blocks[2] < 90, blocks


SMALL: dict[str, dict[str, Any]] = {
    "plain": {},
    "rich": {"params": {"a": "b"}, "headers": {"X-A": "b"}, "cookies": {"c": "d"}, "json": {"k": "v"}},
    "timeouts": {"timeout": aiohttp.ClientTimeout(total=30, connect=20, sock_read=10)},
}


@pytest.mark.parametrize("kwargs", SMALL.values(), ids=SMALL)
async def test_response_is_freed_by_reference_count_alone(kwargs: dict[str, Any]) -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        await _ok(session, server)
        with _without_gc():
            async with session.get(server.url("/ok"), **kwargs) as resp:
                assert await resp.read() == b"ok"
            gone = weakref.ref(resp)
            del resp
            await asyncio.sleep(0)
            assert gone() is None
        assert_express(session, 2)


async def test_plain_requests_make_no_garbage_for_the_collector() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        for _ in range(20):
            await _ok(session, server)
        _forget(server)
        with _without_gc():
            for _ in range(100):
                await _ok(session, server)
            _forget(server)
            unreachable = gc.collect()
        assert unreachable < 100
        assert_express(session, 120)


async def test_failed_requests_are_freed_when_the_collector_comes() -> None:
    alive: list[weakref.ref[BaseException]] = []
    async with LocalServer() as server, nothing_left():
        async with wirespeed.ClientSession() as session:
            for path in ("/drop", "/malformed"):
                server.routes["/malformed"] = _malformed_answer
                try:
                    await session.post(server.url(path))
                except aiohttp.ClientError as exc:
                    alive.append(weakref.ref(exc))
            assert len(alive) == 2
            gc.collect()
            assert [ref() for ref in alive] == [None, None]


async def test_dropped_session_objects_are_collected() -> None:
    async with LocalServer() as server:
        session = wirespeed.ClientSession()
        await _ok(session, server)
        connector = session.connector
        assert connector is not None
        references = [weakref.ref(session), weakref.ref(connector), weakref.ref(session.cookie_jar)]
        await session.close()
        del session, connector
        await asyncio.sleep(0.01)
        gc.collect()
        assert [reference() for reference in references] == [None, None, None]


async def test_tls_requests_leave_nothing() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=10, ssl=client_tls())
        async with wirespeed.ClientSession(connector=connector) as session:
            kinds = [_ok, _json, _stream, _redirect, _status_error, _timeout, _cancelled, _closed_unread]
            for _ in range(5):
                await asyncio.gather(*(kind(session, server) for kind in kinds * 3))
            assert_express(session, 5 * 3 * 6)
        await eventually(lambda: not server.open, "connections closed")


async def test_full_lane_leaves_nothing_and_shares_the_slots() -> None:
    class Request(aiohttp.ClientRequest):
        pass

    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit=3)
        async with full_session(connector=connector, request_class=Request, connector_owner=False) as session:
            for _ in range(10):
                await asyncio.gather(*(kind(session, server) for kind in (_ok, _json, _timeout, _cancelled)))
            await _ok(session, server)
        async with wirespeed.ClientSession(connector=connector) as session:
            connections = len(server.connections)
            await asyncio.gather(*(_ok(session, server) for _ in range(10)))
            assert server.max_active <= 3
            assert len(server.connections) <= connections + 2
            assert_express(session, 10)
