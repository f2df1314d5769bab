"""What policies refuse attempts with. Nothing was sent when one of these is raised."""

from collections.abc import Hashable

from aiohttp import ClientError

from .outcome import Outcome


class PolicyError(ClientError):
    """An attempt was refused in this process, before anything was sent."""

    outcome = Outcome.LOCAL


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
