"""Deadlines: what they promise, against a fake clock and against a simple model."""

import gc
import math
import time
import weakref

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wirespeed._core.deadlines import Alarm, Deadlines

from .fakes import FakeLoop


class Fixture:
    def __init__(self, now: float = 1000.0) -> None:
        self.loop = FakeLoop(now)
        self.deadlines = Deadlines(self.loop)  # type: ignore[arg-type]
        self.fired: list[tuple[object, float]] = []

    def alarm(self, name: object, when: float | None = None) -> Alarm:
        alarm = Alarm(lambda now: self.fired.append((name, now)))
        if when is not None:
            alarm.set(self.deadlines, when)
        return alarm

    @property
    def names(self) -> list[object]:
        return [name for name, _ in self.fired]


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_deadlines_come_in_order_of_time(fixture: Fixture) -> None:
    alarms = [fixture.alarm(when, 1000 + when) for when in (3, 1, 2)]
    fixture.loop.advance(10)
    assert fixture.fired == [(1, 1001.0), (2, 1002.0), (3, 1003.0)]
    assert not any(alarm.is_set for alarm in alarms)
    assert fixture.loop.timers == []


def test_deadlines_of_one_millisecond_come_together(fixture: Fixture) -> None:
    alarms = [fixture.alarm(i, 1001.0001 + i / 10_000) for i in range(5)]
    assert fixture.loop.timers == [1001.001]
    fixture.loop.advance(1)
    assert fixture.fired == []
    fixture.loop.advance(0.001)
    assert sorted(fixture.names) == list(range(len(alarms)))


def test_deadline_is_rounded_up_to_a_millisecond_never_down(fixture: Fixture) -> None:
    alarm = fixture.alarm("a", 1000.0011)
    assert fixture.loop.timers == [1000.002]
    alarm.set(fixture.deadlines, 1000.003)
    fixture.loop.advance(1)
    assert fixture.fired == [("a", 1000.003)]


@pytest.mark.parametrize("tick", [282_014_432, 480_572_144, 90_177_733, 628_921_538])
def test_callback_is_never_told_a_time_before_the_one_asked_for(tick: int) -> None:
    # The time asked for is one bit above a millisecond, which multiplying by 1,000 rounds away.
    when = math.nextafter(tick / 1000, math.inf)
    fixture = Fixture(tick / 1000 - 1)
    alarm = fixture.alarm("a", when)
    fixture.loop.advance(2)
    assert fixture.names == ["a"]
    assert fixture.fired[0][1] >= when
    assert not alarm.is_set


def test_loop_that_wakes_early_still_serves_what_the_timer_was_set_for(fixture: Fixture) -> None:
    alarm = fixture.alarm("a", 1001)
    fixture.loop.now = 1000.9995
    fixture.deadlines._on_timer()  # type: ignore[attr-defined]
    assert fixture.fired == [("a", 1001.0)]
    assert not alarm.is_set


def test_deadline_unset_by_its_owner_does_not_come(fixture: Fixture) -> None:
    first, second, third = (fixture.alarm(i, 1001) for i in range(3))
    second.unset()
    second.unset()
    assert [first.is_set, second.is_set, third.is_set] == [True, False, True]
    assert len(fixture.deadlines) == 2
    fixture.loop.advance(1)
    assert sorted(fixture.names) == [0, 2]


@pytest.mark.parametrize("dying", range(4))
def test_deadline_collected_while_set_leaves_its_neighbours_linked(fixture: Fixture, dying: int) -> None:
    alarms = [fixture.alarm(i, 1001) for i in range(4)]
    del alarms[dying]
    gc.collect()
    assert len(fixture.deadlines) == 3
    alarms[0].unset()
    fixture.loop.advance(1)
    assert len(fixture.fired) == 2
    assert dying not in fixture.names


def test_deadline_does_not_keep_its_owner_alive(fixture: Fixture) -> None:
    class Owner:
        def __init__(self, deadlines: Deadlines) -> None:
            self.alarm = Alarm(print)
            self.alarm.set(deadlines, 1001)

    owner = Owner(fixture.deadlines)
    ref = weakref.ref(owner)
    del owner
    assert ref() is None
    assert len(fixture.deadlines) == 0
    fixture.loop.advance(2)
    assert not fixture.deadlines.is_armed


def test_setting_again_moves_a_deadline(fixture: Fixture) -> None:
    alarm = fixture.alarm("a", 1001)
    alarm.set(fixture.deadlines, 1005)
    assert len(fixture.deadlines) == 1
    fixture.loop.advance(4)
    assert fixture.fired == []
    fixture.loop.advance(1)
    assert fixture.names == ["a"]


def test_deadline_may_be_moved_to_another_set(fixture: Fixture) -> None:
    other = Deadlines(fixture.loop)  # type: ignore[arg-type]
    alarm = fixture.alarm("a", 1001)
    alarm.set(other, 1002)
    assert (len(fixture.deadlines), len(other)) == (0, 1)
    fixture.loop.advance(5)
    assert fixture.names == ["a"]


def test_deadline_set_again_in_its_own_callback_comes_again(fixture: Fixture) -> None:
    times: list[float] = []

    def again(now: float) -> None:
        times.append(now)
        if len(times) < 4:
            alarm.set(fixture.deadlines, now + 0.001)

    alarm = Alarm(again)
    alarm.set(fixture.deadlines, 1001)
    fixture.loop.advance(2)
    assert times == [1001.0, 1001.001, 1001.002, 1001.003]
    assert fixture.loop.timers == []


def test_deadline_set_for_the_past_comes_at_the_next_step(fixture: Fixture) -> None:
    alarm = fixture.alarm("late", 1)
    assert fixture.fired == []
    fixture.loop.advance(0)
    assert fixture.fired == [("late", 1000.0)]
    assert not alarm.is_set


def test_infinitely_late_deadline_never_comes(fixture: Fixture) -> None:
    alarm = fixture.alarm("never", math.inf)
    fixture.loop.advance(10_000_000)
    assert fixture.fired == []
    assert not alarm.is_set
    assert not fixture.deadlines.is_armed


def test_callback_may_unset_a_neighbour(fixture: Fixture) -> None:
    alarms: list[Alarm] = []

    def unset_others(now: float) -> None:
        fixture.fired.append(("once", now))
        for alarm in alarms:
            alarm.unset()

    alarms += [Alarm(unset_others) for _ in range(3)]
    for alarm in alarms:
        alarm.set(fixture.deadlines, 1001)
    fixture.loop.advance(1)
    assert fixture.names == ["once"]


def test_exception_in_a_callback_is_reported_and_stops_nobody(fixture: Fixture) -> None:
    error = RuntimeError("broken")

    def fail(now: float) -> None:
        raise error

    alarms = [fixture.alarm("first", 1001), Alarm(fail), fixture.alarm("second", 1001)]
    alarms[1].set(fixture.deadlines, 1001)
    alarms.append(fixture.alarm("third", 1002))
    fixture.loop.advance(5)
    assert sorted(fixture.names) == ["first", "second", "third"]  # type: ignore[type-var]
    assert [context["exception"] for context in fixture.loop.errors] == [error]
    assert "Alarm" in fixture.loop.errors[0]["message"]


def test_one_timer_serves_all(fixture: Fixture) -> None:
    alarms = [fixture.alarm(i, 1001 + i) for i in range(50)]
    assert fixture.loop.timers == [1001.0]
    assert fixture.loop.armed == 1
    while fixture.deadlines.is_armed:
        fixture.loop.advance(1)
        assert len(fixture.loop.timers) <= 1
    assert fixture.names == list(range(len(alarms)))


def test_earlier_deadline_takes_over_the_timer(fixture: Fixture) -> None:
    alarms = [fixture.alarm("late", 1005), fixture.alarm("early", 1001), fixture.alarm("between", 1003)]
    assert fixture.loop.timers == [1001.0]
    fixture.loop.advance(10)
    assert fixture.names == ["early", "between", "late"]
    assert len(alarms) == 3


def test_buckets_emptied_meanwhile_are_skipped(fixture: Fixture) -> None:
    alarms = [fixture.alarm(i, 1001 + i / 100) for i in range(100)]
    for alarm in alarms[:-1]:
        alarm.unset()
    fixture.loop.advance(1)
    assert fixture.loop.timers == [1001.99]
    assert fixture.loop.armed == 2


def test_close_forgets_everything_and_may_be_called_twice(fixture: Fixture) -> None:
    alarms = [fixture.alarm(i, 1001 + i % 3) for i in range(9)]
    fixture.deadlines.close()
    fixture.deadlines.close()
    assert not any(alarm.is_set for alarm in alarms)
    assert fixture.loop.timers == []
    fixture.loop.advance(10)
    assert fixture.fired == []


def test_close_in_a_callback_stops_those_of_the_same_millisecond(fixture: Fixture) -> None:
    def close(now: float) -> None:
        fixture.fired.append(("close", now))
        fixture.deadlines.close()

    alarms = [Alarm(close) for _ in range(3)]
    for alarm in alarms:
        alarm.set(fixture.deadlines, 1001)
    fixture.loop.advance(1)
    assert fixture.names == ["close"]
    assert not any(alarm.is_set for alarm in alarms)


def test_deadlines_may_be_set_after_close(fixture: Fixture) -> None:
    fixture.deadlines.close()
    alarm = fixture.alarm("a", 1001)
    fixture.loop.advance(1)
    assert fixture.names == ["a"]
    assert not alarm.is_set


def test_hundred_thousand_deadlines_cost_the_same_each(fixture: Fixture) -> None:
    def cost(size: int) -> float:
        loop = FakeLoop()
        deadlines = Deadlines(loop)  # type: ignore[arg-type]
        alarms = [Alarm(lambda now: None) for _ in range(size)]
        start = time.process_time()
        for i, alarm in enumerate(alarms):
            alarm.set(deadlines, 1000 + (i % 1000) / 1000)
        for alarm in alarms[::2]:
            alarm.unset()
        loop.advance(2)
        assert len(deadlines) == 0
        return (time.process_time() - start) / size

    # Twenty times the deadlines; a list that is searched would cost twenty times as much each.
    assert cost(100_000) < 8 * max(cost(5_000), 1e-7)


class DeadlinesAgainstModel(RuleBasedStateMachine):
    """The model: a dictionary of names to times, looked through in full."""

    def __init__(self) -> None:
        super().__init__()
        self.fixture = Fixture()
        self.alarms: dict[int, Alarm] = {}
        self.due: dict[int, float] = {}
        self.next = 0

    @rule(delay=st.floats(-0.01, 0.05))
    def set_new(self, delay: float) -> None:
        when = self.fixture.loop.now + delay
        self.alarms[self.next] = self.fixture.alarm(self.next, when)
        self.due[self.next] = max(when, self.fixture.loop.now)
        self.next += 1

    @rule(data=st.data(), delay=st.floats(0, 0.05))
    def set_again(self, data: st.DataObject, delay: float) -> None:
        if self.alarms:
            name = data.draw(st.sampled_from(sorted(self.alarms)))
            self.due[name] = self.fixture.loop.now + delay
            self.alarms[name].set(self.fixture.deadlines, self.due[name])

    @rule(data=st.data(), is_dropped=st.booleans())
    def unset(self, data: st.DataObject, is_dropped: bool) -> None:
        if self.alarms:
            name = data.draw(st.sampled_from(sorted(self.alarms)))
            self.due.pop(name, None)
            if is_dropped:
                del self.alarms[name]
            else:
                self.alarms[name].unset()

    @rule(seconds=st.floats(0, 0.02))
    def let_time_pass(self, seconds: float) -> None:
        self.fixture.fired.clear()
        self.fixture.loop.advance(seconds)
        now = self.fixture.loop.now
        for name, at in self.fixture.fired:
            assert at >= self.due.pop(name)  # type: ignore[call-overload]
        # At most a millisecond late, another when that one was served already, and a rounding.
        assert all(when > now - 0.0021 for when in self.due.values())

    @rule()
    def close(self) -> None:
        self.fixture.deadlines.close()
        self.due.clear()

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.fixture.deadlines) == len(self.due)
        assert {name for name, alarm in self.alarms.items() if alarm.is_set} == set(self.due)

    @invariant()
    def one_timer_for_the_earliest(self) -> None:
        timers = self.fixture.loop.timers
        assert len(timers) <= 1
        assert self.fixture.deadlines.is_armed == bool(timers)
        if self.due:
            assert timers[0] <= max(min(self.due.values()), self.fixture.loop.now) + 0.0021


TestDeadlinesAgainstModel = DeadlinesAgainstModel.TestCase
