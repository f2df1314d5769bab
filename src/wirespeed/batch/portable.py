"""The driver without the extension: a task for each request under way.

It has the methods and the behaviour of the core's (`_core/drive.pyx`); one test body holds for both.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Coroutine
from functools import partial
from typing import Any

from .result import Result
from .source import PENDING, Source
from .work import Work

HELD_MAX = 64 * 2**20
"""Bytes of bodies that wait for the consumer, from which on no request is begun; limits.pxd has the same."""


class Results(AsyncIterator[Result]):
    """What iterates a batch; the class of the user's is derived from it."""

    _drive: Any

    def __anext__(self) -> Awaitable[Result]:
        """Wait for the next result."""
        return self._drive.next()  # type: ignore[no-any-return]


class Drive:
    """The requests of one batch.

    Taken and not yet handed over are at most twice `concurrency`: as many under way, as many waiting for the
    consumer, or in an ordered batch for an earlier one.

    Args:
        source: where the requests come from.
        work: makes results of them.
        concurrency: requests under way at the same time, at most.
        is_ordered: results are handed over in the order of the requests.

    Attributes:
        taken: requests taken from the source.
        under_way: those of them that have no result yet.
        failed: results with an error.
        size: bytes of all bodies.
        begun_at: loop time at which the first result was asked for; None before.
    """

    def __init__(self, source: Source, work: Work, concurrency: int, is_ordered: bool) -> None:
        self._source = source
        self._work = work
        self.loop = work.session._loop
        self._context = contextvars.copy_context()
        self._concurrency = concurrency
        self._is_ordered = is_ordered
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ready: deque[Result] = deque()
        self._early: dict[int, Result] = {}  # of an ordered batch, waiting for earlier ones
        self._held = 0
        self._given = 0
        self._has_ended = self._is_closed = self._is_filling = self._is_stalled = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.taken = self.under_way = self.failed = self.size = 0
        self.begun_at: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to come any more, and nothing under way."""
        return self._is_closed or (self._has_ended and not self.under_way and not self._ready)

    # The consumer's side

    def next(self) -> Coroutine[Any, Any, Result]:
        """Wait for the next result.

        Raises, when awaited:
            StopAsyncIteration: there are no more, or the batch was closed.
            RuntimeError: somebody else waits already; or the session was closed.
            What the source has raised, after all results of what came before.
        """
        return self._next()

    async def _next(self) -> Result:
        if self.begun_at is None:
            self.begun_at = self.loop.time()
            self._source.start(self._concurrency, self.fill)
            self.fill()
        while not self._ready:
            if self._is_closed or (self._has_ended and not self.under_way):
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("another coroutine already waits for the next result of this batch")
            self._waiter = self.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        result = self._ready.popleft()
        self._given += 1
        self._held -= len(result.body)
        if self._is_stalled:
            # Not here: a source of nothing but errors would keep the loop from everything else.
            self._is_stalled = False
            self.loop.call_soon(self.fill)
        return result

    def close(self) -> "list[asyncio.Task[Any]]":
        """Stop taking, drop what is under way. Safe to call twice.

        Returns:
            The tasks that are about to end.
        """
        if self._is_closed:
            return []
        self._is_closed = True
        self._ready.clear()
        self._early.clear()
        for task in self._tasks:
            task.cancel()
        self._wake()
        return [*self._tasks, *self._source.close()]

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The source's side

    def fill(self) -> None:
        """Begin as many requests as there is room for."""
        if self._is_filling:
            return
        self._is_filling = True
        try:
            while self._has_room():
                try:
                    given = self._source.take()
                except StopIteration:
                    self._end(None)
                except (Exception, asyncio.CancelledError) as exc:
                    self._end(exc)
                else:
                    if given is PENDING:
                        break
                    self._begin(given)
        finally:
            self._is_filling = False

    def _has_room(self) -> bool:
        if self._is_closed or self._has_ended or self.under_way >= self._concurrency:
            return False
        self._is_stalled = self.taken - self._given >= 2 * self._concurrency or self._held >= HELD_MAX
        return not self._is_stalled

    def _end(self, error: BaseException | None) -> None:
        """There are no more requests."""
        if self._has_ended:
            return
        self._has_ended = True
        self._error = error
        if not self.under_way:
            self._wake()

    # Requests

    def _begin(self, given: Any) -> None:
        if self._work.session.closed:
            # The request that was taken gets to know it as well.
            self._end(RuntimeError("Session is closed"))
        index = self.taken
        self.taken += 1
        self.under_way += 1
        # In a context of its own each: this may be a step of the source, or of another request.
        task = self._context.copy().run(self.loop.create_task, self._work.perform(given, index))
        self._tasks.add(task)
        task.add_done_callback(partial(self._on_done, given, index))

    def _on_done(self, given: Any, index: int, task: "asyncio.Task[Result]") -> None:
        self._tasks.discard(task)
        if self._is_closed:
            return
        if task.cancelled():
            # By somebody else, such as a middleware.
            self._finish(self._work.failed(given, index, asyncio.CancelledError(), 0.0))
        else:
            self._finish(task.result())

    def _finish(self, result: Result) -> None:
        """Hand over a result, and begin the next request."""
        self.under_way -= 1
        self.size += len(result.body)
        self._held += len(result.body)
        self.failed += result.error is not None
        if not self._is_ordered:
            self._ready.append(result)
        else:
            self._early[result.index] = result
            while (found := self._early.pop(self._given + len(self._ready), None)) is not None:
                self._ready.append(found)
        self._wake()
        self.fill()
