"""`UploadTracker`: attempts, bytes and outcome of an upload, step by step, over every way of ending."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.middlewares import changing, in_session
from support.outcome import ANY, Case, Do, Run, Script
from support.scripted import (
    Await,
    Close,
    Expect,
    ExpectBytes,
    ExpectHead,
    Pause,
    Reset,
    Send,
    Stall,
    StopReading,
    tick,
)
from support.tracing import Tracer, raising

from .lanes import EXPECT_100, MIDDLEWARES, TRACING, UPLOAD_TRACKER, beside_plain, lane_of
from .tables import agen, answer, check, get, post, serve, table
from .test_middleware_calls import AFTER, BUSY, ERRORS, again, catching, made, raising_before
from .test_middlewares import setting
from .test_tracing import BODIES, STALE, redirecting

LANE = UPLOAD_TRACKER
OK_LINE = "HTTP/1.1 200 OK"
ANSWER = answer(OK_LINE, body=b"uploaded")
FINAL = (Expect(), Send(ANSWER))
SHORT = 0.06


def case(id: str, do: Do, script: Script = serve(ANSWER), **more: Any) -> Case:  # noqa: B008 - a constant
    more.setdefault("lane", LANE)
    more.setdefault("hang_after", 1.0)
    return Case(f"tracker {id}", do, script, **more)


def state(tracker: Any) -> list[Any]:
    """All that a tracker tells: what is pending, what was sent, how it ended."""
    future = tracker.upload_complete
    outcome: Any = "pending"
    if future.cancelled():
        outcome = "cancelled"
    elif future.done():
        outcome = future.exception()
    return [tracker.attempts, tracker.bytes_written, outcome]


Make = Callable[[], dict[str, Any]]


def tracked(make: Make, method: str = "POST", path: str = "/t", *, how: str = "read", **more: Any) -> Do:
    """A request with a tracker, whose state is told before, at the head, after the body, and a while later.

    The loop turns before the state is looked at: the writer of a body that is cut short hears
    of it in a turn of its own.
    """

    async def do(run: Run) -> Any:
        tracker = aiohttp.UploadTracker()
        run.tracker = tracker  # type: ignore[attr-defined]
        run.see(state(tracker))
        options = {name: value(run) if callable(value) else value for name, value in more.items()}
        try:
            resp = await run.session.request(
                method, run.url(path), upload_tracker=tracker, **make(), **options
            )
            await tick()
            run.see(resp.status, state(tracker))
            if how == "read":
                run.see(await resp.read(), state(tracker))
            elif how == "close":
                resp.close()
            elif how == "exit":
                async with resp:
                    pass
            else:
                resp.release()
            run.see(state(tracker))
        except BaseException as exc:
            await tick()
            run.see(exc, state(tracker))
        await asyncio.sleep(0.01)
        return state(tracker)

    return do


def limited(**limits: Any) -> Any:
    return {"timeout": lambda run: run.api.ClientTimeout(**limits)}


def sent(name: str) -> Make:
    return BODIES[name]


def data(value: Callable[[], Any]) -> Make:
    return lambda: {"data": value()}


BODY_CASES = (
    [
        case(f"{method} of {name}", tracked(make, method))
        for name, make in BODIES.items()
        for method in ("POST", "GET")
        if method == "POST" or name in ("nothing", "bytes", "empty bytes", "a generator", "chunked nothing")
    ]
    + [
        case(f"answer and {how}", tracked(sent(name), how=how))
        for how in ("close", "exit", "release")
        for name in ("bytes",)
    ]
    + [
        case(
            "Content-Length too large",
            tracked(lambda: {"data": b"body", "headers": {"Content-Length": "9"}}),
            ((ExpectHead(), Send(ANSWER), Stall()),),
            probe=False,
        ),
        case(
            "Content-Length too small",
            tracked(lambda: {"data": b"body", "headers": {"Content-Length": "2"}}),
            ((ExpectHead(), Send(ANSWER), Stall()),),
            probe=False,
        ),
        case(
            "a generator beyond its length",
            tracked(lambda: {"data": agen(b"abc", b"defg"), "headers": {"Content-Length": "5"}}),
        ),
        case("HEAD", tracked(sent("nothing"), "HEAD"), serve(answer(OK_LINE))),
        case("of HTTP/1.0", tracked(sent("bytes")), session={"version": aiohttp.HttpVersion10}),
        case("over TLS", tracked(sent("256 kB"), ssl=False), scheme="https"),
        case("error status", tracked(sent("bytes"), raise_for_status=True), serve(answer("HTTP/1.1 500 Oh"))),
        case("None", post("/t", data=b"x", upload_tracker=None), lane=ANY),
    ]
)


# Progress


def stepping(*pieces: bytes, chunk: Callable[[bytes], bytes] = bytes) -> Do:
    """A generator that tells the state each time it is asked for a piece."""

    async def do(run: Run) -> Any:
        tracker = aiohttp.UploadTracker()

        async def steps() -> AsyncIterator[bytes]:
            for piece in pieces:
                await asyncio.sleep(0.002)
                run.see(state(tracker))
                yield chunk(piece)
            run.see(state(tracker))

        async with run.session.post(run.url("/t"), data=steps(), upload_tracker=tracker) as resp:
            run.see(await resp.read())
        return state(tracker)

    return do


async def compressed_steps(run: Run) -> Any:
    tracker = aiohttp.UploadTracker()

    async def steps() -> AsyncIterator[bytes]:
        for piece in (b"a" * 1000, b"b" * 1000):
            await asyncio.sleep(0.002)
            run.see(state(tracker)[0])
            yield piece

    async with run.session.post(run.url("/t"), data=steps(), upload_tracker=tracker, compress=True) as resp:
        await resp.read()
    return state(tracker)


async def held_up(run: Run) -> Any:
    """The server does not read: what was written is less than all, and grows no more."""
    tracker = aiohttp.UploadTracker()
    size = 16_000_000
    task = asyncio.ensure_future(run.session.post(run.url("/t"), data=b"x" * size, upload_tracker=tracker))
    await asyncio.sleep(0.1)
    run.see(tracker.attempts, 0 < tracker.bytes_written < size, tracker.upload_complete.done())
    task.cancel()
    results = await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(0.01)
    return [type(results[0]), 0 < tracker.bytes_written < size, state(tracker)[2]]


async def awaited(run: Run) -> Any:
    """`upload_complete` may be waited for by another task."""
    tracker = aiohttp.UploadTracker()
    waiter = asyncio.ensure_future(asyncio.wait_for(tracker.upload_complete, 1))
    async with run.session.post(run.url("/t"), data=agen(b"a", b"b"), upload_tracker=tracker) as resp:
        await resp.read()
    return [await waiter, state(tracker)]


async def answered_early(run: Run) -> Any:
    """The answer comes while the generator has more to give; then it goes on."""
    tracker = aiohttp.UploadTracker()
    gate = asyncio.Event()

    async def steps() -> AsyncIterator[bytes]:
        yield b"first"
        await gate.wait()
        yield b"second"

    resp = await run.session.post(run.url("/t"), data=steps(), upload_tracker=tracker)
    run.see(resp.status, state(tracker))
    gate.set()
    await asyncio.sleep(0.01)
    run.see(state(tracker))
    run.server.event("go").set()
    run.see(await resp.read())
    return state(tracker)


PART = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
EARLY: Script = ((ExpectHead(), Pause(0.01), Send(PART), Await("go"), Send(b"late"), Stall()),)


def abandoned(how: Callable[[Any], Any]) -> Do:
    """The answer comes early and the caller has no use for it."""

    async def do(run: Run) -> Any:
        tracker = aiohttp.UploadTracker()

        async def steps() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.sleep(5)

        resp = await run.session.post(run.url("/t"), data=steps(), upload_tracker=tracker)
        await tick()
        run.see(resp.status, state(tracker))
        how(resp)
        await tick()
        run.see(state(tracker))
        await asyncio.sleep(0.01)
        return state(tracker)

    return do


PROGRESS_CASES = [
    case("steps", stepping(b"one", b"two", b"three")),
    case("steps of other types", stepping(b"one", b"two", chunk=bytearray)),
    case("steps of views", stepping(b"one", b"two", chunk=memoryview)),
    case("steps of 100 kB", stepping(*[b"x" * 100_000] * 5), ignore=("seen",)),
    case("compressed steps", compressed_steps),
    case("held up", held_up, ((ExpectHead(), StopReading()),), wire=False, probe=False),
    case("awaited", awaited),
    case("answered early", answered_early, EARLY, probe=False),
    case(
        "answered early and closed",
        abandoned(lambda resp: resp.close()),
        ((ExpectHead(), Pause(0.01), Send(PART), Stall()),),
    ),
    case(
        "answered early and released",
        abandoned(lambda resp: resp.release()),
        ((ExpectHead(), Pause(0.01), Send(PART), Stall()),),
    ),
    case(
        "answered early in full",
        abandoned(lambda resp: None),
        ((ExpectHead(), Pause(0.01), Send(ANSWER), Stall()),),
    ),
    case(
        "answered early, then a close",
        abandoned(lambda resp: None),
        ((ExpectHead(), Pause(0.01), Send(answer("HTTP/1.1 413 No", "Connection: close")), Close()),),
    ),
]


# Attempts


async def broken() -> AsyncIterator[bytes]:
    yield b"first"
    raise LookupError("the source broke")


async def broken_by_the_system() -> AsyncIterator[bytes]:
    yield b"first"
    raise OSError(5, "the source broke")


async def slow() -> AsyncIterator[bytes]:
    yield b"first"
    await asyncio.sleep(5)


def after_another(do: Do) -> Do:
    async def both(run: Run) -> Any:
        run.see(await get("/1")(run))
        return await do(run)

    return both


REPEATED = (
    "nothing",
    "bytes",
    "a stream",
    "a form",
    "a generator",
    "256 kB",
    "compressed bytes",
    "chunked bytes",
)
ATTEMPT_CASES = (
    [
        case(f"redirect {status} of {name}", tracked(sent(name)), redirecting(f"{status} M", "Location: /u"))
        for status in (302, 303, 307)
        for name in REPEATED
    ]
    + [
        case(
            f"stale connection, {method} of {name}",
            after_another(tracked(sent(name), method)),
            STALE,
            lane=beside_plain(LANE),
            wire=name != "256 kB",
        )
        for method in ("PUT", "POST")
        for name in REPEATED
    ]
    + [
        case(f"failure by {what}", tracked(sent("bytes"), how="read"), script)
        for what, script in {
            "close": serve(Close()),
            "reset": serve(Reset()),
            "rubbish": serve(b"rubbish\r\n\r\n", Close()),
            "a part and close": serve(PART, Close()),
            "two closes": (*serve(Close()), *serve(Close())),
        }.items()
    ]
    + [
        case("a generator that raises", tracked(data(broken)), wire=False),
        case("a generator that raises OSError", tracked(data(broken_by_the_system)), wire=False),
        case("a generator of str", tracked(lambda: {"data": agen("text")}), wire=False),
        case("data of a bad type", tracked(lambda: {"data": 5})),
        case("data and json", tracked(lambda: {"data": b"x", "json": 1}), lane=ANY),
        case("a bad header", tracked(lambda: {"data": b"x", "headers": {"X": "a\r\nb"}}), silent=True),
        case(
            "too many redirects",
            tracked(sent("bytes"), max_redirects=1),
            redirecting("307 M", "Location: /u"),
        ),
        case("consumed by a redirect", tracked(sent("a generator")), redirecting("307 M", "Location: /u")),
        case("close during the upload", tracked(data(slow)), ((ExpectHead(), Close()),), wire=False),
        case("total during the upload", tracked(data(slow), **limited(total=SHORT))),
        case("total before the head", tracked(sent("bytes"), **limited(total=SHORT)), serve(Stall())),
        case("sock_read before the head", tracked(sent("bytes"), **limited(sock_read=SHORT)), serve(Stall())),
        case("total within the answer", tracked(sent("bytes"), **limited(total=SHORT)), serve(PART, Stall())),
        case("refused connection", lambda run: refused(run), probe=False),
        case("closed session", lambda run: on_a_closed_session(run), lane=ANY),
        case("bad URL", lambda run: no_request(run, "http://[::x/"), lane=ANY),
        case("no host", lambda run: no_request(run, "http:///x"), lane=ANY),
        case("another scheme", lambda run: no_request(run, "ftp://x/"), lane=ANY),
        case("used again", lambda run: twice(run), lane=ANY),
        case("used by two at once", lambda run: at_once(run), lane=ANY),
        case(
            "used again after a failure",
            lambda run: twice(run, raise_for_status=True),
            serve(answer("HTTP/1.1 500 Oh")),
            lane=ANY,
        ),
    ]
)


async def refused(run: Run) -> Any:
    run.server.stop_listening()
    return await tracked(sent("bytes"))(run)


async def on_a_closed_session(run: Run) -> Any:
    await run.session.close()
    return await tracked(sent("bytes"))(run)


async def no_request(run: Run, url: str) -> Any:
    tracker = aiohttp.UploadTracker()
    results = await asyncio.gather(
        run.session._request("POST", url, data=b"x", upload_tracker=tracker), return_exceptions=True
    )
    return [results, state(tracker)]


async def twice(run: Run, **more: Any) -> Any:
    tracker = aiohttp.UploadTracker()
    for path in ("/1", "/2"):
        try:
            async with run.session.post(run.url(path), data=b"body", upload_tracker=tracker, **more) as resp:
                run.see(await resp.read())
        except Exception as exc:
            run.see(exc)
        run.see(state(tracker))


async def at_once(run: Run) -> Any:
    tracker = aiohttp.UploadTracker()
    requests = [
        run.session._request("POST", run.url(path), data=b"body", upload_tracker=tracker)
        for path in ("/1", "/2")
    ]
    results = await asyncio.gather(*requests, return_exceptions=True)
    for resp in results:
        if isinstance(resp, aiohttp.ClientResponse):
            run.see(await resp.read())
    return [isinstance(results[0], Exception), results[1], state(tracker)]


# With expect100, middlewares and traces

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WAITING = (ExpectHead(), Pause(0.01))
EXPECTING = lane_of(UPLOAD_TRACKER, EXPECT_100)
WITH_MIDDLEWARES = lane_of(UPLOAD_TRACKER, MIDDLEWARES)
WITH_TRACES = lane_of(UPLOAD_TRACKER, TRACING)


async def starting_a_request(run: Run, req: Any, handler: Any) -> Any:
    """A request of the middleware's own has no tracker."""
    run.see(req._upload_tracker is run.tracker)  # type: ignore[attr-defined]
    async with run.session.post(run.url("/own"), data=b"own body", middlewares=()) as resp:
        run.see(await resp.read(), state(run.tracker))  # type: ignore[attr-defined]
    return await handler(req)


async def after_one_call(run: Run, req: Any, handler: Any) -> Any:
    resp = await handler(req)
    run.see(state(run.tracker))  # type: ignore[attr-defined]
    return resp


async def never_calling(run: Run, req: Any, handler: Any) -> Any:
    return await run.session.get(run.url("/other"), middlewares=())


def tracing(actions: Any = None) -> Any:
    def make(run: Run) -> dict[str, Any]:
        def look(run: Run, params: Any) -> None:
            run.see(state(run.tracker))  # type: ignore[attr-defined]

        return {"trace_configs": [Tracer(run, actions or {"*": look}).config()]}

    return make


MIXED_CASES = (
    [
        case(
            f"expect100 {what} of {name}",
            tracked(sent(name), expect100=True),
            script,
            lane=EXPECTING,
            probe=False,
            wire=what != "granted and answered",
        )
        for what, script in {
            "granted": ((*WAITING, Send(CONTINUE), Pause(0.02), Send(ANSWER)),),
            "granted and answered": ((*WAITING, Send(CONTINUE + ANSWER)),),
            "refused": ((*WAITING, Send(answer("HTTP/1.1 417 No", body=b"no")), Stall()),),
            "closed": ((*WAITING, Close()),),
        }.items()
        for name in ("nothing", "bytes", "a stream", "a generator")
    ]
    + [
        case(
            "expect100 timed out",
            tracked(sent("bytes"), expect100=True, **limited(total=SHORT)),
            ((ExpectHead(), Stall()),),
            lane=EXPECTING,
        ),
        case(
            "expect100 redirected",
            tracked(sent("bytes"), expect100=True),
            (
                (*WAITING, Send(answer("HTTP/1.1 307 M", "Location: /u"))),
                (*WAITING, Send(CONTINUE), ExpectBytes(7), Send(ANSWER)),
            ),
            lane=EXPECTING,
            probe=False,
        ),
    ]
    + [
        case(
            f"middleware again of {name}",
            tracked(sent(name)),
            ((*BUSY, *BUSY, *FINAL),),
            session=in_session(again(AFTER["release"]), made(after_one_call)),
            lane=WITH_MIDDLEWARES,
        )
        for name in REPEATED
    ]
    + [
        case(
            "middleware that changes the body",
            tracked(sent("bytes")),
            session=in_session(changing(lambda run, req: req.update_body(io.BytesIO(b"another body")))),
            lane=WITH_MIDDLEWARES,
        ),
        case(
            "middleware that changes a header",
            tracked(sent("a stream")),
            session=in_session(changing(setting(X_A="1"))),
            lane=WITH_MIDDLEWARES,
        ),
        case(
            "middleware that catches a close",
            tracked(sent("bytes")),
            serve(Close()),
            session=in_session(catching(aiohttp.ClientError)),
            lane=WITH_MIDDLEWARES,
        ),
        case(
            "middleware that raises",
            tracked(sent("bytes")),
            session=in_session(raising_before(ERRORS["LookupError"])),
            lane=WITH_MIDDLEWARES,
        ),
        case(
            "middleware that never calls",
            tracked(sent("bytes")),
            session=in_session(made(never_calling)),
            lane=beside_plain(WITH_MIDDLEWARES),
        ),
        case(
            "middleware with a request of its own",
            tracked(sent("bytes")),
            (),
            session=in_session(made(starting_a_request)),
            lane=beside_plain(WITH_MIDDLEWARES),
        ),
        case("traces", tracked(sent("bytes")), session=tracing(), lane=WITH_TRACES, probe=False),
        case(
            "traces of a generator",
            tracked(sent("a generator")),
            session=tracing(),
            lane=WITH_TRACES,
            probe=False,
        ),
        case("traces of nothing", tracked(sent("nothing")), session=tracing(), lane=WITH_TRACES, probe=False),
        case(
            "traces of a redirect",
            tracked(sent("bytes")),
            redirecting("307 M", "Location: /u"),
            session=tracing(),
            lane=WITH_TRACES,
            probe=False,
        ),
        case(
            "traces of a failure",
            tracked(sent("bytes")),
            serve(Close()),
            session=tracing(),
            lane=WITH_TRACES,
            probe=False,
        ),
    ]
    + [
        case(
            f"a trace of {signal} that raises",
            tracked(sent("bytes")),
            session=tracing({signal: raising(ERRORS["LookupError"])}),
            lane=WITH_TRACES,
            probe=False,
        )
        for signal in ("request_start", "request_headers_sent", "request_chunk_sent", "request_end")
    ]
)


@table(BODY_CASES)
async def test_bodies(case: Case) -> None:
    await check(case)


@table(PROGRESS_CASES)
async def test_progress(case: Case) -> None:
    await check(case)


@table(ATTEMPT_CASES)
async def test_attempts(case: Case) -> None:
    await check(case)


@table(MIXED_CASES)
async def test_with_other_features(case: Case) -> None:
    await check(case)


@pytest.mark.parametrize("name", ["bytes", "a generator", "a stream"])
@pytest.mark.parametrize("where", ["before the head", "within the body"])
async def test_cancelled(where: str, name: str) -> None:
    async def do(run: Run) -> Any:
        tracker = aiohttp.UploadTracker()
        task = asyncio.ensure_future(
            run.session._request("POST", run.url("/t"), upload_tracker=tracker, **BODIES[name]())
        )
        await asyncio.sleep(0.03)
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        if isinstance(results[0], aiohttp.ClientResponse):
            results[0].close()
        return [type(results[0]).__name__ == "ClientResponse", state(tracker)]

    script = serve(Stall()) if where == "before the head" else serve(PART, Stall())
    await check(case(f"cancelled {where} {name}", do, script))


async def test_cancelled_during_the_upload() -> None:
    async def do(run: Run) -> Any:
        tracker = aiohttp.UploadTracker()
        task = asyncio.ensure_future(
            run.session._request("POST", run.url("/t"), upload_tracker=tracker, data=slow())
        )
        await asyncio.sleep(0.03)
        run.see(state(tracker))
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        run.see(state(tracker))
        await asyncio.sleep(0.01)
        return [type(results[0]), state(tracker)]

    await check(case("cancelled upload", do))


async def test_complete_cancelled_by_the_caller() -> None:
    async def do(run: Run) -> Any:
        tracker = aiohttp.UploadTracker()
        tracker.upload_complete.cancel()
        async with run.session.post(run.url("/t"), data=b"x", upload_tracker=tracker) as resp:
            await resp.read()
        return state(tracker)

    await check(case("cancelled future", do))


async def test_deprecated_properties_of_the_response() -> None:
    async def do(run: Run) -> Any:
        tracker = aiohttp.UploadTracker()
        async with run.session.post(run.url("/t"), data=b"x" * 1000, upload_tracker=tracker) as resp:
            size, complete = resp.output_size, resp.upload_complete.done()
            await resp.read()
        return [size > 1000, complete, state(tracker)]

    await check(case("deprecated", do, ignore=("warned_at",)))


@settings(settings.get_profile("differential"))
@given(
    pieces=st.lists(st.binary(max_size=40), max_size=6),
    compress=st.sampled_from([None, True, "gzip"]),
    statuses=st.lists(st.sampled_from([200, 302, 307, 503]), max_size=2),
)
def test_any_upload(
    loop: asyncio.AbstractEventLoop,
    pieces: list[bytes],
    compress: Any,
    statuses: list[int],
) -> None:
    """Pieces of any size from a stream or a generator, over retries and redirects."""
    hops = [
        (Expect(), Send(answer(f"HTTP/1.1 {status} X", *(["Location: /u"] if status in (302, 307) else []))))
        for status in statuses
    ]
    script = (tuple(step for hop in (*hops, FINAL) for step in hop),)
    whole = b"".join(pieces)
    makes: list[Make] = [
        lambda: {"data": agen(*pieces)},
        lambda: {"data": io.BytesIO(whole)},
        lambda: {"data": whole},
    ]
    for make in makes:
        do = tracked(make, compress=compress)
        session = in_session(again(AFTER["release"]))
        loop.run_until_complete(check(case("generated", do, script, session=session, lane=WITH_MIDDLEWARES)))
