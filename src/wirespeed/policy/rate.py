"""The rate limit: so many attempts in so much time, first come, first served.

Each attempt reserves its instant once, and waits once until then. Nobody who comes later gets an earlier one,
whatever anybody weighs, so nobody starves. What the instants are is up to an algorithm (`pacing`), and to the
server where it is to be listened to (`serverlimit`).

An attempt that gives its permit back before its instant, or at it, unobserved, returns its reservation where
that is the latest one of its key; with it go those just before it that wait, and were given up earlier. Given
up in the middle, a reservation passes unused: those behind it wait already, and wait once.

A server that stops a key, or says that little is left, holds back those that wait: the instants of their
permits move, in the same order and by the same algorithm. `ready_at` only ever moves away, so a driver looks
at it again when it has slept, and sleeps on if it has moved. Those whose instant has come count as sent.
"""

import dataclasses
import time
from collections.abc import Hashable
from typing import ClassVar

from .errors import RateExceeded
from .gates import Clock, Gate, KeyOf, Metric, Wake, WeightOf
from .keyed import MAX_KEYS, Keyed, KeyedStats
from .pacing import Algorithm, FixedWindow, LeakyBucket, NoLimit, SlidingWindow, TokenBucket, positive
from .reserving import RatePermit, RateState
from .serverlimit import MAX_PAUSE, ServerLimit

__all__ = [
    "FixedWindow",
    "LeakyBucket",
    "RateFigures",
    "RateLimit",
    "RatePermit",
    "SlidingWindow",
    "TokenBucket",
]


@dataclasses.dataclass(frozen=True)
class RateFigures:
    """The figures of one key.

    Attributes:
        passed: attempts that might be made at once.
        delayed: attempts that were given a later instant.
        refused: attempts that would have had to wait for too long.
        cancelled: attempts that were given up before their instant.
        waited_seconds: what the delayed attempts were told to wait, together.
        server_pauses: how often the server has stopped the key.
        backlog_seconds: how far ahead the latest reservation lies.
        paused_seconds: how long the server's pause will still last.
        server_remaining: what the server's quota has left, less what is under way; None where none is known.
    """

    passed: int
    delayed: int
    refused: int
    cancelled: int
    waited_seconds: float
    server_pauses: int
    backlog_seconds: float
    paused_seconds: float
    server_remaining: float | None


class RateLimit(Gate):
    """At most so many attempts in so much time, for each key.

    Args:
        limit: an algorithm, `TokenBucket`, `LeakyBucket`, `FixedWindow` or `SlidingWindow`; a number is the
            rate of a token bucket, per second; None is no limit but the server's.
        burst: of the token bucket, where the limit is a number; 1 when not given.
        max_delay: seconds that an attempt may be made to wait; None: any time. What the server adds later to
            one that waits already does not count.
        follow_server: whether to go by what responses say: `Retry-After` of those that are classified as
            throttled or overloaded (429, 503), and the fields `RateLimit` with `RateLimit-Policy`,
            `RateLimit-*` and `X-RateLimit-*` of all. Nothing is sent before a `Retry-After` has passed, and
            no more before a reset than were said to remain.
        max_pause: seconds that the server is believed; a longer `Retry-After`, or a reset further away, is
            taken for this.
        key: what requests are kept apart by, from the request (its `url`, `method`, `headers`); None for what
            the Policies go by, mostly the origin. For middlewares and batches: `acquire` is given keys.
        weight: how many attempts a request counts for, from the request; None for one. Likewise.
        max_keys: above it, keys are forgotten whose past does not matter any more.
        clock: used where no `now` is given.
        wall: seconds since 1970, for fields with dates.

    Raises:
        ValueError: an argument is out of its range.
    """

    name: ClassVar[str] = "rate"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("passed", "passed", "counter", "Attempts that might be made at once."),
        Metric("delayed", "delayed", "counter", "Attempts that were given a later instant."),
        Metric("refused", "refused", "counter", "Attempts that would have had to wait for too long."),
        Metric("cancelled", "cancelled", "counter", "Attempts that were given up before their instant."),
        Metric("waited_seconds", "waited_seconds", "counter", "Seconds that attempts were told to wait."),
        Metric("server_pauses", "server_pauses", "counter", "Times that the server has stopped the key."),
        Metric("backlog_seconds", "backlog_seconds", "gauge", "How far ahead the latest reservation lies."),
        Metric("paused_seconds", "paused_seconds", "gauge", "How long the server's pause will still last."),
    )

    def __init__(
        self,
        limit: Algorithm | float | None,
        *,
        burst: float | None = None,
        max_delay: float | None = None,
        follow_server: bool = False,
        max_pause: float = MAX_PAUSE,
        key: KeyOf | None = None,
        weight: WeightOf | None = None,
        max_keys: int = MAX_KEYS,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        if max_delay is not None and not max_delay >= 0:
            raise ValueError(f"max_delay must not be negative, got {max_delay!r}")
        self.algorithm = algorithm = _algorithm(limit, burst)
        self.key_of, self.weight_of, self.clock = key, weight, clock
        self._heaviest = algorithm.heaviest
        self._capacity = algorithm.capacity
        self._max_delay = max_delay
        self._is_bounded = max_delay is not None or algorithm.capacity is not None
        pause = positive("max_pause", max_pause)

        def make(key: Hashable, now: float) -> RateState:
            return RateState(algorithm.line(), ServerLimit(pause, wall) if follow_server else None)

        self._keyed: Keyed[RateState] = Keyed(make, self.metrics, max_keys)

    def acquire(
        self, key: Hashable, *, weight: float = 1.0, now: float | None = None, wake: Wake | None = None
    ) -> RatePermit:
        """Reserve an attempt's instant.

        Args:
            key: what the limit is kept for.
            weight: how many attempts this one counts for.
            now: on the gate's clock; None reads it.
            wake: never called; the instant is known at once.

        Returns:
            A permit whose `ready_at` is the instant; it is not after `now` where the attempt may be made now.

        Raises:
            RateExceeded: it would have to wait for longer than `max_delay`, or too many wait already.
                Nothing is reserved.
            ValueError: the weight is not positive, or more than the algorithm ever lets through.
        """
        if now is None:
            now = self.clock()
        if not 0.0 < weight <= self._heaviest:
            raise ValueError(f"weight must be positive and at most {self._heaviest:g}, got {weight!r}")
        state = self._keyed.find(key) or self._keyed.get(key, now)
        permit = RatePermit()
        permit.state = state
        permit.weight = weight
        permit.is_given_up = False
        latest = state.latest
        if state.server is None and (latest is None or latest.ready_at <= now):
            # Nobody to ask but the line, which has come up to now: `place` in short.
            permit.ready_at = ready_at = state.line.place(permit, weight, now)
        else:
            ready_at = state.place(permit, now)
        if state.waiting:
            state.tidy(now)
        if ready_at <= now:
            state.passed += 1
            state.latest = permit
            return permit
        if self._is_bounded:
            reason = self._refusal(state, ready_at - now)
            if reason is not None:
                state.unplace(permit)
                state.refused += 1
                raise RateExceeded(key, ready_at - now, reason)
        state.delayed += 1
        state.waited_seconds += ready_at - now
        state.waiting.append(permit)
        state.latest = permit
        return permit

    def look(self, key: Hashable, now: float | None = None) -> None:
        """Refuse an attempt of weight 1 that `acquire` would refuse; changes nothing.

        Raises:
            RateExceeded: it would have to wait for longer than `max_delay`, or too many wait already.
        """
        if not self._is_bounded:
            return
        state = self._keyed.find(key)
        if state is None:
            return
        if now is None:
            now = self.clock()
        permit = RatePermit()
        permit.weight = min(1.0, self._heaviest)
        permit.is_given_up = False
        ready_at = state.place(permit, now)
        state.unplace(permit)
        if ready_at <= now:
            return
        state.tidy(now)
        reason = self._refusal(state, ready_at - now)
        if reason is not None:
            raise RateExceeded(key, ready_at - now, reason)

    def stats(self) -> KeyedStats[RateFigures]:
        """A frozen snapshot; from any thread."""
        now = self.clock()
        return self._keyed.stats(lambda state: _figures(state, now))

    def __repr__(self) -> str:
        return f"<RateLimit {self.algorithm!r}, {len(self._keyed)} keys>"

    def _refusal(self, state: RateState, delay: float) -> str | None:
        """Say why an attempt that would have to wait is refused; None where it is not."""
        if self._max_delay is not None and delay > self._max_delay:
            return f"more than max_delay={self._max_delay:g} s"
        if self._capacity is not None and len(state.waiting) >= self._capacity:
            return f"and {len(state.waiting)} wait already (capacity={self._capacity})"
        return None


def _algorithm(limit: Algorithm | float | None, burst: float | None) -> Algorithm:
    if isinstance(limit, int | float):
        return TokenBucket(limit, 1.0 if burst is None else burst)
    if burst is not None:
        raise ValueError(f"burst goes with a rate that is a number, got burst={burst!r} and {limit!r}")
    return NoLimit() if limit is None else limit


def _figures(state: RateState, now: float) -> RateFigures:
    latest = state.latest
    server = state.server
    return RateFigures(
        passed=state.passed,
        delayed=state.delayed,
        refused=state.refused,
        cancelled=state.cancelled,
        waited_seconds=state.waited_seconds,
        server_pauses=state.server_pauses,
        backlog_seconds=0.0 if latest is None else max(0.0, latest.ready_at - now),
        paused_seconds=0.0 if server is None else max(0.0, server.paused_until - now),
        server_remaining=None if server is None else server.remaining(now),
    )
