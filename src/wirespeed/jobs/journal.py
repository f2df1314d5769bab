"""What survives a crash: a directory beside the output, with what the job is and the records so far.

    OUTPUT.partial/job.json       what the job is; there before anything is sent
                   part-*.ndjson  records, only appended to
                   lock           held by the process that works on it

A record counts as written when its whole line is in a part. A process that is killed at any time loses none
of them: they are in the kernel's hands. At worst the last line is torn, and cut off when the job is resumed.
"""

import contextlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .errors import JobError
from .leftovers import adopt_all, remove_all
from .lineset import LineSet
from .locking import Lock
from .parts import recover
from .summary import Summary

FORMAT = 1
"""Version of the directory's contents."""
_SUFFIX = ".partial"
_JOB = "job.json"
_LOCK = "lock"
_WORDS = {
    "input": "its input is another, or has changed",
    "kind": "its output is of another kind",
    "options": "its options are others",
}


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
            it; it cannot be read or written.

    Attributes:
        directory: of the state.
        done: lines that are done.
        summary: what they came to.
    """

    def __init__(self, output: "str | os.PathLike[str]", identity: Identity, *, resume: bool = False) -> None:
        self.directory = self.directory_of(output)
        self.done = LineSet()
        self.summary = Summary()
        self._lock: Lock | None = None
        try:
            self._open(identity, resume)
        except OSError as exc:
            self.close()
            raise JobError(f"cannot use {exc.filename or self.directory}: {exc.strerror or exc}") from exc
        except BaseException:
            self.close()
            raise

    @staticmethod
    def directory_of(output: "str | os.PathLike[str]") -> Path:
        """Where the state of a job with that output is."""
        path = Path(output)
        return path.with_name(path.name + _SUFFIX)

    @classmethod
    def is_there(cls, output: "str | os.PathLike[str]") -> bool:
        """Whether a job with that output was interrupted."""
        return (cls.directory_of(output) / _JOB).exists()

    @classmethod
    def sweep(cls, output: "str | os.PathLike[str]") -> None:
        """Remove what is left of a state whose removal was interrupted, as far as that is possible."""
        directory = cls.directory_of(output)
        with contextlib.suppress(OSError):
            lock = Lock.take(directory / _LOCK)
            # Not while somebody begins a job there.
            if lock is not None:
                if not (directory / _JOB).exists():
                    shutil.rmtree(directory, ignore_errors=True)
                lock.release()

    def new_part(self) -> Path:
        """The path of a part that is not there yet."""
        number = 1
        while (path := self.directory / f"part-{number:05d}.ndjson").exists():
            number += 1
        return path

    def parts(self) -> list[Path]:
        """The parts that are there, by name."""
        return sorted(self.directory.glob("part-*.ndjson"))

    def remove(self) -> None:
        """Remove the state: the output is there.

        What makes it a job goes first, so that a crash in the middle leaves nothing to resume.
        """
        (self.directory / _JOB).unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.close()
        # Windows removes no file that is open, as the lock was.
        shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Let another process have it. Safe to call twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, identity: Identity, resume: bool) -> None:
        directory = self.directory
        directory.mkdir(exist_ok=True)
        self._lock = Lock.take(directory / _LOCK)
        if self._lock is None:
            raise JobError(
                f"another process works on {directory}", "wait for its end, or choose another output"
            )
        known = self._read()
        if known is not None and not resume:
            raise JobError(
                f"{directory} is of a job that was interrupted",
                "go on with --resume (resume=True), or remove it to begin anew",
            )
        if known is None:
            # Of a removal that was interrupted; without a job nobody can tell whose records they are.
            for part in self.parts():
                part.unlink()
            remove_all(directory)
            known = {"format": FORMAT, **asdict(identity), "sessions": []}
        else:
            self._compare(known, identity)
            adopt_all(directory)
            self._recover(known["sessions"])
        self._write({**known, "sessions": [*known["sessions"], time.time()]})

    def _read(self) -> dict[str, Any] | None:
        path = self.directory / _JOB
        try:
            known = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            known = None
        if not isinstance(known, dict) or known.get("format") != FORMAT:
            raise JobError(
                f"{path} is not of this version of wirespeed", f"remove {self.directory} to begin anew"
            )
        return known

    def _write(self, known: dict[str, Any]) -> None:
        """Atomically: a job that is there is whole."""
        temporary = self.directory / f"{_JOB}.tmp"
        with open(temporary, "wb") as file:
            file.write(json.dumps(known, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.directory / _JOB)

    def _compare(self, known: dict[str, Any], identity: Identity) -> None:
        # As it comes back from a file.
        wanted = json.loads(json.dumps(asdict(identity)))
        for name, words in _WORDS.items():
            if known[name] != wanted[name]:
                there, here = _difference(known[name], wanted[name])
                raise JobError(
                    f"{self.directory} is of another job: {words} (it was {there}, now {here})",
                    "run that job as it was, or remove the directory to begin anew",
                )

    def _recover(self, sessions: list[float]) -> None:
        worked: dict[float, float] = {}
        for part in self.parts():
            written_at = part.stat().st_mtime
            recover(part, self.done, self.summary)
            # A session ends with what was written last before the next began.
            begun_at = max((at for at in sessions if at <= written_at), default=written_at)
            worked[begun_at] = max(worked.get(begun_at, 0.0), written_at - begun_at)
        self.summary.seconds = sum(worked.values())
        self.summary.recovered = self.summary.done


def _difference(known: Any, wanted: Any) -> tuple[str, str]:
    """The first thing that is not the same, in both."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        for name in {**known, **wanted}:
            if known.get(name) != wanted.get(name):
                return f"{name} {known.get(name)!r}", f"{wanted.get(name)!r}"
    return repr(known), repr(wanted)
