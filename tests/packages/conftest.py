"""Every test starts with aiohttp's classes, and ours, as they are without any tool."""

import gc
from collections.abc import Iterator

import aiohttp
import pytest

import wirespeed

from .scene import PLAIN

_CLASSES = (
    aiohttp.ClientSession,
    aiohttp.ClientRequest,
    aiohttp.ClientResponse,
    aiohttp.BaseConnector,
    aiohttp.TCPConnector,
    aiohttp.UnixConnector,
    wirespeed.ClientSession,
    wirespeed.ClientResponse,
    wirespeed.TCPConnector,
    wirespeed.UnixConnector,
)
# `install()` leaves a `__new__` behind, by its documentation.
_STAYS = {"__annotations__", "__new__", "__dict__", "__weakref__", "__doc__"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Look at what a tool does without wirespeed on one loop only."""
    twice = []
    for item in items:
        params = (
            item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        )
        if params.get("order") in PLAIN and params.get("loop_kind") == "uvloop":
            twice.append(item)
    config.hook.pytest_deselected(items=twice)
    items[:] = [item for item in items if item not in twice]


@pytest.fixture(scope="package", autouse=True)
def _collecting_garbage_is_cheap() -> Iterator[None]:
    """Leave what the packages imported out of it: a million objects, looked at several times in each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_patch_is_left() -> Iterator[None]:
    """Put back what a tool left behind, so that one failure stays one; and fail for it."""
    before = [{name: value for name, value in vars(cls).items() if name not in _STAYS} for cls in _CLASSES]
    yield
    left = []
    for cls, members in zip(_CLASSES, before, strict=True):
        now = dict(vars(cls))
        for name in (now.keys() | members.keys()) - _STAYS:
            if name not in members:
                left.append(f"{cls.__qualname__}.{name}")
                delattr(cls, name)
            elif now.get(name) is not members[name]:
                left.append(f"{cls.__module__}.{cls.__qualname__}.{name}")
                setattr(cls, name, members[name])
    assert not left, f"patched after the test: {left}"
