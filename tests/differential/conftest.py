"""Fixtures of the differential suite, and how long hypothesis searches."""

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

LONG = os.environ.get("WIRESPEED_LONG", "") not in ("", "0")
"""`WIRESPEED_LONG=1` searches for long and afresh each time."""

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
