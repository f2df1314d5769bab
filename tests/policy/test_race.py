"""Attempts that race: one response is taken, every other one is closed, and nothing is left running."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import Coroutine
from typing import Any

import pytest
from support.checks import eventually

from wirespeed.policy.race import Race

from .simulated import ROUNDS, Response, settle

GOOD, BAD, RAISES, CANCELS, STUBBORN = "good", "bad", "raises", "cancels", "stubborn"
ENDS = (GOOD, BAD, RAISES, CANCELS)
POLL = 0.0005


class Attempt:
    """One that ends when and as it is told."""

    def __init__(self, number: int, end: str) -> None:
        self.number, self.end = number, end
        self.joined = asyncio.Event()
        self.is_over = self.was_cancelled = False
        self.response = Response(200 if end in (GOOD, STUBBORN) else 500)
        self.failure = RuntimeError(str(number))
        self.go = asyncio.get_running_loop().create_future()

    @property
    def begun(self) -> bool:
        return self.joined.is_set()

    async def run(self) -> Any:
        self.joined.set()
        try:
            await self.go
            if self.end == RAISES:
                raise self.failure
            if self.end == CANCELS:
                raise asyncio.CancelledError
            return self.response
        except asyncio.CancelledError:
            self.was_cancelled = True
            if self.end == STUBBORN:
                return self.response
            raise
        finally:
            self.is_over = True


class Raced(Race):
    """Attempts join as soon as `is_due`."""

    def __init__(self, *ends: str) -> None:
        super().__init__(0.0, max(len(ends) - 1, 1))
        self.attempts = [Attempt(number, end) for number, end in enumerate(ends)]
        self.begun = 0
        self.is_due = True
        self.asked = 0
        self.has_no_time = False

    def due(self) -> float:
        self.asked += 1
        return 0.0 if self.is_due else POLL

    def another(self) -> Coroutine[Any, Any, Any] | None:
        self.begun += 1
        return self.attempts[self.begun].run() if self.begun < len(self.attempts) else None

    def will_do(self, resp: Any) -> bool:
        return bool(resp.status == 200)

    def is_over(self) -> bool:
        return self.has_no_time

    def on_end(self, number: int) -> None:
        self.number = number

    async def answer(self, first: Coroutine[Any, Any, Any]) -> tuple[Any, int]:
        """The response, and the number of its attempt."""
        return await self.run(first), self.number

    def start(self) -> "asyncio.Task[tuple[Any, int]]":
        return asyncio.create_task(self.answer(self.attempts[0].run()))

    async def all_joined(self) -> None:
        for attempt in self.attempts:
            await attempt.joined.wait()

    def check(self, winner: int | None) -> None:
        """Nothing runs, and every response that there is but the winner's was closed, once."""
        assert [attempt.is_over for attempt in self.attempts if attempt.begun] == [
            True for attempt in self.attempts if attempt.begun
        ]
        for number, attempt in enumerate(self.attempts):
            has_response = attempt.go.done() and not attempt.go.cancelled() and not attempt.was_cancelled
            has_response = has_response and attempt.end in (GOOD, BAD, STUBBORN)
            has_response = has_response or (attempt.end == STUBBORN and attempt.was_cancelled)
            if number == winner:
                assert attempt.response.ends == []
            else:
                assert attempt.response.ends == (["closed"] if has_response else []), (number, attempt.end)


async def lost(task: "asyncio.Task[Any]") -> BaseException | None:
    """What a task has raised; None where it has a result."""
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


async def test_a_first_attempt_that_is_quick_runs_alone() -> None:
    race = Raced(GOOD, GOOD)
    race.attempts[0].go.set_result(None)
    assert await race.answer(race.attempts[0].run()) == (race.attempts[0].response, 0)
    assert not race.attempts[1].begun
    await asyncio.sleep(POLL)
    assert race.asked == 0  # its timer is gone
    race.check(0)


async def test_a_first_attempt_runs_in_the_task_of_its_caller() -> None:
    race = Raced(GOOD)
    task = asyncio.current_task()
    seen = []

    async def first() -> Any:
        seen.append(asyncio.current_task())
        return race.attempts[0].response

    await race.run(first())
    assert seen == [task]


async def test_others_join_when_due_and_as_many_as_allowed() -> None:
    race = Raced(GOOD, GOOD, GOOD)
    race.is_due = False
    task = race.start()
    await eventually(lambda: race.asked >= 3)
    assert [attempt.begun for attempt in race.attempts] == [True, False, False]
    race.is_due = True
    await race.all_joined()
    asked = race.asked
    await asyncio.sleep(5 * POLL)
    assert race.asked == asked
    race.attempts[0].go.set_result(None)
    assert await task == (race.attempts[0].response, 0)
    await settle()
    race.check(0)


async def test_nobody_is_asked_for_after_a_refusal() -> None:
    race = Raced(GOOD)
    task = race.start()
    await asyncio.sleep(5 * POLL)
    assert (race.asked, race.begun) == (1, 1)
    race.attempts[0].go.set_result(None)
    assert await task == (race.attempts[0].response, 0)


def expected(ends: tuple[str, ...], order: tuple[int, ...]) -> tuple[int | None, BaseException | type | None]:
    """Who wins, or what is raised: the first good one, the end of the first attempt where there is none.

    Who cancels the first attempt from inside cancels the caller; that is waited for by nobody.
    """
    for number in order:
        if ends[number] == GOOD:
            return number, None
        if number == 0 and ends[0] == CANCELS:
            return None, asyncio.CancelledError
    return (0, None) if ends[0] == BAD else (None, RuntimeError)


CASES = [
    (ends, order)
    for number in (1, 2, 3)
    for ends in itertools.product(ENDS, repeat=number)
    for order in itertools.permutations(range(number))
]


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
async def test_every_order_of_every_end(at_once: bool) -> None:
    for ends, order in CASES:
        race = Raced(*ends)
        task = race.start()
        await race.all_joined()
        for number in order:
            if not race.attempts[number].go.done():
                race.attempts[number].go.set_result(None)
            if not at_once:
                await settle()
        error = await lost(task)
        await settle()
        if at_once:
            # Any of those that will do, when they come together.
            winner = task.result()[1] if error is None else None
            assert winner is None or ends[winner] == GOOD or (winner == 0 and GOOD not in ends), (ends, order)
            if error is not None:
                assert CANCELS in ends[:1] or GOOD not in ends, (ends, order)
        else:
            winner, raised = expected(ends, order)
            assert (error is None) == (raised is None), (ends, order, error)
            assert raised is None or isinstance(error, raised), (ends, order)  # type: ignore[arg-type]
            assert error is None or isinstance(error, asyncio.CancelledError) or error.args == ("0",)
            assert error is not None or task.result() == (race.attempts[winner or 0].response, winner)
        race.check(winner)


@pytest.mark.parametrize("step", range(4))
async def test_a_race_that_is_cancelled_leaves_nothing(step: int) -> None:
    """Before anything has ended, and after each attempt that will not do."""
    for number in (1, 2, 3):
        for ends in itertools.product((GOOD, BAD, RAISES, STUBBORN), repeat=number):
            for order in itertools.permutations(range(number)):
                if step > number or any(ends[who] in (GOOD, STUBBORN) for who in order[:step]):
                    continue
                race = Raced(*ends)
                task = race.start()
                await race.all_joined()
                for who in order[:step]:
                    race.attempts[who].go.set_result(None)
                    await settle()
                if task.done():
                    task.exception()
                    continue
                task.cancel()
                error = await lost(task)
                await settle()
                if ends[0] == STUBBORN:
                    assert error is None  # its own affair
                    race.check(0)
                    continue
                assert isinstance(error, asyncio.CancelledError), (ends, order)
                race.check(None)


async def test_nobody_is_waited_for_when_the_time_of_all_is_over() -> None:
    race = Raced(RAISES, GOOD)
    task = race.start()
    await race.all_joined()
    race.has_no_time = True
    race.attempts[0].go.set_result(None)
    assert await lost(task) is race.attempts[0].failure
    await settle()
    race.check(None)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not know who cancels it")
@pytest.mark.parametrize("comes_first", ["the winner", "the caller"])
async def test_a_caller_that_cancels_while_another_wins_is_heard(comes_first: str) -> None:
    race = Raced(BAD, GOOD)
    task = race.start()
    await race.all_joined()
    if comes_first == "the winner":
        race.attempts[1].go.set_result(None)
        for _ in range(ROUNDS):
            if race._winner is None:
                await asyncio.sleep(0)
        task.cancel()
    else:
        race.attempts[1].go.set_result(None)
        task.cancel()
    assert isinstance(await lost(task), asyncio.CancelledError)
    await settle()
    race.check(None)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not know who cancels it")
async def test_a_task_that_another_has_won_is_not_cancelled_any_more() -> None:
    race = Raced(BAD, GOOD)

    async def caller() -> Any:
        resp, number = await race.answer(race.attempts[0].run())
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return resp, number, task.cancelling()

    task = asyncio.create_task(caller())
    await race.all_joined()
    race.attempts[1].go.set_result(None)
    assert await task == (race.attempts[1].response, 1, 0)
    race.check(1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not know who cancels it")
@pytest.mark.parametrize("end", [STUBBORN, RAISES])
async def test_a_first_attempt_that_takes_its_cancelling_for_something_else_loses_all_the_same(
    end: str,
) -> None:
    race = Raced(STUBBORN, GOOD)

    async def first() -> Any:
        try:
            return await race.attempts[0].run()
        finally:
            if end == RAISES:
                race.attempts[0].response.close()  # as who raises does
                raise OSError

    async def caller() -> Any:
        answer = await race.answer(first())
        task = asyncio.current_task()
        assert task is not None
        return answer, task.cancelling()

    task = asyncio.create_task(caller())
    await race.all_joined()
    race.attempts[1].go.set_result(None)
    assert await task == ((race.attempts[1].response, 1), 0)
    race.check(1)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="a task does not know who cancels it")
@pytest.mark.parametrize("winner", [0, 1])
async def test_who_has_been_cancelled_before_and_went_on_races_as_any_other(winner: int) -> None:
    race = Raced(GOOD, GOOD)

    async def caller() -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return await race.answer(race.attempts[0].run()), task.cancelling()

    task = asyncio.create_task(caller())
    await race.all_joined()
    race.attempts[winner].go.set_result(None)
    assert await task == ((race.attempts[winner].response, winner), 1)
    await settle()
    race.check(winner)


async def test_losers_that_will_not_be_cancelled_are_closed_when_they_come() -> None:
    race = Raced(GOOD, STUBBORN, STUBBORN)
    task = race.start()
    await race.all_joined()
    race.attempts[0].go.set_result(None)
    assert (await task)[1] == 0
    await settle()
    race.check(0)


async def test_what_cannot_be_judged_is_raised_and_closed() -> None:
    class Unjudged(Raced):
        def will_do(self, resp: Any) -> bool:
            raise ValueError

    race = Unjudged(BAD, GOOD)
    task = race.start()
    await race.all_joined()
    race.attempts[0].go.set_result(None)
    assert isinstance(await lost(task), ValueError)
    await settle()
    race.check(None)
