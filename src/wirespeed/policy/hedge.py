"""Hedged requests: when a second attempt is worth its while, and what came of those that were made.

A server of many that is slow for a moment decides how long the slowest requests take; a second attempt, sent
when the first one has taken longer than 95 % of them do, takes that tail away for 5 % more requests (Dean and
Barroso, The Tail at Scale, CACM 56(2), 2013). This decides only. Who sends the attempts asks the retry budget
for leave, takes the answer that comes first and cancels the other; the budget is no business of this module.
"""

import math
from collections.abc import Collection, Hashable
from dataclasses import dataclass

from .gates import Clock, Metric, Policy
from .keyed import MAX_KEYS, Keyed, KeyedStats
from .quantiles import GENERATION_SECONDS, MIN_SAMPLES, MovingQuantile

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110 section 9.2.1."""

IDEMPOTENT_METHODS = SAFE_METHODS | {"PUT", "DELETE"}
"""RFC 9110 section 9.2.2."""

_IDLE_AFTER = 2 * GENERATION_SECONDS


@dataclass(frozen=True)
class HedgeFigures:
    """Of one key.

    Attributes:
        delay_seconds: after which a second attempt is sent; 0 while nothing is known.
        eligible: requests that would have been hedged, had they taken long enough.
        launched: further attempts that were made.
        won: further attempts whose answer was used.
        denied: further attempts that the retry budget refused.
        samples: latencies that the delay goes by.
    """

    delay_seconds: float
    eligible: int
    launched: int
    won: int
    denied: int
    samples: int


class _Key:
    """Of one key. `latencies` is made with the first of them, and never where the delay is fixed."""

    __slots__ = ("delay_seconds", "denied", "eligible", "latencies", "launched", "seen_at", "won")

    def __init__(self, now: float, delay: float) -> None:
        self.latencies: MovingQuantile | None = None
        self.delay_seconds = delay
        self.seen_at = now
        self.eligible = self.launched = self.won = self.denied = 0

    def is_idle(self, now: float) -> bool:
        # Where anything was learned it is lost, and learned again.
        return now >= self.seen_at + _IDLE_AFTER


class Hedge(Policy):
    """When to send a request a second time, per key.

    The delay is a quantile of the latencies of first attempts, over the last minute or two or the last one
    to two thousand of them, at most 5 % off. Whoever drives it:

    - asks `delay()` once for each request, and waits so long for the first attempt before it makes the
      second; with `max_hedges` above 1, as long again before each further one;
    - before each further attempt asks the retry budget, and calls `launched()`, or `denied()`;
    - calls `won()` when the answer of a further attempt is used;
    - calls `record()` once for each request whose first attempt was answered well, with its latency; **also
      when a further attempt won**: then with the time for which the first one had run when it was given up.
      That is less than it would have taken, but more than the delay, and so it counts on the right side of
      the quantile. Left out, the slowest requests would be missing, the delay would fall, and more requests
      would be hedged than was asked for. The latency of a further attempt is never recorded: only quick ones
      win. Nor is that of a first attempt that failed, or that was given up before the delay was over.

    Args:
        quantile: of the latencies, after which a request is hedged; 0.95 hedges one in twenty.
        delay: seconds; fixed, nothing is learned.
        min_delay: seconds, below which no learned delay goes.
        max_delay: seconds, above which no learned delay goes; None for no limit.
        min_samples: latencies that must be known before a request is hedged.
        max_hedges: further attempts for one request.
        allowed_methods: that are hedged; the safe ones by default. PUT and DELETE are idempotent, but a
            loser that arrives late undoes what was sent since, and the second of two DELETEs answers 404.
        clock: used where no `now` is given.
        max_keys: keys that are kept, see Keyed.

    Raises:
        ValueError: a figure is out of its range.
    """

    name = "hedge"
    metrics = (
        Metric("delay_seconds", "delay_seconds", "gauge", "Seconds before a second attempt; 0: unknown."),
        Metric("eligible", "eligible", "counter", "Requests that would be hedged if they took long enough."),
        Metric("launched", "launched", "counter", "Further attempts that were made."),
        Metric("won", "won", "counter", "Further attempts whose answer was used."),
        Metric("denied", "denied", "counter", "Further attempts that the retry budget refused."),
    )

    def __init__(
        self,
        *,
        quantile: float = 0.95,
        delay: float | None = None,
        min_delay: float = 0.001,
        max_delay: float | None = None,
        min_samples: int = MIN_SAMPLES,
        max_hedges: int = 1,
        allowed_methods: Collection[str] = SAFE_METHODS,
        clock: Clock = Policy.clock,
        max_keys: int = MAX_KEYS,
    ) -> None:
        if delay is not None and not 0 <= delay < math.inf:
            raise ValueError(f"delay must be seconds, not negative, got {delay}")
        if not 0 < min_delay < math.inf:
            raise ValueError(f"min_delay must be positive seconds, got {min_delay}")
        if max_delay is not None and not max_delay >= min_delay:
            raise ValueError(f"max_delay must not be below min_delay ({min_delay}), got {max_delay}")
        if max_hedges < 1:
            raise ValueError(f"max_hedges must be positive, got {max_hedges}")
        if isinstance(allowed_methods, str):
            raise ValueError(f"allowed_methods must be a collection of methods, got {allowed_methods!r}")
        MovingQuantile(
            quantile, min_samples=min_samples
        )  # refuses what is wrong now, not at the first request
        self.quantile, self.min_samples, self.max_hedges = quantile, min_samples, max_hedges
        self.fixed_delay, self.min_delay = delay, min_delay
        self.max_delay = math.inf if max_delay is None else max_delay
        self.allowed_methods = frozenset(method.upper() for method in allowed_methods)
        self.clock = clock
        self._keys = Keyed(self._new_key, self.metrics, max_keys)

    def _new_key(self, key: Hashable, now: float) -> _Key:
        return _Key(now, self.fixed_delay or 0.0)

    def delay(self, key: Hashable, method: str, now: float | None = None) -> float | None:
        """Say after how many seconds a second attempt is to be made; None: never.

        Args:
            key: what latencies are kept apart by, mostly an origin.
            method: of the request, in capitals.
            now: on the clock; None reads it.
        """
        if method not in self.allowed_methods:
            return None
        state = self._keys.find(key) or self._keys.get(key, self.clock() if now is None else now)
        delay = state.delay_seconds
        # A fixed delay may be 0: all attempts at once.
        if not delay and self.fixed_delay is None:
            return None
        state.eligible += 1
        return delay

    def record(self, key: Hashable, latency: float, now: float | None = None) -> None:
        """Learn how long a first attempt took, or for how long it had run when another one won.

        Args:
            key: as given to `delay`.
            latency: seconds, from sending it to the head of its response.
            now: on the clock; None reads it.

        Raises:
            ValueError: the latency is NaN.
        """
        if self.fixed_delay is not None:
            return
        if now is None:
            now = self.clock()
        state = self._keys.find(key) or self._keys.get(key, now)
        state.seen_at = now
        latencies = state.latencies
        if latencies is None:
            latencies = state.latencies = MovingQuantile(self.quantile, min_samples=self.min_samples)
        if latencies.record(latency, now):
            value = latencies.value or 0.0
            state.delay_seconds = min(max(value, self.min_delay), self.max_delay)

    def launched(self, key: Hashable) -> None:
        """Note that a further attempt was made."""
        self._keys.get(key, self.clock()).launched += 1

    def won(self, key: Hashable) -> None:
        """Note that the answer of a further attempt was used."""
        self._keys.get(key, self.clock()).won += 1

    def denied(self, key: Hashable) -> None:
        """Note that the retry budget refused a further attempt."""
        self._keys.get(key, self.clock()).denied += 1

    def stats(self) -> KeyedStats[HedgeFigures]:
        """What is known of each key, and what came of hedging; from any thread."""
        return self._keys.stats(_figures)


def _figures(state: _Key) -> HedgeFigures:
    samples = 0 if state.latencies is None else len(state.latencies)
    return HedgeFigures(state.delay_seconds, state.eligible, state.launched, state.won, state.denied, samples)
