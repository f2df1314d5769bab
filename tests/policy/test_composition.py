"""Policies composed, over real sockets: the order of the gates, what they are told, and what is left over."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import contextlib
import gc
import types
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import aiohttp
import pytest
from support.checks import eventually

from wirespeed.policy import (
    QUEUED,
    Bulkhead,
    Classifier,
    Gate,
    Hedge,
    Observation,
    Outcome,
    Permit,
    Policies,
    PolicyError,
    Retry,
)

from .sockets import (
    Action,
    Sessions,
    Time,
    acting,
    after,
    clean,
    close_now,
    get,
    not_http,
    ok,
    reset_now,
    stall,
    status,
)

SHORT = aiohttp.ClientTimeout(total=10, sock_read=0.2)
PLACES = ("bulkhead", "adaptive", "rate", "breaker")


class Refused(PolicyError):
    pass


class Noted(Permit):
    __slots__ = ("gate", "is_released")

    def __init__(self, gate: "Noting", ready_at: float) -> None:
        self.gate, self.ready_at, self.is_released = gate, ready_at, False

    def observe(self, seen: Observation) -> None:
        assert not self.is_released
        self.gate.seen.append(seen)
        self.gate.log.append((self.gate.name, "observe"))

    def release(self, now: float) -> None:
        if not self.is_released:
            self.is_released = True
            self.gate.log.append((self.gate.name, "release"))


class Noting(Gate):
    """A gate that writes down what it is asked and told.

    Args:
        name: its place.
        log: shared by all of them.
        delay: seconds that each attempt waits.
        refuses: which of the attempts, by number, it refuses.
        looks: which of them it refuses to look at.
    """

    metrics = ()

    def __init__(
        self,
        name: str,
        log: list[tuple[str, str]],
        *,
        delay: float = 0.0,
        refuses: Callable[[int], bool] = lambda number: False,
        looks: Callable[[int], bool] = lambda number: False,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.log, self.delay, self.refuses, self.looks = log, delay, refuses, looks
        self.count = self.look_count = 0
        self.seen: list[Observation] = []
        self.keys: list[Hashable] = []

    def look(self, key: Hashable, now: float | None = None) -> None:
        self.look_count += 1
        self.log.append((self.name, "look"))
        if self.looks(self.look_count):
            raise Refused(self.name)

    def acquire(
        self, key: Hashable, *, weight: float = 1.0, now: float | None = None, wake: Any = None
    ) -> Noted:
        assert now is not None
        self.count += 1
        self.keys.append(key)
        self.log.append((self.name, "acquire"))
        if self.refuses(self.count):
            raise Refused(self.name)
        return Noted(self, now + self.delay)

    def stats(self) -> Any:
        return types.SimpleNamespace(by_key={})


def gates(log: list[tuple[str, str]], **options: dict[str, Any]) -> dict[str, Noting]:
    return {name: Noting(name, log, **options.get(name, {})) for name in PLACES}


def done(log: list[tuple[str, str]], what: str) -> list[str]:
    return [name for name, did in log if did == what]


async def test_gates_are_passed_in_the_documented_order(kind: Sessions) -> None:
    log: list[tuple[str, str]] = []
    noting = gates(log)
    async with acting() as server, clean(kind, policies=Policies(**noting)) as session:
        assert await get(session, server.url()) == b"ok"
        assert done(log, "acquire") == ["bulkhead", "adaptive", "rate", "breaker"]
        assert sorted(done(log, "observe")) == sorted(done(log, "release")) == sorted(PLACES)
        # Whoever may know that there is no chance is asked before anything is held.
        assert log.index(("breaker", "look")) < log.index(("bulkhead", "acquire"))
        assert {gate.seen[0].outcome for gate in noting.values()} == {Outcome.SUCCESS}
        assert {key for gate in noting.values() for key in gate.keys} == {server.url()[:-1]}


@pytest.mark.parametrize("place", PLACES)
async def test_what_a_gate_refuses_was_not_sent_and_everything_is_given_back(
    kind: Sessions, place: str
) -> None:
    log: list[tuple[str, str]] = []
    noting = gates(log, **{place: {"refuses": lambda number: True}})
    time = Time()
    policies = Policies(**noting, retry=Retry(3), hedge=Hedge(delay=0.0), clock=time, sleep=time.sleep)
    async with acting() as server, clean(kind, policies=policies) as session:
        with pytest.raises(Refused) as caught:
            await session.get(server.url())
        assert caught.value.retry_history == ()  # type: ignore[attr-defined]
        assert server.exchanges == []
        assert time.slept == []
        assert done(log, "acquire") == list(PLACES[: PLACES.index(place) + 1])
        assert sorted(done(log, "release")) == sorted(PLACES[: PLACES.index(place)])
        # What was refused here says nothing about the server.
        assert not any(seen.outcome.is_verdict for gate in noting.values() for seen in gate.seen)
        assert not any(seen.outcome.is_failure for gate in noting.values() for seen in gate.seen)
        (attempts,) = policies.stats().attempts.values()
        assert dict(attempts) == {Outcome.LOCAL: 1}


async def test_an_open_circuit_refuses_before_anything_is_waited_for(kind: Sessions) -> None:
    log: list[tuple[str, str]] = []
    noting = gates(log, breaker={"looks": lambda number: True})
    async with acting() as server, clean(kind, policies=Policies(**noting)) as session:
        with pytest.raises(Refused):
            await session.get(server.url())
        assert done(log, "acquire") == []
        assert server.exchanges == []


async def test_gates_are_waited_for_one_after_the_other(kind: Sessions) -> None:
    log: list[tuple[str, str]] = []
    time = Time()
    noting = gates(log, adaptive={"delay": 2.0}, rate={"delay": 3.0})
    policies = Policies(**noting, clock=time, sleep=time.sleep)
    async with acting() as server, clean(kind, policies=policies) as session:
        assert await get(session, server.url()) == b"ok"
        assert time.slept == pytest.approx([2.0, 3.0], abs=0.01)
        # What it waited for is no part of the latency.
        assert all(gate.seen[0].latency < 1 for gate in noting.values())


async def test_each_retry_passes_all_gates_anew(kind: Sessions) -> None:
    log: list[tuple[str, str]] = []
    noting = gates(log, rate={"refuses": lambda number: number == 3})
    time = Time()
    policies = Policies(**noting, retry=Retry(9), clock=time, sleep=time.sleep)
    async with acting(then=status(503)) as server, clean(kind, policies=policies) as session:
        # The third attempt is refused: that ends it, and says what came before.
        with pytest.raises(Refused) as caught:
            await session.get(server.url())
        assert [record.status for record in caught.value.retry_history] == [503, 503]  # type: ignore[attr-defined]
        assert len(server.exchanges) == 2
        assert done(log, "acquire") == [*PLACES, *PLACES, "bulkhead", "adaptive", "rate"]
        assert len(done(log, "release")) == 10
        assert [seen.outcome for seen in noting["breaker"].seen] == [Outcome.OVERLOADED] * 2


SEEN: dict[str, tuple[Action, Outcome]] = {
    "200": (ok, Outcome.SUCCESS),
    "404": (status(404), Outcome.CLIENT_FAULT),
    "429": (status(429), Outcome.THROTTLED),
    "500": (status(500), Outcome.SERVER_FAULT),
    "503": (status(503), Outcome.OVERLOADED),
    "reset": (reset_now, Outcome.LOST_AFTER_SENT),
    "closed": (close_now, Outcome.LOST_AFTER_SENT),
    "not HTTP": (not_http, Outcome.SERVER_FAULT),
    "stall": (stall, Outcome.TIMED_OUT),
}


@pytest.mark.parametrize(("action", "outcome"), SEEN.values(), ids=SEEN)
async def test_gates_are_told_what_came_of_it(kind: Sessions, action: Action, outcome: Outcome) -> None:
    gate = Noting("breaker", [])
    policies = Policies(breaker=gate)
    async with acting(then=action) as server, clean(kind, policies=policies, timeout=SHORT) as session:
        try:
            # POST: the session does not send it a second time.
            async with session.post(server.url(), data=b"x") as resp:
                number: int | None = resp.status
        except (aiohttp.ClientError, asyncio.TimeoutError):
            number = None
        (seen,) = gate.seen
        assert (seen.outcome, seen.status) == (outcome, number)
        assert (seen.error is None) == (number is not None)


async def test_gates_are_told_of_connections_that_cannot_be_made(kind: Sessions, unused_port: int) -> None:
    gate = Noting("breaker", [])
    async with clean(kind, policies=Policies(breaker=gate)) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{unused_port}/")
        assert [seen.outcome for seen in gate.seen] == [Outcome.NOT_CONNECTED]


async def test_who_gives_up_says_nothing_about_the_server(kind: Sessions) -> None:
    gate = Noting("breaker", [])
    async with acting(then=stall) as server, clean(kind, policies=Policies(breaker=gate)) as session:
        task = asyncio.ensure_future(session.get(server.url()))
        await eventually(lambda: server.held, "request at the server")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [seen.outcome for seen in gate.seen] == [Outcome.CANCELLED]


async def test_the_total_time_that_passes_does(kind: Sessions) -> None:
    gate = Noting("breaker", [])
    timeout = aiohttp.ClientTimeout(total=0.05)
    async with acting(then=stall) as server:
        async with clean(kind, policies=Policies(breaker=gate), timeout=timeout) as session:
            with pytest.raises(asyncio.TimeoutError):
                await session.get(server.url())
            assert [seen.outcome for seen in gate.seen] == [Outcome.TIMED_OUT]


async def test_one_classifier_decides_for_all(kind: Sessions) -> None:
    gate = Noting("breaker", [])
    classifier = Classifier({404: Outcome.OVERLOADED})
    time = Time()
    policies = Policies(retry=Retry(1), breaker=gate, classifier=classifier, clock=time, sleep=time.sleep)
    async with acting(then=status(404)) as server, clean(kind, policies=policies) as session:
        async with session.get(server.url()) as resp:
            assert [record.outcome for record in resp.retry_history] == [Outcome.OVERLOADED]
        assert [seen.outcome for seen in gate.seen] == [Outcome.OVERLOADED] * 2


async def test_a_permit_that_waits_for_ever_is_given_back_when_the_time_passes(kind: Sessions) -> None:
    log: list[tuple[str, str]] = []
    gate = Noting("rate", log, delay=QUEUED)
    async with acting() as server:
        timeout = aiohttp.ClientTimeout(total=0.05)
        async with clean(kind, policies=Policies(rate=gate), timeout=timeout) as session:
            with pytest.raises(asyncio.TimeoutError):
                await session.get(server.url())
            assert log == [("rate", "acquire"), ("rate", "observe"), ("rate", "release")] or log[-1] == (
                "rate",
                "release",
            )
            assert not any(seen.outcome.is_verdict for seen in gate.seen)
            assert server.exchanges == []


async def test_a_gate_that_breaks_leaks_nothing(kind: Sessions) -> None:
    class Broken(Noting):
        def acquire(self, key: Hashable, **kwargs: Any) -> Noted:
            raise ZeroDivisionError

    bulkhead = Bulkhead(1)
    policies = Policies(bulkhead=bulkhead, rate=Broken("rate", []))
    async with acting() as server, clean(kind, policies=policies) as session:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await session.get(server.url())
        assert server.exchanges == []


async def test_responses_say_that_nothing_was_retried(kind: Sessions) -> None:
    async with acting() as server, clean(kind, policies=Policies(retry=Retry())) as session:
        async with session.get(server.url()) as resp:
            assert resp.retry_history == ()


# What is left over


KEPT = (aiohttp.ClientResponse, aiohttp.ClientRequest, BaseException, types.FrameType, types.CoroutineType)


def garbage(found: list[Any]) -> Counter[str]:
    kept = [
        each
        for each in found
        if isinstance(each, KEPT) or type(each).__module__.startswith("wirespeed.policy")
    ]
    return Counter(type(each).__name__ for each in kept)


async def left_over(kind: Sessions, middlewares: tuple[Any, ...], action: Action) -> Counter[str]:
    """What requests leave to the collector of cycles."""
    async with acting(then=action) as server:
        async with clean(kind, *middlewares, timeout=SHORT) as session:

            async def one() -> None:
                with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                    await get(session, server.url())

            await one()
            gc.collect()
            gc.disable()
            try:
                for _ in range(3):
                    await one()
                await asyncio.sleep(0.03)
                server.exchanges.clear()
                server.held.clear()
                gc.set_debug(gc.DEBUG_SAVEALL)
                gc.collect()
                return garbage(gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()


@pytest.mark.parametrize("action", [ok, status(503), reset_now, close_now, not_http, stall, after(0.02, ok)])
async def test_policies_leave_nothing_to_the_collector(kind: Sessions, action: Action) -> None:
    async def nothing(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        return await handler(req)

    policies = Policies(retry=Retry(2, backoff_factor=0.0), hedge=Hedge(delay=0.01), bulkhead=Bulkhead(5))
    bare = await left_over(kind, (nothing,), action)
    found = await left_over(kind, (policies,), action)
    # What aiohttp leaves in cycles of its own holds whatever has called it.
    assert bare or not found, found
