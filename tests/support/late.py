"""A file that is read late: in a thread, for an upload that was broken off meanwhile."""

import asyncio
import io
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.local import Exchange

# Seconds. Who reads a file for two uploads at once does not take as long; who does not, waits for it.
MOMENT = 0.2


class LateFile(io.BufferedReader):
    """A file of which one operation lasts until somebody else has read two pieces, or a moment at most.

    Args:
        path: of the file.
        operation: "seek" or "read".
        number: which of them, from 1 on.
    """

    def __init__(self, path: Path, operation: str, number: int = 1) -> None:
        super().__init__(io.FileIO(path))
        self._late = (operation, number)
        self._calls: Counter[str] = Counter()
        self._thread = 0
        self._pieces = 0
        self.has_begun = threading.Event()
        self._is_overtaken = threading.Event()
        self._is_done = threading.Event()

    def _count(self, operation: str) -> None:
        self._calls[operation] += 1
        if (operation, self._calls[operation]) == self._late:
            self._thread = threading.get_ident()
            self.has_begun.set()
            self._is_overtaken.wait(MOMENT)

    def seek(self, *args: Any) -> int:
        self._count("seek")
        return super().seek(*args)

    def read(self, *args: Any) -> bytes:
        if self.has_begun.is_set() and threading.get_ident() != self._thread:
            self._pieces += 1
            if self._pieces == 3:
                self._is_overtaken.set()
                self._is_done.wait(MOMENT)
        self._count("read")
        data = super().read(*args)
        if threading.get_ident() == self._thread:
            self._is_done.set()
        return data


def once_late(file: LateFile, then: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """Do something with a request when its body's file is being read late."""

    def act(exchange: Exchange) -> None:
        if file.has_begun.is_set():
            then(exchange)
        else:
            asyncio.get_running_loop().call_later(0.001, act, exchange)

    return act
