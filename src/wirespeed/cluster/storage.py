"""Outputs in object storage, by fsspec: `s3://bucket/out.ndjson`, and the state of the job beside it.

Workers make each part on their own disk and upload it whole, this process downloads it from there: bodies go
through storage, never through a scheduler, and no file system is shared. What is in storage is enough to go
on elsewhere. What it cannot do: tell how far a shard is before its end, tell a shard that the session has
ended, and lock. That only one process works on a job is up to the user.
"""

import importlib
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..jobs import Job, JobError, Report
from ..jobs.leftovers import part_of
from .beats import Session, session_of
from .shards import Shard

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(::[a-zA-Z0-9+.-]+)*://")
_STATE = ".partial"
_JOB = "job.json"
_PART = re.compile(r"part-[^/]*\.ndjson")


def is_url(where: "str | os.PathLike[str]") -> bool:
    """Whether it is a place in some storage, and no path."""
    return _URL.match(os.fspath(where)) is not None


class Storage:
    """A directory in storage.

    Args:
        url: of it.

    Raises:
        JobError: fsspec, or what it needs for such a URL, is not installed, or refuses it.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            fsspec = importlib.import_module("fsspec")
        except ImportError:
            raise JobError(f"{url} needs the package fsspec", "pip install 'wirespeed[storage]'") from None
        with self._trouble("use", ""):
            self._fs, self._path = fsspec.core.url_to_fs(self.url)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        with self._trouble("read", name):
            return bool(self._fs.exists(self._at(name)))

    def names(self) -> list[str]:
        """The names of all files."""
        with self._trouble("read", ""):
            # Listings are cached, and are of before.
            self._fs.invalidate_cache()
            if not self._fs.exists(self._path):
                return []
            return [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._path, detail=False)]

    def get(self, name: str, target: Path) -> None:
        """Download a file; it appears whole or not at all."""
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.tmp")
        with self._trouble("read", name):
            try:
                self._fs.get_file(self._at(name), str(temporary))
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def put(self, source: Path, name: str) -> None:
        """Upload a file; it appears whole or not at all, also where storage is a directory."""
        temporary = self._at(f"{name}.{uuid.uuid4().hex[:12]}.tmp")
        with self._trouble("write", name):
            self._fs.makedirs(self._path, exist_ok=True)
            self._fs.put_file(str(source), temporary)
            self._fs.mv(temporary, self._at(name))

    def remove(self, first: str) -> None:
        """Remove all of it, one file before the others."""
        with self._trouble("remove", ""):
            self._fs.rm_file(self._at(first))
        # Without the first nobody takes the rest for anything.
        with suppress(Exception):
            self._fs.rm(self._path, recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    @contextmanager
    def _trouble(self, what: str, name: str) -> Iterator[None]:
        """Each storage has errors of its own."""
        try:
            yield
        except Exception as exc:
            where = f"{self.url}/{name}" if name else self.url
            raise JobError(f"cannot {what} {where}: {exc}") from exc


class Mirror:
    """A job whose output is in storage, as one whose output is here; a context manager.

    Args:
        job: the job.

    Raises:
        JobError: storage cannot be used, or has no directories of bodies.

    Attributes:
        job: the same with an output in a directory of our own, and with the state that storage has.
        state: of the job, in storage.
    """

    def __init__(self, job: Job) -> None:
        self._output = os.fspath(job.output)
        base, _, self._name = self._output.rpartition("/")
        if not self._name:
            raise JobError(
                f"{self._output} would be a directory of bodies, which must be on a file system",
                "name an NDJSON or Parquet file",
            )
        self._base = Storage(base)
        self.state = Storage(f"{self._output}{_STATE}")
        self._here = tempfile.TemporaryDirectory(prefix="wirespeed-", ignore_cleanup_errors=True)
        self._directory = Path(self._here.name)
        self._partial = self._directory / f"{self._name}{_STATE}"
        self.job = replace(job, output=self._directory / self._name)

    def __enter__(self) -> "Mirror":
        try:
            names = self.state.names()
            if _JOB in names:
                self._partial.mkdir()
                for name in names:
                    if name == _JOB or (self.job.resume and _PART.fullmatch(name)):
                        self.state.get(name, self._partial / name)
            elif self.job.resume and self._base.exists(self._name):
                self._base.get(self._name, self._directory / self._name)
        except BaseException:
            self._here.cleanup()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._here.cleanup()

    def begin(self) -> None:
        """Say in storage what the job is; called before anything is sent."""
        self.state.put(self._partial / _JOB, _JOB)

    def collect(self, shard: Shard) -> None:
        """Get the part of a shard that is done."""
        part = part_of(self._partial, shard.name)
        if not part.exists():
            self.state.get(part.name, part)

    def give_up(self, shard: Shard) -> None:
        """Keep the part of a shard that was made here."""
        part = part_of(self._partial, shard.name)
        self.state.put(part, part.name)

    def publish(self) -> None:
        """The output is made: put it where it belongs, and remove the state."""
        self._base.put(self._directory / self._name, self._name)
        self.state.remove(_JOB)

    def named(self, report: Report) -> Report:
        """A report of the job as it was given."""
        return replace(report, output=self._output)

    def renamed(self, exc: JobError) -> JobError:
        """An error in words of the job as it was given."""
        return JobError(exc.message.replace(f"{self._directory}{os.sep}", f"{self._base.url}/"), exc.hint)


def in_storage(shard: Shard, do: "Callable[[Shard], Any]") -> Any:
    """Do a shard whose state is in storage on the disk of this machine.

    Args:
        shard: the shard.
        do: does one whose state is in a directory.
    """
    storage = Storage(shard.directory)
    with tempfile.TemporaryDirectory(prefix="wirespeed-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        part = part_of(directory, shard.name)
        Session(directory, session_of(shard.name)).begin()
        is_done = storage.exists(part.name)
        if is_done:
            storage.get(part.name, part)
        report = do(replace(shard, directory=name))
        if not is_done:
            storage.put(part, part.name)
    return report
