"""Where the lines of a job come from, and whether it is the same input when it is resumed."""

import os
import stat
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

from yarl import URL

from ..batch import Request
from .errors import JobError
from .lines import Line, read, unique

STDIN = "-"
_STDIN_DESCRIPTOR = 0
_BLOCK = 2**20

Input = "str | os.PathLike[str] | Iterable[Line | Request | URL | str]"


class Source:
    """The lines of an input.

    Args:
        given: path of a file, "-" for the standard input, or lines or requests.
        method: of lines that say none.
        dedup: pass over requests that are the same as an earlier one.

    Raises:
        JobError: there is no such file, or it cannot be read.

    Attributes:
        identity: what tells whether an input is the same: path, size and digest of a file.
        count: lines of a file; None where it can be read but once.
        may_wait: whether the next line may be long in coming, as of a pipe.
    """

    def __init__(self, given: Any, *, method: str, dedup: bool) -> None:
        self._given, self._method, self._dedup = given, method, dedup
        self.identity: dict[str, Any] = {"path": None}
        self.count: int | None = None
        self.may_wait = False
        if isinstance(given, str | os.PathLike):
            self._path = os.fspath(given)
            self.identity = {"path": self._path if self._path == STDIN else os.path.realpath(self._path)}
            self.may_wait = self._path == STDIN or not os.path.isfile(self._path)
            try:
                self._look()
            except OSError as exc:
                raise _cannot_read(self._path, exc) from exc

    def _look(self) -> None:
        """See that it can be read. A file is read once for its digest and its lines, at about 1 GB/s."""
        if self._path == STDIN:
            os.fstat(_STDIN_DESCRIPTOR)
            return
        if stat.S_ISDIR(os.stat(self._path).st_mode):
            raise JobError(f"cannot read {self._path}: it is a directory")
        if self.may_wait:
            return
        digest, size, count, last = blake2b(digest_size=16), 0, 0, b"\n"
        with open(self._path, "rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
                count += block.count(b"\n")
                last = block[-1:]
        self.count = count + (last != b"\n")
        self.identity |= {"size": size, "digest": digest.hexdigest()}

    def lines(self) -> Iterator[Line]:
        """The lines, read as they are asked for.

        Raises:
            JobError: the input cannot be read any more.
        """
        if not isinstance(self._given, str | os.PathLike):
            yield from _numbered(self._given, self._dedup)
            return
        try:
            # Of its own: the interpreter ends while a thread waits for the next line of it.
            is_stdin = self._path == STDIN
            with open(_STDIN_DESCRIPTOR if is_stdin else self._path, "rb", closefd=not is_stdin) as file:
                yield from read(file, method=self._method, dedup=self._dedup)
        except OSError as exc:
            raise _cannot_read(self._path, exc) from exc


def _numbered(requests: Iterable[Any], dedup: bool) -> Iterator[Line]:
    lines = (_line(number, given) for number, given in enumerate(requests, 1))
    yield from unique(lines) if dedup else lines


def _line(number: int, given: Any) -> Line:
    if isinstance(given, Line):
        return given
    if isinstance(given, Request):
        return Line(number, given)
    if isinstance(given, str | URL):
        return Line(number, Request("GET", given))
    return Line(number, None, f"no URL and no wirespeed.Request, but {type(given).__name__}: {given!r:.80}")


def _cannot_read(path: str, exc: OSError) -> JobError:
    name = "the standard input" if path == STDIN else path
    return JobError(f"cannot read {name}: {exc.strerror or exc}")
