"""aiohttp-client-cache: a session class derived from aiohttp's, that copies responses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from support.local import Exchange, LocalServer

import wirespeed

from .scene import lane, need

cache = need("aiohttp_client_cache")
session_module = need("aiohttp_client_cache.session")


@contextmanager
def plain() -> Iterator[Any]:
    yield cache.CachedSession


@contextmanager
def direct() -> Iterator[Any]:
    with pytest.warns(DeprecationWarning, match="Inheritance class"):

        class Cached(session_module.CacheMixin, wirespeed.ClientSession):  # type: ignore[misc]
            pass

    yield Cached


@contextmanager
def installed() -> Iterator[Any]:
    with wirespeed.installed():
        yield cache.CachedSession


@contextmanager
def installed_before_the_class_is_made() -> Iterator[Any]:
    with wirespeed.installed():
        with pytest.warns(DeprecationWarning, match="Inheritance class"):

            class Cached(session_module.CacheMixin, aiohttp.ClientSession):  # type: ignore[misc]
                pass

        yield Cached


ways = pytest.mark.parametrize("way", [plain, direct, installed, installed_before_the_class_is_made])


@ways
async def test_hit_does_not_reach_the_server(way: Any) -> None:
    async with LocalServer() as server:
        with way() as new_session:
            async with new_session() as session:
                with lane(session, "express"):
                    first = await session.get(server.url("/echo?a=1"), headers={"X-A": "b"})
                assert not first.from_cache
                with lane(session):
                    second = await session.get(server.url("/echo?a=1"), headers={"X-A": "b"})
                assert second.from_cache
                assert await second.json() == await first.json()
                assert second.headers["Content-Type"] == first.headers["Content-Type"]
                assert second.status == 200
                await session.get(server.url("/echo?a=2"))
        assert [x.target for x in server.exchanges] == ["/echo?a=1", "/echo?a=2"]


@ways
async def test_body_can_be_streamed_from_the_first_answer_and_from_the_hit(way: Any) -> None:
    async with LocalServer() as server:
        with way() as new_session:
            async with new_session() as session:
                sizes = []
                for _ in range(2):
                    async with session.get(server.url("/chunked?n=200000")) as resp:
                        sizes.append(sum([len(part) async for part in resp.content.iter_chunked(65536)]))
                assert sizes == [200000, 200000]
        assert len(server.exchanges) == 1


@ways
async def test_redirects_cookies_and_statuses_are_kept(way: Any) -> None:
    def with_cookie(exchange: Exchange) -> None:
        exchange.respond(200, b"set", [("Set-Cookie", "c=1; Path=/")])

    async with LocalServer() as server:
        server.routes["/cookie"] = with_cookie
        with way() as new_session:
            jar = aiohttp.CookieJar(unsafe=True)
            async with new_session(cookie_jar=jar) as session:
                for _ in range(2):
                    jar.clear()
                    async with session.get(server.url("/redirect?to=/cookie")) as resp:
                        assert await resp.text() == "set"
                        assert [r.status for r in resp.history] == [302]
                        assert resp.url.path == "/cookie"
                    assert [morsel.key for morsel in jar] == ["c"]
                for _ in range(2):  # an error is not kept
                    assert (await session.get(server.url("/status?n=500"))).status == 500
        assert len(server.exchanges) == 4


@ways
async def test_answer_is_validated_with_its_tag(way: Any) -> None:
    def tagged(exchange: Exchange) -> None:
        if exchange.header("If-None-Match") == '"v1"':
            exchange.respond(304, b"", [("ETag", '"v1"')])
        else:
            exchange.respond(200, b"body", [("ETag", '"v1"')])

    async with LocalServer() as server:
        server.routes["/tagged"] = tagged
        with way() as new_session:
            async with new_session() as session:
                await session.get(server.url("/tagged"))
                resp = await session.get(server.url("/tagged"), refresh=True)
                assert (resp.status, await resp.read()) == (200, b"body")
                async with session.disabled():
                    await (await session.get(server.url("/tagged"))).read()
        assert [x.header("If-None-Match") for x in server.exchanges] == [None, '"v1"', None]


@ways
async def test_session_s_own_arguments_reach_it(way: Any) -> None:
    async with LocalServer() as server:
        with way() as new_session:
            connector = wirespeed.TCPConnector(limit=3)
            async with new_session(
                server.url("/"), connector=connector, headers={"X-Own": "yes"}, raise_for_status=True
            ) as session:
                assert session.connector is connector
                resp = await session.post("/echo", data=b"x")
                assert ["X-Own", "yes"] in (await resp.json())["headers"]
                with pytest.raises(aiohttp.ClientResponseError):
                    await session.get("/status?n=404")
