"""httpx-aiohttp: httpx's client over an aiohttp session."""

import gzip
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from support.local import Exchange, LocalServer

import wirespeed

from .scene import lane, need

httpx = need("httpx")
httpx_aiohttp = need("httpx_aiohttp")


@contextmanager
def plain() -> Iterator[Any]:
    yield httpx_aiohttp.HttpxAiohttpClient


@contextmanager
def direct() -> Iterator[Any]:
    def new_client(**options: Any) -> Any:
        transport = httpx_aiohttp.AiohttpTransport(client=wirespeed.ClientSession())
        return httpx.AsyncClient(transport=transport, **options)

    yield new_client


@contextmanager
def direct_by_a_factory() -> Iterator[Any]:
    def new_client(**options: Any) -> Any:
        transport = httpx_aiohttp.AiohttpTransport(client=lambda: wirespeed.ClientSession())
        return httpx.AsyncClient(transport=transport, **options)

    yield new_client


@contextmanager
def installed() -> Iterator[Any]:
    with wirespeed.installed():
        yield httpx_aiohttp.HttpxAiohttpClient


ways = pytest.mark.parametrize("way", [plain, direct, direct_by_a_factory, installed])


def session_of(client: Any) -> aiohttp.ClientSession:
    session = client._transport.client
    return session if isinstance(session, aiohttp.ClientSession) else client._transport.get_client()


@ways
async def test_requests_of_httpx_take_the_express_lane(way: Any) -> None:
    async with LocalServer() as server:
        with way() as new_client:
            async with new_client() as client:
                assert (await client.get(server.url("/ok"))).text == "ok"
                with lane(session_of(client), "express"):
                    resp = await client.get(server.url("/echo"), params={"a": "b"}, headers={"X-A": "c"})
                    assert resp.json()["target"] == "/echo?a=b"
                    assert ["X-A", "c"] in [[n.title(), v] for n, v in resp.json()["headers"]]
                    resp = await client.post(server.url("/echo"), json={"x": 1})
                    assert resp.json()["body"] == '{"x":1}'
                    resp = await client.put(server.url("/echo"), data={"f": "ü"})
                    assert resp.json()["body"] == "f=%C3%BC"
                    resp = await client.head(server.url("/ok"))
                    assert (resp.status_code, resp.content) == (200, b"")
                    resp = await client.get(server.url("/redirect?to=/ok"), follow_redirects=True)
                    assert (resp.text, len(resp.history)) == ("ok", 1)
                    resp = await client.get(server.url("/status?n=404"))
                    assert (resp.status_code, resp.reason_phrase) == (404, "Status")
        assert len(server.connections) == 1


@ways
async def test_bodies_are_streamed_both_ways(way: Any) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 70000

    async with LocalServer() as server:
        server.routes["/sum"] = lambda x: x.respond_json(
            {"got": x.body_size, "te": x.header("Transfer-Encoding")}
        )
        with way() as new_client:
            async with new_client() as client:
                resp = await client.post(server.url("/sum"), content=body())
                assert resp.json() == {"got": 210000, "te": "chunked"}
                with lane(session_of(client), "express"):
                    async with client.stream("GET", server.url("/bytes?n=300000")) as resp:
                        assert sum([len(part) async for part in resp.aiter_bytes()]) == 300000
                async with client.stream("GET", server.url("/endless")) as resp:
                    async for _ in resp.aiter_bytes():
                        break
                assert (await client.get(server.url("/ok"))).text == "ok"


@ways
async def test_compressed_answer_is_httpx_s_to_decode(way: Any) -> None:
    async with LocalServer() as server:
        packed = gzip.compress(b"unpacked" * 100)
        server.routes["/gzip"] = lambda x: x.respond(200, packed, [("Content-Encoding", "gzip")])
        with way() as new_client:
            async with new_client() as client:
                resp = await client.get(server.url("/gzip"))
                assert resp.text == "unpacked" * 100
                assert resp.headers["content-encoding"] == "gzip"


@ways
async def test_failures_are_httpx_s_own(way: Any) -> None:
    def cut(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        exchange.connection.transport.close()

    async with LocalServer() as server:
        server.routes["/cut"] = cut
        with way() as new_client:
            async with new_client() as client:
                with pytest.raises(httpx.ReadTimeout):
                    await client.get(server.url("/hold"), timeout=0.1)
                with pytest.raises(httpx.TransportError):
                    await client.get(server.url("/drop"))
                with pytest.raises(httpx.ReadError):
                    await client.get(server.url("/cut"))
        refused = server.url("/ok")
    with way() as new_client:
        async with new_client() as client:
            # It means a ConnectError; the first class of its table that fits wins.
            with pytest.raises(httpx.ConnectTimeout, match="Cannot connect to host"):
                await client.get(refused)
