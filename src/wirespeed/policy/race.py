"""Attempts at the same request that race: the first answer that will do is taken, the others are let go.

Used for hedged requests, of which one in twenty comes to a second attempt. So the first attempt runs in its
caller's task, and costs a timer; later ones have tasks of their own, and interrupt it when they win, as
`asyncio.timeout` does. It must not decide when to hedge, nor know what attempts are made of.
"""

import abc
import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from aiohttp import ClientResponse

Attempted = asyncio.Task[ClientResponse]

# CPython 3.11 and later count who wants a task cancelled.
_COUNTS = hasattr(asyncio.Task, "uncancel")


def let_go(task: Attempted) -> None:
    """Cancel an attempt, and close the response that it may have got all the same."""
    if not task.done():
        task.cancel()
        task.add_done_callback(let_go)
    elif not task.cancelled() and task.exception() is None:
        task.result().close()


class Race(abc.ABC):
    """A first attempt, and others that join while there is no answer.

    Args:
        delay: seconds after which another attempt may join; None for never.
        most: how many may join.
    """

    __slots__ = (
        "_before", "_delay", "_joined", "_loop", "_most", "_number", "_running", "_task", "_timer", "_waiter",
        "_winner",
    )  # fmt: skip

    def __init__(self, delay: float | None, most: int) -> None:
        self._delay = delay
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._running: dict[Attempted, int] = {}  # those that have joined, by number
        self._joined = self._number = 0
        self._waiter: asyncio.Future[None] | None = None
        self._winner: Attempted | None = None
        self._task: Any = None  # the first attempt's; None once that has ended
        self._before = 0
        self._timer: asyncio.TimerHandle | None = None

    # What is raced

    @abc.abstractmethod
    def due(self) -> float:
        """Seconds until another attempt is to join; 0 or less for now."""

    @abc.abstractmethod
    def another(self) -> Coroutine[Any, Any, ClientResponse] | None:
        """Another attempt; None for no more."""

    @abc.abstractmethod
    def will_do(self, resp: ClientResponse) -> bool:
        """Whether a response is worth giving up the other attempts for."""

    @abc.abstractmethod
    def is_over(self) -> bool:
        """Whether the time for all attempts has passed; the first was told of it, the others may not know."""

    @abc.abstractmethod
    def on_end(self, number: int) -> None:
        """The response of an attempt is taken; the first attempt has number 0."""

    # The race

    async def run(self, first: Awaitable[ClientResponse]) -> ClientResponse:
        """Race, from the start of the first attempt.

        Returns, and raises:
            As `finish`.
        """
        self.enter(asyncio.current_task())
        if self._delay is not None:
            self._timer = self._loop.call_later(self._delay, self.on_time)
        resp = error = None
        try:
            try:
                resp = await first
            except BaseException as exc:
                error = exc
            return await self.finish(resp, error)
        finally:
            del error  # its traceback holds this frame

    def enter(self, task: Any) -> None:
        """Note the task of the first attempt, which a winner interrupts."""
        self._task = task
        if _COUNTS:
            self._before = task.cancelling()

    async def finish(self, resp: ClientResponse | None, error: BaseException | None) -> ClientResponse:
        """Go on from what the first attempt has come to; called by its task.

        Args:
            resp: its response, or None.
            error: what it has raised, or None.

        Returns:
            The first response that will do, or the first attempt's. All other attempts were let go.

        Raises:
            What the first attempt has raised, where no other has an answer that will do.
        """
        try:
            if self._winner is not None:
                # Taken back whatever the first attempt has made of it.
                is_ours = self._takes_back()
                if is_ours and isinstance(error, asyncio.CancelledError):
                    error = None
            if error is not None and not isinstance(error, Exception):
                raise error
            self._task = None
            if self._running and self._winner is None and self._is_open(resp):
                await self._others()
            if self._winner is not None:
                if resp is not None:
                    resp.close()
                self.on_end(self._number)
                return self._winner.result()
            if error is not None:
                raise error
            assert resp is not None
            self.on_end(0)
            return resp
        except BaseException:
            if resp is not None:
                resp.close()  # one that would not do, while the others were waited for
            if self._winner is not None:
                let_go(self._winner)
            raise
        finally:
            self._task = None
            if self._timer is not None:
                self._timer.cancel()
            while self._running:
                let_go(self._running.popitem()[0])
            del error  # its traceback holds this frame

    def _is_open(self, resp: ClientResponse | None) -> bool:
        """Whether the other attempts are worth waiting for after what the first one has come to."""
        return not self.is_over() if resp is None else not self.will_do(resp)

    def _takes_back(self) -> bool:
        """Take back our cancelling; false where somebody else wants the first attempt cancelled, too."""
        assert self._task is not None
        return not _COUNTS or self._task.uncancel() <= self._before

    async def _others(self) -> None:
        """Wait for an attempt that will do, or until there is none left."""
        while self._running and self._winner is None:
            self._waiter = self._loop.create_future()
            await self._waiter

    def on_time(self) -> None:
        """The delay is over: let another attempt join, where one is due."""
        left = self.due()
        if left <= 0:
            attempt = self.another()
            if attempt is None:
                return
            task = self._loop.create_task(attempt)
            self._joined += 1
            self._running[task] = self._joined
            task.add_done_callback(self._on_end)
            if self._joined == self._most:
                return
            left = self._delay or 0.0
        self._timer = self._loop.call_later(left, self.on_time)

    def _on_end(self, task: Attempted) -> None:
        number = self._running.pop(task, None)
        if number is None:
            return  # it was let go
        if (
            self._winner is None
            and not task.cancelled()
            and task.exception() is None
            and self.will_do(task.result())
        ):
            self._winner, self._number = task, number
            if self._task is not None:
                self._task.cancel()
        else:
            let_go(task)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
