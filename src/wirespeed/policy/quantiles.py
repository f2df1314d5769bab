"""A quantile of what was measured lately: one for each key, in fixed memory and constant time.

Measurements are counted in buckets whose bounds grow by a constant factor, which bounds the relative error
(DDSketch: Masson, Rim and Lee, VLDB 2019). "Lately" is two generations of counts: the one that is filled, and
the one before it, which is dropped when the next one begins. It knows no policies and reads no clock.
"""

import math
from math import log

RELATIVE_ERROR = 0.05
"""A quantile is at most this share away from the measurement that it stands for."""

LOWEST = 1e-5
HIGHEST = 1e3
"""Seconds. What is below or above counts as these: on loopback an answer takes ten times the one, and nobody
waits for the other."""

MIN_SAMPLES = 20
"""Below it the 95th percentile would be the maximum."""
GENERATION = 1000
GENERATION_SECONDS = 60.0

_GAMMA = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_SCALE = 1 / math.log(_GAMMA)
_OFFSET = math.log(LOWEST) * _SCALE
_LAST = math.ceil(math.log(HIGHEST) * _SCALE - _OFFSET) - 1
# The point of a bucket that is equally far from both of its bounds, in relative terms.
_VALUES = tuple(LOWEST * _GAMMA**index * 2 * _GAMMA / (_GAMMA + 1) for index in range(_LAST + 1))

# A quantile is computed anew after 1/16 as many records as there are, within these bounds: it takes as long
# as some thirty records, and what one sixteenth more can move of it is within what its samples leave open.
_EVERY_SHARE = 4
_EVERY_MIN = 16
_EVERY_MAX = 128
_ROUNDING = 1e-9


class MovingQuantile:
    """A quantile of the last measurements.

    It is that of the last `generation` to twice as many, or of the last `seconds` to twice as long, whichever
    are fewer, but never of fewer than `min_samples`: where little is measured, older measurements say more
    than none.

    Args:
        quantile: between 0 and 1; 0.95 for the 95th percentile.
        min_samples: nothing is said before there are so many.
        generation: measurements that make a generation full.
        seconds: how long a generation lasts at most, once it has `min_samples`.

    Attributes:
        value: the quantile, in the unit of the measurements, at most `RELATIVE_ERROR` off; as of the last
            16 to 128 records. None before there are `min_samples`.

    Raises:
        ValueError: `quantile` is not between 0 and 1, or another figure is not positive.
    """

    __slots__ = (
        "_due",
        "_ends",
        "_fresh",
        "_fresh_count",
        "_full",
        "_min",
        "_older",
        "_older_count",
        "_seconds",
        "quantile",
        "value",
    )

    def __init__(
        self,
        quantile: float,
        *,
        min_samples: int = MIN_SAMPLES,
        generation: int = GENERATION,
        seconds: float = GENERATION_SECONDS,
    ) -> None:
        if not 0 < quantile < 1:
            raise ValueError(f"quantile must be between 0 and 1, got {quantile}")
        for name, number in (("min_samples", min_samples), ("generation", generation), ("seconds", seconds)):
            if not number > 0:
                raise ValueError(f"{name} must be positive, got {number}")
        self.quantile = quantile
        self.value: float | None = None
        self._min = min_samples
        self._full = generation
        self._seconds = seconds
        self._fresh = _new_counts()
        self._older = _new_counts()
        self._fresh_count = 0
        self._older_count = 0
        self._ends = -math.inf
        # Records until the value is computed anew.
        self._due = min_samples

    def __len__(self) -> int:
        """How many measurements the next value is of."""
        return self._fresh_count + self._older_count

    def record(self, value: float, now: float) -> bool:
        """Count a measurement; true when `value` was computed anew.

        Args:
            value: in seconds. What is not above `LOWEST`, negative values too, counts as that.
            now: seconds that never go back.

        Raises:
            ValueError: the value is NaN; nothing was counted.
        """
        if value <= LOWEST:
            index = 0
        elif value >= HIGHEST:
            index = _LAST
        else:
            index = int(log(value) * _SCALE - _OFFSET)
        count = self._fresh_count
        if now >= self._ends and (count >= self._min or not count):
            self._turn(now)
            count = 0
        self._fresh[index] += 1
        self._fresh_count = count = count + 1
        if count >= self._full:
            self._ends = now
        self._due = due = self._due - 1
        if due:
            return False
        self.value = self.at(self.quantile)
        count += self._older_count
        self._due = min(max(count >> _EVERY_SHARE, _EVERY_MIN), _EVERY_MAX)
        return True

    def _turn(self, now: float) -> None:
        if self._fresh_count:
            self._fresh, self._older = self._older, self._fresh
            self._older_count = self._fresh_count
            self._fresh_count = 0
            self._fresh[:] = _new_counts()
        self._ends = now + self._seconds

    def at(self, quantile: float) -> float | None:
        """Compute any quantile of what is kept: the smallest measurement that at least this share of them
        does not exceed. None without measurements.
        """
        count = self._fresh_count + self._older_count
        if not count:
            return None
        rank = max(1, math.ceil(quantile * count - _ROUNDING))
        index = -1
        for fresh, older in zip(self._fresh, self._older, strict=True):
            index += 1
            rank -= fresh + older
            if rank <= 0:
                break
        return _VALUES[index]


def _new_counts() -> list[int]:
    # A list: twice the memory of an array of integers, and a fifth of the time.
    return [0] * (_LAST + 1)
