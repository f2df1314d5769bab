"""The circuit breaker in any order of events, against a model that keeps lists and counts anew each time."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wirespeed.policy.breaker import CircuitBreaker
from wirespeed.policy.circuit import CircuitState
from wirespeed.policy.errors import CircuitOpenError
from wirespeed.policy.gates import Permit
from wirespeed.policy.outcome import Observation, Outcome

from .conftest import LONG, FakeClock

KEY = "k"
CLOSED, HALF_OPEN, OPEN = CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN
SLOW_AFTER = 1.0
SLICE = 0.5

shares = st.sampled_from([0.2, 0.34, 0.5, 1.0])


class Attempt:
    """One that was let through: in which state of the model, by number, and whether as a probe."""

    def __init__(self, permit: Permit, era: int, is_probe: bool) -> None:
        self.permit = permit
        self.era = era
        self.is_probe = is_probe
        self.is_out = True  # neither answered nor released
        self.is_counted = False


class BreakerMachine(RuleBasedStateMachine):
    @initialize(
        failure_rate=shares,
        slow_call_rate=shares,
        window=st.sampled_from([{"window_calls": 5}, {"window_calls": 12}, {"window_seconds": 10 * SLICE}]),
        minimum=st.integers(1, 5),
        probes=st.integers(1, 4),
        factor=st.sampled_from([1.0, 2.0]),
        patience=st.sampled_from([None, 20.0]),
        shadow=st.booleans(),
    )
    def begin(
        self,
        failure_rate: float,
        slow_call_rate: float,
        window: dict[str, Any],
        minimum: int,
        probes: int,
        factor: float,
        patience: float | None,
        shadow: bool,
    ) -> None:
        self.clock = FakeClock()
        self.told: list[tuple[CircuitState, CircuitState]] = []
        self.breaker = CircuitBreaker(
            failure_rate=failure_rate,
            slow_call_rate=slow_call_rate,
            slow_call_duration=SLOW_AFTER,
            minimum_calls=minimum,
            open_for=8.0,
            open_factor=factor,
            open_max=30.0,
            probes=probes,
            half_open_for=patience,
            shadow=shadow,
            on_state_change=lambda key, old, new, reason: self.told.append((old, new)),
            clock=self.clock,
            **window,
        )
        self.rates = failure_rate, slow_call_rate
        self.size, self.minimum, self.probes = window.get("window_calls"), minimum, probes
        self.factor, self.patience, self.shadow = factor, patience, shadow
        self.state = CLOSED
        self.era = 0
        self.until = self.probed_at = 0.0
        self.wait = 8.0
        self.calls: list[tuple[float, bool, bool]] = []
        self.attempts: list[Attempt] = []
        self.counts = dict.fromkeys(("passed", "rejected", "would_reject", "opened", "probed", "late"), 0)
        self.last_counts: dict[str, float] = {}

    # The model

    def alive(self, now: float) -> list[tuple[float, bool, bool]]:
        if self.state is HALF_OPEN or self.size is not None:
            return self.calls if self.state is HALF_OPEN else self.calls[-(self.size or 0) :]
        return [call for call in self.calls if now // SLICE - call[0] // SLICE < 10]

    def go(self, state: CircuitState, seconds: float | None = None) -> None:
        if state is OPEN:
            self.counts["opened"] += 1
            if self.state is HALF_OPEN and seconds is None:
                self.wait = min(self.wait * self.factor, 30.0)
            self.until = self.clock.now + (self.wait if seconds is None else seconds)
        else:
            self.calls = []
        if state is CLOSED:
            self.wait = 8.0
        self.state = state
        self.era += 1

    def taken(self) -> int:
        of_now = [attempt for attempt in self.attempts if attempt.is_probe and attempt.era == self.era]
        return sum(attempt.is_out or attempt.is_counted for attempt in of_now)

    def is_full(self) -> bool:
        return self.state is HALF_OPEN and self.taken() == self.probes

    def is_silent(self) -> bool:
        return self.patience is not None and self.clock.now - self.probed_at >= self.patience

    def count(self, attempt: Attempt, outcome: Outcome, latency: float) -> None:
        if not outcome.is_verdict:
            return
        if attempt.era != self.era:
            self.counts["late"] += 1
            return
        attempt.is_counted = True
        self.calls.append((self.clock.now, outcome.is_failure, latency > SLOW_AFTER))
        calls = self.alive(self.clock.now)
        of = self.probes if self.state is HALF_OPEN else len(calls)
        bad = [sum(call[which] for call in calls) / of >= self.rates[which - 1] for which in (1, 2)]
        if self.state is HALF_OPEN:
            if any(bad):
                self.go(OPEN)
            elif len(calls) == self.probes:
                self.go(CLOSED)
        elif any(bad) and len(calls) >= self.minimum:
            self.go(OPEN)

    # What happens

    @rule()
    def acquire(self) -> None:
        now = self.clock.now
        if self.state is OPEN and now >= self.until:
            self.go(HALF_OPEN)
        elif self.is_full() and self.is_silent():
            self.go(OPEN)
        is_probe = self.state is HALF_OPEN and self.taken() < self.probes
        if self.state is CLOSED or is_probe:
            self.counts["passed"] += 1
            permit = self.breaker.acquire(KEY)
            if is_probe:
                self.counts["probed"] += 1
                self.probed_at = now
            self.attempts.append(Attempt(permit, self.era, is_probe))
        elif self.shadow:
            self.counts["passed"] += 1
            self.counts["would_reject"] += 1
            permit = self.breaker.acquire(KEY)
            permit.observe(Observation(Outcome.SERVER_FAULT, 5.0, now))
            permit.release(now)
        else:
            self.counts["rejected"] += 1
            with pytest.raises(CircuitOpenError) as caught:
                self.breaker.acquire(KEY)
            assert caught.value.state is self.state
            assert caught.value.until == (self.until if self.state is OPEN else None)

    @rule()
    def look(self) -> None:
        now = self.clock.now
        is_open = self.state is OPEN and now < self.until
        if (is_open or (self.is_full() and not self.is_silent())) and not self.shadow:
            self.counts["rejected"] += 1
            with pytest.raises(CircuitOpenError):
                self.breaker.look(KEY)
        else:
            self.breaker.look(KEY)

    @precondition(lambda self: any(attempt.is_out for attempt in self.attempts))
    @rule(
        data=st.data(),
        outcome=st.sampled_from(Outcome) | st.sampled_from([Outcome.SUCCESS, Outcome.TIMED_OUT]),
        latency=st.sampled_from([0.1, SLOW_AFTER, 1.5]),
        is_released=st.booleans(),
    )
    def answer(self, data: st.DataObject, outcome: Outcome, latency: float, is_released: bool) -> None:
        attempt = data.draw(st.sampled_from([attempt for attempt in self.attempts if attempt.is_out]))
        attempt.is_out = False
        self.count(attempt, outcome, latency)
        attempt.permit.observe(Observation(outcome, latency, self.clock.now))
        if is_released or not outcome.is_verdict:
            attempt.permit.release(self.clock.now)

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        # Twice too, and after the answer.
        attempt = data.draw(st.sampled_from(self.attempts))
        attempt.is_out = False
        attempt.permit.release(self.clock.now)

    @rule(seconds=st.sampled_from([0.1, SLICE, 3.0, 8.0, 16.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.era % 3 == 0)
    @rule(seconds=st.sampled_from([1.0, 50.0]))
    def force(self, seconds: float) -> None:
        if self.state is OPEN:
            self.until = self.clock.now + seconds
        else:
            self.go(OPEN, seconds)
        self.breaker.force_open(KEY, seconds)

    @precondition(lambda self: self.era % 3 == 1)
    @rule()
    def reset(self) -> None:
        self.go(CLOSED)
        self.breaker.reset(KEY)

    @precondition(lambda self: self.state is not CLOSED)
    @rule()
    def recover(self) -> None:
        """Whatever has happened: after its time, and with probes that are answered well, it is closed."""
        for attempt in self.attempts:
            attempt.is_out = False
            attempt.permit.release(self.clock.now)
        self.clock.advance(100.0)
        for _ in range(self.probes):
            if self.state is not CLOSED:
                self.acquire()
                attempt = self.attempts[-1]
                attempt.is_out = False
                self.count(attempt, Outcome.SUCCESS, 0.1)
                attempt.permit.observe(Observation(Outcome.SUCCESS, 0.1, self.clock.now))
                attempt.permit.release(self.clock.now)
        assert self.breaker.state(KEY) is CLOSED

    # What holds

    @invariant()
    def state_is_that_of_the_model(self) -> None:
        assert self.breaker.state(KEY) is self.state
        for old, new in zip(self.told, self.told[1:], strict=False):
            assert old[1] is new[0]

    @invariant()
    def no_more_probes_than_allowed_are_under_way(self) -> None:
        of_now = [attempt for attempt in self.attempts if attempt.is_probe and attempt.era == self.era]
        assert sum(attempt.is_out for attempt in of_now) <= self.probes
        assert sum(attempt.is_counted for attempt in of_now) <= self.probes

    @invariant()
    def figures_equal_a_recount(self) -> None:
        found = self.breaker.stats().by_key.get(KEY)
        if found is None:
            return
        counts = {metric.attribute: getattr(found, metric.attribute) for metric in self.breaker.metrics}
        assert {name: counts[name] for name in self.counts} == self.counts
        for metric in self.breaker.metrics:
            if metric.kind == "counter":
                assert counts[metric.attribute] >= self.last_counts.get(metric.attribute, 0)
        self.last_counts = counts
        assert found.until == (self.until if self.state is OPEN else None)
        if self.state is not OPEN:
            calls = self.alive(self.clock.now)
            assert found.calls == len(calls)
            assert found.failure_rate == (sum(call[1] for call in calls) / len(calls) if calls else 0)
            assert found.slow_call_rate == (sum(call[2] for call in calls) / len(calls) if calls else 0)


TestBreaker = BreakerMachine.TestCase
# Each example is many steps: fewer of them fit into the time of a test.
TestBreaker.settings = settings(max_examples=2000 if LONG else 150, stateful_step_count=60)
