"""What policies refuse attempts with. Nothing was sent when one of these is raised."""

from collections.abc import Hashable

from aiohttp import ClientError

from .outcome import Outcome


class PolicyError(ClientError):
    """An attempt was refused in this process, before anything was sent."""

    outcome = Outcome.LOCAL


class QueueFull(PolicyError):
    """There is no room for an attempt, and too many are waiting already.

    Args:
        key: whose limit it is.
        limit: how much weight may be in flight.
        in_use: weight in flight.
        waiting: attempts that wait for room.
    """

    def __init__(self, key: Hashable, limit: float, in_use: float, waiting: int) -> None:
        super().__init__(key, limit, in_use, waiting)
        self.key = key
        self.limit = limit
        self.in_use = in_use
        self.waiting = waiting

    def __str__(self) -> str:
        # Put together when it is read: whoever sheds load raises many that nobody reads.
        return (
            f"{self._what} for {self.key}: {self.in_use:g} of {self.limit:g} in use, {self.waiting} waiting"
        )

    _what = "No room"


class BulkheadFull(QueueFull):
    """A bulkhead is full, and so is its queue."""

    _what = "The bulkhead is full"


class AdaptiveLimitFull(QueueFull):
    """As many attempts are in flight as the server was found to take, and the queue for them is full."""

    _what = "The adaptive concurrency limit is reached"
