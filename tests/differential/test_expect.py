"""`Expect: 100-continue`: what is sent before and after the interim answer, and when there is none."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from support.middlewares import changing, in_request, in_session
from support.outcome import Case, Do, Run, Script
from support.scripted import (
    Await,
    Close,
    Expect,
    ExpectBytes,
    ExpectHead,
    Pause,
    Pieces,
    Reset,
    Send,
    SendEof,
    Stall,
    by_byte,
)
from support.tracing import Tracer, raising, sleeping

from .lanes import EXPECT_100, MIDDLEWARES, TRACING, beside_plain, lane_of
from .tables import agen, answer, check, post, request, slow_agen, table
from .test_middleware_calls import AFTER, BUSY, again, catching
from .test_middlewares import setting
from .test_tracing import BODIES, in_turn

LANE = EXPECT_100
OK_LINE = "HTTP/1.1 200 OK"
ANSWER = answer(OK_LINE, "X-A: 1", body=b"expected")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
WAITING = (ExpectHead(), Pause(0.01))
GRANTED: Script = ((*WAITING, Send(CONTINUE), Pause(0.02), Send(ANSWER)),)
SHORT = 0.06


def case(id: str, do: Do, script: Script = GRANTED, **more: Any) -> Case:
    more.setdefault("lane", LANE)
    more.setdefault("hang_after", 0.6)
    return Case(f"expect {id}", do, script, **more)


def body(name: str) -> Callable[[Run], dict[str, Any]]:
    return lambda run: {"expect100": True, **BODIES[name]()}


def limited(**limits: Any) -> Callable[[Run], dict[str, Any]]:
    return lambda run: {"expect100": True, "data": b"body", "timeout": run.api.ClientTimeout(**limits)}


async def read_head_only(run: Run) -> Any:
    """The body of the answer comes later than its head."""
    resp = await run.session.post(run.url("/e"), data=b"body", expect100=True)
    run.see(resp.status, resp.closed)
    run.server.event("go").set()
    run.see(await resp.read())
    return resp


def ending(how: Callable[[Any], Any]) -> Do:
    async def do(run: Run) -> Any:
        resp = await run.session.post(run.url("/e"), data=b"body", expect100=True)
        if (awaitable := how(resp)) is not None:
            await awaitable
        return resp

    return do


PAYLOAD_CASES = [
    case(f"{method} of {name}", request(method, "/e", body(name)), probe=False)
    for name in BODIES
    for method in ("POST", "GET")
    if method == "POST" or name in ("nothing", "bytes", "a generator")
] + [
    case(
        f"reused after {name}",
        in_turn(post("/1", body(name)), post("/2", data=b"x")),
        ((*WAITING, Send(CONTINUE), *rest, Send(ANSWER)),),
        lane=beside_plain(LANE),
    )
    for name, rest in (
        ("nothing", ()),
        ("bytes", (ExpectBytes(7),)),
        ("a stream", (ExpectBytes(6),)),
        ("json", (ExpectBytes(len(b'{"a": [1, 2]}')),)),
        ("256 kB", (ExpectBytes(256 * 1024),)),
        ("a generator", (ExpectBytes(len(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")),)),
    )
]

TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
ANSWERS: dict[str, Script] = {
    "100 and the answer in one": ((*WAITING, Send(CONTINUE + ANSWER)),),
    "100 late": ((ExpectHead(), Pause(0.08), Send(CONTINUE), ExpectBytes(4), Send(ANSWER)),),
    "100 byte by byte": ((*WAITING, by_byte(CONTINUE), ExpectBytes(4), Send(ANSWER)),),
    "100 before the head is whole": ((Send(CONTINUE), ExpectHead(), ExpectBytes(4), Send(ANSWER)),),
    "100 with headers": (
        (*WAITING, Send(b"HTTP/1.1 100 Go\r\nX: 1\r\nSet-Cookie: a=1\r\n\r\n"), ExpectBytes(4), Send(ANSWER)),
    ),
    "100 twice": ((*WAITING, Send(CONTINUE), ExpectBytes(4), Send(CONTINUE), Pause(0.01), Send(ANSWER)),),
    "100 twice at once": ((*WAITING, Send(CONTINUE * 2), ExpectBytes(4), Send(ANSWER)),),
    "103 first": ((*WAITING, Send(EARLY_HINTS), Pause(0.02), Send(CONTINUE), Pause(0.01), Send(ANSWER)),),
    "102 alone": ((*WAITING, Send(PROCESSING), Pause(0.02), Send(ANSWER)),),
    "102 and 103 and 100": (
        (*WAITING, Send(PROCESSING + EARLY_HINTS + CONTINUE), Pause(0.01), Send(ANSWER)),
    ),
    "101": (
        (*WAITING, Send(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), Stall()),
    ),
    "417": ((*WAITING, Send(answer("HTTP/1.1 417 No", body=b"no")), Stall()),),
    "417 and close": ((*WAITING, Send(answer("HTTP/1.1 417 No", "Connection: close")), Close()),),
    "401 without a body": ((*WAITING, Send(answer("HTTP/1.1 401 Who")), Stall()),),
    "200 without 100": ((*WAITING, Send(ANSWER), Stall()),),
    "200 without 100, in two pieces": (
        (*WAITING, Send(ANSWER[:-3]), Pause(0.01), Send(ANSWER[-3:]), Stall()),
    ),
    "200 without 100 and close": (
        (*WAITING, Send(answer(OK_LINE, "Connection: close", body=b"x")), Close()),
    ),
    "204 without 100": ((*WAITING, Send(answer("HTTP/1.1 204 No Content", length=False)), Stall()),),
    "200 until the close": ((*WAITING, Send(b"HTTP/1.1 200 OK\r\n\r\nsome"), Close()),),
    "200 of HTTP/1.0": ((*WAITING, Send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), Stall()),),
    "100 while the answer is sent": (
        (*WAITING, Send(CONTINUE), Pause(0.01), Send(TEN), Pieces((b"01234", b"56789"), 0.01)),
    ),
    "close": ((*WAITING, Close()), (*WAITING, Close())),
    "reset": ((*WAITING, Reset()),),
    "half a close": ((*WAITING, SendEof(), Stall()),),
    "close after 100": ((*WAITING, Send(CONTINUE), Close()),),
    "close within 100": ((*WAITING, Send(CONTINUE[:12]), Close()),),
    "rubbish": ((*WAITING, Send(b"rubbish\r\n\r\n"), Close()),),
    "rubbish after 100": ((*WAITING, Send(CONTINUE + b"rubbish\r\n\r\n"), Close()),),
    "a part and close": ((*WAITING, Send(TEN + b"part"), Close()),),
}
ANSWER_CASES = (
    [
        case(
            f"{method} answered by {name}",
            request(method, "/e", {"data": b"body", "expect100": True}),
            script,
            probe=name != "101",
            # Whether the body is still written when the close arrives is a race.
            ignore=("answer", "error") if name == "close after 100" else (),
        )
        for name, script in ANSWERS.items()
        for method in ("POST", "PUT")
    ]
    + [
        case(
            f"{name} to a generator",
            post("/e", lambda run: {"data": slow_agen(b"one", b"two"), "expect100": True}),
            script,
            probe=False,
            wire=False,
        )
        for name, script in ANSWERS.items()
        if name not in ("101", "100 before the head is whole")
    ]
    + [
        case(
            "answer read later",
            read_head_only,
            ((*WAITING, Send(TEN), Await("go"), Send(b"0123456789"), Stall()),),
        ),
        case(
            "answer read later, granted",
            read_head_only,
            ((*WAITING, Send(CONTINUE), ExpectBytes(4), Send(TEN), Await("go"), Send(b"0123456789")),),
        ),
    ]
    + [
        case(f"answer and {name}, {what}", ending(how), ((*WAITING, Send(data), Stall()),))
        for name, how in {
            "release": lambda r: r.release(),
            "close": lambda r: r.close(),
            "read": lambda r: r.read(),
            "exit": lambda r: r.__aexit__(None, None, None),
        }.items()
        for what, data in (("whole", ANSWER), ("a part", TEN + b"part"))
        if name != "read" or what == "whole"
    ]
)

HEADERS: dict[str, dict[str, Any]] = {
    "100-continue": {"headers": {"Expect": "100-continue"}},
    "100-Continue": {"headers": {"Expect": "100-Continue"}},
    "100-CONTINUE, lower name": {"headers": {"expect": "100-CONTINUE"}},
    "by hand besides expect100": {"headers": {"Expect": "100-Continue"}, "expect100": True},
    "another value": {"headers": {"Expect": "something"}},
    "another value besides expect100": {"headers": {"Expect": "something"}, "expect100": True},
    "a list": {"headers": {"Expect": "100-continue, something"}},
    "with spaces": {"headers": {"Expect": " 100-continue "}},
    "empty": {"headers": {"Expect": ""}},
    "twice": {"headers": [("Expect", "100-continue"), ("Expect", "100-continue")]},
    "expect100 None": {"expect100": None},
    "expect100 1": {"expect100": 1},
}
HEADER_CASES = [
    case(
        f"header {name}",
        post("/e", data=b"body", **arguments),
        probe=False,
        lane=None if name in ("expect100 None", "another value", "a list", "with spaces", "empty") else LANE,
    )
    for name, arguments in HEADERS.items()
] + [
    case(
        "header of the session",
        post("/e", data=b"body"),
        session={"headers": {"Expect": "100-continue"}},
        probe=False,
    ),
    case(
        "header of the session, another case",
        post("/e", data=b"body"),
        session={"headers": {"expect": "100-Continue"}},
        probe=False,
    ),
    case(
        "HTTP/1.0",
        post("/e", data=b"body", expect100=True),
        session={"version": aiohttp.HttpVersion10},
        probe=False,
    ),
    case(
        "HTTP/1.0 of a generator",
        post("/e", body("a generator")),
        session={"version": aiohttp.HttpVersion10},
        probe=False,
    ),
    case("over TLS", post("/e", data=b"body", expect100=True, ssl=False), scheme="https", probe=False),
    case("raise_for_status", post("/e", data=b"body", expect100=True, raise_for_status=True), ANSWERS["417"]),
    case(
        "on a reused connection",
        in_turn(post("/1", data=b"x"), post("/2", data=b"body", expect100=True)),
        ((Expect(), Send(ANSWER), *WAITING, Send(CONTINUE), ExpectBytes(4), Send(ANSWER)),),
        lane=beside_plain(LANE),
    ),
    case(
        "on a stale connection",
        in_turn(post("/1", data=b"x"), request("PUT", "/2", {"data": b"body", "expect100": True})),
        (
            (Expect(), Send(ANSWER), ExpectHead(), Close()),
            (*WAITING, Send(CONTINUE), ExpectBytes(4), Send(ANSWER)),
        ),
        lane=beside_plain(LANE),
    ),
    case(
        "on a stale connection, granted",
        in_turn(post("/1", data=b"x"), request("PUT", "/2", {"data": b"body", "expect100": True})),
        (
            (Expect(), Send(ANSWER), ExpectHead(), Send(CONTINUE), ExpectBytes(4), Close()),
            (*WAITING, Send(CONTINUE), ExpectBytes(4), Send(ANSWER)),
        ),
        lane=beside_plain(LANE),
    ),
    case(
        "on a stale connection, a stream",
        in_turn(
            post("/1", data=b"x"),
            request("PUT", "/2", lambda run: {"data": io.BytesIO(b"body"), "expect100": True}),
        ),
        (
            (Expect(), Send(ANSWER), ExpectHead(), Close()),
            (*WAITING, Send(CONTINUE), ExpectBytes(4), Send(ANSWER)),
        ),
        lane=beside_plain(LANE),
    ),
]


def moved(status: int, *, granted: bool) -> Script:
    """A redirect before or after the body was asked for, to where it is asked for."""
    first = (Send(CONTINUE), ExpectBytes(4)) if granted else ()
    redirect = Send(answer(f"HTTP/1.1 {status} M", "Location: /u"))
    again = (*WAITING, Send(CONTINUE), Pause(0.02), Send(ANSWER))
    return ((*WAITING, *first, redirect, *again), again)


REDIRECT_CASES = [
    case(
        f"redirect by {status} {'after' if granted else 'before'} 100 of {name}",
        post("/e", lambda run, make=make: {"data": make(), "expect100": True}),
        moved(status, granted=granted),
        probe=False,
    )
    for status in (301, 303, 307, 308)
    for granted in (True, False)
    for name, make in (
        ("bytes", lambda: b"body"),
        ("a stream", lambda: io.BytesIO(b"body")),
        ("a generator", lambda: agen(b"body")),
    )
    if not (granted and name == "a generator")
]

TIMEOUT_CASES = [
    case(f"{limit} {where}", post("/e", limited(**{limit: SHORT})), script, hang_after=0.3)
    for limit in ("total", "sock_read", "connect")
    for where, script in (
        ("while waiting", ((ExpectHead(), Stall()),)),
        ("while waiting for an answer", ((*WAITING, Send(CONTINUE), ExpectBytes(4), Stall()),)),
        ("after another interim answer", ((*WAITING, Send(EARLY_HINTS), Stall()),)),
        ("within the answer", ((*WAITING, Send(CONTINUE), ExpectBytes(4), Send(TEN), Stall()),)),
        ("within a refusal", ((*WAITING, Send(TEN), Stall()),)),
    )
    if limit != "connect" or where == "while waiting"
]

BOTH = lane_of(EXPECT_100, MIDDLEWARES)
TRACED = lane_of(EXPECT_100, TRACING)
NEXT = (*WAITING, Send(CONTINUE), ExpectBytes(4), Send(ANSWER))


def traced(run: Run) -> dict[str, Any]:
    return {"trace_configs": [Tracer(run).config()]}


MIXED_CASES = [
    case("with traces", post("/e", data=b"body", expect100=True), session=traced, lane=TRACED, probe=False),
    case(
        "with traces, refused",
        post("/e", data=b"body", expect100=True),
        ANSWERS["417"],
        session=traced,
        lane=TRACED,
        probe=False,
    ),
    case(
        "with traces, closed",
        post("/e", data=b"body", expect100=True),
        ANSWERS["close"],
        session=traced,
        lane=TRACED,
        probe=False,
    ),
    case(
        "with traces that wait",
        post("/e", data=b"body", expect100=True),
        session=lambda run: {"trace_configs": [Tracer(run, {"*": sleeping()}).config()]},
        lane=TRACED,
        probe=False,
    ),
    case(
        "with a trace that raises",
        post("/e", data=b"body", expect100=True),
        session=lambda run: {
            "trace_configs": [
                Tracer(run, {"request_chunk_sent": raising(lambda: LookupError("trace"))}).config()
            ]
        },
        lane=TRACED,
        probe=False,
    ),
    case(
        "with a middleware",
        post("/e", data=b"body", expect100=True),
        (NEXT,),
        session=in_session(changing(setting(X_Tag="1"))),
        lane=BOTH,
    ),
    case(
        "set by a middleware",
        post("/e", in_request(changing(setting(Expect="100-continue")), data=lambda: b"body")),
        lane=MIDDLEWARES,
        probe=False,
    ),
    case(
        "deleted by a middleware",
        post("/e", in_request(changing(setting(Expect=None)), data=lambda: b"body", expect100=lambda: True)),
        lane=BOTH,
        probe=False,
    ),
    case(
        "called again",
        post("/e", in_request(again(AFTER["read"]), data=lambda: b"body", expect100=lambda: True)),
        ((ExpectHead(), Send(CONTINUE), ExpectBytes(4), *BUSY[1:], Pause(0.02), *NEXT),),
        lane=BOTH,
        probe=False,
        wire=False,
    ),
    case(
        "called again after a refusal",
        post("/e", in_request(again(AFTER["read"]), data=lambda: b"body", expect100=lambda: True)),
        ((ExpectHead(), *BUSY[1:], Stall()), NEXT),
        lane=BOTH,
        probe=False,
    ),
    case(
        "called again after a close",
        post("/e", in_request(catching(aiohttp.ClientError), data=lambda: b"body", expect100=lambda: True)),
        ((ExpectHead(), Close()), NEXT),
        lane=BOTH,
        probe=False,
    ),
    case(
        "with another body",
        post(
            "/e",
            in_request(
                changing(lambda run, req: req.update_body(b"else")),
                data=lambda: b"body",
                expect100=lambda: True,
            ),
        ),
        (NEXT,),
        lane=BOTH,
    ),
]


@table(PAYLOAD_CASES)
async def test_bodies(case: Case) -> None:
    await check(case)


@table(ANSWER_CASES)
async def test_answers(case: Case) -> None:
    await check(case)


@table(HEADER_CASES)
async def test_headers(case: Case) -> None:
    await check(case)


@table(REDIRECT_CASES)
async def test_redirects(case: Case) -> None:
    await check(case)


@table(TIMEOUT_CASES)
async def test_timeouts(case: Case) -> None:
    await check(case)


@table(MIXED_CASES)
async def test_with_traces_and_middlewares(case: Case) -> None:
    await check(case)


@pytest.mark.parametrize("kind", ["bytes", "a stream", "a generator"])
@pytest.mark.parametrize("where", ["waiting", "granted"])
async def test_cancelled(where: str, kind: str) -> None:
    async def do(run: Run) -> Any:
        task = asyncio.ensure_future(post("/e", body(kind))(run))
        await asyncio.sleep(0.04)
        task.cancel()
        return [type(result) for result in await asyncio.gather(task, return_exceptions=True)]

    script = ((ExpectHead(), Stall()),) if where == "waiting" else ((ExpectHead(), Send(CONTINUE), Stall()),)
    outcome = await check(case(f"cancelled {where} {kind}", do, script))
    assert outcome["probe"]["reused"] is False


async def test_slot_is_free_after_a_refusal() -> None:
    """Three refusals over a pool of one slot."""

    async def do(run: Run) -> Any:
        statuses = []
        for _ in range(3):
            async with run.session.post(run.url("/e"), data=b"body", expect100=True) as resp:
                statuses.append(resp.status)
        return statuses

    refusal = (*WAITING, Send(answer("HTTP/1.1 417 No", body=b"no")), Stall())
    session = lambda run: {"connector": run.api.TCPConnector(limit=1)}  # noqa: E731
    outcome = await check(case("three refusals", do, (refusal,) * 3, session=session))
    assert outcome["result"] == [417] * 3
