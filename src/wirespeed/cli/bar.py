"""The progress of `wirespeed fetch` on a terminal: done, rate, errors, bytes, and when it will be over.

Nothing is shown where there is no terminal. It is told how far the job is a few times a second, and
drawn by a thread of rich's; so it must not be asked to print from a signal handler, which may have
interrupted it.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

WINDOW: Final = 10.0
"""Seconds that the rate shown, and the time left, are taken from."""
_REFRESHES: Final = 4
"""Per second. The bar shares a core with the requests."""
_SHOW_CURSOR: Final = b"\x1b[?25h\n"
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB")


class How(Protocol):
    """How far a job is; `batch.Progress` is one."""

    @property
    def total(self) -> int | None: ...
    @property
    def done(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def bytes(self) -> int: ...


class Speed:
    """Requests per second over the last moments, of a count that may begin anywhere, as after a resume.

    Args:
        clock: seconds; injected by tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, done: int) -> None:
        """Take a sample of the count."""
        now = self._clock()
        self._samples.append((now, done))
        # One older than the window stays: with it, the samples span all of it.
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()

    @property
    def per_second(self) -> float | None:
        """None as long as there is nothing to take it from."""
        if len(self._samples) < 2:
            return None
        (begun_at, before), (ended_at, after) = self._samples[0], self._samples[-1]
        return (after - before) / (ended_at - begun_at) if ended_at > begun_at else None

    def seconds_for(self, count: int) -> float | None:
        """Return how long so many more will take; None where that cannot be told."""
        rate = self.per_second
        return None if not rate else max(count, 0) / rate


class Bar:
    """The bar, as a context manager.

    Args:
        err: where it is drawn, if that is a terminal.
        is_wanted: False draws nothing.
    """

    def __init__(self, err: Console, *, is_wanted: bool = True) -> None:
        self._speed = Speed()
        self._is_shown = is_wanted and err.is_terminal
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=err,
            transient=True,
            refresh_per_second=_REFRESHES,
            disable=not self._is_shown,
        )
        self._task = self._bar.add_task("", total=None, figures="starting")

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def show(self, how: How) -> None:
        """Show how far the job is."""
        if self._is_shown:
            self._speed.note(how.done)
            shown = figures(how, self._speed)
            self._bar.update(self._task, completed=how.done, total=how.total, figures=shown)

    def say(self, text: str) -> bool:
        """Show a word beside the figures.

        Returns:
            Whether there is a bar to show it on.
        """
        if self._is_shown:
            self._bar.update(self._task, description=text)
        return self._is_shown

    def abandon(self) -> None:
        """Leave the terminal usable at once, without waiting for whoever draws. Safe in a signal handler."""
        if self._is_shown:
            with contextlib.suppress(OSError):
                os.write(2, _SHOW_CURSOR)


def figures(how: How, speed: Speed) -> str:
    """Return what stands beside the bar."""
    of = "" if how.total is None else f"/{how.total:,}"
    parts = [f"{how.done:,}{of}"]
    if (rate := speed.per_second) is not None:
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
    parts.append(f"{how.failed:,} failed")
    parts.append(amount(how.bytes))
    if how.total is not None and (left := speed.seconds_for(how.total - how.done)) is not None:
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def amount(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == _UNITS[0] else f"{count:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time in hours, minutes and seconds; a short one with its fraction of a second."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return str(timedelta(seconds=round(seconds)))
