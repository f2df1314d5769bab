"""Connections under a batch: kept, closed by the server, stale, refused."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.checks import eventually
from support.local import Exchange, LocalServer

import wirespeed

from .scene import KINDS, collected, scene


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_are_reused(kind: str) -> None:
    async with scene(kind) as at:
        for _ in range(3):
            results = await at.results(at.urls(50), concurrency=4)
            assert all(result.ok for result in results)
        assert len(at.server.connections) <= 4
        async with at.session.get(at.url()) as resp:
            await resp.read()
        assert len(at.server.connections) <= 4


@pytest.mark.parametrize("kind", KINDS)
async def test_server_that_closes_after_each_answer(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/close"] = lambda x: x.respond(200, b"closing", [("Connection", "close")])

        def close_silently(exchange: Exchange) -> None:
            exchange.respond(200, b"silent")
            exchange.connection.transport.close()

        at.server.routes["/silent"] = close_silently
        results = await at.results([at.url("/close")] * 20, concurrency=3)
        assert [result.body for result in results] == [b"closing"] * 20
        assert len(at.server.exchanges) == 20
        # The session's second try is all that is needed.
        results = await at.results([at.url("/silent")] * 60, concurrency=3)
        assert [result.body for result in results] == [b"silent"] * 60


@pytest.mark.parametrize("kind", KINDS)
async def test_stale_connections(kind: str) -> None:
    # The server has closed them while they were idle.
    async with scene(kind) as at:
        await at.results(at.urls(4), concurrency=4)
        for connection in at.server.open:
            connection.transport.abort()
        results = await at.results(at.urls(20), concurrency=4)
        assert [result.body for result in results] == [b"ok"] * 20
        assert [result.attempts for result in results] == [1] * 20


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_lost_with_a_request_on_them(kind: str) -> None:
    # A reused one that dies before its answer: sent again once, as single requests are.
    async with scene(kind) as at:
        died = set()

        def die_once(exchange: Exchange) -> None:
            if exchange.connection.number in died or len(died) >= 4:
                exchange.respond(200, b"alive")
            elif len([x for x in at.server.exchanges if x.connection is exchange.connection]) > 1:
                died.add(exchange.connection.number)
                exchange.connection.transport.abort()
            else:
                exchange.respond(200, b"alive")

        at.server.routes["/"] = die_once
        results = await at.results([at.url("/")] * 40, concurrency=4)
        assert [result.body for result in results] == [b"alive"] * 40
        assert len(died) == 4
        posts = [wirespeed.Request("POST", at.url("/"), data=b"x")] * 20
        died.clear()
        results = await at.results(posts, concurrency=4)
        failed = [result for result in results if result.error]
        # The server may have acted on them.
        assert len(failed) == 4
        assert all(isinstance(result.error, aiohttp.ServerDisconnectedError) for result in failed)


@pytest.mark.parametrize("kind", KINDS)
async def test_session_without_second_tries(kind: str) -> None:
    async with scene(kind) as at:
        at.session._retry_connection = False
        await at.results(at.urls(2), concurrency=2)
        at.server.routes["/once"] = lambda x: x.connection.transport.abort()
        results = await at.results([at.url("/once")] * 3, concurrency=1)
        assert all(isinstance(result.error, aiohttp.ServerDisconnectedError) for result in results)
        assert len(at.server.exchanges) == 5


@pytest.mark.parametrize("kind", KINDS)
async def test_refused_connections(kind: str) -> None:
    async with scene(kind) as at:
        given = ["http://127.0.0.1:1/", at.url()] * 10
        results = await at.results(given, concurrency=3)
        for bad, good in zip(results[::2], results[1::2], strict=True):
            assert isinstance(bad.error, aiohttp.ClientConnectorError)
            assert good.body == b"ok"


@pytest.mark.parametrize("kind", KINDS)
async def test_names_that_do_not_resolve(kind: str) -> None:
    async with scene(kind) as at:
        results = await at.results(["http://name.invalid/", at.url(), "http://name.invalid/x"], timeout=5)
        assert results[1].ok
        assert isinstance(results[0].error, aiohttp.ClientConnectorDNSError)
        assert isinstance(results[2].error, aiohttp.ClientConnectorDNSError)


@pytest.mark.parametrize("kind", KINDS)
async def test_server_that_stops_in_the_middle(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/stop"] = lambda x: (
            at.server._server.close(),
            [connection.transport.abort() for connection in at.server.open],
        )
        results = await at.results([*at.urls(10), at.url("/stop"), *at.urls(10)], concurrency=2, timeout=5)
        assert len(results) == 21
        assert all(result.ok for result in results[:9])
        assert not any(result.ok for result in results[12:])


@pytest.mark.parametrize("kind", KINDS)
async def test_answer_before_the_request_is_sent(kind: str) -> None:
    # Bytes on an idle connection are nobody's answer; aiohttp's connectors take them for one.
    if kind == "full" or not wirespeed.NATIVE:
        pytest.skip("a connector of aiohttp's")
    async with scene(kind) as at:
        await at.results(at.urls(1))
        for connection in at.server.open:
            connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await asyncio.sleep(0.01)
        results = await at.results(at.urls(5), concurrency=1)
        assert [result.body for result in results] == [b"ok"] * 5


@pytest.mark.parametrize("kind", KINDS)
async def test_switching_protocols(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/ws"] = lambda x: x.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        upgrade = {"Connection": "upgrade", "Upgrade": "websocket"}
        given = [wirespeed.Request("GET", at.url("/ws"), headers=upgrade), at.url()] * 2
        results = await at.results(given, concurrency=1, timeout=1)
        assert [result.body for result in results[1::2]] == [b"ok"] * 2
        assert all(result.status in (101, None) for result in results[::2])
        await eventually(lambda: len(at.server.open) <= 1, "switched connections closed")


@pytest.mark.parametrize("kind", KINDS)
async def test_interim_answers(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/"] = lambda x: x.send(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal"
        )
        results = await at.results([at.url("/")] * 5, concurrency=1)
        assert [(result.status, result.body) for result in results] == [(200, b"final")] * 5


async def test_answers_in_pieces() -> None:
    async with scene() as at:
        loop = asyncio.get_running_loop()
        data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"

        def dribble(exchange: Exchange, at_byte: int = 0) -> None:
            exchange.send(data[at_byte : at_byte + 1])
            if at_byte + 1 < len(data):
                loop.call_soon(dribble, exchange, at_byte + 1)
            else:
                exchange.finish()

        at.server.routes["/"] = dribble
        results = await collected(at.session.batch([at.url("/")] * 6, concurrency=3))
        assert [(result.body, result.headers["x-a"]) for result in results] == [(b"hello", "b")] * 6


async def test_unix_sockets(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    async with LocalServer(path=path) as server, scene(connector=wirespeed.UnixConnector(path=path)) as at:
        results = await collected(at.session.batch([server.url("/ok", host="h")] * 10, concurrency=3))
        assert [result.body for result in results] == [b"ok"] * 10
