"""Retries: whether a request that failed is to be sent again, and when.

Decisions only: the waiting, the body and the budget are the driver's. Parameters are named as urllib3's Retry
has them; the delays are "full jitter" (Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015).
"""

import enum
import random
import time
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import NamedTuple

from .fields import retry_after
from .gates import Clock, Metric, Policy
from .keyed import MAX_KEYS, Keyed, KeyedStats
from .outcome import Observation, Outcome

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""RFC 9110 section 9.2.2."""
RETRY_AFTER_STATUSES = frozenset({413, 429, 503})
"""Answers after which `Retry-After` says when to come again (RFC 9110, RFC 6585), as in urllib3."""
_GATEWAY_STATUSES = frozenset({502, 504})


class RetryRecord(NamedTuple):
    """An attempt that was followed by another.

    Attributes:
        method: of the request.
        url: of the request.
        outcome: what the attempt came to.
        status: of its response; None where there was none.
        error: what it raised; None where there was a response.
        elapsed: seconds from sending it to that.
        delay: seconds that were waited then.
    """

    method: str
    url: str
    outcome: Outcome
    status: int | None
    error: BaseException | None
    elapsed: float
    delay: float


class Refusal(enum.Enum):
    """Why a request that failed was not sent again.

    Attributes:
        FINAL: the same request would come to the same.
        METHOD: it may have been acted on, and its method is not among `allowed_methods`.
        EXHAUSTED: it was sent as often as allowed.
        DEADLINE: the time of the request ends before the next attempt.
        BODY: what was sent of the body cannot be sent again.
        BUDGET: too large a share of the requests are retries already.
    """

    FINAL = "final"
    METHOD = "method"
    EXHAUSTED = "exhausted"
    DEADLINE = "deadline"
    BODY = "body"
    BUDGET = "budget"


@dataclass(frozen=True)
class RetryFigures:
    """Of one key: retries that were made, and failed requests that were not sent again, by reason."""

    retries: int
    method: int
    exhausted: int
    deadline: int
    body: int
    budget: int


class _Tally:
    __slots__ = ("body", "budget", "deadline", "exhausted", "method", "retries")

    def __init__(self) -> None:
        self.retries = self.method = self.exhausted = self.deadline = self.body = self.budget = 0

    def is_idle(self, now: float) -> bool:
        return True


class RetryState:
    """The attempts of one request so far. Made by `Retry.begin`."""

    __slots__ = ("_connect", "_read", "_retry", "_status", "_total", "number", "refusal")

    def __init__(self, retry: "Retry") -> None:
        self._retry = retry
        self._total, self._connect = retry.total, retry.connect
        self._read, self._status = retry.read, retry.status
        self.number = 0
        self.refusal: Refusal | None = None

    def next(self, method: str, seen: Observation, deadline: float | None = None) -> float | None:
        """Decide what follows on an attempt.

        Args:
            method: of the request.
            seen: the attempt.
            deadline: when the request's whole time ends, on the clock of `seen.at`; None where unknown.

        Returns:
            Seconds to wait before it is sent again; None for not again, and `refusal` says why.
        """
        self.refusal = self._refuse(method, seen)
        if self.refusal is not None:
            return None
        self.number += 1
        delay = self._retry.delay(self.number, seen)
        if deadline is not None and seen.at + delay >= deadline:
            self.refusal = Refusal.DEADLINE
            return None
        return delay

    def _refuse(self, method: str, seen: Observation) -> Refusal | None:
        retry, outcome = self._retry, seen.outcome
        if seen.error is None:
            if not retry.is_retryable(seen):
                return Refusal.FINAL
        elif outcome in _FINAL:
            return Refusal.FINAL
        if (
            not outcome.is_unsent
            and retry.allowed_methods is not None
            and method not in retry.allowed_methods
        ):
            return Refusal.METHOD
        return None if self._count(seen) else Refusal.EXHAUSTED

    def _count(self, seen: Observation) -> bool:
        """Count an attempt against the limits; false when one of them is reached."""
        if self._total is not None:
            self._total -= 1
            if self._total < 0:
                return False
        if seen.error is None:
            if self._status is not None:
                self._status -= 1
                return self._status >= 0
        elif seen.outcome.is_unsent:
            if self._connect is not None:
                self._connect -= 1
                return self._connect >= 0
        elif self._read is not None:
            self._read -= 1
            return self._read >= 0
        return True


_LOST = frozenset({Outcome.LOST_BEFORE_SENT, Outcome.LOST_AFTER_SENT})
_FINAL = frozenset({Outcome.SUCCESS, Outcome.CLIENT_FAULT, Outcome.CANCELLED, Outcome.LOCAL})


class Retry(Policy):
    """When to send a request again.

    A request whose connection could not be made, or was lost before anything was sent, may be sent again
    whatever its method; one that the server may have acted on only with one of `allowed_methods`. The delay
    before the n-th retry is random between 0 and `backoff_factor * 2 ** (n - 1)` seconds, plus what the
    server asked for. The first retry after a lost connection is made at once.

    Args:
        total: retries of one request, of all kinds; None for as many as the other limits allow.
        connect: retries because no connection was made, or kept until something was sent; None for no
            limit of their own.
        read: retries because the connection was lost, or no answer came in time, after something was sent;
            likewise.
        status: retries because of the answer's status; likewise.
        allowed_methods: which may be sent again when the server may have acted on them; None for all.
        status_forcelist: statuses that are retried; None for what the classifier takes for throttled or
            overloaded (429, 503), and 502 and 504.
        backoff_factor: seconds, see above.
        backoff_jitter: seconds; random up to so many are added to each delay.
        backoff_max: seconds; the bound of all that, without what the server asked for.
        respect_retry_after_header: wait for as long as `Retry-After` says, in seconds or until a date, after
            a 413, 429 or 503; these are retried then, whatever `status_forcelist` says.
        retry_after_max: seconds; a server that asks for more is asked again after this.
        random: a number from 0 to 1, excluded, for the jitter.
        wall: seconds since the epoch, for dates.
        clock: used where no time is given.
        max_keys: origins whose figures are kept apart, see Keyed.

    Raises:
        ValueError: a number is negative or NaN, `allowed_methods` is a string, or retries have no bound.
    """

    name = "retry"
    metrics = (
        Metric("retries", "retries", "counter", "Requests that were sent again."),
        Metric("method", "refused_method", "counter", "Failed requests whose method is not sent again."),
        Metric(
            "exhausted", "refused_exhausted", "counter", "Failed requests that were sent as often as allowed."
        ),
        Metric(
            "deadline",
            "refused_deadline",
            "counter",
            "Failed requests with no time left for another attempt.",
        ),
        Metric("body", "refused_body", "counter", "Failed requests whose body cannot be sent again."),
        Metric(
            "budget", "refused_budget", "counter", "Failed requests that the retry budget refused to repeat."
        ),
    )

    def __init__(
        self,
        total: int | None = 3,
        *,
        connect: int | None = None,
        read: int | None = None,
        status: int | None = None,
        allowed_methods: Collection[str] | None = IDEMPOTENT_METHODS,
        status_forcelist: Collection[int] | None = None,
        backoff_factor: float = 0.2,
        backoff_jitter: float = 0.0,
        backoff_max: float = 30.0,
        respect_retry_after_header: bool = True,
        retry_after_max: float = 120.0,
        random: Callable[[], float] = random.random,
        wall: Clock = time.time,
        clock: Clock = Policy.clock,
        max_keys: int = MAX_KEYS,
    ) -> None:
        counts = {"total": total, "connect": connect, "read": read, "status": status}
        if total is None and None in (connect, read, status):
            raise ValueError("Without total, each of connect, read and status must be a number: retries end")
        seconds = {
            "backoff_factor": backoff_factor,
            "backoff_jitter": backoff_jitter,
            "backoff_max": backoff_max,
            "retry_after_max": retry_after_max,
        }
        for name, value in (counts | seconds).items():
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if isinstance(allowed_methods, str):
            raise ValueError(f"allowed_methods must be a collection of methods, got {allowed_methods!r}")
        self.total, self.connect, self.read, self.status = total, connect, read, status
        self.allowed_methods = None if allowed_methods is None else frozenset(map(str.upper, allowed_methods))
        self.status_forcelist = None if status_forcelist is None else frozenset(status_forcelist)
        self.backoff_factor, self.backoff_jitter = backoff_factor, backoff_jitter
        self.backoff_max, self.retry_after_max = backoff_max, retry_after_max
        self.respect_retry_after_header = respect_retry_after_header
        self._random, self._wall, self.clock = random, wall, clock
        self._tallies = Keyed(lambda key, now: _Tally(), self.metrics, max_keys)

    def begin(self) -> RetryState:
        """Return the state of a request that was not sent yet."""
        return RetryState(self)

    def is_retryable(self, seen: Observation) -> bool:
        """Whether an answer is one to ask again after; its method apart."""
        if seen.outcome is Outcome.SUCCESS and self.status_forcelist is None:
            return False  # whatever its status
        if self.status_forcelist is not None:
            is_listed = seen.status in self.status_forcelist
        else:
            is_listed = seen.outcome.is_pressure or seen.status in _GATEWAY_STATUSES
        return is_listed or (
            self.respect_retry_after_header
            and seen.status in RETRY_AFTER_STATUSES
            and retry_after(seen.headers, self._wall()) is not None
        )

    def delay(self, number: int, seen: Observation) -> float:
        """Seconds to wait before a retry.

        Args:
            number: which of the request it is, from 1.
            seen: the attempt before.
        """
        if number == 1 and seen.outcome in _LOST:
            # Mostly a connection that was idle and had ended; that says nothing about the server.
            return 0.0
        # 2 ** 1024 is no float any more.
        backoff = self._random() * min(self.backoff_max, self.backoff_factor * 2.0 ** min(number - 1, 1000))
        delay = min(self.backoff_max, backoff + self._random() * self.backoff_jitter)
        if self.respect_retry_after_header and seen.status in RETRY_AFTER_STATUSES:
            asked = retry_after(seen.headers, self._wall())
            if asked is not None:
                delay += min(asked, self.retry_after_max)
        return delay

    def note(self, key: Hashable, refusal: Refusal | None, now: float | None = None) -> None:
        """Count what was decided.

        Args:
            key: the origin.
            refusal: why the request is not sent again; None when it is.
            now: on the clock; None reads it.
        """
        if refusal is Refusal.FINAL:
            return
        tally = self._tallies.get(key, self.clock() if now is None else now)
        name = "retries" if refusal is None else refusal.value
        setattr(tally, name, getattr(tally, name) + 1)

    def stats(self) -> KeyedStats[RetryFigures]:
        """The retries of each origin."""
        return self._tallies.stats(self._figures)

    @staticmethod
    def _figures(tally: _Tally) -> RetryFigures:
        return RetryFigures(
            tally.retries, tally.method, tally.exhausted, tally.deadline, tally.body, tally.budget
        )
