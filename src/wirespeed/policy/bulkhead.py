"""The bulkhead: so many attempts in flight for a key, and no more.

It keeps one slow server from taking all of a program's connections and tasks. Unlike the pool's limits
it counts attempts, not connections, by a key and weights of the program's choice, and can refuse. Called by
the driver of policies, or by hand.
"""

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType

from .errors import BulkheadFull
from .gates import Clock, Gate, KeyOf, Wake, WeightOf
from .keyed import Keyed
from .queueing import METRICS, SlotPermit, Slots, check_max_waiting


@dataclass(frozen=True)
class BulkheadKeyStats:
    """The figures of one key.

    Attributes:
        limit: how much weight may be in flight.
        in_use: weight in flight.
        waiting: attempts that wait for room.
        passed: attempts that were let through, at once or from the queue.
        queued: attempts that had to wait.
        refused: attempts refused because too many were waiting.
        given_up: attempts that left the queue before there was room.
    """

    limit: float
    in_use: float
    waiting: int
    passed: int
    queued: int
    refused: int
    given_up: int


@dataclass(frozen=True)
class BulkheadStats:
    """The figures of a bulkhead.

    Attributes:
        by_key: those of each key that is kept.
        forgotten: sums of the counters of the keys that are not kept any more.
    """

    by_key: Mapping[Hashable, BulkheadKeyStats]
    forgotten: Mapping[str, float]


class Bulkhead(Gate):
    """A weighted semaphore for each key; first come, first served.

    After the bulkhead of "Release It!" (M. Nygard) and of resilience4j. A permit that finds room holds at
    once. Any other waits, and `wake` is called with it, once, in the call that made room; a heavy one is not
    overtaken by light ones behind it. Who acquires without `wake` looks at `ready_at` again: the permit
    keeps its place.

    Args:
        limit: how much weight may be in flight for one key.
        max_waiting: how many may wait for one key, further ones are refused; None for any number.
        key: what requests are kept apart by, from the request (its `url`, `method`, `headers`); None for what
            the Policies go by, mostly the origin. For middlewares and batches: `acquire` is given keys.
        weight: how many attempts a request counts for, from the request; None for one. Likewise.
        clock: seconds that never go back.

    Raises:
        ValueError: `limit` is not positive and finite, or `max_waiting` is negative.
    """

    name = "bulkhead"
    metrics = METRICS

    def __init__(
        self,
        limit: float,
        *,
        max_waiting: int | None = None,
        key: KeyOf | None = None,
        weight: WeightOf | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        if not (limit > 0 and isfinite(limit)):
            raise ValueError(f"limit must be positive and finite, got {limit}")
        check_max_waiting(max_waiting)
        self.key_of, self.weight_of, self.clock = key, weight, clock
        self._limit = limit
        self._heaviest = float(limit)  # floats are compared with each other many times faster
        self._max_waiting = max_waiting
        self._keyed: Keyed[Slots] = Keyed(self._make, self.metrics)

    def __repr__(self) -> str:
        return f"<Bulkhead limit={self._limit} max_waiting={self._max_waiting} keys={len(self._keyed)}>"

    def _make(self, key: Hashable, now: float) -> Slots:
        return Slots(self._limit)

    def acquire(
        self, key: Hashable, *, weight: float = 1.0, now: float | None = None, wake: Wake | None = None
    ) -> SlotPermit:
        """Ask for `weight` of the key's slots.

        Args:
            key: what has slots of its own.
            weight: how many slots the attempt occupies.
            now: on the gate's clock; None reads it.
            wake: called with a permit that did not hold at once, when it does. May acquire and release.

        Returns:
            A permit that holds from `now` on, or is queued: `ready_at` is `QUEUED` until it holds.

        Raises:
            BulkheadFull: there is no room, and `max_waiting` are waiting.
            ValueError: the weight is not positive, or above the limit.
        """
        if not 0.0 < weight <= self._heaviest:
            raise ValueError(f"weight must be positive and at most the limit of {self._limit}, got {weight}")
        if now is None:
            now = self.clock()
        slots = self._keyed.find(key) or self._keyed.get(key, now)
        permit = SlotPermit()
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
            raise BulkheadFull(key, slots.limit, slots.in_use, slots.waiting)
        return permit

    def stats(self) -> BulkheadStats:
        """The figures of all keys; from any thread."""
        by_key = {
            key: BulkheadKeyStats(*[getattr(slots, metric.attribute) for metric in METRICS])
            for key, slots in self._keyed.items()
        }
        return BulkheadStats(MappingProxyType(by_key), MappingProxyType(dict(self._keyed.forgotten)))
