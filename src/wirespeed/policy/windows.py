"""Sliding windows of calls: how many of the last ones failed, and how many were slow.

Both count as they go: a record takes constant time, memory is fixed, and the sums are exact. They know no
states and read no clock; the circuit breaker asks them.
"""

import abc

FAILED = 1
SLOW = 2
"""Flags of a call."""

SLICES = 10
"""Parts of a window of seconds; as in Hystrix."""


class Window(abc.ABC):
    """Calls that count.

    Attributes:
        total: calls, as of the last record.
        failures: of these.
        slow: of these; a call may be both.
    """

    __slots__ = ("failures", "slow", "total")

    def __init__(self) -> None:
        self.total = self.failures = self.slow = 0

    @abc.abstractmethod
    def record(self, flags: int, now: float) -> None:
        """Count a call, and drop those that count no longer.

        Args:
            flags: of `FAILED` and `SLOW`, or 0.
            now: seconds that never go back.
        """

    @abc.abstractmethod
    def figures(self, now: float) -> tuple[int, int, int]:
        """Say what `total`, `failures` and `slow` are now; changes nothing."""


class CountWindow(Window):
    """The last calls, whenever they were.

    Args:
        size: how many.
    """

    __slots__ = ("_calls", "_next", "_size")

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._calls = bytearray(size)
        self._next = 0

    def record(self, flags: int, now: float) -> None:
        index = self._next
        calls = self._calls
        gone = calls[index]
        if flags != gone:
            self.failures += (flags & FAILED) - (gone & FAILED)
            self.slow += (flags >> 1) - (gone >> 1)
            calls[index] = flags
        index += 1
        self._next = 0 if index == self._size else index
        if self.total < self._size:
            self.total += 1

    def figures(self, now: float) -> tuple[int, int, int]:
        return self.total, self.failures, self.slow


class TimeWindow(Window):
    """The calls of the last seconds, dropped a tenth of the window at a time: those of the tenth that it is
    now, and of the nine before it.

    Args:
        seconds: how long the ten are together.
    """

    __slots__ = ("_failures", "_slice", "_slow", "_totals", "_width")

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._width = seconds / SLICES
        # The number of the newest slice, from the clock's zero; each is kept at its number modulo SLICES.
        self._slice: float | None = None
        self._totals = [0] * SLICES
        self._failures = [0] * SLICES
        self._slow = [0] * SLICES

    def record(self, flags: int, now: float) -> None:
        number = now // self._width
        newest = self._slice
        if newest is None or number > newest:
            self._turn(number)
        else:
            number = newest
        index = int(number % SLICES)
        self._totals[index] += 1
        self.total += 1
        if flags & FAILED:
            self._failures[index] += 1
            self.failures += 1
        if flags & SLOW:
            self._slow[index] += 1
            self.slow += 1

    def _turn(self, number: float) -> None:
        for index in self._over(number):
            self.total -= self._totals[index]
            self.failures -= self._failures[index]
            self.slow -= self._slow[index]
            self._totals[index] = self._failures[index] = self._slow[index] = 0
        self._slice = number

    def _over(self, number: float) -> range | list[int]:
        """Where the slices are that are over when a slice begins."""
        newest = self._slice
        if newest is None or number - newest >= SLICES:
            return range(SLICES)
        return [int((newest + step) % SLICES) for step in range(1, int(number - newest) + 1)]

    def figures(self, now: float) -> tuple[int, int, int]:
        over = self._over(now // self._width)
        return (
            self.total - sum(self._totals[index] for index in over),
            self.failures - sum(self._failures[index] for index in over),
            self.slow - sum(self._slow[index] for index in over),
        )
