"""Slots of a key and the one queue for them: what the bulkhead and the adaptive limit have in common.

A permit holds its slots from when it is granted until its release; who finds no room waits in the order of
arrival, and a heavy waiter is not overtaken by light ones. Knows nothing of how a limit is found. Called by
`bulkhead` and `adaptive`, in one thread; figures may be read from any.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from .errors import QueueFull
from .gates import QUEUED, Clock, Gate, KeyOf, Metric, Permit, Wake, WeightOf, ignore
from .keyed import Keyed

SLACK = 1e-9
"""How far, of the limit, sums of weights such as 0.1 may miss it by rounding."""

METRICS = (
    Metric("limit", "limit", "gauge", "How much weight may be in flight."),
    Metric("in_use", "in_use", "gauge", "Weight in flight."),
    Metric("waiting", "waiting", "gauge", "Attempts that wait for room."),
    Metric("passed", "passed", "counter", "Attempts that were let through, at once or from the queue."),
    Metric("queued", "queued", "counter", "Attempts that had to wait for room."),
    Metric("refused", "refused", "counter", "Attempts refused because too many were waiting."),
    Metric("given_up", "given_up", "counter", "Attempts that left the queue before there was room."),
)


class Slots:
    """How much may be in flight for one key, how much is, and who waits.

    Attributes:
        limit: how much weight may be in flight. May fall below what is: nothing is interrupted, and nothing
            is granted until enough was released.
        ceiling: the limit, and what rounding may add to sums of weights.
        in_use: weight that is in flight.
        holders: permits that hold.
    """

    __slots__ = (
        "_granting",
        "ceiling",
        "given_up",
        "holders",
        "in_use",
        "limit",
        "passed",
        "queue",
        "queued",
        "refused",
    )

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.ceiling = limit * (1 + SLACK)
        self.in_use = 0.0
        self.holders = 0
        # Whoever leaves from the middle leaves nothing behind that the next grant would have to step over.
        self.queue: OrderedDict[SlotPermit, None] = OrderedDict()
        self._granting = False
        self.passed = self.queued = self.refused = self.given_up = 0

    @property
    def waiting(self) -> int:
        """How many permits wait."""
        return len(self.queue)

    def enqueue(self, permit: "SlotPermit", max_waiting: int | None) -> bool:
        """Queue a new permit that finds no room; False where it must not wait. Who finds room holds at once:
        gates see to that by themselves, which saves most attempts a call.
        """
        if max_waiting is not None and len(self.queue) >= max_waiting:
            self.refused += 1
            return False
        self.queued += 1
        permit.ready_at = QUEUED
        self.queue[permit] = None
        return True

    def leave(self, permit: "SlotPermit", now: float) -> None:
        """Take a permit out of the queue that gave up."""
        del self.queue[permit]
        self.given_up += 1
        self.grant(now)  # it may have been a heavy one that stood before light ones

    def move(self, limit: float, now: float) -> None:
        """Set the limit; whoever has room by it holds at once."""
        self.limit = limit
        self.ceiling = limit * (1 + SLACK)
        if self.queue:
            self.grant(now)

    def grant(self, now: float) -> None:
        """Let the first ones of the queue hold, as many as there is room for, and wake them.

        A waker may come back here by acquiring or releasing. It then finds the books balanced, and leaves
        further grants to the loop that woke it: so neither order nor depth of the stack depend on wakers.

        Raises:
            Exception: what a waker has raised, which it must not, after all others were woken.
        """
        if self._granting:
            return
        self._granting = True
        failed: Exception | None = None
        try:
            while self.queue:
                permit = next(iter(self.queue))
                in_use = self.in_use + permit.weight
                if in_use > self.ceiling and self.holders:
                    break
                del self.queue[permit]
                self.in_use = in_use
                self.holders += 1
                self.passed += 1
                permit.ready_at = now
                try:
                    if permit.wake is not None:
                        permit.wake(permit)
                except Exception as exc:
                    failed = failed or exc
        finally:
            self._granting = False
        if failed is not None:
            raise failed

    def is_idle(self, now: float) -> bool:
        """Whether nobody holds and nobody waits."""
        return not self.holders and not self.queue


class SlotPermit(Permit):
    """A permit that occupies `weight` of its key's slots from when it holds until it is released.

    Gates fill it in: an `__init__` would cost more than all else that is done for a permit.
    """

    __slots__ = ("slots", "wake", "weight")

    slots: Slots | None
    weight: float
    wake: Wake | None

    if not TYPE_CHECKING:
        observe = ignore

    def release(self, now: float) -> None:
        """Give the slots back, or leave the queue; whoever is next is woken before this returns.

        A permit that was granted while its holder was giving up is released like any other: its slots
        go to the next one.
        """
        slots = self.slots
        if slots is None:
            return
        self.slots = None
        if self.ready_at == QUEUED:
            slots.leave(self, now)
            return
        slots.holders -= 1
        # Nothing held is nothing in use, whatever rounding has left.
        slots.in_use = slots.in_use - self.weight if slots.holders else 0.0
        if slots.queue:
            slots.grant(now)


@dataclass(frozen=True)
class SlotFigures:
    """The figures of one key.

    Attributes:
        limit: how much weight may be in flight.
        in_use: weight in flight; above the limit where that has fallen, until enough is released.
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


S = TypeVar("S", bound=Slots)


class SlotGate(Gate, Generic[S]):
    """A gate whose attempts occupy slots, however many there are.

    Args:
        make: makes the slots of a key.
        heaviest: no weight may be above it; `bound` says what that is.
        max_waiting: how many may wait for one key; None for any number.
        key, weight, clock: as of the gates.

    Raises:
        ValueError: `max_waiting` is negative.
    """

    permit_class: ClassVar[type[SlotPermit]] = SlotPermit
    full_error: ClassVar[type[QueueFull]]
    bound: ClassVar[str]

    def __init__(
        self,
        make: Callable[[Hashable, float], S],
        heaviest: float,
        max_waiting: int | None,
        key: KeyOf | None,
        weight: WeightOf | None,
        clock: Clock,
    ) -> None:
        if max_waiting is not None and max_waiting < 0:
            raise ValueError(f"max_waiting must not be negative, got {max_waiting}")
        self.key_of, self.weight_of, self.clock = key, weight, clock
        self._heaviest = float(heaviest)  # floats are compared with each other many times faster
        self._max_waiting = max_waiting
        self._keyed: Keyed[S] = Keyed(make, self.metrics)

    def acquire(
        self, key: Hashable, *, weight: float = 1.0, now: float | None = None, wake: Wake | None = None
    ) -> SlotPermit:
        """Ask for `weight` of the key's slots.

        Args:
            key: what has slots of its own.
            weight: how many slots the attempt occupies. One that is heavier than a limit that has fallen goes
                when nothing else is in flight.
            now: on the gate's clock; None reads it.
            wake: called with a permit that did not hold at once, when it does. May acquire and release.

        Returns:
            A permit that holds from `now` on, or is queued: `ready_at` is `QUEUED` until it holds.

        Raises:
            QueueFull: there is no room, and `max_waiting` are waiting; the gate's own kind of it.
            ValueError: the weight is not positive, or more than there can ever be.
        """
        if not 0.0 < weight <= self._heaviest:
            raise ValueError(
                f"weight must be positive and at most {self.bound} {self._heaviest:g}, got {weight}"
            )
        if now is None:
            now = self.clock()
        slots = self._keyed.find(key) or self._keyed.get(key, now)
        permit = self.permit_class()
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
            raise self.full_error(key, slots.limit, slots.in_use, slots.waiting)
        return permit


def figures_of(slots: Slots) -> SlotFigures:
    """The figures of a key, as they are now."""
    return SlotFigures(*[getattr(slots, field.name) for field in fields(SlotFigures)])
