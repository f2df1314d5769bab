"""What tests of absolute behaviour check with: lanes, descriptors, tasks, timers, reported errors."""

import asyncio
import gc
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import wirespeed


async def eventually(condition: Callable[[], object], what: str = "condition", within: float = 5.0) -> None:
    """Wait until `condition()` holds; fail with `what` after `within` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not condition():
        assert loop.time() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.002)


def assert_express(session: wirespeed.ClientSession, at_least: int = 1) -> None:
    """Every request of the session took the express lane (nothing to say without the core)."""
    if wirespeed.NATIVE:
        stats = session.native_stats()
        assert stats["full"] == {}, stats
        assert stats["express"] >= at_least, stats


def assert_full(session: wirespeed.ClientSession, at_least: int = 1) -> None:
    """Every request of the session took the full lane."""
    stats = session.native_stats()
    assert stats["express"] == 0, stats
    assert sum(stats["full"].values()) >= at_least, stats


@asynccontextmanager
async def express_session(*, at_least: int = 1, **kwargs: Any) -> AsyncIterator[wirespeed.ClientSession]:
    """A session whose requests must all have taken the express lane."""
    async with wirespeed.ClientSession(**kwargs) as session:
        yield session
    assert_express(session, at_least)


@asynccontextmanager
async def full_session(**kwargs: Any) -> AsyncIterator[wirespeed.ClientSession]:
    """A session whose requests must all have taken the full lane."""
    async with wirespeed.ClientSession(**kwargs) as session:
        yield session
    assert_full(session)


def open_fds() -> set[str]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    fds = set()
    for name in os.listdir(folder):
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the descriptor of the listing itself
        fds.add(name)
    return fds


def live_timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    """Timers that would still fire; asyncio's own loop alone lets itself be asked."""
    return [handle for handle in getattr(loop, "_scheduled", []) if not handle.cancelled()]


class Watch:
    """Descriptors, tasks, timers and reported errors since the start of the block."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.errors: list[dict[str, Any]] = []
        self.fds = open_fds()
        self.tasks = asyncio.all_tasks()
        self.timers = live_timers(self.loop)

    def new_tasks(self) -> set["asyncio.Task[Any]"]:
        return {task for task in asyncio.all_tasks() if task not in self.tasks and not task.done()}

    def new_timers(self) -> list[asyncio.TimerHandle]:
        return [handle for handle in live_timers(self.loop) if handle not in self.timers]

    async def assert_nothing_left(self) -> None:
        await eventually(lambda: not self.new_tasks(), "tasks ended")
        await eventually(lambda: open_fds() <= self.fds, "descriptors closed")
        gc.collect()
        await asyncio.sleep(0)
        assert not self.errors, self.errors


async def _first_stream(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop's first stream behind us: with it libuv opens a spare descriptor, and keeps it."""
    ours, other = socket.socketpair()
    both = {str(ours.fileno()), str(other.fileno())}
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
    transport.abort()
    other.close()
    await eventually(lambda: not both & open_fds(), "the first stream closed")


@asynccontextmanager
async def nothing_left() -> AsyncIterator[Watch]:
    """Fail when the block leaves descriptors, tasks or timers, or reports an error to the loop."""
    loop = asyncio.get_running_loop()
    gc.collect()
    await _first_stream(loop)
    watch = Watch()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: watch.errors.append(context))
    try:
        yield watch
        await watch.assert_nothing_left()
        await asyncio.sleep(0.005)  # the timer of the last `eventually` is gone
        assert not watch.new_timers(), watch.new_timers()
    finally:
        loop.set_exception_handler(before)


def resident_bytes() -> int:
    """Memory of this process in RAM now (its peak where /proc does not tell)."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
