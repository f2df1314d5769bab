"""Shards: lines grouped by host, as many at a time as are worth a trip to a worker.

Lines are packed as they are read: bytes are small, their size is known, and they go to a worker as they are.
"""

import contextlib
import os
import pickle
import time
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

from ..batch import Request
from ..jobs import Line, Settings
from .feed import Feed

SIZE_MAX = 5_000
"""Requests of a shard: a second of a fast server's work, next to which a trip to a worker is noise."""
SECONDS = 10.0
"""Seconds after which a shard takes no more lines: the rate is divided anew, others may have the rest."""
_AIM = 0.8 * SECONDS
"""Seconds of work that shards are made for: most of them end by themselves."""
PATIENCE = 0.3
"""Seconds to wait for a shard to fill up, where lines are slow in coming."""
BYTES_MAX = 4 * 2**20
"""Bytes of a shard's packed lines. Dask warns of what is sent to its scheduler from 10 MB on."""
HELD_MAX = 4 * SIZE_MAX
"""Lines held back until some host has a shard full."""
HELD_BYTES_MAX = 8 * BYTES_MAX
_SIZE_LEAST = 50
"""Requests of a shard, where there are as many and no rate is lower."""
_LEAST = _AIM / SIZE_MAX
"""Seconds for a request, below which it makes no difference."""
_WEIGHT = 0.3
"""Of the latest shard, in the mean of how long requests take."""

SPILLED = "lines-"
"""How names of files begin that have the lines of a shard."""
Packed = tuple[int, bytes]
"""The number of a line, and the line."""


@dataclass(frozen=True)
class Shard:
    """Some lines, and all that a worker has to know to do them; picklable.

    Attributes:
        name: of its own in the job, in all its sessions; part of the names of its files.
        attempt: how often it was begun before. Makes it another task for schedulers that remember results.
        count: how many lines it has.
        lines: packed; or the path of a file that has them, where the worker can read it.
        settings: how to send them; `rate` is the shard's share.
        directory: the state of the job.
        bodies: directory for the bodies; None for bodies in the records.
        is_ordered: whether records are in the order of the lines.
    """

    name: str
    attempt: int
    count: int
    lines: "tuple[Packed, ...] | str"
    settings: Settings
    directory: str
    bodies: str | None
    is_ordered: bool

    def __len__(self) -> int:
        return self.count

    def packed(self) -> tuple[Packed, ...]:
        """Its lines, by their numbers.

        Raises:
            OSError: the file that has them cannot be read.
        """
        if not isinstance(self.lines, str):
            return self.lines
        lines: tuple[Packed, ...] = pickle.loads(Path(self.lines).read_bytes())
        return lines

    def spilled(self, directory: Path) -> "Shard":
        """The same with its lines in a file, for workers that can read it.

        A pipe to processes takes 64 KiB, and CPython before 3.12 waits for ever for a worker that died while
        it should have read the rest. A scheduler has better things to do, too.

        Raises:
            OSError: it cannot be written.
        """
        path = directory / f"{SPILLED}{self.name}"
        path.write_bytes(pickle.dumps(self.packed(), pickle.HIGHEST_PROTOCOL))
        return replace(self, lines=str(path))

    def forget(self) -> None:
        """Remove the file; it is done."""
        if isinstance(self.lines, str):
            with contextlib.suppress(OSError):
                os.unlink(self.lines)

    def again(self, rate: float | None) -> "Shard":
        """The same for another attempt, with another share of the rate."""
        return replace(self, attempt=self.attempt + 1, settings=replace(self.settings, rate=rate))

    def __dask_tokenize__(self) -> tuple[str, int]:
        # Dask's own would look into each line.
        return self.name, self.attempt


def pack(line: Line) -> bytes:
    """A line as bytes."""
    request = line.request
    if request is None:
        return pickle.dumps((line.number, None, line.error), pickle.HIGHEST_PROTOCOL)
    fields = (
        request.method, request.url, request.params, request.headers, request.json, request.data, request.id,
    )  # fmt: skip
    return pickle.dumps((line.number, fields, line.error), pickle.HIGHEST_PROTOCOL)


def unpack(packed: Packed) -> Line:
    """The line again."""
    number, fields, error = pickle.loads(packed[1])
    return Line(number, None if fields is None else Request(*fields), error)


def host_of(line: Line) -> str:
    """What lines are grouped by: scheme, host and port, or something near it; "" for a line without."""
    if line.request is None:
        return ""
    url = line.request.url
    if not isinstance(url, str):
        return str(url.origin()) if url.absolute else ""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return ""
    for mark in "/?#":
        rest = rest.partition(mark)[0]
    return f"{scheme}://{rest.rpartition('@')[2]}".lower()


class Shelf:
    """Lines by their hosts, read as they are needed. At most `HELD_MAX` of them, of so many bytes, are held.

    Args:
        feed: of the lines.

    Attributes:
        held: lines that were read and not taken.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._hosts: dict[str, list[Packed]] = {}
        self._bytes = 0
        self._taken_at = time.monotonic()
        self.held = 0

    @property
    def has_ended(self) -> bool:
        """Whether there are no more lines to read."""
        return self._feed.has_ended

    def take(self, size: int) -> list[Packed]:
        """Take up to so many lines of as few hosts as may be, in the order of their numbers.

        It reads until a host has as many, or no more can be held; then the hosts that have most are first.

        Returns:
            The lines; none at the end, or where it is better to wait for more.

        Raises:
            What the lines raise.
        """
        full = self._fill(size)
        now = time.monotonic()
        if self._feed.is_pending and self.held < size and now - self._taken_at < PATIENCE:
            return []
        self._taken_at = now
        taken: list[Packed] = []
        room = BYTES_MAX
        # A sort of all hosts takes less than reading the lines did: one for each shard.
        hosts = [full] if full is not None else sorted(self._hosts, key=self._count, reverse=True)
        for host in hosts:
            room = self._move(host, taken, size, room)
            if len(taken) >= size or room <= 0:
                break
        taken.sort(key=itemgetter(0))
        return taken

    def _count(self, host: str) -> int:
        return len(self._hosts[host])

    def _fill(self, size: int) -> str | None:
        """Read on. Returns a host that has enough for a shard; None where none has."""
        for host, waiting in self._hosts.items():
            if len(waiting) >= size:
                return host
        while self.held < HELD_MAX and self._bytes < HELD_BYTES_MAX:
            line = self._feed.next()
            if line is None:
                break
            host = host_of(line)
            waiting = self._hosts.setdefault(host, [])
            waiting.append((line.number, _packed(line)))
            self._bytes += len(waiting[-1][1])
            self.held += 1
            if len(waiting) >= size:
                return host
        return None

    def _move(self, host: str, taken: list[Packed], size: int, room: int) -> int:
        """Take lines of a host, the earliest first. Returns how many bytes there is room for still."""
        waiting = self._hosts[host]
        count = 0
        for packed in waiting:
            if len(taken) >= size or room <= 0:
                break
            taken.append(packed)
            room -= len(packed[1])
            self._bytes -= len(packed[1])
            count += 1
        self.held -= count
        if count == len(waiting):
            del self._hosts[host]
        else:
            del waiting[:count]
        return room


def _packed(line: Line) -> bytes:
    try:
        return pack(line)
    except Exception as exc:
        # A file, a generator: whatever cannot be pickled raises as it likes.
        return pack(Line(line.number, None, f"the request cannot be sent to a worker: {exc}"))


class Sizes:
    """How large the next shard should be, by what those before have shown.

    Args:
        concurrency: requests under way in a shard.
    """

    def __init__(self, concurrency: int) -> None:
        # Nothing is known yet: as if each took a second.
        self._seconds = 1 / concurrency
        self._is_known = False

    def note(self, requests: int, seconds: float) -> None:
        """A shard has taken so long for so many requests."""
        if not requests:
            return
        each = seconds / requests
        self._seconds = self._seconds + _WEIGHT * (each - self._seconds) if self._is_known else each
        self._is_known = True

    def next(self, rate: float | None, left: int | None, slots: int) -> int:
        """Requests of the next shard.

        Args:
            rate: its share of the rate.
            left: lines that are in no shard yet; None where nobody knows.
            slots: shards that run at the same time.
        """
        size = min(SIZE_MAX, max(_SIZE_LEAST, int(_AIM / max(self._seconds, _LEAST))))
        if left is not None:
            # Half of what is left, in equal parts: the last shards are small, and end together.
            size = min(size, max(_SIZE_LEAST, -(-left // (2 * slots))))
        if rate is not None:
            size = min(size, max(1, int(_AIM * rate)))
        return size
