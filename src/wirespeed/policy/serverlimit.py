"""What one server allows for one key, by its own words; `rate.RateLimit` plans by it when told to.

A quota is taken as the least that was heard in its window, less all that is under way: of what is under way
nobody knows whether the server has counted it yet. So it is never exceeded by what is known here, and at most
what is under way is left unused.
"""

import math
from collections.abc import Iterable
from typing import Protocol

from .fields import retry_after
from .gates import Clock
from .outcome import Observation, Outcome
from .ratefields import Quota, quota

MAX_PAUSE = 300.0
"""Seconds that a server can stop a key for. An hour's quota that is used up is asked for again after that."""

_SAME_WINDOW = 1.5
"""Seconds that two responses may differ in about the same reset: it is told in whole ones."""

_PADDING = 0.5
"""Seconds at most, and a tenth of the pause, that a pause is made longer by when it must be moved while
attempts wait for it: a hundred responses that were under way must not move all of them a hundred times."""

_THROTTLED = (Outcome.THROTTLED, Outcome.OVERLOADED)


class Counted(Protocol):
    """An attempt, as it is counted here.

    Attributes:
        ready_at: its instant.
        weight: how many it counts for.
        epoch: of the window after whose end it stands; -1 where it stands in it, or before.
    """

    ready_at: float
    weight: float
    epoch: int


class ServerLimit:
    """What one server allows.

    Attributes:
        paused_until: nothing before; on the gate's clock.
        until: the end of the window that `low` is of.
        low: the least that was heard to remain in it.
        out: weight of all attempts that are waiting or under way.
        late: the part of it that stands after `until`.
    """

    __slots__ = (
        "_book_start",
        "_book_used",
        "_epoch",
        "_limit",
        "_max_pause",
        "_wall",
        "_window",
        "late",
        "low",
        "out",
        "paused_until",
        "until",
    )

    def __init__(self, max_pause: float, wall: Clock) -> None:
        self._wall = wall
        self._max_pause = max_pause
        self.paused_until = -math.inf
        self.until = -math.inf
        self.low = math.inf
        self.out = 0.0
        self.late = 0.0
        self._epoch = 0
        # Of the windows after this one, what the server has said; and the latest of them that is booked.
        self._limit = 0.0
        self._window = 0.0
        self._book_start = -math.inf
        self._book_used = 0.0

    def room(self) -> float:
        """How much more may be placed before `until`."""
        return self.low - self.out + self.late

    def remaining(self, now: float) -> float | None:
        """What the server has left, as far as is known; None where nothing is."""
        return max(0.0, self.low - self.out + self.late) if now < self.until else None

    def is_clear(self, now: float) -> bool:
        """Whether nothing is known that matters, and nothing is under way."""
        return self.paused_until <= now and self.until + self._max_pause <= now and self.out <= 0

    # Placing, in the order of instants; what is taken back was placed last.

    def earliest(self, weight: float, at: float) -> float:
        """Return the first instant, not before `at`, that the server allows."""
        if at < self.paused_until:
            at = self.paused_until
        until = self.until
        if at < until:
            if self.low - self.out + self.late >= weight:
                return at
            at = until
        if not self._limit or not self._window or at - until > self._max_pause:
            return at  # nothing is known about the windows after this one, or it is too old
        return self._book(weight, at)

    def _book(self, weight: float, at: float) -> float:
        window = self._window
        start = self._book_start
        if at >= start + window:
            start += (at - start) // window * window
            self._book_used = 0.0
        elif self._book_used and self._book_used + weight > self._limit:
            start += window
            self._book_used = 0.0
        self._book_start = start
        self._book_used += weight
        return at if at > start else start

    def count(self, placed: Counted) -> None:
        """Count an attempt that has its instant."""
        self.out += placed.weight
        if placed.ready_at >= self.until:
            self.late += placed.weight
            placed.epoch = self._epoch

    def uncount(self, placed: Counted) -> None:
        """Take back an attempt that was placed."""
        if placed.epoch == self._epoch and placed.ready_at >= self._book_start:
            self._book_used = max(0.0, self._book_used - placed.weight)
        self.finish(placed)

    def finish(self, placed: Counted) -> None:
        """An attempt is over."""
        self.out -= placed.weight
        if placed.epoch == self._epoch:
            self.late -= placed.weight
        if self.out < 1e-9:  # what fractions leave
            self.out = self.late = 0.0
        placed.epoch = -1

    def recount(self, waiting: Iterable[Counted]) -> None:
        """Another window has begun: see which of those that wait stand after it."""
        self._epoch += 1
        self.late = 0.0
        self._book_start = self.until
        self._book_used = 0.0
        for placed in waiting:
            if placed.ready_at < self.until:
                continue
            placed.epoch = self._epoch
            self.late += placed.weight
            if self._window and placed.ready_at >= self._book_start + self._window:
                self._book_start += (placed.ready_at - self._book_start) // self._window * self._window
                self._book_used = 0.0
            self._book_used += placed.weight

    def forget_bookings(self) -> None:
        """All that stood after this window was taken back."""
        self._book_start = self.until
        self._book_used = 0.0

    # What the server says.

    def hear_pause(self, seen: Observation, is_waited: bool) -> bool:
        """Read Retry-After of a response that refused; return whether the key is stopped for longer now."""
        if seen.outcome not in _THROTTLED:
            return False
        seconds = retry_after(seen.headers, self._wall())
        if not seconds:
            return False
        seconds = min(seconds, self._max_pause)
        until = seen.at + seconds
        if until <= self.paused_until:
            return False
        if is_waited and self.paused_until > seen.at:
            until += min(_PADDING, seconds / 10)
        self.paused_until = until
        return True

    def hear_quota(self, seen: Observation) -> tuple[bool, bool]:
        """Read the fields of quotas.

        Returns:
            Whether another window has begun, so that `recount` must be called; and whether the quota was
            used up by this.
        """
        told = quota(seen.headers, self._wall)
        if told is None:
            return False, False
        until = seen.at + min(told.reset, self._max_pause)
        if told.reset <= 0 or until <= seen.at:
            return False, False
        had_some = self.low > 0 or self.until <= seen.at
        is_new = self._is_new(told.remaining, until, seen.at)
        if is_new:
            self.low = told.remaining
            self.until = until
            self._learn(told)
        elif told.remaining < self.low:
            self.low = told.remaining
        return is_new, had_some and self.low <= 0

    def _is_new(self, remaining: float, until: float, now: float) -> bool:
        if now >= self.until or until > self.until + _SAME_WINDOW:
            return True
        # Of several quotas, another is nearer to its end now.
        return remaining <= self.low and until < self.until - _SAME_WINDOW

    def _learn(self, told: Quota) -> None:
        if told.reset > self._max_pause:
            # The window goes on after what is believed of it: one attempt finds out, where none are left.
            self._limit = max(told.remaining, 1.0)
            self._window = self._max_pause
            return
        self._limit = told.limit
        # Where the length is not told, the window is at least as long as the time to its end.
        self._window = min(told.window or max(told.reset, self._window), self._max_pause)
