"""Policies composed: a middleware of a session that waits, sends and sends again as they decide.

The order, from the outside in:

1. `retry` decides about each request; every further attempt passes all that follows anew.
2. `hedge` sends a second attempt beside one that is late; it passes all that follows, too.
3. `breaker` is asked whether there is a chance, so that nobody waits in a queue for an open circuit.
4. `bulkhead`, then `adaptive`: a place among the attempts under way, held until the response's connection is
   free.
5. `rate`: the instant at which to send; after the places, so that who waits for a place has no instant yet.
6. `breaker` has the last word before sending: the circuit may have opened meanwhile.

Nothing is held while a retry waits. It must not decide anything that a policy can decide.
"""

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aiohttp import (
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    hdrs,
)
from aiohttp.helpers import TimerNoop
from aiohttp.payload import BytesPayload

from .._switch import NATIVE
from ..turns import take_turns
from . import second_try
from .budget import BudgetFigures, RetryBudget
from .classify import Classifier
from .gates import QUEUED, Clock, Gate, KeyOf, Metric, Permit, Policy
from .hedge import Hedge, HedgeFigures
from .keyed import Keyed, KeyedStats
from .outcome import Observation, Outcome
from .passage import Passage, per_origin
from .race import Race
from .retry import Refusal, Retry, RetryFigures, RetryRecord

Sleep = Callable[[float], Awaitable[object]]

if TYPE_CHECKING or NATIVE:
    from .._core.policed import Plan

_RESOLUTION = 0.001
"""Seconds; uvloop's timers know milliseconds, and would be asked again and again for less."""


@dataclass(frozen=True)
class PoliciesStats:
    """A snapshot of Policies; what they do not have is None.

    Attributes:
        attempts: attempts by key and outcome; those that a policy refused are LOCAL.
        forgotten: attempts by outcome, of keys that are not kept any more.
    """

    attempts: Mapping[Hashable, Mapping[Outcome, int]]
    forgotten: Mapping[Outcome, int]
    retry: KeyedStats[RetryFigures] | None = None
    budget: KeyedStats[BudgetFigures] | None = None
    hedge: KeyedStats[HedgeFigures] | None = None
    bulkhead: Any = None
    adaptive: Any = None
    rate: Any = None
    breaker: Any = None


class _Tally:
    """The attempts of one key, by outcome."""

    __slots__ = ("counts",)

    def __init__(self, key: Hashable, now: float) -> None:
        self.counts = [0] * len(Outcome)

    def __getattr__(self, name: str) -> int:
        """How many came to an outcome, by its name: what is summed when the key is forgotten."""
        return self.counts[Outcome[name.upper()]]

    def is_idle(self, now: float) -> bool:
        return True


_OUTCOMES = tuple(Metric(outcome.name.lower(), "attempts", "counter", outcome.name) for outcome in Outcome)


class _Attempt(Passage):
    """A passage on an event loop."""

    __slots__ = ("clock", "sent_at", "waiter", "waits_for")

    def __init__(self, policies: "Policies", request: ClientRequest, key: Hashable) -> None:
        super().__init__(policies._gates, request, key)
        self.clock = policies._clock
        self.sent_at: float | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.waits_for: Permit | None = None  # where the core has begun, and could not go on

    def wake(self, permit: Permit) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def end(self) -> None:
        """The connection of the response is free."""
        self.release(self.clock())


def _has_passed(timer: Any) -> bool:
    """Whether the total time of a request is over, by its timer: the core's, or aiohttp's."""
    return bool(getattr(timer, "has_passed", False) or getattr(timer, "_cancelled", False))


def _is_copiable(request: Any) -> bool:
    """Whether two attempts at a request may be under way at once."""
    return (
        (not request.body or isinstance(request.body, BytesPayload))
        and request._upload_tracker is None
        and request._continue is None
        and hdrs.UPGRADE not in request.headers
    )


class _Beside(TimerNoop):
    """The timer of an attempt in a task of its own.

    aiohttp's takes whoever leaves it for the task that has entered last, and a timeout for somebody's wish to
    cancel; it does for the first attempt, and whoever ends with that is let go.
    """

    def __init__(self, timer: Any) -> None:
        self._timer = timer

    @property
    def _cancelled(self) -> bool:
        return _has_passed(self._timer)


def _copied(request: ClientRequest) -> ClientRequest:
    """A request that can be sent beside the one it is copied from."""
    copied = copy.copy(request)
    copied.headers = request.headers.copy()
    # The task that sends the other one's body.
    vars(copied).pop("_ClientRequest__writer", None)
    if not second_try.is_asked(request):
        copied._timer = _Beside(request._timer)
    return copied


def _is_good(outcome: Outcome) -> bool:
    """Whether an answer is worth giving up others for, and its latency worth knowing."""
    return not outcome.is_failure and not outcome.is_pressure


def _record(request: ClientRequest, seen: Observation, delay: float) -> RetryRecord:
    # Its traceback would keep the frames of the whole request.
    error = None if seen.error is None else seen.error.with_traceback(None)
    return RetryRecord(
        request.method, str(request.url), seen.outcome, seen.status, error, seen.latency, delay
    )


_GOOD = tuple(map(_is_good, Outcome))


class Policies:
    """Several policies as one middleware: `ClientSession(middlewares=[Policies(retry=Retry(), ...)])`.

    Sessions of one event loop may share it. A request must not pass the same policy twice.

    Args:
        retry: which requests to send again.
        hedge: which requests to send twice.
        breaker: a CircuitBreaker.
        bulkhead: a Bulkhead.
        adaptive: an AdaptiveConcurrency.
        rate: a RateLimit.
        budget: for all that sends again: `retry`, `hedge`, and the session's own second try on a connection
            that was dead. None makes one where there is `retry` or `hedge`.
        classifier: says what each attempt came to.
        key: what requests are kept apart by, from the request; a gate may have a key of its own.
        clock: of all decisions.
        sleep: waits so many seconds.

    Raises:
        TypeError: a policy is at another's place.
    """

    def __init__(
        self,
        *,
        retry: Retry | None = None,
        hedge: Hedge | None = None,
        breaker: Gate | None = None,
        bulkhead: Gate | None = None,
        adaptive: Gate | None = None,
        rate: Gate | None = None,
        budget: RetryBudget | None = None,
        classifier: Classifier | None = None,
        key: KeyOf = per_origin,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        if budget is None and (retry is not None or hedge is not None):
            budget = RetryBudget(clock=clock)
        places: dict[str, Policy | None] = {
            "retry": retry, "budget": budget, "hedge": hedge,
            "bulkhead": bulkhead, "adaptive": adaptive, "rate": rate, "breaker": breaker,
        }  # fmt: skip
        for name, policy in places.items():
            if policy is not None and getattr(policy, "name", None) != name:
                raise TypeError(f"{name}: expected a policy of that kind, got {policy!r}")
        self.retry, self.hedge, self.budget = retry, hedge, budget
        self.parts = tuple(policy for policy in places.values() if policy is not None)
        self._gates = tuple(part for part in self.parts if isinstance(part, Gate))
        # Those that may know that there is no chance; the first is asked for leave at once anyway.
        self._lookers = tuple(gate for gate in self._gates[1:] if type(gate).look is not Gate.look)
        self._classifier = classifier or Classifier()
        self._key, self._clock, self._sleep = key, clock, sleep
        self._tallies: Keyed[_Tally] = Keyed(_Tally, _OUTCOMES)
        self._plan: Plan | None = None
        if NATIVE:
            self._plan = Plan(
                self,
                Policies,
                second_try.ENDED,
                Observation,
                self._tallies.get,
                _is_copiable,
                _GOOD,
                per_origin,
            )

    # A request

    def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> Awaitable[ClientResponse]:
        """Send a request as the policies have it: what a session calls of a middleware.

        Raises, when awaited:
            PolicyError: a policy refuses it.
            What sending raises; it has `retry_history`, as the response has.
        """
        if self.retry is not None and (body := request.body):
            take_turns(body)  # a session of aiohttp's does not
        if self._plan is not None:
            return self._plan(request, handler)
        return self._perform(request, handler)

    async def _perform(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request, in Python from start to end."""
        is_second_try = second_try.is_second_try(self, request)
        key = self._key(request)
        if self.budget is not None and not is_second_try:
            self.budget.deposit(key, self._clock())
        return await self._go_on(_Attempt(self, request, key), handler)

    async def _go_on(
        self,
        attempt: "_Attempt",
        handler: ClientHandlerType,
        resp: ClientResponse | None = None,
        error: BaseException | None = None,
    ) -> ClientResponse:
        """Send a request until the retry policy is content.

        Args:
            attempt: at it; is made here where neither `resp` nor `error` tells what it has come to.
            handler: sends.
            resp: the response.
            error: what it has raised.
        """
        retry, state = self.retry, None
        history: tuple[RetryRecord, ...] = ()
        while True:
            seen = delay = None
            try:
                if resp is None and error is None:
                    try:
                        resp = await self._send(attempt, handler)
                    except Exception as exc:
                        error = exc
                elif error is not None and not isinstance(error, Exception):
                    raise error
                seen = attempt.seen
                if retry is not None and seen is not None and (error is not None or retry.is_retryable(seen)):
                    state = state or retry.begin()
                    delay = state.next(attempt.request.method, seen, self._deadline(attempt.request, seen.at))
                    delay = await self._settle(retry, attempt, resp, delay, state.refusal)
                if delay is None:
                    return self._told(attempt.request, resp, error, history)
                assert seen is not None
                history = (*history, _record(attempt.request, seen, delay))
            except BaseException:
                if resp is not None:
                    resp.close()  # a policy has raised what it must not
                raise
            finally:
                # What was raised holds this frame, and the attempt's.
                resp = error = seen = attempt.seen = None
            await self._sleep(delay)
            attempt = _Attempt(self, attempt.request, attempt.key)

    def _told(
        self,
        request: ClientRequest,
        resp: ClientResponse | None,
        error: BaseException | None,
        history: tuple[RetryRecord, ...],
    ) -> ClientResponse:
        """What the caller gets, with the attempts before it."""
        try:
            if error is not None:
                error.retry_history = history  # type: ignore[attr-defined]
                second_try.expect(self, request, error)
                raise error
            assert resp is not None
            if history or not hasattr(resp, "retry_history"):
                resp.retry_history = history  # type: ignore[attr-defined]
            return resp
        finally:
            del error

    async def _settle(
        self,
        retry: Retry,
        attempt: "_Attempt",
        resp: ClientResponse | None,
        delay: float | None,
        refusal: Refusal | None,
    ) -> float | None:
        """Make ready for another attempt: pay for it, and let go of the last one.

        Returns:
            `delay`; None where the request is not to be sent again.
        """
        request, key = attempt.request, attempt.key
        body: Any = request.body
        now = self._clock()
        if delay is not None:
            assert self.budget is not None
            if body and body.consumed:
                refusal = Refusal.BODY
            elif not self.budget.withdraw(key, now):
                refusal = Refusal.BUDGET
        retry.note(key, refusal, now)
        if refusal is not None:
            return None
        if resp is not None:
            resp.release()
        if body:
            # Two uploads must not read one body; what a thread reads yet, see `take_turns`.
            await request.close()
        if request._continue is not None:
            # What the last upload waited for was answered, or cancelled with it.
            request.update_expect_continue()
        return delay

    def _deadline(self, request: ClientRequest, now: float) -> float | None:
        """When the total time of a request ends, on the policies' clock; None where nobody tells."""
        deadline = getattr(request._timer, "deadline", None)
        return None if deadline is None else now + deadline - request.loop.time()

    # Attempts

    def _send(self, attempt: "_Attempt", handler: ClientHandlerType) -> Awaitable[ClientResponse]:
        """Send a request once, or a second time beside that."""
        if self.hedge is not None and _is_copiable(attempt.request):
            delay = self.hedge.delay(attempt.key, attempt.request.method, self._clock())
            return _Hedged(self, self.hedge, delay, attempt, handler).run(self._make(attempt, handler))
        return self._make(attempt, handler)

    async def _make(self, attempt: "_Attempt", handler: ClientHandlerType) -> ClientResponse:
        """Make an attempt: through the gates, up to the head of the response."""
        resp = None
        try:
            now = self._clock()
            if self._gates:
                permit = attempt.waits_for
                if permit is None:
                    for gate in self._lookers:
                        attempt.look(gate, now)
                    permit = attempt.advance(now)
                if permit is not None:
                    now = await self._pass(attempt, permit)
            attempt.sent_at = now
            resp = await handler(attempt.request)
            at = self._clock()
            self._observe(
                attempt, Observation(self._classifier.of_response(resp), at - now, at, resp.status, resp)
            )
        except BaseException as exc:
            if resp is not None:
                resp.close()
            self._give_up(attempt, exc)
            raise
        if self._gates:
            connection = resp.connection
            if connection is None:
                attempt.release(at)
            else:
                connection.add_callback(attempt.end)
        return resp

    async def _pass(self, attempt: "_Attempt", permit: Permit | None) -> float:
        """Wait for the gates, from the first that holds an attempt up, and return when they were passed."""
        now = 0.0
        while permit is not None:
            while permit.ready_at == QUEUED:
                attempt.waiter = asyncio.get_running_loop().create_future()
                await attempt.waiter
            # A server may have asked for a pause meanwhile; and timers of event loops may be early.
            while (left := permit.ready_at - self._clock()) > 0:
                await self._sleep(max(left, _RESOLUTION))
            now = self._clock()
            permit = attempt.advance(now)
        return now

    def _give_up(self, attempt: "_Attempt", exc: BaseException) -> None:
        """Note what an attempt has raised, and give back what it was granted."""
        try:
            self._fail(attempt, exc)
        finally:
            attempt.release(self._clock())

    def _fail(self, attempt: "_Attempt", exc: BaseException) -> None:
        if attempt.seen is None:
            at = self._clock()
            outcome = self._classifier.of_error(exc)
            timer = attempt.request._timer
            if outcome is Outcome.CANCELLED and attempt.sent_at is not None and _has_passed(timer):
                # The total time of the request cancels whoever works for it.
                outcome = Outcome.TIMED_OUT
            sent_at = at if attempt.sent_at is None else attempt.sent_at
            self._observe(attempt, Observation(outcome, at - sent_at, at, error=exc))

    def _observe(self, attempt: "_Attempt", seen: Observation) -> None:
        if attempt.sent_at is None:
            attempt.seen = seen  # it was not made: gates that are told nothing give back what was reserved
        else:
            attempt.observe(seen)
        self._tallies.get(attempt.key, seen.at).counts[seen.outcome] += 1

    # What the core leaves to Python

    def _taken_over(
        self,
        request: ClientRequest,
        key: Hashable,
        permits: list[Permit],
        sent_at: float | None,
    ) -> "_Attempt":
        """An attempt that the core has begun."""
        attempt = _Attempt(self, request, key)
        attempt._permits = permits
        attempt.sent_at = sent_at
        return attempt

    def _new_race(self, attempt: "_Attempt", handler: ClientHandlerType, delay: float) -> "_Hedged":
        """The race of an attempt that is late."""
        assert self.hedge is not None
        return _Hedged(self, self.hedge, delay, attempt, handler)

    async def _take_over(
        self,
        attempt: "_Attempt",
        handler: ClientHandlerType,
        resp: ClientResponse | None,
        error: BaseException | None,
        raced: "_Hedged | None",
    ) -> ClientResponse:
        """Go on from what an attempt of the core's has come to."""
        try:
            if error is not None:
                self._give_up(attempt, error)
            if raced is not None:
                try:
                    resp, error = await raced.finish(resp, error), None
                except Exception as exc:
                    resp, error = None, exc
            return await self._go_on(attempt, handler, resp, error)
        finally:
            del resp, error
            attempt.seen = None

    # The second try of the session

    def may_send_again(self, request: ClientRequest) -> bool:
        """Whether a session may send a request again that has ended with a lost connection.

        It may not where there is a retry policy, which has decided already; else the budget pays for it.
        """
        if self.retry is not None:
            return False
        if self.budget is not None and not self.budget.withdraw(self._key(request), self._clock()):
            return False
        if second_try.is_asked(request):
            second_try.expect(self, request, None)
        return True

    # Figures

    def stats(self) -> PoliciesStats:
        """A snapshot of all that the policies know; from any thread."""
        attempts = {key: _by_outcome(tally.counts) for key, tally in self._tallies.items()}
        found: dict[str, Any] = {part.name: part.stats() for part in self.parts}
        forgotten = _by_outcome([int(count) for count in self._tallies.forgotten.values()])
        return PoliciesStats(MappingProxyType(attempts), forgotten, **found)


def _by_outcome(counts: list[int]) -> Mapping[Outcome, int]:
    return MappingProxyType({outcome: count for outcome, count in zip(Outcome, counts, strict=True) if count})


class _Hedged(Race):
    """The attempts at a hedged request."""

    __slots__ = ("_first", "_handler", "_hedge", "_last", "_policies", "others")

    def __init__(
        self,
        policies: Policies,
        hedge: Hedge,
        delay: float | None,
        first: _Attempt,
        handler: ClientHandlerType,
    ) -> None:
        super().__init__(delay, hedge.max_hedges)
        self._policies, self._hedge = policies, hedge
        self._first = self._last = first
        self._handler = handler
        self.others: list[_Attempt] = []

    def due(self) -> float:
        assert self._delay is not None
        sent_at = self._last.sent_at
        if sent_at is None:
            # The time in queues does not count: another attempt would wait there, too.
            return max(self._delay, _RESOLUTION)
        return sent_at + self._delay - self._policies._clock()

    def another(self) -> Coroutine[Any, Any, ClientResponse] | None:
        policies, key = self._policies, self._first.key
        assert policies.budget is not None
        if not policies.budget.withdraw(key, policies._clock()):
            self._hedge.denied(key)
            return None
        self._hedge.launched(key)
        self._last = _Attempt(policies, _copied(self._first.request), key)
        self.others.append(self._last)
        return self._make(self._last)

    async def _make(self, attempt: _Attempt) -> ClientResponse:
        try:
            return await self._policies._make(attempt, self._handler)
        except BaseException:
            attempt.seen = None  # what was raised holds the frames that hold the attempt
            raise

    def will_do(self, resp: ClientResponse) -> bool:
        return _is_good(self._policies._classifier.of_response(resp))

    def on_end(self, number: int) -> None:
        first, hedge = self._first, self._hedge
        if number:
            now = self._policies._clock()
            hedge.won(first.key)
            assert first.sent_at is not None
            # What the first attempt would have taken at least, see Hedge.
            hedge.record(first.key, now - first.sent_at, now)
            first.seen = self.others[number - 1].seen
        elif (seen := first.seen) is not None and _is_good(seen.outcome):
            hedge.record(first.key, seen.latency, seen.at)

    def is_over(self) -> bool:
        return _has_passed(self._first.request._timer)


Policy.compose = Policies
