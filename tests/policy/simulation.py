"""A server of known capacity and its clients, by discrete events: seconds pass as fast as they are computed.

The server has `capacity` workers and one queue: with no more than that in flight an answer takes the service
time, with n in flight n / capacity times as long (Little's law), so that `capacity` is where latency begins
to rise. Clients want more than there is, at once and always, unless they are told to want less.
"""

import heapq
import random
import statistics
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from wirespeed.policy.adaptive import AdaptiveConcurrency, AdaptiveFigures
from wirespeed.policy.gates import QUEUED, Permit
from wirespeed.policy.outcome import Observation, Outcome

REFUSAL = 0.004
"""Seconds that an answer takes which says no."""
TICK = 0.02
"""Seconds from one look at the limit to the next."""


class Events:
    """The time, and what happens when."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = count()

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._number), call, args))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._heap and self._heap[0][0] <= until:
            self.now, _, call, args = heapq.heappop(self._heap)
            call(*args)
        self.now = until


class Job:
    """One request, as the server sees it."""

    __slots__ = ("done", "given_up")

    def __init__(self, done: Callable[[Outcome], None]) -> None:
        self.done = done
        self.given_up = False


class Server:
    """Workers and a queue.

    Args:
        capacity: workers; may be changed at any time.
        service: seconds that an answer takes, on the average.
        spread: standard deviation of that, as a part of it (log-normal).
        room: how many may wait; further ones are refused by 503. None: any number.
    """

    def __init__(
        self,
        events: Events,
        capacity: int,
        *,
        service: float = 0.05,
        spread: float = 0.3,
        room: int | None = None,
        seed: int = 1,
    ) -> None:
        self.events = events
        self.capacity = capacity
        self.service = service
        self.spread = spread
        self.room = room
        self.answer = Outcome.SUCCESS
        self.stalls = False
        self.served = self.refused = 0
        self._random = random.Random(seed)
        self._busy = 0
        self._queue: deque[Job] = deque()

    def set_capacity(self, capacity: int) -> None:
        self.capacity = capacity
        self._start()

    def send(self, done: Callable[[Outcome], None]) -> Job:
        job = Job(done)
        if self.stalls:
            return job
        full = self.room is not None and self._busy >= self.capacity and len(self._queue) >= self.room
        if full or self.answer is not Outcome.SUCCESS:
            self.refused += 1
            self.events.after(REFUSAL, done, Outcome.OVERLOADED if full else self.answer)
            return job
        self._queue.append(job)
        self._start()
        return job

    def _start(self) -> None:
        while self._queue and self._busy < self.capacity:
            job = self._queue.popleft()
            if job.given_up:
                continue
            self._busy += 1
            sigma = self.spread
            seconds = self.service * self._random.lognormvariate(-sigma * sigma / 2, sigma)
            self.events.after(seconds, self._finish, job)

    def _finish(self, job: Job) -> None:
        self._busy -= 1
        self.served += 1
        self._start()
        if not job.given_up:
            job.done(Outcome.SUCCESS)


class Client:
    """Makes one request after the other, through the gate."""

    def __init__(
        self,
        gate: AdaptiveConcurrency,
        server: Server,
        *,
        key: str = "origin",
        timeout: float | None = None,
    ) -> None:
        self.gate = gate
        self.server = server
        self.events = server.events
        self.key = key
        self.timeout = timeout
        self.sent = 0.0
        self.job: Job | None = None
        self.permit: Permit
        self.ask()

    def ask(self) -> None:
        permit = self.gate.acquire(self.key, now=self.events.now, wake=self.send)
        if permit.ready_at != QUEUED:
            self.send(permit)

    def send(self, permit: Permit) -> None:
        self.permit = permit
        self.sent = self.events.now
        self.job = job = self.server.send(self.on_answer)
        if self.timeout is not None:
            self.events.after(self.timeout, self.on_timeout, job)

    def on_timeout(self, job: Job) -> None:
        if self.job is job:
            job.given_up = True
            self.on_answer(Outcome.TIMED_OUT)

    def on_answer(self, outcome: Outcome) -> None:
        self.job = None
        now = self.events.now
        permit = self.permit
        permit.observe(Observation(outcome, now - self.sent, now))
        permit.release(now)
        self.ask()


class Trace:
    """The limit of a key over the time."""

    def __init__(self, gate: AdaptiveConcurrency, events: Events, key: str = "origin") -> None:
        self.gate = gate
        self.events = events
        self.key = key
        self.points: list[tuple[float, float]] = []
        self._tick()

    def _tick(self) -> None:
        stats = self.gate.stats().by_key.get(self.key)
        if stats is not None:
            self.points.append((self.events.now, stats.limit))
        self.events.after(TICK, self._tick)

    def between(self, start: float, end: float) -> list[float]:
        return [limit for at, limit in self.points if start <= at < end]

    def settled(self, start: float, end: float, capacity: float, within: float = 0.2) -> float:
        """Seconds from `start` until the mean over each following two seconds stays that near, to `end`."""
        settled = end
        for first in range(int((end - start) * 10) - 20, -1, -1):
            at = start + first / 10
            values = self.between(at, at + 2)
            if abs(statistics.fmean(values) / capacity - 1) > within:
                break
            settled = at
        return settled - start


class Phase:
    """What became of the limit after a change: seconds to settle, and then its mean, spread and extremes."""

    def __init__(self, trace: Trace, start: float, settle: float, seconds: float, capacity: float) -> None:
        after = trace.between(start + settle, start + seconds)
        self.capacity = capacity
        self.seconds = trace.settled(start, start + seconds, capacity)
        self.mean = statistics.fmean(after)
        self.spread = statistics.pstdev(after) / self.mean
        self.low, self.high = min(after), max(after)

    @property
    def off(self) -> float:
        return self.mean / self.capacity - 1

    def __repr__(self) -> str:
        return (
            f"capacity {self.capacity}: settled after {self.seconds:.1f} s, "
            f"mean {self.mean:.1f} ({self.off:+.0%}), spread {self.spread:.1%}, {self.low:g}-{self.high:g}"
        )


def phases(
    gate: AdaptiveConcurrency,
    events: Events,
    server: Server,
    capacities: list[int],
    *,
    clients: int = 200,
    settle: float = 10.0,
    seconds: float = 20.0,
    timeout: float | None = None,
) -> list[Phase]:
    """Run the server through capacities, `seconds` each, under demand above all of them."""
    crowd = [Client(gate, server, timeout=timeout) for _ in range(clients)]
    trace = Trace(gate, events)
    starts = []
    for capacity in capacities:
        starts.append(events.now)
        server.set_capacity(capacity)
        events.run(seconds)
    assert len(crowd) == clients
    return [
        Phase(trace, start, settle, seconds, capacity)
        for start, capacity in zip(starts, capacities, strict=True)
    ]


def figures(gate: AdaptiveConcurrency, key: str = "origin") -> AdaptiveFigures:
    return gate.stats().by_key[key]
