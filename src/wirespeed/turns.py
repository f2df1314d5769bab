"""Files as bodies that are sent again: read for one upload at a time.

aiohttp reads files in threads, and a thread goes on when the upload that it reads for is cancelled. What it
reads or seeks then is missing in the upload that begins meanwhile, or is in there twice. Called by whoever
sends bodies: the express lane, and policies, whose session may be aiohttp's. It must not decide what is sent
again.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import MultipartWriter
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import IOBasePayload

_T = TypeVar("_T")

_CLASSES_MAX = 64
"""aiohttp has four; others may be made at run time."""


def take_turns(body: Any) -> None:
    """Make a body, or the parts of a form, such that each upload of it ends the reads of the one before.

    Args:
        body: a request's; what aiohttp does not read in threads remains as it is. None and b"" are none.
    """
    cls: Any = type(body)
    if getattr(cls, "write_with_length", None) is IOBasePayload.write_with_length:
        body.__class__ = _in_turns(cls)
        body._reading = threading.Lock()
    elif isinstance(body, MultipartWriter):
        for part, _, _ in body._parts:
            take_turns(part)


class _InTurns(IOBasePayload):
    """A file that knows which upload is to read it."""

    _reading: threading.Lock  # held by the thread that reads
    _uploads = 0  # that have begun; only the last one may read

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._uploads += 1
        if not _is_seekable(self._value):
            # aiohttp notes that in the thread, perhaps after somebody has asked.
            self._consumed = True
        # aiohttp's loop over the pieces, with the reads of this upload. The file must not know them: what is
        # in a cycle is closed late.
        reads: Any = _Reads(self)
        await IOBasePayload.write_with_length(reads, writer, content_length)


def _is_seekable(file: Any) -> bool:
    """Whether a file says so; one that does not say is left to aiohttp, which tries."""
    try:
        return bool(file.seekable())
    except (AttributeError, OSError, ValueError):
        return True


@functools.lru_cache(_CLASSES_MAX)
def _in_turns(cls: type[IOBasePayload]) -> Any:
    return type(cls.__name__, (_InTurns, cls), {"__module__": cls.__module__})


class _Reads:
    """A file as one upload sees it, in aiohttp's loop and in threads."""

    __slots__ = ("_file", "_number")

    def __init__(self, file: _InTurns) -> None:
        self._file = file
        self._number = file._uploads

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def _read_and_available_len(self, size: int | None) -> tuple[int | None, bytes]:
        return self._take(self._file._read_and_available_len, size)

    def _read(self, size: int | None) -> bytes:
        return self._take(self._file._read, size)

    def _take(self, read: Callable[[int | None], _T], size: int | None) -> _T:
        """Read, after what is being read for the upload before; in a thread.

        Raises:
            RuntimeError: another upload has begun. Nothing was read.
        """
        with self._file._reading:
            if self._number != self._file._uploads:
                raise RuntimeError("Another upload of the same file has begun")
            return read(size)
