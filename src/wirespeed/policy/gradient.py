"""Gradient2: the limit at which answers begin to take longer. Used by `adaptive`."""

from math import inf, sqrt

from .limits import TINY, AdaptiveSlots, LimitAlgorithm, LimitReason

_ROUND = 20
"""Answers that a round has at least."""
_LONGEST = 200
"""Answers after which a round ends, however far they are spread."""
_PRECISION = 0.05
"""Standard error of a round's mean, as a part of it, that is near enough."""
_CLEARLY = 4.0
"""Standard errors above the base from which on no more precision is needed: the server is overloaded."""
_FAR = 3.0
"""Standard errors off the base that are no chance."""
_FAR_AT_LEAST = 0.1
"""The same as a part of the base."""
_DECISIVE = 1.3
"""Times the base that answers take in an overload that even those show who came back first."""
_QUICKER = 0.3
"""Weight of a round that is quicker than the base, by no chance."""
_UNUSED = 0.2
"""Weight of a round in which the limit was not in use: nothing of ours queued."""
_PROBED = 0.5
"""Weight of a probe that is near the base."""
_SHRINK_MOST = 0.5
"""The gradient is no less: outliers must not shed all load (as in Netflix's)."""
_CROWDED = 0.8
"""The gradient from which on there is no headroom, and the limit shrinks twice as fast."""
_FREE = 0.97
"""The gradient from which on nothing queues."""
_STRIDE = 4.0
"""Rounds in succession in which nothing queued lengthen the step up, to this times at most; a round of more
round trips than this counts for several."""
_FIRST_PROBE = 5
"""Round trips until the first look whether the first answers have queued."""
_ROUND_TRIPS = 50
"""Round trips between probes at least, so that they cost little where answers take long."""


class Gradient2(LimitAlgorithm):
    """Compares what answers take now with what they take where nothing queues, and sets the limit by their
    quotient.

    After `Gradient2Limit` of Netflix's concurrency-limits: `limit * gradient + headroom`, smoothed, where
    the gradient is `tolerance * base / latency` between 0.5 and 1 and the headroom is the square root of the
    limit. By Little's law, `limit * base / latency` is what the server works on at once, when it is
    saturated. As published, it is made for demand that comes and goes. Under demand that stays, its base,
    which is a long average of all latencies, follows the queue that the limit makes: in the simulation of
    the tests the limit swings around twice the capacity, or stays at its maximum; and it does not hear
    refusals. What is different here:

    - Decisions are by rounds: as many answers as the limit, 20 at least, and so many that the standard error
      of their mean is within 5 %, or an overload is clear. The first answers after a change are left out:
      those who come back first are the quick ones.
    - The base is no average of everything. It falls with rounds that are quicker by no chance, follows all
      rounds while less than half of the limit is in use, and otherwise only probes raise it: every
      `probe_interval`, and when the limit has shrunk to `probe_depth` of what it was, the limit is lowered
      to that part for about three round trips (as the `PROBE_RTT` of BBR, and the minRTT windows of Envoy's
      gradient controller). Where answers take as long as before, no queue of ours was to blame, and that is
      the new base, once a second probe says the same. Otherwise the limit was rightly lowered.
    - The headroom fades between a gradient of 1 and of 0.8, so that the limit comes to rest 5 to 15 % above
      the capacity, with a tolerance of 1. While rounds in succession show no queue it is up to four times as
      long a step.
    - Refusals and timeouts lower the limit by `backoff`, once for each round trip; nothing but successes
      raises it.

    With answers that differ by up to 30 % of their mean (standard deviation) and take up to 100 ms, it mostly
    settles within 10 s of a change of the server's capacity, 50 to 100 round trips. The more they differ, the
    longer the rounds: at 30 % a limit of 20 is judged every 2 round trips, at 60 % every 7. Where they differ
    by 80 %, or take 200 ms, it takes longer and rests further off; `AIMD` with refusals to go by does better.

    Args:
        initial: the limit of a key that nothing is known of.
        min_limit: no limit is lower.
        max_limit: no limit is higher.
        tolerance: how many times the base answers may take; the limit comes to rest that much higher.
        smoothing: what a round's result counts for against the limit before it, above 0 and at most 1.
        backoff: what is left of a limit after a refusal or a timeout.
        probe_interval: seconds between probes, while the limit is in use; 50 round trips at least.
        probe_depth: to what part a probe lowers the limit.

    Raises:
        ValueError: an argument is out of its bounds.
    """

    __slots__ = ("probe_depth", "probe_interval", "smoothing", "tolerance")

    def __init__(
        self,
        *,
        initial: int = 20,
        min_limit: int = 1,
        max_limit: int = 200,
        tolerance: float = 1.0,
        smoothing: float = 0.2,
        backoff: float = 0.9,
        probe_interval: float = 10.0,
        probe_depth: float = 0.7,
    ) -> None:
        super().__init__(initial, min_limit, max_limit, backoff)
        if not 1 <= tolerance < inf:
            raise ValueError(f"tolerance must be at least 1, got {tolerance}")
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing must be above 0 and at most 1, got {smoothing}")
        if not probe_interval > 0:
            raise ValueError(f"probe_interval must be positive, got {probe_interval}")
        if not 0 < probe_depth < 1:
            raise ValueError(f"probe_depth must be between 0 and 1, got {probe_depth}")
        self.tolerance = tolerance
        self.smoothing = smoothing
        self.probe_interval = probe_interval
        self.probe_depth = probe_depth

    def make_slots(self, now: float) -> "Gradient2Slots":
        """Make the slots of a key that nothing is known of."""
        return Gradient2Slots(self, now)


class Gradient2Slots(AdaptiveSlots):
    """The limit of one key.

    Attributes:
        base: seconds that an answer takes where nothing queues, as far as is known (Netflix: the long RTT);
            0 where nothing is.
        latency: seconds that answers took, on the average, in the last round (the short RTT).
        probing: whether the limit is lowered for a moment.
    """

    __slots__ = (
        "_count",
        "_doubted",
        "_falls",
        "_free",
        "_fresh",
        "_measured_at",
        "_peak",
        "_probe_at",
        "_since",
        "_size",
        "_squares",
        "_sum",
        "_top",
        "base",
        "latency",
        "probing",
    )

    _algorithm: Gradient2

    def __init__(self, algorithm: Gradient2, now: float) -> None:
        super().__init__(algorithm, now)
        self.base = self.latency = 0.0
        self.probing = False
        self._probe_at = inf
        self._doubted = False  # one probe has shown a higher base
        self._free = 0.0  # how long nothing has queued: rounds that have ended
        self._falls = 0  # rounds in succession after which the limit fell
        self._measured_at = self.limit  # the limit while `latency` was taken
        self._top = self.estimate  # the highest since the last probe
        self._begin(-inf, fresh=True)

    # Rounds

    def _begin(self, since: float, fresh: bool) -> None:
        """Begin a round, of attempts that were begun since then. Where that is just now (`fresh`), a round
        trip's worth of answers is only to pass the time, since slow ones cannot be among them.
        """
        self._since = since
        self._fresh = fresh
        self._sum = self._squares = self._peak = 0.0
        self._count = 0
        self._size = self.limit if fresh else max(_ROUND, self.limit)

    def on_success(self, latency: float, now: float) -> None:
        if now - latency < self._since - TINY:
            return
        self._sum += latency
        self._squares += latency * latency
        self._count = count = self._count + 1
        if self.in_use > self._peak:
            self._peak = self.in_use
        if count >= self._size:
            self._end(now)

    def _end(self, now: float) -> None:
        count, base = self._count, self.base
        seen = self._sum / count
        if not seen > 0 or (self._fresh and (self.probing or not base or seen < base * _DECISIVE)):
            self._begin(self._since, fresh=False)
            return
        error = sqrt(max(0.0, self._squares / count - seen * seen) / count)
        clear = base and seen - base > _CLEARLY * error
        if error > _PRECISION * seen and not clear and count < _LONGEST:
            self._size = count + count // 2
        elif self.probing:
            self._end_probe(seen, error, now)
        else:
            self._judge(seen, error, now)

    def _judge(self, seen: float, error: float, now: float) -> None:
        """Decide by a round."""
        limit = self.limit
        used = self._peak * 2 > limit
        self.latency = seen
        self._measured_at = limit
        if not self.base:
            self.base = seen
            self._probe_at = now + _FIRST_PROBE * seen
        elif not used:
            self.base += (seen - self.base) * _UNUSED
        else:
            if seen < self.base - _FAR * error:
                self.base += (seen - self.base) * _QUICKER
            self._step(seen, now)
        # Latencies of a round before the first fall belong to two limits, or two capacities.
        fell = self._falls > 1 and self.estimate < self._top * self._algorithm.probe_depth
        if used and (now >= self._probe_at or fell):
            self._begin_probe(now)
        elif self.limit < limit * 0.9:
            self._begin(now, fresh=True)
        else:
            self._begin(self._since, fresh=False)

    def _step(self, seen: float, now: float) -> None:
        """Move the limit by the gradient of a round."""
        before = self.estimate
        room = self._algorithm.tolerance * self.base / seen
        smoothing = self._algorithm.smoothing
        if room < _CROWDED:
            smoothing = min(1.0, 2 * smoothing)
        stride = min(_STRIDE, max(1.0, self._free))
        self._free = self._free + max(1.0, self._count / self.limit / _STRIDE) if room >= _FREE else 0.0
        headroom = sqrt(before) * min(1.0, max(0.0, (room - _CROWDED) / (1 - _CROWDED)))
        target = before * min(1.0, max(_SHRINK_MOST, room)) + headroom * stride
        down = target < before
        self._falls = self._falls + 1 if down else 0
        reason = LimitReason.LATENCY if down else LimitReason.GROWN
        self.settle(before + (target - before) * smoothing, now, reason)
        self._top = max(self._top, self.estimate)

    # Probes

    def _begin_probe(self, now: float) -> None:
        algorithm = self._algorithm
        self.probing = True
        self.reason = LimitReason.PROBE
        self.changed_at = now
        self.move(max(algorithm.min_limit, int(self.estimate * algorithm.probe_depth)), now)
        self._begin(now, fresh=True)

    def _end_probe(self, seen: float, error: float, now: float) -> None:
        algorithm = self._algorithm
        base = self.base
        far = abs(seen - base) > max(_FAR * error, _FAR_AT_LEAST * base)
        learned = seen if far else base + (seen - base) * _PROBED
        lowered = self.limit / self._measured_at
        fell = self.estimate < self._top * algorithm.probe_depth
        doubted, self._doubted = self._doubted, False
        if seen < base:
            self.base = learned
        elif lowered >= 1 or seen > self.latency * (1 + lowered) / 2:
            # Less in flight is not answered sooner: no queue of ours.
            self._doubted = far and not doubted  # or the capacity has changed meanwhile
            if not self._doubted:
                self.base = learned
                if fell and lowered < 1:
                    self.estimate = self._top
        elif fell:
            self.estimate = float(self.limit)
        if not self._doubted:
            self._top = self.estimate
        again = self._doubted or (far and seen < base)
        self._stop_probing(now if again else now + max(algorithm.probe_interval, _ROUND_TRIPS * seen))
        self.reason = LimitReason.PROBED
        self.changed_at = now
        self.move(int(self.estimate), now)
        self._begin(now, fresh=True)

    def _stop_probing(self, next_at: float) -> None:
        self.probing = False
        self._falls = 0
        self._probe_at = next_at

    def back_off(self, factor: float, now: float, reason: LimitReason) -> None:
        if self.probing:
            # Even a refusal of what the probe let through says that it was too much.
            self.estimate = float(self.limit)
            self._stop_probing(now + self._algorithm.probe_interval)
        super().back_off(factor, now, reason)
        self._top = self.estimate
        self._free = 0.0
        self._begin(now, fresh=True)
