"""Coroutine tests on every loop, and the clients that one test body runs against.

A test that is a coroutine function runs once on uvloop and once on asyncio's own loop,
each time on a fresh loop in debug mode off, and fails when it leaves a task behind.
"""

import asyncio
import gc
import inspect
import os
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from support.loops import LOOPS, is_its_turn, keep

LONG = os.environ.get("WIRESPEED_LONG", "") not in ("", "0")
WAITING = frozenset(
    (
        "test_cancellation",
        "test_direct",
        "test_pool_lifetime",
        "test_pool_limits",
        "test_streaming",
        "test_timeouts",
    )
)
"""Modules whose tests wait for most of a minute together: on one loop by turns, but in long runs."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def is_kept(item: pytest.Item, parameters: dict[str, Any]) -> bool:
        return LONG or item.path.stem not in WAITING or is_its_turn(item, parameters.get("loop_kind"))

    keep(config, items, is_kept)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "loop_kind" in metafunc.fixturenames:
        metafunc.parametrize("loop_kind", sorted(LOOPS), scope="function")


@pytest.fixture
def loop(loop_kind: str) -> Iterator[asyncio.AbstractEventLoop]:
    """A fresh event loop; closed after the test, which must have ended every task."""
    loop = LOOPS[loop_kind]()
    asyncio.set_event_loop(loop)
    yield loop
    left = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()
    _settle()
    assert not left, f"tasks left behind: {left}"


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: Any) -> None:
    """Make every coroutine test use the `loop` fixture."""
    if inspect.iscoroutinefunction(obj) and name.startswith("test"):
        pytest.mark.usefixtures("loop")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests on the loop of their fixture."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    loop: asyncio.AbstractEventLoop = pyfuncitem.funcargs["loop"]
    coroutine: Coroutine[Any, Any, None] = function(**arguments)
    loop.run_until_complete(coroutine)
    return True


def pytest_collection_finish() -> None:
    _settle()


def _settle() -> None:
    """Collect the garbage, and leave what survives out of all collections to come.

    Thousands of tests and their reports live to the end; looking at them again and again took nine
    tenths of the suite's time.
    """
    gc.collect()
    gc.freeze()
