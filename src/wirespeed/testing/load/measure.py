"""One client on one workload: warm up, measure, and say what a request cost.

CPU is the process's user and system time, all threads included, over the measured requests
alone. Latency is taken in a second, shorter pass with two clock readings per request, in the
same way for every client, so that it does not weigh on the CPU figure.
"""

import asyncio
import dataclasses
import gc
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from ..machine import peak_memory
from .clients import Call, Client, ClientSpec, Target

_WARM_UP_SHARE = 0.1
"""Part of a round's requests that is sent before measuring."""
_LATENCY_SHARE = 0.2
"""Part of a round's requests that is timed one by one."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one measured pass took.

    Attributes:
        requests: requests sent and answered.
        cpu_seconds: user and system time of the process.
        wall_seconds: time passed.
    """

    requests: int
    cpu_seconds: float
    wall_seconds: float

    @property
    def cpu_us_per_request(self) -> float:
        return self.cpu_seconds / self.requests * 1e6

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.wall_seconds


class WrongAnswer(RuntimeError):
    """A client got something else than the workload's answer; nothing it measured counts."""


class LoadRun:
    """A client open on its own loop, as a context manager; each method blocks until it is done.

    Args:
        spec: the client.
        target: where the requests go, and which.
    """

    def __init__(self, spec: ClientSpec, target: Target) -> None:
        self._spec = spec
        self._target = target
        self._loop: asyncio.AbstractEventLoop
        self._client: Client
        self._call: Call

    def __enter__(self) -> "LoadRun":
        self._loop = self._spec.new_loop(self._target.workload)
        asyncio.set_event_loop(self._loop)
        try:
            self._client = self._spec.make(self._target)
            self._call = self._loop.run_until_complete(self._client.open())
        except BaseException:
            self._close_loop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._loop.run_until_complete(self._client.close())
        finally:
            self._close_loop()

    def _close_loop(self) -> None:
        try:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()

    def run(self, requests: int) -> Sample:
        """Send requests and measure them together.

        Args:
            requests: how many; rounded up to a multiple of the workload's concurrency.

        Returns:
            What they took, the start of their tasks included.

        Raises:
            WrongAnswer: an answer was not the workload's.
        """
        return self._loop.run_until_complete(self._run(requests))

    async def _run(self, requests: int) -> Sample:
        workload = self._target.workload
        gc.collect()
        cpu, wall = time.process_time(), time.perf_counter()
        batch = self._client.batch(requests)
        if batch is not None:
            await self._consume(batch)
        elif workload.is_gather:
            await self._gather(requests)
        else:
            each = -(-requests // workload.concurrency)
            requests = each * workload.concurrency
            await self._spread(self._repeat, each)
        return Sample(requests, time.process_time() - cpu, time.perf_counter() - wall)

    async def _spread(self, work: Any, *args: Any) -> list[Any]:
        """Run as many copies of a coroutine function as requests may be in flight."""
        return await _together([work(*args) for _ in range(self._target.workload.concurrency)])

    async def _repeat(self, requests: int) -> None:
        call, expected = self._call, self._target.workload.expected
        for _ in range(requests):
            if await call() != expected:
                raise WrongAnswer(f"{self._spec.name} got a wrong answer, expected {expected}")

    async def _consume(self, batch: AsyncIterator[Any]) -> None:
        expected = self._target.workload.expected
        async for result in batch:
            if len(result.body) != expected:
                raise WrongAnswer(f"{self._spec.name} got {result}, expected {expected} bytes")

    async def _gather(self, requests: int) -> None:
        call, expected = self._call, self._target.workload.expected
        for got in await _together([call() for _ in range(requests)]):
            if got != expected:
                raise WrongAnswer(f"{self._spec.name} got {got}, expected {expected}")

    def latencies(self, requests: int) -> list[float]:
        """Send requests and time each alone.

        Args:
            requests: how many; rounded up to a multiple of the workload's concurrency.

        Returns:
            Seconds from the call to the body read, of each request, sorted.
        """
        each = -(-requests // self._target.workload.concurrency)
        timed = self._loop.run_until_complete(self._spread(self._timed, each))
        return sorted(seconds for part in timed for seconds in part)

    def record(self, sample: Sample) -> dict[str, Any]:
        """Return a sample as the record that `measure` gives, without latencies and memory.

        Its `loop` is the module that the loop comes from; its `lanes` are wirespeed's requests so far.
        """
        workload = self._target.workload
        return {
            "client": self._spec.name,
            "workload": workload.name,
            "concurrency": workload.concurrency,
            "requests": sample.requests,
            "cpu_us_per_request": round(sample.cpu_us_per_request, 3),
            "requests_per_second": round(sample.requests_per_second, 1),
            "p50_ms": None,
            "p99_ms": None,
            "peak_memory_mb": None,
            "loop": type(self._loop).__module__.partition(".")[0],
            "lanes": self._client.lanes(),
        }

    async def _timed(self, requests: int) -> list[float]:
        call, clock = self._call, time.perf_counter
        seconds = []
        for _ in range(requests):
            start = clock()
            await call()
            seconds.append(clock() - start)
        return seconds


async def _together(coroutines: list[Any]) -> list[Any]:
    """`asyncio.gather` that leaves no task behind when one of them fails."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def quantile(ordered: list[float], share: float) -> float:
    """Return the value that `share` of an ordered, non-empty list does not exceed (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def measure(spec: ClientSpec, target: Target, requests: int) -> dict[str, Any]:
    """Run one client on one workload, in this process.

    Args:
        spec: the client.
        target: where the requests go, and which.
        requests: requests of the measured pass; the warm-up and the latency pass add to them.

    Returns:
        A JSON-able record: `client`, `workload`, `concurrency`, `requests`, `cpu_us_per_request`,
        `requests_per_second`, `p50_ms`, `p99_ms` (None where requests cannot be timed alone),
        `peak_memory_mb` (of the process, or None), `loop` and `lanes` (None but for wirespeed).

    Raises:
        WrongAnswer: an answer was not the workload's.
    """
    workload = target.workload
    with LoadRun(spec, target) as load:
        load.run(max(int(requests * _WARM_UP_SHARE), 1) if not workload.is_gather else workload.concurrency)
        sample = load.run(requests)
        seconds = [] if not workload.is_timed else load.latencies(max(int(requests * _LATENCY_SHARE), 1))
        record = load.record(sample)
    peak = peak_memory()
    if seconds:
        record |= {
            "p50_ms": round(quantile(seconds, 0.50) * 1e3, 4),
            "p99_ms": round(quantile(seconds, 0.99) * 1e3, 4),
        }
    return record | {"peak_memory_mb": None if peak is None else round(peak / 1e6, 1)}
