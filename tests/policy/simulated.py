"""What the tests of policies without sockets share: requests, responses, gates that do as they are told, and
a time that passes only while everybody waits.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from aiohttp import ClientConnectorError, ClientRequest, ServerDisconnectedError
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict
from yarl import URL

from wirespeed.policy import QUEUED, Gate, Metric, Observation, Outcome, Permit, Policies, Retry
from wirespeed.policy.gates import Wake

from .conftest import FakeClock

ROUNDS = 50
"""Turns of the event loop after which nothing moves any more that does not wait for the time."""
KEY = "http://a.example"
CONNECTION_KEY = ConnectionKey("a.example", 80, False, True, None, None, None, None)
ORDER = ("bulkhead", "adaptive", "rate", "breaker")


async def settle(rounds: int = ROUNDS) -> None:
    """Let all tasks run until each waits for something."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class Time(FakeClock):
    """A clock, and the sleep that belongs to it: the time stands still while anybody has something to do."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, len(self.slept), sleeper))
        await sleeper

    async def run(self, *todo: Awaitable[Any]) -> list[Any]:
        """Do all that, and return what came of it: results and exceptions."""
        done = asyncio.ensure_future(asyncio.gather(*todo, return_exceptions=True))
        while True:
            await settle()
            if done.done():
                return done.result()
            assert self._sleepers, "everybody waits, and nobody for the time"
            at, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                self.now = max(self.now, at)
                sleeper.set_result(None)

    async def one(self, todo: Awaitable[Any]) -> Any:
        """Do it, and return its result, or raise its error."""
        (came,) = await self.run(todo)
        if isinstance(came, BaseException):
            raise came
        return came


class Connection:
    """Of a response: whoever holds something for as long, is told when it is free."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []

    def add_callback(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def free(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Response:
    """A response whose body was not read yet; with `is_read` it was, and there is no connection any more."""

    def __init__(self, status: int = 200, is_read: bool = False, **headers: str) -> None:
        self.status = status
        self.headers = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
        self.connection = None if is_read else Connection()
        self.ends: list[str] = []

    def release(self) -> None:
        self._end("released")

    def close(self) -> None:
        self._end("closed")

    def _end(self, how: str) -> None:
        self.ends.append(how)
        if self.connection is not None:
            self.connection.free()

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.ends}>"


def request(method: str = "GET", url: str = "http://a.example/", **options: Any) -> ClientRequest:
    return ClientRequest(method, URL(url), loop=asyncio.get_running_loop(), **options)


class Server:
    """Answers with what it was given, in turn, and with the last of that for ever: a response, a status, an
    exception to raise, or a function of the request that makes one of these.
    """

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.requests: list[ClientRequest] = []
        self.responses: list[Response] = []

    async def __call__(self, request: ClientRequest) -> Any:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Response | BaseException | int):
            return self._give(answer)
        answer = answer(request)
        return self._give(await answer if isinstance(answer, Awaitable) else answer)

    def _give(self, answer: Any) -> Response:
        if isinstance(answer, BaseException):
            raise answer
        resp = Response(answer) if isinstance(answer, int) else answer
        self.responses.append(resp)
        return resp


class ScriptedPermit(Permit):
    __slots__ = ("gate", "key", "wake", "weight")

    def __init__(self, gate: "ScriptedGate", key: Hashable, weight: float, wake: Wake | None) -> None:
        self.gate, self.key, self.weight, self.wake = gate, key, weight, wake
        self.ready_at = 0.0

    def observe(self, seen: Observation) -> None:
        self.gate.note("observe", seen)

    def release(self, now: float) -> None:
        if self in self.gate.held:
            self.gate.held.remove(self)
        self.gate.released_at.append(now)
        self.gate.note("release", now)


class ScriptedGate(Gate):
    """Notes what it is asked; grants at once, after `waits` seconds, or queues; raises where it is told to.

    Attributes:
        log: what was called, as (name of the gate, call, argument); gates may share it.
        held: permits that were not given back.
        failures: what to raise, by call.
    """

    name = "rate"
    metrics: tuple[Metric, ...] = ()

    def __init__(self, name: str = "rate", log: list[tuple[str, str, Any]] | None = None) -> None:
        self.name = name  # type: ignore[misc]
        self.log: list[tuple[str, str, Any]] = [] if log is None else log
        self.held: list[ScriptedPermit] = []
        self.released_at: list[float] = []
        self.waits = 0.0
        self.failures: dict[str, BaseException] = {}

    def note(self, call: str, argument: Any) -> None:
        self.log.append((self.name, call, argument))
        if (failure := self.failures.get(call)) is not None:
            raise failure

    def look(self, key: Hashable, now: float | None = None) -> None:
        self.note("look", (key, now))

    def acquire(
        self, key: Hashable, *, weight: float = 1.0, now: float | None = None, wake: Wake | None = None
    ) -> ScriptedPermit:
        self.note("acquire", (key, weight, now))
        assert now is not None
        permit = ScriptedPermit(self, key, weight, wake)
        permit.ready_at = QUEUED if self.waits == QUEUED else now + self.waits
        self.held.append(permit)
        return permit

    def grant(self, number: int, now: float) -> None:
        """Let a permit that was queued hold."""
        permit = self.held[number]
        permit.ready_at = now
        assert permit.wake is not None
        permit.wake(permit)

    def calls(self) -> list[tuple[str, str]]:
        return [(name, call) for name, call, _ in self.log]

    def arguments(self, call: str) -> list[Any]:
        return [argument for name, made, argument in self.log if (name, made) == (self.name, call)]

    def stats(self) -> str:
        return f"of {self.name}"


# Policies of all that


def lost() -> ServerDisconnectedError:
    return ServerDisconnectedError()


def refused() -> ClientConnectorError:
    return ClientConnectorError(CONNECTION_KEY, OSError(111, "refused"))


def policies(clock: Time, **parts: Any) -> Policies:
    return Policies(clock=clock, sleep=clock.sleep, **parts)


def retry(total: int = 3, **options: Any) -> Retry:
    """One whose delays are 1, 2, 4... seconds."""
    return Retry(total, random=lambda: 1.0, **{"backoff_factor": 1.0} | options)


def full(clock: Time, **more: Any) -> tuple[list[tuple[str, str, Any]], Policies]:
    """All four gates, and what is asked of them."""
    log: list[tuple[str, str, Any]] = []
    return log, policies(clock, **{name: ScriptedGate(name, log) for name in ORDER}, **more)


def gates(composed: Policies) -> list[Any]:
    return [part for part in composed.parts if isinstance(part, Gate)]


def outcomes(composed: Policies, key: str = KEY) -> dict[Outcome, int]:
    return dict(composed.stats().attempts[key])


async def ends(task: "asyncio.Task[Any]") -> BaseException | None:
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()
