"""A part: a file of records that is only appended to."""

import os
from collections.abc import Iterator
from typing import BinaryIO

from .lineset import LineSet
from .summary import Summary


class PartWriter:
    """Appends records to a file. Not for more than one loop or thread.

    Args:
        file: raw and unbuffered, as `open(path, "ab", buffering=0)`; closed by `close`.
        is_synced: whether to `fsync` it, at times and at the end: not for a pipe or a terminal.
    """

    def __init__(self, file: BinaryIO, *, is_synced: bool = True) -> None:
        raise NotImplementedError

    def add(self, record: bytes) -> None:
        """Append a record: at once when there is much to write, else within 50 ms.

        Raises:
            OSError: it, or an earlier one, could not be written.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Write what there is, and see that it is on the disk. Safe to call twice."""
        raise NotImplementedError


def recover(path: "str | os.PathLike[str]", done: LineSet, summary: Summary) -> int:
    """Add what is in a part; cut off what follows its last whole record."""
    raise NotImplementedError


def records(path: "str | os.PathLike[str]") -> Iterator[bytes]:
    """The whole records of a part, as they are."""
    raise NotImplementedError
