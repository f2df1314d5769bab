"""A connector that has figures and observers, and nothing else: what exporters see of one."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from wirespeed.observe import CloseReason, Histogram, PoolStats, Spread
from wirespeed.observe.observer import Observer

_T = TypeVar("_T")


async def while_requests_run(session: Any, url: str, work: Callable[[], _T]) -> tuple[int, list[_T]]:
    """Do something again and again on a thread, while a session sends requests.

    Returns:
        How many requests there were, and what the thread's rounds gave: at least 20.
    """
    rounds: list[_T] = []
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            rounds.append(work())
            # Else each of asyncio's system calls costs it a turn of this thread, and the test minutes.
            time.sleep(0.001)

    working = asyncio.ensure_future(asyncio.to_thread(repeat))
    requests = 0
    try:
        while len(rounds) < 20 and not working.done():
            responses = await asyncio.gather(*(session.get(url) for _ in range(10)))
            await asyncio.gather(*(resp.read() for resp in responses))
            requests += len(responses)
    finally:
        done.set()
    await working
    return requests, rounds


class Inbox:
    """Stands for a loop of another thread: keeps what it is to call."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def call_soon_threadsafe(self, callback: Callable[[], object]) -> None:
        self.calls.append(callback)

    def run(self) -> None:
        while self.calls:
            self.calls.pop(0)()


class FakeConnector:
    """Figures by origin, to be changed by the test; what the observers were told is up to it."""

    def __init__(self, **figures: PoolStats) -> None:
        self.inbox = Inbox()
        self._loop: Any = self.inbox
        self.figures = {origin(name): stats for name, stats in figures.items()}
        self.observers: list[Observer] = []
        self.reads = 0

    def stats_by_origin(self) -> dict[str, PoolStats]:
        self.reads += 1
        return dict(self.figures)

    def set(self, name: str, **figures: Any) -> None:
        """Change some figures of an origin."""
        before = self.figures.get(origin(name), PoolStats())
        self.figures[origin(name)] = dataclasses.replace(before, **figures)

    def add_observer(self, observer: Observer) -> None:
        self.observers.append(observer)

    def remove_observer(self, observer: Observer) -> None:
        self.observers.remove(observer)


def origin(name: str) -> str:
    return f"https://{name}.example"


def busy(requests: int = 1) -> PoolStats:
    """The figures of an origin with all of them different from nothing."""
    return PoolStats(
        in_use=2,
        idle=3,
        dialling=4,
        waiting=5,
        created=6,
        reused=7,
        requests=requests,
        refused=8,
        wait_timeouts=9,
        dial_failures=10,
        stale_retries=11,
        bytes_in=12,
        bytes_out=13,
        closed={CloseReason.IDLE_EOF: 14, CloseReason.MAX_AGE: 15},
        waits=Histogram(count=3, total=0.3125, max=0.25, counts=(1, 0, 0, 0, 0, 1, 0, 0, 1, *[0] * 7)),
        dials=Spread(count=17, total=1.5, max=0.75),
        tls_handshakes=Spread(count=18, total=2.5, max=0.5),
        requests_per_connection=Spread(count=19, total=190.0, max=20.0),
        learned_keepalive=4.5,
    )
