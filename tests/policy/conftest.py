"""Policies decide by a clock that tests set; hypothesis runs the same examples every time, but for
`WIRESPEED_LONG=1`, which runs many more, at random.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.loops import is_its_turn, keep

import wirespeed

from .sockets import SESSIONS, Sessions

HERE = Path(__file__).parent
LONG = os.environ.get("WIRESPEED_LONG", "") not in ("", "0")

settings.register_profile(
    "policy",
    max_examples=10_000 if LONG else 150,
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("policy")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run what goes over sockets on one of the loops, by turns; on all of them in long runs.

    Without the core our sessions are aiohttp's own code: both need not show it.
    """
    if LONG:
        return

    def is_kept(item: pytest.Item, parameters: dict[str, object]) -> bool:
        if "kind" not in parameters or item.path.parent != HERE:
            return True
        is_twice = not wirespeed.NATIVE and parameters["kind"] == "aiohttp"
        return not is_twice and is_its_turn(item, parameters.get("loop_kind"))

    keep(config, items, is_kept)


class FakeClock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        self.now += seconds
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=sorted(SESSIONS))
def kind(request: pytest.FixtureRequest) -> Sessions:
    """Each kind of session that policies work on."""
    found: Sessions = SESSIONS[request.param]
    return found


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        yield nobody.getsockname()[1]
