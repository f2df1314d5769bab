"""Middlewares and traces that the core drives itself: what it does alone, and where it hands over.

The tables of the other modules again, with listeners of no more signals than the core sends; and requests
with bodies, params, headers and cookies of the jar, which have shapes, through middlewares.
"""

import asyncio
from typing import Any

import aiohttp
import pytest
import support.tracing
from hypothesis import given, settings
from hypothesis import strategies as st
from support.middlewares import Change, changing, in_session
from support.outcome import Case, Do, Run
from support.scripted import Close, Expect, Send, Stall
from support.tracing import Action, Tracer, raising, setting, sleeping, waiting

from . import test_tracing, test_tracing_failures, test_tracing_handlers
from .lanes import MIDDLEWARES as LANE
from .tables import answer, check, get, post, request, serve, table
from .test_middlewares import HEADERS, NEW, REFUSED, TARGETS, THERE, to_body
from .test_tracing import ANSWER, PAIR, STALE, in_turn, redirecting
from .test_tracing_handlers import cancelled, nth, then_another

SENT = ("request_start", "request_end", "request_exception", "request_redirect")
"""The signals that the core sends, or leaves to a Call with what is rare about them."""


@pytest.fixture(autouse=True)
def few_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracers that subscribe to everything subscribe to these."""
    monkeypatch.setattr(support.tracing, "SIGNALS", SENT)


HANDLERS = [
    case
    for cases in (
        test_tracing_handlers.RAISING_CASES,
        test_tracing_handlers.LATE_CASES,
        test_tracing_handlers.CANCELLED_CASES,
    )
    for case in cases
    if any(signal in case.id for signal in SENT) or "end " in case.id or "redirect" in case.id
]


@table(
    test_tracing.CONNECTION_CASES
    + test_tracing.RETRY_CASES
    + test_tracing.REQUEST_CASES
    + test_tracing.BODY_CASES
)
async def test_traced_requests(case: Case) -> None:
    await check(case)


@table(test_tracing_failures.FAILURE_CASES + test_tracing_failures.TIMEOUT_CASES)
async def test_traced_failures(case: Case) -> None:
    await check(case)


@table(HANDLERS)
async def test_traced_handlers(case: Case) -> None:
    await check(case)


# Requests of shapes, through a middleware

SHAPED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "params": {"params": {"a": "1", "b": "ü y"}},
    "headers": {"headers": {"X-Own": "1", "authorization": "Bearer t"}},
    "json": {"json": {"a": [1, "ü"]}},
    "bytes": {"data": b"payload"},
    "empty bytes": {"data": b""},
    "a str": {"data": "text ü"},
    "a type": {"data": b"x", "headers": {"Content-Type": "text/x-own"}},
    "all of it": {"params": [("a", "1")], "headers": {"X-Own": "1"}, "json": {"a": 1}},
    "64 kB of json": {"json": "x" * 70_000},
    "a fragment": {},
}
CHANGES: dict[str, Change | None] = {
    **{name: change for name, change in HEADERS.items() if name not in (*REFUSED, "sets Expect")},
    **{f"to {name}": change for name, change in TARGETS.items() if name not in ("TLS", "HEAD")},
    **{f"the body {name}": to_body(NEW[name]) for name in ("bytes", "json", "a form", "a generator", "None")},
}
COOKIES = {"cookies": {"c": "1", "d": "two"}}
UNFRAMED = ((Expect(), Send(ANSWER), Stall()),)


def case(id: str, do: Do, script: Any = None, **more: Any) -> Case:
    more.setdefault("lane", LANE)
    return Case(f"hooked {id}", do, script or serve(ANSWER), **more)


def shaped(name: str, method: str) -> Do:
    path = "/s?q=1#part" if name == "a fragment" else "/s"
    return request(method, path, lambda run: dict(SHAPED[name]))


def twice(change: Change | None) -> Change:
    """Once is not enough: the first request of a shape makes what the others are copied from."""
    return lambda run, req: None if change is None else change(run, req)


def hooks(change: Change | None, *, traced: bool, cookies: bool) -> Any:
    def make(run: Run) -> dict[str, Any]:
        made = in_session(changing(twice(change)))(run)
        if traced:
            made["trace_configs"] = [Tracer(run).config()]
        return {**made, **COOKIES} if cookies else made

    return make


SHAPED_CASES = [
    case(
        f"{method} of {name}, {what}{', traced' * traced}{', cookies' * cookies}",
        in_turn(shaped(name, method), shaped(name, method)),
        PAIR,
        session=hooks(change, traced=traced, cookies=cookies),
        ignore=("jar",) if cookies else (),
    )
    for name in SHAPED
    for method in ("GET", "POST")
    for what, change in (("untouched", None), ("a header", HEADERS["adds a header"]))
    for traced in (False, True)
    for cookies in (False, True)
] + [
    case(
        f"{method} of {name}, {what}",
        shaped(name, method),
        UNFRAMED,
        other=(THERE,),
        probe=False,
        session=hooks(change, traced=False, cookies=False),
        hang_after=0.5,
    )
    for name in ("json", "all of it")
    for method in ("GET", "POST")
    for what, change in CHANGES.items()
]


@table(SHAPED_CASES)
async def test_shaped_request(case: Case) -> None:
    await check(case)


# What listeners and middlewares do to the session, and to each other


def clearing_cookies(run: Run, params: Any) -> None:
    run.session.cookie_jar.clear()


def adding_cookies(run: Run, params: Any) -> None:
    run.session.cookie_jar.update_cookies({"added": "1"})


def adding_default(run: Run, params: Any) -> None:
    run.session.headers["X-Later"] = "1"


async def closing(run: Run, params: Any) -> None:
    await run.session.close()


def adding_middleware(run: Run, params: Any) -> None:
    run.session._middlewares = (changing(HEADERS["adds a header"])(run),)


ACTIONS: dict[str, Action] = {
    "clears the jar": clearing_cookies,
    "fills the jar": adding_cookies,
    "changes the defaults": adding_default,
    "closes the session": closing,
    "adds a middleware": adding_middleware,
    "changes headers": setting(X_Set="1", X_Own="2"),
    "deletes headers": setting(X_Own=None),
    "sleeps": sleeping(),
    "raises": raising(lambda: LookupError("the handler")),
}


def acting(actions: dict[str, Action], *changes: Change | None, **more: Any) -> Any:
    def make(run: Run) -> dict[str, Any]:
        made = {"trace_configs": [Tracer(run, actions).config("one"), Tracer(run).config("two")], **more}
        return {**made, **in_session(*[changing(change) for change in changes])(run)}

    return make


RICH: dict[str, Any] = {"params": {"a": "1"}, "headers": {"X-Own": "1"}, "json": {"a": 1}}
ACTION_CASES = [
    case(
        f"{signal} {what}{', a middleware' * len(changes)}{', rich' * is_rich}",
        then_another(request("PUT" if is_rich else "GET", "/1", **(RICH if is_rich else {}))),
        PAIR,
        session=acting({signal: action}, *changes, **(COOKIES if is_rich else {})),
        probe=what != "closes the session",
        ignore=("jar",),
    )
    for signal in ("request_start", "request_end")
    for what, action in ACTIONS.items()
    for changes in ((), (None,), (None, None))
    for is_rich in (False, True)
]


@table(ACTION_CASES)
async def test_listener_that_acts(case: Case) -> None:
    await check(case)


# Ends

TWO = (None, HEADERS["adds a header"])
END_CASES = [
    case(f"{what}, {name}", do, script, session=acting({}, *changes), hang_after=0.8)
    for name, changes in {"traced": (), "a middleware": (None,), "two": (None, None), "changed": TWO}.items()
    for what, do, script in (
        ("a stale connection", in_turn(get("/1"), get("/2")), STALE),
        ("a stale connection of PUT", in_turn(get("/1"), request("PUT", "/2", json={"a": 1})), STALE),
        ("a stale connection of POST", in_turn(get("/1"), post("/2", data=b"x")), STALE),
        ("a redirect", get("/1"), redirecting("302 F", "Location: /u", "Set-Cookie: a=1")),
        ("a redirect of a body", post("/1", json=[1]), redirecting("307 T", "Location: /u")),
        ("a redirect not followed", get("/1", allow_redirects=False), redirecting("302 F", "Location: /u")),
        ("a cookie", in_turn(get("/1"), get("/2")), serve(answer("HTTP/1.1 200 O", "Set-Cookie: a=1"))),
        ("an error status", get("/1", raise_for_status=True), serve(answer("HTTP/1.1 500 Oh", body=b"x"))),
        ("a good status", get("/1", raise_for_status=True), serve(ANSWER)),
        ("a close", post("/1", data=b"x"), serve(Close())),
        ("rubbish", get("/1"), serve(b"rubbish\r\n\r\n", Close())),
        ("no answer in time", get("/1", timeout=aiohttp.ClientTimeout(total=0.06)), serve(Stall())),
        ("nothing read in time", get("/1", timeout=aiohttp.ClientTimeout(sock_read=0.06)), serve(Stall())),
        ("a body that does not come", get("/1", timeout=aiohttp.ClientTimeout(total=0.06)),
         serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Stall())),
        ("no total time", get("/1", timeout=aiohttp.ClientTimeout(total=None)), serve(ANSWER)),
        ("a timeout of a bad type", get("/1", timeout=aiohttp.ClientTimeout(total="x")), serve(ANSWER)),  # type: ignore[arg-type]
    )
]  # fmt: skip


@table(END_CASES)
async def test_end(case: Case) -> None:
    await check(case)


def once() -> Any:
    """Wait for ever, the first time."""
    return nth(1, waiting("inside"))


WAITS: dict[str, Any] = {
    "in a listener": lambda run: acting({"request_start": once()})(run),
    "in the last listener": lambda run: acting({"request_end": once()})(run),
    "in a middleware": lambda run: acting({}, once())(run),
    "in the second middleware": lambda run: acting({}, None, once())(run),
}


@table(
    [
        case(f"cancelled {where}", then_another(cancelled(get("/1"))), session=session, hang_after=0.8)
        for where, session in WAITS.items()
    ]
    + [
        case(
            f"timed out {where}",
            then_another(get("/1", timeout=aiohttp.ClientTimeout(total=0.06))),
            session=session,
            hang_after=0.8,
        )
        for where, session in WAITS.items()
        if "listener" not in where
    ]
)
async def test_interrupted(case: Case) -> None:
    await check(case)


# Whatever comes together


@settings(settings.get_profile("differential"))
@given(
    name=st.sampled_from(sorted(SHAPED)),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS"]),
    changes=st.lists(
        st.sampled_from(["nothing", "nothing", "adds a header", "deletes Cookie", "sets Host"]), max_size=3
    ),
    start=st.sampled_from(["sleeps", "changes headers", "fills the jar", "nothing", "nothing"]),
    traced=st.booleans(),
    ending=st.sampled_from(["200 OK", "302 F", "307 T", "404 No"]),
    raises=st.sampled_from([None, True, False]),
)
def test_any_mix(
    loop: asyncio.AbstractEventLoop,
    name: str,
    method: str,
    changes: list[str],
    start: str,
    traced: bool,
    ending: str,
    raises: bool | None,
) -> None:
    def session(run: Run) -> dict[str, Any]:
        made = in_session(*[changing(HEADERS[change]) for change in changes])(run)
        actions = {"request_start": ACTIONS[start]} if start in ACTIONS else {}
        if traced:
            made["trace_configs"] = [Tracer(run, actions).config()]
        return {**made, **COOKIES}

    async def do(run: Run) -> Any:
        run.see(await shaped(name, method)(run))
        return await request(method, "/s", lambda run: {**SHAPED[name], "raise_for_status": raises})(run)

    fields = ["Location: /u"] if ending.startswith("3") else []
    script = (
        (
            Expect(),
            Send(answer("HTTP/1.1 200 OK")),
            Expect(),
            Send(answer(f"HTTP/1.1 {ending}", *fields, body=b"body")),
        ),
    )
    generated = case("generated", then_another(do), script, session=session, probe=False, ignore=("jar",))
    loop.run_until_complete(check(generated))
