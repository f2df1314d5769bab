"""Parts of shards, copied to the standard output as they become whole."""

from collections.abc import Iterable
from pathlib import Path

from ..jobs import JobError
from ..jobs.merging import merged
from ..jobs.parts import records, write_all

_DESCRIPTOR = 1
_BLOCK = 2**18
"""Bytes that are written at a time."""


class Stdout:
    """The standard output of a job.

    Args:
        ordered: by the numbers of lines: nothing is written before the end.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._parts: list[Path] = []

    def take(self, part: Path) -> None:
        """A part is whole.

        Raises:
            JobError: it could not be written.
        """
        if self._ordered:
            self._parts.append(part)
            return
        _write(records(part))
        part.unlink()

    def finish(self) -> None:
        """There are no more parts.

        Raises:
            JobError: they could not be written.
        """
        _write(merged(self._parts, ordered=True))


def _write(lines: Iterable[bytes]) -> None:
    try:
        with open(_DESCRIPTOR, "wb", buffering=0, closefd=False) as file:
            waiting = bytearray()
            for line in lines:
                waiting += line
                if len(waiting) >= _BLOCK:
                    write_all(file, bytes(waiting))
                    waiting.clear()
            write_all(file, bytes(waiting))
    except OSError as exc:
        raise JobError(f"cannot write the standard output: {exc.strerror or exc}") from exc
