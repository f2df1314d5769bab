"""The budget over real sockets: an outage does not multiply the load, whoever would send again."""

import asyncio
from typing import Any

import aiohttp
import pytest

from wirespeed.policy import Hedge, Policies, Retry, RetryBudget

from .conftest import FakeClock
from .sockets import (
    Action,
    Sessions,
    acting,
    clean,
    close_now,
    get,
    ok,
    reset_now,
    status,
)

REQUESTS = 500
FLOOR = 10  # one second's worth, and the clock stands still


async def no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


async def ask(session: aiohttp.ClientSession, url: str, count: int, at_once: int) -> None:
    """So many requests, some of them concurrent; what becomes of them does not matter."""

    async def one() -> None:
        async with session.get(url) as resp:
            await resp.read()

    for start in range(0, count, at_once):
        some = [one() for _ in range(min(at_once, count - start))]
        for result in await asyncio.gather(*some, return_exceptions=True):
            assert result is None or isinstance(result, aiohttp.ClientError), result


def parts(clock: FakeClock, *names: str) -> dict[str, Any]:
    made = {
        "retry": lambda: Retry(3, clock=clock),
        "hedge": lambda: Hedge(delay=0.0, clock=clock),
        "budget": lambda: RetryBudget(min_per_second=FLOOR, clock=clock),
    }
    return {name: made[name]() for name in names}


SENDERS = [("budget",), ("retry", "budget"), ("hedge", "budget"), ("retry", "hedge", "budget")]


@pytest.mark.parametrize("failure", [status(503), reset_now, close_now], ids=["503", "reset", "closed"])
@pytest.mark.parametrize("names", SENDERS, ids="+".join)
async def test_an_outage_costs_a_fifth_more_and_the_floor(
    kind: Sessions, clock: FakeClock, names: tuple[str, ...], failure: Action
) -> None:
    policies = Policies(**parts(clock, *names), clock=clock, sleep=no_sleep)
    async with acting(then=failure) as server, clean(kind, policies=policies) as session:
        await ask(session, server.url(), REQUESTS, 20)
        sent = len(server.exchanges)
        assert policies.budget is not None
        (account,) = policies.budget.stats().by_key.values()
        assert account.requests == REQUESTS
        assert account.spent <= REQUESTS * 0.2 + FLOOR
        assert sent <= REQUESTS + account.spent
        if names == ("budget",) and failure.__name__ == "<lambda>":
            assert sent == REQUESTS
        elif "hedge" not in names:
            assert sent == REQUESTS + REQUESTS // 5 + FLOOR


async def test_retries_come_back_after_an_outage(kind: Sessions, clock: FakeClock) -> None:
    policies = Policies(**parts(clock, "retry", "budget"), clock=clock, sleep=no_sleep)
    async with acting(then=status(503)) as server, clean(kind, policies=policies) as session:
        await ask(session, server.url(), 100, 10)
        before = len(server.exchanges)
        assert before == 100 + 20 + FLOOR
        for _ in range(2):  # nothing is left, but the fifth of a retry that each request earns
            async with session.get(server.url()) as resp:
                assert (resp.status, resp.retry_history) == (503, ())
        assert len(server.exchanges) == before + 2
        clock.advance(60)
        async with session.get(server.url()) as resp:
            assert len(resp.retry_history) == 3
        server.routes["/"] = ok
        for _ in range(20):
            assert await get(session, server.url()) == b"ok"


async def test_origins_have_budgets_of_their_own(kind: Sessions, clock: FakeClock) -> None:
    policies = Policies(**parts(clock, "retry", "budget"), clock=clock, sleep=no_sleep)
    async with (
        acting(then=status(503)) as down,
        acting(status(503)) as up,
        clean(kind, policies=policies) as session,
    ):
        await ask(session, down.url(), 100, 10)
        async with session.get(up.url()) as resp:
            assert (resp.status, len(resp.retry_history)) == (200, 1)


async def test_policies_of_several_sessions_share_a_budget(kind: Sessions, clock: FakeClock) -> None:
    budget = RetryBudget(0.0, min_per_second=5, clock=clock)
    both = [Policies(retry=Retry(3), budget=budget, clock=clock, sleep=no_sleep) for _ in range(2)]
    async with (
        acting(then=status(503)) as server,
        clean(kind, policies=both[0]) as one,
        clean(kind, policies=both[1]) as other,
    ):
        for session in (one, other):
            await ask(session, server.url(), 10, 5)
        assert len(server.exchanges) == 25
