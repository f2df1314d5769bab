"""Every test of the batch runs on each driver."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.drivers import driver
from support.loops import is_its_turn, keep

__all__ = ["driver"]

LONG = os.environ.get("WIRESPEED_LONG", "") not in ("", "0")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the driver over tasks on the full lane: it knows nothing of lanes.

    Each test runs on one of the loops, by turns; on all of them in long runs.
    """

    def is_of_use(item: pytest.Item, parameters: dict[str, Any]) -> bool:
        if item.path.parent != Path(__file__).parent:
            return True
        if parameters.get("driver") == "portable" and parameters.get("kind") == "full":
            return False
        return LONG or is_its_turn(item, parameters.get("loop_kind"))

    keep(config, items, is_of_use)


@pytest.fixture(autouse=True)
def each_driver(driver: str) -> None:
    """Have the test run on each driver, whether or not it asks for its name."""
