"""Every test starts with aiohttp's classes, and ours, as they are without any tool."""

from collections.abc import Iterator

import aiohttp
import pytest

import wirespeed

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
_STAYS = {"__new__", "__dict__", "__weakref__", "__doc__"}


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
