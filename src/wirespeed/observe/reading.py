"""What an exporter reads, weakly, from threads that are not its loop's.

Used by the exporters. It reads snapshots only and must not change a connector.
"""

import asyncio
import itertools
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from aiohttp import BaseConnector

from .observer import Readable
from .stats import PoolStats

T = TypeVar("T")

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


class Watched(Generic[T]):
    """A set of objects that does not keep them alive; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # Replaced as a whole, never changed: readers need no lock.
        self.refs: Mapping[int, weakref.ref[T]] = {}

    def add(self, thing: T) -> bool:
        """Watch an object; False when it is watched already."""
        with self._lock:
            alive = {number: ref for number, ref in self.refs.items() if ref() is not None}
            if any(ref() is thing for ref in alive.values()):
                return False
            self.refs = {**alive, next(self._numbers): weakref.ref(thing)}
        return True

    def discard(self, thing: T) -> bool:
        """Stop watching an object; False when it was not watched."""
        with self._lock:
            others = {number: ref for number, ref in self.refs.items() if ref() is not thing}
            was_there = len(others) < len(self.refs)
            self.refs = others
        return was_there


class WatchedConnectors(Watched[Readable]):
    """The connectors that an exporter reads."""

    def read(self) -> dict[int, Mapping[str, PoolStats]]:
        """Take the figures of the connectors that are still there, by number of connector and origin."""
        found = {}
        for number, ref in self.refs.items():
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
