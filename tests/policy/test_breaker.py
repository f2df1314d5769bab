"""The circuit breaker: what it lets through, what it refuses, and that it cannot get stuck."""

import logging
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from wirespeed.policy.breaker import CircuitBreaker
from wirespeed.policy.circuit import TRANSITIONS, Cause, CircuitFigures, CircuitState, Reason
from wirespeed.policy.errors import CircuitOpenError, PolicyError
from wirespeed.policy.gates import Permit
from wirespeed.policy.outcome import Observation, Outcome

from .conftest import FakeClock

KEY = "http://a.example"
CLOSED, HALF_OPEN, OPEN = CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN
GOOD, BAD = Outcome.SUCCESS, Outcome.SERVER_FAULT

Make = Callable[..., CircuitBreaker]


@pytest.fixture
def make(clock: FakeClock) -> Make:
    def build(**settings: Any) -> CircuitBreaker:
        return CircuitBreaker(
            **{"clock": clock, "minimum_calls": 4, "window_calls": 10, "probes": 3, **settings}
        )

    return build


def answer(permit: Permit, outcome: Outcome, clock: FakeClock, latency: float = 0.1) -> None:
    permit.observe(Observation(outcome, latency, clock.now))
    permit.release(clock.now)


def call(breaker: CircuitBreaker, *outcomes: Outcome, latency: float = 0.1, key: str = KEY) -> None:
    for outcome in outcomes:
        answer(breaker.acquire(key), outcome, breaker.clock, latency)  # type: ignore[arg-type]


def opened(make: Make, **settings: Any) -> CircuitBreaker:
    breaker = make(**settings)
    call(breaker, *[BAD] * 4)
    assert breaker.state(KEY) is OPEN
    return breaker


def half_open(make: Make, clock: FakeClock, **settings: Any) -> tuple[CircuitBreaker, Permit]:
    """With one probe under way."""
    breaker = opened(make, **settings)
    clock.advance(30)
    probe = breaker.acquire(KEY)
    assert breaker.state(KEY) is HALF_OPEN
    return breaker, probe


def figures(breaker: CircuitBreaker, key: str = KEY) -> CircuitFigures:
    return breaker.stats().by_key[key]


def refused(breaker: CircuitBreaker) -> CircuitOpenError:
    with pytest.raises(CircuitOpenError) as caught:
        breaker.acquire(KEY)
    return caught.value


# Closed


def test_permits_hold_at_once(make: Make, clock: FakeClock) -> None:
    assert make().acquire(KEY).ready_at <= clock.now


def test_circuit_opens_when_the_failure_rate_reaches_its_threshold(make: Make) -> None:
    breaker = make()
    call(breaker, GOOD, GOOD, GOOD, BAD, BAD)
    assert breaker.state(KEY) is CLOSED
    call(breaker, BAD)
    assert breaker.state(KEY) is OPEN
    assert figures(breaker).reason == Reason(Cause.FAILURE_RATE, "50% of 6 calls failed")
    assert figures(breaker).failure_rate == 0.5


def test_too_few_calls_open_nothing(make: Make) -> None:
    breaker = make()
    call(breaker, BAD, BAD, BAD)
    assert breaker.state(KEY) is CLOSED
    call(breaker, BAD)
    assert breaker.state(KEY) is OPEN


def test_success_that_completes_the_minimum_opens_too(make: Make) -> None:
    breaker = make()
    call(breaker, BAD, BAD, BAD, GOOD)
    assert breaker.state(KEY) is OPEN


def test_calls_that_have_left_the_window_do_not_count(make: Make) -> None:
    breaker = make(minimum_calls=10)
    call(breaker, *[BAD] * 4, *[GOOD] * 10, *[BAD] * 4)
    assert breaker.state(KEY) is CLOSED
    call(breaker, BAD)
    assert breaker.state(KEY) is OPEN


def test_window_of_seconds_forgets_with_time(make: Make, clock: FakeClock) -> None:
    breaker = make(window_calls=None, window_seconds=10)
    call(breaker, BAD, BAD, BAD)
    clock.advance(10)
    call(breaker, BAD)
    assert breaker.state(KEY) is CLOSED
    assert figures(breaker).calls == 1
    clock.advance(100)
    assert figures(breaker).calls == 0
    call(breaker, BAD, BAD, BAD, BAD)
    assert breaker.state(KEY) is OPEN


def test_threshold_is_met_to_the_last_bit(make: Make) -> None:
    # 0.07 * 100 is more than 7.
    breaker = make(failure_rate=0.07, window_calls=100, minimum_calls=100)
    call(breaker, *[GOOD] * 93, *[BAD] * 7)
    assert breaker.state(KEY) is OPEN


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome.is_failure])
def test_every_failure_counts(make: Make, outcome: Outcome) -> None:
    breaker = make()
    call(breaker, *[outcome] * 4)
    assert breaker.state(KEY) is OPEN
    assert figures(breaker).last_outcome is outcome


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.CLIENT_FAULT, Outcome.THROTTLED])
def test_what_is_no_failure_of_the_server_counts_as_success(make: Make, outcome: Outcome) -> None:
    breaker = make()
    call(breaker, *[outcome] * 20, BAD)
    assert figures(breaker).calls == 10
    assert figures(breaker).failure_rate == 0.1
    assert breaker.state(KEY) is CLOSED


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.LOCAL])
def test_what_says_nothing_is_not_counted(make: Make, outcome: Outcome) -> None:
    breaker = make(slow_call_duration=0.01)
    call(breaker, *[outcome] * 20)
    assert figures(breaker).calls == 0
    assert breaker.state(KEY) is CLOSED


def test_attempt_that_was_not_made_is_not_counted(make: Make, clock: FakeClock) -> None:
    breaker = make()
    for _ in range(20):
        breaker.acquire(KEY).release(clock.now)
    assert figures(breaker).calls == 0
    assert figures(breaker).passed == 20


def test_slow_calls_open_the_circuit(make: Make) -> None:
    breaker = make(slow_call_duration=1, slow_call_rate=0.5)
    call(breaker, GOOD, GOOD, GOOD, latency=1.0)
    call(breaker, GOOD, GOOD, latency=1.01)
    assert breaker.state(KEY) is CLOSED
    call(breaker, GOOD, latency=1.01)
    assert breaker.state(KEY) is OPEN
    assert figures(breaker).reason == Reason(Cause.SLOW_CALL_RATE, "50% of 6 calls took longer than 1 s")
    assert (figures(breaker).slow, figures(breaker).slow_call_rate) == (3, 0.5)


def test_without_a_duration_no_call_is_slow(make: Make) -> None:
    breaker = make()
    call(breaker, *[GOOD] * 10, latency=1e6)
    assert breaker.state(KEY) is CLOSED
    assert figures(breaker).slow_call_rate == 0


def test_keys_are_apart(make: Make) -> None:
    breaker = opened(make)
    call(breaker, GOOD, key="http://b.example")
    assert breaker.state("http://b.example") is CLOSED


# Open


def test_open_circuit_refuses_until_its_time_is_over(make: Make, clock: FakeClock) -> None:
    breaker = opened(make)
    clock.advance(29.9)
    refused(breaker)
    clock.advance(0.1)
    breaker.acquire(KEY)
    assert breaker.state(KEY) is HALF_OPEN


def test_refusal_says_until_when_and_why(make: Make, clock: FakeClock) -> None:
    breaker = opened(make)
    until = clock.now + 30
    clock.advance(17.5)
    exc = refused(breaker)
    assert isinstance(exc, PolicyError)
    assert exc.outcome is Outcome.LOCAL
    assert (exc.key, exc.state, exc.until, exc.retry_after) == (KEY, OPEN, until, 12.5)
    assert exc.reason.cause is Cause.FAILURE_RATE
    assert exc.last_outcome is BAD
    assert str(exc) == (
        "The circuit of http://a.example is open for another 12.5 s: 100% of 4 calls failed; "
        "the last failure was SERVER_FAULT"
    )


def test_refusal_while_probes_are_under_way_says_so(make: Make, clock: FakeClock) -> None:
    breaker, _ = half_open(make, clock, probes=1)
    exc = refused(breaker)
    assert (exc.state, exc.until, exc.retry_after, exc.reason.cause) == (HALF_OPEN, None, None, Cause.PROBING)
    assert "is half-open: 1 probes are under way" in str(exc)


def test_refusal_can_be_pickled(make: Make) -> None:
    exc = refused(opened(make))
    copy = pickle.loads(pickle.dumps(exc))
    assert str(copy) == str(exc)
    assert vars(copy) == vars(exc)


def test_look_refuses_as_acquire_would_and_changes_no_state(make: Make, clock: FakeClock) -> None:
    breaker = opened(make)
    with pytest.raises(CircuitOpenError) as caught:
        breaker.look(KEY)
    assert caught.value.retry_after == 30
    assert figures(breaker).rejected == 1
    clock.advance(30)
    breaker.look(KEY)
    assert breaker.state(KEY) is OPEN
    assert figures(breaker).rejected == 1
    for _ in range(3):
        breaker.look(KEY)
        breaker.acquire(KEY)
    with pytest.raises(CircuitOpenError):
        breaker.look(KEY)
    assert (figures(breaker).rejected, figures(breaker).probed) == (2, 3)


def test_look_lets_pass_what_is_closed_or_unknown(make: Make) -> None:
    breaker = make()
    breaker.look(KEY)
    assert KEY not in breaker.stats().by_key
    call(breaker, GOOD)
    breaker.look(KEY)


# Half-open


def test_only_so_many_probes_are_let_through(make: Make, clock: FakeClock) -> None:
    breaker, first = half_open(make, clock)
    breaker.acquire(KEY)
    answer(first, GOOD, clock)
    breaker.acquire(KEY)
    refused(breaker)
    assert (figures(breaker).probed, figures(breaker).rejected) == (3, 1)


def test_circuit_closes_with_an_empty_window_when_all_probes_are_answered_well(
    make: Make, clock: FakeClock
) -> None:
    breaker, probe = half_open(make, clock)
    answer(probe, GOOD, clock)
    call(breaker, GOOD)
    assert breaker.state(KEY) is HALF_OPEN
    call(breaker, GOOD)
    assert breaker.state(KEY) is CLOSED
    assert figures(breaker).calls == 0
    assert figures(breaker).reason.cause is Cause.RECOVERED
    call(breaker, BAD, BAD, BAD)
    assert breaker.state(KEY) is CLOSED


def test_circuit_closes_when_few_enough_probes_fail(make: Make, clock: FakeClock) -> None:
    breaker, probe = half_open(make, clock)
    answer(probe, BAD, clock)
    call(breaker, GOOD, GOOD)
    assert breaker.state(KEY) is CLOSED


def test_circuit_opens_again_as_soon_as_enough_probes_have_failed(make: Make, clock: FakeClock) -> None:
    breaker, probe = half_open(make, clock)
    answer(probe, BAD, clock)
    assert breaker.state(KEY) is HALF_OPEN
    call(breaker, BAD)
    assert breaker.state(KEY) is OPEN
    assert figures(breaker).reason.text == "67% of 3 probes failed"
    assert figures(breaker).until == clock.now + 30
    assert figures(breaker).opened == 2


def test_slow_probes_open_it_again(make: Make, clock: FakeClock) -> None:
    breaker, probe = half_open(make, clock, slow_call_duration=1, slow_call_rate=0.3)
    answer(probe, GOOD, clock, latency=2)
    assert breaker.state(KEY) is OPEN
    assert figures(breaker).reason.text == "33% of 3 probes took longer than 1 s"


def test_each_failed_round_of_probes_makes_the_time_longer(make: Make, clock: FakeClock) -> None:
    breaker = opened(make, open_factor=2, open_max=100, probes=1)
    for seconds in (30, 60, 100, 100):
        assert figures(breaker).until == clock.now + seconds
        clock.advance(seconds)
        call(breaker, BAD)
    clock.advance(100)
    call(breaker, GOOD)
    assert breaker.state(KEY) is CLOSED
    call(breaker, *[BAD] * 4)
    assert figures(breaker).until == clock.now + 30


@pytest.mark.parametrize("outcome", [None, Outcome.CANCELLED, Outcome.LOCAL])
def test_probe_without_an_answer_gives_its_place_to_another(
    make: Make, clock: FakeClock, outcome: Outcome | None
) -> None:
    breaker, probe = half_open(make, clock, probes=1)
    for _ in range(10):
        refused(breaker)
        if outcome is None:
            probe.release(clock.now)
        else:
            answer(probe, outcome, clock)
        probe.release(clock.now)
        probe = breaker.acquire(KEY)
    assert breaker.state(KEY) is HALF_OPEN
    assert figures(breaker).calls == 0
    answer(probe, GOOD, clock)
    assert breaker.state(KEY) is CLOSED


def test_place_of_an_answered_probe_is_not_given_away(make: Make, clock: FakeClock) -> None:
    breaker, first = half_open(make, clock, probes=2)
    second = breaker.acquire(KEY)
    answer(first, GOOD, clock)
    first.release(clock.now)
    refused(breaker)
    second.release(clock.now)
    breaker.acquire(KEY)
    refused(breaker)


def test_probe_is_counted_once(make: Make, clock: FakeClock) -> None:
    breaker, probe = half_open(make, clock)
    answer(probe, GOOD, clock)
    answer(probe, GOOD, clock)
    assert figures(breaker).calls == 1


def test_probes_that_stay_silent_are_given_up(make: Make, clock: FakeClock) -> None:
    breaker, silent = half_open(make, clock, probes=1, half_open_for=60)
    clock.advance(59)
    refused(breaker)
    assert breaker.state(KEY) is HALF_OPEN
    clock.advance(1)
    breaker.look(KEY)
    exc = refused(breaker)
    assert (exc.state, exc.retry_after, exc.reason.cause) == (OPEN, 30, Cause.SILENT)
    clock.advance(30)
    probe = breaker.acquire(KEY)
    answer(silent, BAD, clock)
    assert breaker.state(KEY) is HALF_OPEN
    answer(probe, GOOD, clock)
    assert breaker.state(KEY) is CLOSED


def test_free_places_are_not_given_up_however_long_nobody_comes(make: Make, clock: FakeClock) -> None:
    breaker, probe = half_open(make, clock)
    answer(probe, GOOD, clock)
    clock.advance(1e6)
    call(breaker, GOOD, GOOD)
    assert breaker.state(KEY) is CLOSED


def test_probes_may_be_allowed_to_take_forever(make: Make, clock: FakeClock) -> None:
    breaker, probe = half_open(make, clock, probes=1, half_open_for=None)
    clock.advance(1e9)
    refused(breaker)
    answer(probe, GOOD, clock)
    assert breaker.state(KEY) is CLOSED


# Late


def test_attempts_of_an_earlier_state_decide_nothing(make: Make, clock: FakeClock) -> None:
    breaker = make()
    late = [breaker.acquire(KEY) for _ in range(20)]
    call(breaker, *[BAD] * 4)
    answer(late.pop(), BAD, clock)
    assert figures(breaker).opened == 1
    clock.advance(30)
    probes = [breaker.acquire(KEY) for _ in range(3)]
    answer(late.pop(), BAD, clock)
    answer(late.pop(), GOOD, clock)
    assert (figures(breaker).calls, breaker.state(KEY)) == (0, HALF_OPEN)
    refused(breaker)
    for probe in probes:
        answer(probe, GOOD, clock)
    for permit in late:
        answer(permit, BAD, clock)
    assert (figures(breaker).calls, breaker.state(KEY)) == (0, CLOSED)
    assert figures(breaker).late == 20
    assert figures(breaker).failed == 4


def test_probes_of_an_earlier_round_decide_nothing(make: Make, clock: FakeClock) -> None:
    breaker, first = half_open(make, clock)
    second = breaker.acquire(KEY)
    third = breaker.acquire(KEY)
    answer(first, BAD, clock)
    answer(second, BAD, clock)
    clock.advance(30)
    breaker.acquire(KEY)
    answer(third, BAD, clock)
    assert figures(breaker).calls == 0
    third.release(clock.now)
    breaker.acquire(KEY)
    breaker.acquire(KEY)
    refused(breaker)
    assert figures(breaker).late == 1


def test_release_of_an_earlier_round_frees_no_place(make: Make, clock: FakeClock) -> None:
    breaker, first = half_open(make, clock)
    second, third = breaker.acquire(KEY), breaker.acquire(KEY)
    answer(first, BAD, clock)
    answer(second, BAD, clock)
    clock.advance(30)
    for _ in range(3):
        breaker.acquire(KEY)
    third.release(clock.now)
    refused(breaker)


# Shadow


def test_shadow_mode_changes_state_and_refuses_nothing(make: Make, clock: FakeClock) -> None:
    breaker = make(shadow=True, probes=2)
    call(breaker, *[BAD] * 4)
    assert breaker.state(KEY) is OPEN
    breaker.look(KEY)
    call(breaker, GOOD, GOOD)
    assert breaker.state(KEY) is OPEN
    clock.advance(30)
    probes = [breaker.acquire(KEY) for _ in range(2)]
    assert breaker.state(KEY) is HALF_OPEN
    breaker.look(KEY)
    call(breaker, BAD, BAD, BAD)
    assert breaker.state(KEY) is HALF_OPEN
    for probe in probes:
        answer(probe, GOOD, clock)
    assert breaker.state(KEY) is CLOSED
    seen = figures(breaker)
    assert (seen.passed, seen.rejected, seen.would_reject, seen.probed) == (11, 0, 5, 2)


# Callbacks


def test_changes_are_told_with_their_reasons(make: Make, clock: FakeClock) -> None:
    told: list[Any] = []
    breaker = make(probes=1, on_state_change=lambda *change: told.append((*change[:3], change[3].cause)))
    call(breaker, *[BAD] * 4)
    clock.advance(30)
    call(breaker, BAD)
    clock.advance(30)
    call(breaker, GOOD)
    breaker.force_open(KEY)
    breaker.reset(KEY)
    breaker.reset(KEY)
    assert told == [
        (KEY, CLOSED, OPEN, Cause.FAILURE_RATE),
        (KEY, OPEN, HALF_OPEN, Cause.WAITED),
        (KEY, HALF_OPEN, OPEN, Cause.FAILURE_RATE),
        (KEY, OPEN, HALF_OPEN, Cause.WAITED),
        (KEY, HALF_OPEN, CLOSED, Cause.RECOVERED),
        (KEY, CLOSED, OPEN, Cause.FORCED),
        (KEY, OPEN, CLOSED, Cause.RESET),
    ]


def test_callbacks_come_and_go(make: Make) -> None:
    told: list[str] = []

    def callback(*change: Any) -> None:
        told.append("twice")

    breaker = make()
    stop = breaker.subscribe(callback)
    breaker.subscribe(callback)
    stop()
    stop()
    breaker.force_open(KEY)
    assert told == ["twice"]


def test_callback_may_end_its_own_subscription(make: Make) -> None:
    told: list[CircuitState] = []

    def once(key: Any, old: CircuitState, new: CircuitState, reason: Reason) -> None:
        told.append(new)
        stop()

    breaker = make()
    stop = breaker.subscribe(once)
    breaker.subscribe(lambda key, old, new, reason: told.append(new))
    breaker.force_open(KEY)
    breaker.reset(KEY)
    assert told == [OPEN, OPEN, CLOSED]


def test_callback_that_fails_is_logged_and_disturbs_nobody(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[CircuitState] = []

    def fail(*change: Any) -> None:
        raise RuntimeError("not today")

    breaker = make(on_state_change=fail)
    breaker.subscribe(lambda key, old, new, reason: told.append(new))
    with caplog.at_level(logging.ERROR, "wirespeed.policy"):
        call(breaker, *[BAD] * 4)
        breaker.reset(KEY)
    assert told == [OPEN, CLOSED]
    assert [record.name for record in caplog.records] == ["wirespeed.policy"] * 2
    assert "not today" in caplog.text


def test_callback_may_change_the_state_and_all_are_told_in_order(make: Make) -> None:
    breaker = make()
    told: list[tuple[str, CircuitState]] = []

    def close(key: Any, old: CircuitState, new: CircuitState, reason: Reason) -> None:
        told.append(("first", new))
        if new is OPEN:
            breaker.reset(key)

    breaker.subscribe(close)
    breaker.subscribe(lambda key, old, new, reason: told.append(("second", new)))
    call(breaker, *[BAD] * 4)
    assert breaker.state(KEY) is CLOSED
    assert told == [("first", OPEN), ("second", OPEN), ("first", CLOSED), ("second", CLOSED)]


def test_attempt_goes_by_the_state_that_a_callback_has_left(make: Make, clock: FakeClock) -> None:
    breaker = opened(make)
    stop = breaker.subscribe(
        lambda key, old, new, reason: breaker.force_open(key) if new is HALF_OPEN else None
    )
    clock.advance(30)
    assert refused(breaker).retry_after == math.inf
    stop()
    breaker.reset(KEY)
    breaker.force_open(KEY, 5)
    breaker.subscribe(lambda key, old, new, reason: breaker.reset(key) if new is HALF_OPEN else None)
    clock.advance(5)
    call(breaker, GOOD)
    assert breaker.state(KEY) is CLOSED
    assert figures(breaker).calls == 1


def test_callback_that_is_interrupted_does_not_silence_the_others(make: Make) -> None:
    def interrupt(*change: Any) -> None:
        raise KeyboardInterrupt

    breaker = make()
    stop = breaker.subscribe(interrupt)
    with pytest.raises(KeyboardInterrupt):
        breaker.force_open(KEY)
    assert breaker.state(KEY) is OPEN
    stop()
    told: list[CircuitState] = []
    breaker.subscribe(lambda key, old, new, reason: told.append(new))
    breaker.reset(KEY)
    assert told == [CLOSED]


# By hand


def test_circuit_opened_by_hand_is_probed_after_its_time(make: Make, clock: FakeClock) -> None:
    breaker = make(probes=1)
    breaker.force_open(KEY, 5)
    exc = refused(breaker)
    assert (exc.retry_after, exc.reason.cause, exc.last_outcome) == (5, Cause.FORCED, None)
    clock.advance(3)
    breaker.force_open(KEY, 5)
    assert refused(breaker).retry_after == 5
    assert figures(breaker).opened == 1
    clock.advance(5)
    call(breaker, GOOD)
    assert breaker.state(KEY) is CLOSED


def test_circuit_opened_by_hand_for_good_stays_open_until_it_is_reset(make: Make, clock: FakeClock) -> None:
    breaker = make()
    breaker.force_open(KEY)
    clock.advance(1e9)
    assert "is open until it is reset: it was opened by hand" in str(refused(breaker))
    breaker.reset(KEY)
    call(breaker, GOOD)


def test_circuit_that_was_open_says_that_it_was_opened_by_hand(make: Make) -> None:
    breaker = opened(make)
    breaker.force_open(KEY, 60)
    exc = refused(breaker)
    assert (exc.retry_after, exc.reason.cause) == (60, Cause.FORCED)


def test_opening_by_hand_makes_no_later_time_longer(make: Make, clock: FakeClock) -> None:
    breaker, _ = half_open(make, clock, open_factor=2, probes=1)
    breaker.force_open(KEY, 5)
    clock.advance(5)
    call(breaker, BAD)
    assert figures(breaker).until == clock.now + 60


def test_reset_empties_the_window_and_what_is_under_way_counts_no_longer(
    make: Make, clock: FakeClock
) -> None:
    breaker = make()
    under_way = breaker.acquire(KEY)
    call(breaker, BAD, BAD, BAD)
    breaker.reset(KEY)
    answer(under_way, BAD, clock)
    assert figures(breaker).calls == 0
    call(breaker, BAD, BAD, BAD)
    assert breaker.state(KEY) is CLOSED


def test_what_is_unknown_is_closed_and_may_be_reset(make: Make) -> None:
    breaker = make()
    assert breaker.state(KEY) is CLOSED
    breaker.reset(KEY)
    assert not breaker.stats().by_key


@pytest.mark.parametrize("old", list(CircuitState))
@pytest.mark.parametrize("new", list(CircuitState))
def test_only_changes_of_the_table_are_made(
    make: Make, clock: FakeClock, old: CircuitState, new: CircuitState
) -> None:
    breaker = make()
    circuit = breaker._circuits.get(KEY, clock.now)
    circuit.state = old
    reason = Reason(Cause.RESET, "a test")
    if new in TRANSITIONS[old]:
        breaker._set_state(circuit, new, reason, clock.now)
        assert circuit.state is new
    else:
        with pytest.raises(RuntimeError, match=f"cannot go from {old.name} to {new.name}"):
            breaker._set_state(circuit, new, reason, clock.now)
        assert circuit.state is old


# Keys and figures


def test_circuits_that_are_not_closed_are_never_forgotten(make: Make, clock: FakeClock) -> None:
    breaker = opened(make, max_keys=1)
    clock.advance(1e9)
    call(breaker, GOOD, key="b")
    assert set(breaker.stats().by_key) == {KEY, "b"}
    breaker.acquire(KEY)
    clock.advance(1e9)
    call(breaker, GOOD, key="c")
    assert set(breaker.stats().by_key) == {KEY, "c"}
    assert breaker.state(KEY) is HALF_OPEN
    assert breaker.stats().forgotten["passed"] == 1


@pytest.mark.parametrize(
    ("outcome", "quiet", "is_kept"),
    [(GOOD, 59, True), (GOOD, 60, False), (BAD, 60, True), (BAD, 599, True), (BAD, 600, False)],
)
def test_closed_circuits_are_forgotten_when_they_say_nothing_any_more(
    make: Make, clock: FakeClock, outcome: Outcome, quiet: float, is_kept: bool
) -> None:
    breaker = make(max_keys=1)
    call(breaker, outcome)
    clock.advance(quiet)
    call(breaker, GOOD, key="b")
    assert (KEY in breaker.stats().by_key) is is_kept


def test_circuits_in_use_are_kept(make: Make, clock: FakeClock) -> None:
    breaker = make(max_keys=1)
    call(breaker, GOOD)
    clock.advance(59)
    call(breaker, GOOD)
    clock.advance(59)
    call(breaker, GOOD, key="b")
    assert set(breaker.stats().by_key) == {KEY, "b"}


def test_circuit_that_has_just_closed_is_kept(make: Make, clock: FakeClock) -> None:
    breaker = opened(make, max_keys=1)
    clock.advance(1000)
    breaker.reset(KEY)
    call(breaker, GOOD, key="b")
    assert set(breaker.stats().by_key) == {KEY, "b"}


def test_slow_calls_in_the_window_keep_a_circuit(make: Make, clock: FakeClock) -> None:
    breaker = make(max_keys=1, slow_call_duration=1)
    call(breaker, GOOD, latency=2)
    clock.advance(60)
    call(breaker, GOOD, key="b")
    assert set(breaker.stats().by_key) == {KEY, "b"}


def test_figures_of_an_open_circuit_are_those_that_opened_it(make: Make, clock: FakeClock) -> None:
    breaker = opened(make, window_calls=None, window_seconds=10)
    clock.advance(29)
    assert (figures(breaker).calls, figures(breaker).failure_rate) == (4, 1.0)


def test_every_metric_is_a_figure_of_a_key(make: Make) -> None:
    breaker = opened(make)
    for metric in breaker.metrics:
        assert isinstance(getattr(figures(breaker), metric.attribute), int | float)
    assert float(figures(breaker).state) == 2


def test_time_may_be_given() -> None:
    def refuse() -> float:
        raise AssertionError("the clock was read")

    breaker = CircuitBreaker(clock=refuse)
    breaker.acquire(KEY, now=1.0).release(1.0)
    breaker.force_open(KEY, 1.0, 1.0)
    with pytest.raises(CircuitOpenError):
        breaker.look(KEY, 1.5)
    breaker.acquire(KEY, now=2.0)
    breaker.reset(KEY, 2.0)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_weight_that_is_not_positive_is_refused(make: Make, weight: float) -> None:
    with pytest.raises(ValueError, match=f"weight must be positive, got {weight}"):
        make().acquire(KEY, weight=weight)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"failure_rate": 0.0}, "failure_rate must be above 0 and at most 1, got 0.0"),
        ({"slow_call_rate": 50}, "slow_call_rate must be above 0 and at most 1, got 50"),
        ({"slow_call_duration": 0}, "slow_call_duration must be positive seconds, got 0"),
        ({"window_seconds": -1}, "window_seconds must be positive seconds, got -1"),
        ({"open_for": math.inf}, "open_for must be positive seconds, got inf"),
        ({"half_open_for": 0}, "half_open_for must be positive seconds, got 0"),
        ({"window_calls": 5, "window_seconds": 5}, "Expected one window, got 5 calls and 5 seconds"),
        ({"window_calls": 0}, "window_calls must be positive, got 0"),
        ({"minimum_calls": 0}, "minimum_calls must be positive, got 0"),
        ({"probes": 0}, "probes must be positive, got 0"),
        ({"window_calls": 10}, r"minimum_calls must be at most window_calls \(10\), got 20"),
        ({"open_factor": 0.5}, "open_factor must be at least 1, got 0.5"),
        ({"open_max": 5}, r"open_max must not be below open_for \(30.0\), got 5"),
        ({"max_keys": 0}, "max_keys must be positive, got 0"),
    ],
)
def test_impossible_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CircuitBreaker(**given)


def test_defaults_are_possible() -> None:
    breaker = CircuitBreaker()
    assert breaker.window_calls == 100
    assert CircuitBreaker(window_seconds=10, minimum_calls=500).window_seconds == 10
