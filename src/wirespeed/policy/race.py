"""Attempts at the same request that race: the first answer that will do is taken, the others are let go.

Used for hedged requests. It must not decide when to hedge, nor know what attempts are made of.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from aiohttp import ClientResponse

Attempted = asyncio.Task[ClientResponse]


def start(attempt: Coroutine[Any, Any, ClientResponse]) -> Attempted:
    """Make a task of an attempt; where that is possible it runs at once, up to its first wait."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        return asyncio.Task(attempt, loop=loop, eager_start=True)
    return loop.create_task(attempt)


def let_go(task: Attempted) -> None:
    """Cancel an attempt, and close the response that it may have got all the same."""
    if not task.done():
        task.cancel()
        task.add_done_callback(let_go)
    elif not task.cancelled() and task.exception() is None:
        task.result().close()


async def race(
    first: Attempted,
    due: Callable[[], float | None],
    another: Callable[[], Attempted | None],
    will_do: Callable[[Attempted], bool],
) -> Attempted:
    """Wait for the first attempt that will do, and start others while none has come.

    Args:
        first: is under way.
        due: seconds until another is to be started; None for no more.
        another: starts one; None when that is refused.
        will_do: whether an attempt that has ended is what is wanted.

    Returns:
        That attempt, or the first one where none will do. All others were let go.
    """
    running = {first}
    chosen = None
    ended: list[Attempted] = []
    try:
        while running:
            left = due()
            if left is not None and left <= 0:
                if (task := another()) is not None:
                    running.add(task)
                continue
            done, running = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            ended.extend(done)
            chosen = next((task for task in done if will_do(task)), None)
            if chosen is not None:
                return chosen
        chosen = first
        return first
    finally:
        for task in {first, *ended, *running} - {chosen}:
            let_go(task)
