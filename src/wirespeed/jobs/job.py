"""A job: requests from lines, through a batch, to an output that survives crashes."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType

from yarl import URL

from ..batch import Request
from ..loops import run as run_loop
from .errors import JobError
from .inputs import Source
from .intake import Waiting
from .journal import Identity, Journal
from .lines import Line
from .outputs import output_of
from .parts import Raw
from .sending import OnProgress, Sending, Stop, cannot_write
from .settings import Settings
from .summary import Summary, histogram_class

_STDOUT_DESCRIPTOR = 1
_RESUME = "go on with --resume (resume=True)"


@dataclass
class Job:
    """What is to be done.

    Args:
        input: path of a file of lines (see `lines.read`), "-" for the standard input; or requests.
        output: see `outputs.output_of`.
        settings: how requests are sent.
        dedup: send requests that are the same only once.
        ordered: write records in the order of the input.
        resume: go on with a job that was interrupted.
    """

    input: "str | os.PathLike[str] | Iterable[Line | Request | URL | str]"
    output: "str | os.PathLike[str]"
    settings: Settings = field(default_factory=Settings)
    dedup: bool = False
    ordered: bool = False
    resume: bool = False


@dataclass
class Report:
    """What became of a job.

    Attributes:
        summary: of the whole job, earlier sessions included.
        is_complete: whether every line is done, and the output is there.
        output: its name, as given.
        hint: how to go on; empty where there is nothing to do.
    """

    summary: Summary
    is_complete: bool
    output: str
    hint: str = ""


class OpenJob:
    """A job that may run: its output can be written, its input is there, and its state is ours.

    For what runs a job in its own way; a context manager, which lets the state go.

    Args:
        job: what is to be done.

    Raises:
        JobError: it cannot run.

    Attributes:
        job: as given.
        output: where it ends up.
        source: of its lines.
        journal: its state; None where it has none: the output is the standard output, or is there already.
        summary: what earlier sessions have done; add to it what this one does.
        is_done: whether it is resumed, but there is nothing to go on with, and the output is there.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.journal: Journal | None = None
        self.summary = Summary()
        self.is_done = False
        self._read = self._passed = 0
        histogram_class()  # missing packages show before anything is sent
        self.output = output_of(job.output)
        self.output.check()
        self.source = Source(job.input, method=job.settings.method, dedup=job.dedup)
        if not self.output.has_state:
            if job.resume:
                raise JobError("what goes to the standard output cannot be resumed", "name a file")
            return
        if job.resume and self.output.is_there() and not Journal.is_there(self.output.path):
            self.is_done = True
            Journal.sweep(self.output.path)
            self.output.recover(self.summary)
            self.summary.recovered = self.summary.done
            return
        options = {"method": job.settings.method, "dedup": job.dedup, "ordered": job.ordered}
        identity = Identity(self.source.identity, self.output.kind, options)
        self.journal = Journal(self.output.path, identity, resume=job.resume)
        self.summary = self.journal.summary

    @property
    def total(self) -> int | None:
        """Lines of the input that get a record; blank ones count until they are read. None if unknown."""
        count = self.source.count
        return None if count is None else count - self._passed

    def lines(self) -> Iterator[Line]:
        """The lines that are not done yet, as they are read."""
        done = self.journal.done if self.journal is not None else ()
        for line in self.source.lines():
            self._read += 1
            self._passed = line.number - self._read
            if line.number not in done:
                yield line
        if self.source.count is not None:
            self._passed = self.source.count - self._read

    def finish(self) -> Report:
        """Make the output, remove the state.

        Raises:
            JobError: the output could not be written; the state stays.
        """
        if self.journal is not None:
            try:
                self.output.finish(self.journal.parts(), ordered=self.job.ordered)
            except JobError as exc:
                raise JobError(exc.message, exc.hint or _RESUME) from exc
            self.journal.remove()
        return Report(self.summary, True, os.fspath(self.job.output))

    def interrupted(self) -> Report:
        """The report of a job that was stopped before its end."""
        hint = _RESUME if self.journal is not None else ""
        return Report(self.summary, False, os.fspath(self.job.output), hint)

    def close(self) -> None:
        """Let the state go. Safe to call twice."""
        if self.journal is not None:
            self.journal.close()

    def __enter__(self) -> "OpenJob":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def run(job: Job, *, on_progress: OnProgress | None = None, stop: Stop | None = None) -> Report:
    """Run a job in this process, on a loop of its own.

    Args:
        job: what is to be done.
        on_progress: called four times a second and at the end, with figures of the whole job; its `elapsed`
            is of this session, its `failed` as in `Summary`.
        stop: an object with `is_set()`, or a callable, asked several times a second: no more lines are taken
            then, what is under way is finished and recorded.

    Raises:
        JobError: it could not run, or not to its end; what was written stays, and its hint says how to go on.
    """
    with OpenJob(job) as opened:
        if opened.is_done:
            return opened.finish()
        sending = Sending(
            job.settings,
            bodies=opened.output.bodies,
            ordered=job.ordered,
            on_progress=on_progress,
            stop=stop,
            before=opened.summary,
            total=lambda: opened.total,
        )
        try:
            run_loop(_send(opened, sending))
        except JobError as exc:
            raise JobError(exc.message, exc.hint or opened.interrupted().hint) from exc
        opened.summary.merge(sending.summary)
        opened.summary.seconds += sending.summary.seconds
        return opened.finish() if sending.is_complete else opened.interrupted()


async def _send(opened: OpenJob, sending: Sending) -> None:
    lines = opened.lines()
    path, file = _open(opened)
    try:
        await sending.send(
            Waiting(lines) if opened.source.may_wait else lines, file, is_synced=opened.journal is not None
        )
    except OSError as exc:
        raise cannot_write(path, exc) from exc


def _open(opened: OpenJob) -> tuple[str, Raw]:
    """What records are written to."""
    if opened.journal is None:
        return "the standard output", open(_STDOUT_DESCRIPTOR, "wb", buffering=0, closefd=False)
    path = os.fspath(opened.journal.new_part())
    try:
        return path, open(path, "ab", buffering=0)
    except OSError as exc:
        raise cannot_write(path, exc) from exc
