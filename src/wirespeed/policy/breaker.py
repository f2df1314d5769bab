"""The circuit breaker: a server that fails is left alone for a while, and then asked carefully how it is.

After Nygard, Release It! (2nd ed., 2018, "Circuit Breaker"), with the windows, the rate of slow calls and the
bounded probes of resilience4j (https://resilience4j.readme.io/docs/circuitbreaker). As everything in here it
decides only: time comes in with each call, and an open circuit becomes half-open with the first attempt after
its time.

An attempt counts for the state that it was admitted in. What was admitted while the circuit was closed, and
ends when it is open, half-open or closed again, is from before: it is counted as `late`, and changes nothing.
"""

import math
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from .circuit import (
    BYSTANDER,
    TRANSITIONS,
    Cause,
    Circuit,
    CircuitFigures,
    CircuitState,
    OnStateChange,
    Reason,
    Watchers,
)
from .errors import CircuitOpenError
from .gates import Clock, Gate, KeyOf, Metric, Permit, Wake, ignore
from .keyed import MAX_KEYS, Keyed, KeyedStats
from .outcome import Observation, Outcome
from .windows import FAILED, SLOW, CountWindow, TimeWindow, Window

WINDOW_CALLS = 100
HALF_OPEN_FOR = 300.0
"""Seconds; aiohttp's default for a whole request. A probe that has said nothing for longer never will."""

_CLOSED = CircuitState.CLOSED
_HALF_OPEN = CircuitState.HALF_OPEN
_OPEN = CircuitState.OPEN
_SUCCESS = Outcome.SUCCESS
_FLAGS = tuple((FAILED if outcome.is_failure else 0) if outcome.is_verdict else -1 for outcome in Outcome)
"""By outcome; -1 for what is no verdict."""


class _Pass(Permit):
    """Of all attempts that are made while a circuit is closed, this time; they occupy nothing."""

    __slots__ = ("_breaker", "_circuit")

    if not TYPE_CHECKING:
        release = ignore

    def __init__(self, breaker: "CircuitBreaker", circuit: Circuit) -> None:
        self.ready_at = -math.inf
        self._breaker = breaker
        self._circuit = circuit

    def observe(self, seen: Observation) -> None:
        flags = 0 if seen.outcome is _SUCCESS else _FLAGS[seen.outcome]
        if flags < 0:
            return
        circuit = self._circuit
        if circuit.permit is not self:
            circuit.late += 1
            return
        if seen.latency > self._breaker.slow_after:
            flags |= SLOW
        window = circuit.window
        window.record(flags, seen.at)
        if flags or window.failures or window.slow:
            self._breaker._judge(circuit, flags, seen)


class _Probe(Permit):
    """Of one attempt while a circuit is half-open; it occupies a place, and keeps it once it is answered."""

    __slots__ = ("_breaker", "_circuit", "_era", "_is_held")

    def __init__(self, breaker: "CircuitBreaker", circuit: Circuit) -> None:
        self.ready_at = -math.inf
        self._breaker = breaker
        self._circuit = circuit
        self._era = circuit.era
        self._is_held = True

    def observe(self, seen: Observation) -> None:
        circuit = self._circuit
        flags = _FLAGS[seen.outcome]
        if not self._is_held or flags < 0:
            return
        self._is_held = False
        if circuit.era != self._era:
            circuit.late += 1
            return
        if seen.latency > self._breaker.slow_after:
            flags |= SLOW
        circuit.window.record(flags, seen.at)
        self._breaker._judge_probe(circuit, flags, seen)

    def release(self, now: float) -> None:
        if not self._is_held:
            return
        self._is_held = False
        if self._circuit.era == self._era:
            self._circuit.taken -= 1


def _check_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 < share <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, got {share}")


def _check_seconds(**times: float | None) -> None:
    for name, seconds in times.items():
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"{name} must be positive seconds, got {seconds}")


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be positive, got {count}")


class CircuitBreaker(Gate):
    """Refuses attempts to a server that fails, per key.

    Closed, it counts. With at least `minimum_calls` in the window, a failure rate or a slow-call rate that
    reaches its threshold opens the circuit. Open, it refuses everything for `open_for`; the next attempt
    after that makes it half-open. Half-open, it lets `probes` attempts through and refuses others. As soon as
    those that are answered suffice for a threshold, whatever the others will say, the circuit is open again;
    when all are answered and do not, it is closed, with an empty window. A probe that is released unanswered
    gives its place to another.

    What counts as a failure is `Outcome.is_failure`: 4xx and 429 are none. An attempt that was cancelled, or
    refused in this process, says nothing.

    Args:
        failure_rate: share of calls that failed, above 0 and at most 1, that opens the circuit.
        slow_call_rate: share of slow calls, likewise; without `slow_call_duration` there are none.
        slow_call_duration: seconds; calls that take longer are slow, whatever came of them; None: none is.
        window_calls: the window is the last so many calls; 100 where no window is given.
        window_seconds: the window is the last seconds instead, in tenths.
        minimum_calls: calls in the window below which no rate says anything.
        open_for: seconds for which the circuit is open.
        open_factor: the circuit is open so many times longer whenever probes have failed, at least 1.
        open_max: seconds; the longest that it becomes by that.
        probes: attempts while half-open, at once and in all.
        half_open_for: seconds; where no place is left, and the last one was taken so long ago, the probes
            that are missing are given up and the circuit opens again. None: they may take forever.
        shadow: attempts are counted that would have been refused, and the state changes, but nothing is
            refused, nor by force: for trying settings out. What comes of such attempts is not looked at.
        on_state_change: see `subscribe`.
        key: what requests are kept apart by, from the request (its `url`, `method`, `headers`); None for what
            the Policies go by, mostly the origin. For middlewares and batches: `acquire` is given keys.
        clock: used where no `now` is given.
        max_keys: keys that are kept, see Keyed; one that is open or half-open always is.

    Raises:
        ValueError: a figure is out of its range, or there are two windows.
    """

    name = "breaker"
    metrics = (
        Metric("state", "state", "gauge", "The state of the circuit."),
        Metric("failure_rate", "failure_rate", "gauge", "Share of the calls in the window that failed."),
        Metric(
            "slow_call_rate", "slow_call_rate", "gauge", "Share of the calls in the window that were slow."
        ),
        Metric("passed", "passed", "counter", "Attempts that were let through."),
        Metric("rejected", "rejected", "counter", "Attempts that were refused."),
        Metric("would_reject", "would_reject", "counter", "Attempts that only shadow mode let through."),
        Metric("opened", "opened", "counter", "Times that the circuit was opened."),
        Metric("probed", "probed", "counter", "Attempts that were probes of a half-open circuit."),
        Metric("failed", "failed", "counter", "Attempts that failed, late ones left out."),
        Metric("slow", "slow", "counter", "Attempts that were slow, late ones left out."),
        Metric("late", "late", "counter", "Attempts that ended in another state than they began in."),
    )

    def __init__(
        self,
        *,
        failure_rate: float = 0.5,
        slow_call_rate: float = 1.0,
        slow_call_duration: float | None = None,
        window_calls: int | None = None,
        window_seconds: float | None = None,
        minimum_calls: int = 20,
        open_for: float = 30.0,
        open_factor: float = 1.0,
        open_max: float | None = None,
        probes: int = 5,
        half_open_for: float | None = HALF_OPEN_FOR,
        shadow: bool = False,
        on_state_change: OnStateChange | None = None,
        key: KeyOf | None = None,
        clock: Clock = Gate.clock,
        max_keys: int = MAX_KEYS,
    ) -> None:
        _check_shares(failure_rate=failure_rate, slow_call_rate=slow_call_rate)
        _check_seconds(
            slow_call_duration=slow_call_duration,
            window_seconds=window_seconds,
            open_for=open_for,
            half_open_for=half_open_for,
        )
        if window_calls is None:
            window_calls = WINDOW_CALLS
        elif window_seconds is not None:
            raise ValueError(f"Expected one window, got {window_calls} calls and {window_seconds} seconds")
        _check_counts(window_calls=window_calls, minimum_calls=minimum_calls, probes=probes)
        if window_seconds is None and minimum_calls > window_calls:
            raise ValueError(
                f"minimum_calls must be at most window_calls ({window_calls}), got {minimum_calls}"
            )
        if not 1 <= open_factor < math.inf:
            raise ValueError(f"open_factor must be at least 1, got {open_factor}")
        if open_max is not None and not open_max >= open_for:
            raise ValueError(f"open_max must not be below open_for ({open_for}), got {open_max}")
        self.failure_rate, self.slow_call_rate = failure_rate, slow_call_rate
        self.slow_after = math.inf if slow_call_duration is None else slow_call_duration
        self.window_calls, self.window_seconds, self.minimum_calls = (
            window_calls,
            window_seconds,
            minimum_calls,
        )
        self.open_for, self.open_factor = open_for, open_factor
        self.open_max = math.inf if open_max is None else open_max
        self.probes = probes
        self.half_open_for = math.inf if half_open_for is None else half_open_for
        self.shadow = shadow
        self.key_of, self.clock = key, clock
        self._watchers = Watchers()
        if on_state_change is not None:
            self._watchers.subscribe(on_state_change)
        self._circuits = Keyed(self._new_circuit, self.metrics, max_keys)

    def _new_circuit(self, key: Hashable, now: float) -> Circuit:
        circuit = Circuit(key, now)
        self._on_closed(circuit)
        return circuit

    # Attempts

    def acquire(
        self, key: Hashable, *, weight: float = 1.0, now: float | None = None, wake: Wake | None = None
    ) -> Permit:
        """Ask for leave to make an attempt. The permit holds at once; weights make no difference.

        Raises:
            CircuitOpenError: the circuit is open, or half-open and its probes are under way.
            ValueError: the weight is not positive.
        """
        if not weight > 0.0:
            raise ValueError(f"weight must be positive, got {weight}")
        if now is None:
            now = self.clock()
        circuit = self._circuits.find(key) or self._circuits.get(key, now)
        if circuit.state is not _CLOSED:
            return self._acquire_probe(circuit, now)
        circuit.seen_at = now
        circuit.passed += 1
        return circuit.permit

    def look(self, key: Hashable, now: float | None = None) -> None:
        """Refuse an attempt that has no chance now. One that is refused here is counted as rejected, and is
        not to be tried with `acquire`; the state does not change.

        Raises:
            CircuitOpenError: as `acquire` would.
        """
        circuit = self._circuits.find(key)
        if circuit is None or circuit.state is _CLOSED or self.shadow:
            return
        if now is None:
            now = self.clock()
        if self._is_blocked(circuit, now) and not self._is_silent(circuit, now):
            circuit.rejected += 1
            raise self._refusal(circuit, now)

    def _is_blocked(self, circuit: Circuit, now: float) -> bool:
        if circuit.state is _OPEN:
            return now < circuit.until
        return circuit.state is _HALF_OPEN and circuit.taken >= self.probes

    def _acquire_probe(self, circuit: Circuit, now: float) -> Permit:
        if circuit.state is _OPEN and now >= circuit.until:
            self._set_state(circuit, _HALF_OPEN, Reason(Cause.WAITED, "it was open for long enough"), now)
        elif self._is_blocked(circuit, now) and self._is_silent(circuit, now):
            text = f"{self.probes} probes had no answer within {self.half_open_for:g} s"
            self._set_state(circuit, _OPEN, Reason(Cause.SILENT, text), now)
        # Callbacks may have changed the state meanwhile.
        if circuit.state is _CLOSED:
            circuit.seen_at = now
            circuit.passed += 1
            return circuit.permit
        if circuit.state is _HALF_OPEN and circuit.taken < self.probes:
            circuit.taken += 1
            circuit.probed_at = now
            circuit.passed += 1
            circuit.probed += 1
            return _Probe(self, circuit)
        if self.shadow:
            circuit.passed += 1
            circuit.would_reject += 1
            return BYSTANDER
        circuit.rejected += 1
        raise self._refusal(circuit, now)

    def _is_silent(self, circuit: Circuit, now: float) -> bool:
        return circuit.state is _HALF_OPEN and now - circuit.probed_at >= self.half_open_for

    def _refusal(self, circuit: Circuit, now: float) -> CircuitOpenError:
        if circuit.state is _OPEN:
            wait = max(0.0, circuit.until - now)
            return CircuitOpenError(
                circuit.key, _OPEN, circuit.until, wait, circuit.reason, circuit.last_outcome
            )
        text = f"{self.probes} probes are under way, and no more are let through before these are answered"
        reason = Reason(Cause.PROBING, text)
        return CircuitOpenError(circuit.key, _HALF_OPEN, None, None, reason, circuit.last_outcome)

    # Verdicts

    def _count(self, circuit: Circuit, flags: int, seen: Observation) -> None:
        if flags & FAILED:
            circuit.failed += 1
            circuit.last_outcome = seen.outcome
        if flags & SLOW:
            circuit.slow += 1

    def _judge(self, circuit: Circuit, flags: int, seen: Observation) -> None:
        """Open a closed circuit, if it is time to."""
        self._count(circuit, flags, seen)
        total = circuit.window.total
        if total < self.minimum_calls:
            return
        reason = self._reason(circuit.window, total, "calls")
        if reason is not None:
            self._set_state(circuit, _OPEN, reason, seen.at)

    def _judge_probe(self, circuit: Circuit, flags: int, seen: Observation) -> None:
        """Open or close a half-open circuit, if its probes suffice for it."""
        self._count(circuit, flags, seen)
        reason = self._reason(circuit.window, self.probes, "probes")
        if reason is not None:
            self._set_state(circuit, _OPEN, reason, seen.at)
        elif circuit.window.total >= self.probes:
            text = f"{self.probes} probes were answered well enough"
            self._set_state(circuit, _CLOSED, Reason(Cause.RECOVERED, text), seen.at)

    def _reason(self, window: Window, total: int, what: str) -> Reason | None:
        """Why a circuit has to open; None if it has not."""
        # Divided, not multiplied: 7 of 100 are 0.07 to the last bit.
        rate = window.failures / total
        if rate >= self.failure_rate:
            return Reason(Cause.FAILURE_RATE, f"{rate:.0%} of {total} {what} failed")
        rate = window.slow / total
        if rate >= self.slow_call_rate:
            text = f"{rate:.0%} of {total} {what} took longer than {self.slow_after:g} s"
            return Reason(Cause.SLOW_CALL_RATE, text)
        return None

    # States

    def _set_state(
        self,
        circuit: Circuit,
        new: CircuitState,
        reason: Reason,
        now: float,
        seconds: float | None = None,
    ) -> None:
        """Change the state; the last thing that its caller does with what it knows of the circuit."""
        old = circuit.state
        if new not in TRANSITIONS[old]:
            raise RuntimeError(f"The circuit of {circuit.key} cannot go from {old.name} to {new.name}")
        circuit.state = new
        circuit.reason = reason
        circuit.era += 1
        circuit.permit = BYSTANDER
        if new is _CLOSED:
            circuit.seen_at = now
            self._on_closed(circuit)
        elif new is _HALF_OPEN:
            circuit.window = CountWindow(self.probes)
            circuit.taken = 0
        else:
            circuit.opened += 1
            if seconds is None:
                if old is _HALF_OPEN:
                    circuit.wait = min(circuit.wait * self.open_factor, self.open_max)
                seconds = circuit.wait
            circuit.until = now + seconds
        self._watchers.tell(circuit.key, old, new, reason)

    def _on_closed(self, circuit: Circuit) -> None:
        seconds = self.window_seconds
        circuit.window = CountWindow(self.window_calls) if seconds is None else TimeWindow(seconds)
        circuit.wait = self.open_for
        circuit.permit = _Pass(self, circuit)

    def subscribe(self, callback: OnStateChange) -> Callable[[], None]:
        """Have changes of state told.

        They are told one after the other, in the call that made them. A callback may use the breaker; what it
        changes is told when everybody knows what went before, so that the state may be another one by then.
        An exception is logged, and disturbs nobody.

        Args:
            callback: called with the key, the old state, the new one and the Reason; must not block.

        Returns:
            What ends it; safe to call twice.
        """
        return self._watchers.subscribe(callback)

    # By hand

    def state(self, key: Hashable) -> CircuitState:
        """The state of a key. An open circuit becomes half-open with the first attempt after its time."""
        circuit = self._circuits.find(key)
        return _CLOSED if circuit is None else circuit.state

    def force_open(self, key: Hashable, seconds: float = math.inf, now: float | None = None) -> None:
        """Open a circuit; of an open one, begin its time anew. After that it is probed, as any other.

        Args:
            key: whose circuit.
            seconds: for how long; infinity: until `reset`.
            now: on the breaker's clock; None reads it.

        Raises:
            ValueError: the seconds are not positive.
        """
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        if now is None:
            now = self.clock()
        circuit = self._circuits.get(key, now)
        reason = Reason(Cause.FORCED, "it was opened by hand")
        if circuit.state is _OPEN:
            circuit.reason = reason
            circuit.until = now + seconds
        else:
            self._set_state(circuit, _OPEN, reason, now, seconds)

    def reset(self, key: Hashable, now: float | None = None) -> None:
        """Close a circuit, with an empty window. What is under way counts no longer.

        Args:
            key: whose circuit.
            now: on the breaker's clock; None reads it.
        """
        circuit = self._circuits.find(key)
        if circuit is None:
            return
        if circuit.state is _CLOSED:
            self._on_closed(circuit)
        else:
            reason = Reason(Cause.RESET, "it was closed by hand")
            self._set_state(circuit, _CLOSED, reason, self.clock() if now is None else now)

    def stats(self) -> KeyedStats[CircuitFigures]:
        """The state of each key, its figures and its counters; from any thread."""
        now = self.clock()
        return self._circuits.stats(lambda circuit: circuit.figures(now))
