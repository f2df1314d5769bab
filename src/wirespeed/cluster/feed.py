"""Lines as they come: taken in a thread where the next may be long in coming, as of a pipe.

Meanwhile the scheduler has reports to take, and Ctrl-C to heed.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ..jobs import Line

AHEAD_MAX = 2_000
"""Lines that are read before anybody wants them."""
_END = object()


class Feed:
    """Lines, one at a time.

    Args:
        lines: the lines.
        may_wait: whether the next may be long in coming.

    Attributes:
        is_pending: whether there was none at hand when one was wanted last, and more may come.
        has_ended: whether there are no more.
    """

    def __init__(self, lines: Iterator[Line], *, may_wait: bool) -> None:
        self.is_pending = self.has_ended = False
        self._take: Callable[[], Any]
        if not may_wait:
            self._take = lambda: next(lines, _END)
            return
        self._lines = lines
        self._queue: queue.Queue[Any] = queue.Queue(AHEAD_MAX)
        self._take = self._queue.get_nowait
        # It cannot be woken while it waits for a line: it ends with the process.
        threading.Thread(target=self._read, name="wirespeed-input", daemon=True).start()

    def next(self) -> Line | None:
        """The next line; None where there is none at hand, see the attributes.

        Raises:
            What the lines raise.
        """
        if self.has_ended:
            return None
        try:
            line = self._take()
        except queue.Empty:
            self.is_pending = True
            return None
        self.is_pending = False
        if isinstance(line, Line):
            return line
        self.has_ended = True
        if line is _END:
            return None
        raise line

    def _read(self) -> None:
        try:
            for line in self._lines:
                self._queue.put(line)
            self._queue.put(_END)
        except Exception as exc:
            self._queue.put(exc)
