"""What policies refuse attempts with. Nothing was sent when one of these is raised."""

import math
from collections.abc import Hashable

from aiohttp import ClientError

from .circuit import CircuitState, Reason
from .outcome import Outcome


class PolicyError(ClientError):
    """An attempt was refused in this process, before anything was sent."""

    outcome = Outcome.LOCAL


class CircuitOpenError(PolicyError):
    """The circuit breaker lets no attempt through: the server, or the way to it, has failed too often.

    Attributes:
        key: whose circuit it is, mostly an origin.
        state: OPEN, or HALF_OPEN while probes are under way and decide.
        until: when the next attempt has a chance, on the breaker's clock; infinity where a program
            has opened the circuit for good; None while probes decide.
        retry_after: the same in seconds from when this was raised.
        reason: why, for programs (`reason.cause`) and for people.
        last_outcome: of the last call that failed; None where none has.
    """

    def __init__(
        self,
        key: Hashable,
        state: CircuitState,
        until: float | None,
        retry_after: float | None,
        reason: Reason,
        last_outcome: Outcome | None,
    ) -> None:
        super().__init__(key, state, until, retry_after, reason, last_outcome)
        self.key = key
        self.state = state
        self.until = until
        self.retry_after = retry_after
        self.reason = reason
        self.last_outcome = last_outcome

    def __str__(self) -> str:
        # Made when somebody reads it: under an outage there are many of these.
        if self.retry_after is None:
            how = "half-open"
        elif self.retry_after == math.inf:
            how = "open until it is reset"
        else:
            how = f"open for another {self.retry_after:.3g} s"
        last = "" if self.last_outcome is None else f"; the last failure was {self.last_outcome.name}"
        return f"The circuit of {self.key} is {how}: {self.reason}{last}"


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


class RateExceeded(PolicyError):
    """An attempt would have to wait for the rate limit longer than it may; nothing was reserved for it.

    Attributes:
        key: what the limit is kept for.
        delay: seconds that it would have had to wait.
        reason: what it may not exceed.
    """

    def __init__(self, key: Hashable, delay: float, reason: str) -> None:
        super().__init__(key, delay, reason)
        self.key = key
        self.delay = delay
        self.reason = reason

    def __str__(self) -> str:
        return f"Rate limit of {self.key}: the attempt would wait {self.delay:.3f} s, {self.reason}"
