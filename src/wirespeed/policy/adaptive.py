"""Adaptive concurrency: as many attempts in flight for a key as its server can serve at once.

Finds by itself, and keeps finding, what a bulkhead has to be told. Called by the driver of policies, or by
hand; how a limit is found is up to an algorithm (`aimd`, `gradient`).
"""

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .errors import AdaptiveLimitFull
from .gates import Clock, Gate, KeyOf, Metric, Wake, WeightOf
from .gradient import Gradient2
from .keyed import Keyed
from .limits import AdaptiveSlots, LimitAlgorithm, LimitReason
from .outcome import Observation, Outcome
from .queueing import METRICS, SlotPermit, check_max_waiting

_SUCCESS = Outcome.SUCCESS


@dataclass(frozen=True)
class AdaptiveKeyStats:
    """The figures of one key.

    Attributes:
        limit: how much weight may be in flight now.
        in_use: weight in flight; above the limit where that has fallen, until enough is released.
        waiting: attempts that wait for room.
        passed: attempts that were let through, at once or from the queue.
        queued: attempts that had to wait.
        refused: attempts refused because too many were waiting.
        given_up: attempts that left the queue before there was room.
        increases: how often the limit went up.
        decreases: how often the limit went down.
        reason: of the limit's last change.
        changed_at: when that was, on the gate's clock.
    """

    limit: float
    in_use: float
    waiting: int
    passed: int
    queued: int
    refused: int
    given_up: int
    increases: int
    decreases: int
    reason: LimitReason
    changed_at: float


@dataclass(frozen=True)
class AdaptiveStats:
    """The figures of an adaptive limit.

    Attributes:
        by_key: those of each key that is kept.
        forgotten: sums of the counters of the keys that are not kept any more.
    """

    by_key: Mapping[Hashable, AdaptiveKeyStats]
    forgotten: Mapping[str, float]


class AdaptivePermit(SlotPermit):
    """A permit whose latency and outcome move the limit."""

    __slots__ = ()

    slots: AdaptiveSlots | None

    def observe(self, seen: Observation) -> None:
        """Tell what came of the attempt. The slots stay occupied until `release`; where the limit grows,
        waiting permits are woken before this returns.
        """
        slots = self.slots
        if slots is None:
            return
        slots.seen_at = at = seen.at
        if seen.outcome is _SUCCESS:
            slots.streak = 0
            slots.on_success(seen.latency, at)
        else:
            slots.on_other(seen)


class AdaptiveConcurrency(Gate):
    """A limit for each key that follows what its server can serve.

    Args:
        algorithm: how the limit is found; None for `Gradient2()`.
        max_waiting: how many may wait for one key, further ones are refused; None for any number.
        key: what requests are kept apart by, from the request (its `url`, `method`, `headers`); None for what
            the Policies go by, mostly the origin. For middlewares and batches: `acquire` is given keys.
        weight: how many attempts a request counts for, from the request; None for one. Likewise.
        clock: seconds that never go back.

    Raises:
        ValueError: `max_waiting` is negative.
    """

    name = "adaptive"
    metrics = (
        *METRICS,
        Metric("increases", "increases", "counter", "Times that the limit went up."),
        Metric("decreases", "decreases", "counter", "Times that the limit went down."),
    )

    def __init__(
        self,
        algorithm: LimitAlgorithm | None = None,
        *,
        max_waiting: int | None = None,
        key: KeyOf | None = None,
        weight: WeightOf | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        check_max_waiting(max_waiting)
        self.algorithm = Gradient2() if algorithm is None else algorithm
        self.key_of, self.weight_of, self.clock = key, weight, clock
        self._max_waiting = max_waiting
        self._heaviest = float(self.algorithm.max_limit)  # as weights are
        self._keyed: Keyed[AdaptiveSlots] = Keyed(self._make, self.metrics)

    def __repr__(self) -> str:
        name = type(self.algorithm).__name__
        return f"<AdaptiveConcurrency {name} max_waiting={self._max_waiting} keys={len(self._keyed)}>"

    def _make(self, key: Hashable, now: float) -> AdaptiveSlots:
        return self.algorithm.make_slots(now)

    def acquire(
        self, key: Hashable, *, weight: float = 1.0, now: float | None = None, wake: Wake | None = None
    ) -> AdaptivePermit:
        """Ask for `weight` of what may be in flight for the key.

        Args:
            key: what has a limit of its own.
            weight: how many attempts this one counts for. One that is heavier than the limit happens to be
                goes when nothing else is in flight.
            now: on the gate's clock; None reads it.
            wake: called with a permit that did not hold at once, when it does. May acquire and release.

        Returns:
            A permit that holds from `now` on, or is queued: `ready_at` is `QUEUED` until it holds.

        Raises:
            AdaptiveLimitFull: there is no room, and `max_waiting` are waiting.
            ValueError: the weight is not positive, or above the algorithm's `max_limit`.
        """
        if not 0.0 < weight <= self._heaviest:
            raise ValueError(
                f"weight must be positive and at most max_limit, {self.algorithm.max_limit}, got {weight}"
            )
        if now is None:
            now = self.clock()
        slots = self._keyed.find(key) or self._keyed.get(key, now)
        permit = AdaptivePermit()
        permit.slots = slots
        permit.weight = weight
        permit.wake = wake
        in_use = slots.in_use + weight
        if not slots.queue and (in_use <= slots.ceiling or not slots.holders):
            slots.in_use = in_use
            slots.holders += 1
            slots.passed += 1
            permit.ready_at = now
        elif not slots.enqueue(permit, self._max_waiting):
            raise AdaptiveLimitFull(key, slots.limit, slots.in_use, slots.waiting)
        return permit

    def stats(self) -> AdaptiveStats:
        """The figures of all keys; from any thread."""
        by_key = {key: _figures(slots) for key, slots in self._keyed.items()}
        return AdaptiveStats(MappingProxyType(by_key), MappingProxyType(dict(self._keyed.forgotten)))


def _figures(slots: AdaptiveSlots) -> AdaptiveKeyStats:
    return AdaptiveKeyStats(
        limit=slots.limit,
        in_use=slots.in_use,
        waiting=slots.waiting,
        passed=slots.passed,
        queued=slots.queued,
        refused=slots.refused,
        given_up=slots.given_up,
        increases=slots.increases,
        decreases=slots.decreases,
        reason=slots.reason,
        changed_at=slots.changed_at,
    )
