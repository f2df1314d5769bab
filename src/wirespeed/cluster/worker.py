"""What a worker does: one shard, on a loop of its own.

It is a plain function that can be called again, anywhere, after whatever has happened: a shard that is done
is not sent again, and of one that was begun only the rest is. Records go to the job's directory and never
through the scheduler; what comes back is counts.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..batch import Progress
from ..jobs import JobError, Line, Summary, run_part
from ..jobs.leftovers import adopt, new_writing, part_of
from ..jobs.lineset import LineSet
from ..jobs.parts import recover
from ..jobs.records import encode_bad
from ..jobs.summary import BAD_LINE
from .beats import Beat, is_on
from .shards import SECONDS, Shard, unpack
from .storage import in_storage, is_url

UNSHARED = "the workers need the output's directory under the same path: a file system that all share"


@dataclass(frozen=True)
class ShardReport:
    """What a shard has come to.

    Attributes:
        name: of the shard.
        summary: of all its records.
        left: numbers of lines without a record: there was no time left for them.
        sent: lines that this attempt has sent.
        seconds: that it took.
        worker: host and process, for messages.
    """

    name: str
    summary: Summary
    left: tuple[int, ...]
    sent: int
    seconds: float
    worker: str


def run_shard(shard: Shard) -> ShardReport:
    """Do a shard: send what has no record yet, and name the part when it is whole.

    Takes no more lines after `SECONDS`, or when the session has ended.

    Raises:
        JobError: the records could not be written.
    """
    if is_url(shard.directory):
        report: ShardReport = in_storage(shard, run_shard)
        return report
    return _part(shard, lambda writing, done, before: _send(shard, writing, done, before))


def give_up(shard: Shard, kind: str, reason: str) -> ShardReport:
    """Record of all lines of a shard that have no record why they have none.

    Args:
        shard: the shard.
        kind: class of the error.
        reason: its message.

    Raises:
        JobError: the records could not be written.
    """

    def refuse(writing: Path, done: LineSet, before: Summary) -> Summary:
        with open(writing, "ab") as file:
            for line in _rest(shard, done):
                failed = line if line.request is None else Line(line.number, line.request, reason)
                file.write(encode_bad(failed, kind if failed is not line else BAD_LINE))
        added = Summary()
        recover(writing, done, added)
        return added

    return _part(shard, refuse)


def _part(shard: Shard, write: Callable[[Path, LineSet, Summary], Summary]) -> ShardReport:
    """Make the part of a shard, where it is not there; `write` adds what is not done, and counts it."""
    directory = Path(shard.directory)
    part = part_of(directory, shard.name)
    summary, latest, done = Summary(), Summary(), LineSet()
    try:
        if part.exists():
            recover(part, done, summary)
        else:
            writing = new_writing(directory, shard.name)
            # Empty, it is a sign that somebody has begun.
            writing.touch()
            adopt(directory, shard.name, writing)
            recover(writing, done, summary)
            if len(done) < len(shard):
                latest = write(writing, done, summary)
                summary.merge(latest)
            if summary.done < len(shard):
                # Only records say which lines those were. To read them costs as much as to write them.
                recover(writing, done, Summary())
            os.replace(writing, part)
    except OSError as exc:
        raise _trouble(directory, exc) from exc
    left: tuple[int, ...] = ()
    if summary.done < len(shard):
        left = tuple(number for number, _ in shard.lines if number not in done)
    return ShardReport(shard.name, summary, left, latest.done, latest.seconds, worker_name())


def worker_name() -> str:
    """This process, as messages name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _rest(shard: Shard, done: LineSet) -> Iterator[Line]:
    """The lines that have no record, unpacked as they are taken."""
    return (unpack(packed) for packed in shard.lines if packed[0] not in done)


def _send(shard: Shard, writing: Path, done: LineSet, before: Summary) -> Summary:
    begun_at = time.monotonic()
    with Beat(shard) as beat:

        def tell(progress: Progress) -> None:
            beat.write(
                before.done + progress.taken,
                before.done + progress.done,
                before.failed + progress.failed,
                before.bytes + progress.bytes,
            )

        summary = run_part(
            _rest(shard, done),
            shard.settings,
            writing,
            bodies=None if shard.bodies is None else Path(shard.bodies),
            ordered=shard.is_ordered,
            on_progress=tell,
            stop=_stop(shard, begun_at + SECONDS),
        )
    _pace(shard.settings.rate, begun_at, summary.attempts)
    return summary


def _stop(shard: Shard, deadline: float) -> Callable[[], bool]:
    return lambda: time.monotonic() >= deadline or not is_on(shard)


def _pace(rate: float | None, begun_at: float, attempts: int) -> None:
    """Wait for the instant of the next request, which is the next shard's.

    A rate begins with a request. Without this there would be one too many for each shard.
    """
    if rate is not None:
        time.sleep(max(0.0, min(1 / rate, begun_at + attempts / rate - time.monotonic())))


def _trouble(directory: Path, exc: OSError) -> JobError:
    if isinstance(exc, FileNotFoundError) and not directory.is_dir():
        return JobError(f"worker {worker_name()} has no directory {directory}", UNSHARED)
    return JobError(f"worker {worker_name()} cannot write {exc.filename or directory}: {exc.strerror or exc}")
