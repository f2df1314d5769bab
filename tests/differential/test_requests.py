"""Request heads: method, target, headers, authorisation, and what a session adds to them."""

from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import BasicAuth
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict
from support.outcome import ANY, EXPRESS, FULL, OK, Case, Do, Run
from support.scripted import client_context
from yarl import URL

from .tables import answer, check, get, post, request, serve, table

METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "get",
    "Post",
    "PURGE",
    "x-y!z",
)

METHOD_CASES = [
    Case(f"method {method}", request(method, "/m"), serve(b"HTTP/1.1 204 No Content\r\n\r\n"), expect=204)
    for method in METHODS
]

TARGETS: dict[str, tuple[str, dict[str, object]]] = {
    "empty path": ("", {}),
    "root": ("/", {}),
    "query": ("/a?x=1&y=2", {}),
    "empty query": ("/a?", {}),
    "query without value": ("/a?x&y=", {}),
    "fragment": ("/a#frag", {}),
    "query and fragment": ("/a?b=c#frag", {}),
    "spaces": ("/a b/c d?e f=g h", {}),
    "unicode path": ("/ünï/цй?ключ=значение", {}),
    "emoji": ("/\N{PILE OF POO}", {}),
    "percent encoded": ("/a%20b%2Fc%zz?x=%41%2B", {}),
    "dot segments": ("/a/../b/./c", {}),
    "double slash": ("//a//b", {}),
    "plus and semicolon": ("/a+b;c=d?e+f;g", {}),
    "reserved characters": ("/:@!$&'()*,=~_-.", {}),
    "backslash and quote": ('/a\\b"c<d>{e}|f^g`', {}),
    "very long": ("/" + "a" * 20_000, {}),
    "params dict": ("/p", {"params": {"a": "1", "b": "two words"}}),
    "params of numbers": ("/p", {"params": {"a": 1, "b": 2.5}}),
    "params list": ("/p", {"params": [("a", "1"), ("a", "2"), ("b", "3")]}),
    "params tuple": ("/p", {"params": (("a", "1"),)}),
    "params multidict": ("/p", {"params": MultiDict([("k", "v1"), ("k", "v2")])}),
    "params of sequences": ("/p", {"params": {"a": ["1", "2"], "b": ("3",)}}),
    "params str": ("/p", {"params": "x=1&y=a b"}),
    "params str encoded": ("/p", {"params": "x=%20%2B+"}),
    "params empty dict": ("/p", {"params": {}}),
    "params empty str": ("/p", {"params": ""}),
    "params None": ("/p", {"params": None}),
    "params unicode": ("/p", {"params": {"ключ": "знач ение", "a&b": "c=d+e"}}),
    "params added to a query": ("/p?old=1", {"params": {"new": "2"}}),
    "params replace the same key": ("/p?a=1&b=2", {"params": {"a": "3"}}),
    "params with a fragment": ("/p#f", {"params": {"a": "1"}}),
    "params empty value": ("/p", {"params": {"a": "", "": "b"}}),
}

TARGET_CASES = [Case(f"target {name}", get(*row), expect=200) for name, row in TARGETS.items()]

BAD_PARAMS: dict[str, tuple[object, str]] = {
    "bool": ({"a": True}, "TypeError"),
    "None": ({"a": None}, "TypeError"),
    "bytes": ({"a": b"x"}, "TypeError"),
    "nan": ({"a": float("nan")}, "ValueError"),
    "object": (object(), "TypeError"),
    "number": (5, "TypeError"),
}

BAD_PARAMS_CASES = [
    Case(f"params of {name}", get("/", params=value), expect=error, lane=ANY)
    for name, (value, error) in BAD_PARAMS.items()
]

HEADERS: dict[str, object] = {
    "dict": {"X-One": "1", "x-two": "2", "X-THREE": "3"},
    "duplicates": CIMultiDict([("X-A", "1"), ("x-a", "2"), ("X-A", "3")]),
    "proxy": CIMultiDictProxy(CIMultiDict([("X-A", "1"), ("X-A", "2")])),
    "multidict": MultiDict([("X-A", "1"), ("x-A", "2")]),
    "list": [("X-A", "1"), ("X-B", "2"), ("X-A", "3")],
    "tuple": (("X-A", "1"),),
    "empty dict": {},
    "None": None,
    "empty value": {"X-Empty": ""},
    "value with spaces": {"X-Sp": "  a  b  "},
    "value with a tab": {"X-Tab": "a\tb"},
    "unicode value": {"X-Uni": "значение ü"},
    "latin value": {"X-Lat": "caf\xe9"},
    "unicode name": {"X-ü": "1"},
    "host": {"Host": "example.org"},
    "host lower case": {"host": "example.org:81"},
    "host twice": [("Host", "a.example"), ("Host", "b.example")],
    "accept": {"Accept": "text/html", "accept-encoding": "identity"},
    "user agent": {"User-Agent": "mine/1.0"},
    "connection close": {"Connection": "close"},
    "connection keep-alive": {"Connection": "keep-alive"},
    "connection upgrade": {"Connection": "Upgrade", "Upgrade": "h2c"},
    "authorization": {"Authorization": "Bearer token"},
    "content type on a GET": {"Content-Type": "text/x-mine"},
    "content length on a GET": {"Content-Length": "0"},
    "transfer encoding on a GET": {"Transfer-Encoding": "identity"},
    "content encoding on a GET": {"Content-Encoding": "gzip"},
    "if-none-match": {"If-None-Match": '"abc"'},
    "istr names": {aiohttp.hdrs.ACCEPT: "a/b", aiohttp.hdrs.RANGE: "bytes=0-1"},
    "long value": {"X-Long": "v" * 20_000},
    "many": {f"X-{n}": str(n) for n in range(200)},
    "str subclass": {aiohttp.hdrs.ETAG: aiohttp.hdrs.istr("v")},
}

HEADER_CASES = [
    Case(
        f"headers {name}",
        get("/h", headers=value),
        expect=200,
        lane=FULL if name == "connection upgrade" else EXPRESS,
    )
    for name, value in HEADERS.items()
]

SKIPS = {
    "user agent": ["User-Agent"],
    "lower case": ["user-agent", "accept"],
    "accept encoding": ("Accept-Encoding",),
    "all": {"User-Agent", "Accept", "Accept-Encoding", "Content-Type"},
    "host is not automatic": ["Host"],
    "none": [],
}

SKIP_CASES = [
    Case(f"skip {name} on {method}", request(method, skip_auto_headers=value, **more), expect=200)
    for name, value in SKIPS.items()
    for method, more in (("GET", {}), ("POST", {"data": b"x"}))
]


def absolute(change: str, late: Callable[[], dict[str, Any]] = dict, **more: Any) -> Do:
    """A request whose URL is made from the server's origin by a format string."""

    async def do(run: Run) -> object:
        url = change.format(port=run.server.port, base=run.server.base)
        async with run.session.get(url, **late(), **more) as resp:
            await resp.read()
        return resp

    return do


async def url_object(run: Run) -> object:
    async with run.session.get(URL(run.url("/a%2Fb?c=%2B"), encoded=True)) as resp:
        await resp.read()
    return resp


URL_CASES = [
    Case("a URL object already encoded is kept", url_object, expect=200),
    Case("localhost by name", absolute("http://localhost:{port}/a"), expect=200),
    Case("upper case scheme and host", absolute("HTTP://LOCALHOST:{port}/A"), expect=200),
    Case("spaces around the URL", absolute("  http://127.0.0.1:{port}/a"), lane=ANY),
    Case("credentials in the URL", absolute("http://user:pass@127.0.0.1:{port}/a"), expect=200),
    Case("user alone in the URL", absolute("http://user@127.0.0.1:{port}/a"), expect=200),
    Case("encoded credentials in the URL", absolute("http://u%40x:p%3Aw%2F@127.0.0.1:{port}/"), expect=200),
    Case("unicode credentials in the URL", absolute("http://ü:ß@127.0.0.1:{port}/"), lane=ANY),
    Case("an IP address in decimal", absolute("http://2130706433:{port}/"), lane=ANY, probe=False),
    Case(
        "credentials in the URL and a header",
        absolute("http://u:p@127.0.0.1:{port}/", headers={"Authorization": "x"}),
        expect="ValueError",
        lane=ANY,
    ),
    Case(
        "credentials in the URL and auth",
        absolute("http://u:p@127.0.0.1:{port}/", lambda: {"auth": BasicAuth("a", "b")}),
        expect="ValueError",
        lane=ANY,
    ),
    Case(
        "auth is deprecated", get("/", lambda _: {"auth": BasicAuth("user", "пароль", "utf-8")}), expect=200
    ),
    Case("auth with an empty password", get("/", lambda _: {"auth": BasicAuth("user")}), expect=200),
    Case("auth of the wrong type", get("/", lambda _: {"auth": ("user", "pass")}), lane=ANY),
    Case(
        "auth and a header",
        get("/", lambda _: {"auth": BasicAuth("u"), "headers": {"authorization": "x"}}),
        lane=ANY,
    ),
    Case("TLS", get("/t", ssl=client_context()), scheme="https", expect=200, probe_ssl=client_context()),
    Case("TLS unverified", get("/t", ssl=False), scheme="https", expect=200),
    Case(
        "TLS of an unknown authority",
        get("/t"),
        scheme="https",
        expect="ClientConnectorCertificateError",
        wire=False,
    ),
    Case(
        "TLS server name",
        get("/t", ssl=client_context(), server_hostname="localhost"),
        scheme="https",
        expect=200,
    ),
    Case(
        "TLS wrong server name",
        get("/t", ssl=client_context(), server_hostname="wrong.example"),
        scheme="https",
        expect="ClientConnectorCertificateError",
        wire=False,
    ),
    Case(
        "TLS wrong fingerprint",
        get("/t", ssl=aiohttp.Fingerprint(b"\0" * 32)),
        scheme="https",
        expect="ServerFingerprintMismatch",
        wire=False,
    ),
    Case("ssl of a wrong type", get(ssl="yes"), expect="TypeError", lane=ANY),
    Case("verify_ssl is deprecated", get(verify_ssl=False), expect=200),
    Case(
        "TLS body by POST", post("/t", data=b"x" * 300_000, ssl=client_context()), scheme="https", expect=200
    ),
    Case(
        "unix socket",
        post("/u", data=b"x"),
        session=lambda run: {"connector": run.api.UnixConnector(run.server.path)},
        scheme="unix",
        expect=200,
    ),
    Case(
        "unix socket that is missing",
        get("/u"),
        session=lambda run: {"connector": run.api.UnixConnector(run.server.path + "-none")},
        scheme="unix",
        expect="UnixClientConnectorError",
    ),
]


def on_base(path: str, base: str = "/api/", **more: object) -> Case:
    async def do(run: Run) -> object:
        async with run.session.get(path, **more) as resp:
            await resp.read()
        return resp

    return Case(f"base {base} joined with {path!r}", do, session=lambda run: {"base_url": run.url(base)})


async def full_url_with_base(run: Run) -> object:
    async with run.session.get(run.url("/elsewhere")) as resp:
        await resp.read()
    return resp


SESSION_CASES = [
    on_base("x"),
    on_base("x/y?q=1"),
    on_base("/x"),
    on_base("../x"),
    on_base(""),
    on_base("?q=1"),
    on_base("w", "/"),
    on_base("z", params={"a": "b"}),
    Case("base and an absolute URL", full_url_with_base, session=lambda run: {"base_url": run.url("/api/")}),
    Case(
        "base without a trailing slash",
        get(),
        session=lambda run: {"base_url": run.url("/api")},
        lane=ANY,
        expect="ValueError",
    ),
    Case("session headers", get(), session={"headers": {"X-S": "1", "Accept": "a/b"}}, expect=200),
    Case(
        "request headers override the session's",
        get(headers={"x-s": "2", "X-R": "3"}),
        session={"headers": {"X-S": "1", "X-T": "1"}},
        expect=200,
    ),
    Case(
        "duplicate request headers override the session's",
        get(headers=[("X-S", "2"), ("X-S", "3")]),
        session={"headers": CIMultiDict([("X-S", "0"), ("X-S", "1")])},
        expect=200,
    ),
    Case("session skips headers", get(), session={"skip_auto_headers": ["User-Agent"]}, expect=200),
    Case(
        "session and request skip headers",
        get(skip_auto_headers=["Accept"]),
        session={"skip_auto_headers": ["user-agent"]},
        expect=200,
    ),
    Case("session auth", get(), session=lambda _: {"auth": BasicAuth("s", "p")}, expect=200),
    Case("session auth of a wrong type", get(), session={"auth": ("s", "p")}, lane=ANY),
    Case(
        "request auth overrides the session's",
        get("/", lambda _: {"auth": BasicAuth("r", "q")}),
        session=lambda _: {"auth": BasicAuth("s", "p")},
        expect=200,
    ),
    Case("HTTP/1.0", get(), session={"version": aiohttp.HttpVersion10}, expect=200),
    Case("HTTP/1.0 with a body", post(data=b"x"), session={"version": aiohttp.HttpVersion10}, expect=200),
    Case(
        "force_close",
        get(),
        session=lambda run: {"connector": run.api.TCPConnector(force_close=True)},
        expect=200,
    ),
    Case(
        "force_close with HTTP/1.0",
        get(),
        session=lambda run: {
            "connector": run.api.TCPConnector(force_close=True),
            "version": aiohttp.HttpVersion10,
        },
        expect=200,
    ),
    Case(
        "raise_for_status by the session",
        get(),
        serve(answer("HTTP/1.1 404 Nope")),
        session={"raise_for_status": True},
        expect="ClientResponseError",
    ),
]


@table(METHOD_CASES)
async def test_method(case: Case) -> None:
    await check(case)


@table(TARGET_CASES + BAD_PARAMS_CASES)
async def test_target_and_params(case: Case) -> None:
    await check(case)


@table(HEADER_CASES + SKIP_CASES)
async def test_headers(case: Case) -> None:
    await check(case)


@table(URL_CASES)
async def test_url_credentials_and_tls(case: Case) -> None:
    await check(case)


@table(SESSION_CASES)
async def test_what_the_session_adds(case: Case) -> None:
    await check(case)


@pytest.mark.parametrize("method", ["get", "head", "options", "post", "put", "patch", "delete"])
async def test_shorthand_methods(method: str) -> None:
    async def do(run: Run) -> object:
        resp = await getattr(run.session, method)(run.url("/short"), headers={"X-A": "1"})
        await resp.read()
        return resp

    script = serve(b"HTTP/1.1 204 No Content\r\n\r\n")
    outcome = await check(Case(f"session.{method}", do, script, expect=204))
    assert outcome["wire"][0].startswith(method.upper().encode() + b" /short HTTP/1.1\r\n")


async def test_module_level_request() -> None:
    async def do(run: Run) -> object:
        async with run.api.request("GET", run.url("/one"), params={"a": "b"}) as resp:
            await resp.read()
        return resp

    outcome = await check(Case("request()", do, OK, lane=ANY))
    assert outcome["answer"] == 200
