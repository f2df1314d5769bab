"""The algorithms of the rate limit: at which instants attempts may be made.

Each algorithm is its settings, and makes lines. A line is the state of one key: it gives out instants, each
once, in order, and takes the latest back. It knows no clock and no server; `rate.RateLimit` asks it.

Instants are a base and a count from there, not a sum of intervals: rounding does not add up, however many
attempts there were and however large the clock's values are.
"""

import abc
import math
from collections import deque
from typing import Any, Protocol

MAX_WEIGHT = 1e9
"""The heaviest attempt of an algorithm without a limit of its own."""

_SLACK = 1.0 + 1e-9
"""Ten weights of 0.1 sum up to a little more, or less, than 1."""

_GRAINS = 1024
"""A log that weights below 1 have made longer than this, and than the limit, counts attempts together that
are less than this part of the window apart."""


class Placed(Protocol):
    """What stands in a line.

    Attributes:
        before: what the line must remember to take it back.
    """

    before: Any


class Line(abc.ABC):
    """The instants of one key."""

    __slots__ = ()

    @abc.abstractmethod
    def place(self, placed: Placed, weight: float, at: float) -> float:
        """Give out the next instant.

        Args:
            placed: for `undo`.
            weight: how many attempts it counts for; positive, and no more than the algorithm's `heaviest`.
            at: the instant is not before; never less than the latest instant that was given out.
        """

    @abc.abstractmethod
    def undo(self, placed: Placed) -> None:
        """Take back what was placed last; the line is as it was before. May be repeated, the latest first."""

    @abc.abstractmethod
    def is_clear(self, now: float) -> bool:
        """Whether a new line would give out the same instants."""


class Algorithm(abc.ABC):
    """How attempts are spread over time.

    Attributes:
        heaviest: the greatest weight there can be.
        capacity: how many may wait; None where there is no bound.
    """

    heaviest: float = MAX_WEIGHT
    capacity: int | None = None

    @abc.abstractmethod
    def line(self) -> Line:
        """Make the line of a key."""


def positive(name: str, value: float) -> float:
    """Check an argument.

    Raises:
        ValueError: it is not a positive, finite number.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")
    return float(value)


class TokenBucket(Algorithm):
    """At most `burst` attempts at once and `rate` a second for any length of time.

    The bucket holds `burst` tokens at most, and starts full. In any `t` seconds there are no more than
    `burst + rate * t` attempts. An attempt that weighs more than the burst waits for a full bucket, and
    those after it wait until all of it is paid for.

    It is computed as the virtual scheduling algorithm of ITU-T I.371 (GCRA), so nothing needs to refill it.

    Args:
        rate: attempts per second.
        burst: attempts that may be made at once; 1 spaces them evenly.

    Raises:
        ValueError: an argument is not positive.
    """

    def __init__(self, rate: float, burst: float = 1.0) -> None:
        self.rate = positive("rate", rate)
        self.burst = positive("burst", burst)

    def line(self) -> Line:
        return _Bucket(self.rate, self.burst)

    def __repr__(self) -> str:
        return f"TokenBucket({self.rate:g}, burst={self.burst:g})"


class LeakyBucket(Algorithm):
    """One attempt every `1 / rate` seconds, and never two closer together.

    An attempt of weight `w` is followed by `w / rate` seconds of nothing.

    Args:
        rate: attempts per second.
        capacity: how many attempts may wait at a time, whatever they weigh; None: any number. One that was
            given up while others stood behind it counts until its instant has passed.

    Raises:
        ValueError: the rate is not positive, or the capacity is negative.
    """

    def __init__(self, rate: float, capacity: int | None = None) -> None:
        self.rate = positive("rate", rate)
        if capacity is not None and capacity < 0:
            raise ValueError(f"capacity must not be negative, got {capacity!r}")
        self.capacity = capacity

    def line(self) -> Line:
        return _Bucket(self.rate, 0.0)

    def __repr__(self) -> str:
        return f"LeakyBucket({self.rate:g}, capacity={self.capacity})"


class _Window(Algorithm):
    def __init__(self, limit: float, window: float) -> None:
        self.heaviest = self.limit = positive("limit", limit)
        self.window = positive("window", window)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.limit:g}, {self.window:g})"


class FixedWindow(_Window):
    """At most `limit` attempts in each window.

    A window begins with the first attempt after the end of the one before. Attempts at the end of one and
    at the beginning of the next can come close together: up to `2 * limit` in a window's length. Take
    `SlidingWindow` where the server does not count the same windows.

    Args:
        limit: attempts in a window; nothing may weigh more.
        window: its length in seconds.

    Raises:
        ValueError: an argument is not positive.
    """

    def line(self) -> Line:
        return _Windows(self.limit, self.window)


class SlidingWindow(_Window):
    """At most `limit` attempts in any window of that length, wherever it begins; exact.

    It keeps a log of the attempts that still count: `limit` entries at most. Weights below 1 could make it
    longer; from 1,024 entries on, such attempts are counted with the one before that is less than a
    thousandth of the window away, as if they had been made together at the later instant.

    Args:
        limit: attempts in a window; nothing may weigh more.
        window: its length in seconds.

    Raises:
        ValueError: an argument is not positive.
    """

    def line(self) -> Line:
        return _Log(self.limit, self.window)


class NoLimit(Algorithm):
    """Any number at any time: for a limit that only the server sets."""

    def line(self) -> Line:
        return _Open()

    def __repr__(self) -> str:
        return "None"


class _Bucket(Line):
    # All that was placed is paid for at base + units / rate; the bucket is full from then on.
    __slots__ = ("base", "burst", "rate", "units")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.base = -math.inf
        self.units = 0.0

    def place(self, placed: Placed, weight: float, at: float) -> float:
        rate = self.rate
        base = self.base
        units = self.units
        placed.before = (base, units)
        if base + units / rate <= at:
            self.base = at
            self.units = weight
            return at
        self.units = after = units + weight
        burst = self.burst
        if after <= burst:
            return at
        instant = base + (after - burst if weight <= burst else units) / rate
        return instant if instant > at else at

    def undo(self, placed: Placed) -> None:
        self.base, self.units = placed.before

    def is_clear(self, now: float) -> bool:
        return self.base + self.units / self.rate <= now


class _Windows(Line):
    # The latest window that something is in begins at base + count * window.
    __slots__ = ("base", "count", "limit", "used", "window")

    def __init__(self, limit: float, window: float) -> None:
        self.limit = limit * _SLACK
        self.window = window
        self.base = -math.inf
        self.count = 0
        self.used = 0.0

    def place(self, placed: Placed, weight: float, at: float) -> float:
        placed.before = (self.base, self.count, self.used)
        if self.base + (self.count + 1) * self.window <= at:
            self.base = at
            self.count = 0
            self.used = weight
            return at
        used = self.used + weight
        if used <= self.limit:
            self.used = used
            return at
        self.count += 1
        self.used = weight
        return self.base + self.count * self.window

    def undo(self, placed: Placed) -> None:
        self.base, self.count, self.used = placed.before

    def is_clear(self, now: float) -> bool:
        return self.base + (self.count + 1) * self.window <= now


class _Log(Line):
    # Instants and weights, oldest first. What is not in the log any more ended before the latest instant.
    __slots__ = ("entries", "limit", "log", "used", "window")

    def __init__(self, limit: float, window: float) -> None:
        self.limit = limit * _SLACK
        self.window = window
        self.entries = max(limit, _GRAINS)
        self.log: deque[tuple[float, float]] = deque()
        self.used = 0.0

    def place(self, placed: Placed, weight: float, at: float) -> float:
        log = self.log
        used = before = self.used
        window = self.window
        room = self.limit - weight
        instant = at
        ended: list[tuple[float, float]] | None = None
        while log and (used > room or log[0][0] + window <= at):
            entry = log.popleft()
            used -= entry[1]
            if entry[0] + window > instant:
                instant = entry[0] + window
            if ended is None:
                ended = [entry]
            else:
                ended.append(entry)
        if not log:
            used = 0.0  # what the differences of fractions have left there
        self.used = used + weight
        joined = None
        if len(log) >= self.entries and self._is_near(log[-1][0], instant):
            joined = log.pop()
            log.append((instant, joined[1] + weight))
        else:
            log.append((instant, weight))
        placed.before = (ended, joined, before)
        return instant

    def undo(self, placed: Placed) -> None:
        ended, joined, self.used = placed.before
        log = self.log
        log.pop()
        if joined is not None:
            log.append(joined)
        if ended is not None:
            log.extendleft(reversed(ended))

    def is_clear(self, now: float) -> bool:
        return not self.log or self.log[-1][0] + self.window <= now

    def _is_near(self, one: float, other: float) -> bool:
        grain = self.window / _GRAINS
        return one // grain == other // grain


class _Open(Line):
    __slots__ = ()

    def place(self, placed: Placed, weight: float, at: float) -> float:
        return at

    def undo(self, placed: Placed) -> None:
        pass

    def is_clear(self, now: float) -> bool:
        return True
