"""The retry budget: what keeps an outage from multiplying the load.

Every request that is made earns a share of a retry, and whatever sends a request again pays for it: the retry
policy, hedging, and the silent second try on a connection that was dead. As in Finagle's RetryBudget
(https://twitter.github.io/finagle/guide/Clients.html#retries): a share of the requests of the last seconds,
plus a floor, so that a client with few requests may retry, too.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass

from .gates import Clock, Metric, Policy
from .keyed import MAX_KEYS, Keyed, KeyedStats

_ROUNDING = 1e-9
"""Shares are floats; a retry is not lost to the last bit. Of what a retry costs."""


@dataclass(frozen=True)
class BudgetFigures:
    """Of one key.

    Attributes:
        balance: what retries can be paid from: what was earned, and what is left of the floor. A retry takes
            a whole one from either.
        requests: that were made, without retries.
        spent: retries that were paid for.
        denied: retries that were refused.
    """

    balance: float
    requests: int
    spent: int
    denied: int


class _Account:
    """Of one key. Earnings are counted in requests, of this half of the ttl and of the one before."""

    __slots__ = (
        "denied", "fresh", "full_at", "half", "older",
        "requests", "reserve", "reserve_at", "spent", "turn_at",
    )  # fmt: skip

    def __init__(self, now: float, half: float, reserve: float) -> None:
        self.fresh = self.older = 0.0
        self.half = half
        self.turn_at = now + half
        self.reserve = reserve
        self.reserve_at = self.full_at = now
        self.requests = self.spent = self.denied = 0

    def is_idle(self, now: float) -> bool:
        return now >= self.turn_at + self.half and now >= self.full_at

    def turn(self, now: float) -> None:
        """Forget what was earned too long ago."""
        end = self.turn_at + self.half
        is_next = now < end
        self.older = self.fresh if is_next else 0.0
        self.fresh = 0.0
        # Late turns do not lengthen the halves, or what was earned would last for up to one and a half ttl.
        self.turn_at = end if is_next else now + self.half


class RetryBudget(Policy):
    """How many requests may be sent again, per origin.

    In any time, no more retries than `ratio` of the requests of that time and the `ttl` before it, plus
    `min_per_second` for each of its seconds, plus one second's worth of these.

    Args:
        ratio: retries per request; 0.2 for one in five.
        min_per_second: retries per second that are free.
        ttl: seconds for which a request counts; between half of it and all of it.
        clock: used where no `now` is given.
        max_keys: origins that are kept, see Keyed.

    Raises:
        ValueError: a figure is negative, NaN, or `ttl` is not positive.
    """

    name = "budget"
    metrics = (
        Metric("balance", "balance", "gauge", "Retries that could be made now."),
        Metric("requests", "requests", "counter", "Requests, without their retries."),
        Metric("spent", "spent", "counter", "Retries and hedged requests that were paid for."),
        Metric("denied", "denied", "counter", "Retries and hedged requests that the budget refused."),
    )

    def __init__(
        self,
        ratio: float = 0.2,
        *,
        min_per_second: float = 10.0,
        ttl: float = 10.0,
        clock: Clock = Policy.clock,
        max_keys: int = MAX_KEYS,
    ) -> None:
        for name, value in (("ratio", ratio), ("min_per_second", min_per_second)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not 0 < ttl < math.inf:
            raise ValueError(f"ttl must be positive seconds, got {ttl}")
        self.ratio, self.min_per_second, self.ttl, self.clock = ratio, min_per_second, ttl, clock
        # What a retry costs, in requests.
        self._cost = 1 / ratio if ratio else math.inf
        self._enough = self._cost * (1 - _ROUNDING)
        self._half = ttl / 2
        # A second's worth, or one: a floor below one per second is one now and then.
        self._reserve = max(1.0, min_per_second) if min_per_second else 0.0
        # Seconds until it is full again; one without bound always is.
        self._refill = self._reserve / min_per_second if 0 < min_per_second < math.inf else 0.0
        self._accounts = Keyed(self._new_account, self.metrics, max_keys)

    def _new_account(self, key: Hashable, now: float) -> _Account:
        return _Account(now, self._half, self._reserve)

    def deposit(self, key: Hashable, now: float | None = None) -> None:
        """Note that a request is made; not its retries.

        Args:
            key: its origin.
            now: on the budget's clock; None reads it.
        """
        if now is None:
            now = self.clock()
        account = self._accounts.find(key) or self._accounts.get(key, now)
        if now >= account.turn_at:
            account.turn(now)
        account.fresh += 1.0
        account.requests += 1

    def withdraw(self, key: Hashable, now: float | None = None) -> bool:
        """Pay for sending a request again; false when it must not be sent.

        Args:
            key: its origin.
            now: on the budget's clock; None reads it.
        """
        if now is None:
            now = self.clock()
        account = self._accounts.get(key, now)
        if now >= account.turn_at:
            account.turn(now)
        if self._earned(account):
            account.spent += 1
            return True
        reserve = self._reserve_at(account, now)
        if reserve < 1 - _ROUNDING:
            account.denied += 1
            return False
        account.reserve = reserve - 1
        account.reserve_at = max(now, account.reserve_at)
        account.full_at = account.reserve_at + self._refill
        account.spent += 1
        return True

    def _earned(self, account: _Account) -> bool:
        """Pay from what was earned, the oldest first."""
        earned = account.older + account.fresh
        if earned < self._enough:
            return False
        left = earned - self._cost
        account.older = max(0.0, account.older - self._cost)
        account.fresh = max(0.0, left - account.older)
        return True

    def _reserve_at(self, account: _Account, now: float) -> float:
        passed = max(0.0, now - account.reserve_at)
        return min(self._reserve, account.reserve + passed * self.min_per_second)

    def stats(self) -> KeyedStats[BudgetFigures]:
        """What each origin has spent, and has left."""
        now = self.clock()
        return self._accounts.stats(lambda account: self._figures(account, now))

    def _figures(self, account: _Account, now: float) -> BudgetFigures:
        earned = account.older + account.fresh
        if now >= account.turn_at:
            earned = account.fresh if now < account.turn_at + self._half else 0.0
        balance = earned * self.ratio + self._reserve_at(account, now)
        return BudgetFigures(balance, account.requests, account.spent, account.denied)
