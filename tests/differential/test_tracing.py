"""Trace signals of requests that succeed: which, in which order, with which fields.

Those of requests that fail are in test_tracing_failures.py, handlers that fail in test_tracing_handlers.py.
"""

import asyncio
import gzip
import io
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp import BasicAuth
from support.outcome import ANY, Case, Do, Run, Script
from support.scripted import Close, Expect, Pause, Pieces, Send, Stall, by_byte
from support.tracing import SIGNALS, Action, Tracer, setting, sleeping

from .lanes import TRACING as LANE
from .tables import agen, answer, check, chunked, get, post, request, serve, slow_agen, table

OK_LINE = "HTTP/1.1 200 OK"
ANSWER = answer(OK_LINE, "X-A: 1", body=b"traced")
JSON_ANSWER = answer(OK_LINE, "Content-Type: application/json", body=b'{"a": 1}')
PAIR: Script = ((Expect(), Send(ANSWER), Expect(), Send(JSON_ANSWER)),)


class Known:
    """A resolver that knows one address, after a turn of the loop."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 6, "flags": 0}]

    async def close(self) -> None:
        pass


def traced(
    actions: Mapping[str, Action] | None = None,
    *,
    connector: Mapping[str, Any] | None = None,
    **more: Any,
) -> Callable[[Run], dict[str, Any]]:
    """The arguments of a session that traces everything."""

    def make(run: Run) -> dict[str, Any]:
        made: dict[str, Any] = {"trace_configs": [Tracer(run, actions).config()], **more}
        if connector is not None:
            own = {name: value() if callable(value) else value for name, value in connector.items()}
            made["connector"] = run.api.TCPConnector(**own)
        return made

    return make


def in_turn(*dos: Do) -> Do:
    async def do(run: Run) -> Any:
        return [await one(run) for one in dos]

    return do


def at_name(path: str = "/", name: str = "some.example", **more: Any) -> Do:
    """A GET of the server by a host name."""

    async def do(run: Run) -> Any:
        async with run.session.get(f"http://{name}:{run.server.port}{path}", **more) as resp:
            await resp.read()
        return resp

    return do


ANSWERED: Script = serve(ANSWER)


def case(id: str, do: Do, script: Script = ANSWERED, **more: Any) -> Case:
    more.setdefault("session", traced())
    more.setdefault("lane", LANE)
    return Case(id, do, script, **more)


# Connections and names

CACHED = {"resolver": Known}
UNCACHED = {"resolver": Known, "use_dns_cache": False}
CONNECTION_CASES = [
    case("trace new connection", get("/t"), expect=200),
    case("trace reused connection", in_turn(get("/1"), get("/2")), PAIR),
    case(
        "trace connection not kept",
        in_turn(get("/1"), get("/2")),
        (*serve(answer(OK_LINE, "Connection: close"), Close()), *serve(ANSWER)),
    ),
    case("trace force_close", in_turn(get("/1"), get("/2")), session=traced(connector={"force_close": True})),
    case("trace a name", at_name(), session=traced(connector=CACHED), expect=200),
    case(
        "trace a name and its connection",
        in_turn(at_name("/1"), at_name("/2")),
        PAIR,
        session=traced(connector=CACHED),
    ),
    case(
        "trace a cached name",
        in_turn(at_name("/1"), at_name("/2")),
        session=traced(connector={**CACHED, "force_close": True}),
    ),
    case(
        "trace an uncached name",
        in_turn(at_name("/1"), at_name("/2")),
        session=traced(connector={**UNCACHED, "force_close": True}),
    ),
    case(
        "trace a name that ends in dots",
        at_name(name="some.example.."),
        session=traced(connector=CACHED),
    ),
    case("trace a name of other letters", at_name(name="SÖME.example"), session=traced(connector=CACHED)),
    case("trace TLS", get("/t", ssl=False), scheme="https", expect=200),
    case(
        "trace a unix socket",
        get("/t"),
        scheme="unix",
        session=lambda run: {
            "trace_configs": [Tracer(run).config()],
            "connector": run.api.UnixConnector(run.server.path),
        },
        expect=200,
    ),
    case(
        "trace signals that wait",
        in_turn(at_name("/1"), at_name("/2")),
        PAIR,
        session=traced({"*": sleeping()}, connector=CACHED),
    ),
    case(
        "trace signals that wait long",
        in_turn(at_name("/1"), at_name("/2")),
        session=traced({"*": sleeping(0.005)}, connector={**UNCACHED, "force_close": True}),
    ),
]

STALE: Script = ((Expect(), Send(ANSWER), Expect(), Close()), (Expect(), Send(JSON_ANSWER)))
RETRY_CASES = [
    case(f"trace a retry of {method} with {name}", in_turn(get("/1"), request(method, "/2", make)), STALE)
    for method in ("GET", "PUT", "DELETE")
    for name, make in (
        ("nothing", None),
        ("bytes", {"data": b"again"}),
        ("a stream", lambda run: {"data": io.BytesIO(b"again")}),
        ("json", {"json": {"a": 1}}),
    )
] + [
    case("trace a retry by POST", in_turn(get("/1"), post("/2", data=b"x")), STALE),
    case(
        "trace a retry of a generator",
        in_turn(get("/1"), request("PUT", "/2", lambda run: {"data": agen(b"x")})),
        STALE,
    ),
    case(
        "trace a retry with signals that wait",
        in_turn(get("/1"), request("PUT", "/2", data=b"again")),
        STALE,
        session=traced({"*": sleeping()}),
    ),
    case(
        "trace a retry with changed headers",
        in_turn(get("/1"), get("/2", headers={"X-Own": "1"})),
        STALE,
        session=traced({"request_start": setting(X_Start="1"), "request_headers_sent": setting(X_Sent="1")}),
    ),
    case(
        "trace a retry on a second stale connection",
        in_turn(get("/1"), get("/2")),
        ((Expect(), Send(ANSWER), Expect(), Close()), (Expect(), Close())),
    ),
]


# What is asked for

REQUESTS: dict[str, Do] = {
    "params": get("/t?a=1", params={"b": "2", "c": "ü"}),
    "params of a key in the URL": get("/t?a=1&b=2", params=[("a", "3"), ("a", "4")]),
    "a fragment": get("/t?a=1#part", params={"b": "2"}),
    "a lower case method": request("get", "/t"),
    "headers": get("/t", headers=[("X-A", "1"), ("X-a", "2"), ("user-agent", "own")]),
    "a host header": get("/t", headers={"Host": "other.example"}),
    "cookies": get("/t", cookies={"a": "1"}),
    "skipped headers": post("/t", data=b"", skip_auto_headers=["User-Agent", "Content-Type"]),
    "an Authorization header": get("/t", headers={"Authorization": "Basic eDp5"}),
    "auth": get("/t", lambda run: {"auth": BasicAuth("user", "secret")}),
    "no keep-alive": get("/t", headers={"Connection": "close"}),
    "an Accept-Encoding": get("/t", headers={"Accept-Encoding": "identity"}),
}


async def credentials_in_the_url(run: Run) -> Any:
    async with run.session.get(
        f"http://user:secret@127.0.0.1:{run.server.port}/t?q=1", params={"p": "1"}
    ) as resp:
        await resp.read()
    return resp


REQUEST_CASES = [case(f"trace request with {name}", do, expect=200) for name, do in REQUESTS.items()] + [
    case("trace request with credentials in the URL", credentials_in_the_url, expect=200),
    case(
        "trace request with the session's defaults",
        get("/t", headers={"X-Own": "1"}),
        session=traced(
            headers={"X-Default": "1", "X-Own": "0"}, cookies={"c": "1"}, skip_auto_headers=["Accept"]
        ),
        expect=200,
    ),
    case(
        "trace request with a base URL",
        lambda run: plain_read(run.session.get("relative?x=1")),
        session=lambda run: {**traced()(run), "base_url": run.url("/base/")},
    ),
    case("trace request of HTTP/1.0", post("/t", data=b"x"), session=traced(version=aiohttp.HttpVersion10)),
]


async def plain_read(context: Any) -> Any:
    async with context as resp:
        await resp.read()
    return resp


# Bodies sent

BIG = bytes(range(256)) * 1024


def multipart() -> aiohttp.MultipartWriter:
    made = aiohttp.MultipartWriter("mixed", boundary="fixed-boundary")
    made.append("text")
    made.append(io.BytesIO(b"stream"))
    return made


def form_with_file() -> aiohttp.FormData:
    made = aiohttp.FormData()
    made._writer = aiohttp.MultipartWriter("form-data", boundary="fixed-boundary")
    made.add_field("f", io.BytesIO(b"content"), filename="n.bin")
    return made


def real_file() -> Any:
    return open(__file__.replace("test_tracing.py", "__init__.py"), "rb")


BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": dict,
    "bytes": lambda: {"data": b"payload"},
    "empty bytes": lambda: {"data": b""},
    "a bytearray": lambda: {"data": bytearray(b"array")},
    "a memoryview": lambda: {"data": memoryview(b"a view")},
    "a str": lambda: {"data": "text ü"},
    "json": lambda: {"json": {"a": [1, 2]}},
    "a form": lambda: {"data": {"a": "1", "b": "two words"}},
    "a multipart form": lambda: {"data": form_with_file()},
    "a multipart writer": lambda: {"data": multipart()},
    "a stream": lambda: {"data": io.BytesIO(b"stream")},
    "a large stream": lambda: {"data": io.BytesIO(BIG)},
    "an empty stream": lambda: {"data": io.BytesIO()},
    "a file": lambda: {"data": real_file()},
    "a generator": lambda: {"data": agen(b"one", b"two", b"three")},
    "a slow generator": lambda: {"data": slow_agen(b"one", b"two", b"three")},
    "a generator of nothing": lambda: {"data": agen()},
    "a generator of empty pieces": lambda: {"data": agen(b"", b"x", b"")},
    "a generator of other types": lambda: {"data": agen(bytearray(b"ba"), memoryview(b"mv"))},
    "256 kB": lambda: {"data": BIG},
    "chunked bytes": lambda: {"data": b"payload", "chunked": True},
    "chunked nothing": lambda: {"chunked": True},
    "compressed bytes": lambda: {"data": b"payload" * 100, "compress": True},
    "compressed json": lambda: {"json": {"a": "b" * 200}, "compress": "gzip"},
    "a compressed generator": lambda: {"data": agen(b"a" * 999, b"b"), "compress": "deflate"},
    "less than Content-Length": lambda: {"data": agen(b"abc", b"defg"), "headers": {"Content-Length": "5"}},
}
BODY_CASES = [
    case(f"trace {method} of {name}", request(method, "/t", lambda run, make=make: make()), expect=200)
    for method in ("POST", "GET")
    for name, make in BODIES.items()
    if method == "POST" or name in ("bytes", "empty bytes", "json", "a generator", "chunked nothing")
] + [
    case(
        f"trace POST of {name} with signals that wait {seconds}",
        post("/t", lambda run, make=BODIES[name]: make()),
        session=traced({"*": sleeping(seconds)}),
        expect=200,
    )
    for name in ("bytes", "json", "a generator", "256 kB", "compressed bytes", "nothing")
    for seconds in (0, 0.004)
]


# Bodies received


def consuming(consume: Callable[[Any], Any], method: str = "GET") -> Do:
    """A request whose response is handled by `consume`, outside of `async with`."""

    async def do(run: Run) -> Any:
        resp = await run.session.request(method, run.url("/t"))
        run.see("head")
        try:
            run.see(await consume(resp))
        except Exception as exc:
            run.see(exc)
        run.see("consumed", resp.closed)
        resp.release()
        return resp

    return do


async def read_twice(resp: Any) -> Any:
    return [await resp.read(), await resp.read()]


async def by_iteration(resp: Any) -> Any:
    return b"".join([chunk async for chunk in resp.content.iter_any()])


async def stream_then_read(resp: Any) -> Any:
    return [await resp.content.read(), await resp.read()]


async def some_then_read(resp: Any) -> Any:
    return [await resp.content.readexactly(2), await resp.read()]


async def read_then_stream(resp: Any) -> Any:
    return [await resp.read(), await resp.content.read()]


async def text_and_json(resp: Any) -> Any:
    return [await resp.text(), await resp.json(content_type=None)]


async def nothing(resp: Any) -> Any:
    return None


async def released_then_read(resp: Any) -> Any:
    resp.release()
    return await resp.read()


async def closed_then_read(resp: Any) -> Any:
    resp.close()
    return await resp.read()


async def in_a_context(resp: Any) -> Any:
    async with resp:
        return "entered"


CONSUMERS = (
    read_twice,
    by_iteration,
    stream_then_read,
    some_then_read,
    read_then_stream,
    text_and_json,
    nothing,
    released_then_read,
    closed_then_read,
    in_a_context,
)
NUMBER = answer(OK_LINE, body=b"12345")
ANSWERS: dict[str, Script] = {
    "one piece": serve(NUMBER),
    "two pieces": serve(NUMBER[:-3], Pause(0.01), NUMBER[-3:]),
}
CONSUMING_CASES = [
    case(f"trace {consume.__name__} of {name}", consuming(consume), script)
    for consume in CONSUMERS
    for name, script in ANSWERS.items()
]

FRAMINGS: dict[str, Script] = {
    "no bytes": serve(answer(OK_LINE)),
    "chunks": serve(
        answer(OK_LINE, "Transfer-Encoding: chunked", body=chunked(b"one", b"two"), length=False)
    ),
    "bytes one by one": ((Expect(), by_byte(NUMBER)),),
    "chunks apart": (
        (
            Expect(),
            Pieces(
                (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", b"0\r\n\r\n"), 0.005
            ),
        ),
    ),
    "bytes until the close": serve(b"HTTP/1.1 200 OK\r\n\r\nsome", Close()),
    "gzip": serve(answer(OK_LINE, "Content-Encoding: gzip", body=gzip.compress(b"plain" * 50, mtime=0))),
    "a 204": serve(answer("HTTP/1.1 204 No Content", length=False)),
    "a 304": serve(answer("HTTP/1.1 304 Not Modified", "ETag: x", length=False)),
    "a 404": serve(answer("HTTP/1.1 404 Not Found", body=b"gone")),
    "1 MB": serve(answer(OK_LINE, body=b"x" * 1_000_000)),
    "interim answers": serve(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ANSWER),
    "interim answers apart": serve(b"HTTP/1.1 100 Continue\r\n\r\n", Pause(0.01), ANSWER),
    "cookies": serve(answer(OK_LINE, "Set-Cookie: a=1", "Set-Cookie: b=2", body=b"c")),
}
FRAMING_CASES = [
    case(f"trace {method} answered by {name}", request(method, "/t"), script)
    for name, script in FRAMINGS.items()
    for method in ("GET", "POST")
] + [case("trace HEAD", request("HEAD", "/t"), serve(answer(OK_LINE, "Content-Length: 9", length=False)))]


# Redirects

FINAL = (Expect(), Send(ANSWER))


def redirecting(line: str, *headers: str, body: bytes = b"moved") -> Script:
    return ((Expect(), Send(answer(f"HTTP/1.1 {line}", *headers, body=body)), *FINAL),)


async def read_response(run: Run, params: Any) -> None:
    run.see(await params.response.read())


REDIRECT_CASES = [
    case(
        f"trace {method} redirected by {status}",
        request(method, "/t?q=1", data=b"body" if method != "GET" else None),
        redirecting(f"{status} Moved", "Location: /u?x=1#frag", "Set-Cookie: hop=1"),
    )
    for status in (301, 302, 303, 307, 308)
    for method in ("GET", "POST", "PUT")
] + [
    case(
        "trace redirect with params", get("/t", params={"a": "1"}), redirecting("302 F", "Location: /u?a=2")
    ),
    case("trace redirect to nowhere", get("/t"), redirecting("302 Found")),
    case(
        "trace redirect not followed", get("/t", allow_redirects=False), redirecting("302 F", "Location: /u")
    ),
    case(
        "trace several redirects",
        get("/1"),
        ((*redirecting("302 F", "Location: /2")[0][:2], *redirecting("301 M", "Location: /3")[0]),),
    ),
    case(
        "trace redirect to another origin",
        get("/t", headers={"Authorization": "Basic eDp5", "Cookie": "a=1", "X-Own": "1"}, cookies={"b": "2"}),
        redirecting("302 F", "Location: @OTHER@/u"),
        other=(FINAL,),
    ),
    case(
        "trace redirect of a stream",
        post("/t", lambda run: {"data": io.BytesIO(b"again")}),
        redirecting("307 T", "Location: /u"),
    ),
    case(
        "trace redirect with Content-Length",
        post("/t", data=b"body", headers={"Content-Length": "4"}),
        redirecting("303 S", "Location: /u"),
    ),
    case(
        "trace redirect that is read",
        get("/t"),
        redirecting("302 F", "Location: /u"),
        session=traced({"request_redirect": read_response}),
    ),
    case(
        "trace redirect with signals that wait",
        post("/t", data=b"body"),
        redirecting("307 T", "Location: /u"),
        session=traced({"*": sleeping()}),
    ),
    case(
        "trace redirect with a body that goes on",
        get("/t"),
        (
            (Expect(), Send(b"HTTP/1.1 302 F\r\nLocation: /u\r\nContent-Length: 9\r\n\r\npart"), Stall()),
            (Expect(), Send(ANSWER)),
        ),
    ),
]


# Headers that handlers change

HOPS = redirecting("302 F", "Location: /u")
CHANGES: dict[str, Action] = {
    "adds": setting(X_Added="1"),
    "replaces": setting(X_Own="changed", User_Agent="changed"),
    "deletes": setting(X_Own=None, Accept=None),
    "sets Host": setting(Host="other.example"),
    "sets Authorization": setting(Authorization="Basic eDp5"),
    "sets Cookie": setting(Cookie="own=1"),
    "sets Connection": setting(Connection="close"),
    "sets Content-Length": setting(Content_Length="2"),
    "sets Content-Type": setting(Content_Type="text/x"),
    "clears": lambda run, params: params.headers.clear(),
}
CHANGE_CASES = (
    [
        case(
            f"trace {name} that {what}",
            post("/t", data=b"body", headers={"X-Own": "1"}, cookies={"c": "1"}),
            session=traced({name: action}),
        )
        for name in ("request_start", "request_headers_sent", "connection_create_start")
        for what, action in CHANGES.items()
        if name != "connection_create_start"
    ]
    + [
        case(
            f"trace {name} that {what} before a redirect",
            get("/t", headers={"X-Own": "1"}),
            HOPS,
            session=traced({name: action}),
        )
        for name in ("request_start", "request_headers_sent", "request_redirect", "request_end")
        for what, action in CHANGES.items()
        if what in ("adds", "replaces", "deletes", "sets Authorization", "sets Cookie")
    ]
    + [
        case(
            "trace change before a redirect to another origin",
            get("/t"),
            redirecting("302 F", "Location: @OTHER@/u"),
            session=traced({"request_redirect": setting(Authorization="Basic eDp5", Cookie="a=1", X_A="1")}),
            other=(FINAL,),
        ),
        case(
            "trace change of the session's headers",
            in_turn(get("/1"), get("/2")),
            PAIR,
            session=traced(
                {"request_start": setting(X_Default="changed", X_More="1")}, headers={"X-Default": "1"}
            ),
        ),
        case(
            "trace Authorization besides auth",
            get("/t", lambda run: {"auth": BasicAuth("u", "p")}),
            session=traced({"request_start": setting(Authorization="Basic eDp5")}),
            expect="ValueError",
            lane=ANY,
        ),
    ]
)


# Contexts and several configs


def several(run: Run) -> dict[str, Any]:
    tracer = Tracer(run)
    return {"trace_configs": [tracer.config("first"), tracer.config("second"), tracer.config("third")]}


def some_signals(run: Run) -> dict[str, Any]:
    """Configs that listen to different signals, and one that listens to none."""
    return {
        "trace_configs": [
            Tracer(run, only=["request_start", "request_end"]).config("ends"),
            Tracer(run, only=["request_headers_sent", "response_chunk_received"]).config("middle"),
            Tracer(run, only=[]).config("none"),
        ]
    }


class OwnContext(SimpleNamespace):
    """A context class of the caller."""


class OwnConfig(aiohttp.TraceConfig):
    """A config that makes its contexts itself."""

    def trace_config_ctx(self, trace_request_ctx: Any = None) -> Any:
        return SimpleNamespace(own=True, given=trace_request_ctx)


def with_config(make: Callable[[], aiohttp.TraceConfig]) -> Callable[[Run], dict[str, Any]]:
    return lambda run: {"trace_configs": [Tracer(run).config(make=make)]}


def own_signal(run: Run) -> dict[str, Any]:
    """One config with two receivers of each signal."""
    config = Tracer(run).config("one")
    second = Tracer(run).config("two")
    for name in SIGNALS:
        getattr(config, f"on_{name}").extend(getattr(second, f"on_{name}"))
    return {"trace_configs": [config]}


CONTEXT_CASES = [
    case(f"trace context {value!r}", get("/t", trace_request_ctx=value), expect=200)
    for value in (None, {"a": 1}, "text", 0, ("t",))
] + [
    case("trace several configs", post("/t", data=b"x"), session=several, expect=200),
    case("trace several configs over redirects", get("/t"), HOPS, session=several, expect=200),
    case("trace some signals", get("/t"), session=some_signals, expect=200),
    case("trace two receivers", post("/t", data=b"x"), session=own_signal, expect=200),
    case(
        "trace a context class",
        get("/t", trace_request_ctx=1),
        session=with_config(lambda: aiohttp.TraceConfig(OwnContext)),
    ),
    case("trace a config class", get("/t", trace_request_ctx=1), session=with_config(OwnConfig)),
    case("trace no configs", get("/t", trace_request_ctx=1), session={"trace_configs": []}, lane=ANY),
]


@table(CONNECTION_CASES)
async def test_connections(case: Case) -> None:
    await check(case)


@table(RETRY_CASES)
async def test_retries_on_a_stale_connection(case: Case) -> None:
    await check(case)


@table(REQUEST_CASES)
async def test_requests(case: Case) -> None:
    await check(case)


@table(BODY_CASES)
async def test_request_bodies(case: Case) -> None:
    await check(case)


@table(CONSUMING_CASES)
async def test_ways_of_reading(case: Case) -> None:
    await check(case)


@table(FRAMING_CASES)
async def test_answers(case: Case) -> None:
    await check(case)


@table(REDIRECT_CASES)
async def test_redirects(case: Case) -> None:
    await check(case)


@table(CHANGE_CASES)
async def test_headers_changed_by_handlers(case: Case) -> None:
    await check(case)


@table(CONTEXT_CASES)
async def test_contexts_and_several_configs(case: Case) -> None:
    await check(case)
