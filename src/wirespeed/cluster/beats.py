"""How far running shards are, and whether their session goes on, by small files in the job's directory.

There is no connection between who waits for a shard and who does it, other than through schedulers that know
beginning and end alone. A directory they have in common anyway.
"""

import contextlib
import os
from pathlib import Path
from types import TracebackType

from .shards import Shard

_SESSION = "session-"
_BEAT = "beat-"

Counts = tuple[int, int, int, int]
"""Of a shard: lines taken, done, failed; bytes of bodies."""


def session_of(name: str) -> str:
    """The session of a shard, by its name."""
    return name.partition("-")[0]


def is_on(shard: Shard) -> bool:
    """Whether the session of a shard goes on. A directory that is gone is no session."""
    return os.path.exists(f"{shard.directory}/{_SESSION}{session_of(shard.name)}")


class Session:
    """The time in which this process waits for shards: they take no more lines when it ends.

    Args:
        directory: of the job's state.
        token: names it; no `-` in it.
    """

    def __init__(self, directory: Path, token: str) -> None:
        self.token = token
        self._directory = directory
        self._file = directory / f"{_SESSION}{token}"

    def begin(self) -> None:
        """Begin it. Earlier ones, of processes that are no more, end with it.

        Raises:
            OSError: it cannot be written.
        """
        for pattern in (f"{_SESSION}*", f"{_BEAT}*"):
            for left in self._directory.glob(pattern):
                left.unlink(missing_ok=True)
        self._file.touch()

    def end(self) -> None:
        """End it. Safe to call twice."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)

    def counts(self, shard: Shard) -> Counts:
        """How far a shard is; zeros where nothing is known."""
        try:
            taken, done, failed, size = map(int, _path(shard, self._directory).read_bytes().split())
        except (OSError, ValueError):
            return 0, 0, 0, 0
        return taken, done, failed, size

    def forget(self, shard: Shard) -> None:
        """A shard has ended."""
        with contextlib.suppress(OSError):
            _path(shard, self._directory).unlink(missing_ok=True)


class Beat:
    """Says how far a shard is; nothing depends on it, so it never fails."""

    def __init__(self, shard: Shard) -> None:
        self._path = _path(shard, Path(shard.directory))
        self._file: int | None = None

    def __enter__(self) -> "Beat":
        with contextlib.suppress(OSError):
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o666)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)

    def write(self, *counts: int) -> None:
        """Say it: taken, done, failed, bytes."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                # Of one length, so that each overwrites the last.
                os.lseek(self._file, 0, os.SEEK_SET)
                os.write(self._file, b" ".join(b"%20d" % count for count in counts))


def _path(shard: Shard, directory: Path) -> Path:
    return directory / f"{_BEAT}{shard.name}"
