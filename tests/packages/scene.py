"""How a tool, a session and wirespeed come together: the order of steps, and what lane followed.

A tool that patches aiohttp may be switched on before or after a session is made, and before
or after `wirespeed.install()`. `Scene` plays one such order; every test of a tool runs on all
of them, because each reaches other objects with its patch.
"""

import importlib
import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import pytest

import wirespeed

REQUIRED = os.environ.get("WIRESPEED_REQUIRE_PACKAGES", "") not in ("", "0")

# No wirespeed at all: what the tool promises, and whether it works on this aiohttp.
PLAIN = ("aiohttp tool session", "aiohttp session tool")
# Written for wirespeed: the session is a `wirespeed.ClientSession`.
DIRECT = ("tool session", "session tool")
# Written for aiohttp: the session is whatever `aiohttp.ClientSession` is at that step.
INSTALLED = (
    "install tool session",
    "install session tool",
    "tool install session",
    "tool session install",
    "session install tool",
)
ORDERS = PLAIN + DIRECT + INSTALLED

# A tool that undoes its patch through aiohttp's name, which install() has given to our class meanwhile.
NOT_UNDONE = ("tool install session", "tool session install")

every_order = pytest.mark.parametrize("order", ORDERS, ids=lambda order: order.replace(" ", "-"))
not_undone = pytest.mark.xfail(
    raises=AssertionError, reason="the tool unwraps our class; its wrap of aiohttp's stays"
)
every_order_but_not_undone = pytest.mark.parametrize(
    "order",
    [
        pytest.param(
            order,
            marks=not_undone if order in NOT_UNDONE else (),
        )
        for order in ORDERS
    ],
    ids=lambda order: order.replace(" ", "-"),
)
every_order_with_the_tool_first = pytest.mark.parametrize(
    "order",
    [order for order in ORDERS if order.index("tool") < order.index("session")],
    ids=lambda order: order.replace(" ", "-"),
)
native_only = pytest.mark.skipif(not wirespeed.NATIVE, reason="without the core every request is aiohttp's")


def need(name: str) -> ModuleType:
    """Import a module of a package; without it skip the test file, or fail where all are required."""
    try:
        with warnings.catch_warnings():
            # What a package imports on its own account is not this suite's business.
            warnings.simplefilter("ignore", DeprecationWarning)
            return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if REQUIRED:
            raise
        pytest.skip(f"{exc.name} is not installed; it is in the extra `packages`", allow_module_level=True)


class Scene:
    """One order of steps, played on entry; on exit everything is undone.

    Args:
        order: the steps, of "install", "tool" and "session"; "aiohttp" keeps wirespeed out.
        activate: makes the context manager that switches the tool on and off.
        options: for the session; callables are called in the step that makes it.
    """

    session: aiohttp.ClientSession

    def __init__(
        self, order: str, activate: Callable[[], AbstractContextManager[Any]], **options: Any
    ) -> None:
        self._steps = order.split()
        self._activate = activate
        self._options = options
        self._stack = ExitStack()
        self._tool_stack = ExitStack()
        self.tool: Any = None

    async def __aenter__(self) -> "Scene":
        for step in self._steps:
            if step == "install":
                self._stack.enter_context(wirespeed.installed())
            elif step == "tool":
                self.tool = self._tool_stack.enter_context(self._activate())
            elif step == "session":
                self.session = self.new_session()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.deactivate()
        await self.session.close()
        self._stack.close()

    def new_session(self) -> aiohttp.ClientSession:
        options = {name: make() for name, make in self._options.items()}
        if "install" in self._steps or "aiohttp" in self._steps:
            return aiohttp.ClientSession(**options)
        return wirespeed.ClientSession(**options)

    def lane(self, expected: str = "express") -> str:
        """The lane of the session's requests, where `expected` is that of a session made in time."""
        is_older = "install" in self._steps and self._steps.index("session") < self._steps.index("install")
        # A session that was there before install() keeps aiohttp's connector.
        return "foreign connector" if is_older else expected

    def deactivate(self) -> None:
        """Switch the tool off; the rest stays."""
        self._tool_stack.close()


def stats(session: aiohttp.ClientSession) -> dict[str, int]:
    """Requests by lane: "express" or the reason for the full lane; nothing for aiohttp's own session."""
    if not isinstance(session, wirespeed.ClientSession) or not hasattr(session, "native_stats"):
        return {}
    told = session.native_stats()
    return {"express": told["express"], **told["full"]}


@contextmanager
def lane(session: aiohttp.ClientSession, *expected: str) -> Iterator[None]:
    """Fail unless the session's requests in the block took the expected lanes; none expected: not ours.

    Args:
        session: of wirespeed; nothing is checked for another one, nor without the core.
        expected: "express" or the value of a LaneReason; each at least once, and no other.
    """
    before = stats(session)
    yield
    if wirespeed.NATIVE and before:
        after = stats(session)
        grown = {name for name, count in after.items() if count > before.get(name, 0)}
        assert grown == set(expected), after


def support_folder() -> str:
    """For `sys.path` of a script that wants `support`."""
    return str(Path(__file__).parents[1])


def run_script(script: str, *args: str, native: bool = wirespeed.NATIVE, **environ: str) -> str:
    """Run a program in a Python of its own and return what it printed."""
    environment = {**os.environ, **environ}
    environment["WIRESPEED_NO_EXTENSIONS"] = "" if native else "1"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), *args],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
