"""Fixtures of the differential suite, and how long hypothesis searches."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings
from support.loops import LOOPS, keep

import wirespeed

LONG = os.environ.get("WIRESPEED_LONG", "") not in ("", "0")
"""`WIRESPEED_LONG=1` searches for long and afresh each time."""
WAITING = frozenset(("test_expect", "test_tracing_handlers", "test_upload_tracker"))
"""Tables whose cases wait for most of their time; half of them tell."""

settings.register_profile(
    "differential",
    max_examples=10_000 if LONG else 60,
    derandomize=not LONG,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True, scope="session")
def frozen_imports() -> Iterator[None]:
    """Keep what importing made out of the collections that end each test: it is most of the heap."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Compare each case on one of the loops, by turns; on all of them in long runs.

    The loop makes hardly a difference to what is compared, and the cases are thousands. The
    fallback is aiohttp's own code below a thin session: a sample of them tells.
    """
    if LONG:
        return
    loops = sorted(LOOPS)

    def is_its_turn(item: pytest.Item, parameters: dict[str, Any]) -> bool:
        if "case" not in parameters or item.path.parent != Path(__file__).parent:
            return True
        turn = crc32(parameters["case"].id.encode())
        loop = loops[turn % len(loops)]
        # Like the fallback, the driver over tasks sends by the session's own methods.
        is_thin = not wirespeed.NATIVE or parameters.get("driver") == "portable"
        share = 4 if is_thin else 2 if item.path.stem in WAITING else 1
        is_sample = turn // len(loops) % share == 0
        return parameters.get("loop_kind", loop) == loop and is_sample

    keep(config, items, is_its_turn)
