"""Timeouts: which fires, as which exception with which message, and what they leave behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.outcome import Case, Do, Run, Script
from support.scripted import Expect, ExpectHead, Pause, Pieces, Send, Stall, StopReading

from .tables import answer, check, chunked, get, post, serve, table

OK_LINE = "HTTP/1.1 200 OK"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SHORT = 0.06


def limited(do: Callable[..., Do] = get, data: Callable[[], Any] | None = None, **limits: Any) -> Do:
    """A request under a `ClientTimeout` of these limits."""

    def arguments(run: Run) -> dict[str, Any]:
        made: dict[str, Any] = {"timeout": run.api.ClientTimeout(**limits)}
        return made if data is None else {**made, "data": data()}

    return do("/", arguments)


STALLS: dict[str, Script] = {
    "before the head": serve(Stall()),
    "within the head": serve(b"HTTP/1.1 200 OK\r\nX: ", Stall()),
    "after an interim answer": serve(b"HTTP/1.1 100 Continue\r\n\r\n", Stall()),
    "after the head": serve(HEAD, Stall()),
    "within the body": serve(HEAD + b"part", Stall()),
    "within a chunk": serve(CHUNKED_HEAD + b"5\r\nhel", Stall()),
    "before the last chunk": serve(CHUNKED_HEAD + b"5\r\nhello\r\n", Stall()),
    "before the close": serve(b"HTTP/1.1 200 OK\r\n\r\nsome", Stall()),
}

STALL_CASES = [
    Case(f"{limit} stalled {where} to {name}", limited(do, **{limit: SHORT}), script, hang_after=0.25)
    for limit in ("total", "sock_read")
    for where, script in STALLS.items()
    for name, do in (("GET", get), ("POST", post))
    if do is get or where == "before the head"
] + [
    Case(
        "both, total first",
        limited(total=SHORT, sock_read=5),
        STALLS["within the body"],
        expect="TimeoutError",
    ),
    Case("both, sock_read first", limited(total=5, sock_read=SHORT), STALLS["within the body"]),
    Case("zero means none", limited(total=0, sock_read=0), serve(Pause(0.02), answer(OK_LINE)), expect=200),
    Case("None means none", limited(total=None), serve(Pause(0.02), answer(OK_LINE)), expect=200),
]

TRICKLE = Pieces((HEAD, *(b"%d" % n for n in range(10))), 0.03)
SLOW_CASES = [
    Case("sock_read is not total", limited(sock_read=0.15), ((Expect(), TRICKLE),), expect=200),
    Case("total counts the body", limited(total=0.15), ((Expect(), TRICKLE),), expect="TimeoutError"),
    Case(
        "sock_read between chunks",
        limited(sock_read=0.1),
        serve(CHUNKED_HEAD + b"5\r\nhello\r\n", Pause(0.3), b"0\r\n\r\n"),
        expect="SocketTimeoutError",
    ),
    Case(
        "sock_read of a head in pieces",
        limited(sock_read=0.15),
        ((Expect(), Pieces((b"HTTP/1.1 200", b" OK\r\n", b"Content-Length: 0\r\n", b"\r\n"), 0.05)),),
        expect=200,
    ),
    Case(
        "connect does not limit the answer",
        limited(connect=0.05, sock_connect=0.05),
        serve(Pause(0.15), answer(OK_LINE)),
        expect=200,
    ),
    Case(
        "session timeout",
        get(),
        serve(Stall()),
        session=lambda run: {"timeout": run.api.ClientTimeout(total=SHORT)},
        expect="TimeoutError",
    ),
    Case(
        "request timeout over the session's",
        limited(total=5),
        serve(Pause(0.15), answer(OK_LINE)),
        session=lambda run: {"timeout": run.api.ClientTimeout(total=0.05)},
        expect=200,
    ),
    Case("timeout by a number", get(timeout=SHORT), serve(Stall()), expect="TimeoutError"),
]

BIG = b"x" * 16_000_000


async def dripping() -> AsyncIterator[bytes]:
    for _ in range(8):
        await asyncio.sleep(0.04)
        yield b"drop"


UPLOAD_CASES = (
    [
        Case(
            f"{limit} while the server does not read",
            limited(post, lambda: BIG, **{limit: 0.15}),
            ((ExpectHead(), StopReading()),),
            wire=False,
            probe=False,
            hang_after=0.35,
        )
        for limit in ("total", "sock_read")
    ]
    + [
        Case(
            f"{limit} during a slow upload",
            limited(post, dripping, **{limit: 0.15}),
            wire=False,
        )
        for limit in ("total", "sock_read")
    ]
    + [
        Case(
            "sock_read counts from the end of the upload",
            limited(post, lambda: b"x", sock_read=SHORT),
            serve(Stall()),
            expect="SocketTimeoutError",
        )
    ]
)


def one_slot(run: Run) -> dict[str, Any]:
    return {"connector": run.api.TCPConnector(limit=1)}


def one_slot_per_host(run: Run) -> dict[str, Any]:
    return {"connector": run.api.TCPConnector(limit_per_host=1)}


def while_held(**limits: Any) -> Do:
    """A second request while the first holds the only slot."""

    async def do(run: Run) -> Any:
        async with run.session.get(run.url("/holds")) as held:
            run.see(held.status)
            try:
                async with run.session.get(
                    run.url("/waits"), timeout=run.api.ClientTimeout(**limits)
                ) as resp:
                    run.see(resp.status)
            finally:
                held.close()
        return "no timeout"

    return do


HOLDING = serve(HEAD + b"part", Stall())
POOL_CASES = [
    Case(f"full pool {name} {limit}", while_held(**{limit: SHORT}), HOLDING, session=session)
    for name, session in (("of one", one_slot), ("of one per host", one_slot_per_host))
    for limit in ("total", "connect")
] + [
    Case(
        "full pool sock_connect does not count the wait",
        while_held(sock_connect=0.05, total=0.2),
        HOLDING,
        session=one_slot,
        expect="TimeoutError",
    ),
]


@table(STALL_CASES)
async def test_server_that_stalls(case: Case) -> None:
    await check(case)


@table(SLOW_CASES)
async def test_server_that_is_slow(case: Case) -> None:
    await check(case)


@table(UPLOAD_CASES)
async def test_upload(case: Case) -> None:
    await check(case)


@table(POOL_CASES)
async def test_pool_without_a_free_slot(case: Case) -> None:
    await check(case)


class Unanswered:
    """Stands for a resolver that never answers, or for one that knows an address."""

    def __init__(self, *, answers: bool) -> None:
        self._answers = answers

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        if not self._answers:
            await asyncio.sleep(5)
        address = {"hostname": host, "host": "127.0.0.1", "port": port}
        return [{**address, "family": family or 2, "proto": 6, "flags": 0}]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("limit", ["total", "connect", "sock_connect", "sock_read"])
async def test_connecting_that_hangs_in_the_resolver(limit: str) -> None:
    async def do(run: Run) -> Any:
        url = f"http://slow.example:{run.server.port}/"
        async with run.session.get(url, timeout=run.api.ClientTimeout(**{limit: SHORT})) as resp:
            return resp

    def session(run: Run) -> dict[str, Any]:
        return {"connector": run.api.TCPConnector(resolver=Unanswered(answers=False))}

    outcome = await check(Case(f"resolver {limit}", do, session=session, hang_after=0.25))
    assert outcome["answer"] == {
        "total": "TimeoutError",
        "connect": "ConnectionTimeoutError",
        "sock_connect": "hang",
        "sock_read": "hang",
    }.get(limit)


async def test_name_from_a_resolver_is_connected_to() -> None:
    async def do(run: Run) -> Any:
        async with run.session.get(f"http://some.example:{run.server.port}/x") as resp:
            await resp.read()
        return resp

    def session(run: Run) -> dict[str, Any]:
        return {"connector": run.api.TCPConnector(resolver=Unanswered(answers=True))}

    await check(Case("resolver answers", do, session=session, expect=200))


@pytest.mark.parametrize("where", sorted(STALLS))
async def test_cancelled_request_leaves_nothing(where: str) -> None:
    async def do(run: Run) -> Any:
        task = asyncio.ensure_future(get()(run))
        await asyncio.sleep(0.03)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as exc:
            return ["cancelled", exc.args]
        return "answered"

    outcome = await check(Case(f"cancelled {where}", do, STALLS[where]))
    assert outcome["result"] == ["cancelled", []]
    assert outcome["probe"]["reused"] is False


async def test_cancelled_while_it_waits_for_a_slot() -> None:
    async def do(run: Run) -> Any:
        async with run.session.get(run.url("/holds")) as held:
            task = asyncio.ensure_future(get("/waits")(run))
            await asyncio.sleep(0.02)
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            held.close()
        async with run.session.get(run.url("/next")) as resp:
            return [type(results[0]), resp.status]

    await check(Case("cancelled waiter", do, HOLDING, session=one_slot))


async def test_answer_as_the_timeout_fires_is_one_or_the_other() -> None:
    async def do(run: Run) -> Any:
        outcomes = []
        for _ in range(3):
            try:
                async with run.session.get(run.url(), timeout=run.api.ClientTimeout(total=0.02)) as resp:
                    outcomes.append(resp.status in (200,))
            except asyncio.TimeoutError:
                outcomes.append(True)
        return outcomes

    late = (Expect(), Pause(0.02), Send(answer(OK_LINE, body=chunked(b""))))
    await check(Case("race", do, (late, late, late), wire=False, ignore=("connections", "probe")))
