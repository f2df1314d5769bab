"""What an observer of a connector is told, and what exporters need of a connector. Contracts only."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from .reasons import CloseReason
from .stats import PoolStats


class Observer(Protocol):
    """An object that `connector.add_observer()` takes; its methods are called on the loop, as it happens.

    They have to return soon and must not raise. Nothing is called, or computed for it, while a connector
    has no observer.
    """

    def request_ended(
        self, origin: str, method: str, status: int | None, duration: float, error: BaseException | None
    ) -> None:
        """Take note of one attempt; redirects and retries are attempts of their own.

        Args:
            origin: such as "https://example.org" or "http://127.0.0.1:8080".
            method: as it was sent.
            status: that of the response; None when none came.
            duration: seconds.
            error: how the attempt failed; None when it did not.
        """

    def connection_closed(self, origin: str, duration: float, reason: CloseReason) -> None:
        """Take note of the end of a connection.

        Args:
            origin: what it was connected to.
            duration: seconds since it was made.
            reason: why it was closed.
        """


class Readable(Protocol):
    """A connector whose figures can be read, from any thread."""

    _loop: asyncio.AbstractEventLoop

    def stats_by_origin(self) -> Mapping[str, PoolStats]: ...


class Observable(Readable, Protocol):
    """A connector that tells observers, too; they are added and removed on its loop's thread."""

    def add_observer(self, observer: Observer) -> None: ...

    def remove_observer(self, observer: Observer) -> None: ...
