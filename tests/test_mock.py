"""The mock: what it answers, what it records, and that nothing goes past it.

Most bodies run on aiohttp's own session, on wirespeed's, and on aiohttp's name after
`install()`; the mock stands below all of them.
"""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import io
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import ANY

import aiohttp
import pytest
import yarl
from support.checks import assert_express, eventually, nothing_left
from support.local import LocalServer

import wirespeed
from wirespeed.testing import CLOSE, RESET, HTTPMock, Request, Response, UnmatchedRequest, mock

URL = "https://api.example/users"
Sessions = Callable[..., aiohttp.ClientSession]
AIOHTTPS_SESSION, AIOHTTPS_CONNECTOR = aiohttp.ClientSession, aiohttp.TCPConnector


@pytest.fixture(params=["aiohttp", "wirespeed", "installed"])
def new_session(request: pytest.FixtureRequest) -> Iterator[Sessions]:
    if request.param == "installed":
        with wirespeed.installed():
            yield lambda **kwargs: aiohttp.ClientSession(**kwargs)
    elif request.param == "wirespeed":
        yield wirespeed.ClientSession
    else:
        yield AIOHTTPS_SESSION


async def text_of(session: aiohttp.ClientSession, url: str, method: str = "GET", **kwargs: Any) -> str:
    async with session.request(method, url, **kwargs) as resp:
        return await resp.text()


# What is recorded


async def test_request_is_recorded_as_it_was_sent(new_session: Sessions) -> None:
    with mock() as api:
        route = api.post(URL).respond(201, json={"id": 7})
        async with (
            new_session(headers={"X-Tenant": "a"}, cookies={"sid": "1"}) as session,
            session.post(f"{URL}?b=2&a=%C3%A9", json={"name": "Ada"}) as resp,
        ):
            assert (resp.status, resp.reason) == (201, "Created")
            assert await resp.json() == {"id": 7}
    (call,) = route.calls
    assert api.calls == [call]
    assert call.method == "POST"
    assert str(call.url) == f"{URL}?b=2&a=%C3%A9"
    assert dict(call.query) == {"b": "2", "a": "é"}
    assert call.headers["x-tenant"] == "a"
    assert call.headers["Host"] == "api.example"
    assert call.cookies == {"sid": "1"}
    assert call.content_type == "application/json"
    assert call.json() == {"name": "Ada"}
    assert call.text() == call.body.decode() == '{"name": "Ada"}'
    assert repr(call) == f"<Request POST {URL}?b=2&a=%C3%A9>"


async def test_bodies_of_every_kind_are_recorded(new_session: Sessions) -> None:
    async def generated() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(0)
        yield b"two"

    blob = bytes(range(256)) * 3 + b"\r\n\r\n--x"
    form = aiohttp.FormData()
    form.add_field("name", "é")
    form.add_field("file", blob, filename="blob.bin", content_type="application/octet-stream")
    with mock() as api:
        route = api.put(URL)
        async with new_session() as session:
            await text_of(session, URL, "PUT", data=b"\x00\xff")
            await text_of(session, URL, "PUT", data={"a": "1", "b": "x y"})
            await text_of(session, URL, "PUT", data=generated())
            await text_of(session, URL, "PUT", data=form)
            await text_of(session, URL, "PUT", data=b"z" * 5000, compress="gzip")
            await text_of(session, URL, "PUT", data=b"patience", expect100=True)
    bodies = [call.body for call in route.calls]
    assert bodies[0] == b"\x00\xff"
    assert list(route.calls[1].form().items()) == [("a", "1"), ("b", "x y")]
    assert bodies[2] == b"one two"
    assert dict(route.calls[3].form()) == {"name": "é", "file": blob}
    assert bodies[4] == b"z" * 5000
    assert bodies[5] == b"patience"
    assert not route.calls[0].form()


# Which route answers


def asked(method: str = "GET", url: str = URL, *, body: bytes = b"", **headers: str) -> Request:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Request(method, yarl.URL(url), pairs, body)


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("route", "request_", "expected"),
    [
        (("GET", URL, {}), asked(), True),
        (("get", URL, {}), asked(), True),
        (("GET", URL, {}), asked("POST"), False),
        ((None, None, {}), asked("PATCH", "http://elsewhere/"), True),
        (("GET", URL, {}), asked(url=f"{URL}?page=2"), True),
        (("GET", f"{URL}?page=2", {}), asked(url=f"{URL}?page=2&x=1"), True),
        (("GET", f"{URL}?page=2", {}), asked(), False),
        (("GET", URL, {}), asked(url=f"{URL}/"), False),
        (("GET", "https://API.example:443/users", {}), asked(), True),
        (("GET", "http://api.example/users", {}), asked(), False),
        (("GET", "https://api.example/a%20b", {}), asked(url="https://api.example/a b"), True),
        (("GET", "wss://api.example/users", {}), asked(), True),
        (("GET", "https://api.example", {}), asked(url="https://api.example/"), True),
        (("GET", re.compile(r"https://api\.example/users"), {}), asked(url=f"{URL}/1?x=1"), True),
        (("GET", re.compile(r"/users"), {}), asked(), False),
        (("GET", URL, {"params": {"b": 2, "a": "1"}}), asked(url=f"{URL}?a=1&b=2&c=3"), True),
        (("GET", URL, {"params": {"a": ["1", "2"]}}), asked(url=f"{URL}?a=2&a=1"), True),
        (("GET", URL, {"params": {"a": "1"}}), asked(url=f"{URL}?a=2&a=1"), False),
        (("GET", URL, {"params": [("a", "1"), ("a", "2")]}), asked(url=f"{URL}?a=1&a=2"), True),
        (("GET", URL, {"params": "a=1&b=2"}), asked(url=f"{URL}?b=2&a=1"), True),
        (("GET", URL, {"params": {"a": re.compile(r"\d+")}}), asked(url=f"{URL}?a=12"), True),
        (("GET", URL, {"params": {"a": re.compile(r"\d+")}}), asked(url=f"{URL}?a=12x"), False),
        (("GET", URL, {"params": {"a": ANY}}), asked(url=f"{URL}?a=anything"), True),
        (("GET", URL, {"params": {"a": ANY}}), asked(), False),
        (("GET", URL, {"params": {}}), asked(), True),
        (("GET", URL, {"params": {}}), asked(url=f"{URL}?a=1"), False),
        (("GET", URL, {"headers": {"x-KEY": "k"}}), asked(X_Key="k", X_Other="o"), True),
        (("GET", URL, {"headers": {"X-Key": "k"}}), asked(X_Key="K"), False),
        (("POST", URL, {"json": {"a": [1, ANY]}}), asked("POST", body=b'{"a": [1, 2]}'), True),
        (("POST", URL, {"json": {"a": 1}}), asked("POST", body=b'{"a": 1, "b": 2}'), False),
        (("POST", URL, {"json": None}), asked("POST", body=b"null"), True),
        (("POST", URL, {"json": None}), asked("POST", body=b"no json"), False),
        (("POST", URL, {"data": b"raw"}), asked("POST", body=b"raw"), True),
        (("POST", URL, {"data": "text"}), asked("POST", body=b"text"), True),
        (("POST", URL, {"data": re.compile(r"te.t")}), asked("POST", body=b"text"), True),
        (("POST", URL, {"data": re.compile(rb"te.t")}), asked("POST", body=b"texts"), False),
        (("POST", URL, {"data": {"b": 2, "a": "x y"}}), asked("POST", body=b"a=x+y&b=2", Content_Type=FORM),
         True),
        (("POST", URL, {"data": {"a": "1"}}), asked("POST", body=b"a=1&b=2", Content_Type=FORM), False),
        (("POST", URL, {"match": lambda request: b"x" in request.body}), asked("POST", body=b"x"), True),
        (("POST", URL, {"match": lambda request: b"x" in request.body}), asked("POST", body=b"y"), False),
    ],
)  # fmt: skip
def test_criteria(route: tuple[Any, Any, dict[str, Any]], request_: Request, expected: bool) -> None:
    method, url, criteria = route
    found = mock().route(method, url, **criteria).criteria.differences(request_)
    assert (not found) is expected, found


def test_route_needs_a_host() -> None:
    with pytest.raises(ValueError, match="absolute URL"):
        mock().get("/users")
    api = mock(base_url="https://api.example/v1/")
    assert str(api.get("/users").criteria) == "GET https://api.example/v1/users"
    assert str(api.get("https://other.example/x").criteria) == "GET https://other.example/x"


async def test_first_route_that_matches_and_has_an_answer_left_takes_the_request(
    new_session: Sessions,
) -> None:
    with mock() as api:
        second_page = api.get(URL, params={"page": 2}).respond(text="second page")
        first = api.get(URL).respond(text="first", times=2)
        then = api.get(URL).respond(text="then")
        async with new_session() as session:
            found = [await text_of(session, URL, params={"page": p}) for p in (1, 2, 1, 1, 2)]
    assert found == ["first", "second page", "first", "then", "second page"]
    assert [route.call_count for route in (second_page, first, then)] == [2, 2, 1]


async def test_answers_come_in_order_and_the_last_one_again(new_session: Sessions) -> None:
    with mock() as api:
        route = api.get(URL).respond(text="a", times=2).respond(text="b").respond(text="c")
        async with new_session() as session:
            assert [await text_of(session, URL) for _ in range(6)] == ["a", "a", "b", "c", "c", "c"]
            route.respond(text="d")
            assert await text_of(session, URL) == "d"


async def test_route_without_an_answer_gives_an_empty_200(new_session: Sessions) -> None:
    with mock() as api:
        api.route()
        async with new_session() as session, session.delete(URL) as resp:
            assert (resp.status, await resp.read()) == (200, b"")
            assert resp.headers["Content-Length"] == "0"


def test_times_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least once"):
        mock().get(URL).respond(times=0)


# What is answered


async def test_client_handles_responses_as_in_earnest(new_session: Sessions) -> None:
    with mock(base_url="https://api.example") as api:
        api.get("/login").respond(
            302, headers=[("Location", "/home"), ("Set-Cookie", "sid=1; Path=/"), ("Set-Cookie", "b=2")]
        )
        home = api.get("/home").respond(
            headers={"Content-Encoding": "gzip"}, body=gzip.compress(b"welcome"), reason="Fine"
        )
        api.head("/home").respond(json={"a": 1}, headers={"X-A": "é"})
        api.delete("/home").respond(204)
        async with new_session(base_url="https://api.example") as session:
            async with session.get("/login") as resp:
                assert await resp.text() == "welcome"
                assert resp.reason == "Fine"
                assert str(resp.url) == "https://api.example/home"
                assert [str(r.url) for r in resp.history] == ["https://api.example/login"]
            assert home.calls[0].cookies == {"sid": "1", "b": "2"}
            async with session.head("/home") as resp:
                assert (resp.headers["Content-Length"], resp.headers["X-A"]) == ("8", "é")
                assert await resp.read() == b""
            async with session.delete("/home") as resp:
                assert resp.status == 204
                assert "Content-Length" not in resp.headers


async def test_streamed_bodies(new_session: Sessions) -> None:
    async def generated() -> AsyncIterator[bytes]:
        yield b"one "
        await asyncio.sleep(0.01)
        yield b"two"

    with mock() as api:
        api.get(URL).respond(body=[b"a", 0.01, b"", b"b"]).respond(body=iter([b"c", b"d"])).respond(
            body=[b"ab", b"cd"], headers={"Content-Length": "4"}
        )
        api.post(URL).respond(body=generated())
        async with new_session() as session:
            async with session.get(URL) as resp:
                assert resp.headers["Transfer-Encoding"] == "chunked"
                assert [part async for part in resp.content.iter_any()] == [b"a", b"b"]
            assert await text_of(session, URL) == "cd"
            assert await text_of(session, URL) == "abcd"
            assert await text_of(session, URL, "POST") == "one two"


async def test_http_1_0_gets_a_body_that_ends_with_the_connection(new_session: Sessions) -> None:
    with mock() as api:
        route = api.get(URL).respond(body=[b"a", b"b"])
        async with new_session(version=aiohttp.HttpVersion10) as session:
            assert await text_of(session, URL) == "ab"
    assert route.calls[0].version == "1.0"


async def test_big_bodies_go_both_ways(new_session: Sessions) -> None:
    size = 3_000_000
    with mock() as api:
        route = api.post(URL).respond(body=b"r" * size)
        async with new_session() as session, session.post(URL, data=io.BytesIO(b"s" * size)) as resp:
            await asyncio.sleep(0.01)
            received = 0
            async for part in resp.content.iter_chunked(100_000):
                received += len(part)
                await asyncio.sleep(0)
    assert received == size
    assert len(route.calls[0].body) == size


def test_response_refuses_what_would_break_its_head() -> None:
    with pytest.raises(ValueError, match="line break"):
        Response(headers={"X": "a\r\nInjected: b"})
    with pytest.raises(ValueError, match="one body"):
        Response(json=[], text="")


async def test_stream_is_given_byte_by_byte(new_session: Sessions) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n"
    with mock() as api:
        api.get(URL).streams([head[:20], 0.01, head[20:], b"\r\nabc", 0.01, b"def"]).streams(
            [b"HTTP/1.1 200 Fine\r\n\r\nup to the end", CLOSE]
        )
        async with new_session() as session:
            assert await text_of(session, URL) == "abcdef"
            assert await text_of(session, URL) == "up to the end"


async def test_response_is_cut(new_session: Sessions) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"
    with mock() as api:
        api.get(URL).streams([head, RESET]).streams([head, CLOSE]).streams([head, OSError("cable")])
        api.post(URL).respond(body=[b"abc", api.RESET])
        async with new_session() as session:
            for reason in ("Connection reset", "received 3 of 6", "cable"):
                with pytest.raises(aiohttp.ClientPayloadError, match=reason):
                    await text_of(session, URL)
            with pytest.raises(aiohttp.ClientPayloadError, match="Connection reset"):
                await text_of(session, URL, "POST")


async def test_script_ends_with_an_error_of_its_own(new_session: Sessions) -> None:
    with mock() as api:
        api.get(URL).streams([b"HTTP/1.1 200 OK\r\n", "text"])  # type: ignore[list-item]
        async with new_session() as session:
            with pytest.raises(TypeError, match="a step is bytes"):
                await session.get(URL)


# Handlers


async def test_handlers_answer(new_session: Sessions) -> None:
    with mock() as api:

        @api.post(URL).handle
        def echo(request: Request) -> Response:
            return Response(202, json={"got": request.json()})

        async def slow(request: Request) -> Response:
            await asyncio.sleep(0.01)
            return Response(text=request.query["q"], delay=0.01)

        async def scripted(request: Request) -> Any:
            return [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"]

        api.get(URL).handle(slow, times=1).handle(scripted).handle(lambda request: None)
        async with new_session() as session:
            async with session.post(URL, json=[1]) as resp:
                assert (resp.status, await resp.json()) == (202, {"got": [1]})
            assert await text_of(session, URL, params={"q": "x"}) == "x"
            assert await text_of(session, URL) == "ok"
            assert await text_of(session, URL) == ""
    assert echo.call_count == 1


async def test_what_a_handler_raises_the_client_raises(new_session: Sessions) -> None:
    def fails(request: Request) -> None:
        raise AssertionError("the body is wrong")

    async def fails_later(request: Request) -> None:
        await asyncio.sleep(0)
        raise LookupError("later")

    with mock() as api:
        api.post(URL).handle(fails).handle(fails_later).handle(lambda request: 200)
        async with new_session() as session:
            with pytest.raises(AssertionError, match="the body is wrong"):
                await session.post(URL)
            with pytest.raises(LookupError, match="later"):
                await session.post(URL)
            with pytest.raises(TypeError, match="a handler returns"):
                await session.post(URL)


async def test_websocket_handshake_can_be_scripted() -> None:
    def accept(request: Request) -> list[bytes]:
        key = request.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        token = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        head = (
            f"HTTP/1.1 101 Hi\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {token}"
        )
        return [f"{head}\r\n\r\n".encode(), b"\x81\x02hi"]

    with mock() as api:
        api.get("wss://api.example/ws").handle(accept)
        async with wirespeed.ClientSession() as session:
            ws = await session.ws_connect(
                "wss://api.example/ws", timeout=aiohttp.ClientWSTimeout(ws_close=0.01)
            )
            assert await ws.receive_str() == "hi"
            await ws.close()


# Failures and time


@pytest.mark.parametrize(
    ("failure", "expected", "message"),
    [
        (ConnectionRefusedError, aiohttp.ClientConnectorError, "Cannot connect to host api.example:443"),
        (OSError(113, "No route to host"), aiohttp.ClientConnectorError, "No route to host"),
        (socket.gaierror, aiohttp.ClientConnectorDNSError, "Name or service not known"),
        (TimeoutError, aiohttp.ConnectionTimeoutError, "Connection timeout to host"),
        (asyncio.TimeoutError(), aiohttp.ConnectionTimeoutError, "Connection timeout to host"),
        (ssl.SSLError(1, "bad record"), aiohttp.ClientConnectorSSLError, "bad record"),
        (ssl.SSLCertVerificationError(1, "self-signed"), aiohttp.ClientConnectorCertificateError, "self-s"),
        (aiohttp.ClientConnectionError("as it is"), aiohttp.ClientConnectionError, "as it is"),
        (ValueError("as it is"), ValueError, "as it is"),
    ],
)
async def test_connecting_fails(
    new_session: Sessions, failure: Any, expected: type[Exception], message: str
) -> None:
    with mock() as api:
        route = api.post(URL, json={"a": 1}).raises(failure)
        async with new_session() as session:
            with pytest.raises(expected, match=message) as caught:
                await session.post(URL, json={"a": 1})
            assert type(caught.value) is expected
    assert route.calls[0].json() == {"a": 1}


async def test_failure_to_connect_is_met_although_a_connection_was_warm(new_session: Sessions) -> None:
    with mock() as api:
        api.get(URL).respond(text="one").raises(ConnectionRefusedError).respond(text="two")
        async with new_session() as session:
            assert await text_of(session, URL) == "one"
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(URL)
            assert await text_of(session, URL) == "two"


async def test_session_headers_are_a_criterion_of_a_failure_to_connect(new_session: Sessions) -> None:
    with mock() as api:
        api.get(URL, headers={"X-Tenant": "b"}).raises(ConnectionRefusedError)
        api.get(URL).respond(text="a")
        async with new_session(headers={"X-Tenant": "a"}) as session:
            assert await text_of(session, URL) == "a"
        async with new_session(headers={"X-Tenant": "b"}) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(URL)


async def test_disconnect_is_retried_once_when_idempotent(new_session: Sessions) -> None:
    with mock() as api:
        got = api.get(URL).disconnects().respond(text="second attempt")
        posted = api.post(URL).disconnects().disconnects(ConnectionResetError, delay=0.01)
        async with new_session() as session:
            assert await text_of(session, URL) == "second attempt"
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post(URL)
            with pytest.raises(aiohttp.ClientOSError, match="Connection reset"):
                await session.post(URL)
    assert got.call_count == 2
    assert posted.call_count == 2


async def test_delays_meet_the_timeouts_of_the_session(new_session: Sessions) -> None:
    with mock() as api:
        api.get(URL).respond(text="late", delay=0.05)
        api.post(URL).respond(delay=30)
        api.put(URL).respond(body=[b"a", 30, b"b"])
        api.patch(URL).raises(ConnectionRefusedError, delay=30)
        async with new_session() as session:
            assert await text_of(session, URL) == "late"
            for timeout in (aiohttp.ClientTimeout(total=0.03), aiohttp.ClientTimeout(sock_read=0.03)):
                with pytest.raises(asyncio.TimeoutError):
                    await session.post(URL, timeout=timeout)
                async with session.put(URL, timeout=timeout) as resp:
                    assert await resp.content.readany() == b"a"
                    with pytest.raises(asyncio.TimeoutError):
                        await resp.content.readany()
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await session.patch(URL, timeout=aiohttp.ClientTimeout(sock_connect=0.03))


# What no route takes


async def test_request_without_a_route_fails_and_fails_the_mock(new_session: Sessions) -> None:
    api = mock()
    api.start()
    api.get(URL, params={"page": 1})
    api.post(URL, json={})
    far = api.get("https://far.example/").respond(times=1)
    api.get("https://farther.example/")
    async with new_session() as session:
        with contextlib.suppress(aiohttp.ClientConnectionError):  # as programs do
            await session.get(URL, params={"page": 2})
        await text_of(session, "https://far.example/")
        with pytest.raises(UnmatchedRequest, match="all its answers were given"):
            await session.get("https://far.example/")
        with pytest.raises(UnmatchedRequest) as caught:
            await session.get(URL, params={"page": 3})
    api.stop()
    assert str(caught.value).splitlines() == [
        "no route for GET https://api.example/users?page=3",
        "  GET https://api.example/users params={'page': 1}: params 'page' is '3', not 1",
        "  POST https://api.example/users json={}: the method is GET; the body is not JSON",
        "  GET https://far.example/: the URL is another",
        "  and 1 more",
    ]
    assert isinstance(caught.value, aiohttp.ClientConnectionError)
    assert caught.value.request is api.unmatched[-1]
    assert api.calls == far.calls
    with pytest.raises(AssertionError) as failed:
        api.assert_all_mocked()
    assert str(failed.value).count("no route for") == 3


async def test_mock_fails_at_its_end_although_the_program_swallowed_the_error(new_session: Sessions) -> None:
    async def program() -> None:
        async with mock(), new_session() as session:
            with contextlib.suppress(aiohttp.ClientError):
                await session.get(URL)

    with pytest.raises(AssertionError, match="the mock has no routes"):
        await program()


async def test_mock_does_not_hide_another_failure() -> None:
    async def program() -> None:
        async with mock(), wirespeed.ClientSession() as session:
            with contextlib.suppress(UnmatchedRequest):
                await session.get(URL)
            raise LookupError

    with pytest.raises(LookupError):
        await program()


async def test_unmatched_may_be_expected() -> None:
    with mock(assert_all_mocked=False):
        async with wirespeed.ClientSession() as session:
            with pytest.raises(UnmatchedRequest):
                await session.get(URL)


async def test_assertions_about_calls() -> None:
    with mock() as api:
        route, idle = api.post(URL), api.get(URL)
        async with wirespeed.ClientSession() as session:
            with pytest.raises(AssertionError, match="not called: POST"):
                route.assert_called()
            await text_of(session, URL, "POST", json={"a": 1}, params={"p": "1"}, headers={"X": "y"})
            route.assert_called_once()
            route.assert_called_once_with(json={"a": 1}, params={"p": 1}, headers={"X": "y"})
            with pytest.raises(AssertionError, match=r"json is \{'a': 1\}; "):
                route.assert_called_once_with(json={"a": 2}, data="x")
            await text_of(session, URL, "POST")
        with pytest.raises(AssertionError, match="called 2 times, not once"):
            route.assert_called_once()
        route.assert_called_with(data=b"")
        idle.assert_not_called()
        with pytest.raises(AssertionError, match="called 2 times"):
            route.assert_not_called()
        with pytest.raises(AssertionError, match=r"not called:\n  GET https://api.example/users"):
            api.assert_all_called()
        assert repr(route) == "<Route POST https://api.example/users calls=2>"
        api.reset()
        assert api.routes == api.calls == []
    with pytest.raises(AssertionError, match="not called"), mock(assert_all_called=True) as api:
        api.get(URL)


# Where it stands


async def test_warm_connection_to_the_real_server_is_not_used(new_session: Sessions) -> None:
    async with LocalServer() as server, new_session() as session:
        assert await text_of(session, server.url("/ok")) == "ok"
        with mock() as api:
            route = api.get(server.url("/ok")).respond(text="mocked")
            assert await text_of(session, server.url("/ok")) == "mocked"
            assert await text_of(session, server.url("/ok")) == "mocked"
            assert route.call_count == 2
        assert len(server.exchanges) == 1
        assert await text_of(session, server.url("/ok")) == "ok"
        assert len(server.exchanges) == 2


async def test_request_under_way_when_the_mock_begins_leaves_no_connection_behind(
    new_session: Sessions,
) -> None:
    async with LocalServer() as server, new_session() as session:
        async with session.get(server.url("/ok")) as resp:
            with mock() as api:
                api.get(server.url("/ok")).respond(text="mocked")
                assert await resp.text() == "ok"
                assert await text_of(session, server.url("/ok")) == "mocked"
        assert len(server.exchanges) == 1


async def test_request_that_waits_does_not_get_a_connection_to_the_real_server() -> None:
    for cls in (aiohttp.TCPConnector, wirespeed.TCPConnector):
        async with LocalServer() as server, wirespeed.ClientSession(connector=cls(limit=1)) as session:
            url = server.url("/ok")
            first = asyncio.ensure_future(text_of(session, server.url("/hold")))
            await eventually(lambda server=server: server.held)
            with mock() as api:
                api.get(url).respond(text="mocked")
                waiting = asyncio.ensure_future(text_of(session, url))
                await asyncio.sleep(0.01)
                server.held[0].respond(200, b"real")
                assert await asyncio.gather(first, waiting) == ["real", "mocked"]
            assert len(server.exchanges) == 1


async def test_requests_keep_their_lane() -> None:
    async with wirespeed.ClientSession() as session:
        with mock() as api:
            api.route()
            await text_of(session, URL)
            await text_of(session, URL, "POST", json=[1])
        assert_express(session, at_least=2)


async def test_connections_are_pooled_and_limited() -> None:
    seen: list[str] = []
    trace = aiohttp.TraceConfig()
    for event in ("connection_create_end", "connection_queued_end", "connection_reuseconn"):

        async def note(*args: Any, event: str = event) -> None:
            seen.append(event)

        getattr(trace, f"on_{event}").append(note)
    connector = aiohttp.TCPConnector(limit=1)
    with mock() as api:
        api.get(URL).respond(delay=0.01)
        async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
            await asyncio.gather(text_of(session, URL), text_of(session, URL))
    assert seen == ["connection_create_end", "connection_queued_end", "connection_reuseconn"]


async def test_middlewares_see_mocked_requests(new_session: Sessions) -> None:
    async def sign(req: Any, handler: Any) -> Any:
        req.headers["X-Signed"] = "yes"
        return await handler(req)

    with mock() as api:
        route = api.get(URL, headers={"X-Signed": "yes"})
        async with new_session(middlewares=[sign]) as session:
            await text_of(session, URL)
    assert route.called


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_proxies_are_not_asked(new_session: Sessions, scheme: str) -> None:
    with mock() as api:
        route = api.get(f"{scheme}://api.example/users").respond(text="direct")
        async with new_session() as session:
            url = f"{scheme}://api.example/users?a=1"
            assert await text_of(session, url, proxy="http://proxy.example:3128") == "direct"
    assert str(route.calls[0].url) == f"{scheme}://api.example/users?a=1"


async def test_unix_sockets(new_session: Sessions) -> None:
    with mock() as api:
        api.get("http://docker/info").respond(text="unix", times=2).raises(FileNotFoundError(2, "No file"))
        for module in (aiohttp, wirespeed):
            async with new_session(connector=module.UnixConnector("/run/none.sock")) as session:
                assert await text_of(session, "http://docker/info") == "unix"
        async with new_session(connector=wirespeed.UnixConnector("/run/none.sock")) as session:
            with pytest.raises(aiohttp.ClientConnectorError, match="unix socket /run/none"):
                await session.get("http://docker/info")


async def test_tls_needs_no_certificate(new_session: Sessions) -> None:
    with mock() as api:
        api.get(URL).respond(body=[b"a", 0.05, b"b"])
        async with new_session() as session, session.get(URL) as resp:
            assert resp.connection is not None
            transport = resp.connection.transport
            assert transport is not None
            tls = transport.get_extra_info("ssl_object")
            assert tls.version() == "TLSv1.3"
            assert tls.getpeercert()["subjectAltName"] == (("DNS", "api.example"),)
            assert transport.get_extra_info("peername") == ("api.example", 443)
            assert await resp.read() == b"ab"


@pytest.mark.parametrize("base", [AIOHTTPS_CONNECTOR, wirespeed.TCPConnector], ids=["aiohttp", "wirespeed"])
@pytest.mark.parametrize("way", ["class", "instance"])
async def test_connector_that_dials_by_itself_is_mocked_too(
    base: type[aiohttp.TCPConnector], way: str
) -> None:
    dialled: list[str] = []

    class Own(base):  # type: ignore[valid-type, misc]
        async def _create_connection(self, req: Any, *args: Any) -> Any:
            dialled.append(req.url.host)
            return await super()._create_connection(req, *args)

    connector = Own() if way == "class" else base()
    if way == "instance":
        original = connector._create_connection

        async def replacement(req: Any, *args: Any) -> Any:
            dialled.append(req.url.host)
            return await original(req, *args)

        connector._create_connection = replacement
    async with LocalServer() as server, wirespeed.ClientSession(connector=connector) as session:
        with mock(passthrough="127.0.0.1") as api:
            api.get(URL).respond(text="mocked")
            assert await text_of(session, URL) == "mocked"
            assert not dialled
            assert await text_of(session, server.url("/ok")) == "ok"
    assert dialled == ["127.0.0.1"]


async def test_passthrough(new_session: Sessions) -> None:
    async with LocalServer() as server, new_session() as session:
        with mock(passthrough=[f"127.0.0.1:{server.port}"]) as api:
            api.route().respond(text="mocked")
            for _ in range(2):
                assert await text_of(session, server.url("/ok")) == "ok"
                assert await text_of(session, URL) == "mocked"
        assert len(server.exchanges) == 2
        assert len({exchange.connection for exchange in server.exchanges}) == 1
    assert len(api.calls) == 2


async def test_mock_for_one_session_leaves_the_others_alone(new_session: Sessions) -> None:
    async with LocalServer() as server, new_session() as mocked, new_session() as real:
        url = server.url("/ok")
        assert await text_of(mocked, url) == "ok"
        with mock(mocked) as api:
            api.get(url).respond(text="mocked")
            assert [await text_of(mocked, url), await text_of(real, url)] == ["mocked", "ok"]
        assert await text_of(mocked, url) == "ok"


async def test_inner_mock_answers_first(new_session: Sessions) -> None:
    async with new_session() as session:
        with mock() as outer:
            outer.get(URL).respond(text="outer")
            outer.post(URL).respond(text="outer")
            with mock() as inner:
                inner.get(URL).respond(text="inner")
                assert await text_of(session, URL) == "inner"
                assert await text_of(session, URL, "POST") == "outer"
            assert await text_of(session, URL) == "outer"
        assert (len(inner.calls), len(outer.calls)) == (1, 2)


async def test_connections_of_a_mock_for_one_session_end_with_it(new_session: Sessions) -> None:
    async with LocalServer() as server, new_session() as one, new_session() as other:
        url = server.url("/ok")
        with mock(other):
            with mock(one) as api:
                api.get(url).respond(text="mocked")
                assert await text_of(one, url) == "mocked"
            assert await text_of(one, url) == "ok"
            with mock(one) as api:
                api.get(url).respond(text="mocked")
                assert await text_of(one, url) == "mocked"


async def test_mock_that_ends_takes_its_requests_with_it(new_session: Sessions) -> None:
    """They are not sent again: the network would get them."""
    async with new_session() as session:
        async with mock() as api:

            @api.post(URL).handle
            async def forever(request: Request) -> None:
                await asyncio.sleep(30)

            slow = api.get(URL).respond(delay=30)
            tasks = [asyncio.ensure_future(session.request(method, URL)) for method in ("GET", "POST")]
            await eventually(lambda: slow.called and forever.called)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, aiohttp.ClientConnectionError), result
            assert "the mock ended" in str(result)


async def test_nothing_is_left(new_session: Sessions) -> None:
    async def never(request: Request) -> None:
        await asyncio.sleep(30)

    async with nothing_left(), mock() as api:
        api.get(URL).respond(text="x").respond(delay=30).handle(never)
        async with new_session() as session:
            await text_of(session, URL)
            for _ in range(2):
                with pytest.raises(asyncio.TimeoutError):
                    await session.get(URL, timeout=aiohttp.ClientTimeout(total=0.02))


async def test_aiohttp_is_as_it_was_afterwards() -> None:
    before = aiohttp.BaseConnector._get, dict(vars(wirespeed.TCPConnector))
    async with wirespeed.ClientSession() as session, aiohttp.ClientSession() as plain:
        with mock() as api:
            api.route()
            await text_of(session, URL)
            await text_of(plain, URL)
            assert aiohttp.BaseConnector._get is not before[0]
        assert "_create_connection" not in {**vars(session.connector), **vars(plain.connector)}
    assert (aiohttp.BaseConnector._get, dict(vars(wirespeed.TCPConnector))) == before
    for cls in wirespeed.TCPConnector.__mro__:
        assert "pool" not in vars(cls)


def test_mock_outlives_the_loops() -> None:
    async def ask(session_class: Any) -> str:
        async with session_class() as session:
            return await text_of(session, URL)

    with mock() as api:
        api.get(URL).respond(text="x")
        for cls in (wirespeed.ClientSession, aiohttp.ClientSession):
            assert asyncio.run(ask(cls)) == wirespeed.run(ask(cls)) == "x"
    assert len(api.calls) == 4


def test_mock_begins_once() -> None:
    api = HTTPMock()
    with api, pytest.raises(RuntimeError, match="active already"):
        api.start()
    api.stop()
    with api:
        pass


def test_no_socket_and_no_lookup() -> None:
    program = """
import asyncio, sys
asked = []
sys.addaudithook(lambda event, args: asked.append(event) if event.startswith("socket.") else None)
import aiohttp, wirespeed
from wirespeed.testing import mock
async def main():
    asked.clear()
    with mock() as api:
        api.get("https://api.example/").respond(text="x")
        for cls in (aiohttp.ClientSession, wirespeed.ClientSession):
            async with cls() as session, session.get("https://api.example/") as resp:
                assert await resp.text() == "x"
    assert not asked, asked
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
