"""Adaptive concurrency: as many attempts in flight for a key as its server can serve at once.

Finds by itself, and keeps finding, what a bulkhead has to be told. Called by the driver of policies, or by
hand; how a limit is found is up to an algorithm (`aimd`, `gradient`).
"""

import time
from collections.abc import Hashable
from dataclasses import dataclass

from .errors import AdaptiveLimitFull
from .gates import Clock, KeyOf, Metric, WeightOf
from .gradient import Gradient2
from .keyed import KeyedStats
from .limits import AdaptiveSlots, LimitAlgorithm, LimitReason
from .outcome import Observation, Outcome
from .queueing import METRICS, SlotFigures, SlotGate, SlotPermit, figures_of

_SUCCESS = Outcome.SUCCESS


@dataclass(frozen=True)
class AdaptiveFigures(SlotFigures):
    """The figures of one key.

    Attributes:
        increases: how often the limit went up.
        decreases: how often the limit went down.
        reason: of the limit's last change.
        changed_at: when that was, on the gate's clock.
    """

    increases: int
    decreases: int
    reason: LimitReason
    changed_at: float


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


class AdaptiveConcurrency(SlotGate[AdaptiveSlots]):
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
    permit_class = AdaptivePermit
    full_error = AdaptiveLimitFull
    bound = "max_limit,"
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
        self.algorithm = Gradient2() if algorithm is None else algorithm
        super().__init__(self._make, self.algorithm.max_limit, max_waiting, key, weight, clock)

    def __repr__(self) -> str:
        name = type(self.algorithm).__name__
        return f"<AdaptiveConcurrency {name} max_waiting={self._max_waiting} keys={len(self._keyed)}>"

    def _make(self, key: Hashable, now: float) -> AdaptiveSlots:
        return self.algorithm.make_slots(now)

    def stats(self) -> KeyedStats[AdaptiveFigures]:
        """The figures of all keys; from any thread."""
        return self._keyed.stats(_figures)


def _figures(slots: AdaptiveSlots) -> AdaptiveFigures:
    return AdaptiveFigures(
        **vars(figures_of(slots)),
        increases=slots.increases,
        decreases=slots.decreases,
        reason=slots.reason,
        changed_at=slots.changed_at,
    )
