"""Where the records of a job end up: made of its parts, all at once.

An output appears whole or not at all: it is written beside its place, and renamed. Its parts are there until
that has happened.
"""

import contextlib
import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from .bodies import TEMPORARY
from .errors import JobError
from .merging import merged, repeats
from .parts import records
from .records import decode_figures
from .summary import Summary

STDOUT = "-"
INDEX = "index.ndjson"
"""The records of a directory of bodies."""
_PARQUET = ".parquet"


class Output:
    """NDJSON: the records as they are. Made by `output_of`.

    Attributes:
        kind: "ndjson", "parquet", "directory" or "stdout".
        path: where it is; a symbolic link is followed.
        bodies: the directory that bodies are written to while the job runs; None for bodies in the records.
        has_state: whether a job with that output can be resumed.
    """

    kind: ClassVar[str] = "ndjson"
    has_state: ClassVar[bool] = True
    bodies: Path | None = None

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))

    def check(self) -> None:
        """See that it can be written; called before anything is sent.

        Raises:
            JobError: it cannot, or a package is missing.
        """
        if self.path.is_dir():
            raise JobError(f"{self.path} is a directory")
        # Renaming would put a file in the place of a device.
        if self.path.exists() and not stat.S_ISREG(self.path.stat().st_mode):
            raise JobError(f"{self.path} is not a regular file", "write to the standard output: -o -")
        _check_directory(self.path.parent)

    def is_there(self) -> bool:
        """Whether there is such an output already."""
        return self.path.exists()

    def finish(self, parts: Sequence[Path], *, ordered: bool = False) -> None:
        """Make the output of the parts. The parts stay.

        Args:
            parts: the parts of the job.
            ordered: by line number; each part is already.

        Raises:
            JobError: it could not be written.
        """
        _replace(self.path, lambda temporary: _collect(temporary, parts, ordered))

    def recover(self, summary: Summary) -> None:
        """Add what is in an output that is there.

        Raises:
            JobError: it is no such output.
        """
        _recover(self.path, summary)


class Directory(Output):
    """A directory of bodies, with the records in `index.ndjson`."""

    kind = "directory"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.bodies = self.path

    def check(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise JobError(f"{self.path} is no directory")
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as exc:
            raise JobError(f"cannot make {self.path}: {exc.strerror or exc}") from exc
        _check_directory(self.path)
        _check_directory(self.path.parent)

    def is_there(self) -> bool:
        return (self.path / INDEX).exists()

    def finish(self, parts: Sequence[Path], *, ordered: bool = False) -> None:
        for left in self.path.glob(f"{TEMPORARY}-*"):
            left.unlink(missing_ok=True)
        _replace(self.path / INDEX, lambda temporary: _collect(temporary, parts, ordered))

    def recover(self, summary: Summary) -> None:
        _recover(self.path / INDEX, summary)


class Parquet(Output):
    """A Parquet file; see `parquet.SCHEMA`."""

    kind = "parquet"

    def check(self) -> None:
        # Not imported: it would take the memory that the job is to do without.
        if importlib.util.find_spec("pyarrow") is None:
            raise JobError("Parquet needs the package pyarrow", "pip install 'wirespeed[parquet]'")
        super().check()

    def finish(self, parts: Sequence[Path], *, ordered: bool = False) -> None:
        from .parquet import write

        _replace(self.path, lambda temporary: write(temporary, merged(parts, ordered=ordered)))

    def recover(self, summary: Summary) -> None:
        from .parquet import recover

        recover(self.path, summary)


class Stdout(Output):
    """The standard output: NDJSON, as it comes; nothing is kept of it."""

    kind = "stdout"
    has_state = False

    def check(self) -> None:
        if sys.stdout is None:
            raise JobError("there is no standard output")

    def finish(self, parts: Sequence[Path], *, ordered: bool = False) -> None:
        """Nothing is left to do."""


def output_of(where: "str | os.PathLike[str]") -> Output:
    """The output that is meant by a name.

    `*.parquet` is Parquet, an existing directory or a name with a slash at the end a directory of bodies, `-`
    the standard output, anything else NDJSON.

    Raises:
        JobError: it is no name.
    """
    name = os.fspath(where)
    if not name:
        raise JobError("the output has no name")
    if name == STDOUT:
        return Stdout(Path(name))
    separators = tuple(mark for mark in (os.sep, os.altsep) if mark)
    if name.endswith(separators) or os.path.isdir(name):
        return Directory(Path(name))
    return Parquet(Path(name)) if name.lower().endswith(_PARQUET) else Output(Path(name))


def _check_directory(directory: Path) -> None:
    if not directory.is_dir():
        raise JobError(f"there is no directory {directory}")
    probe = directory / f".wirespeed-{os.getpid()}.tmp"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as exc:
        raise JobError(f"cannot write to {directory}: {exc.strerror or exc}") from exc


def _collect(target: Path, parts: Sequence[Path], ordered: bool) -> None:
    if len(parts) == 1 and not repeats(parts[0]):
        # It is the output; another name for it takes no time and no space.
        try:
            os.link(parts[0], target)
        except OSError:
            shutil.copyfile(parts[0], target)
        return
    with open(target, "wb") as file:
        file.writelines(merged(parts, ordered=ordered))


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Put a file in its place at once."""
    # Always the same name: what a killed process has left, the next one takes. There is one at a time.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        write(temporary)
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise JobError(f"cannot write {path}: {exc.strerror or exc}") from exc


def _sync_directory(directory: Path) -> None:
    """See that a new name is on the disk; the parts are removed next."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _recover(path: Path, summary: Summary) -> None:
    for record in _decoded(path):
        summary.note_record(record)


def _decoded(path: Path) -> Iterator[dict[str, Any]]:
    for raw in records(path):
        record = decode_figures(raw)
        if record is None:
            raise JobError(f"{path} is not the output of a job")
        yield record
