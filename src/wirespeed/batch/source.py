"""Where a batch has its requests from: an iterable, or an async iterable, taken one by one."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

PENDING: Any = object()
"""What `take` returns when there is nothing at hand, and more may come."""

AHEAD_MAX = 64
"""Requests that are taken from an async iterable before there is room for them."""


class Source:
    """The requests of a batch, one by one.

    Args:
        requests: an iterable or an async iterable.

    Attributes:
        take: returns the next request, or PENDING; raises StopIteration after the last, or what the iterable
            raises.
        total: how many there will be; None where nobody knows.

    Raises:
        TypeError: it is neither, or it is one URL.
    """

    def __init__(self, requests: Any) -> None:
        if isinstance(requests, str | bytes):
            raise TypeError(f"a batch takes an iterable of requests, not one {type(requests).__name__}")
        self._feeder: _Feeder | None = None
        self.take: Callable[[], Any]
        if isinstance(requests, AsyncIterable):
            self._feeder = _Feeder(requests)
            self.take = self._feeder.take
        elif isinstance(requests, Iterable):
            self.take = iter(requests).__next__
        else:
            raise TypeError(f"a batch takes an iterable or an async iterable, not {type(requests).__name__}")
        try:
            self.total: int | None = len(requests)
        except TypeError:
            self.total = None

    PENDING = PENDING

    def start(self, ahead: int, on_more: Callable[[], object]) -> None:
        """Begin to take requests from an async iterable; call it in a task's context.

        Args:
            ahead: how many are kept at hand.
            on_more: called when there is one more at hand, or none any more.
        """
        if self._feeder is not None:
            self._feeder.start(min(ahead, AHEAD_MAX), on_more)

    def close(self) -> "list[asyncio.Task[Any]]":
        """Take no more. Returns tasks that are about to end."""
        return [] if self._feeder is None else self._feeder.close()


class _Feeder:
    """Takes requests from an async iterable, in a task."""

    def __init__(self, requests: AsyncIterable[Any]) -> None:
        self._items = aiter(requests)
        self._at_hand: deque[Any] = deque()
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._has_ended = self._is_closed = False
        self._error: BaseException | None = None

    def start(self, ahead: int, on_more: Callable[[], object]) -> None:
        self._task = asyncio.get_running_loop().create_task(self._feed(ahead, on_more))

    def take(self) -> Any:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._at_hand:
            return self._at_hand.popleft()
        if not self._has_ended:
            return PENDING
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    async def _feed(self, ahead: int, on_more: Callable[[], object]) -> None:
        try:
            try:
                await self._take_all(ahead, on_more)
            finally:
                # A generator that is left in its middle would wait for the garbage collector.
                close = getattr(self._items, "aclose", None)
                if close is not None:
                    await close()
        except (Exception, asyncio.CancelledError) as exc:
            # What was cancelled may be something that the iterable waited for.
            self._on_error(exc)
        finally:
            self._has_ended = True
            on_more()

    async def _take_all(self, ahead: int, on_more: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        async for item in self._items:
            if self._is_closed:
                # It has swallowed the cancellation.
                return
            self._at_hand.append(item)
            on_more()
            while len(self._at_hand) >= ahead:
                self._room = loop.create_future()
                await self._room

    def _on_error(self, exc: BaseException) -> None:
        if not self._is_closed:
            self._error = exc
        elif isinstance(exc, Exception):
            asyncio.get_running_loop().call_exception_handler(
                {"message": "Error in closing the requests of a batch", "exception": exc}
            )

    def close(self) -> "list[asyncio.Task[Any]]":
        self._is_closed = True
        if self._task is None or self._task.done():
            return []
        self._task.cancel()
        return [self._task]
