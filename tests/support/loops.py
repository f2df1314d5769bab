"""The event loops that coroutine tests run on; WIRESPEED_TEST_LOOP names a single one."""

import asyncio
import os
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop
except ImportError:
    pass
if only := os.environ.get("WIRESPEED_TEST_LOOP"):
    LOOPS = {only: LOOPS[only]}


def is_its_turn(item: pytest.Item, loop: Any) -> bool:
    """Whether a test that runs on one of the loops runs on this one; they take turns."""
    loops = sorted(LOOPS)
    if loop not in loops:
        return True
    return bool(loop == loops[crc32(item.name.replace(str(loop), "").encode()) % len(loops)])


def keep(
    config: pytest.Config, items: list[pytest.Item], is_kept: Callable[[pytest.Item, dict[str, Any]], bool]
) -> None:
    """Deselect tests, as `pytest_collection_modifyitems` may.

    Args:
        config: pytest's.
        items: all that were collected; changed.
        is_kept: is given each with its parameters.
    """
    kept, dropped = [], []
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        (kept if is_kept(item, parameters) else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept
