"""A job as the scheduler sees it: shards out of its lines, and reports into its figures."""

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..batch import Progress
from ..jobs import JobError, OpenJob, Summary
from ..jobs.leftovers import leftovers, part_of
from .beats import Session
from .feed import Feed
from .shards import SECONDS, Shard, Shelf, Sizes
from .storage import Mirror
from .worker import UNSHARED, ShardReport, give_up

PROGRESS_INTERVAL = 0.25
"""Seconds between calls of `on_progress`."""
LOST = "WorkerLost"
"""Class of the error of requests whose workers have died again and again."""


class JobWork:
    """What there is to do of a job.

    Args:
        opened: the job.
        directory: of its state, which the workers write to.
        slots: shards that run at the same time.
        on_progress: told four times a second how far it is.
        on_part: told of each part that is whole; it may take it away.
        mirror: where the state is in storage: `directory` is a copy of it.

    Attributes:
        summary: of all reports so far.
    """

    def __init__(
        self,
        opened: OpenJob,
        directory: Path,
        slots: int,
        on_progress: Callable[[Progress], object] | None = None,
        on_part: Callable[[Path], None] | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        job = opened.job
        self._opened, self._directory, self._slots = opened, directory, slots
        self._on_progress, self._on_part, self._mirror = on_progress, on_part, mirror
        self._shelf = Shelf(Feed(opened.lines(), may_wait=opened.source.may_wait))
        self._sizes = Sizes(job.settings.concurrency)
        bodies = opened.output.bodies
        where = str(directory) if mirror is None else mirror.state.url
        self._pattern = Shard(
            "", 0, (), job.settings, where, None if bodies is None else str(bodies), job.ordered
        )
        self.session = Session(directory, uuid.uuid4().hex[:8])
        self._count = self._taken = 0
        self._begun_at = self._told_at = time.monotonic()
        self.summary = Summary()

    # For the scheduler

    @property
    def is_over(self) -> bool:
        return self._shelf.has_ended and not self._shelf.held

    def next(self, rate: float | None) -> Shard | None:
        total, left = self._opened.total, None
        if total is not None:
            left = max(0, total - self._opened.summary.done - self._taken)
        lines = self._shelf.take(self._sizes.next(rate, left, self._slots))
        if not lines:
            return None
        self._taken += len(lines)
        return replace(self._pattern, name=self._new_name(), lines=tuple(lines))

    def wanted(self, rate: float | None, room: int) -> int:
        if rate is None or not self._shelf.has_ended:
            return room
        return min(room, -(-self._shelf.held // max(1, int(SECONDS * rate / room))))

    def stop(self) -> None:
        self.session.end()

    def has_begun(self, shard: Shard) -> bool:
        # In storage there is nothing before the end.
        return self._mirror is not None or bool(leftovers(self._directory, shard.name))

    def report(self, shard: Shard, report: ShardReport) -> Shard | None:
        part = part_of(self._directory, shard.name)
        if self._mirror is not None:
            self._mirror.collect(shard)
        if not part.exists():
            raise JobError(
                f"worker {report.worker} has written a part that is not in {part.parent}", UNSHARED
            )
        self._note(shard, report, part)
        self._sizes.note(report.sent, report.seconds)
        if not report.left:
            return None
        left = set(report.left)
        lines = tuple(packed for packed in shard.lines if packed[0] in left)
        return replace(shard, name=self._new_name(), attempt=0, lines=lines)

    def give_up(self, shard: Shard, reason: str) -> None:
        here = replace(shard, directory=str(self._directory))
        report = give_up(here, LOST, reason)
        if self._mirror is not None:
            self._mirror.give_up(shard)
        self._note(here, report, part_of(self._directory, shard.name))

    def tick(self, running: list[Shard]) -> None:
        now = time.monotonic()
        if self._on_progress is None or now - self._told_at < PROGRESS_INTERVAL:
            return
        self._told_at = now
        self.tell(running)

    # For who runs it

    def tell(self, running: "list[Shard] | tuple[()]" = ()) -> None:
        """Say how far it is."""
        if self._on_progress is None:
            return
        counts = [self.session.counts(shard) for shard in running]
        before, here = self._opened.summary, self.summary
        taken, done, failed, size = (sum(each) for each in zip((0, 0, 0, 0), *counts, strict=True))
        self._on_progress(
            Progress(
                total=self._opened.total,
                taken=before.done + here.done + taken,
                done=before.done + here.done + done,
                failed=before.failed + here.failed + failed,
                bytes=before.bytes + here.bytes + size,
                elapsed=time.monotonic() - self._begun_at,
            )
        )

    def _new_name(self) -> str:
        self._count += 1
        return f"{self.session.token}-{self._count:06d}"

    def _note(self, shard: Shard, report: ShardReport, part: Path) -> None:
        self.session.forget(shard)
        self.summary.merge(report.summary)
        self.summary.seconds = time.monotonic() - self._begun_at
        if self._on_part is not None:
            self._on_part(part)
