"""Cookies: what is sent from the session, the request, the jar and a header, and what is kept."""

import asyncio
from http.cookies import Morsel, SimpleCookie
from typing import Any

import pytest
from support.outcome import Case, Do, Run
from yarl import URL

from .tables import answer, check, get, serve, table

OK_LINE = "HTTP/1.1 200 OK"


def unsafe(run: Run) -> dict[str, Any]:
    return {"cookie_jar": run.api.CookieJar(unsafe=True)}


def by_name(path: str = "/", **more: Any) -> Do:
    """A request to `localhost`, for which a jar keeps cookies by default."""

    async def do(run: Run) -> Any:
        async with run.session.get(f"http://localhost:{run.server.port}{path}", **more) as resp:
            await resp.read()
        return resp

    return do


def morsel(name: str, value: str, coded: str) -> Morsel[str]:
    made: Morsel[str] = Morsel()
    made.set(name, value, coded)
    return made


SENT: dict[str, Any] = {
    "dict": {"a": "1", "b": "2"},
    "list": [("a", "1"), ("b", "2")],
    "empty": {},
    "None": None,
    "empty value": {"a": ""},
    "spaces": {"a": "b c"},
    "semicolon": {"a": "b;c"},
    "comma": {"a": "b,c"},
    "quotes": {"a": 'b"c'},
    "quoted already": {"a": '"b c"'},
    "backslash": {"a": "b\\c"},
    "equals": {"a": "b=c=="},
    "unicode": {"a": "ü€"},
    "number": {"a": 1},
    "SimpleCookie": SimpleCookie("a=1; b=2"),
    "SimpleCookie quoted": SimpleCookie('a="x y"'),
    "morsel": {"a": morsel("a", "v w", '"v w"')},
    "long": {"a": "v" * 5000},
    "odd names": {"a.b-c_d!": "1", "$Version": "1"},
    "reserved name": {"path": "/x"},
    "name with a colon": {"a:b": "1"},
}

SENT_CASES = [Case(f"request cookies {name}", get(cookies=value)) for name, value in SENT.items()] + [
    Case(f"session cookies {name}", get(), session={"cookies": value}) for name, value in SENT.items()
]

SOURCES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("session and request", {"cookies": {"s": "1", "both": "s"}}, {"cookies": {"r": "2", "both": "r"}}),
    ("header alone", {}, {"headers": {"Cookie": "h=1; i=2"}}),
    ("header and request", {}, {"headers": {"Cookie": "h=1; both=h"}, "cookies": {"r": "2", "both": "r"}}),
    ("header and session", {"cookies": {"s": "1", "h": "s"}}, {"headers": {"cookie": "h=1"}}),
    ("session header", {"headers": {"Cookie": "sh=1"}}, {}),
    ("session header and request header", {"headers": {"Cookie": "sh=1"}}, {"headers": {"Cookie": "rh=2"}}),
    (
        "header with odd values",
        {},
        {"headers": {"Cookie": 'a="b c"; d; =e; f=g=h;; i=ü'}, "cookies": {"x": "y"}},
    ),
    ("two headers", {}, {"headers": [("Cookie", "a=1"), ("Cookie", "b=2")]}),
    (
        "two headers and request",
        {},
        {"headers": [("Cookie", "a=1"), ("Cookie", "b=2")], "cookies": {"c": "3"}},
    ),
    ("empty header", {}, {"headers": {"Cookie": ""}, "cookies": {"c": "3"}}),
]

SOURCE_CASES = [
    Case(f"from {name} to {host}", do(**request), session=session, expect=200)
    for name, session, request in SOURCES
    for host, do in (("an address", get), ("a name", by_name))
]

SET: dict[str, tuple[str, ...]] = {
    "one": ("Set-Cookie: a=1",),
    "several": ("Set-Cookie: a=1", "Set-Cookie: b=2", "Set-Cookie: a=3"),
    "attributes": ("Set-Cookie: a=1; Path=/; HttpOnly; SameSite=Lax; Max-Age=100",),
    "secure": ("Set-Cookie: a=1; Secure",),
    "a path": ("Set-Cookie: a=1; Path=/deep", "Set-Cookie: b=2; Path=/set"),
    "a relative path": ("Set-Cookie: a=1; Path=deep",),
    "its domain": ("Set-Cookie: a=1; Domain=localhost",),
    "an address as domain": ("Set-Cookie: a=1; Domain=127.0.0.1",),
    "a foreign domain": ("Set-Cookie: a=1; Domain=example.org",),
    "a domain with a dot": ("Set-Cookie: a=1; Domain=.localhost",),
    "max-age of zero": ("Set-Cookie: a=1", "Set-Cookie: a=2; Max-Age=0"),
    "max-age negative": ("Set-Cookie: a=1; Max-Age=-1",),
    "max-age of a word": ("Set-Cookie: a=1; Max-Age=soon",),
    "an old date": ("Set-Cookie: a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT",),
    "a date to come": ("Set-Cookie: a=1; Expires=Fri, 01 Jan 2100 00:00:00 GMT",),
    "a bad date": ("Set-Cookie: a=1; Expires=never",),
    "quoted": ('Set-Cookie: a="b c"; Path=/',),
    "quoted with escapes": ('Set-Cookie: a="b\\054c\\"d"',),
    "unquoted spaces": ("Set-Cookie: a=b c d",),
    "a comma": ("Set-Cookie: a=1,b=2",),
    "json": ('Set-Cookie: a={"x": 1}',),
    "no value": ("Set-Cookie: a=",),
    "no equals": ("Set-Cookie: flag",),
    "no name": ("Set-Cookie: =value",),
    "empty": ("Set-Cookie: ",),
    "unicode": ("Set-Cookie: a=ü",),
    "a bad name": ("Set-Cookie: a b=1",),
    "brackets in the name": ("Set-Cookie: a[b]=1",),
    "partitioned": ("Set-Cookie: a=1; Secure; Partitioned",),
    "unknown attributes": ("Set-Cookie: a=1; Foo; Bar=baz; Path=/",),
    "a long value": ("Set-Cookie: a=" + "v" * 5000,),
    "many": tuple(f"Set-Cookie: n{n}={n}" for n in range(60)),
    "the old header": ("Set-Cookie2: a=1",),
}


def visiting(host: str) -> Do:
    """Several requests on one session: the first answer sets cookies, the next ones may get them back."""

    async def do(run: Run) -> Any:
        kept = []
        for path in ("/set/here?q", "/set/again", "/deep/er", "/"):
            async with run.session.get(f"http://{host}:{run.server.port}{path}") as resp:
                await resp.read()
            kept.append(resp.cookies)
        return kept

    return do


SET_CASES = [
    Case(
        f"set {name} by {host}",
        visiting(host),
        serve(answer(OK_LINE, *lines, body=b"cookies")),
        session=unsafe,
        probe=False,
    )
    for name, lines in SET.items()
    for host in ("localhost", "127.0.0.1")
]

JARS: dict[str, Any] = {
    "default": lambda run: {},
    "unsafe": unsafe,
    "dummy": lambda run: {"cookie_jar": run.api.DummyCookieJar()},
    "not quoting": lambda run: {"cookie_jar": run.api.CookieJar(unsafe=True, quote_cookie=False)},
    "treating as secure": lambda run: {
        "cookie_jar": run.api.CookieJar(unsafe=True, treat_as_secure_origin=run.server.base)
    },
}

JAR_CASES = [
    Case(
        f"jar {name} at {host}",
        visiting(host),
        serve(answer(OK_LINE, 'Set-Cookie: q="a b"', "Set-Cookie: s=1; Secure; Path=/", body=b"j")),
        session=session,
        probe=False,
    )
    for name, session in JARS.items()
    for host in ("localhost", "127.0.0.1")
]


@table(SENT_CASES + SOURCE_CASES)
async def test_cookies_sent(case: Case) -> None:
    await check(case)


@table(SET_CASES + JAR_CASES)
async def test_cookies_kept(case: Case) -> None:
    await check(case)


async def test_jar_filled_by_hand() -> None:
    async def do(run: Run) -> Any:
        jar = run.session.cookie_jar
        jar.update_cookies({"mine": "1", "other": "x y"}, URL(run.url("/only/")))
        async with run.session.get(run.url("/only/here")) as resp:
            await resp.read()
        run.session.cookie_jar.clear()
        async with run.session.get(run.url("/only/here")) as second:
            await second.read()
        return [resp, second]

    await check(Case("filled", do, session=unsafe))


@pytest.mark.parametrize("when", ["expired", "still valid"])
async def test_cookie_with_a_short_life(when: str) -> None:
    async def do(run: Run) -> Any:
        async with run.session.get(run.url()) as resp:
            await resp.read()
        await asyncio.sleep(1.1 if when == "expired" else 0)
        async with run.session.get(run.url()) as resp:
            await resp.read()
        return resp

    script = serve(answer(OK_LINE, "Set-Cookie: short=1; Max-Age=1", body=b"s"))
    outcome = await check(Case(f"life {when}", do, script, session=unsafe, probe=False))
    assert (b"Cookie: short=1" in outcome["wire"][0]) is (when == "still valid")
