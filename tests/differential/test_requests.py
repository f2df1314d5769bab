"""What goes out: methods, URLs, headers, cookies, credentials, and what is refused before that."""

import json
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDict
from support.outcome import Case, Fresh, compare, request
from yarl import URL

def _encoded(path: str) -> Any:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        async with session.get(URL(base + path, encoded=True)) as resp:
            return resp.status

    return call


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "Post", "PROPFIND", "X-Y")

REQUESTS: dict[str, Case] = {
    **{f"method {method}": Case(request(method)) for method in METHODS},
    "query in the path": Case(request("GET", "/a?b=c&d=%20e")),
    "params dict": Case(request("GET", "/a", params={"b": "c d", "e": 1, "f": "ü&="})),
    "params list": Case(request("GET", "/a", params=[("b", "1"), ("b", "2")])),
    "params str": Case(request("GET", "/a", params="b=1&c=%2F")),
    "params after a query": Case(request("GET", "/a?x=1", params={"b": "2"})),
    "params empty": Case(request("GET", "/a?x=1", params={})),
    "params float and bool": Case(request("GET", "/a", params={"b": 1.5, "c": True})),
    "fragment": Case(request("GET", "/a#frag")),
    "unicode path": Case(request("GET", "/ä b/ø?q=ü")),
    "encoded path": Case(request("GET", "/a%2Fb%20c%41")),
    "dots in the path": Case(request("GET", "/a/../b/./c")),
    "empty path": Case(request("GET", "")),
    "headers dict": Case(request("GET", headers={"X-A": "1", "x-b": "ü"})),
    "headers twice": Case(request("GET", headers=CIMultiDict([("X-A", "1"), ("x-a", "2")]))),
    "headers list": Case(request("GET", headers=[("X-A", "1"), ("X-B", "2")])),
    "header with a tab": Case(request("GET", headers={"X-A": "a\tb"})),
    "header empty": Case(request("GET", headers={"X-A": ""})),
    "host given": Case(request("GET", headers={"Host": "example.com"})),
    "host given in lower case": Case(request("GET", headers={"host": "example.com:1"})),
    "user agent given": Case(request("GET", headers={"User-Agent": "me"})),
    "accept encoding given": Case(request("GET", headers={"accept-encoding": "identity"})),
    "connection close given": Case(request("GET", headers={"Connection": "close"})),
    "skip auto headers": Case(request("GET", skip_auto_headers=["User-Agent", "accept"])),
    "skip content type": Case(request("POST", data=b"x", skip_auto_headers=["Content-Type"])),
    "skip auto headers of the session": Case(
        request("POST", data=b"x"), session=lambda m: {"skip_auto_headers": {"user-agent"}}
    ),
    "session headers": Case(request("GET"), session=lambda m: {"headers": {"X-A": "1", "X-B": "2"}}),
    "session headers overridden": Case(
        request("GET", headers={"x-a": "3"}), session=lambda m: {"headers": {"X-A": "1", "X-B": "2"}}
    ),
    "session headers as a list": Case(
        request("GET"), session=lambda m: {"headers": [("X-A", "1"), ("X-A", "2")]}
    ),
    "http 1.0": Case(request("GET"), session=lambda m: {"version": aiohttp.HttpVersion10}),
    "http 1.0 post": Case(request("POST", data=b"abc"), session=lambda m: {"version": aiohttp.HttpVersion10}),
    "auth argument": Case(request("GET", auth=Fresh(lambda: aiohttp.BasicAuth("u", "p")))),
    "auth of the session": Case(
        request("GET"), session=lambda m: {"auth": aiohttp.BasicAuth("u", "p")}
    ),
    "auth and header": Case(
        request("GET", auth=Fresh(lambda: aiohttp.BasicAuth("u", "p")), headers={"Authorization": "x"})
    ),
    "authorization header": Case(request("GET", headers={"Authorization": "Bearer x"})),
    "cookies": Case(request("GET", cookies={"a": "1", "b": "x y"})),
    "cookies quoted": Case(request("GET", cookies={"a": 'q"; x'})),
    "cookies and header": Case(request("GET", cookies={"a": "1"}, headers={"Cookie": "b=2; c=3"})),
    "cookies with a body": Case(request("POST", data=b"x", cookies={"a": "1"})),
    "session cookies, safe jar": Case(request("GET"), session=lambda m: {"cookies": {"a": "1"}}),
    "session cookies, unsafe jar": Case(
        request("GET"), session=lambda m: {"cookie_jar": m.CookieJar(unsafe=True), "cookies": {"a": "1"}}
    ),
    "dummy jar": Case(request("GET", cookies={"a": "1"}), session=lambda m: {"cookie_jar": m.DummyCookieJar()}),
    "chunked without a body": Case(request("GET", chunked=True)),
    "not chunked without a body": Case(request("POST", chunked=False)),
    "content length by hand": Case(request("POST", data=b"abc", headers={"Content-Length": "3"})),
    "content length shorter than the body": Case(request("POST", data=b"abcdef", headers={"Content-Length": "3"})),
    "transfer encoding by hand": Case(
        request("POST", data=b"abc", chunked=True), session=lambda m: {"headers": {"X-A": "1"}}
    ),
}

# Nothing goes out. aiohttp connects before it looks at header values; we look first.
REFUSED: dict[str, Case] = {
    **{
        f"{name} in {where}": Case(call(bad), follow_up=False, differs=frozenset({"wire"}))
        for name, bad in (("CR", "\r"), ("LF", "\n"), ("NUL", "\0"), ("CRLF", "\r\nX: y"))
        for where, call in {
            "the method": lambda bad: request("GE" + bad),
            "a header value": lambda bad: request("GET", headers={"X-A": "a" + bad}),
            "a header value of a post": lambda bad: request("POST", data=b"x", headers={"X-A": "a" + bad}),
            "the host header": lambda bad: request("GET", headers={"Host": "a" + bad}),
            "an encoded url": lambda bad: _encoded("/a" + bad),
        }.items()
    },
    "header value of a number": Case(request("GET", headers={"X-A": 1}), follow_up=False, differs=frozenset({"wire"})),
    "space in the method": Case(request("GE T"), follow_up=False),
    "empty method": Case(request(""), follow_up=False),
    "data and json": Case(request("POST", data=b"x", json={}), follow_up=False),
    "chunked and content length": Case(
        request("POST", data=b"abc", chunked=True, headers={"Content-Length": "3"}), follow_up=False
    ),
    "bad content length": Case(
        request("POST", data=b"abc", headers={"Content-Length": "+3"}),
        follow_up=False, differs=frozenset({"wire"}),
    ),
    "compress and content encoding": Case(
        request("POST", data=b"abc", compress=True, headers={"Content-Encoding": "x"}), follow_up=False
    ),
    "headers of a wrong type": Case(request("GET", headers=7), follow_up=False),
    "params of a wrong type": Case(request("GET", params={"a": object}), follow_up=False),
    "ssl of a wrong type": Case(request("GET", ssl="x"), follow_up=False),
    "timeout of a wrong type": Case(request("GET", timeout="x"), follow_up=False),
}


def _urls(*urls: Any) -> Any:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        seen = []
        for url in urls:
            try:
                async with session.get(url) as resp:
                    seen.append(resp.status)
            except Exception as exc:
                seen.append((type(exc).__name__, str(exc)))
        return seen

    return call


@pytest.mark.parametrize("name", REQUESTS)
async def test_request(name: str) -> None:
    await compare(REQUESTS[name])


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str) -> None:
    ours = await compare(REFUSED[name])
    assert "exception" in ours or "result" in ours
    if "exception" in ours:
        assert all(data == b"" for data in ours["wire"])


async def test_urls_that_cannot_be_asked() -> None:
    await compare(
        Case(
            _urls("/relative", "ftp://127.0.0.1/", "http://", "http:///x", "", "http://[::1", "mailto:a@b", URL("/x")),
            follow_up=False,
        )
    )


async def test_unknown_option_is_refused_when_it_is_given() -> None:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        try:
            session.get(base, no_such_option=1)
        except TypeError as exc:
            return str(exc)
        return "accepted"

    await compare(Case(call, lane="full", follow_up=False))


async def test_closed_session() -> None:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        await session.close()
        async with session.get(base) as resp:
            return resp.status

    await compare(Case(call, follow_up=False))


async def test_json_serializers() -> None:
    sessions = (
        lambda m: {"json_serialize": lambda value: json.dumps(value, indent=1)},
        lambda m: {"json_serialize_bytes": lambda value: json.dumps(value).encode()},
    )
    for session in sessions:
        await compare(Case(request("POST", json={"a": ["ü", 1, None]}), session=session))


async def test_base_url() -> None:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        session._base_url = URL(base + "/api/v1/")
        session._base_url_origin = session._base_url.origin()
        seen = []
        for url in ("x", "/y", "z?q=1", base + "/w", ""):
            async with session.get(url, params={"p": "1"}) as resp:
                seen.append(str(resp.url))
        return seen

    await compare(Case(call))


async def test_credentials_in_the_url() -> None:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        seen = []
        for userinfo in ("user:pass@", "user@", "us%20er:p%40ss@"):
            async with session.get(base.replace("//", "//" + userinfo) + "/x") as resp:
                seen.append((str(resp.url), str(resp.real_url), str(resp.request_info.url)))
        return seen

    await compare(Case(call))


async def test_headers_changed_after_the_session_was_made() -> None:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        for value in ("1", "2"):
            session.headers["X-A"] = value
            async with session.get(base + "/x") as resp:
                await resp.read()
        session._default_headers = CIMultiDict({"X-B": "3"})
        async with session.get(base + "/x") as resp:
            return await resp.read()

    await compare(Case(call))


async def test_the_same_request_again_and_again() -> None:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        seen = []
        for url in (base + "/x", URL(base + "/x"), base + "/x#f", base + "/x?", base + "/%78"):
            for method in ("GET", "POST", "GET"):
                async with session.request(method, url) as resp:
                    seen.append((str(resp.url), str(resp.real_url), await resp.read()))
        return seen

    await compare(Case(call))
