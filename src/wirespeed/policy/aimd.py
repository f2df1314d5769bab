"""Additive increase, multiplicative decrease: the limit of TCP, on attempts. Used by `adaptive`."""

from .limits import TINY, AdaptiveSlots, LimitAlgorithm, LimitReason

_ENOUGH = 10
"""Latencies that are averaged at least before they count, where the limit is no lower."""


class AIMD(LimitAlgorithm):
    """Grows by a step for each round trip that succeeds, and falls by a factor when it was too much.

    After Chiu and Jain (1989) and the congestion avoidance of TCP (RFC 5681 section 3.1), on attempts
    instead of bytes, with the settings of `AIMDLimit` in Netflix's concurrency-limits. As there, a limit
    that is not half used does not grow. Unlike there:

    - The step is one for each round trip, that is `increase / limit` for each success, as in TCP. Netflix's
      adds one for each success, which doubles the limit in a round trip.
    - It falls once for each round trip at most: attempts that were begun before the limit last fell are not
      heard. Netflix's falls with every one of the refusals; in the simulation of the tests it swings three
      times as wide, down to a third of the capacity.
    - Latencies are averaged (EWMA over the limit's worth) before they are compared with the threshold, and
      afresh after each fall; the limit does not grow before there is such an average, below the threshold.
    - In an outage, where nothing succeeds between two falls, each is larger than the one before, down to
      half.

    Without `latency_threshold` it goes by refusals and timeouts alone, and a server that lets everything
    queue is filled up to `max_limit`.

    Args:
        initial: the limit of a key that nothing is known of.
        min_limit: no limit is lower.
        max_limit: no limit is higher.
        increase: what a limit grows by for each round trip in which it is in use.
        backoff: what is left of a limit after a refusal, a timeout, or answers that are too slow.
        latency_threshold: seconds above which answers are too slow, on the average; None: they never are.

    Raises:
        ValueError: bounds that contradict each other, `increase` or `latency_threshold` not positive,
            `backoff` not in [0.5, 1).
    """

    __slots__ = ("increase", "latency_threshold")

    def __init__(
        self,
        *,
        initial: int = 20,
        min_limit: int = 1,
        max_limit: int = 200,
        increase: float = 1.0,
        backoff: float = 0.9,
        latency_threshold: float | None = None,
    ) -> None:
        super().__init__(initial, min_limit, max_limit, backoff)
        if not increase > 0:
            raise ValueError(f"increase must be positive, got {increase}")
        if latency_threshold is not None and not latency_threshold > 0:
            raise ValueError(f"latency_threshold must be positive, got {latency_threshold}")
        self.increase = increase
        self.latency_threshold = latency_threshold

    def make_slots(self, now: float) -> "AIMDSlots":
        """Make the slots of a key that nothing is known of."""
        return AIMDSlots(self, now)


class AIMDSlots(AdaptiveSlots):
    """The limit of one key.

    Attributes:
        latency: seconds that answers took, on the average, since the limit last fell.
    """

    __slots__ = ("_count", "_increase", "_threshold", "latency")

    def __init__(self, algorithm: AIMD, now: float) -> None:
        super().__init__(algorithm, now)
        self._increase = algorithm.increase
        self._threshold = algorithm.latency_threshold
        self.latency = 0.0
        self._count = 0

    def on_success(self, latency: float, now: float) -> None:
        limit = self.limit
        threshold = self._threshold
        if threshold is not None:
            if now - latency < self.backed_off_at - TINY:
                return
            self._count = count = self._count + 1
            enough = max(limit, _ENOUGH)
            self.latency += (latency - self.latency) / min(count, enough)
            if count < enough:
                return
            if self.latency > threshold:
                self.back_off(self._algorithm.backoff, now, LimitReason.LATENCY)
                return
        if self.in_use * 2 > limit:
            estimate = self.estimate + self._increase / limit
            if estimate < limit + 1 - TINY:
                self.estimate = estimate
            else:
                self.settle(estimate + TINY, now, LimitReason.GROWN)  # ten tenths are one

    def back_off(self, factor: float, now: float, reason: LimitReason) -> None:
        self._count = 0
        super().back_off(factor, now, reason)
