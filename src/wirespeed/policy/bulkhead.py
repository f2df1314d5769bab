"""The bulkhead: so many attempts in flight for a key, and no more.

It keeps one slow server from taking all of a program's connections and tasks. Unlike the pool's limits
it counts attempts, not connections, by a key and weights of the program's choice, and can refuse. Called by
the driver of policies, or by hand.
"""

import time
from collections.abc import Hashable
from math import isfinite

from .errors import BulkheadFull
from .gates import Clock, KeyOf, WeightOf
from .keyed import KeyedStats
from .queueing import METRICS, SlotFigures, SlotGate, Slots, figures_of


class Bulkhead(SlotGate[Slots]):
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
    full_error = BulkheadFull
    bound = "the limit of"

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
        self._limit = limit
        super().__init__(self._make, limit, max_waiting, key, weight, clock)

    def __repr__(self) -> str:
        return f"<Bulkhead limit={self._limit} max_waiting={self._max_waiting} keys={len(self._keyed)}>"

    def _make(self, key: Hashable, now: float) -> Slots:
        return Slots(self._limit)

    def stats(self) -> KeyedStats[SlotFigures]:
        """The figures of all keys; from any thread."""
        return self._keyed.stats(figures_of)
