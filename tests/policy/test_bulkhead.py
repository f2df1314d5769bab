"""The bulkhead: room for so much, in the order of arrival, and nothing lost whoever leaves when."""

import pickle

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wirespeed.policy.bulkhead import Bulkhead
from wirespeed.policy.errors import BulkheadFull, PolicyError
from wirespeed.policy.gates import QUEUED, Permit
from wirespeed.policy.outcome import Outcome
from wirespeed.policy.queueing import SlotPermit

from .conftest import FakeClock

KEY = "example.org"


def figures(bulkhead: Bulkhead, key: str = KEY) -> tuple[float, int]:
    stats = bulkhead.stats().by_key[key]
    return stats.in_use, stats.waiting


def test_permit_holds_at_once_while_there_is_room(clock: FakeClock) -> None:
    bulkhead = Bulkhead(2, clock=clock)
    assert [bulkhead.acquire(KEY).ready_at for _ in range(3)] == [1000.0, 1000.0, QUEUED]
    assert figures(bulkhead) == (2, 1)


def test_release_wakes_the_next_within_its_call(clock: FakeClock) -> None:
    bulkhead = Bulkhead(1, clock=clock)
    woken: list[Permit] = []
    first = bulkhead.acquire(KEY, wake=woken.append)
    waiting = [bulkhead.acquire(KEY, wake=woken.append) for _ in range(3)]
    first.release(clock.advance(2))
    assert woken == waiting[:1]
    assert [permit.ready_at for permit in waiting] == [1002.0, QUEUED, QUEUED]
    waiting[0].release(clock.advance(1))
    assert woken == waiting[:2]


def test_permit_that_holds_at_once_is_not_woken(clock: FakeClock) -> None:
    woken: list[Permit] = []
    Bulkhead(1, clock=clock).acquire(KEY, wake=woken.append).release(clock())
    assert not woken


def test_release_twice_gives_back_once(clock: FakeClock) -> None:
    bulkhead = Bulkhead(3, clock=clock)
    first, *_ = [bulkhead.acquire(KEY) for _ in range(3)]
    waiting = bulkhead.acquire(KEY)
    for _ in range(3):
        first.release(clock())
    assert figures(bulkhead) == (3, 0)
    assert bulkhead.acquire(KEY).ready_at == QUEUED
    for _ in range(3):
        waiting.release(clock())
    assert figures(bulkhead) == (3, 0)


def test_heavy_waiter_is_not_overtaken_by_light_ones(clock: FakeClock) -> None:
    bulkhead = Bulkhead(4, clock=clock)
    holding = [bulkhead.acquire(KEY) for _ in range(3)]
    heavy = bulkhead.acquire(KEY, weight=4)
    light = bulkhead.acquire(KEY)  # there is room for it, but it came later
    assert light.ready_at == QUEUED
    for permit in holding:
        assert heavy.ready_at == QUEUED
        permit.release(clock())
    assert heavy.ready_at == 1000.0
    assert light.ready_at == QUEUED


def test_heavy_waiter_that_gives_up_lets_the_light_ones_behind_it_through(clock: FakeClock) -> None:
    bulkhead = Bulkhead(4, clock=clock)
    bulkhead.acquire(KEY, weight=3)
    heavy = bulkhead.acquire(KEY, weight=4)
    woken: list[Permit] = []
    light = bulkhead.acquire(KEY, wake=woken.append)
    heavy.release(clock())
    assert woken == [light]
    assert figures(bulkhead) == (4, 0)


def test_waiter_that_gives_up_is_never_woken(clock: FakeClock) -> None:
    bulkhead = Bulkhead(1, clock=clock)
    woken: list[Permit] = []
    first = bulkhead.acquire(KEY)
    gone, stays = (bulkhead.acquire(KEY, wake=woken.append) for _ in range(2))
    gone.release(clock())
    first.release(clock())
    assert woken == [stays]
    assert gone.ready_at == QUEUED
    assert bulkhead.stats().by_key[KEY].given_up == 1


def test_permit_granted_while_its_holder_gives_up_goes_to_the_next(clock: FakeClock) -> None:
    bulkhead = Bulkhead(1, clock=clock)
    first, granted, following = (bulkhead.acquire(KEY) for _ in range(3))
    first.release(clock())
    assert granted.ready_at == 1000.0
    granted.release(clock())
    assert following.ready_at == 1000.0


def test_waker_may_release_what_it_was_given_for_any_number_of_waiters(clock: FakeClock) -> None:
    bulkhead = Bulkhead(1, clock=clock)
    first = bulkhead.acquire(KEY)
    order: list[int] = []

    def make(number: int) -> None:
        def wake(permit: Permit) -> None:
            order.append(number)
            permit.release(clock())

        bulkhead.acquire(KEY, wake=wake)

    for number in range(5000):
        make(number)
    first.release(clock())
    assert order == list(range(5000))
    assert figures(bulkhead) == (0, 0)


def test_waker_that_acquires_queues_behind_those_who_wait(clock: FakeClock) -> None:
    bulkhead = Bulkhead(2, clock=clock)
    heavy = bulkhead.acquire(KEY, weight=2)
    order: list[str] = []

    def again(permit: Permit) -> None:
        order.append("first")
        bulkhead.acquire(KEY, wake=lambda _: order.append("acquired while waking"))

    bulkhead.acquire(KEY, wake=again)
    second = bulkhead.acquire(KEY, wake=lambda _: order.append("second"))
    heavy.release(clock())
    assert order == ["first", "second"]
    second.release(clock())
    assert order == ["first", "second", "acquired while waking"]


def test_waker_that_raises_costs_the_others_nothing(clock: FakeClock) -> None:
    bulkhead = Bulkhead(2, clock=clock)
    heavy = bulkhead.acquire(KEY, weight=2)
    woken: list[Permit] = []
    bulkhead.acquire(KEY, wake=lambda permit: 1 / 0)
    other = bulkhead.acquire(KEY, wake=woken.append)
    with pytest.raises(ZeroDivisionError):
        heavy.release(clock())
    assert woken == [other]
    other.release(clock())
    assert figures(bulkhead) == (1, 0)


def test_more_than_max_waiting_are_refused(clock: FakeClock) -> None:
    bulkhead = Bulkhead(1, max_waiting=2, clock=clock)
    first = bulkhead.acquire(KEY)
    gives_up = bulkhead.acquire(KEY)
    bulkhead.acquire(KEY)
    with pytest.raises(BulkheadFull, match=r"full for example\.org: 1 of 1 in use, 2 waiting") as caught:
        bulkhead.acquire(KEY)
    assert isinstance(caught.value, PolicyError)
    assert caught.value.outcome is Outcome.LOCAL
    assert (caught.value.key, caught.value.limit, caught.value.in_use, caught.value.waiting) == (KEY, 1, 1, 2)
    gives_up.release(clock())
    bulkhead.acquire(KEY)
    first.release(clock())
    bulkhead.acquire(KEY)
    stats = bulkhead.stats().by_key[KEY]
    assert (stats.passed, stats.queued, stats.refused, stats.given_up) == (2, 4, 1, 1)


def test_refused_one_leaves_nothing_behind(clock: FakeClock) -> None:
    bulkhead = Bulkhead(1, max_waiting=0, clock=clock)
    first = bulkhead.acquire(KEY)
    with pytest.raises(BulkheadFull):
        bulkhead.acquire(KEY)
    first.release(clock())
    assert figures(bulkhead) == (0, 0)
    assert bulkhead.acquire(KEY).ready_at == 1000.0


def test_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(BulkheadFull(KEY, 2.5, 2.0, 7)))
    assert str(error) == "The bulkhead is full for example.org: 2 of 2.5 in use, 7 waiting"
    assert error.waiting == 7


def test_keys_do_not_share_room(clock: FakeClock) -> None:
    bulkhead = Bulkhead(1, clock=clock)
    assert bulkhead.acquire("a").ready_at == bulkhead.acquire("b").ready_at == 1000.0


def test_idle_keys_are_forgotten_but_not_their_counts(clock: FakeClock) -> None:
    bulkhead = Bulkhead(1, clock=clock)
    held = bulkhead.acquire("held")
    for number in range(20_000):
        bulkhead.acquire(number).release(clock())
    stats = bulkhead.stats()
    assert len(stats.by_key) <= 10_000
    assert stats.by_key["held"].in_use == 1
    assert stats.forgotten["passed"] + sum(key.passed for key in stats.by_key.values()) == 20_001
    held.release(clock())


def test_rounding_of_weights_leaks_no_room(clock: FakeClock) -> None:
    bulkhead = Bulkhead(0.3, clock=clock)
    light = [bulkhead.acquire(KEY, weight=0.1) for _ in range(3)]
    assert [permit.ready_at for permit in light] == [1000.0] * 3
    for permit in light:
        permit.release(clock())
    assert figures(bulkhead) == (0, 0)
    assert bulkhead.acquire(KEY, weight=0.3).ready_at == 1000.0


@pytest.mark.parametrize("weight", [0, -1, 2.1, float("inf"), float("nan")])
def test_impossible_weight_is_an_error(weight: float) -> None:
    with pytest.raises(ValueError, match=r"^weight must be positive and at most the limit of 2, got "):
        Bulkhead(2).acquire(KEY, weight=weight)


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan")])
def test_impossible_limit_is_an_error(limit: float) -> None:
    with pytest.raises(ValueError, match=r"^limit must be positive and finite, got "):
        Bulkhead(limit)


def test_negative_queue_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^max_waiting must not be negative, got -1$"):
        Bulkhead(1, max_waiting=-1)


class Model(RuleBasedStateMachine):
    """Random callers, against a plain list of who holds and who waits; some come back from their waker."""

    LIMIT = 6
    MAX_WAITING = 5

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.bulkhead = Bulkhead(self.LIMIT, max_waiting=self.MAX_WAITING, clock=self.clock)
        self.permits: list[SlotPermit] = []  # neither released
        self.arrived: list[SlotPermit] = []  # queued ones in the order of arrival
        self.woken: list[SlotPermit] = []
        self.released_in_waker: list[SlotPermit] = []

    def in_use(self) -> float:
        return sum(permit.weight for permit in self.permits if permit.ready_at != QUEUED)

    def wake(self, permit: Permit) -> None:
        assert isinstance(permit, SlotPermit)
        assert permit not in self.woken, "woken twice"
        assert permit is self.arrived.pop(0), "overtaken"
        assert self.in_use() <= self.LIMIT
        self.woken.append(permit)

    def wake_and_leave(self, permit: Permit) -> None:
        self.wake(permit)
        permit.release(self.clock())
        self.permits.remove(permit)  # type: ignore[arg-type]

    def wake_and_ask_again(self, permit: Permit) -> None:
        self.wake(permit)
        self.acquire(weight=1, manner=0)

    @rule(weight=st.integers(1, 6), manner=st.integers(0, 2))
    def acquire(self, weight: int, manner: int) -> None:
        wake = (self.wake, self.wake_and_leave, self.wake_and_ask_again)[manner]
        waiting = [permit for permit in self.permits if permit.ready_at == QUEUED]
        room = not waiting and self.in_use() + weight <= self.LIMIT
        try:
            permit = self.bulkhead.acquire("key", weight=weight, wake=wake)
        except BulkheadFull:
            assert not room
            assert len(waiting) == self.MAX_WAITING
            return
        assert (permit.ready_at != QUEUED) == room
        self.permits.append(permit)
        if not room:
            self.arrived.append(permit)

    @precondition(lambda self: self.permits)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        self.permits.remove(permit)
        if permit in self.arrived:
            self.arrived.remove(permit)
        permit.release(self.clock.advance(1))
        permit.release(self.clock())

    @invariant()
    def books_balance(self) -> None:
        waiting = [permit for permit in self.permits if permit.ready_at == QUEUED]
        assert waiting == self.arrived
        assert self.in_use() <= self.LIMIT
        if waiting:  # whoever is first has no room, else it would not wait
            assert self.in_use() + waiting[0].weight > self.LIMIT
        for stats in self.bulkhead.stats().by_key.values():
            assert (stats.in_use, stats.waiting) == (self.in_use(), len(waiting))

    def teardown(self) -> None:
        while self.permits:
            permit = self.permits.pop(0)
            if permit in self.arrived:
                self.arrived.remove(permit)
            permit.release(self.clock())
        assert all((s.in_use, s.waiting) == (0, 0) for s in self.bulkhead.stats().by_key.values())


TestModel = Model.TestCase
