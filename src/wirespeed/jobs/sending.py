"""Lines, sent as a batch, into a part."""

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import ClientTimeout, DummyCookieJar

from .._switch import NATIVE
from ..batch import Batch, Progress
from ..client import ClientSession
from ..loops import run
from ..testing.machine import raise_file_limit
from .bodies import write_body
from .errors import JobError
from .intake import Intake, Waiting
from .lines import Line
from .parts import PartWriter, Raw
from .records import encode, encode_bad
from .settings import Settings
from .summary import Summary

if TYPE_CHECKING or NATIVE:
    from ..connector import TCPConnector
else:
    from ..fallback import TCPConnector

OPEN_FACTOR = 2
"""Connections for each request under way, those among them that wait for their host's next request."""
FILES_USUAL = 200
"""Connections from which on more open files may be needed than systems usually allow: 256 on macOS."""
PROGRESS_INTERVAL = 0.25
"""Seconds between calls of `on_progress`."""
STOP_INTERVAL = 0.1
"""Seconds between looks at `stop`."""
RATE_DRAIN = 10.0
"""Seconds that requests under way have after a stop where there is a rate: most of them wait for it."""

OnProgress = Callable[[Progress], object]
Stop = Any
"""An object with `is_set()`, or a callable: whether to stop."""


def run_part(
    lines: "Iterable[Line] | Waiting",
    settings: Settings,
    path: "str | os.PathLike[str]",
    *,
    bodies: Path | None = None,
    ordered: bool = False,
    on_progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Send the requests of lines and append their records to a file, on a loop of its own.

    Args:
        lines: what to send; lines with an error are recorded as such.
        settings: how to send it.
        path: of the part; made where it is missing. It is whole when this returns.
        bodies: a directory for the bodies; None for bodies in the records.
        ordered: write records in the order of the lines.
        on_progress: called four times a second and at the end, on the loop.
        stop: asks for the end: no more lines are taken, what is under way is finished and recorded. Where
            there is a rate, what is not finished 10 s later is left for another time.

    Returns:
        The figures of these lines.

    Raises:
        JobError: it could not be written; what was written before is there.
        RuntimeError: called on a running loop.
    """

    async def send() -> Summary:
        sending = Sending(settings, bodies=bodies, ordered=ordered, on_progress=on_progress, stop=stop)
        try:
            file = open(path, "ab", buffering=0)  # noqa: SIM115, ASYNC230 -- `send` closes it
            await sending.send(lines, file)
        except OSError as exc:
            raise cannot_write(path, exc) from exc
        return sending.summary

    return run(send())


def cannot_write(path: "str | os.PathLike[str]", exc: OSError) -> JobError:
    """What a job says when its records cannot be written."""
    where = exc.filename if exc.filename is not None else path
    return JobError(f"cannot write {os.fspath(where)}: {exc.strerror or exc}")


class Sending:
    """One batch of lines, from the intake to a part.

    Args:
        as for `run_part`.
        before: figures that the progress starts from.
        total: lines in all, as far as known.

    Attributes:
        summary: of these lines.
        is_complete: whether all lines have a record.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bodies: Path | None = None,
        ordered: bool = False,
        on_progress: OnProgress | None = None,
        stop: Stop | None = None,
        before: Summary | None = None,
        total: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._bodies = bodies
        self._ordered = ordered
        self._on_progress = on_progress
        self._should_stop: Callable[[], bool] | None = getattr(stop, "is_set", stop)
        self._before = before or Summary()
        self._total = total
        self.summary = Summary()
        self.is_complete = False
        self._is_stopped = False

    async def send(self, lines: "Iterable[Line] | Waiting", file: Raw, *, is_synced: bool = True) -> None:
        """Send all of it. Closes the file.

        Raises:
            OSError: it could not be written.
            What `lines` raises.
        """
        settings, loop = self._settings, asyncio.get_running_loop()
        self._begun_at = loop.time()
        self._intake = Intake(lines)
        self._look()
        writer = PartWriter(file, is_synced=is_synced)
        # Idle ones are counted: of very many hosts each would be kept for its next request.
        most = OPEN_FACTOR * settings.concurrency
        if most > FILES_USUAL:
            raise_file_limit()
        connector = TCPConnector(limit=settings.concurrency, limit_per_host=settings.per_host, max_open=most)
        try:
            # No cookies: what one request brings must not change another, which may be on another machine,
            # and a jar of very many hosts grows without end.
            async with ClientSession(
                connector=connector, headers=settings.headers, cookie_jar=DummyCookieJar()
            ) as session:
                self._batch = session.batch(
                    self._intake.requests(),
                    concurrency=settings.concurrency,
                    ordered=self._ordered,
                    retry=settings.retries or None,
                    rate=settings.rate,
                    timeout=ClientTimeout(total=settings.timeout or None),
                    max_body=settings.max_body,
                )
                watch = asyncio.ensure_future(self._watch(writer))
                try:
                    async with self._batch:
                        await self._record(self._batch, writer)
                finally:
                    watch.cancel()
                    await asyncio.wait([watch])
        finally:
            await writer.close()
            self.is_complete = self._intake.is_done
            self.summary.seconds = loop.time() - self._begun_at
            self._report()

    async def _record(self, batch: Batch, writer: PartWriter) -> None:
        intake, summary, bodies = self._intake, self.summary, self._bodies
        pop, note, add = intake.pop, summary.note, writer.add
        async for result in batch:
            line = pop(result.index)
            if line.request is None:
                add(encode_bad(line))
                summary.note_bad(line.number, line.error or "")
                continue
            if bodies is None or result.error is not None:
                add(encode(line, result))
            else:
                add(encode(line, result, write_body(bodies, line.number, result)))
            note(result)

    # Beside it

    async def _watch(self, writer: PartWriter) -> None:
        """Look whether to stop, and tell how far it is."""
        told_at = self._begun_at
        while True:
            await asyncio.sleep(STOP_INTERVAL)
            if self._look() and self._settings.rate is not None:
                asyncio.get_running_loop().call_later(RATE_DRAIN, self._drop)
            if writer.error is not None:
                # There may be no result for long, and nowhere to put it.
                self._drop()
            now = asyncio.get_running_loop().time()
            if now - told_at >= PROGRESS_INTERVAL:
                told_at = now
                self._report()

    def _look(self) -> bool:
        """Look whether to stop; true when it is time, once."""
        if self._is_stopped or self._should_stop is None or not self._should_stop():
            return False
        self._is_stopped = True
        self._intake.stop()
        return True

    def _drop(self) -> None:
        self._dropping = asyncio.ensure_future(self._batch.aclose())

    def _report(self) -> None:
        if self._on_progress is None:
            return
        done, before, loop = self.summary, self._before, asyncio.get_running_loop()
        progress = Progress(
            total=self._total(),
            taken=before.done + self._intake.taken,
            done=before.done + done.done,
            failed=before.failed + done.failed,
            bytes=before.bytes + done.bytes,
            elapsed=loop.time() - self._begun_at,
        )
        try:
            self._on_progress(progress)
        except Exception as exc:
            loop.call_exception_handler({"message": "Error in on_progress", "exception": exc})
