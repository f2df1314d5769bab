"""The retry budget: never more retries than the requests have earned, and the floor."""

import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wirespeed.policy.budget import RetryBudget
from wirespeed.policy.keyed import MAX_KEYS

from .conftest import FakeClock

KEY = "http://a.example"
EPSILON = 1e-6


def earning(clock: FakeClock, ratio: float = 0.2, ttl: float = 10.0) -> RetryBudget:
    """A budget without a floor."""
    return RetryBudget(ratio, min_per_second=0, ttl=ttl, clock=clock)


def deposit(budget: RetryBudget, number: int) -> None:
    for _ in range(number):
        budget.deposit(KEY)


def withdrawn(budget: RetryBudget, most: int = 1000) -> int:
    """Take all that there is."""
    return next((number for number in range(most) if not budget.withdraw(KEY)), most)


def test_one_in_five_requests_may_be_repeated(clock: FakeClock) -> None:
    budget = earning(clock)
    deposit(budget, 4)
    assert not budget.withdraw(KEY)
    deposit(budget, 1)
    assert budget.withdraw(KEY)
    assert not budget.withdraw(KEY)
    deposit(budget, 50)
    assert withdrawn(budget) == 10


@pytest.mark.parametrize("share", range(1, 60))
def test_rounding_neither_costs_nor_gives_a_retry(clock: FakeClock, share: int) -> None:
    budget = earning(clock, 1 / share)
    for _ in range(3):
        deposit(budget, share - 1)
        assert not budget.withdraw(KEY)
        deposit(budget, 1)
        assert budget.withdraw(KEY)


@pytest.mark.parametrize("number", range(1, 60))
def test_a_request_may_earn_many_retries(clock: FakeClock, number: int) -> None:
    budget = earning(clock, float(number))
    deposit(budget, 1)
    assert withdrawn(budget) == number
    deposit(budget, 2)
    assert withdrawn(budget) == 2 * number


def test_no_ratio_earns_nothing(clock: FakeClock) -> None:
    budget = earning(clock, 0.0)
    deposit(budget, 100)
    assert not budget.withdraw(KEY)


@pytest.mark.parametrize("ratio", [1e8, 1e9, 1e10, 1e300])
def test_without_requests_nothing_is_earned_whatever_the_ratio(clock: FakeClock, ratio: float) -> None:
    budget = earning(clock, ratio)
    assert not budget.withdraw(KEY)
    deposit(budget, 1)
    assert withdrawn(budget) == 1000


def test_earnings_last_for_half_of_the_ttl(clock: FakeClock) -> None:
    for offset in range(10):
        budget = earning(clock)
        budget.deposit(KEY)
        clock.advance(0.5 * offset)
        deposit(budget, 10)
        clock.advance(4.99)
        assert withdrawn(budget) == 2


@pytest.mark.parametrize("woken_at", [None, 2.0, 4.9, 5.0, 5.1, 7.5, 9.9, 9.999])
def test_earnings_are_gone_after_the_ttl_whenever_the_account_is_looked_at(
    clock: FakeClock, woken_at: float | None
) -> None:
    budget = earning(clock)
    began = clock.now
    deposit(budget, 100)
    if woken_at is not None:
        clock.advance(woken_at)
        assert budget.withdraw(KEY)
    clock.now = began + 10.001
    assert budget.stats().by_key[KEY].balance == 0
    assert not budget.withdraw(KEY)


def test_the_oldest_earnings_are_spent_first(clock: FakeClock) -> None:
    budget = earning(clock)
    deposit(budget, 5)
    clock.advance(6)
    deposit(budget, 5)
    assert budget.withdraw(KEY)
    clock.advance(4.5)
    assert budget.withdraw(KEY)
    assert not budget.withdraw(KEY)


def test_a_retry_may_be_paid_from_both_halves(clock: FakeClock) -> None:
    budget = earning(clock)
    deposit(budget, 3)
    clock.advance(6)
    deposit(budget, 4)
    assert budget.withdraw(KEY)
    # Two of the young ones are left.
    deposit(budget, 2)
    assert not budget.withdraw(KEY)
    deposit(budget, 1)
    assert budget.withdraw(KEY)


def test_the_floor_allows_a_second_of_retries_and_fills_again(clock: FakeClock) -> None:
    budget = RetryBudget(0.0, min_per_second=10, clock=clock)
    assert withdrawn(budget) == 10
    clock.advance(0.05)
    assert not budget.withdraw(KEY)
    clock.advance(0.05)
    assert withdrawn(budget) == 1
    clock.advance(1000)
    assert withdrawn(budget) == 10


def test_a_floor_below_one_a_second_is_one_now_and_then(clock: FakeClock) -> None:
    budget = RetryBudget(0.0, min_per_second=0.1, clock=clock)
    assert withdrawn(budget) == 1
    clock.advance(9.9)
    assert not budget.withdraw(KEY)
    clock.advance(0.1)
    assert withdrawn(budget) == 1


def test_no_floor_is_none(clock: FakeClock) -> None:
    assert not earning(clock).withdraw(KEY)


def test_what_was_earned_is_spent_before_the_floor(clock: FakeClock) -> None:
    budget = RetryBudget(0.2, min_per_second=2, clock=clock)
    deposit(budget, 15)
    assert withdrawn(budget, 3) == 3
    assert budget.stats().by_key[KEY].balance == pytest.approx(2)


def test_what_was_refused_costs_nothing(clock: FakeClock) -> None:
    budget = earning(clock)
    deposit(budget, 4)
    for _ in range(10):
        assert not budget.withdraw(KEY)
    deposit(budget, 1)
    assert budget.withdraw(KEY)


def test_a_clock_that_goes_back_gives_nothing(clock: FakeClock) -> None:
    budget = RetryBudget(0.2, min_per_second=2, clock=clock)
    deposit(budget, 5)
    assert withdrawn(budget) == 3
    clock.advance(-100)
    assert withdrawn(budget) == 0
    clock.advance(100)
    assert withdrawn(budget) == 0
    clock.advance(0.5)
    assert withdrawn(budget) == 1


def test_origins_have_accounts_of_their_own(clock: FakeClock) -> None:
    budget = earning(clock)
    deposit(budget, 5)
    assert not budget.withdraw("http://b.example")
    assert budget.withdraw(KEY)


def test_times_may_be_given_instead_of_the_clock() -> None:
    budget = RetryBudget(0.0, min_per_second=1, clock=lambda: pytest.fail("asked"))
    budget.deposit(KEY, 5.0)
    assert budget.withdraw(KEY, 5.0)
    assert not budget.withdraw(KEY, 5.5)
    assert budget.withdraw(KEY, 6.0)


def test_figures_are_of_each_origin(clock: FakeClock) -> None:
    budget = RetryBudget(0.2, min_per_second=1, clock=clock)
    deposit(budget, 7)
    assert withdrawn(budget, 4) == 2
    budget.deposit("http://b.example")
    figures = budget.stats().by_key
    assert set(figures) == {KEY, "http://b.example"}
    mine = figures[KEY]
    assert (mine.requests, mine.spent, mine.denied) == (7, 2, 1)
    assert mine.balance == pytest.approx(0.4)
    clock.advance(0.5)
    assert budget.stats().by_key[KEY].balance == pytest.approx(0.9)
    clock.advance(5)
    assert budget.stats().by_key[KEY].balance == pytest.approx(1.4)  # not looked at since, but still good
    clock.advance(5)
    assert budget.stats().by_key[KEY].balance == pytest.approx(1)
    assert {metric.attribute for metric in budget.metrics} == set(vars(mine))
    with pytest.raises(TypeError):
        figures[KEY] = mine  # type: ignore[index]


def test_an_account_is_forgotten_when_it_is_as_a_new_one(clock: FakeClock) -> None:
    """Else a key that is forgotten, and comes again, has a floor that it has spent already."""
    budget = RetryBudget(0.2, min_per_second=0.5, ttl=1.0, clock=clock, max_keys=1)
    assert withdrawn(budget) == 1
    clock.advance(1.9)
    budget.deposit("http://b.example")
    assert not budget.withdraw(KEY)
    clock.advance(2)
    budget.deposit("http://c.example")
    assert KEY not in budget.stats().by_key


def test_earnings_are_not_forgotten(clock: FakeClock) -> None:
    budget = RetryBudget(0.2, min_per_second=0, clock=clock, max_keys=1)
    deposit(budget, 5)
    clock.advance(4.9)
    budget.deposit("http://b.example")
    assert budget.withdraw(KEY)


def test_accounts_are_bounded_without_limits_too(clock: FakeClock) -> None:
    budget = RetryBudget(math.inf, min_per_second=math.inf, clock=clock, max_keys=3)
    for number in range(100):
        assert budget.withdraw(number)
        clock.advance(20)
    assert len(budget.stats().by_key) <= 3


def test_an_infinite_floor_refuses_nothing(clock: FakeClock) -> None:
    budget = RetryBudget(0.0, min_per_second=math.inf, clock=clock)
    for _ in range(3):
        assert withdrawn(budget) == 1000
        clock.advance(0.5)
    assert budget.stats().by_key[KEY].balance == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": -0.1}, "ratio must not be negative, got -0.1"),
        ({"ratio": math.nan}, "ratio must not be negative, got nan"),
        ({"min_per_second": -1}, "min_per_second must not be negative, got -1"),
        ({"min_per_second": math.nan}, "min_per_second must not be negative, got nan"),
        ({"ttl": 0}, "ttl must be positive seconds, got 0"),
        ({"ttl": math.inf}, "ttl must be positive seconds, got inf"),
        ({"ttl": math.nan}, "ttl must be positive seconds, got nan"),
        ({"max_keys": 0}, "max_keys must be positive, got 0"),
    ],
)
def test_figures_that_make_no_sense_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetryBudget(**arguments)  # type: ignore[arg-type]


def test_the_usual_budget_is_a_fifth_and_ten_a_second() -> None:
    budget = RetryBudget()
    assert (budget.ratio, budget.min_per_second, budget.ttl) == (0.2, 10.0, 10.0)
    assert budget._accounts._max == MAX_KEYS


ratios = st.sampled_from([0.0, 0.1, 0.2, 1 / 3, 0.5, 0.7, 1.0, 2.5]) | st.floats(0.001, 20)
floors = st.sampled_from([0.0, 0.1, 1.0, 10.0]) | st.floats(0.001, 50)
ttls = st.sampled_from([1.0, 10.0]) | st.floats(0.01, 100)
# Of the ttl: the edges of its halves are where an account might err.
pauses = st.sampled_from([0.0, 0.0, 0.01, 0.24, 0.25, 0.49, 0.499, 0.5, 0.51, 0.99, 1.0, 1.5]) | st.floats(
    0, 2
)
# Requests, then as many retries as there are, up to a number.
usages = st.lists(st.tuples(pauses, st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=25)


@given(ratios, floors, ttls, usages, st.floats(0, 1e9))
@example(1.0, 0.0, 10.0, [(0.0, 12, 0), (0.99, 0, 1), (0.49, 0, 12)], 0.0)
def test_no_time_has_more_retries_than_it_and_the_ttl_before_have_earned(
    ratio: float, floor: float, ttl: float, usages: list[tuple[float, int, int]], began: float
) -> None:
    now = began
    budget = RetryBudget(ratio, min_per_second=floor, ttl=ttl, clock=lambda: now)
    requests: list[float] = []
    retries: list[float] = []
    for pause, made, wanted in usages:
        now += pause * ttl
        deposit(budget, made)
        requests += [now] * made
        retries += [now] * withdrawn(budget, wanted)
    burst = max(1.0, floor) if floor else 0.0
    # The clock's last bit, at its height and at the rates of this test.
    slack = EPSILON + 1e-15 * now * (floor + 1)
    times = sorted(set(retries))
    for number, start in enumerate(times):
        for end in times[number:]:
            made = sum(start <= at <= end for at in retries)
            earned = sum(start - ttl - slack <= at <= end for at in requests)
            assert made <= ratio * earned + floor * (end - start) + burst + slack


@given(ratios, floors, ttls, usages)
def test_what_the_last_half_of_the_ttl_has_earned_is_never_refused(
    ratio: float, floor: float, ttl: float, usages: list[tuple[float, int, int]]
) -> None:
    now = 0.0
    budget = RetryBudget(ratio, min_per_second=floor, ttl=ttl, clock=lambda: now)
    requests: list[float] = []
    retries: list[float] = []
    for pause, made, wanted in usages:
        now += pause * ttl
        deposit(budget, made)
        requests += [now] * made
        for _ in range(wanted):
            since = now - ttl / 2 * (1 - EPSILON)
            earned = ratio * sum(at > since for at in requests) - sum(at > since for at in retries)
            is_allowed = budget.withdraw(KEY)
            assert is_allowed or earned < 1 + EPSILON
            retries += [now] * is_allowed


@given(ratios, floors, ttls, usages)
def test_the_balance_says_how_many_retries_there_are(
    ratio: float, floor: float, ttl: float, usages: list[tuple[float, int, int]]
) -> None:
    now = 0.0
    budget = RetryBudget(ratio, min_per_second=floor, ttl=ttl, clock=lambda: now)
    spent = denied = 0
    for pause, made, wanted in usages:
        now += pause * ttl
        deposit(budget, made)
        taken = withdrawn(budget, wanted)
        spent += taken
        denied += taken < wanted
        balance = budget.stats().by_key[KEY].balance if made or wanted else 0.0
        assert balance >= 0
        if wanted and taken < wanted:
            assert balance < 2  # less than one of each kind
        if made or wanted:
            figures = budget.stats().by_key[KEY]
            assert (figures.spent, figures.denied) == (spent, denied)


@given(floors.filter(bool), st.lists(st.floats(0, 3), min_size=2, max_size=40))
def test_the_floor_is_never_refused_to_who_asks_no_faster(floor: float, pauses: list[float]) -> None:
    now = 0.0
    budget = RetryBudget(0.0, min_per_second=floor, clock=lambda: now)
    for pause in pauses:
        assert budget.withdraw(KEY)
        now += (1 + pause) / floor * (1 + EPSILON)


@given(ratios, st.lists(st.floats(0, 100), min_size=2, max_size=40))
def test_an_outage_multiplies_the_load_by_no_more_than_the_ratio(ratio: float, times: list[float]) -> None:
    """Every request fails, and every retry of it, and each asks for another."""
    now = 0.0
    budget = RetryBudget(ratio, min_per_second=0, clock=lambda: now)
    sent = 0
    for before, after in pairwise([0.0, *sorted(times)]):
        now += after - before
        budget.deposit(KEY)
        while budget.withdraw(KEY):
            sent += 1
    assert sent <= ratio * len(times) + EPSILON
