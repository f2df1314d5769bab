"""Fixtures of the differential suite."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def frozen_imports() -> Iterator[None]:
    """Keep what importing made out of the collections that end each test: it is most of the heap."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
