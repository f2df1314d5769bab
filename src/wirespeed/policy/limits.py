"""How a concurrency limit is found: AIMD and Gradient2, by what attempts came to and how long they took.

An algorithm is a description, immutable and shared; what it has learned of a key lies in the key's slots. It
sees one attempt at a time, and the time only through it. Called by `adaptive`.
"""

import abc
import enum
import math

from .outcome import Observation, Outcome
from .queueing import Slots

_MIN_FACTOR = 0.5
"""The least that a single step down leaves of a limit."""
TINY = 1e-6
"""Seconds that differences of clock readings may be off by."""
_FORGET_AFTER = 60.0
"""Seconds of silence after which what was learned of a server is out of date."""


class LimitReason(enum.Enum):
    """Why a limit is what it is: what its last change came from.

    Attributes:
        INITIAL: it was not changed yet.
        GROWN: attempts succeeded in time while the limit was in use.
        LATENCY: answers took longer than they have to.
        THROTTLED: the server has said that there were too many requests (429).
        OVERLOADED: the server has said that it cannot serve (503).
        TIMED_OUT: no answer came in time.
        PROBE: lowered for a moment, to see how long an answer takes while nothing queues.
        PROBED: restored after that.
    """

    INITIAL = "initial"
    GROWN = "grown"
    LATENCY = "latency"
    THROTTLED = "throttled"
    OVERLOADED = "overloaded"
    TIMED_OUT = "timed_out"
    PROBE = "probe"
    PROBED = "probed"


_PRESSURE = {
    Outcome.THROTTLED: LimitReason.THROTTLED,
    Outcome.OVERLOADED: LimitReason.OVERLOADED,
    Outcome.TIMED_OUT: LimitReason.TIMED_OUT,
}


class LimitAlgorithm(abc.ABC):
    """How a limit is found; immutable, for any number of keys.

    Attributes:
        initial: the limit of a key that nothing is known of.
        min_limit: no limit is lower.
        max_limit: no limit is higher.
        backoff: what a refusal or a timeout leaves of a limit.
    """

    __slots__ = ("backoff", "initial", "max_limit", "min_limit")

    def __init__(self, initial: int, min_limit: int, max_limit: int, backoff: float) -> None:
        if min_limit < 1:
            raise ValueError(f"min_limit must be at least 1, got {min_limit}")
        if max_limit < min_limit:
            raise ValueError(f"max_limit must be at least min_limit, {min_limit}, got {max_limit}")
        if not min_limit <= initial <= max_limit:
            raise ValueError(f"initial must be between {min_limit} and {max_limit}, got {initial}")
        if not _MIN_FACTOR <= backoff < 1:
            raise ValueError(f"backoff must be at least {_MIN_FACTOR} and below 1, got {backoff}")
        self.initial = initial
        self.min_limit = min_limit
        self.max_limit = max_limit
        self.backoff = backoff

    @abc.abstractmethod
    def make_slots(self, now: float) -> "AdaptiveSlots":
        """Make the slots of a key that nothing is known of."""


class AdaptiveSlots(Slots):
    """Slots with a limit that follows what is seen; algorithms say how, by `on_success`.

    Attributes:
        estimate: the limit before it is rounded down.
        reason: of the last change of the limit.
        changed_at: when that was.
        backed_off_at: when the limit last went down: attempts begun before that say nothing about it.
        seen_at: when an attempt was last taken note of.
        streak: how often it went down since the last success.
        increases: how often the limit went up.
        decreases: how often it went down; probes count for neither.
    """

    __slots__ = (
        "_algorithm",
        "backed_off_at",
        "changed_at",
        "decreases",
        "estimate",
        "increases",
        "reason",
        "seen_at",
        "streak",
    )

    def __init__(self, algorithm: LimitAlgorithm, now: float) -> None:
        super().__init__(algorithm.initial)
        self._algorithm = algorithm
        self.estimate = float(algorithm.initial)
        self.reason = LimitReason.INITIAL
        self.changed_at = self.seen_at = now
        self.backed_off_at = -math.inf
        self.streak = 0
        self.increases = self.decreases = 0

    def on_other(self, seen: Observation) -> None:
        """Take note of an attempt that was no success. What is no pressure either says nothing about a limit:
        a failure may be quick for having done nothing.
        """
        if seen.outcome in _PRESSURE:
            self.on_pressure(seen.latency, seen.at, _PRESSURE[seen.outcome])

    def on_success(self, latency: float, now: float) -> None:
        """Take note of an answer that is none of refusal or failure."""
        raise NotImplementedError

    def on_pressure(self, latency: float, now: float, reason: LimitReason) -> None:
        """Back off, once for each round trip: attempts that were begun under the former limit are as many
        voices of one event. Where no success comes between, each time by more: that is no congestion, but an
        outage or a quota.
        """
        if now - latency < self.backed_off_at - TINY:
            return
        self.streak += 1
        self.back_off(max(_MIN_FACTOR, self._algorithm.backoff**self.streak), now, reason)

    def back_off(self, factor: float, now: float, reason: LimitReason) -> None:
        """Multiply the limit."""
        self.backed_off_at = now
        self.settle(self.estimate * factor, now, reason)

    def settle(self, estimate: float, now: float, reason: LimitReason) -> None:
        """Set the estimate within its bounds, and the limit to the whole number below it."""
        algorithm = self._algorithm
        self.estimate = estimate = min(max(estimate, algorithm.min_limit), algorithm.max_limit)
        limit = int(estimate)
        if limit == self.limit:
            return
        if limit > self.limit:
            self.increases += 1
        else:
            self.decreases += 1
        self.reason = reason
        self.changed_at = now
        self.move(limit, now)

    def is_idle(self, now: float) -> bool:
        """Whether nobody holds or waits, and the limit was never moved, or too long ago to be true."""
        if self.holders or self.queue:
            return False
        return self.reason is LimitReason.INITIAL or now - self.seen_at > _FORGET_AFTER
