"""A job: requests from lines, through a batch, to an output that survives crashes."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from yarl import URL

from ..batch import Progress, Request
from .journal import Journal
from .lines import Line
from .outputs import Output
from .sending import Stop
from .settings import Settings
from .summary import Summary


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
        journal: its state; None where it has none (the standard output).
        summary: what earlier sessions have done; add to it what this one does.
        total: lines of the input, as far as known: blank ones are found when they are read. None if unknown.
        is_done: whether the output is there already and there is nothing to resume.
    """

    job: Job
    output: Output
    journal: Journal | None
    summary: Summary
    total: int | None
    is_done: bool

    def __init__(self, job: Job) -> None:
        raise NotImplementedError

    def lines(self) -> Iterator[Line]:
        """The lines that are not done yet, as they are read; `total` becomes more exact."""
        raise NotImplementedError

    def finish(self) -> Report:
        """Make the output, remove the state.

        Raises:
            JobError: the output could not be written; the state stays.
        """
        raise NotImplementedError

    def interrupted(self) -> Report:
        """The report of a job that was stopped before its end."""
        raise NotImplementedError

    def close(self) -> None:
        """Let the state go. Safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> "OpenJob":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def run(
    job: Job, *, on_progress: Callable[[Progress], Any] | None = None, stop: Stop | None = None
) -> Report:
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
    raise NotImplementedError
