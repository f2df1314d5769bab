"""What a caller gets wrong: the same exception, and not a byte on the wire."""

from typing import Any

import aiohttp
import pytest
from support.outcome import ANY, OK, Case, Run

from .tables import check, get, post, request, table

CONTROLS = {"CR": "\r", "LF": "\n", "CRLF": "\r\n", "NUL": "\0", "DEL": "\x7f", "ESC": "\x1b"}

METHOD_CASES = [
    Case(f"method with {name}", request(f"GE{char}T"), expect="ValueError", lane=ANY, silent=True)
    for name, char in CONTROLS.items()
] + [
    Case("method with a space", request("GET /x HTTP/1.1"), expect="ValueError", lane=ANY),
    Case("method with a colon", request("GET:"), expect="ValueError", lane=ANY),
    Case("method in unicode", request("GÉT"), expect="ValueError", lane=ANY),
    Case("method empty", request(""), lane=ANY, wire=False, hang_after=0.3),
    Case("method None", request(None), expect="AttributeError", lane=ANY),
    Case("method of bytes", request(b"GET"), lane=ANY),
]

HEADER_CASES = [
    Case(
        f"header {part} with {name}",
        get(headers=dict([part_of(char)])),
        expect="ValueError",
        lane=ANY,
        silent=True,
    )
    for name, char in CONTROLS.items()
    for part, part_of in (
        ("name", lambda char: (f"X-{char}A", "1")),
        ("value", lambda char: ("X-A", f"a{char}b")),
        ("value's end", lambda char: ("X-A", f"a{char}")),
    )
] + [
    Case("header value a number", get(headers={"X-A": 1}), expect="TypeError", lane=ANY, silent=True),
    Case("header value None", get(headers={"X-A": None}), expect="TypeError", lane=ANY, silent=True),
    Case("header value bytes", get(headers={"X-A": b"1"}), expect="TypeError", lane=ANY, silent=True),
    Case("header value a list", get(headers={"X-A": ["1"]}), expect="TypeError", lane=ANY, silent=True),
    Case("header name a number", get(headers={1: "1"}), expect="TypeError", lane=ANY, silent=True),
    Case("header name bytes", get(headers={b"X-A": "1"}), expect="TypeError", lane=ANY, silent=True),
    Case("header name empty", get(headers={"": "1"}), lane=ANY),
    Case("header name with a space", get(headers={"X A": "1"}), lane=ANY),
    Case("header name with a colon", get(headers={"X-A:": "1"}), lane=ANY),
    Case("header lone surrogate", get(headers={"X-A": "a\ud800b"}), expect=200),
    Case("headers a str", get(headers="X-A: 1"), expect="ValueError", lane=ANY),
    Case("headers a number", get(headers=5), expect="TypeError", lane=ANY),
    Case("headers of three", get(headers=[("a", "b", "c")]), expect="ValueError", lane=ANY, silent=True),
    Case("host with CRLF", get(headers={"Host": "a\r\nX: y"}), expect="ValueError", lane=ANY, silent=True),
    Case(
        "content type with CRLF", post(data=b"x", headers={"Content-Type": "a\r\nb"}), lane=ANY, silent=True
    ),
    Case("session header with LF", get(), session={"headers": {"X-A": "a\nb"}}, lane=ANY, silent=True),
]


def to(url: Any, **more: Any) -> Any:
    async def do(run: Run) -> Any:
        made = url.replace("PORT", str(run.server.port)) if isinstance(url, str) else url
        async with run.session.get(made, **more) as resp:
            return await resp.read()

    return do


URLS: dict[str, Any] = {
    "empty": "",
    "a path": "/path",
    "a word": "word",
    "no scheme": "//127.0.0.1:PORT/",
    "no host": "http://",
    "no host with a path": "http:///path",
    "no host with a port": "http://:PORT/",
    "one slash": "http:/127.0.0.1:PORT/",
    "ftp": "ftp://127.0.0.1/",
    "file": "file:///etc/none",
    "data": "data:,x",
    "javascript": "javascript:0",
    "a bad port": "http://127.0.0.1:port/",
    "a port too large": "http://127.0.0.1:99999/",
    "a negative port": "http://127.0.0.1:-1/",
    "a bad IPv6": "http://[::1/",
    "a bad IPv4": "http://127.0.0.999/",
    "LF in the host": "http://127.0.0.1\n:PORT/",
    "LF in the path": "http://127.0.0.1:PORT/a\nb",
    "CRLF in the query": "http://127.0.0.1:PORT/?a\r\nX: b",
    "NUL in the path": "http://127.0.0.1:PORT/a\0b",
    "a tab in the path": "http://127.0.0.1:PORT/a\tb",
    "a lone surrogate": "http://127.0.0.1:PORT/\ud800",
    "None": None,
    "a number": 5,
    "bytes": b"http://127.0.0.1/",
}

URL_CASES = [Case(f"URL {name}", to(url), lane=ANY, hang_after=2) for name, url in URLS.items()]
URL_CASES += [
    Case(f"URL params with {name}", to("http://127.0.0.1:PORT/", params={"a": f"b{char}c"}), lane=ANY)
    for name, char in CONTROLS.items()
]

COOKIE_CASES = [
    Case(f"cookie {part} with {name}", get(cookies={k: v}), lane=ANY)
    for name, char in CONTROLS.items()
    for part, k, v in (("name", f"a{char}b", "1"), ("value", "a", f"b{char}c"))
] + [
    Case("cookie value a number", get(cookies={"a": 1}), lane=ANY),
    Case("cookies a str", get(cookies="a=b"), lane=ANY),
    Case("cookies a number", get(cookies=5), lane=ANY),
    Case("cookie header with CRLF", get(headers={"Cookie": "a=b\r\nX: y"}), lane=ANY, silent=True),
]

TIMEOUTS = {
    "a number": 5,
    "a float": 0.5,
    "zero": 0,
    "negative": -1,
    "a str": "5",
    "an object": object(),
    "None": None,
    "a tuple": (1, 2),
}

ARGUMENT_CASES = (
    [Case(f"timeout of {name}", get(timeout=value), lane=ANY, wire=False) for name, value in TIMEOUTS.items()]
    + [
        Case(f"session timeout of {name}", get(), session={"timeout": value}, lane=ANY, wire=False)
        for name, value in TIMEOUTS.items()
    ]
    + [
        Case("argument unknown", get(unknown=1), expect="TypeError", lane=ANY),
        Case("session argument unknown", get(), session={"unknown": 1}, expect="TypeError", lane=ANY),
        Case("data and json", post(data=b"", json={}), expect="ValueError", lane=ANY),
        Case("data and json None", post(data=b"x", json=None), expect=200, lane=ANY),
        Case("max_redirects a str", get(max_redirects="5"), lane=ANY),
        Case("skip_auto_headers a str", get(skip_auto_headers="accept"), lane=ANY),
        Case("skip_auto_headers of numbers", get(skip_auto_headers=[1]), lane=ANY),
        Case("read_bufsize negative", get(read_bufsize=-1), lane=ANY, hang_after=0.3),
        Case("raise_for_status a str", get(raise_for_status="yes"), lane=ANY),
        Case("server_hostname a number", get(server_hostname=5), lane=ANY),
        Case("ssl an object", get(ssl=object()), expect="TypeError", lane=ANY),
        Case("ssl and verify_ssl", get(ssl=False, verify_ssl=False), expect="ValueError", lane=ANY),
        Case("fingerprint too short", get(fingerprint=b"x"), lane=ANY),
        Case("proxy that is no URL", get(proxy="http://[bad"), lane=ANY),
        Case("base_url relative", get(), session={"base_url": "/relative"}, lane=ANY),
        Case("connector that is none", get(), session={"connector": object()}, lane=ANY),
        Case("version a str", get(), session={"version": "1.1"}, lane=ANY),
        Case("json_serialize that raises", post(json={}), session={"json_serialize": len}, lane=ANY),
    ]
)


@table(METHOD_CASES + HEADER_CASES)
async def test_bad_head(case: Case) -> None:
    await check(case)


@table(URL_CASES)
async def test_bad_url(case: Case) -> None:
    await check(case)


@table(COOKIE_CASES)
async def test_bad_cookie(case: Case) -> None:
    await check(case)


@table(ARGUMENT_CASES)
async def test_bad_argument(case: Case) -> None:
    await check(case)


@pytest.mark.parametrize("how", ["closed", "detached", "connector closed"])
async def test_session_that_cannot_be_used(how: str) -> None:
    async def do(run: Run) -> Any:
        connector = run.session.connector
        if how == "closed":
            await run.session.close()
        elif how == "detached":
            run.session.detach()
            await connector.close()
        else:
            await connector.close()
        run.see(run.session.closed)
        return await run.session.get(run.url())

    outcome = await check(Case(f"session {how}", do, OK, lane=ANY))
    assert outcome["answer"] == "RuntimeError"
    assert outcome["connections"] == 0


async def test_unknown_argument_raises_at_the_call_or_at_the_await_alike() -> None:
    async def do(run: Run) -> Any:
        try:
            pending = run.session.get(run.url(), unknown=1)
        except TypeError as exc:
            return ["at the call", exc]
        try:
            await pending
        except TypeError as exc:
            return ["at the await", exc]
        return "accepted"

    outcome = await check(Case("when it raises", do, OK, lane=ANY))
    assert outcome["result"] != "accepted"


async def test_request_that_is_never_awaited_sends_nothing() -> None:
    async def do(run: Run) -> Any:
        pending = run.session.get(run.url())
        pending.close()
        return isinstance(pending, aiohttp.client._BaseRequestContextManager)

    outcome = await check(Case("never awaited", do, OK, lane=ANY, probe=False))
    assert outcome["connections"] == 0
    assert outcome["result"] is True
