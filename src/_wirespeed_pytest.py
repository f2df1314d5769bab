"""The pytest plugin: the fixture `wirespeed_mock`. pytest loads it wherever wirespeed is installed.

It stands outside of the package, because importing a module of the package imports the package
and aiohttp: that must wait until a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wirespeed.testing import HTTPMock

_MARKER = (
    "wirespeed_mock(base_url=None, passthrough=(), assert_all_mocked=True, assert_all_called=False): "
    "arguments of the mock that the fixture of this name makes."
)
_has_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "call":
        item.stash[_has_failed] = call.excinfo is not None


@pytest.fixture
def wirespeed_mock(request: pytest.FixtureRequest) -> Iterator[HTTPMock]:
    """A `wirespeed.testing.mock()` for the test: no session reaches the network.

    The arguments are those of the marker of the same name. What the mock asserts at its end is
    asserted when the test has passed so far.
    """
    from wirespeed.testing import mock

    marker = request.node.get_closest_marker("wirespeed_mock")
    api = mock(*marker.args, **marker.kwargs) if marker else mock()
    api.start()
    try:
        yield api
    finally:
        api.stop()
    if not request.node.stash.get(_has_failed, False):
        api.assert_at_end()
