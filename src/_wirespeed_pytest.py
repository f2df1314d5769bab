"""The pytest plugin: the fixture `wirespeed_mock`, and `--wirespeed-leaks`.

pytest loads it wherever wirespeed is installed. It stands outside of the package, because importing
a module of the package imports the package and aiohttp: that must wait until a test asks for the
fixture, or has imported them itself.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from wirespeed.observe.leaks import Leak
    from wirespeed.testing import HTTPMock

_MARKERS = (
    "wirespeed_mock(base_url=None, passthrough=(), assert_all_mocked=True, assert_all_called=False): "
    "arguments of the mock that the fixture of this name makes.",
    "wirespeed_leaks(allow=False): with allow=True, --wirespeed-leaks does not fail the test.",
)
_HELP = "Fail each test that leaks a response, a connection or a session, with the line that acquired it."
_has_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("wirespeed")
    group.addoption("--wirespeed-leaks", action="store_true", default=False, help=_HELP)
    parser.addini("wirespeed_leaks", _HELP, type="bool", default=False)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    # The first moment at which the options are known: a conftest may make a session.
    if early_config.known_args_namespace.wirespeed_leaks or early_config.getini("wirespeed_leaks"):
        _turn_on()


def pytest_configure(config: pytest.Config) -> None:
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)
    if config.getoption("wirespeed_leaks") or config.getini("wirespeed_leaks"):
        _turn_on()
        config.pluginmanager.register(_LeakCheck(), "wirespeed_leaks")


def _turn_on() -> None:
    os.environ["WIRESPEED_TRACK_LEAKS"] = "1"
    if "wirespeed" in sys.modules:
        from wirespeed.observe import leaks

        leaks.start()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.when == "call":
        item.stash[_has_failed] = call.excinfo is not None


class _LeakCheck:
    """Fails the tests that leak: after the test's own code, and once more after its fixtures' ends.

    What is found after the test has ended well fails the test; what shows only when its fixtures
    have ended (a session of a fixture is closed, a loop is closed) is an error of its teardown.
    A test that fails anyhow gets the leaks as a section of its report.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._set_up: dict[int, pytest.FixtureDef[Any]] = {}

    # What a fixture made, or cleans up at its end, is in its hands.

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
        self._set_up[id(fixturedef)] = fixturedef
        return (yield)

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        self._set_up.pop(id(fixturedef), None)

    def _in_use(self, item: pytest.Item) -> list[object]:
        """List the values of the fixtures that have not ended, and what is called when things end."""
        alive: list[object] = []
        stack = getattr(getattr(item.session, "_setupstate", None), "stack", {})
        for finalizers, *_ in stack.values():
            alive += finalizers
        for fixture in self._set_up.values():
            if (cached := fixture.cached_result) is not None:
                alive.append(cached[0])
            alive += getattr(fixture, "_finalizers", ())
        return alive

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        tracking = sys.modules.get("wirespeed.observe.tracking")
        if tracking is not None and tracking.sessions is not None:
            # A fixture makes a session for each test: that is no session per request.
            tracking.sessions.start_over()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._checked(item, "call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._checked(item, "teardown"))

    def _checked(self, item: pytest.Item, when: str) -> Generator[None, object, object]:
        try:
            result = yield
        except BaseException:
            if text := self._describe_new(item):
                item.add_report_section(when, "wirespeed leaks", text)
            raise
        if text := self._describe_new(item):
            # Not through the traceback of this function, which nobody wants to see.
            raise pytest.fail.Exception(text, pytrace=False)
        return result

    def _describe_new(self, item: pytest.Item) -> str:
        """Describe what the test has leaked; empty when it leaked nothing, or may."""
        found = self._new_leaks(item)
        marker = item.get_closest_marker("wirespeed_leaks")
        if not found or (marker is not None and marker.kwargs.get("allow")):
            return ""
        if len(found) == 1:
            return f"wirespeed found a leak: {found[0].report()}"
        return "\n\n".join([f"wirespeed found {len(found)} leaks:", *(leak.report() for leak in found)])

    def _new_leaks(self, item: pytest.Item) -> list[Leak]:
        """Collect garbage, then list the leaks that were not listed before."""
        leaks = sys.modules.get("wirespeed.observe.leaks")
        if leaks is None:
            return []
        gc.collect()
        listed: list[Leak] = leaks.all_leaks(final=True, also_alive=self._in_use(item))
        found = [leak for leak in listed if leak.serial not in self._seen]
        self._seen.update(leak.serial for leak in found)
        return found


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
