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


@pytest.mark.parametrize("is_first_first", [True, False])
async def test_tasks_leave_in_any_order_and_each_has_its_cancelling_taken_back(is_first_first: bool) -> None:
    loop = asyncio.get_running_loop()
    clock = Clock(loop, Deadlines(loop), loop.time() + 0.02)

    async def stay(seconds: float) -> None:
        with clock:
            try:
                await asyncio.sleep(5)
            finally:
                await asyncio.sleep(seconds)

    async def enter(seconds: float) -> int:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(asyncio.TimeoutError):
            await stay(seconds)
        return task.cancelling() if hasattr(task, "cancelling") else 0

    delays = (0.01, 0.03) if is_first_first else (0.03, 0.01)
    assert await asyncio.gather(*map(enter, delays)) == [0, 0]
