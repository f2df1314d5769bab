"""A part: a file of records that is only appended to.

What is written is the kernel's, and survives the process whatever kills it. `fsync` is for the machine: every
few seconds and at the end, so that a power cut costs seconds of work. One for each record would cost more
than the request.
"""

import asyncio
import os
import select
from collections.abc import Generator
from typing import Protocol

from .lineset import LineSet
from .records import decode_figures
from .summary import Summary

FLUSH_SIZE = 256 * 2**10
"""Bytes of records from which on they are written at once."""
FLUSH_INTERVAL = 0.05
"""Seconds after which any record is written: what a crash costs."""
SYNC_INTERVAL = 5.0
"""Seconds between calls of `fsync`: what a power cut costs. As Linux's own for dirty pages."""


class Raw(Protocol):
    """An unbuffered binary file."""

    def write(self, data: bytes | memoryview, /) -> int | None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class PartWriter:
    """Appends records to a file; made and used on a running loop, and for nobody else.

    Args:
        file: unbuffered, as `open(path, "ab", buffering=0)`; closed by `close`.
        is_synced: whether to `fsync` it: not for a pipe or a terminal.

    Attributes:
        error: why a record could not be written, while nobody has been told.
    """

    def __init__(self, file: Raw, *, is_synced: bool = True) -> None:
        self._file: Raw | None = file
        self._is_synced = is_synced
        self._loop = asyncio.get_running_loop()
        self._records: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._syncing: asyncio.Future[None] | None = None
        self._synced_at = self._loop.time()
        self.error: OSError | None = None

    def add(self, record: bytes) -> None:
        """Append a record: at once when there is much to write, else within 50 ms.

        Raises:
            OSError: it, or an earlier one, could not be written.
        """
        self._records.append(record)
        self._size += len(record)
        if self._size >= FLUSH_SIZE:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_INTERVAL, self._on_time)

    def flush(self) -> None:
        """Write what there is.

        Raises:
            OSError: it, or an earlier one, could not be written.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.error is not None:
            raise self.error
        if self._file is None or not self._records:
            return
        data = b"".join(self._records)
        self._records.clear()
        self._size = 0
        try:
            write_all(self._file, data)
        except OSError as exc:
            self.error = exc
            raise

    def _on_time(self) -> None:
        self._timer = None
        try:
            self.flush()
        except OSError:
            # The next `add` or `close` tells.
            return
        now = self._loop.time()
        if (
            self._file is not None
            and self._is_synced
            and now >= self._synced_at + SYNC_INTERVAL
            and not self._is_syncing()
        ):
            self._synced_at = now
            self._syncing = self._loop.run_in_executor(None, os.fsync, self._file.fileno())

    def _is_syncing(self) -> bool:
        return self._syncing is not None and not self._syncing.done()

    async def close(self) -> None:
        """Write what there is, and see that it is on the disk. Safe to call twice.

        Raises:
            OSError: something could not be written.
        """
        file = self._file
        if file is None:
            return
        try:
            self.flush()
        finally:
            self._file = None
            try:
                if self._syncing is not None:
                    await asyncio.wait([self._syncing])
                    self._syncing.exception()
                if self._is_synced:
                    os.fsync(file.fileno())
            finally:
                file.close()


def write_all(file: Raw, data: bytes) -> None:
    """Write all of it, however little the file takes at a time.

    Raises:
        OSError: it could not be written; a disk that fills up takes a part of it before.
    """
    view = memoryview(data)
    while view:
        written = file.write(view)
        if written is None:
            # A pipe that somebody else has set not to block.
            select.select([], [file], [])
        else:
            view = view[written:]


def recover(path: "str | os.PathLike[str]", done: LineSet, summary: Summary) -> int:
    """Add what is in a part, and cut off what follows its last whole record.

    Args:
        path: of the part.
        done: lines that are done; grows. A record of a line that is in is not counted again.
        summary: what they came to; grows.

    Returns:
        Bytes that were cut off.
    """
    whole = 0
    with open(path, "r+b") as file:
        for raw in file:
            record = decode_figures(raw)
            if record is None:
                break
            whole += len(raw)
            if done.add(record["line"]):
                summary.note_record(record)
        torn = file.seek(0, os.SEEK_END) - whole
        if torn:
            written = os.fstat(file.fileno())
            file.truncate(whole)
            # The time of the last record stays that of the part.
            os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    return torn


def records(path: "str | os.PathLike[str]") -> Generator[bytes, None, None]:
    """The records of a part that has been recovered or closed, as they are; a generator."""
    with open(path, "rb") as file:
        yield from file
