"""Middlewares as they use their handler: once, several times, not at all; failing, waiting, cancelled."""

import asyncio
import gc
import io
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from support.middlewares import Handler, Maker, Middleware, changing, in_request, in_session, look, look_at
from support.outcome import Case, Do, Run, Script
from support.scripted import Close, Expect, Pause, Reset, Send, Stall
from support.tracing import Tracer, raising

from .lanes import MIDDLEWARES, TRACING, beside_plain, lane_of
from .tables import answer, check, get, post, request, serve, table
from .test_middlewares import ANSWER, BODIES, OK_LINE, case, setting, with_body
from .test_tracing import STALE, in_turn, redirecting

BUSY = (Expect(), Send(answer("HTTP/1.1 503 Busy", "Set-Cookie: busy=1", body=b"busy")))
FINAL = (Expect(), Send(ANSWER))
PART = b"HTTP/1.1 503 Busy\r\nContent-Length: 10\r\n\r\npart"


def made(function: Callable[[Run, Any, Handler], Awaitable[Any]]) -> Maker:
    """A maker of a middleware that is given the run as well."""

    def make(run: Run) -> Middleware:
        async def middleware(req: Any, handler: Handler) -> Any:
            return await function(run, req, handler)

        return middleware

    return make


# Several calls


def again(after: Callable[[Any], Any], times: int = 3) -> Maker:
    """Call the handler until it is no longer busy; `after` is what becomes of each response."""

    async def repeat(run: Run, req: Any, handler: Handler) -> Any:
        for _ in range(times):
            run.see(look(req))
            resp = await handler(req)
            run.see(look_at(resp))
            if resp.status != 503:
                break
            if (awaitable := after(resp)) is not None:
                run.see(await awaitable)
        return resp

    return made(repeat)


AFTER: dict[str, Callable[[Any], Any]] = {
    "release": lambda resp: resp.release(),
    "close": lambda resp: resp.close(),
    "read": lambda resp: resp.read(),
    "nothing": lambda resp: None,
}
SENT = (
    "nothing",
    "bytes",
    "json",
    "a form",
    "a multipart form",
    "a stream",
    "a large stream",
    "a file",
    "a generator",
    "256 kB",
    "compressed bytes",
    "a compressed generator",
    "chunked bytes",
    "empty bytes",
)
CALL_CASES = (
    [
        case(
            f"again after {what}, {method}",
            request(method, "/m", in_request(again(after))),
            ((*BUSY, *BUSY, *FINAL),),
        )
        for what, after in AFTER.items()
        for method in ("GET", "POST", "HEAD")
        if method != "HEAD"
    ]
    + [
        case(
            f"again after {what} of a part",
            get("/m", in_request(again(after), timeout=lambda: aiohttp.ClientTimeout(total=0.3))),
            serve(PART, Stall()),
            hang_after=0.8,
        )
        for what, after in AFTER.items()
        if what != "nothing"
    ]
    + [
        case(
            f"again with {name}",
            post("/m", with_body(again(AFTER["release"]), BODIES[name])),
            ((*BUSY, *BUSY, *FINAL),),
        )
        for name in SENT
    ]
    + [
        case(
            "again and never done",
            post("/m", in_request(again(AFTER["release"]), data=lambda: b"x")),
            ((*BUSY, *BUSY, *BUSY),),
        ),
        case(
            "again, and redirected",
            post("/m", in_request(again(AFTER["release"]), data=lambda: b"x")),
            ((*BUSY, *redirecting("307 T", "Location: /u")[0][:2], *BUSY, *FINAL),),
        ),
        case(
            "again with another header",
            get(
                "/m",
                in_request(
                    again(AFTER["release"]),
                ),
            ),
            ((*BUSY, *FINAL),),
            session=in_session(changing(setting(X_Tag="1"))),
        ),
        case(
            "again within another",
            get("/m", in_request(again(AFTER["release"], 2), again(AFTER["read"], 2))),
            ((*BUSY, *BUSY, *BUSY, *FINAL),),
        ),
        case(
            "again with one slot",
            get("/m", in_request(again(AFTER["release"]))),
            ((*BUSY, *FINAL),),
            session=lambda run: {"connector": run.api.TCPConnector(limit=1)},
        ),
        case(
            "again over closed connections",
            get("/m", in_request(again(AFTER["read"]))),
            (*serve(answer("HTTP/1.1 503 B", "Connection: close"), Close()), (*FINAL,)),
        ),
    ]
)


def changed_between(change: Callable[[Run, Any], Any]) -> Maker:
    """Call the handler twice; the request is changed in between."""

    async def twice(run: Run, req: Any, handler: Handler) -> Any:
        first = await handler(req)
        run.see(look_at(first), await first.read(), look(req))
        if (awaitable := change(run, req)) is not None:
            await awaitable
        second = await handler(req)
        run.see(look_at(second), look(req))
        return second

    return made(twice)


BETWEEN: dict[str, Callable[[Run, Any], Any]] = {
    "Authorization": setting(Authorization="Bearer fresh"),
    "no headers of its own": setting(Content_Type=None, Accept=None),
    "another body": lambda run, req: req.update_body(b"another body"),
    "no body": lambda run, req: req.update_body(None),
    "a stream": lambda run, req: req.update_body(io.BytesIO(b"a stream")),
    "another path": lambda run, req: setattr(req, "url", req.url.with_path("/other")),
    "another method": lambda run, req: setattr(req, "method", "PUT"),
    "Connection close": setting(Connection="close"),
}
BETWEEN_CASES = [
    case(f"twice with {what} between, {name}", post("/m", with_body(changed_between(change), BODIES[name])))
    for what, change in BETWEEN.items()
    for name in ("nothing", "bytes", "json", "a stream", "a generator")
]


# Errors


def catching(*caught: type[BaseException], times: int = 3) -> Maker:
    """Call the handler again when it raises."""

    async def catch(run: Run, req: Any, handler: Handler) -> Any:
        for attempt in itertools.count(1):
            try:
                resp = await handler(req)
                run.see(look_at(resp))
                return resp
            except caught as exc:
                run.see(exc, look(req))
                if attempt == times:
                    raise

    return made(catch)


def raising_before(make: Callable[[], BaseException]) -> Maker:
    async def refuse(run: Run, req: Any, handler: Handler) -> Any:
        raise make()

    return made(refuse)


def raising_after(make: Callable[[], BaseException], how: Callable[[Any], Any] = AFTER["nothing"]) -> Maker:
    async def refuse(run: Run, req: Any, handler: Handler) -> Any:
        resp = await handler(req)
        run.see(look_at(resp))
        if (awaitable := how(resp)) is not None:
            run.see(await awaitable)
        raise make()

    return made(refuse)


def at_path(path: str, make: Callable[[], BaseException]) -> Maker:
    """Raise for one path alone."""

    async def refuse(run: Run, req: Any, handler: Handler) -> Any:
        if req.url.path == path:
            raise make()
        return await handler(req)

    return made(refuse)


ERRORS: dict[str, Callable[[], BaseException]] = {
    "LookupError": lambda: LookupError("the middleware"),
    "OSError": lambda: OSError(5, "the middleware"),
    "OSError without errno": lambda: OSError("the middleware"),
    "TimeoutError": lambda: asyncio.TimeoutError("the middleware"),
    "ServerDisconnectedError": lambda: aiohttp.ServerDisconnectedError("the middleware"),
    "ClientOSError": lambda: aiohttp.ClientOSError(7, "the middleware"),
    "ClientError": lambda: aiohttp.ClientError("the middleware"),
    "InvalidURL": lambda: aiohttp.InvalidURL("the middleware"),
    "CancelledError": lambda: asyncio.CancelledError("the middleware"),
}


def telling(do: Do) -> Do:
    """Tell of any end, also of a cancellation."""

    async def told(run: Run) -> Any:
        try:
            return await do(run)
        except asyncio.CancelledError as exc:
            return [type(exc), exc.args]

    return told


FAILURES: dict[str, Script] = {
    "closed": (*serve(Close()), *serve(Close())),
    "reset": serve(Reset()),
    "closed in the head": serve(b"HTTP/1.1 200 OK\r\nX", Close()),
    "malformed": serve(b"rubbish\r\n\r\n", Close()),
}
ERROR_CASES = (
    [
        case(
            f"raises {name} before, {method}",
            telling(request(method, "/m", in_request(raising_before(make)))),
        )
        for name, make in ERRORS.items()
        for method in ("GET", "POST")
    ]
    + [
        case(
            f"raises {name} after {what}, {method}",
            telling(request(method, "/m", in_request(raising_after(make, how)))),
            (FINAL, FINAL),
        )
        for name, make in ERRORS.items()
        for what, how in AFTER.items()
        for method in ("GET", "POST")
        if what in ("nothing", "read") or name == "LookupError"
    ]
    + [
        case(
            f"raises after a part and {what}",
            get("/m", in_request(raising_after(ERRORS["LookupError"], how))),
            serve(PART, Stall()),
            hang_after=0.3,
        )
        for what, how in AFTER.items()
        if what != "nothing"
    ]
    + [
        case(
            f"catches {what}, {method} of {name}",
            request(method, "/m", with_body(catching(aiohttp.ClientError), BODIES[name])),
            script,
        )
        for what, script in FAILURES.items()
        for method in ("GET", "POST")
        for name in ("nothing", "bytes", "a stream", "a generator")
        if method == "POST" or name == "nothing"
    ]
    + [
        case(
            "catches a stale connection",
            in_turn(get("/1"), get("/2", in_request(catching(aiohttp.ClientError)))),
            STALE,
            lane=beside_plain(MIDDLEWARES),
        ),
        case(
            "sees no refusal as stale", lambda run: refused(run), expect="ClientConnectorError", probe=False
        ),
        case(
            "raises in the second of three",
            get("/m", in_request(catching(LookupError), raising_after(ERRORS["LookupError"]), changing())),
        ),
        case(
            "raises over a redirect",
            get("/m"),
            redirecting("302 F", "Location: /u"),
            session=in_session(at_path("/u", ERRORS["LookupError"])),
        ),
    ]
)


async def refused(run: Run) -> Any:
    run.server.stop_listening()
    return await get("/m", in_request(catching(aiohttp.ClientError, times=2)))(run)


STALE_CASES = [
    case(
        f"stale connection, {method} with {name}",
        in_turn(get("/1"), request(method, "/2", lambda run, name=name: BODIES[name]())),
        STALE,
        session=in_session(catching(aiohttp.ClientPayloadError), changing(setting(X_Tag="1"))),
    )
    for method in ("GET", "PUT", "POST")
    # Not a large body: whether its writing or the reading meets the reset first is a race.
    for name in ("nothing", "bytes", "a stream", "a generator")
] + [
    case(
        f"stale connection and body becomes {name}",
        in_turn(get("/1"), request("PUT", "/2", lambda run: {"data": b"old"})),
        STALE,
        session=in_session(changing(lambda run, req, name=name: req.update_body(BODIES[name]()["data"]))),
        wire=False,
    )
    for name in ("bytes", "a stream", "a generator")
]


# Other responses, and other requests


async def answering(run: Run, req: Any, handler: Handler) -> Any:
    """Answer with the response of another request of the session."""
    return await run.session.get(run.url("/else"), middlewares=())


async def answering_later(run: Run, req: Any, handler: Handler) -> Any:
    run.kept = await handler(req)  # type: ignore[attr-defined] - lest it be collected
    run.see(run.kept.status)  # type: ignore[attr-defined]
    return await run.session.post(run.url("/else"), data=b"x", middlewares=())


async def fetching(run: Run, req: Any, handler: Handler) -> Any:
    """Ask for a token first."""
    async with req.session.get(run.url("/token"), middlewares=()) as resp:
        req.headers["Authorization"] = "Bearer " + await resp.text()
    return await handler(req)


async def recursing(run: Run, req: Any, handler: Handler) -> Any:
    if req.url.path != "/inner":
        async with req.session.get(run.url("/inner")) as resp:
            run.see(await resp.read())
    return await handler(req)


async def reading(run: Run, req: Any, handler: Handler) -> Any:
    resp = await handler(req)
    run.see(await resp.read(), resp.closed)
    return resp


async def reading_a_part(run: Run, req: Any, handler: Handler) -> Any:
    resp = await handler(req)
    run.see(await resp.content.readexactly(2))
    return resp


async def closing(run: Run, req: Any, handler: Handler) -> Any:
    resp = await handler(req)
    resp.close()
    return resp


async def releasing(run: Run, req: Any, handler: Handler) -> Any:
    resp = await handler(req)
    resp.release()
    return resp


async def entering(run: Run, req: Any, handler: Handler) -> Any:
    async with await handler(req) as resp:
        run.see(resp.status)
    return resp


async def returning_none(run: Run, req: Any, handler: Handler) -> Any:
    return None


async def keeping_the_first(run: Run, req: Any, handler: Handler) -> Any:
    first = await handler(req)
    second = await handler(req)
    run.see(await second.read())
    return first


async def at_the_same_time(run: Run, req: Any, handler: Handler) -> Any:
    """Two calls at once, each of its own request; the first is returned."""
    first, second = await asyncio.gather(handler(req), run.session.get(run.url("/b"), middlewares=()))
    run.see(await second.read())
    return first


async def in_a_task(run: Run, req: Any, handler: Handler) -> Any:
    return await asyncio.ensure_future(handler(req))


async def with_a_new_request(run: Run, req: Any, handler: Handler) -> Any:
    new = aiohttp.ClientRequest(
        "PUT", req.url.with_path("/new"), data=b"new", loop=asyncio.get_running_loop(), session=run.session
    )
    resp = await handler(new)
    run.see(look(new), look_at(resp))
    return resp


async def noting_headers(run: Run, req: Any, handler: Handler) -> Any:
    """`request_info` shows the headers of the request as they are now."""
    resp = await handler(req)
    req.headers["X-Late"] = "1"
    run.see(resp.request_info.headers)
    return resp


async def setting_cookies(run: Run, req: Any, handler: Handler) -> Any:
    resp = await handler(req)
    resp.cookies["made"] = "1"
    return resp


FUNCTIONS = (
    answering,
    answering_later,
    fetching,
    recursing,
    reading,
    reading_a_part,
    closing,
    releasing,
    entering,
    returning_none,
    keeping_the_first,
    at_the_same_time,
    in_a_task,
    with_a_new_request,
    noting_headers,
    setting_cookies,
)
COOKIES = answer(OK_LINE, "Set-Cookie: s=1", body=b"answered")
USE_CASES = [
    case(
        f"{function.__name__}, {what}",
        request("POST" if data else "GET", "/m", {"data": data}),
        script,
        session=in_session(made(function)),
        hang_after=1.0,
        # Which of two calls at once gets which connection is a race.
        wire=function is not at_the_same_time,
        # Who dials here takes a connection that is freed first, so there may be fewer.
        ignore=("connections",) if function is at_the_same_time else (),
    )
    for function in FUNCTIONS
    for what, data, script in (
        ("GET", None, ((*[Expect(), Send(COOKIES)] * 4,),) * 2),
        ("POST", b"body", ((*[Expect(), Send(COOKIES)] * 4,),) * 2),
        (
            "in two pieces",
            None,
            ((*[Expect(), Send(COOKIES[:-4]), Pause(0.01), Send(COOKIES[-4:])] * 4,),) * 2,
        ),
        (
            "redirected",
            None,
            (
                (*redirecting("302 F", "Location: /u")[0], *[Expect(), Send(COOKIES)] * 4),
                (*[Expect(), Send(COOKIES)] * 4,),
            ),
        ),
    )
    # And so is which of them gets the connection that redirects.
    if what != "redirected" or function is not at_the_same_time
]


# Timeouts and cancellation

SHORT = 0.06


def waiting(seconds: float, *, before: bool = True, swallow: bool = False) -> Maker:
    async def wait(run: Run, req: Any, handler: Handler) -> Any:
        resp = None if before else await handler(req)
        run.server.event("inside").set()
        try:
            await asyncio.sleep(seconds)
        except BaseException as exc:
            run.see([type(exc), exc.args])
            if not swallow:
                raise
        return await handler(req) if resp is None else resp

    return made(wait)


def timed(maker: Maker, **limits: Any) -> Any:
    return in_request(maker, timeout=lambda: aiohttp.ClientTimeout(**limits))


TIMEOUT_CASES = (
    [
        case(
            f"{limit} in a middleware {when}",
            get("/m", timed(waiting(0.2, before=when == "before"), **{limit: SHORT})),
            hang_after=0.6,
        )
        for limit in ("total", "connect", "sock_read")
        for when in ("before", "after")
    ]
    + [
        case(
            f"{limit} swallowed {when}",
            get("/m", timed(waiting(0.2, before=when == "before", swallow=True), **{limit: SHORT})),
            hang_after=0.6,
            wire=False,
            probe=False,
        )
        for limit in ("total",)
        for when in ("before", "after")
    ]
    + [
        case(
            f"{limit} {where}, caught",
            get("/m", timed(catching(asyncio.TimeoutError, times=2), **{limit: SHORT})),
            script,
            hang_after=0.6,
            wire=False,
        )
        for limit in ("total", "sock_read")
        for where, script in (
            ("before the head", (*serve(Stall()), *serve(Stall()))),
            ("once before the head", serve(Stall())),
            ("within the body", serve(PART, Stall())),
        )
    ]
    + [
        case(
            f"{limit} {where}, not caught",
            post("/m", timed(changing(), **{limit: SHORT})),
            script,
            hang_after=0.6,
        )
        for limit in ("total", "sock_read")
        for where, script in (("before the head", serve(Stall())), ("within the body", serve(PART, Stall())))
    ]
)


def cancelled(maker: Maker, method: str = "GET", **more: Any) -> Do:
    """Cancel the request once the middleware is where it is to be."""

    async def do(run: Run) -> Any:
        task = asyncio.ensure_future(request(method, "/m", in_request(maker, **more))(run))
        await asyncio.wait_for(run.server.event("inside").wait(), 2)
        await asyncio.sleep(0.01)
        task.cancel("by the test")
        results = await asyncio.gather(task, return_exceptions=True)
        return results[0]

    return do


async def calling(run: Run, req: Any, handler: Handler) -> Any:
    run.server.event("inside").set()
    try:
        return await handler(req)
    except BaseException as exc:
        run.see([type(exc), exc.args])
        raise


async def calling_again(run: Run, req: Any, handler: Handler) -> Any:
    run.server.event("inside").set()
    try:
        return await handler(req)
    except asyncio.CancelledError:
        return await handler(req)


CANCELLED_CASES = [
    case("cancelled before", cancelled(waiting(5))),
    case("cancelled after", cancelled(waiting(5, before=False))),
    case("cancelled and swallowed before", cancelled(waiting(5, swallow=True)), probe=False),
    case("cancelled and swallowed after", cancelled(waiting(5, before=False, swallow=True))),
    case("cancelled in the handler", cancelled(made(calling)), serve(Stall())),
    case(
        "cancelled in the handler of a POST",
        cancelled(made(calling), "POST", data=lambda: b"x"),
        serve(Stall()),
    ),
    case("cancelled in the handler, again", cancelled(made(calling_again)), serve(Stall())),
    case("cancelled in the handler within the head", cancelled(made(calling)), serve(b"HTTP/1.1 2", Stall())),
]


def left_to_the_collector(do: Do) -> Do:
    """Let nothing refer to the response that nobody closed, then ask again."""

    async def leave(run: Run) -> Any:
        try:
            await do(run)
        except BaseException as exc:
            run.see(type(exc))
        gc.collect()
        await asyncio.sleep(0.01)
        return await get("/after")(run)

    return leave


LEFT: dict[str, Do] = {
    "called again": get("/m", in_request(again(AFTER["nothing"], 2))),
    "raised": get("/m", in_request(raising_after(ERRORS["LookupError"]))),
    "cancelled": cancelled(waiting(5, before=False)),
}
LEFT_CASES = [
    case(
        f"{what} with a part left unread",
        left_to_the_collector(do),
        (*serve(PART, Stall()), FINAL, FINAL),
        session=lambda run: {"connector": run.api.TCPConnector(limit=2)},
        ignore=("warnings", "warned_at", "loop_errors"),
        lane=beside_plain(MIDDLEWARES),
    )
    for what, do in LEFT.items()
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@table(LEFT_CASES)
async def test_response_that_nobody_closes(case: Case) -> None:
    """aiohttp warns of the connection when it is collected."""
    await check(case)


@table(CALL_CASES)
async def test_several_calls(case: Case) -> None:
    await check(case)


@table(BETWEEN_CASES)
async def test_change_between_calls(case: Case) -> None:
    await check(case)


@table(ERROR_CASES)
async def test_errors(case: Case) -> None:
    await check(case)


@table(STALE_CASES)
async def test_stale_connection(case: Case) -> None:
    await check(case)


@table(USE_CASES)
async def test_uses_of_the_handler(case: Case) -> None:
    await check(case)


@table(TIMEOUT_CASES)
async def test_timeouts(case: Case) -> None:
    await check(case)


@table(CANCELLED_CASES)
async def test_cancellation(case: Case) -> None:
    await check(case)


# aiohttp's own middleware

CHALLENGE = 'WWW-Authenticate: Digest realm="r", nonce="n{}", qop="{}", algorithm={}, opaque="o"'


def challenged(
    nonce: int = 1, qop: str = "auth", algorithm: str = "MD5", body: bytes = b"who"
) -> tuple[Any, ...]:
    lines = ("HTTP/1.1 401 Who", CHALLENGE.format(nonce, qop, algorithm))
    return (Expect(), Send(answer(*lines, body=body)))


def digest(**more: Any) -> Maker:
    return lambda run: aiohttp.DigestAuthMiddleware("user", "secret", **more)


DIGEST_CASES = [
    case(
        f"digest {qop} {algorithm} with {name}",
        post("/m?q=1", with_body(digest(), BODIES[name])),
        ((*challenged(1, qop, algorithm), *FINAL),),
    )
    for qop, algorithm in (("auth", "MD5"), ("auth-int", "SHA-256"), ("", "MD5-sess"))
    for name in ("nothing", "bytes", "json", "a form", "a stream", "a generator")
] + [
    case(
        "digest again",
        in_turn(get("/1"), get("/2"), get("/3")),
        ((*challenged(), *FINAL, *FINAL, *FINAL),),
        session=in_session(digest()),
    ),
    case(
        "digest not preemptive",
        in_turn(get("/1"), get("/2")),
        ((*challenged(), *FINAL, *challenged(2), *FINAL),),
        session=in_session(digest(preemptive=False)),
    ),
    case("digest refused", get("/m", in_request(digest())), ((*challenged(), *challenged(2)),)),
    case(
        "digest stale",
        in_turn(get("/1"), get("/2")),
        ((*challenged(), *FINAL, *challenged(2), *FINAL),),
        session=in_session(digest()),
    ),
    case(
        "digest redirected",
        get("/m", in_request(digest())),
        ((*challenged(), *redirecting("302 F", "Location: /u")[0]),),
    ),
    case("digest not asked for", get("/m", in_request(digest()))),
    case(
        "digest not of a kind",
        get("/m", in_request(digest())),
        serve(answer("HTTP/1.1 401 Who", "WWW-Authenticate: Basic realm=x")),
    ),
    case(
        "digest over one slot",
        get("/m", in_request(digest())),
        ((*challenged(), *FINAL),),
        session=lambda run: {"connector": run.api.TCPConnector(limit=1)},
    ),
    case(
        "digest with another middleware",
        get("/m", in_request(changing(setting(X_Tag="1")), digest())),
        ((*challenged(), *FINAL),),
    ),
]


@table(DIGEST_CASES)
async def test_digest(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's nonce is made of the time and of random bytes: both are held still."""
    module = aiohttp.client_middleware_digest_auth
    monkeypatch.setattr(module, "os", type("os", (), {"urandom": staticmethod(bytes)}))
    monkeypatch.setattr(module, "time", type("time", (), {"ctime": staticmethod(lambda: "now")}))
    await check(case)


# With traces

TRACED = lane_of(MIDDLEWARES, TRACING)


def traced_and(*makers: Maker, actions: Any = None) -> Callable[[Run], dict[str, Any]]:
    return lambda run: {
        "trace_configs": [Tracer(run, actions).config()],
        "middlewares": tuple(make(run) for make in makers),
    }


TRACED_CASES = [
    case("and traces", post("/m", data=b"x"), session=traced_and(changing(setting(X_Tag="1"))), lane=TRACED),
    case(
        "and traces of a retry",
        in_turn(get("/1"), get("/2")),
        STALE,
        session=traced_and(changing(setting(X_Tag="1"))),
        lane=TRACED,
    ),
    case(
        "and traces of several calls",
        post("/m", data=b"x"),
        ((*BUSY, *BUSY, *FINAL),),
        session=traced_and(again(AFTER["read"])),
        lane=TRACED,
    ),
    case(
        "and traces of a redirect",
        post("/m", data=b"x"),
        redirecting("307 T", "Location: /u"),
        session=traced_and(changing(setting(X_Tag="1"))),
        lane=TRACED,
    ),
    case(
        "and traces of another body",
        post("/m", data=b"x"),
        session=traced_and(changing(lambda run, req: req.update_body(b"other"))),
        lane=TRACED,
    ),
    case(
        "and traces of another url",
        post("/m", data=b"x"),
        session=traced_and(changing(lambda run, req: setattr(req, "url", req.url / "more"))),
        lane=TRACED,
    ),
    case(
        "and traces of another method",
        get("/m"),
        session=traced_and(changing(lambda run, req: setattr(req, "method", "PUT"))),
        lane=TRACED,
    ),
    case(
        "and traces of an error",
        get("/m"),
        session=traced_and(raising_before(ERRORS["LookupError"])),
        lane=TRACED,
    ),
    case(
        "and traces of an error after",
        get("/m"),
        session=traced_and(raising_after(ERRORS["LookupError"])),
        lane=TRACED,
    ),
    case("and traces of reading", get("/m"), session=traced_and(made(reading)), lane=TRACED),
    case("and traces of another request", get("/m"), (), session=traced_and(made(fetching)), lane=TRACED),
    case(
        "and traces of a new request",
        get("/m"),
        (),
        session=traced_and(made(with_a_new_request)),
        lane=TRACED,
    ),
    case(
        "and a trace that raises",
        post("/m", data=b"x"),
        (),
        session=traced_and(
            catching(LookupError, times=2), actions={"request_headers_sent": raising(ERRORS["LookupError"])}
        ),
        lane=TRACED,
    ),
]


@table(TRACED_CASES)
async def test_traces(case: Case) -> None:
    await check(case)


async def test_response_that_is_not_returned_gives_its_connection_back() -> None:
    """Two calls over one slot: the first response is read, the second takes its connection."""

    def session(run: Run) -> dict[str, Any]:
        return {**in_session(made(keeping_the_first))(run), "connector": run.api.TCPConnector(limit=1)}

    outcome = await check(case("one slot", get("/m"), (), session=session))
    assert outcome["connections"] == 1


async def test_slots_are_free_after_failures() -> None:
    """Every way of failing, one after the other, over one slot."""

    def session(run: Run) -> dict[str, Any]:
        return {"connector": run.api.TCPConnector(limit=1)}

    async def do(run: Run) -> Any:
        seen = []
        for make in ERRORS.values():
            for maker in (raising_before(make), raising_after(make), raising_after(make, AFTER["read"])):
                timeout = run.api.ClientTimeout(total=1)
                results = await asyncio.gather(
                    post("/m", in_request(maker), data=b"x", timeout=timeout)(run), return_exceptions=True
                )
                seen.append(type(results[0]))
        return seen

    await check(case("slots", do, (), session=session))
