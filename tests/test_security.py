"""Hostile input from the caller and from the server: refused, contained, never passed on."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import warnings
from collections.abc import Callable
from http.cookies import CookieError
from typing import Any

import aiohttp
import pytest
from support.checks import assert_express, eventually, express_session, nothing_left, resident_bytes
from support.local import Connection, Exchange, LocalServer
from yarl import URL

import wirespeed

MEGABYTE = 1024 * 1024
INJECTIONS = {"cr": "\r", "lf": "\n", "nul": "\0", "header": "\r\nX-Evil: 1"}
Kwargs = Callable[[str], dict[str, Any]]

REFUSED: dict[str, Kwargs] = {
    "method": lambda bad: {"method": "GET" + bad},
    "header_name": lambda bad: {"headers": {"X-Name" + bad: "1"}},
    "header_value": lambda bad: {"headers": {"X-Name": "1" + bad}},
    "header_value_start": lambda bad: {"headers": {"X-Name": bad + "1"}},
    "authorization": lambda bad: {"headers": {"Authorization": "Bearer x" + bad}},
    "content_type": lambda bad: {"data": b"x", "headers": {"Content-Type": "text/plain" + bad}},
    "host_header": lambda bad: {"headers": {"Host": "a" + bad}},
    "cookie_header": lambda bad: {"headers": {"Cookie": "a=b" + bad}},
    "cookie_name": lambda bad: {"cookies": {"a" + bad: "b"}},
}
ENCODED: dict[str, Kwargs] = {
    "path": lambda bad: {"path": "/a" + bad + "b"},
    "query": lambda bad: {"path": "/a?b=" + bad + "c"},
    "params": lambda bad: {"params": {"a" + bad: "b" + bad}},
    "cookie_value": lambda bad: {"cookies": {"a": "b" + bad}},
    "form": lambda bad: {"data": {"a" + bad: "b" + bad}},
}


@pytest.mark.parametrize("bad", INJECTIONS.values(), ids=INJECTIONS)
@pytest.mark.parametrize("kwargs", REFUSED.values(), ids=REFUSED)
async def test_control_characters_are_refused_before_a_byte_is_sent(kwargs: Kwargs, bad: str) -> None:
    async with LocalServer(raw=True) as server, nothing_left():
        async with wirespeed.ClientSession() as session:
            request = {"method": "POST", **kwargs(bad)}
            with pytest.raises((ValueError, CookieError)):
                await session.request(url=server.url("/"), **request)
        await asyncio.sleep(0.005)
        assert sum(connection.total_received for connection in server.connections) == 0


@pytest.mark.parametrize("bad", INJECTIONS.values(), ids=INJECTIONS)
@pytest.mark.parametrize("kwargs", ENCODED.values(), ids=ENCODED)
async def test_control_characters_elsewhere_never_make_a_line(kwargs: Kwargs, bad: str) -> None:
    async with LocalServer() as server, express_session(at_least=0) as session:
        request = kwargs(bad)
        server.dispatch = lambda exchange: exchange.respond()  # type: ignore[method-assign]
        try:
            async with session.post(server.url(request.pop("path", "/")), **request) as resp:
                assert resp.status == 200
        except ValueError:
            assert server.exchanges == []
            return
        (exchange,) = server.exchanges
        assert "\r" not in exchange.head.replace(b"\r\n", b"").decode("latin-1")
        assert b"\n" not in exchange.head.replace(b"\r\n", b"")
        assert b"\0" not in exchange.head
        assert exchange.header("X-Evil") is None
        assert exchange.connection.received == b""


@pytest.mark.parametrize("bad", INJECTIONS.values(), ids=INJECTIONS)
async def test_url_said_to_be_encoded_cannot_inject(bad: str) -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        server.dispatch = lambda exchange: exchange.respond()  # type: ignore[method-assign]
        try:
            async with session.get(URL(server.url("/a" + bad + "b"), encoded=True)) as resp:
                assert resp.status == 200
        except ValueError:
            assert server.exchanges == []
            return
        (exchange,) = server.exchanges
        assert exchange.header("X-Evil") is None
        assert exchange.head.count(b"\n") == exchange.head.count(b"\r\n")
        assert b"\0" not in exchange.head


@pytest.mark.parametrize("url", ["http://", "http:///path", "/relative", "http://a:port/", "http://[::1/"])
async def test_invalid_url_is_refused(url: str) -> None:
    async with wirespeed.ClientSession() as session:
        with pytest.raises(aiohttp.InvalidURL) as caught:
            await session.get(url)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///etc/hosts", "javascript:alert(1)"])
async def test_other_schemes_are_refused(url: str) -> None:
    async with wirespeed.ClientSession() as session:
        with pytest.raises(aiohttp.NonHttpUrlClientError):
            await session.get(url)


async def _seen_after_redirect(hop: str, **kwargs: Any) -> tuple[Exchange, Exchange]:
    """The first and the second request of a redirect; `hop` is "same" or "other" origin."""
    async with LocalServer() as first, LocalServer() as second:
        target = (first if hop == "same" else second).url("/ok")
        url = URL(first.url("/redirect")).with_query(to=target)
        if user := kwargs.pop("user", None):
            url = url.with_user(user).with_password("secret")
        async with express_session(headers=kwargs.pop("session_headers", None)) as session:
            async with session.get(url, **kwargs) as resp:
                assert await resp.read() == b"ok"
        return first.exchanges[0], (first if hop == "same" else second).exchanges[-1]


CREDENTIALS: dict[str, tuple[str, dict[str, Any]]] = {
    "authorization_header": ("Authorization", {"headers": {"Authorization": "Bearer secret"}}),
    "session_authorization": ("Authorization", {"session_headers": {"Authorization": "Bearer secret"}}),
    "cookie_header": ("Cookie", {"headers": {"Cookie": "session=secret"}}),
    "cookies": ("Cookie", {"cookies": {"session": "secret"}}),
    "url": ("Authorization", {"user": "me"}),
}


@pytest.mark.parametrize(("header", "kwargs"), CREDENTIALS.values(), ids=CREDENTIALS)
async def test_credentials_stay_with_the_origin_on_redirects(header: str, kwargs: dict[str, Any]) -> None:
    first, second = await _seen_after_redirect("other", **kwargs)
    assert first.header(header)
    assert second.header(header) is None
    assert "secret" not in second.head.decode("latin-1")


@pytest.mark.parametrize("name", [name for name in CREDENTIALS if name != "url"])
async def test_credentials_are_kept_on_redirects_within_the_origin(name: str) -> None:
    header, kwargs = CREDENTIALS[name]
    first, second = await _seen_after_redirect("same", **kwargs)
    assert first.header(header) == second.header(header) is not None


async def test_auth_argument_stays_with_the_origin_on_redirects() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        first, second = await _seen_after_redirect("other", auth=aiohttp.BasicAuth("me", "secret"))
    assert first.header("Authorization")
    assert second.header("Authorization") is None


async def test_cookies_of_one_host_are_not_sent_to_another() -> None:
    async with LocalServer() as server:
        server.routes["/set"] = lambda x: x.respond(200, b"", [("Set-Cookie", "jar=secret; Path=/")])
        jar = aiohttp.CookieJar(unsafe=True)
        async with express_session(cookie_jar=jar, at_least=2) as session:
            async with session.get(server.url("/set", host="localhost")):
                pass
            async with session.get(server.url("/redirect"), params={"to": server.url("/ok")}):
                pass
            async with session.get(server.url("/ok", host="localhost")):
                pass
        cookies = [exchange.header("Cookie") for exchange in server.exchanges]
        assert cookies == [None, None, None, "jar=secret"]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

MALFORMED = {
    "no_http": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "bad_status": b"HTTP/1.1 abc OK\r\n\r\n",
    "no_colon": b"HTTP/1.1 200 OK\r\nNoColon\r\nContent-Length: 2\r\n\r\nok",
    "nul_in_value": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "length_not_a_number": b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok",
    "length_negative": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "length_signed": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "length_twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "length_and_chunked": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    ),
    "chunk_size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nok\r\n0\r\n\r\n",
    "chunk_too_long": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("response", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_response_is_an_error_and_ends_its_connection(response: bytes) -> None:
    async with LocalServer() as server, nothing_left():
        server.routes["/bad"] = lambda exchange: exchange.send(response)
        async with wirespeed.ClientSession() as session:
            with pytest.raises((aiohttp.ClientResponseError, aiohttp.ClientPayloadError)):
                async with session.get(server.url("/bad")) as resp:
                    await asyncio.wait_for(resp.read(), 5)
            await eventually(lambda: not server.open, "connection closed")
            async with session.get(server.url("/ok")) as resp:
                assert await resp.read() == b"ok"
            assert len(server.connections) == 2
            assert_express(session, 2)


async def test_second_response_in_the_same_segment_answers_nobody() -> None:
    async with LocalServer() as server, express_session(at_least=2) as session:
        server.routes["/two"] = lambda exchange: exchange.send(OK + EVIL)
        for _ in range(2):
            async with session.get(server.url("/two")) as resp:
                assert await resp.read() == b"ok"
        assert len(server.connections) == 2


@pytest.mark.parametrize("extra", [EVIL, b"\0", b"evil", EVIL[:20]], ids=["whole", "nul", "text", "half"])
async def test_bytes_on_an_idle_connection_answer_nobody(extra: bytes) -> None:
    async with LocalServer() as server, express_session(at_least=3) as session:
        for count in range(1, 4):
            async with session.get(server.url("/ok")) as resp:
                body = await resp.read()
            # aiohttp looks at its queue of responses when a connection comes back, not when it
            # goes out again: a whole response that came meanwhile answers the next request.
            if wirespeed.NATIVE or extra != EVIL:
                assert body == b"ok"
            if wirespeed.NATIVE:
                assert len(server.connections) == count
            server.connections[-1].transport.write(extra)
            await asyncio.sleep(0.02)  # the bytes arrive at the client


class Flood:
    """A server's answer without end, cut off by the client or at `CAP` bytes."""

    CAP = 32 * MEGABYTE

    def __init__(self, connection: Connection, start: bytes, unit: bytes) -> None:
        self.connection, self.unit = connection, unit * (65536 // len(unit))
        self.sent = 0
        connection.transport.write(start)
        connection.pump = self  # type: ignore[assignment]
        self.run()

    def run(self) -> None:
        while not self.connection.paused and not self.connection.transport.is_closing():
            self.connection.transport.write(self.unit)
            self.sent += len(self.unit)
            if self.sent >= self.CAP:
                self.connection.pump = None
                asyncio.get_running_loop().call_soon(self.connection.transport.close)
                return


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "status_line": (b"HTTP/1.1 200 ", b"O"),
    "header_name": (b"HTTP/1.1 200 OK\r\n", b"X"),
    "header_value": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "empty_lines": (b"", b"\r\n"),
    "informational": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </style>\r\n\r\n"),
    "chunk_extension": (CHUNKED + b"2;", b"x"),
    "trailer_value": (CHUNKED + b"2\r\nok\r\n0\r\nX: ", b"x"),
    "trailers": (CHUNKED + b"2\r\nok\r\n0\r\n", b"X: y\r\n"),
}
# aiohttp has no bound for these: they run on until the server stops.
UNBOUNDED_IN_AIOHTTP = {"empty_lines", "informational", "chunk_extension"}


@pytest.mark.parametrize("kind", FLOODS)
async def test_endless_response_is_cut_off(kind: str) -> None:
    floods: list[Flood] = []
    start, unit = FLOODS[kind]
    async with LocalServer(raw=True) as server, nothing_left():
        server.on_data = lambda connection, _: floods.append(Flood(connection, start, unit))
        async with wirespeed.ClientSession() as session:
            before = resident_bytes()
            with pytest.raises((aiohttp.ClientError, asyncio.TimeoutError)) as caught:
                async with session.post(server.url("/"), timeout=aiohttp.ClientTimeout(total=20)) as resp:
                    await resp.read()
            growth = resident_bytes() - before
            await eventually(lambda: not server.open, "connection closed")
            if wirespeed.NATIVE or kind not in UNBOUNDED_IN_AIOHTTP:
                assert isinstance(caught.value, (aiohttp.ClientResponseError, aiohttp.ClientPayloadError))
                assert floods[0].sent < Flood.CAP // 2  # what the kernel's buffers took
                assert growth < 16 * MEGABYTE
            assert_express(session)


async def test_endless_zeros_in_a_chunk_size_take_no_memory() -> None:
    floods: list[Flood] = []
    async with LocalServer(raw=True) as server, nothing_left():
        server.on_data = lambda connection, _: floods.append(Flood(connection, CHUNKED, b"0"))
        async with express_session() as session:
            before = resident_bytes()
            with pytest.raises((aiohttp.ClientResponseError, aiohttp.ClientPayloadError)):
                async with session.post(server.url("/")) as resp:
                    await resp.read()
            assert resident_bytes() - before < 16 * MEGABYTE
