"""The fastest event loop that is installed, `asyncio.run` on it, and tasks that start at once."""

import asyncio
import sys
from asyncio.base_events import BaseEventLoop
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Make a new event loop of the fastest kind installed.

    Returns:
        A uvloop loop (winloop on Windows), or asyncio's own where neither is installed.
    """
    try:
        if sys.platform == "win32":
            import winloop as fast
        else:
            import uvloop as fast
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = fast.new_event_loop()
    return loop


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run a coroutine to its end on the fastest loop installed, as `asyncio.run` does.

    Args:
        main: the coroutine to run.
        debug: asyncio's debug mode; None leaves it to the environment.

    Returns:
        What the coroutine returns.

    Raises:
        RuntimeError: called while a loop runs in this thread.
    """
    if sys.version_info >= (3, 11):
        with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
            return runner.run(main)
    return _run_on_310(main, debug)


def _run_on_310(main: Coroutine[Any, Any, _T], debug: bool | None) -> _T:
    """`asyncio.run` of CPython 3.10, which takes no loop factory."""
    if asyncio._get_running_loop() is not None:
        main.close()
        raise RuntimeError("wirespeed.run() cannot be called from a running event loop")
    loop = new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        if debug is not None:
            loop.set_debug(debug)
        return loop.run_until_complete(main)
    finally:
        try:
            _cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _cancel_all_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def start_task(coroutine: Coroutine[Any, Any, _T]) -> "asyncio.Task[_T]":
    """Start a task in this step where the Python version can, as aiohttp does.

    Args:
        coroutine: what the task runs; where it need not wait the task is done on return.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 14) and isinstance(loop, BaseEventLoop):
        return asyncio.create_task(coroutine, eager_start=True)
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return asyncio.create_task(coroutine)
