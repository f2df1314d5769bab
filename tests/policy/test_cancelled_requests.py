"""Cancelling, and the total time, at any point of a request under all policies: nothing is left behind."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from support.checks import eventually

from wirespeed.policy import Bulkhead, Hedge, Policies, Retry, RetryBudget

from .sockets import (
    Action,
    Sessions,
    acting,
    after,
    assert_free,
    clean,
    in_use,
    ok,
    reset_now,
    stall,
    status,
)

STEPS = 60


def all_on() -> Policies:
    return Policies(
        retry=Retry(3, backoff_factor=0.002),
        hedge=Hedge(delay=0.002),
        bulkhead=Bulkhead(2),
        budget=RetryBudget(1.0, min_per_second=1e6),
    )


later = after(0.004, ok)


WAYS: dict[str, list[Action]] = {
    "answers": [ok],
    "503s": [status(503), status(503)],
    "resets": [reset_now, reset_now],
    "a body that never ends": [lambda x: x.send(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nhalf")],
    "hedged, the second wins": [stall, ok],
    "hedged, the first wins": [later, stall],
    "hedged, the first fails": [after(0.004, reset_now), later],
    "hedged, then retried": [stall, status(503), status(503), reset_now, later, later],
}


async def one(session: aiohttp.ClientSession, url: str, **kwargs: Any) -> None:
    async with session.get(url, **kwargs) as resp:
        await resp.read()


async def cancelled_after(steps: int, task: "asyncio.Task[Any]") -> None:
    """Cancel a task after so many turns of the loop; some of them wait for the sockets."""
    for step in range(steps):
        await asyncio.sleep(0.0005 if step % 8 == 7 else 0)
        if task.done():
            break
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None or isinstance(task.exception(), aiohttp.ClientError)


@pytest.mark.parametrize("acts", WAYS.values(), ids=WAYS)
async def test_cancelled_after_any_number_of_steps(kind: Sessions, acts: list[Action]) -> None:
    policies = all_on()
    async with acting() as server, clean(kind, policies=policies) as session:
        for steps in range(0, STEPS, 1):
            left = list(acts)
            server.routes["/"] = lambda x, left=left: (left.pop(0) if left else ok)(x)  # type: ignore[misc]
            task = asyncio.ensure_future(one(session, server.url()))
            await cancelled_after(steps, task)
            await eventually(lambda: not in_use(session), "no connection in use")
            await eventually(lambda: len(asyncio.all_tasks()) == 1, "no task left")
            assert_free(policies)
        await one(session, server.url())


async def test_cancelled_while_others_wait_for_the_same_slots(kind: Sessions) -> None:
    policies = all_on()
    acts = itertools.cycle([ok, later, stall, status(503), reset_now, later])
    async with acting(then=lambda x: next(acts)(x)) as server, clean(kind, policies=policies) as session:
        for steps in range(0, STEPS, 4):
            tasks = [asyncio.ensure_future(one(session, server.url())) for _ in range(6)]
            for n, task in enumerate(tasks):
                await cancelled_after(steps if n % 2 else 3, task)
            await eventually(lambda: not in_use(session), "no connection in use")
            assert_free(policies)
        server.routes["/"] = ok
        await asyncio.gather(*(one(session, server.url()) for _ in range(6)))


@pytest.mark.parametrize("acts", WAYS.values(), ids=WAYS)
async def test_total_time_that_passes_anywhere(kind: Sessions, acts: list[Action]) -> None:
    policies = all_on()
    task: Any = asyncio.current_task()
    cancelling: Callable[[], int] = getattr(task, "cancelling", lambda: 0)
    async with acting() as server, clean(kind, policies=policies) as session:
        for number in range(1, 40):
            left = list(acts)
            server.routes["/"] = lambda x, left=left: (left.pop(0) if left else ok)(x)  # type: ignore[misc]
            timeout = aiohttp.ClientTimeout(total=0.0004 * number)
            with contextlib.suppress(asyncio.TimeoutError, aiohttp.ClientError):
                await one(session, server.url(), timeout=timeout)
            assert cancelling() == 0
            await eventually(lambda: not in_use(session), "no connection in use")
            await eventually(lambda: len(asyncio.all_tasks()) == 1, "no task left")
            assert_free(policies)
        await one(session, server.url())


@pytest.mark.parametrize("acts", WAYS.values(), ids=WAYS)
async def test_the_session_is_closed_anywhere(kind: Sessions, acts: list[Action]) -> None:
    policies = all_on()
    async with acting() as server:
        for steps in range(0, STEPS, 3):
            left = list(acts)
            server.routes["/"] = lambda x, left=left: (left.pop(0) if left else ok)(x)  # type: ignore[misc]
            async with clean(kind, policies=policies) as session:
                task = asyncio.ensure_future(one(session, server.url()))
                for _ in range(steps):
                    await asyncio.sleep(0)
                await session.close()
                await asyncio.wait([task], timeout=2)
                if not task.done():
                    task.cancel()  # a response whose body never comes, on a connection that was told to end
                await asyncio.gather(task, return_exceptions=True)
            assert_free(policies)
