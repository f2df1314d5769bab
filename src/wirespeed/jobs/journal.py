"""What survives a crash: a directory beside the output, with what the job is and the records so far.

    OUTPUT.partial/job.json       what the job is; there before anything is sent
                   part-*.ndjson  records, only appended to
                   lock           held by the process that works on it

A record counts as written when its whole line is in a part. A process that is killed at any time loses none
of them: they are in the kernel's hands. At worst the last line is torn, and cut off when the job is resumed.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .lineset import LineSet
from .summary import Summary


@dataclass(frozen=True)
class Identity:
    """What must be the same for a job to go on.

    Attributes:
        input: path, size and digest of the input; only the path where it can be read but once.
        kind: of the output.
        options: those that change which record belongs to a line: method, dedup, ordered.
    """

    input: dict[str, Any]
    kind: str
    options: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The state of a job on disk, held by this process.

    Args:
        output: path of the job's output, whose state it is.
        identity: of the job.
        resume: go on with what is there. Nothing there is no error: the job then begins.

    Raises:
        JobError: there is something, and `resume` is not set; it is of another job; another process works on
            it; it cannot be written.

    Attributes:
        directory: of the state.
        done: lines that are done.
        summary: what they came to.
    """

    directory: Path
    done: LineSet
    summary: Summary

    def __init__(self, output: "str | os.PathLike[str]", identity: Identity, *, resume: bool = False) -> None:
        raise NotImplementedError

    @staticmethod
    def directory_of(output: "str | os.PathLike[str]") -> Path:
        """Where the state of a job with that output is."""
        raise NotImplementedError

    def new_part(self) -> Path:
        """The path of a part that is not there yet."""
        raise NotImplementedError

    def parts(self) -> list[Path]:
        """The parts that are there, the oldest first."""
        raise NotImplementedError

    def remove(self) -> None:
        """Remove the state: the output is there. A crash in the middle leaves nothing that looks like a job."""
        raise NotImplementedError

    def close(self) -> None:
        """Let another process have it. Safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
