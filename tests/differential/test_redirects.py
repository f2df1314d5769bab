"""Redirects: the method, the body, the target, and what must not cross to another origin."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import BasicAuth
from support.outcome import Case, Run, Script
from support.scripted import Close, Expect, Pause, Send, Stall

from .tables import agen, answer, check, chunked, get, post, request, serve, table

STATUSES = (300, 301, 302, 303, 304, 305, 307, 308)
FINAL = answer("HTTP/1.1 200 OK", body=b"final")


def moved(location: str | None, status: int = 302, *lines: str, body: bytes = b"moved") -> bytes:
    head = [f"HTTP/1.1 {status} Moved", *lines]
    if location is not None:
        head.append(f"Location: {location}")
    return answer(*head, body=body if status != 304 else b"", length=status != 304)


def then(*answers: bytes) -> Script:
    """One connection that gives the answers in turn."""
    return (tuple(step for data in answers for step in (Expect(), Send(data))),)


def unseekable() -> Any:
    class Once(io.RawIOBase):
        def __init__(self) -> None:
            self._data = io.BytesIO(b"once")

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            return self._data.readinto(buffer)

    return io.BufferedReader(Once())


METHOD_CASES = [
    Case(f"{status} of {method}", request(method, "/from"), then(moved("/to", status), FINAL))
    for status in STATUSES
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS")
] + [
    Case(
        f"{status} of HEAD",
        request("HEAD", "/from"),
        then(moved("/to", status, body=b""), answer("HTTP/1.1 200 OK")),
    )
    for status in STATUSES
]

BODIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"body",
    "str": lambda: "text",
    "form": lambda: {"a": "1"},
    "file": lambda: io.BytesIO(b"file body"),
    "generator": lambda: agen(b"generated"),
    "unseekable file": unseekable,
    "multipart": lambda: {"f": io.BytesIO(b"part")},
}

BODY_CASES = [
    Case(
        f"{status} of {method} with {name}",
        request(method, "/from", lambda _, make=make: {"data": make()}),
        then(moved("/to", status), FINAL),
    )
    for status in (301, 302, 303, 307, 308)
    for method in ("POST", "PUT")
    for name, make in BODIES.items()
] + [
    Case("307 of POST with json", post("/from", json={"a": 1}), then(moved("/to", 307), FINAL), expect=200),
    Case(
        "303 of POST chunked", post("/f", data=b"x", chunked=True), then(moved("/to", 303), FINAL), expect=200
    ),
    Case("307 of POST compressed", post("/f", data=b"x" * 99, compress=True), then(moved("/to", 307), FINAL)),
    Case(
        "303 of POST with headers of the body",
        post("/f", data=b"x", headers={"Content-Type": "a/b", "Content-Length": "1"}),
        then(moved("/to", 303), FINAL),
        expect=200,
    ),
]

LOCATIONS: dict[str, str | None] = {
    "relative": "next",
    "relative up": "../up/./x",
    "absolute path": "/abs?x=1",
    "query alone": "?only=query",
    "fragment alone": "#frag",
    "empty": "",
    "absolute": "@BASE@/full",
    "absolute without a path": "@BASE@",
    "upper case scheme": "HTTP://127.0.0.1:@PORT@/x",
    "scheme-relative": "//127.0.0.1:@PORT@/x",
    "scheme without authority": "http:/one",
    "scheme and a relative path": "http:two",
    "with a fragment": "/x#there",
    "with spaces": "/a b?c d",
    "with unicode": "/ü?ключ",
    "with percent": "/a%20b%2F%zz",
    "with userinfo": "http://user:pw@127.0.0.1:@PORT@/x",
    "missing": None,
    "no host": "http://",
    "bad port": "http://127.0.0.1:port/",
    "bad IPv6": "http://[::1/",
    "ftp": "ftp://127.0.0.1/x",
    "javascript": "javascript:alert(1)",
    "data": "data:,x",
    "websocket": "ws://127.0.0.1:@PORT@/x",
    "other origin": "@OTHER@/x",
    "other host": "http://localhost:@PORT@/x",
    "backslashes": "\\\\127.0.0.1\\x",
    "triple slash": "///x",
}

LOCATION_CASES = [
    Case(
        f"to {name}",
        get("/dir/from?q=1#own"),
        then(moved(location), FINAL),
        wire=not name.startswith("https"),
        ignore=("connections", "error.os_error", "error.str", "error.args")
        if name.startswith("https")
        else (),
    )
    for name, location in LOCATIONS.items()
]

SECRETS: dict[str, Any] = {
    "Authorization": "Bearer x",
    "Cookie": "own=1",
    "Proxy-Authorization": "y",
    "X-Keep": "z",
}
TO_OTHER = then(moved("@OTHER@/x", 307), FINAL)
TO_SELF = then(moved("/x", 307), FINAL)

ORIGIN_CASES = [
    Case(f"secrets to {name} by {kind}", do, script, session=session)
    for name, script in (("another origin", TO_OTHER), ("the same origin", TO_SELF))
    for kind, do, session in (
        ("headers", get("/f", headers=SECRETS), {}),
        ("headers of POST", post("/f", headers=SECRETS, data=b"x"), {}),
        ("cookies", get("/f", cookies={"req": "1"}), {}),
        ("session headers", get("/f"), {"headers": SECRETS}),
        ("session cookies", get("/f"), {"cookies": {"sess": "1"}}),
        ("auth", get("/f", lambda _: {"auth": BasicAuth("u", "p")}), {}),
        ("Host header", get("/f", headers={"Host": "virtual.example"}), {}),
    )
] + [
    Case(
        "back from another origin",
        get("/f", headers=SECRETS),
        then(moved("@OTHER@/x"), FINAL),
        other=then(moved("@BASE@/back")),
        expect=200,
    ),
    Case(
        "credentials in the URL and a redirect",
        get("/f"),
        then(moved("http://u:p@127.0.0.1:@PORT@/x"), FINAL),
    ),
]

COUNT_CASES = [
    Case(
        "max_redirects of 3", get("/", max_redirects=3), then(*[moved("/x")] * 5), expect="TooManyRedirects"
    ),
    Case("max_redirects reached", get("/", max_redirects=3), then(*[moved("/x")] * 2, FINAL), expect=200),
    Case(
        "max_redirects of 1", get("/", max_redirects=1), then(moved("/x"), FINAL), expect="TooManyRedirects"
    ),
    Case("max_redirects of 0", get("/", max_redirects=0), then(*[moved("/x")] * 12, FINAL), expect=200),
    Case("the default of 10", get("/"), then(*[moved("/x")] * 11), expect="TooManyRedirects"),
    Case("nine redirects", get("/"), then(*[moved(f"/{n}") for n in range(9)], FINAL), expect=200),
    Case("redirects not allowed", get("/", allow_redirects=False), then(moved("/x"), FINAL), expect=302),
    Case(
        "redirects not allowed for HEAD", request("HEAD", allow_redirects=False), then(moved("/x", body=b""))
    ),
    Case(
        "params are for the first request", get("/f", params={"a": "1"}), then(moved("/x"), FINAL), expect=200
    ),
    Case(
        "raise_for_status after a redirect",
        get("/", raise_for_status=True),
        then(moved("/x"), answer("HTTP/1.1 404 N")),
        expect="ClientResponseError",
    ),
]

COOKIE = "Set-Cookie: way=1; Path=/"
COOKIE_CASES = [
    Case(
        "cookie set on the way",
        get("/"),
        then(moved("/x", 302, COOKIE), FINAL),
        session=lambda run: {"cookie_jar": run.api.CookieJar(unsafe=True)},
        expect=200,
    ),
    Case(
        "cookie set on the way to another origin",
        get("/"),
        then(moved("@OTHER@/x", 302, COOKIE), FINAL),
        session=lambda run: {"cookie_jar": run.api.CookieJar(unsafe=True)},
        expect=200,
    ),
    Case(
        "cookie set on the way and forgotten",
        get("/"),
        then(moved("/x", 302, COOKIE), FINAL),
        session=lambda run: {"cookie_jar": run.api.DummyCookieJar()},
        expect=200,
    ),
    Case(
        "cookie of the request on the way",
        get("/", cookies={"own": "1"}),
        then(moved("/x", 302, COOKIE), FINAL),
        expect=200,
    ),
]

OVER = answer("HTTP/1.1 302 F", "Location: /x", "Connection: close", body=b"m")
CONNECTION_CASES = [
    Case("a redirect that closes", get("/"), (*serve(OVER, Close()), *then(FINAL)), expect=200),
    Case(
        "a chunked redirect",
        get("/"),
        then(
            answer(
                "HTTP/1.1 302 F",
                "Location: /x",
                "Transfer-Encoding: chunked",
                body=chunked(b"a", b"b"),
                length=False,
            ),
            FINAL,
        ),
        expect=200,
    ),
    Case(
        "a redirect with a body still coming",
        get("/"),
        (*serve(b"HTTP/1.1 302 F\r\nLocation: /x\r\nContent-Length: 99\r\n\r\npart", Stall()), *then(FINAL)),
        expect=200,
    ),
    Case(
        "a redirect with a large body",
        get("/"),
        then(moved("/x", body=b"m" * 300_000), FINAL),
        expect=200,
        ignore=("wire", "connections", "probe"),
    ),
    Case(
        "force_close and a redirect",
        get("/"),
        (*then(moved("/x")), *then(FINAL)),
        session=lambda run: {"connector": run.api.TCPConnector(force_close=True)},
        expect=200,
    ),
    Case(
        "the target drops the connection once",
        get("/"),
        ((Expect(), Send(moved("/x")), Expect(), Close()), *then(FINAL)),
        expect=200,
    ),
    Case(
        "total timeout over redirects",
        get("/", lambda run: {"timeout": run.api.ClientTimeout(total=0.1)}),
        ((Expect(), Pause(0.06), Send(moved("/x")), Expect(), Pause(0.06), Send(FINAL)),),
        expect="TimeoutError",
    ),
]


@table(METHOD_CASES)
async def test_method_after_a_redirect(case: Case) -> None:
    await check(case)


@table(BODY_CASES)
async def test_body_after_a_redirect(case: Case) -> None:
    await check(case)


@table(LOCATION_CASES)
async def test_location(case: Case) -> None:
    await check(case)


@table(ORIGIN_CASES)
async def test_what_crosses_to_another_origin(case: Case) -> None:
    await check(case)


@table(COUNT_CASES + COOKIE_CASES + CONNECTION_CASES)
async def test_chain_of_redirects(case: Case) -> None:
    await check(case)


@pytest.mark.parametrize("requote", [True, False])
async def test_requote_redirect_url(requote: bool) -> None:
    location = "/a%2fb?x=%41%20"
    session = {"requote_redirect_url": requote}
    await check(
        Case(f"requote {requote}", get("/"), then(moved(location), FINAL), session=session, expect=200)
    )


async def test_history_is_whole() -> None:
    async def do(run: Run) -> Any:
        async with run.session.get(run.url("/0")) as resp:
            await resp.read()
            past = resp.history
            run.see([isinstance(one, run.api.ClientResponse) for one in past])
            run.see([(one.status, one.url, one.headers, one.request_info, one.closed) for one in past])
        await asyncio.sleep(0)
        return resp

    outcome = await check(Case("history", do, then(moved("/1", 301), moved("/2", 307), FINAL), expect=200))
    assert [status for status, *_ in outcome["result"]["history"]] == [301, 307]
