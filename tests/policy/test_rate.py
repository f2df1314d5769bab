"""The rate limit by instants: never above the rate, in order, nothing lost, what is given up given back."""

import itertools
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.policy.errors import PolicyError, RateExceeded
from wirespeed.policy.outcome import Observation, Outcome
from wirespeed.policy.pacing import Algorithm
from wirespeed.policy.rate import FixedWindow, LeakyBucket, RateLimit, RatePermit, SlidingWindow, TokenBucket

ALGORITHMS = [
    TokenBucket(10, burst=1),
    TokenBucket(10, burst=5),
    LeakyBucket(10),
    FixedWindow(5, 0.5),
    SlidingWindow(5, 0.5),
]
each_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS, ids=repr)

weights = st.one_of(st.just(1.0), st.sampled_from([0.1, 0.5, 2.0, 3.0, 5.0]))
gaps = st.one_of(st.just(0.0), st.floats(0, 0.3), st.sampled_from([0.1, 0.5, 2.0]))
starts = st.sampled_from([0.0, 1000.0, 1e9])
arrivals = st.lists(st.tuples(gaps, weights), min_size=1, max_size=40)
SEEN = Observation(Outcome.SUCCESS, 0.01, 1000.0, 200)


def reserve(gate: RateLimit, count: int, now: float, **kw: float) -> list[float]:
    return [gate.acquire("k", now=now, **kw).ready_at for _ in range(count)]


def most_in(algorithm: Algorithm, span: float, heaviest: float) -> float:
    """The most that may be made within a span of time, ends included."""
    if isinstance(algorithm, TokenBucket):
        return max(algorithm.burst, heaviest) + algorithm.rate * span
    if isinstance(algorithm, LeakyBucket):
        return heaviest + algorithm.rate * span
    assert isinstance(algorithm, FixedWindow | SlidingWindow)
    if isinstance(algorithm, SlidingWindow):
        return algorithm.limit * (math.floor(span / algorithm.window) + 1)
    return algorithm.limit * (math.floor(span / algorithm.window) + 2)


def assert_not_above(algorithm: Algorithm, sent: list[tuple[float, float]]) -> None:
    ulp = math.ulp(1e9) * 4
    for first in range(len(sent)):
        total = heaviest = 0.0
        for instant, weight in sent[first:]:
            total += weight
            heaviest = max(heaviest, weight)
            # Two instants that are a window apart are not in one; what rounding makes of it is.
            span = instant - sent[first][0] + ulp
            assert total <= most_in(algorithm, span, heaviest) + 1e-6, (first, instant)


@each_algorithm
@given(start=starts, arriving=arrivals, data=st.data())
def test_rate_is_never_exceeded_whatever_is_given_up(algorithm, start, arriving, data):
    gate = RateLimit(algorithm)
    now = start
    live: list[RatePermit] = []
    for gap, weight in arriving:
        now += gap
        live.append(gate.acquire("k", weight=weight, now=now))
        waiting = [permit for permit in live if permit.ready_at >= now]
        if waiting and data.draw(st.booleans()):
            permit = data.draw(st.sampled_from(waiting))
            permit.release(now)
            live.remove(permit)
        assert [permit.ready_at for permit in live] == sorted(permit.ready_at for permit in live)
    assert_not_above(algorithm, [(permit.ready_at, permit.weight) for permit in live])


@each_algorithm
@given(start=starts, arriving=arrivals)
def test_no_attempt_goes_before_it_came_or_before_one_that_came_earlier(algorithm, start, arriving):
    gate = RateLimit(algorithm)
    now = latest = start
    for gap, weight in arriving:
        now += gap
        ready_at = gate.acquire("k", weight=weight, now=now).ready_at
        assert ready_at >= max(now, latest)
        latest = ready_at


@given(start=starts, arriving=arrivals)
def test_fixed_windows_begin_with_the_first_attempt_after_the_last_has_ended(start, arriving):
    gate = RateLimit(FixedWindow(5, 0.5))
    now = start
    begin, used = -math.inf, 0.0
    for gap, weight in arriving:
        now += gap
        ready_at = gate.acquire("k", weight=weight, now=now).ready_at
        if ready_at >= begin + 0.5 - 1e-6:
            begin, used = ready_at, 0.0
        used += weight
        assert used <= 5 + 1e-6


@each_algorithm
@given(start=starts, arriving=arrivals, extra=st.lists(weights, min_size=1, max_size=6), data=st.data())
def test_those_at_the_end_that_give_up_leave_no_trace(algorithm, start, arriving, extra, data):
    gate, twin = RateLimit(algorithm), RateLimit(algorithm)
    now = start
    for gap, weight in arriving:
        now += gap
        expected = twin.acquire("k", weight=weight, now=now).ready_at
        permits = [gate.acquire("k", weight=extra[0], now=now)]
        if permits[0].ready_at > now:
            permits += [gate.acquire("k", weight=more, now=now) for more in extra[1:]]
        for permit in data.draw(st.permutations(permits)):
            permit.release(now)
        assert gate.acquire("k", weight=weight, now=now).ready_at == expected


@each_algorithm
def test_constant_demand_reaches_the_rate(algorithm):
    gate = RateLimit(algorithm)
    instants = reserve(gate, 1001, 1000.0)
    assert instants[-1] - instants[0] == pytest.approx(100.0, rel=0.011)


@each_algorithm
def test_paced_demand_with_fractions_loses_nothing(algorithm):
    gate = RateLimit(algorithm)
    last = [gate.acquire("k", weight=0.1, now=1000.0 + n * 0.01).ready_at for n in range(5000)][-1]
    assert last == pytest.approx(1000.0 + 5000 * 0.01, abs=0.6)


@each_algorithm
def test_after_a_long_rest_an_attempt_goes_at_once(algorithm):
    gate = RateLimit(algorithm)
    reserve(gate, 100, 1000.0)
    assert reserve(gate, 1, 2000.0) == [2000.0]


def test_token_bucket_lets_its_burst_go_at_once_and_spaces_the_rest():
    assert reserve(RateLimit(10, burst=3), 5, 100.0) == pytest.approx([100.0, 100.0, 100.0, 100.1, 100.2])


def test_bucket_fills_to_its_burst_and_no_further():
    gate = RateLimit(TokenBucket(10, burst=3))
    reserve(gate, 3, 100.0)
    assert reserve(gate, 3, 100.2) == pytest.approx([100.2, 100.2, 100.3])
    assert reserve(gate, 4, 200.0) == pytest.approx([200.0, 200.0, 200.0, 200.1])


def test_attempt_heavier_than_the_burst_waits_for_a_full_bucket_and_is_paid_for_by_those_behind():
    gate = RateLimit(TokenBucket(10, burst=2))
    reserve(gate, 1, 100.0)
    assert reserve(gate, 1, 100.0, weight=5.0) == pytest.approx([100.1])
    assert reserve(gate, 2, 100.0) == pytest.approx([100.5, 100.6])


def test_leaky_bucket_never_lets_two_go_together():
    gate = RateLimit(LeakyBucket(10))
    assert reserve(gate, 2, 100.0, weight=0.5) == pytest.approx([100.0, 100.05])
    assert reserve(gate, 2, 200.0) == pytest.approx([200.0, 200.1])


def test_leaky_bucket_refuses_whom_it_has_no_place_for():
    gate = RateLimit(LeakyBucket(10, capacity=2))
    reserve(gate, 3, 100.0)
    with pytest.raises(RateExceeded, match="2 wait already") as caught:
        gate.acquire("k", now=100.0)
    assert caught.value.delay == pytest.approx(0.3)
    assert reserve(gate, 1, 100.1) == pytest.approx([100.3])


def test_sliding_window_frees_what_is_a_window_old():
    gate = RateLimit(SlidingWindow(2, 1.0))
    assert reserve(gate, 1, 100.0) == [100.0]
    assert reserve(gate, 1, 100.9) == [100.9]
    assert reserve(gate, 3, 100.95) == pytest.approx([101.0, 101.9, 102.0])


def test_fixed_window_starts_anew():
    gate = RateLimit(FixedWindow(2, 1.0))
    assert reserve(gate, 2, 100.9) == [100.9, 100.9]
    assert reserve(gate, 3, 101.0) == pytest.approx([101.9, 101.9, 102.9])


@pytest.mark.parametrize("algorithm", [FixedWindow(5, 1), SlidingWindow(5, 1)], ids=repr)
def test_window_refuses_a_weight_that_never_fits(algorithm):
    gate = RateLimit(algorithm)
    with pytest.raises(ValueError, match=r"weight must be positive and at most 5, got 5\.5"):
        gate.acquire("k", weight=5.5, now=0.0)
    assert reserve(gate, 1, 0.0, weight=5.0) == [0.0]


@pytest.mark.parametrize("algorithm", [FixedWindow(0.3, 1), SlidingWindow(0.3, 1)], ids=repr)
def test_fractions_that_make_up_the_limit_fit(algorithm):
    gate = RateLimit(algorithm)
    assert [gate.acquire("k", weight=weight, now=5.0).ready_at for weight in (0.1, 0.2)] == [5.0, 5.0]
    assert reserve(gate, 1, 5.0, weight=0.001) == [6.0]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
@each_algorithm
def test_weight_is_a_positive_number(algorithm, weight):
    gate = RateLimit(algorithm)
    with pytest.raises(ValueError, match="weight must be positive"):
        gate.acquire("k", weight=weight, now=0.0)
    assert not gate.stats().by_key


def test_log_of_light_attempts_is_bounded_and_exact_to_a_thousandth():
    gate = RateLimit(SlidingWindow(1, 1.0))
    # 0.0001 each: ten thousand fit into a window, evenly spread for ten.
    last = 0.0
    for n in range(50_000):
        last = gate.acquire("k", weight=0.0001, now=100.0 + n * 0.0001).ready_at
    state = gate._keyed.find("k")
    assert len(state.line.log) <= 2 * 1024 + 1
    assert last == pytest.approx(105.0, abs=0.05)


def test_whoever_would_wait_too_long_is_refused_and_reserves_nothing():
    gate = RateLimit(10, max_delay=0.15)
    assert reserve(gate, 2, 100.0) == pytest.approx([100.0, 100.1])
    for _ in range(5):
        with pytest.raises(RateExceeded, match=r"would wait 0\.200 s, more than max_delay=0\.15 s") as caught:
            gate.acquire("k", now=100.0)
        assert caught.value.delay == pytest.approx(0.2)
        assert caught.value.key == "k"
        assert isinstance(caught.value, PolicyError)
        assert caught.value.outcome is Outcome.LOCAL
    assert reserve(gate, 1, 100.06) == pytest.approx([100.2])
    assert gate.stats().by_key["k"].refused == 5


def test_look_refuses_who_would_be_refused_and_changes_nothing():
    gate = RateLimit(10, max_delay=0.15)
    gate.look("k", 100.0)
    assert not gate.stats().by_key
    gate.acquire("k", now=100.0)
    gate.look("k", 100.0)
    gate.look("k", 100.0)
    gate.acquire("k", now=100.0)
    with pytest.raises(RateExceeded):
        gate.look("k", 100.0)
    gate.look("k", 100.06)
    assert reserve(gate, 1, 100.06) == pytest.approx([100.2])


@pytest.mark.parametrize("algorithm", [LeakyBucket(10, capacity=1), LeakyBucket(10, capacity=0)], ids=repr)
def test_look_knows_the_capacity(algorithm):
    gate = RateLimit(algorithm)
    reserve(gate, 1 + algorithm.capacity, 100.0)
    with pytest.raises(RateExceeded):
        gate.look("k", 100.0)
    gate.look("k", 101.0)


def test_permit_given_up_at_its_instant_is_given_back():
    gate = RateLimit(10)
    gate.acquire("k", now=100.0).release(100.0)
    assert reserve(gate, 1, 100.0) == [100.0]


def test_permit_given_up_after_its_instant_may_have_been_used():
    gate = RateLimit(10)
    gate.acquire("k", now=100.0).release(100.01)
    assert reserve(gate, 1, 100.01) == pytest.approx([100.1])


def test_permit_observed_is_used_however_early_it_is_released():
    gate = RateLimit(10)
    permit = gate.acquire("k", now=100.0)
    permit.observe(SEEN)
    permit.release(100.0)
    assert reserve(gate, 1, 100.0) == pytest.approx([100.1])
    assert gate.stats().by_key["k"].cancelled == 0


def test_reservation_given_up_in_the_middle_passes_unused_unless_all_behind_go_too():
    gate = RateLimit(10)
    permits = [gate.acquire("k", now=100.0) for _ in range(4)]
    permits[2].release(100.0)
    assert permits[3].ready_at == pytest.approx(100.3)
    assert reserve(gate, 1, 100.0) == pytest.approx([100.4])
    gate = RateLimit(10)
    permits = [gate.acquire("k", now=100.0) for _ in range(4)]
    permits[2].release(100.0)
    permits[3].release(100.0)
    assert reserve(gate, 1, 100.0) == pytest.approx([100.2])


def test_release_twice_gives_back_once():
    gate = RateLimit(10)
    permits = [gate.acquire("k", now=100.0) for _ in range(3)]
    permits[2].release(100.0)
    permits[2].release(100.0)
    assert reserve(gate, 1, 100.0) == pytest.approx([100.2])
    assert gate.stats().by_key["k"].cancelled == 1


def test_keys_do_not_share():
    gate = RateLimit(10)
    assert [gate.acquire(key, now=100.0).ready_at for key in "abab"] == pytest.approx(
        [100, 100, 100.1, 100.1]
    )


def test_no_limit_of_its_own_lets_all_go():
    assert set(reserve(RateLimit(None), 100, 5.0)) == {5.0}


def test_those_that_have_gone_are_not_kept():
    gate = RateLimit(10)
    for n in range(100):
        gate.acquire("k", now=100.0).observe(Observation(Outcome.SUCCESS, 0.0, 100.0 + n * 0.1, 200))
    state = gate._keyed.find("k")
    assert len(state.waiting) <= 1


def test_idle_keys_are_forgotten_and_their_counters_kept():
    gate = RateLimit(10, max_keys=2)
    for n in range(5):
        gate.acquire(n, now=100.0 + n)
    stats = gate.stats()
    assert len(stats.by_key) <= 2
    assert stats.forgotten["passed"] + len(stats.by_key) == 5


@each_algorithm
def test_keys_whose_past_still_counts_are_not_forgotten(algorithm):
    gate = RateLimit(algorithm, max_keys=1)
    while gate.acquire("k", now=100.0).ready_at <= 100.0:
        pass
    delayed = gate._keyed.find("k").latest
    delayed.release(100.0)
    gate.acquire("other", now=100.0)
    assert reserve(gate, 1, 100.0) == [delayed.ready_at]


@each_algorithm
def test_busy_keys_are_not_forgotten(algorithm):
    gate = RateLimit(algorithm, max_keys=1)
    before = reserve(gate, 7, 100.0)[-1]
    gate.acquire("other", now=100.0)
    assert reserve(gate, 1, 100.0)[0] >= before
    gate.acquire("one more", now=100.0 + 1000)
    assert gate._keyed.find("k") is None


def test_figures_of_a_key(clock):
    gate = RateLimit(10, max_delay=0.35, clock=clock)
    permits = [gate.acquire("k") for _ in range(4)]
    with pytest.raises(RateExceeded):
        gate.acquire("k")
    permits[-1].release(clock.now)
    figures = gate.stats().by_key["k"]
    assert (figures.passed, figures.delayed, figures.refused, figures.cancelled) == (1, 3, 1, 1)
    assert figures.waited_seconds == pytest.approx(0.6)
    assert figures.backlog_seconds == pytest.approx(0.2)
    assert (figures.server_pauses, figures.paused_seconds, figures.server_remaining) == (0, 0.0, None)
    clock.advance(10)
    assert gate.stats().by_key["k"].backlog_seconds == 0.0


def test_each_metric_is_a_figure(clock):
    gate = RateLimit(10, clock=clock)
    gate.acquire("k")
    figures = gate.stats().by_key["k"]
    assert gate.name == "rate"
    for metric in gate.metrics:
        assert isinstance(getattr(figures, metric.attribute), int | float)
    names = [metric.name for metric in gate.metrics]
    assert len(set(names)) == len(names)


def test_stats_may_be_read_by_another_thread_meanwhile():
    gate = RateLimit(1000, max_keys=100)
    errors: list[BaseException] = []
    is_over = threading.Event()

    def read() -> None:
        try:
            while not is_over.is_set():
                gate.stats()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=read)
    thread.start()
    for n in range(20_000):
        gate.acquire(n % 500, now=100.0 + n)
    is_over.set()
    thread.join()
    assert not errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RateLimit(0), "rate must be positive and finite, got 0"),
        (lambda: RateLimit(math.nan), "rate must be positive and finite, got nan"),
        (lambda: TokenBucket(math.inf), "rate must be positive and finite, got inf"),
        (lambda: TokenBucket(1, burst=0), "burst must be positive and finite, got 0"),
        (lambda: LeakyBucket(-1), "rate must be positive and finite, got -1"),
        (lambda: LeakyBucket(1, capacity=-1), "capacity must not be negative, got -1"),
        (lambda: FixedWindow(0, 1), "limit must be positive and finite, got 0"),
        (lambda: FixedWindow(1, 0), "window must be positive and finite, got 0"),
        (lambda: SlidingWindow(0, 1), "limit must be positive and finite, got 0"),
        (lambda: SlidingWindow(1, -2), "window must be positive and finite, got -2"),
        (lambda: RateLimit(1, max_delay=-1), "max_delay must not be negative, got -1"),
        (lambda: RateLimit(1, max_delay=math.nan), "max_delay must not be negative, got nan"),
        (lambda: RateLimit(1, max_pause=0), "max_pause must be positive and finite, got 0"),
        (lambda: RateLimit(1, max_keys=0), "max_keys must be positive, got 0"),
        (lambda: RateLimit(TokenBucket(1), burst=2), "burst goes with a rate that is a number, got burst=2"),
        (lambda: RateLimit(None, burst=2), "burst goes with a rate that is a number, got burst=2"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gate_and_algorithms_say_what_they_are():
    gate = RateLimit(1000, burst=50)
    gate.acquire("k")
    assert repr(gate) == "<RateLimit TokenBucket(1000, burst=50), 1 keys>"
    assert repr(RateLimit(None)) == "<RateLimit None, 0 keys>"
    assert [repr(algorithm) for algorithm in ALGORITHMS[2:]] == [
        "LeakyBucket(10, capacity=None)",
        "FixedWindow(5, 0.5)",
        "SlidingWindow(5, 0.5)",
    ]


def test_all_instants_of_a_line_are_its_own():
    instants = reserve(RateLimit(LeakyBucket(3)), 1000, 1e9)
    assert all(later > earlier for earlier, later in itertools.pairwise(instants))
