"""Hedged requests over real sockets: who wins, what becomes of the others, and what is never hedged."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import base64
import hashlib
import sys
from typing import Any

import aiohttp
import pytest
from support.checks import eventually
from support.local import Exchange, LocalServer

from wirespeed.policy import Bulkhead, Hedge, Outcome, Policies, Retry, RetryBudget

from .sockets import (
    Action,
    Acts,
    Sessions,
    acting,
    after,
    clean,
    close_now,
    get,
    ok,
    reset_now,
    stall,
    status,
)

DELAY = 0.03
needs_uncancel = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="tasks count their cancellations since CPython 3.11"
)


def body(data: bytes, *headers: tuple[str, str]) -> Action:
    return lambda x: x.respond(200, data, headers)


def hedging(delay: float = DELAY, **more: Any) -> Policies:
    return Policies(hedge=Hedge(delay=delay), **more)


def figures(policies: Policies) -> tuple[int, int, int]:
    stats = policies.stats().hedge
    assert stats is not None
    (found,) = stats.by_key.values()
    return found.launched, found.won, found.denied


def cancelling() -> int:
    task: Any = asyncio.current_task()
    return task.cancelling() if hasattr(task, "cancelling") else 0


# Who wins


async def test_a_quick_answer_is_not_hedged(kind: Sessions) -> None:
    policies = hedging(0.5)
    async with acting(then=after(0.01, ok)) as server, clean(kind, policies=policies) as session:
        for _ in range(3):
            assert await get(session, server.url()) == b"ok"
        assert len(server.exchanges) == 3
        assert figures(policies) == (0, 0, 0)


async def test_the_second_attempt_wins(kind: Sessions) -> None:
    policies = hedging()
    async with acting(stall, body(b"second")) as server, clean(kind, policies=policies) as session:
        begun = asyncio.get_running_loop().time()
        assert await get(session, server.url()) == b"second"
        assert asyncio.get_running_loop().time() - begun >= DELAY - 0.002
        assert figures(policies) == (1, 1, 0)
        assert cancelling() == 0
        await eventually(lambda: server.connections[0].lost, "connection of the loser closed")
        assert not server.connections[1].lost
        assert await get(session, server.url()) == b"ok"
        assert [exchange.connection.number for exchange in server.exchanges] == [0, 1, 1]
        (attempts,) = policies.stats().attempts.values()
        assert dict(attempts) == {Outcome.SUCCESS: 2, Outcome.CANCELLED: 1}


async def test_the_first_attempt_wins_all_the_same(kind: Sessions) -> None:
    policies = hedging()
    acts = [after(0.08, body(b"first")), stall]
    async with acting(*acts) as server, clean(kind, policies=policies) as session:
        assert await get(session, server.url()) == b"first"
        assert figures(policies) == (1, 0, 0)
        assert cancelling() == 0
        await eventually(lambda: server.connections[1].lost, "connection of the loser closed")
        assert await get(session, server.url()) == b"ok"
        assert [exchange.connection.number for exchange in server.exchanges] == [0, 1, 0]


@pytest.mark.parametrize("size", [2, 3_000_000])
async def test_both_answer_in_the_same_moment(kind: Sessions, size: int) -> None:
    data = b"x" * size
    policies = hedging(0.01)
    async with acting() as server:
        waiting: list[Exchange] = []

        def both(exchange: Exchange) -> None:
            waiting.append(exchange)
            if len(waiting) == 2:
                for each in waiting:
                    each.respond(200, data)
                waiting.clear()

        server.routes["/"] = both
        async with clean(kind, policies=policies) as session:
            for _ in range(10):
                assert await get(session, server.url()) == data
                assert cancelling() == 0


@pytest.mark.parametrize("first", [after(0.06, reset_now), after(0.06, close_now), after(0.06, status(503))])
async def test_a_first_attempt_that_fails_leaves_it_to_the_second(kind: Sessions, first: Action) -> None:
    policies = hedging()
    acts = [first, after(0.1, body(b"second"))]
    async with acting(*acts) as server, clean(kind, policies=policies) as session:
        assert await get(session, server.url()) == b"second"
        assert len(server.exchanges) == 2
        assert figures(policies) == (1, 1, 0)


async def test_a_failure_before_the_delay_is_the_answer(kind: Sessions) -> None:
    async with acting(then=status(503)) as server, clean(kind, policies=hedging()) as session:
        async with session.get(server.url()) as resp:
            assert resp.status == 503
        assert len(server.exchanges) == 1


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ([after(0.06, reset_now), after(0.1, reset_now)], aiohttp.ClientError),
        ([after(0.06, reset_now), after(0.01, status(503))], aiohttp.ClientError),
        ([after(0.06, status(502)), after(0.1, reset_now)], 502),
        ([after(0.1, status(502)), after(0.02, status(503))], 502),
        ([after(0.1, status(404)), after(0.02, status(503))], 404),
    ],
)
async def test_where_all_fail_it_is_the_first_attempt_that_is_told_of(
    kind: Sessions, acts: list[Action], expected: Any
) -> None:
    budget = RetryBudget(0.0, min_per_second=1e-6)  # one: for the second attempt
    policies = hedging(budget=budget)
    async with acting(*acts, then=stall) as server, clean(kind, policies=policies) as session:
        if isinstance(expected, int):
            async with session.get(server.url()) as resp:
                assert resp.status == expected
                assert await resp.read() == b"no"
        else:
            with pytest.raises(expected):
                await session.get(server.url())
        assert len(server.exchanges) == 2
        assert figures(policies)[0] == 1


async def test_a_failed_race_is_retried_as_one_attempt(kind: Sessions) -> None:
    policies = hedging(retry=Retry(1, backoff_factor=0.0))
    acts = [after(0.05, status(503)), after(0.05, status(503)), ok]
    async with acting(*acts) as server, clean(kind, policies=policies) as session:
        async with session.get(server.url()) as resp:
            assert resp.status == 200
            assert [record.status for record in resp.retry_history] == [503]
        assert len(server.exchanges) == 3
        assert policies.budget is not None
        (account,) = policies.budget.stats().by_key.values()
        assert (account.requests, account.spent) == (1, 2)


async def test_more_than_one_further_attempt(kind: Sessions) -> None:
    policies = Policies(hedge=Hedge(delay=0.02, max_hedges=3))
    acts = [stall, stall, stall, body(b"fourth")]
    async with acting(*acts) as server, clean(kind, policies=policies) as session:
        assert await get(session, server.url()) == b"fourth"
        assert figures(policies) == (3, 1, 0)
        await eventually(
            lambda: [c.lost for c in server.connections] == [True] * 3 + [False], "losers closed"
        )


async def test_the_losers_response_is_closed_when_it_has_come(kind: Sessions) -> None:
    """A head that was there, but not wanted: 503 of the second while the first is awaited."""
    acts = [after(0.12, body(b"first")), status(503, body=b"x" * 2_000_000)]
    async with acting(*acts) as server, clean(kind, policies=hedging()) as session:
        assert await get(session, server.url()) == b"first"
        await eventually(lambda: server.connections[1].lost, "connection of the unread response closed")


# What is never hedged


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_methods_that_change_something_are_sent_once(kind: Sessions, method: str) -> None:
    policies = hedging()
    async with acting(then=after(0.08, ok)) as server, clean(kind, policies=policies) as session:
        async with session.request(method, server.url(), data=b"x") as resp:
            assert resp.status == 200
        assert len(server.exchanges) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_safe_methods_are_hedged(kind: Sessions, method: str) -> None:
    async with acting(stall, ok) as server, clean(kind, policies=hedging()) as session:
        async with session.request(method, server.url()) as resp:
            assert resp.status == 200
        assert [exchange.method for exchange in server.exchanges] == [method] * 2
        assert server.exchanges[0].head == server.exchanges[1].head


async def test_without_a_budget_there_is_no_second_attempt(kind: Sessions) -> None:
    policies = hedging(budget=RetryBudget(0.0, min_per_second=0.0))
    async with acting(then=after(0.08, ok)) as server, clean(kind, policies=policies) as session:
        assert await get(session, server.url()) == b"ok"
        assert len(server.exchanges) == 1
        assert figures(policies) == (0, 0, 1)


async def test_websockets_are_neither_hedged_nor_broken(kind: Sessions) -> None:
    def upgrade(exchange: Exchange) -> None:
        key = (exchange.header("Sec-WebSocket-Key") or "").encode()
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        exchange.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n\x81\x05hello"
        )

    bulkhead = Bulkhead(2)
    policies = hedging(0.01, retry=Retry(), bulkhead=bulkhead)
    async with acting(then=after(0.05, upgrade)) as server, clean(kind, policies=policies) as session:
        socket = await session.ws_connect(server.url())
        assert await socket.receive_str() == "hello"
        assert len(server.exchanges) == 1
        (held,) = bulkhead.stats().by_key.values()
        assert held.in_use == 1  # for as long as it is open
        closing = asyncio.ensure_future(socket.close())
        await asyncio.sleep(0.01)
        server.connections[0].transport.abort()
        await closing
        await eventually(lambda: bulkhead.stats().by_key[server.url()[:-1]].in_use == 0, "slot free")


# What is around


async def test_the_winner_sets_cookies_and_the_loser_does_not(kind: Sessions) -> None:
    acts = [
        after(0.1, body(b"1", ("Set-Cookie", "first=1"))),
        body(b"2", ("Set-Cookie", "second=2")),
    ]
    jar = aiohttp.CookieJar(unsafe=True)
    async with acting(*acts) as server, clean(kind, policies=hedging(), cookie_jar=jar) as session:
        assert await get(session, server.url()) == b"2"
        await asyncio.sleep(0.12)
        assert {cookie.key: cookie.value for cookie in jar} == {"second": "2"}
        await get(session, server.url())
        assert server.exchanges[2].header("Cookie") == "second=2"


async def test_each_hop_of_a_redirect_is_hedged(kind: Sessions) -> None:
    async with LocalServer() as server, clean(kind, policies=hedging()) as session:
        server.routes["/"] = Acts(stall, lambda x: x.respond(302, b"", [("Location", "/next")]))
        server.routes["/next"] = Acts(stall, body(b"there"))
        async with session.get(server.url()) as resp:
            assert await resp.read() == b"there"
            assert [past.status for past in resp.history] == [302]
        assert [exchange.path for exchange in server.exchanges] == ["/", "/", "/next", "/next"]


async def test_middlewares_before_and_after_see_what_they_should(kind: Sessions) -> None:
    seen: list[str] = []

    def named(name: str) -> Any:
        async def middleware(
            req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            seen.append(f"{name} in")
            req.headers[f"X-{name}"] = str(len(seen))
            try:
                resp = await handler(req)
            except BaseException as exc:
                seen.append(f"{name} {type(exc).__name__}")
                raise
            seen.append(f"{name} out")
            return resp

        return middleware

    chain = (named("Outer"), hedging(), named("Inner"))
    async with acting(stall, ok) as server, clean(kind, *chain) as session:
        assert await get(session, server.url()) == b"ok"
        assert sorted(seen) == sorted(
            ["Outer in", "Inner in", "Inner in", "Inner out", "Inner CancelledError", "Outer out"]
        )
        # Each attempt has headers of its own: what a middleware adds for one is not sent by the other.
        assert [exchange.header("X-Inner") for exchange in server.exchanges] == ["2", "3"]
        assert [exchange.header("X-Outer") for exchange in server.exchanges] == ["1", "1"]


async def test_a_middleware_that_shields_its_attempt_does_not_stop_the_winner(kind: Sessions) -> None:
    """A first attempt that swallows its cancelling, and answers later all the same."""

    async def stubborn(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        task = asyncio.ensure_future(handler(req))
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        return task.result()

    acts = [after(0.15, body(b"first")), body(b"second")]
    async with acting(*acts) as server, clean(kind, hedging(), stubborn) as session:
        assert await get(session, server.url()) in (b"first", b"second")
        assert cancelling() == 0
        await asyncio.sleep(0)  # no cancelling is left for later


async def test_the_session_is_closed_while_attempts_race(kind: Sessions) -> None:
    policies = hedging(0.01, bulkhead=Bulkhead(5))
    async with acting(then=stall) as server:
        async with clean(kind, policies=policies) as session:
            task = asyncio.ensure_future(session.get(server.url()))
            await eventually(lambda: len(server.held) == 2, "two attempts at the server")
            await session.close()
            with pytest.raises((aiohttp.ClientError, AssertionError, asyncio.TimeoutError)):
                await asyncio.wait_for(task, 5)
            await eventually(lambda: not server.open, "connections closed")


@pytest.mark.parametrize("is_other_first", [False, True])
async def test_total_time_ends_a_race(kind: Sessions, is_other_first: bool) -> None:
    policies = hedging(0.02, bulkhead=Bulkhead(5))
    timeout = aiohttp.ClientTimeout(total=0.1)
    acts = [after(0.05, status(503)) if is_other_first else stall]
    async with acting(*acts, then=stall) as server:
        async with clean(kind, policies=policies, timeout=timeout) as session:
            with pytest.raises(asyncio.TimeoutError):
                await session.get(server.url())
            assert cancelling() == 0
            await eventually(lambda: len([c for c in server.connections if not c.lost]) <= is_other_first)
            (attempts,) = policies.stats().attempts.values()
            expected = (
                {Outcome.TIMED_OUT: 1, Outcome.OVERLOADED: 1} if is_other_first else {Outcome.TIMED_OUT: 2}
            )
            assert dict(attempts) == expected


async def test_total_time_ends_a_race_whose_first_attempt_is_not_under_way_yet(kind: Sessions) -> None:
    """The attempts enter and leave the request's timer in no order; and sets of tasks have none either."""
    count = 0

    async def first_waits(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        nonlocal count
        count += 1
        if count % 2:
            await asyncio.sleep(100)
        return await handler(req)

    timeout = aiohttp.ClientTimeout(total=0.01)

    async def one() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await session.get(server.url())
        assert cancelling() == 0

    policies = hedging(0.002, budget=RetryBudget(1.0))
    async with acting(then=stall) as server:
        async with clean(kind, policies, first_waits, timeout=timeout) as session:
            kept = []
            for n in range(40):
                kept.append(bytearray(n * 50))  # so that tasks lie here and there
                task = asyncio.ensure_future(one())
                await asyncio.wait([task])
                task.result()


async def test_total_time_ends_a_race_whose_second_attempt_is_not_under_way_yet(kind: Sessions) -> None:
    """It waits for the slot that the first attempt holds; nothing but the total time ends that."""
    policies = hedging(0.01, bulkhead=Bulkhead(1))
    timeout = aiohttp.ClientTimeout(total=0.1)
    async with acting(then=stall) as server:
        async with clean(kind, policies=policies, timeout=timeout) as session:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(session.get(server.url()), 3)
            assert cancelling() == 0
            assert figures(policies) == (1, 0, 0)
            assert len(server.exchanges) == 1


@needs_uncancel
async def test_a_race_in_a_task_group_or_a_timeout_leaves_no_trace(kind: Sessions) -> None:
    acts = [stall, ok, stall, stall, stall, ok]
    async with acting(*acts) as server, clean(kind, policies=hedging(0.02)) as session:
        async with asyncio.timeout(5):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(get(session, server.url()))
            assert task.result() == b"ok"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await get(session, server.url())
        assert cancelling() == 0
        async with asyncio.timeout(5):
            assert await get(session, server.url()) == b"ok"


async def test_the_caller_cancels_a_race(kind: Sessions) -> None:
    policies = hedging(0.01, bulkhead=Bulkhead(5))
    async with acting(then=stall) as server, clean(kind, policies=policies) as session:
        task = asyncio.ensure_future(session.get(server.url()))
        await eventually(lambda: len(server.held) == 2, "two attempts at the server")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: not server.open, "connections closed")


async def test_the_loser_gives_its_slot_back(kind: Sessions) -> None:
    bulkhead = Bulkhead(2)
    async with acting(stall, ok) as server, clean(kind, policies=hedging(bulkhead=bulkhead)) as session:
        resp = await session.get(server.url())
        await asyncio.sleep(0.01)
        (held,) = bulkhead.stats().by_key.values()
        assert (held.passed, held.in_use) == (2, 0 if resp.connection is None else 1)
        resp.close()


async def test_a_second_attempt_that_waits_for_room_is_no_harm(kind: Sessions) -> None:
    """All slots are taken by first attempts: the second ones wait, and leave the queue again."""
    bulkhead = Bulkhead(2)
    policies = hedging(0.01, bulkhead=bulkhead)
    async with acting(then=after(0.05, ok)) as server, clean(kind, policies=policies) as session:
        answers = await asyncio.gather(*(get(session, server.url()) for _ in range(6)))
        assert answers == [b"ok"] * 6
        assert server.max_active <= 2
        (held,) = bulkhead.stats().by_key.values()
        assert (held.in_use, held.waiting) == (0, 0)


async def test_the_connector_has_no_room_for_the_second_attempt(kind: Sessions) -> None:
    policies = hedging(0.01)
    async with acting(then=after(0.05, ok)) as server:
        connector = (aiohttp if kind is aiohttp.ClientSession else __import__("wirespeed")).TCPConnector(
            limit=1
        )
        async with clean(kind, policies=policies, connector=connector) as session:
            for _ in range(3):
                assert await get(session, server.url()) == b"ok"
            # The core hands the connection on with the last byte: the other attempt may be out by then.
            assert len(server.exchanges) <= 6


async def test_what_was_learned_makes_the_delay(kind: Sessions) -> None:
    hedge = Hedge(quantile=0.5, min_samples=20)
    policies = Policies(hedge=hedge, budget=RetryBudget(1.0))
    async with acting(then=after(0.02, ok)) as server, clean(kind, policies=policies) as session:
        for _ in range(30):
            assert await get(session, server.url()) == b"ok"
        (found,) = hedge.stats().by_key.values()
        assert found.samples >= 20
        assert 0.015 < found.delay_seconds < 0.2
        server.routes["/"] = Acts(stall, body(b"hedged"))
        assert await get(session, server.url()) == b"hedged"
