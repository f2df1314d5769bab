"""Lines on their way into a batch: which of them are under way, and the end of the intake.

Lines with an error go into the batch, too: there they are values that are no requests, and come back at once
as results. So they keep their place, wait for a slow consumer like others, and thousands of them in a row do
not hold up the loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from .lines import Line

AHEAD_MAX = 256
"""Lines that are read ahead where reading may have to wait."""
_END = object()


class Intake:
    """Gives a batch its requests, and tells which line a result belongs to.

    Args:
        lines: the lines; a `Waiting` where taking the next may block.

    Attributes:
        taken: lines that were taken.
        has_ended: whether there were no more.
    """

    def __init__(self, lines: "Iterable[Line] | Waiting") -> None:
        self._lines = lines
        self._under_way: dict[int, Line] = {}
        self._is_stopped = False
        self.taken = 0
        self.has_ended = False

    def requests(self) -> Any:
        """What the batch takes: an iterator, or an async iterator."""
        return self._ahead(self._lines) if isinstance(self._lines, Waiting) else self._each(self._lines)

    def pop(self, index: int) -> Line:
        """The line of the result with that index, which is under way no longer."""
        return self._under_way.pop(index)

    @property
    def is_done(self) -> bool:
        """Whether all lines were taken, and none is under way."""
        return self.has_ended and not self._under_way

    def stop(self) -> None:
        """Take no more lines."""
        self._is_stopped = True
        if isinstance(self._lines, Waiting):
            self._lines.close()

    def _begin(self, line: Line) -> Any:
        self._under_way[self.taken] = line
        self.taken += 1
        return line if line.request is None else line.request

    def _each(self, lines: Iterable[Line]) -> Iterator[Any]:
        for line in lines:
            if self._is_stopped:
                return
            yield self._begin(line)
        self.has_ended = True

    async def _ahead(self, lines: "Waiting") -> AsyncIterator[Any]:
        lines.start()
        try:
            async for line in lines:
                if self._is_stopped:
                    return
                yield self._begin(line)
            self.has_ended = not self._is_stopped
        finally:
            lines.close()


class Waiting(AsyncIterator[Line]):
    """Lines of an iterator that may have to wait for the next, as for a pipe: taken in a thread.

    The thread cannot be woken while it waits. It is a daemon, and ends with the next line or the process.
    """

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = lines
        self._at_hand: deque[Any] = deque()
        self._room = threading.Semaphore(AHEAD_MAX)
        self._more = asyncio.Event()
        self._is_wanted = self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to read; call it on the loop."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, name="wirespeed-input", daemon=True).start()

    def close(self) -> None:
        """End the iteration."""
        self._is_closed = True
        self._more.set()
        self._room.release()

    async def __anext__(self) -> Line:
        while not self._at_hand and not self._is_closed:
            self._more.clear()
            # In this order: what the thread appends after the look at `_at_hand` finds that it is wanted.
            self._is_wanted = True
            if not self._at_hand:
                await self._more.wait()
        if self._is_closed:
            raise StopAsyncIteration
        line = self._at_hand.popleft()
        self._room.release()
        if isinstance(line, Line):
            return line
        self.close()
        if line is _END:
            raise StopAsyncIteration
        raise line

    # In the thread

    def _read(self) -> None:
        try:
            for line in self._lines:
                self._room.acquire()
                if self._is_closed:
                    return
                self._put(line)
            self._put(_END)
        except Exception as exc:
            self._put(exc)

    def _put(self, item: Any) -> None:
        self._at_hand.append(item)
        if self._is_wanted:
            self._is_wanted = False
            try:
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._more.set)
            except RuntimeError:
                # The loop has been closed meanwhile.
                self._is_closed = True
