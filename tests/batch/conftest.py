"""Every test of the batch runs on each driver."""

import pytest
from support.drivers import driver

__all__ = ["driver"]


@pytest.fixture(autouse=True)
def each_driver(driver: str) -> None:
    """Have the test run on each driver, whether or not it asks for its name."""
