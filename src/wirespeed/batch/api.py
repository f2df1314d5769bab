"""The batch as the user has it: arguments, iteration, progress, and its end."""

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import ClientTimeout
from aiohttp.helpers import sentinel

from .._switch import NATIVE
from .request import Given
from .result import Result
from .source import Source
from .work import Work

if TYPE_CHECKING or not NATIVE:
    from .portable import Drive, Results
else:
    from .._core.drive import Drive, Results

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..policy import Policies, RateLimit, Retry

MAX_BODY = 64 * 2**20
PROGRESS_INTERVAL = 0.25
"""Seconds between calls of `on_progress`."""


@dataclass(frozen=True)
class Progress:
    """How far a batch is.

    Attributes:
        total: requests in all; None where the input does not say.
        taken: requests that were begun.
        done: those of them that have a result.
        failed: results with an error.
        bytes: of bodies received, decoded.
        elapsed: seconds since the batch has begun.
    """

    total: int | None
    taken: int
    done: int
    failed: int
    bytes: int
    elapsed: float


OnProgress = Callable[[Progress], object]


class Batch(Results):
    """The results of very many requests, as they come; made by `session.batch`, see there.

    Iterate it by `async for`. It ends with the last result; sooner by `aclose()`, at the end of `async with`,
    or when nobody has it any more, as after a `break`.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        requests: Iterable[Given] | AsyncIterable[Given],
        *,
        concurrency: int = 100,
        ordered: bool = False,
        retry: "Retry | int | None" = None,
        rate: "RateLimit | float | None" = None,
        timeout: ClientTimeout | float | Any | None = sentinel,
        max_body: int | None = MAX_BODY,
        on_progress: OnProgress | None = None,
    ) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise TypeError(f"concurrency must be an int, not {concurrency!r}")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        if max_body is not None and max_body < 0:
            raise ValueError(f"max_body must not be negative, but is {max_body}")
        if session.closed:
            raise RuntimeError("Session is closed")
        options = {} if timeout is sentinel else {"timeout": timeout}
        self._source = Source(requests)
        work = Work(session, options, _policies(retry, rate), max_body)
        self._requests = Drive(self._source, work, concurrency, ordered)
        self._meter = None if on_progress is None else _Meter(self._requests, self._source.total, on_progress)
        self._drive = self._meter or self._requests

    def progress(self) -> Progress:
        """How far the batch is."""
        return _progress(self._requests, self._source.total)

    async def aclose(self) -> None:
        """Drop what is under way and wait until it is gone. Safe to call twice."""
        ending = self._end()
        if ending:
            await asyncio.wait(ending)

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def _end(self) -> "list[asyncio.Task[Any]]":
        if self._meter is not None:
            self._meter.stop()
        return self._requests.close()

    def __del__(self) -> None:
        drive = vars(self).get("_requests")
        if drive is not None and not drive.is_over and not drive.loop.is_closed():
            # In the next step of the loop: garbage may be collected in the middle of anything, in any thread.
            drive.loop.call_soon_threadsafe(_leave, drive, self._meter)


def _leave(drive: Drive, meter: "_Meter | None") -> None:
    """End a batch that nobody has any more."""
    if meter is not None:
        meter.stop()
    drive.close()


class _Meter:
    """Tells somebody how far a batch is, now and then. It does not know the batch, which may be dropped."""

    def __init__(self, drive: Drive, total: int | None, tell: OnProgress) -> None:
        self._drive, self._total, self._tell = drive, total, tell
        self._timer: asyncio.TimerHandle | None = None

    async def next(self) -> Result:
        if self._drive.begun_at is None:
            self._set()
        try:
            return await self._drive.next()
        finally:
            if self._drive.is_over and self._timer is not None:
                self.stop()
                self._report()

    def _set(self) -> None:
        self._timer = self._drive.loop.call_later(PROGRESS_INTERVAL, self._on_time)

    def _on_time(self) -> None:
        if self._drive.is_over:
            # Somebody else has ended it.
            self._timer = None
        else:
            self._set()
        self._report()

    def _report(self) -> None:
        try:
            self._tell(_progress(self._drive, self._total))
        except Exception as exc:
            self._drive.loop.call_exception_handler({"message": "Error in on_progress", "exception": exc})

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _progress(drive: Drive, total: int | None) -> Progress:
    done = drive.taken - drive.under_way
    elapsed = 0.0 if drive.begun_at is None else drive.loop.time() - drive.begun_at
    return Progress(total, drive.taken, done, drive.failed, drive.size, elapsed)


def _policies(retry: "Retry | int | None", rate: "RateLimit | float | None") -> "Policies | None":
    """What is around each request; a number limits the rate of the batch as a whole."""
    if retry is None and rate is None:
        return None
    # Not before they are wanted: most programs have no policies.
    from ..policy import Policies, RateLimit, Retry
    from ..policy.passage import overall

    if isinstance(retry, int):
        retry = Retry(retry)
    if isinstance(rate, int | float):
        rate = RateLimit(rate, key=overall)
    return Policies(retry=retry, rate=rate)
