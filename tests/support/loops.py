"""The event loops that coroutine tests run on; WIRESPEED_TEST_LOOP names a single one."""

import asyncio
import os
from collections.abc import Callable

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop
except ImportError:
    pass
if only := os.environ.get("WIRESPEED_TEST_LOOP"):
    LOOPS = {only: LOOPS[only]}
