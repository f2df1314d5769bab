"""Middlewares: what they see and may change of a request, and what then goes out.

Several calls of the handler, errors and other uses of it are in test_middleware_calls.py.
"""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import FormData
from aiohttp.payload import BytesPayload, JsonPayload
from hypothesis import given, settings
from hypothesis import strategies as st
from support.middlewares import Change, Maker, changing, in_request, in_session, look
from support.outcome import ANY, Case, Do, Run, Script
from support.scripted import Expect, ExpectHead, Send, Stall
from yarl import URL

from .lanes import MIDDLEWARES as LANE
from .tables import agen, answer, check, get, post, request, serve, table
from .test_tracing import BODIES, form_with_file, in_turn, multipart, real_file, redirecting

OK_LINE = "HTTP/1.1 200 OK"
ANSWER = answer(OK_LINE, "X-A: 1", "Set-Cookie: s=1", body=b"passed")
ANSWERED: Script = serve(ANSWER)
UNFRAMED: Script = ((ExpectHead(), Send(ANSWER), Stall()),)


def case(id: str, do: Do, script: Script = ANSWERED, **more: Any) -> Case:
    more.setdefault("lane", LANE)
    return Case(f"middleware {id}", do, script, **more)


# Headers


def setting(**headers: str | None) -> Change:
    """Change headers: underscores are dashes, None deletes."""

    def change(run: Run, req: Any) -> None:
        for name, value in headers.items():
            if value is None:
                req.headers.popall(name.replace("_", "-"), None)
            else:
                req.headers[name.replace("_", "-")] = value

    return change


def adding(name: str, value: Any) -> Change:
    return lambda run, req: req.headers.add(name, value)


def clearing(run: Run, req: Any) -> None:
    req.headers.clear()


HEADERS: dict[str, Change | None] = {
    "nothing": None,
    "adds a header": adding("X-Added", "1"),
    "adds a header twice": adding("X-Own", "2"),
    "replaces a header": setting(X_Own="changed"),
    "deletes a header": setting(X_Own=None),
    "deletes what is automatic": setting(User_Agent=None, Accept=None, Accept_Encoding=None),
    "sets User-Agent": setting(User_Agent="own/1"),
    "sets Authorization": setting(Authorization="Bearer token"),
    "sets Cookie": setting(Cookie="own=1"),
    "deletes Cookie": setting(Cookie=None),
    "sets Host": setting(Host="other.example"),
    "deletes Host": setting(Host=None),
    "sets Content-Type": setting(Content_Type="text/x-own"),
    "deletes Content-Type": setting(Content_Type=None),
    "sets Connection close": setting(Connection="close"),
    "sets Connection keep-alive": setting(Connection="keep-alive"),
    "sets a header of other letters": setting(X_Unicode="ü"),
    "sets a header of two lines": setting(X_Bad="a\r\nb"),
    "sets a header that is a number": adding("X-Number", 1),
    "sets Accept-Encoding": setting(Accept_Encoding="identity"),
    "sets Expect": setting(Expect="100-continue"),
    "sets Upgrade": setting(Upgrade="h2c"),
}
UNFRAMING: dict[str, Change] = {
    "sets Content-Length shorter": setting(Content_Length="2"),
    "sets Content-Length longer": setting(Content_Length="9"),
    "sets Content-Length to a word": setting(Content_Length="x"),
    "deletes Content-Length": setting(Content_Length=None),
    "sets Transfer-Encoding": setting(Transfer_Encoding="chunked"),
    "sets Transfer-Encoding instead": setting(Transfer_Encoding="chunked", Content_Length=None),
    "clears the headers": clearing,
}
WITH_HEADERS = {"headers": lambda: {"X-Own": "1"}, "cookies": lambda: {"c": "1"}}
REFUSED = ("sets a header of two lines", "sets Content-Length to a word")
"""Not a byte of these may reach the server; ours does not even connect."""

HEADER_CASES = [
    case(
        f"{what}, {name}",
        request(method, "/m", in_request(changing(change), **WITH_HEADERS, **body)),
        silent=what in REFUSED,
    )
    for what, change in HEADERS.items()
    for name, method, body in (
        ("GET", "GET", {}),
        ("POST", "POST", {"data": lambda: b"body"}),
        ("POST of a form", "POST", {"data": lambda: {"a": "1"}}),
        ("POST of a stream", "POST", {"data": lambda: io.BytesIO(b"stream")}),
    )
    if name in ("GET", "POST") or "Content-Type" in what or what == "adds a header"
] + [
    case(
        f"{what}, {name}",
        request("POST", "/m", in_request(changing(change), **body)),
        UNFRAMED,
        probe=False,
        silent=what in REFUSED,
        wire=what != "deletes Content-Length" or name != "slow",
    )
    for what, change in UNFRAMING.items()
    for name, body in (
        ("bytes", {"data": lambda: b"body"}),
        ("json", {"json": lambda: {"a": 1}}),
        ("a stream", {"data": lambda: io.BytesIO(b"stream")}),
        ("chunked", {"data": lambda: agen(b"one", b"two")}),
    )
]

# The target


def to_url(make: Callable[[Run, URL], URL]) -> Change:
    def change(run: Run, req: Any) -> None:
        req.url = make(run, req.url)

    return change


def to_method(method: str) -> Change:
    def change(run: Run, req: Any) -> None:
        req.method = method

    return change


def setting_attribute(name: str, value: Any) -> Change:
    return lambda run, req: setattr(req, name, value)


TARGETS: dict[str, Change] = {
    "another path": to_url(lambda run, url: url.with_path("/other")),
    "another query": to_url(lambda run, url: url.with_query({"x": "ü y"})),
    "a query more": to_url(lambda run, url: url.update_query(more="1")),
    "a fragment": to_url(lambda run, url: url.with_fragment("part")),
    "another port": to_url(lambda run, url: URL(run.other.base + "/there")),
    "another name": to_url(lambda run, url: url.with_host("localhost")),
    "no such port": to_url(lambda run, url: url.with_port(1)),
    "credentials": to_url(lambda run, url: url.with_user("u").with_password("p")),
    "TLS": to_url(lambda run, url: url.with_scheme("https").with_port(url.port)),
    "another scheme": to_url(lambda run, url: url.with_scheme("ftp")),
    "HTTP/1.0": setting_attribute("version", aiohttp.HttpVersion10),
    "chunked": setting_attribute("chunked", True),
    "compress": setting_attribute("compress", "gzip"),
    "another ssl": setting_attribute("_ssl", False),
    "another server_hostname": setting_attribute("server_hostname", "x.example"),
    "POST": to_method("POST"),
    "GET": to_method("GET"),
    "HEAD": to_method("HEAD"),
    "post": to_method("post"),
    "PUT": to_method("PUT"),
}


def for_method(method: str) -> dict[str, Any]:
    return {"data": lambda: b"body"} if method == "POST" else {}


def first_only(change: Change) -> Callable[[], Change]:
    """Change the first request alone: redirects run the middleware for each hop."""

    def make() -> Change:
        calls: list[None] = []

        def wrapped(run: Run, req: Any) -> Any:
            calls.append(None)
            return change(run, req) if len(calls) == 1 else None

        return wrapped

    return make


def hopping(method: str, change: Change) -> Do:
    """A request whose first hop alone is changed."""

    async def do(run: Run) -> Any:
        maker = changing(first_only(change)())
        return await request(method, "/a/b", in_request(maker, **for_method(method)))(run)

    return do


BODILESS: Script = ((ExpectHead(), Send(answer(OK_LINE)), Stall()),)
THERE = (Expect(), Send(ANSWER))
TARGET_CASES = [
    case(
        f"to {what}, {method}",
        request(method, "/m?q=1#f", in_request(changing(change), **for_method(method))),
        BODILESS if what == "HEAD" else UNFRAMED,
        other=(THERE,),
        probe=False,
        wire=what != "TLS",
        ignore=("error.str", "error.args", "error.strerror", "error.os_error") if what == "TLS" else (),
        hang_after=0.5,
    )
    for what, change in TARGETS.items()
    for method in ("GET", "POST")
] + [
    case(
        "to another path and redirected",
        hopping("GET", TARGETS["another path"]),
        redirecting("302 F", "Location: c"),
    ),
    case(
        "to another port and redirected",
        hopping("GET", TARGETS["another port"]),
        (THERE,),
        other=((Expect(), Send(answer("HTTP/1.1 302 F", "Location: c", "Set-Cookie: o=1"))),),
    ),
    case("to PUT and redirected", hopping("POST", TARGETS["PUT"]), redirecting("302 F", "Location: /u")),
    case("to POST and redirected", hopping("GET", TARGETS["POST"]), redirecting("302 F", "Location: /u")),
    case(
        "from https to http",
        get("/m", in_request(changing(to_url(lambda run, url: URL(run.other.base))), ssl=False)),
        scheme="https",
        other=(THERE,),
        probe=False,
    ),
    case(
        "from http to https",
        lambda run: get_other(run),
        scheme="https",
        probe=False,
    ),
    case(
        "to another path over TLS",
        get("/m", in_request(changing(TARGETS["another path"]), ssl=False)),
        scheme="https",
    ),
]


async def get_other(run: Run) -> Any:
    """Ask the plain server; the middleware turns to the one with TLS."""
    maker = changing(to_url(lambda run, url: URL(run.server.base)))
    async with run.session.get(run.other.base, **in_request(maker, ssl=False)(run)) as resp:
        await resp.read()
    return resp


# The body


def with_body(maker: Maker, given: Callable[[], dict[str, Any]]) -> Callable[[Run], dict[str, Any]]:
    return lambda run: {**in_request(maker)(run), **given()}


async def longer(run: Run, req: Any) -> None:
    await req.update_body(b"new")
    req.headers["Content-Length"] = "9"


OLD = {
    name: BODIES[name]
    for name in (
        "nothing",
        "bytes",
        "empty bytes",
        "a str",
        "json",
        "a form",
        "a multipart form",
        "a stream",
        "a file",
        "a generator",
        "chunked bytes",
        "chunked nothing",
        "compressed bytes",
        "a compressed generator",
    )
}
NEW: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"new body",
    "empty bytes": lambda: b"",
    "a str": lambda: "new text ü",
    "a bytearray": lambda: bytearray(b"new array"),
    "json": lambda: JsonPayload({"new": 1}),
    "a payload": lambda: BytesPayload(b"new", headers={"X-P": "1"}, content_type="a/b"),
    "a form": lambda: FormData({"new": "1"}),
    "a dict": lambda: {"new": "1"},
    "a multipart form": form_with_file,
    "a multipart writer": multipart,
    "a stream": lambda: io.BytesIO(b"new stream"),
    "a file": real_file,
    "a generator": lambda: agen(b"new one", b"new two"),
    "None": lambda: None,
    "a number": lambda: 5,
}


def to_body(make: Callable[[], Any], change: Change | None = None) -> Change:
    async def update(run: Run, req: Any) -> None:
        if change is not None:
            change(run, req)
        await req.update_body(make())

    return lambda run, req: update(run, req)


def set_body(make: Callable[[], Any]) -> Change:
    return lambda run, req: setattr(req, "body", make())


async def body_twice(run: Run, req: Any) -> None:
    await req.update_body(b"once")
    await req.update_body(io.BytesIO(b"twice"))


async def body_read(run: Run, req: Any) -> None:
    run.see(await req.body.as_bytes() if req.body else b"", req.body.decode() if req.body else "")


async def body_doubled(run: Run, req: Any) -> None:
    await req.update_body(await req.body.as_bytes() * 2)


BODY_CASES = (
    [
        case(
            f"{old} becomes {new}",
            post("/m", with_body(changing(to_body(make)), given)),
            probe=new != "a number",
        )
        for old, given in OLD.items()
        for new, make in NEW.items()
    ]
    + [
        case(f"{old} becomes {new} of a GET", get("/m", with_body(changing(to_body(make)), given)))
        for old, given in OLD.items()
        for new, make in NEW.items()
        if old in ("nothing", "bytes", "a generator")
        and new in ("bytes", "empty bytes", "json", "a form", "a generator", "None")
    ]
    + [
        case(f"{old} is set to {new}", post("/m", with_body(changing(set_body(NEW[new])), OLD[old])))
        for old in ("nothing", "bytes", "a stream", "a file", "a generator")
        for new in ("bytes", "None", "a generator", "a stream")
    ]
    + [
        case(f"{old} with {what}", post("/m", with_body(changing(change), OLD[old])))
        for old in OLD
        if old not in ("nothing", "chunked nothing")
        for what, change in (
            ("the body twice", body_twice),
            ("the body read", body_read),
            ("the body doubled", body_doubled),
        )
    ]
    + [
        case(
            f"{old} becomes {new} without its type",
            post("/m", with_body(changing(to_body(NEW[new], setting(Content_Type=None))), OLD[old])),
        )
        for old in ("bytes", "a form", "json")
        for new in ("json", "a form", "a multipart form", "bytes")
    ]
    + [
        case(
            f"the body becomes {new} before a redirect by {status}",
            post("/m", with_body(changing(to_body(NEW[new])), OLD["bytes"])),
            redirecting(f"{status} R", "Location: /u"),
        )
        for new in ("bytes", "a stream", "a form", "a generator", "None")
        for status in (302, 307)
    ]
    + [
        case(
            "the body becomes 256 kB",
            post("/m", with_body(changing(to_body(lambda: bytes(range(256)) * 1024)), OLD["bytes"])),
        ),
        case(
            "a type for the body",
            post(
                "/m", with_body(changing(to_body(lambda: b"x", setting(Content_Type="a/b"))), OLD["nothing"])
            ),
        ),
        case(
            "a body and its wrong length",
            post("/m", with_body(changing(longer), OLD["bytes"])),
            UNFRAMED,
            probe=False,
        ),
    ]
)


# Several, and who overrides whom


def tagging(tag: str) -> Change:
    def change(run: Run, req: Any) -> None:
        run.see(tag)
        req.headers.add("X-Tag", tag)

    return change


ONE, TWO, THREE = (changing(tagging(tag)) for tag in ("one", "two", "three"))
ORDER_CASES = [
    case("several of the session", get("/m"), session=in_session(ONE, TWO, THREE)),
    case("several of the request", get("/m", in_request(ONE, TWO, THREE))),
    case("the request's instead of the session's", get("/m", in_request(TWO)), session=in_session(ONE)),
    case("none instead of the session's", get("/m", middlewares=()), session=in_session(ONE), lane=ANY),
    case("an empty list of the session", get("/m"), session={"middlewares": []}, lane=ANY),
    case("None falls back on the session's", get("/m", middlewares=None), session=in_session(ONE)),
    case("a list", get("/m", lambda run: {"middlewares": [ONE(run)]})),
    case("assigned to the session later", lambda run: assigned(run), lane=ANY),
    case(
        "several requests", in_turn(get("/1"), post("/2", data=b"x"), get("/3")), (), session=in_session(ONE)
    ),
    case(
        "over redirects",
        get("/m"),
        redirecting("302 F", "Location: /u", "Set-Cookie: hop=1"),
        session=in_session(ONE, TWO),
    ),
    case(
        "not over redirects",
        get("/m", allow_redirects=False),
        redirecting("302 F", "Location: /u"),
        session=in_session(ONE),
    ),
    case(
        "and raise_for_status",
        get("/m", raise_for_status=True),
        serve(answer("HTTP/1.1 404 No")),
        session=in_session(ONE),
    ),
    case(
        "and too many redirects",
        get("/m", max_redirects=1),
        redirecting("302 F", "Location: /u"),
        session=in_session(ONE),
    ),
    case(
        "of an object",
        get("/m", lambda run: {"middlewares": (AsObject(run),)}),
    ),
    case("that is no coroutine function", get("/m", middlewares=(lambda req, handler: handler(req),))),
    case(
        "and defaults of the session",
        get("/m", headers={"X-B": "2"}),
        session=in_session(ONE, headers={"X-A": "1"}, cookies={"c": "1"}),
    ),
    case(
        "and skipped headers",
        post("/m", data=b"", skip_auto_headers=["User-Agent", "Content-Type"]),
        session=in_session(ONE),
    ),
    case("of HTTP/1.0", post("/m", data=b"x"), session=in_session(ONE, version=aiohttp.HttpVersion10)),
    case(
        "and credentials",
        get("/m", lambda run: {"auth": aiohttp.BasicAuth("u", "p")}),
        session=in_session(ONE, changing(setting(Authorization=None))),
    ),
    case(
        "with force_close",
        get("/m"),
        session=lambda run: {**in_session(ONE)(run), "connector": run.api.TCPConnector(force_close=True)},
    ),
    case(
        "over a unix socket",
        get("/m"),
        scheme="unix",
        session=lambda run: {**in_session(ONE)(run), "connector": run.api.UnixConnector(run.server.path)},
    ),
    case("through a proxy", lambda run: proxied(run), lane=ANY, session=in_session(ONE)),
]


class AsObject:
    """A middleware that is an object."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def __call__(self, req: Any, handler: Any) -> Any:
        self._run.see(look(req))
        return await handler(req)


async def assigned(run: Run) -> Any:
    run.see(await get("/1")(run))
    run.session._middlewares = (ONE(run),)
    run.see(await get("/2")(run))
    run.session._middlewares = ()
    return await get("/3")(run)


async def proxied(run: Run) -> Any:
    async with run.session.get("http://target.example/path", proxy=run.server.base) as resp:
        await resp.read()
    return resp


@table(HEADER_CASES)
async def test_headers(case: Case) -> None:
    await check(case)


@table(TARGET_CASES)
async def test_target(case: Case) -> None:
    await check(case)


@table(BODY_CASES)
async def test_body(case: Case) -> None:
    await check(case)


@table(ORDER_CASES)
async def test_order(case: Case) -> None:
    await check(case)


# Whatever is done, in any order

STEPS: dict[str, Change] = {
    **{
        name: change
        for name, change in HEADERS.items()
        if change is not None and name not in ("sets Expect", "sets Upgrade", *REFUSED)
    },
    **{f"body {name}": to_body(NEW[name]) for name in NEW if name not in ("a number", "a multipart form")},
    **{
        f"to {name}": TARGETS[name]
        for name in ("another path", "another query", "a fragment", "another port", "PUT", "POST", "GET")
    },
    "reads the body": body_read,
}


@settings(settings.get_profile("differential"))
@given(
    steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5),
    split=st.integers(0, 5),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    old=st.sampled_from(sorted(set(OLD) - {"a multipart form"})),
)
def test_any_steps(
    loop: asyncio.AbstractEventLoop, steps: list[str], split: int, method: str, old: str
) -> None:
    """The steps are shared out between two middlewares."""

    def walking(names: list[str]) -> Change:
        async def walk(run: Run, req: Any) -> None:
            for name in names:
                if (awaitable := STEPS[name](run, req)) is not None:
                    await awaitable

        return lambda run, req: walk(run, req)

    makers = [changing(walking(steps[:split])), changing(walking(steps[split:]))]

    def arguments(run: Run) -> dict[str, Any]:
        return {**in_request(*makers)(run), **OLD[old]()}

    generated = case(
        "generated", request(method, "/m", arguments), other=(THERE,), wire="Content-Length" not in str(steps)
    )
    loop.run_until_complete(check(generated))
