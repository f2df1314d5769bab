"""Keeps a crew at work until there is no more: submits shards, takes reports, and repeats what was lost.

    waiting -> submitted -> reported                                  the usual way
               submitted -> waiting      its worker died, or nobody knows what became of it
               submitted -> given up     its workers died `DEATHS_MAX` times, the last time with it alone

A process that dies breaks its pool for all that run in it, and nobody says whose process it was. A shard that
was there twice runs alone the next time, so that none is given up for what another did.
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from ..jobs import JobError
from .crews import GUARD, Crew
from .shards import Shard
from .shares import Shares
from .worker import ShardReport

DEATHS_MAX = 3
"""How often workers may die of a shard. Dask lets four of them for each."""
LOST_MAX = 3
"""How often a shard may get lost without anybody's death."""
GIVEN_UP_MAX = 3
"""Shards in a row that are given up, after which it is the workers that are wrong, not the shards."""
STILLBORN_MAX = 2
"""Pools in a row whose workers may die before they have begun anything."""
TROUBLE_MAX = 10.0
"""Seconds that nothing may be heard of a scheduler."""
_BREAKING_MAX = 5.0
"""Seconds in which a broken executor tells all that wait for it."""
TICK = 0.1
"""Seconds between looks at everything."""


class Work(Protocol):
    """What there is to do; asked in the scheduler's thread alone."""

    @property
    def is_over(self) -> bool:
        """Whether `next` will have no more."""

    def next(self, rate: float | None) -> Shard | None:
        """The next shard, for such a share of the rate; None where there is none at present."""

    def wanted(self, rate: float | None, room: int) -> int:
        """How many shards `next` could have at once for such a rate in all, up to `room`."""

    def stop(self) -> None:
        """Let shards that run take no more lines, as far as they can be told."""

    def has_begun(self, shard: Shard) -> bool:
        """Whether a worker has begun it."""

    def report(self, shard: Shard, report: ShardReport) -> Shard | None:
        """A shard is done. Returns what is left of it."""

    def give_up(self, shard: Shard, reason: str) -> None:
        """A shard cannot be done."""

    def tick(self, running: "list[Shard]") -> None:
        """Called several times a second."""


@dataclass
class _Entry:
    shard: Shard
    owner: int = 0
    deaths: int = 0
    lost: int = 0
    failures: int = 0

    @property
    def is_suspect(self) -> bool:
        return self.deaths >= DEATHS_MAX - 1


class Scheduler:
    """One job on one crew.

    Args:
        crew: who does the shards.
        work: what there is to do.
        perform: does a shard; a plain function.
        shares: of the rate.
        stop: asks whether to submit no more.

    Attributes:
        is_stopped: whether it was asked to stop.
        is_complete: whether all of it is done.
    """

    def __init__(
        self,
        crew: Crew,
        work: Work,
        perform: Callable[[Shard], ShardReport],
        shares: Shares,
        stop: Callable[[], bool],
    ) -> None:
        self._crew, self._work, self._perform, self._shares, self._stop = crew, work, perform, shares, stop
        # With a rate, a shard that waits at the executor would have a share that nobody uses.
        self._room = shares.slots if shares.rate is not None else crew.slots + crew.ahead
        self._running: dict[Future[Any], _Entry] = {}
        self._again: deque[_Entry] = deque()
        self._dead: list[_Entry] = []
        self._is_broken = False
        self._count = self._given_up = self._stillborn = 0
        self._troubled_at: float | None = None
        self.is_stopped = self.is_complete = False

    def run(self) -> None:
        """Do all of it, or what is under way when it is asked to stop.

        Raises:
            JobError: it cannot go on; `drain` comes next.
            What `work` raises, likewise.
        """
        while True:
            self._look()
            self._submit_more()
            self.is_complete = self._work.is_over and not self._running and not self._again
            if self.is_complete or (self.is_stopped and not self._running):
                return
            self._collect()
            self._work.tick([entry.shard for entry in self._running.values()])

    def drain(self, seconds: float) -> None:
        """After an error: wait for what runs, so that its records are in whole parts.

        Args:
            seconds: that it may take.
        """
        deadline = time.monotonic() + seconds
        self._halt()
        while self._running and time.monotonic() < deadline and self._crew.trouble() is None:
            for future in self._wait():
                entry = self._take(future)
                if not future.cancelled() and future.exception() is None:
                    self._work.report(entry.shard, future.result())

    # Looking round

    def _look(self) -> None:
        if not self.is_stopped and self._stop():
            self._halt()
        trouble = self._crew.trouble()
        if trouble is None:
            self._troubled_at = None
            return
        now = time.monotonic()
        if self._troubled_at is None:
            self._troubled_at = now
        if now - self._troubled_at >= TROUBLE_MAX or self.is_stopped:
            raise JobError(trouble)

    def _halt(self) -> None:
        self.is_stopped = True
        self._work.stop()
        for future, entry in list(self._running.items()):
            # Dask would drop also what runs.
            if not self._work.has_begun(entry.shard):
                future.cancel()

    # Submitting

    def _submit_more(self) -> None:
        while self._has_room():
            share = self._shares.next(self._claimants())
            entry = self._next(share)
            if entry is None:
                return
            self._submit(entry, share)

    def _has_room(self) -> bool:
        if self.is_stopped or self._is_broken or self._troubled_at is not None:
            return False
        if len(self._running) >= self._room:
            return False
        if self._crew.dies_together and any(entry.is_suspect for entry in self._running.values()):
            return False
        return self._shares.is_free

    def _next(self, share: float | None) -> _Entry | None:
        if self._again:
            if self._crew.dies_together and self._again[0].is_suspect and self._running:
                return None
            return self._again.popleft()
        shard = self._work.next(share)
        return None if shard is None else _Entry(shard)

    def _claimants(self) -> int:
        """How many shards are about to begin."""
        room = self._room - len(self._running)
        if self._shares.rate is None:
            return room
        return min(room, len(self._again) + self._work.wanted(self._shares.free, room))

    def _submit(self, entry: _Entry, share: float | None) -> None:
        self._count += 1
        entry.owner = self._count
        entry.shard = entry.shard.again(self._shares.take(entry.owner, share))
        try:
            self._running[self._crew.submit(self._perform, entry.shard)] = entry
        except BrokenExecutor:
            # Since the last look. Those that ran are about to say so.
            self._is_broken = True
            self._shares.give_back(entry.owner)
            self._again.appendleft(entry)
        except BaseException:
            self._shares.give_back(entry.owner)
            raise

    # Collecting

    def _wait(self) -> "set[Future[Any]]":
        if not self._running:
            time.sleep(TICK)
            return set()
        return wait(self._running, timeout=TICK, return_when=FIRST_COMPLETED).done

    def _take(self, future: "Future[Any]") -> _Entry:
        entry = self._running.pop(future)
        self._shares.give_back(entry.owner)
        return entry

    def _collect(self) -> None:
        for future in self._wait():
            self._settle(future)
        if self._is_broken:
            self._bury()

    def _settle(self, future: "Future[Any]") -> None:
        """Deal with what has ended."""
        entry = self._take(future)
        exc = CancelledError() if future.cancelled() else future.exception()
        if exc is None:
            self._reported(entry, future.result())
        elif isinstance(exc, JobError):
            raise exc
        elif isinstance(exc, BrokenExecutor):
            self._is_broken = True
            self._dead.append(entry)
        elif self._crew.is_death(exc):
            self._died(entry)
        elif self._crew.is_lost(exc):
            self._lost(entry)
        else:
            self._failed(entry, exc)

    def _reported(self, entry: _Entry, report: ShardReport) -> None:
        self._given_up = self._stillborn = 0
        left = self._work.report(entry.shard, report)
        if left is not None:
            self._again.append(_Entry(left))

    def _lost(self, entry: _Entry) -> None:
        entry.lost += 1
        if entry.lost >= LOST_MAX and not self.is_stopped:
            raise JobError(f"the executor has lost the same work {entry.lost} times")
        self._again.appendleft(entry)

    def _failed(self, entry: _Entry, exc: BaseException) -> None:
        """It is not its worker's death, nor anything that it could write."""
        entry.failures += 1
        if isinstance(exc, ImportError) or entry.failures >= DEATHS_MAX:
            raise JobError(f"a worker fails with {type(exc).__name__}: {exc}") from exc
        self._again.appendleft(entry)

    # Deaths

    def _bury(self) -> None:
        """An executor is broken, and all that it had is lost."""
        deadline = time.monotonic() + _BREAKING_MAX
        while self._running and time.monotonic() < deadline:
            for future in self._wait():
                self._settle(future)
        dead, self._dead = self._dead, []
        begun = [entry for entry in dead if self._work.has_begun(entry.shard)]
        self._again.extendleft(entry for entry in dead if entry not in begun)
        self._renew(has_begun=bool(begun))
        for entry in begun:
            self._died(entry)

    def _renew(self, *, has_begun: bool) -> None:
        self._stillborn = 0 if has_begun else self._stillborn + 1
        if self._stillborn >= STILLBORN_MAX:
            raise JobError("the workers die before they begin", GUARD)
        if not self.is_stopped:
            self._crew.renew()
            self._is_broken = False

    def _died(self, entry: _Entry) -> None:
        """A worker has died of it, or near it."""
        entry.deaths += 1
        if entry.deaths < DEATHS_MAX:
            self._again.append(entry)
            return
        self._given_up += 1
        if self._given_up >= GIVEN_UP_MAX:
            raise JobError(f"the workers keep dying: {self._given_up} shards in a row have killed theirs")
        self._work.give_up(
            entry.shard, f"{entry.deaths} workers have died of the requests sent along with it"
        )
