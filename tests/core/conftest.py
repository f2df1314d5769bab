"""The core's tests need the core: in fallback mode there is none, and nothing here is collected.

Hypothesis runs the same examples every time; `WIRESPEED_LONG=1` runs many more, at random.
"""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import wirespeed

LONG = os.environ.get("WIRESPEED_LONG", "") not in ("", "0")

# The fallback runs on aiohttp's own classes: there is no wirespeed._core to import.
collect_ignore_glob = [] if wirespeed.NATIVE else ["test_*.py"]

settings.register_profile(
    "core",
    max_examples=10_000 if LONG else 150,
    stateful_step_count=50,
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("core")


@pytest.fixture(autouse=True)
def _system_clock() -> Iterator[None]:
    """Take the clock back from the last fake loop."""
    if not wirespeed.NATIVE:
        yield
        return
    from wirespeed._core import deadlines

    yield
    deadlines.use_clock()


def pytest_report_header() -> str:
    """Say why the core's tests are absent, where they are."""
    return "" if wirespeed.NATIVE else "tests/core: not collected, wirespeed runs without its extensions"
