"""Which connection a request takes: reuse, limits, stale connections, retries, and shutdown."""

import asyncio
from typing import Any

import pytest
from support.outcome import ANY, Case, Run, Script
from support.scripted import Await, Close, Expect, Reset, Send, SendEof, Stall

from .tables import answer, check, get, serve, table

ANSWER = answer("HTTP/1.1 200 OK", body=b"first")
FIRST = (Expect(), Send(ANSWER))

AFTERWARDS: dict[str, tuple[Any, ...]] = {
    "closed": (Close(),),
    "reset": (Reset(),),
    "half-closed": (SendEof(),),
    "sent bytes": (Send(b"unasked"), Stall()),
    "sent an answer": (Send(answer("HTTP/1.1 200 OK", "X-Unasked: 1", body=b"unasked")), Stall()),
    "sent a 408 and closed": (Send(answer("HTTP/1.1 408 Timeout", "Connection: close")), Close()),
    "sent a line end": (Send(b"\r\n"),),
    "sent a 100": (Send(b"HTTP/1.1 100 Continue\r\n\r\n"),),
    "sent half a head": (Send(b"HTTP/1.1 200"),),
}


def idle_then(method: str, data: Any = None) -> Any:
    """A request, a while in which the server does something to the idle connection, another request."""

    async def do(run: Run) -> Any:
        run.see(await get("/1")(run))
        run.server.event("go").set()
        await run.server.settle()
        async with run.session.request(method, run.url("/2"), data=data) as resp:
            await resp.read()
        return resp

    return do


def at_once_then(method: str, data: Any = None) -> Any:
    """Two requests; the server closes when it has read the second."""

    async def do(run: Run) -> Any:
        run.see(await get("/1")(run))
        async with run.session.request(method, run.url("/2"), data=data) as resp:
            await resp.read()
        return resp

    return do


IDLE_CASES = [
    Case(
        f"idle, then the server {name}, then {method}",
        idle_then(method, data),
        ((*FIRST, Await("go"), *steps),),
    )
    for name, steps in AFTERWARDS.items()
    for method, data in (("GET", None), ("POST", b"x"))
]

STALE: list[tuple[str, Any]] = [
    ("GET", None),
    ("HEAD", None),
    ("OPTIONS", None),
    ("TRACE", None),
    ("PUT", b"body"),
    ("DELETE", None),
    ("DELETE", b"body"),
    ("POST", b"body"),
    ("PATCH", b"body"),
    ("CUSTOM", None),
]

STALE_CASES = [
    Case(
        f"stale on {method}{' with a body' if data else ''} by {end.__class__.__name__}",
        at_once_then(method, data),
        ((*FIRST, Expect(), end), serve(answer("HTTP/1.1 204 No"))[0]),
    )
    for method, data in STALE
    for end in (Close(), Reset())
] + [
    Case(
        "stale after a part of the head",
        at_once_then("GET"),
        ((*FIRST, Expect(), Send(b"HTTP/1.1 200 OK\r\nX"), Close()),),
    ),
    Case("stale twice", at_once_then("GET"), ((*FIRST, Expect(), Close()), (Expect(), Close()))),
    Case(
        "stale and a malformed answer",
        at_once_then("GET"),
        ((*FIRST, Expect(), Send(b"rubbish\r\n\r\n")),),
        expect="ClientResponseError",
    ),
]


async def both(run: Run) -> Any:
    run.see(*await asyncio.gather(get("/a")(run), get("/b")(run)))
    run.see(*await asyncio.gather(get("/c")(run), get("/d")(run)))
    return len(run.server.peers)


async def in_turn(run: Run) -> Any:
    return [await get(f"/{number}")(run) for number in range(4)]


async def two_names(run: Run) -> Any:
    for host in ("127.0.0.1", "localhost", "127.0.0.1", "LOCALHOST"):
        async with run.session.get(f"http://{host}:{run.server.port}/") as resp:
            await resp.read()
    return len(run.server.peers)


async def two_servers(run: Run) -> Any:
    for base in (run.server.base, run.other.base) * 2:
        async with run.session.get(base + "/") as resp:
            await resp.read()
    return [len(run.server.peers), len(run.other.peers)]


async def released_unread(run: Run) -> Any:
    async with run.session.get(run.url("/unread")):
        pass
    return await get("/next")(run)


async def closed_unread(run: Run) -> Any:
    resp = await run.session.get(run.url("/unread"))
    resp.close()
    return await get("/next")(run)


async def connection_header(run: Run) -> Any:
    return await get("/", headers={"Connection": "close"})(run)


async def pause_over_the_keepalive(run: Run) -> Any:
    run.see(await get("/1")(run))
    await asyncio.sleep(0.12)
    return await get("/2")(run)


def connector(**arguments: Any) -> Any:
    return lambda run: {"connector": run.api.TCPConnector(**arguments)}


PLAIN: Script = ()
POOL_CASES = [
    Case("two at once", both, PLAIN, wire=False),
    Case("two at once by one slot", both, PLAIN, session=connector(limit=1)),
    Case("two at once by one slot per host", both, PLAIN, session=connector(limit_per_host=1)),
    Case("two at once without a limit", both, PLAIN, wire=False, session=connector(limit=0)),
    Case("in turn", in_turn, PLAIN),
    Case("in turn, force_close", in_turn, PLAIN, session=connector(force_close=True)),
    Case(
        "in turn, keepalive_timeout of zero",
        in_turn,
        PLAIN,
        session=connector(keepalive_timeout=0),
        ignore=("connections", "wire", "probe.reused", "result"),
    ),
    Case("two names of one server", two_names, PLAIN),
    Case("two servers", two_servers, PLAIN),
    Case("released unread", released_unread, serve(ANSWER)),
    Case("released with more to come", released_unread, serve(ANSWER[:-2], Stall())),
    Case("closed unread", closed_unread, serve(ANSWER[:-2], Stall())),
    Case("asked to close and kept open", connection_header, serve(ANSWER)),
    Case("past the keepalive", pause_over_the_keepalive, PLAIN, session=connector(keepalive_timeout=0.05)),
    Case("within the keepalive", pause_over_the_keepalive, PLAIN, session=connector(keepalive_timeout=5)),
    Case(
        "Keep-Alive: timeout=1 is not over",
        pause_over_the_keepalive,
        serve(answer("HTTP/1.1 200 OK", "Keep-Alive: timeout=1", body=b"k")),
        ignore=("connections", "wire", "probe.reused"),
    ),
]


@table(IDLE_CASES)
async def test_idle_connection(case: Case) -> None:
    await check(case)


@table(STALE_CASES)
async def test_stale_connection(case: Case) -> None:
    await check(case)


@table(POOL_CASES)
async def test_pool(case: Case) -> None:
    await check(case)


async def test_nobody_listens() -> None:
    async def do(run: Run) -> Any:
        run.server.stop_listening()
        await asyncio.sleep(0)
        return await get()(run)

    outcome = await check(Case("refused", do, probe=False, expect="ClientConnectorError"))
    assert outcome["connections"] == 0


async def test_nobody_listens_any_more_after_a_stale_connection() -> None:
    async def do(run: Run) -> Any:
        run.see(await get("/1")(run))
        run.server.stop_listening()
        return await get("/2")(run)

    await check(Case("refused later", do, ((*FIRST, Expect(), Close()),), expect="ClientConnectorError"))


async def test_retry_switched_off() -> None:
    async def do(run: Run) -> Any:
        run.session._retry_connection = False
        return await get()(run)

    await check(Case("no retry", do, serve(Close()), expect="ServerDisconnectedError"))


@pytest.mark.parametrize("limit", [1, 2])
async def test_waiters_are_served_in_order(limit: int) -> None:
    async def do(run: Run) -> Any:
        await asyncio.gather(*(get(f"/{number}")(run) for number in range(12)))
        return "done"

    outcome = await check(
        Case(
            f"waiters {limit}",
            do,
            PLAIN,
            session=connector(limit=limit),
            # Who dials here takes a connection that is freed first, so there may be fewer.
            ignore=("connections", "wire") if limit > 1 else (),
        )
    )
    assert limit > 1 or outcome["connections"] == limit


async def test_session_closed_while_requests_wait() -> None:
    async def do(run: Run) -> Any:
        tasks = [asyncio.ensure_future(get(f"/{number}")(run)) for number in range(3)]
        await asyncio.sleep(0.03)
        await run.session.close()
        results = await asyncio.gather(
            *(asyncio.wait_for(task, 0.2) for task in tasks), return_exceptions=True
        )
        return [type(result) for result in results]

    await check(Case("closed", do, serve(Stall()), session=connector(limit=1), hang_after=2))


async def test_two_sessions_share_a_connector() -> None:
    async def do(run: Run) -> Any:
        other = run.api.ClientSession(connector=run.session.connector, connector_owner=False)
        async with other, other.get(run.url("/other")) as resp:
            await resp.read()
        run.see(await get("/mine")(run))
        return [other.closed, run.session.closed, len(run.server.peers)]

    outcome = await check(Case("shared connector", do, PLAIN, lane=ANY))
    assert outcome["result"] == [True, False, 1]
