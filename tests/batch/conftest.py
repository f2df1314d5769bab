"""Every test of the batch runs on each driver."""

from pathlib import Path
from typing import Any

import pytest
from support.drivers import driver
from support.loops import keep

__all__ = ["driver"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the driver over tasks on the full lane: it knows nothing of lanes."""

    def is_of_use(item: pytest.Item, parameters: dict[str, Any]) -> bool:
        is_ours = item.path.parent == Path(__file__).parent
        return not (is_ours and parameters.get("driver") == "portable" and parameters.get("kind") == "full")

    keep(config, items, is_of_use)


@pytest.fixture(autouse=True)
def each_driver(driver: str) -> None:
    """Have the test run on each driver, whether or not it asks for its name."""
