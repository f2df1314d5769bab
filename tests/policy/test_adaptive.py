"""Adaptive concurrency: what single attempts do to a limit, and where limits come to rest in a simulation."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.policy.adaptive import AdaptiveConcurrency
from wirespeed.policy.aimd import AIMD
from wirespeed.policy.errors import AdaptiveLimitFull, PolicyError
from wirespeed.policy.gates import QUEUED, Permit
from wirespeed.policy.gradient import Gradient2
from wirespeed.policy.limits import LimitAlgorithm, LimitReason
from wirespeed.policy.outcome import Observation, Outcome
from wirespeed.policy.queueing import SlotPermit

from .conftest import LONG, FakeClock
from .simulation import Client, Events, Server, Trace, figures, phases

KEY = "origin"
CAPACITIES = [20, 60, 10, 40]
SEEDS = range(3)
BOTH = pytest.mark.parametrize("make", [AIMD, Gradient2])
Make = Callable[..., LimitAlgorithm]


def attempts(
    gate: AdaptiveConcurrency,
    clock: FakeClock,
    number: int,
    outcome: Outcome = Outcome.SUCCESS,
    latency: float = 0.05,
) -> None:
    """Make attempts one after the other, as many at once as the limit allows."""
    while number > 0:
        held = []
        while number > 0:
            permit = gate.acquire(KEY)
            if permit.ready_at == QUEUED:
                permit.release(clock())
                break
            held.append(permit)
            number -= 1
        clock.advance(latency)
        for permit in held:
            permit.observe(Observation(outcome, latency, clock()))
        for permit in held:
            permit.release(clock())


# Where the limit comes to rest


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("algorithm", "room"),
    [
        (AIMD(latency_threshold=0.055), None),
        (AIMD(), 0),
        (Gradient2(), None),
        (Gradient2(), 0),
    ],
    ids=["aimd-latency", "aimd-refusals", "gradient2-latency", "gradient2-refusals"],
)
def test_limit_follows_the_capacity(algorithm: LimitAlgorithm, room: int | None, seed: int) -> None:
    """Within 20 % of it within 10 s of each change, and there to stay."""
    events = Events()
    gate = AdaptiveConcurrency(algorithm, clock=events)
    for phase in phases(gate, events, Server(events, 20, room=room, seed=seed), CAPACITIES):
        assert phase.seconds <= 10, phase
        assert abs(phase.off) <= 0.2, phase
        assert phase.spread <= 0.12, phase


@pytest.mark.skipif(not LONG, reason="WIRESPEED_LONG=1 asks for it")
@pytest.mark.parametrize("room", [None, 0])
def test_gradient_hardly_ever_needs_longer(room: int | None) -> None:
    """Answers are random: of the changes over many seeds, one in twenty may take longer than 10 s."""
    missed = 0
    for seed in range(30):
        events = Events()
        gate = AdaptiveConcurrency(Gradient2(), clock=events)
        for phase in phases(gate, events, Server(events, 20, room=room, seed=seed), CAPACITIES):
            assert abs(phase.off) <= 0.2, phase
            missed += phase.seconds > 10
    assert missed <= 6


@pytest.mark.parametrize("algorithm", [AIMD(latency_threshold=0.055), Gradient2()], ids=["aimd", "gradient2"])
def test_limit_does_not_drift_under_demand_that_stays(algorithm: LimitAlgorithm) -> None:
    events = Events()
    gate = AdaptiveConcurrency(algorithm, clock=events)
    [phase] = phases(gate, events, Server(events, 20), [20], settle=240, seconds=300)
    assert abs(phase.off) <= 0.2, phase
    assert phase.low >= 20 * 0.5, phase
    assert phase.high <= 20 * 1.5, phase


@pytest.mark.parametrize("factor", [4, 2, 0.5, 0.25])
def test_gradient_learns_that_answers_take_another_time(factor: float) -> None:
    """The server works on as many at once as before, so the limit must come back."""
    events = Events()
    gate = AdaptiveConcurrency(Gradient2(), clock=events)
    server = Server(events, 20)
    crowd = [Client(gate, server) for _ in range(200)]
    trace = Trace(gate, events)
    events.run(20)
    server.service *= factor
    changed = events.now
    events.run(40)
    settled = trace.between(changed + 20, events.now)
    assert abs(sum(settled) / len(settled) / 20 - 1) <= 0.25
    assert len(crowd) == 200


@BOTH
@pytest.mark.parametrize("outcome", [Outcome.THROTTLED, Outcome.OVERLOADED])
def test_server_that_only_refuses_gets_the_least_and_recovers(make: Make, outcome: Outcome) -> None:
    events = Events()
    gate = AdaptiveConcurrency(make(initial=50, min_limit=2), clock=events)
    server = Server(events, 50, room=0)
    crowd = [Client(gate, server) for _ in range(100)]
    events.run(2)
    server.answer = outcome
    events.run(2)
    stats = figures(gate)
    assert (stats.limit, stats.reason) == (2, LimitReason[outcome.name])
    server.answer = Outcome.SUCCESS
    events.run(15)
    assert 40 <= figures(gate).limit <= 60
    assert len(crowd) == 100


@BOTH
def test_server_that_stalls_gets_the_least_within_few_timeouts(make: Make) -> None:
    events = Events()
    gate = AdaptiveConcurrency(make(initial=50), clock=events)
    server = Server(events, 50)
    server.stalls = True
    crowd = [Client(gate, server, timeout=1) for _ in range(100)]
    events.run(10)
    stats = figures(gate)
    assert stats.limit <= 3
    assert stats.reason is LimitReason.TIMED_OUT
    assert len(crowd) == 100


@BOTH
def test_one_origin_that_is_slow_costs_another_nothing(make: Make) -> None:
    events = Events()
    gate = AdaptiveConcurrency(make(), clock=events)
    slow, fast = Server(events, 20, room=0), Server(events, 20, room=0)
    slow.stalls = True
    crowd = [Client(gate, slow, key="slow", timeout=1) for _ in range(50)]
    crowd += [Client(gate, fast, key="fast") for _ in range(50)]
    events.run(10)
    assert figures(gate, "slow").limit <= 3
    assert figures(gate, "fast").limit >= 16
    assert fast.served > 10 * 20 / 0.05 * 0.8
    assert len(crowd) == 100


@BOTH
def test_demand_below_the_limit_does_not_raise_it(make: Make) -> None:
    events = Events()
    gate = AdaptiveConcurrency(make(initial=20), clock=events)
    crowd = [Client(gate, Server(events, 100)) for _ in range(9)]
    events.run(30)
    assert figures(gate).limit == 20
    assert len(crowd) == 9


# What single attempts do


@BOTH
@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.SUCCESS])
def test_what_is_no_success_never_raises_the_limit_however_quick(
    make: Make, outcome: Outcome, clock: FakeClock
) -> None:
    gate = AdaptiveConcurrency(make(initial=10), clock=clock)
    attempts(gate, clock, 2000)
    reached = figures(gate).limit
    assert reached > 10
    attempts(gate, clock, 2000, outcome, latency=0.001)
    assert figures(gate).limit == (1 if outcome.is_pressure else reached)


@BOTH
def test_refusals_of_one_round_trip_count_once(make: Make, clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(make(initial=20), clock=clock)
    attempts(gate, clock, 20, Outcome.OVERLOADED)
    stats = figures(gate)
    assert (stats.limit, stats.decreases, stats.reason) == (18, 1, LimitReason.OVERLOADED)
    assert stats.changed_at == clock()


@BOTH
def test_falls_get_larger_only_while_nothing_succeeds(make: Make, clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(make(initial=100), clock=clock)
    limits = []
    for _ in range(4):
        attempts(gate, clock, 1, Outcome.THROTTLED)
        limits.append(figures(gate).limit)
    assert limits == [90, 72, 53, 34]
    attempts(gate, clock, 1)
    attempts(gate, clock, 1, Outcome.THROTTLED)
    assert figures(gate).limit == 31


def test_aimd_grows_by_one_for_each_round_trip(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(AIMD(initial=10), clock=clock)
    for expected in (11, 12, 13):
        attempts(gate, clock, expected - 1)
        assert figures(gate).limit == expected
    assert figures(gate).reason is LimitReason.GROWN


def test_aimd_backs_off_where_answers_are_too_slow_on_the_average(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(AIMD(initial=10, latency_threshold=1, backoff=0.5), clock=clock)
    attempts(gate, clock, 9, latency=0.1)
    attempts(gate, clock, 1, latency=5)
    assert figures(gate).limit == 10  # one slow answer is not an average
    attempts(gate, clock, 10, latency=5)
    stats = figures(gate)
    assert (stats.limit, stats.reason) == (5, LimitReason.LATENCY)
    attempts(gate, clock, 10, latency=0.1)  # what was slow was so under the former limit
    assert figures(gate).limit == 5


def test_gradient_goes_by_the_time_that_answers_take_since_they_became_quicker(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(Gradient2(max_limit=20, probe_interval=1e9), clock=clock)
    attempts(gate, clock, 500, latency=0.05)
    attempts(gate, clock, 1000, latency=0.02)
    assert figures(gate).limit == 20
    attempts(gate, clock, 100, latency=0.05)
    stats = figures(gate)
    assert stats.limit < 20
    assert stats.decreases


def test_gradient_restores_the_limit_where_lowering_it_did_not_help(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(Gradient2(max_limit=20, probe_interval=1e9), clock=clock)
    attempts(gate, clock, 500, latency=0.05)
    limits = []
    for _ in range(50):
        attempts(gate, clock, 20, latency=0.2)
        limits.append(figures(gate).limit)
    lowest = min(limits)
    assert lowest < 14
    assert limits[-1] == 20
    later = limits[limits.index(lowest) :]
    assert 20 in later[:8], later  # in a step, once two probes have said so


def test_gradient_lowers_the_limit_for_a_moment_to_probe(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(Gradient2(initial=20, max_limit=20, probe_interval=5), clock=clock)
    reasons = {}
    for _ in range(400):
        attempts(gate, clock, 20)
        stats = figures(gate)
        reasons[stats.reason] = stats.limit
    assert reasons == {LimitReason.INITIAL: 20, LimitReason.PROBE: 14, LimitReason.PROBED: 20}
    assert (stats.increases, stats.decreases) == (0, 0)


def test_refusal_within_a_probe_does_not_end_it_at_a_higher_limit(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(Gradient2(initial=20, max_limit=20), clock=clock)
    for _ in range(100):
        attempts(gate, clock, 20)
        if figures(gate).reason is LimitReason.PROBE:
            break
    attempts(gate, clock, 1, Outcome.THROTTLED)
    assert figures(gate).limit == 12


@BOTH
def test_limit_that_fell_drains_and_interrupts_nobody(make: Make, clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(make(initial=10, backoff=0.5), clock=clock)
    held = [gate.acquire(KEY) for _ in range(10)]
    waiting = gate.acquire(KEY)
    clock.advance(1)
    held[0].observe(Observation(Outcome.OVERLOADED, 0.5, clock()))
    assert figures(gate).limit == 5
    for permit in held[:5]:
        permit.release(clock())
        assert waiting.ready_at == QUEUED
    assert figures(gate).in_use == 5
    held[5].release(clock())
    assert waiting.ready_at == clock()


def test_waiting_permits_hold_when_the_limit_grows(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(AIMD(initial=1, increase=3), clock=clock)
    woken: list[Permit] = []
    held = gate.acquire(KEY)
    waiting = [gate.acquire(KEY, wake=woken.append) for _ in range(5)]
    held.observe(Observation(Outcome.SUCCESS, 0.1, clock.advance(0.1)))
    assert woken == waiting[:3]


def test_permit_heavier_than_the_limit_goes_alone(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(AIMD(initial=4), clock=clock)
    light = gate.acquire(KEY)
    heavy = gate.acquire(KEY, weight=6)
    light.release(clock())
    assert heavy.ready_at == clock()
    assert gate.acquire(KEY).ready_at == QUEUED


def test_more_than_max_waiting_are_refused(clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(AIMD(initial=1), max_waiting=1, clock=clock)
    gate.acquire(KEY)
    gate.acquire(KEY)
    with pytest.raises(
        AdaptiveLimitFull, match="limit is reached for origin: 1 of 1 in use, 1 waiting"
    ) as info:
        gate.acquire(KEY)
    assert isinstance(info.value, PolicyError)
    assert figures(gate).refused == 1


@BOTH
def test_what_was_learned_is_kept_until_long_silence(make: Make, clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(make(), clock=clock)
    attempts(gate, clock, 20, Outcome.THROTTLED)

    def crowd(name: str) -> None:
        for number in range(20_000):
            gate.acquire((name, number)).release(clock())

    crowd("first")
    assert figures(gate).limit == 18
    assert len(gate.stats().by_key) <= 10_000
    clock.advance(61)
    crowd("second")
    stats = gate.stats()
    assert KEY not in stats.by_key
    assert stats.forgotten["decreases"] == 1


@BOTH
def test_answers_in_no_time_at_all_are_borne(make: Make, clock: FakeClock) -> None:
    gate = AdaptiveConcurrency(make(initial=5), clock=clock)
    attempts(gate, clock, 500, latency=0.0)
    attempts(gate, clock, 500, latency=0.1)
    attempts(gate, clock, 500, latency=0.0)
    assert figures(gate).limit >= 5


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (AIMD, {"min_limit": 0}, "min_limit must be at least 1, got 0"),
        (Gradient2, {"max_limit": 5, "min_limit": 6}, "max_limit must be at least min_limit, 6, got 5"),
        (AIMD, {"initial": 201}, "initial must be between 1 and 200, got 201"),
        (Gradient2, {"initial": 3, "min_limit": 4}, "initial must be between 4 and 200, got 3"),
        (AIMD, {"backoff": 1}, r"backoff must be at least 0\.5 and below 1, got 1"),
        (Gradient2, {"backoff": 0.4}, r"backoff must be at least 0\.5 and below 1, got 0\.4"),
        (AIMD, {"increase": 0}, "increase must be positive, got 0"),
        (AIMD, {"latency_threshold": 0}, "latency_threshold must be positive, got 0"),
        (Gradient2, {"tolerance": 0.9}, r"tolerance must be at least 1, got 0\.9"),
        (Gradient2, {"smoothing": 0}, "smoothing must be above 0 and at most 1, got 0"),
        (Gradient2, {"probe_interval": 0}, "probe_interval must be positive, got 0"),
        (Gradient2, {"probe_depth": 1}, "probe_depth must be between 0 and 1, got 1"),
        (AdaptiveConcurrency, {"max_waiting": -1}, "max_waiting must not be negative, got -1"),
    ],
)
def test_impossible_argument_is_an_error(make: Callable[..., object], arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(**arguments)


@pytest.mark.parametrize("weight", [0, -1, 201, float("nan")])
def test_impossible_weight_is_an_error(weight: float) -> None:
    with pytest.raises(ValueError, match=r"^weight must be positive and at most max_limit, 200, got "):
        AdaptiveConcurrency().acquire(KEY, weight=weight)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["acquire", "finish", "leave"]),
        st.integers(0, 30),  # whom
        st.sampled_from([Outcome.SUCCESS] * 6 + list(Outcome)),
        st.floats(0, 3),
        st.integers(1, 3),
    ),
    min_size=20,
    max_size=300,
)


@BOTH
@given(steps=STEPS)
def test_whatever_happens_nothing_is_lost_or_granted_beyond_the_limit(make: Make, steps: list) -> None:
    clock = FakeClock()
    gate = AdaptiveConcurrency(make(initial=4, min_limit=3, max_limit=8), clock=clock)
    here: list[SlotPermit] = []
    waiting: list[SlotPermit] = []
    woken: list[Permit] = []

    def wake(permit: Permit) -> None:
        assert permit is waiting.pop(0)
        assert permit not in woken
        woken.append(permit)
        assert figures(gate).in_use <= figures(gate).limit

    for what, whom, outcome, seconds, weight in steps:
        clock.advance(seconds)
        if what == "acquire" or not here:
            permit = gate.acquire(KEY, weight=weight, wake=wake)
            here.append(permit)
            if permit.ready_at == QUEUED:
                waiting.append(permit)
            else:
                assert not waiting
                assert figures(gate).in_use <= figures(gate).limit
        else:
            permit = here.pop(whom % len(here))
            if permit in waiting:
                waiting.remove(permit)
            elif what == "finish":
                before = figures(gate)
                permit.observe(Observation(outcome, seconds, clock()))
                after = figures(gate)
                if outcome is not Outcome.SUCCESS:
                    assert after.limit <= before.limit
                if not outcome.is_verdict:
                    assert after.limit == before.limit
            permit.release(clock())
        stats = figures(gate)
        assert 3 <= stats.limit <= 8
        assert stats.waiting == len(waiting)
        assert stats.in_use == sum(permit.weight for permit in here if permit not in waiting)
        if waiting:
            assert stats.in_use + waiting[0].weight > stats.limit
