"""Requests that are put together from shapes: the bytes are aiohttp's, for the first of a shape and after."""

import asyncio
import itertools
import json
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checks import assert_express
from support.local import LocalServer
from yarl import URL

import wirespeed

pytestmark = pytest.mark.skipif(not wirespeed.NATIVE, reason="aiohttp builds its requests itself")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

NAMES = st.sampled_from(
    [
        "X-A", "x-a", "X-B", "Accept", "accept-encoding", "User-Agent", "Authorization", "Content-Type",
        "Cookie", "Host", "Connection", "TE", "Content-Encoding",
    ]
)  # fmt: skip
VALUES = st.sampled_from(["1", "a b", "ä", "", "wirespeed's mark 0", "2; q=1"])
REQUESTS = st.fixed_dictionaries(
    {"method": st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS"])},
    optional={
        "headers": st.dictionaries(NAMES, VALUES, max_size=4),
        "params": st.sampled_from(
            [{}, {"a": "1"}, {"a": "ä b", "c": "2"}, "x=1&y", [("a", "1"), ("a", "2")]]
        ),
        "json": st.sampled_from([{"a": 1}, [], "ä", 0, False]),
        "data": st.sampled_from([b"", b"abc", "text", "ä"]),
    },
)


async def sent_by(
    api: Any, requests: list[dict[str, Any]], url: str, server: LocalServer, **options: Any
) -> Any:
    """What the requests of one session put on the wire, or why they did not."""
    seen: list[Any] = []

    def serve(connection: Any, data: bytes) -> None:
        seen.append(data)
        connection.transport.write(ANSWER)

    server.on_data = serve
    async with api.ClientSession(cookie_jar=api.CookieJar(unsafe=True), **options) as session:
        for request in requests:
            try:
                async with session.request(url=url, **request) as resp:
                    seen.append((str(resp.url), dict(resp.request_info.headers), resp.method))
            except Exception as exc:
                seen.append((type(exc), str(exc)))
    return seen


async def assert_same(requests: list[dict[str, Any]], **options: Any) -> None:
    async with LocalServer(raw=True) as server:
        url = server.url("/path?q=1#fragment")
        theirs = await sent_by(aiohttp, requests, url, server, **options)
        assert await sent_by(wirespeed, requests, url, server, **options) == theirs


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=4),
    cookies=st.sampled_from([None, {"a": "1"}, {"a": "x y", "b": "2"}]),
    headers=st.sampled_from([None, {"X-A": "default", "X-D": "d"}, {"Accept": "text/html"}]),
)
def test_bytes_are_aiohttps(
    loop: asyncio.AbstractEventLoop, requests: list[dict[str, Any]], cookies: Any, headers: Any
) -> None:
    # Each twice: the second finds its shape made.
    loop.run_until_complete(assert_same([*requests, *requests], cookies=cookies, headers=headers))


async def test_values_change_and_the_shape_stays() -> None:
    async with LocalServer(raw=True) as server, wirespeed.ClientSession() as session:
        seen: list[bytes] = []

        def serve(connection: Any, data: bytes) -> None:
            seen.append(data)
            connection.transport.write(ANSWER)

        server.on_data = serve
        for i in range(3):
            headers = {"X-Number": str(i), "Authorization": f"Bearer {i}"}
            await session.post(server.url(f"/{i}"), params={"i": i}, headers=headers, json={"i": "x" * i})
        assert session._lane is not None
        assert [len(origin.shapes) for origin in session._lane.origins.values()] == [1]
        for i, data in enumerate(seen):
            head, _, body = data.partition(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            assert lines[0] == b"POST /%d?i=%d HTTP/1.1" % (i, i)
            assert b"X-Number: %d" % i in lines
            assert b"Authorization: Bearer %d" % i in lines
            assert b"Content-Length: %d" % len(body) in lines
            assert body == b'{"i": "%b"}' % (b"x" * i)
        assert_express(session, 3)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "\x7f"])
async def test_values_are_checked_before_anything_is_sent(value: str) -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        for _ in range(2):
            with pytest.raises(ValueError, match="control character"):
                await session.get(server.url("/ok"), headers={"X-A": value})
            await (await session.get(server.url("/ok"), headers={"X-A": "good"})).read()
        assert len(server.exchanges) == 2


@pytest.mark.parametrize("body", [{"json": {"a": 1}}, {"data": b"abc"}, {"data": "text"}])
@pytest.mark.parametrize("status", [301, 303, 307, 308])
async def test_redirects_carry_the_body_on_as_aiohttp_does(status: int, body: dict[str, Any]) -> None:
    async def run(api: Any) -> Any:
        async with LocalServer(raw=True) as server:
            seen: list[bytes] = []

            def serve(connection: Any, data: bytes) -> None:
                seen.append(data.replace(str(URL(server.url("/")).port).encode(), b"PORT"))
                target = b"/there" if b"/there" not in data else b""
                redirect = b"HTTP/1.1 %d Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n" % status
                connection.transport.write(redirect if target else ANSWER)

            server.on_data = serve
            async with api.ClientSession() as session:
                resp = await session.post(server.url("/here"), headers={"X-A": "1"}, **body)
                assert len(resp.history) == 1
            return seen

    assert await run(wirespeed) == await run(aiohttp)


async def test_body_is_sent_again_when_a_reused_connection_is_lost() -> None:
    """PUT is idempotent: it goes out once more, whole."""

    async def run(api: Any) -> list[bytes]:
        async with LocalServer(raw=True) as server:
            seen: list[bytes] = []
            turn = itertools.count()

            def serve(connection: Any, data: bytes) -> None:
                seen.append(data.replace(str(URL(server.url("/")).port).encode(), b"PORT"))
                if next(turn) == 1:
                    connection.transport.abort()
                else:
                    connection.transport.write(ANSWER)

            server.on_data = serve
            async with api.ClientSession() as session:
                for i in range(2):
                    await session.put(server.url("/"), headers={"X-A": str(i)}, json={"i": i})
            return seen

    ours = await run(wirespeed)
    assert len(ours) == 3
    assert ours == await run(aiohttp)


async def test_large_json_is_made_into_bytes_once() -> None:
    calls: list[Any] = []

    def dumps(value: Any) -> str:
        calls.append(value)
        return json.dumps(value)

    async with LocalServer() as server:
        for api in (aiohttp, wirespeed):
            async with api.ClientSession(json_serialize=dumps) as session:
                resp = await session.post(server.url("/echo"), json={"a": "x" * 100_000})
                assert await resp.read()
        theirs, ours = server.exchanges
        assert len(calls) == 2
        assert ours.head == theirs.head
        assert ours.body == theirs.body
