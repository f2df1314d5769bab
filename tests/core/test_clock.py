"""The clock of a request's total time: what it tells, and what it does to the tasks inside."""

import asyncio

import pytest

from wirespeed._core.clock import Clock
from wirespeed._core.deadlines import Deadlines

from .fakes import FakeLoop


def test_clock_tells_its_deadline_and_that_it_has_passed() -> None:
    loop = FakeLoop(1000.0)
    clock = Clock(loop, Deadlines(loop), 1000.25)  # type: ignore[arg-type]
    assert (clock.deadline, clock.has_passed) == (1000.25, False)
    loop.advance(0.24)
    assert not clock.has_passed
    loop.advance(0.01)
    assert (clock.deadline, clock.has_passed) == (1000.25, True)


def test_clock_without_an_end_does_not_pass() -> None:
    loop = FakeLoop(1000.0)
    clock = Clock(loop, Deadlines(loop), float("inf"))  # type: ignore[arg-type]
    loop.advance(1e6)
    assert (clock.deadline, clock.has_passed) == (float("inf"), False)


@pytest.mark.parametrize("name", ["deadline", "has_passed"])
def test_what_a_clock_tells_is_read_only(name: str) -> None:
    loop = FakeLoop()
    clock = Clock(loop, Deadlines(loop), 2000.0)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        setattr(clock, name, 1)


async def test_clock_raises_at_once_where_the_time_has_passed() -> None:
    loop = asyncio.get_running_loop()
    clock = Clock(loop, Deadlines(loop), loop.time() + 0.01)
    with pytest.raises(asyncio.TimeoutError), clock:
        await asyncio.sleep(5)
    with pytest.raises(asyncio.TimeoutError), clock:
        pytest.fail("entered")
    with pytest.raises(asyncio.TimeoutError):
        clock.assert_timeout()
    clock.stop()


async def test_stopped_clock_does_nothing() -> None:
    loop = asyncio.get_running_loop()
    clock = Clock(loop, Deadlines(loop), loop.time() + 0.01)
    with clock:
        clock.stop()
        await asyncio.sleep(0.03)
    clock.assert_timeout()
