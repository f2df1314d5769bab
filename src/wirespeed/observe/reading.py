"""The connectors that an exporter reads, weakly, from threads that are not their loops'.

Used by the exporters. It reads snapshots only and must not change a connector.
"""

import asyncio
import itertools
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from aiohttp import BaseConnector

from .observer import Readable
from .stats import PoolStats

# What type checkers take `session.connector` for.
MaybeReadable = Readable | BaseConnector | None


def with_methods(connector: object, *names: str) -> Any:
    """Pass on a connector that has these methods.

    Raises:
        TypeError: it is none of wirespeed's.
    """
    if not all(callable(getattr(connector, name, None)) for name in names):
        raise TypeError(f"Expected a connector of wirespeed's, got {connector!r}")
    return connector


class Watched:
    """A set of connectors that does not keep them alive; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # Replaced as a whole, never changed: readers need no lock.
        self._refs: dict[int, weakref.ref[Readable]] = {}

    def add(self, connector: Readable) -> bool:
        """Watch a connector; False when it is watched already."""
        with self._lock:
            alive = {number: ref for number, ref in self._refs.items() if ref() is not None}
            if any(ref() is connector for ref in alive.values()):
                return False
            self._refs = {**alive, next(self._numbers): weakref.ref(connector)}
        return True

    def discard(self, connector: Readable) -> bool:
        """Stop watching a connector; False when it was not watched."""
        with self._lock:
            others = {number: ref for number, ref in self._refs.items() if ref() is not connector}
            was_there = len(others) < len(self._refs)
            self._refs = others
        return was_there

    def read(self) -> dict[int, Mapping[str, PoolStats]]:
        """Take the figures of the connectors that are still there, by number of connector and origin."""
        found = {}
        for number, ref in self._refs.items():
            figures = _figures(ref)
            if figures is not None:
                found[number] = figures
        return found


def _figures(ref: "weakref.ref[Readable]") -> Mapping[str, PoolStats] | None:
    """Read a connector, and let go of it on its loop's thread.

    Its owner may let go of it meanwhile. Ours would then be the last reference, and its finalizer closes
    transports: that has to happen where the loop runs. So the box is emptied there, and no name here
    refers to the connector.
    """
    box: list[Any] = [ref()]
    if box[0] is None:
        return None
    loop = box[0]._loop
    try:
        figures: Mapping[str, PoolStats] = box[0].stats_by_origin()
    finally:
        if not _runs_here(loop):
            try:
                loop.call_soon_threadsafe(box.clear)
            except RuntimeError:
                box.clear()  # The loop is closed, and its transports with it.
    return figures


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
