"""The scenarios, and a run of one of them: in flight together, each answer checked.

The requests are those of `wirespeed.testing.load`: what is guarded here is what is measured there.
"""

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from wirespeed.loops import new_event_loop
from wirespeed.testing.answers import JSON_BODY, pattern
from wirespeed.testing.load.clients import Call, SessionClient, Target
from wirespeed.testing.load.floor import FloorConnection
from wirespeed.testing.load.workloads import POST_ANSWER, Workload, find_workload

from . import wire

URL: Final = "http://127.0.0.1:8080"
IN_FLIGHT: Final = 16
"""Requests in flight at once: turns of the loop are shared, as in a busy program."""
WARM_UP_ROUNDS: Final = 60
"""Exchanges of each in flight before anything is counted: caches are full, bytecode is specialised."""

_HEAD: Final = (
    "HTTP/1.1 200 OK\r\n"
    "Server: nginx/1.26.0\r\n"
    "Date: Mon, 06 Jan 2025 09:30:00 GMT\r\n"
    "Content-Type: {}\r\n"
    "Content-Length: {}\r\n"
    "Connection: keep-alive\r\n"
    "Cache-Control: no-store\r\n"
    "X-Request-ID: 5f2b7c3e9a\r\n"
    "Vary: Accept-Encoding\r\n"
    "\r\n"
)


@dataclass(frozen=True)
class Scenario:
    """One fixed exchange.

    Attributes:
        name: how it is chosen.
        workload: the request, by its name among the workloads.
        body: of the answer.
        content_type: of the answer.
        is_floor: without a client: future, transport and httptools only.
    """

    name: str
    workload: str
    body: bytes = JSON_BODY
    content_type: str = "application/json"
    is_floor: bool = False

    @property
    def answer(self) -> bytes:
        return _HEAD.format(self.content_type, len(self.body)).encode() + self.body

    @property
    def title(self) -> str:
        return "the floor: no client" if self.is_floor else find_workload(self.workload).kind.value


FLOOR: Final = "floor"
_ALL: Final = (
    Scenario(FLOOR, "json", is_floor=True),
    Scenario("json", "json"),
    Scenario("decode", "decode"),
    Scenario("post", "post", POST_ANSWER),
    Scenario("rich", "rich"),
    Scenario("traced", "traced"),
    Scenario("middleware", "middleware"),
    Scenario("policies", "policies"),
    Scenario("batch", "batch"),
    Scenario("urls", "urls"),
    Scenario("batchurls", "batchurls"),
    Scenario("body100k", "body100k", pattern(100_000), "application/octet-stream"),
)
SCENARIOS: Final = {scenario.name: scenario for scenario in _ALL}


class Exchanges:
    """A scenario open on its own loop, as a context manager; `run` blocks until its exchanges are over."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.workload: Workload = replace(find_workload(scenario.workload), concurrency=IN_FLIGHT)
        self.sent = 0

    def __enter__(self) -> "Exchanges":
        self._loop = new_event_loop()
        self._loop.time = wire.steady_clock()  # type: ignore[method-assign]
        asyncio.set_event_loop(self._loop)
        self._peer = wire.TCPConnector.peer = wire.Peer(self.scenario.answer)
        self._client: SessionClient | None = None
        if self.scenario.is_floor:
            self._calls = [_floor_call(self._loop, self.scenario) for _ in range(IN_FLIGHT)]
        else:
            self._client = SessionClient(Target(URL, self.workload), wire.__name__)
            self._calls = [self._loop.run_until_complete(self._client.open())] * IN_FLIGHT
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._client is not None:
            self._loop.run_until_complete(self._client.close())
        asyncio.set_event_loop(None)
        self._loop.close()

    def warm_up(self) -> None:
        """Reach the steady state; what exists then is no work for later garbage collections."""
        self.run(WARM_UP_ROUNDS)
        gc.collect()
        gc.freeze()

    def run(self, rounds: int) -> int:
        """Make exchanges.

        Args:
            rounds: exchanges of each request in flight, one after the other.

        Returns:
            How many exchanges were made.

        Raises:
            RuntimeError: an answer was not the scenario's, a request was not on the express lane, or the
                connections were not kept.
        """
        self._loop.run_until_complete(self._run(rounds))
        self.sent += rounds * IN_FLIGHT
        self._check()
        return rounds * IN_FLIGHT

    async def _run(self, rounds: int) -> None:
        batch = None if self._client is None else self._client.batch(rounds * IN_FLIGHT)
        if batch is not None:
            async for result in batch:
                self._expect(len(result.body))
            return
        await asyncio.gather(*[self._repeat(call, rounds) for call in self._calls])

    async def _repeat(self, call: Call, rounds: int) -> None:
        for _ in range(rounds):
            self._expect(await call())

    def _expect(self, got: int) -> None:
        if got != self.workload.expected:
            raise RuntimeError(f"{self.scenario.name}: expected {self.workload.expected}, got {got}")

    def _check(self) -> None:
        if self._client is None:
            return
        wires = self._peer.wires
        if len(wires) != IN_FLIGHT or sum(wire.writes for wire in wires) != self.sent:
            raise RuntimeError(f"{self.scenario.name}: expected {IN_FLIGHT} connections, got {len(wires)}")
        lanes = self._client.lanes()
        if lanes is None or lanes["full"] or lanes["express"] != self.sent:
            raise RuntimeError(f"{self.scenario.name}: expected {self.sent} express requests, got {lanes}")


def _floor_call(loop: asyncio.AbstractEventLoop, scenario: Scenario) -> Callable[[], Any]:
    """What the exchanges cost without a client: the transport, the loop, a future and the parser."""
    conn = FloorConnection(loop, memoryview(bytearray(256 << 10)), set())
    transport = wire.Wire(loop, scenario.answer)
    transport.set_protocol(conn)
    conn.connection_made(transport)
    head = f"GET /json HTTP/1.1\r\nHost: {URL.partition('//')[2]}\r\n\r\n".encode()

    async def call() -> int:
        return await conn.request(head)

    return call
