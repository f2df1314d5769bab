"""Who does the shards: an executor, and what has to be known of it besides `submit`."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any

from ..jobs import JobError

_ORPHANED = 1
"""Exit code of a worker whose parent is gone; nobody is left to see it."""
_AHEAD_MAX = 8
"""Shards that wait at an executor: whichever worker is free next takes one."""
GUARD = (
    'a script that fetches with workers must do so below `if __name__ == "__main__":`, '
    "since each worker imports it"
)


class Crew:
    """An executor of somebody else's: used as it is, and left as it is.

    Args:
        executor: runs shards.
        slots: how many at the same time; None for what the executor says.

    Attributes:
        slots: how many shards can run at the same time.
        ahead: how many more may wait at the executor, so that no worker waits for this process.
        dies_together: whether the end of one worker is that of all that run.
    """

    dies_together = True

    def __init__(self, executor: Executor, slots: int | None = None) -> None:
        self._executor = executor
        self.slots = slots or self._slots()
        self.ahead = min(self.slots, _AHEAD_MAX)

    def _slots(self) -> int:
        # Of ProcessPoolExecutor and ThreadPoolExecutor, and of most that are modelled on them.
        found = getattr(self._executor, "_max_workers", None)
        return found if isinstance(found, int) and found > 0 else os.cpu_count() or 1

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        """Give it something to do.

        Raises:
            BrokenExecutor: it has lost a worker, and with it all that ran.
            JobError: it takes nothing more.
        """
        try:
            return self._executor.submit(function, *args)
        except BrokenExecutor:
            raise
        except Exception as exc:
            raise JobError(f"the executor takes no more work: {exc}") from exc

    def is_death(self, exc: BaseException) -> bool:
        """Whether that is the end of a worker, not of what it did."""
        return isinstance(exc, BrokenExecutor)

    def is_lost(self, exc: BaseException) -> bool:
        """Whether nobody knows what became of it."""
        return isinstance(exc, CancelledError)

    def renew(self) -> None:
        """Go on after the executor has broken.

        Raises:
            JobError: it cannot.
        """
        raise JobError("the executor is broken: a worker has ended abruptly")

    def trouble(self) -> str | None:
        """Why nothing can be heard of the workers at present; None where all is well."""
        return None

    def close(self, *, is_hard: bool = False) -> None:
        """Let go of it.

        Args:
            is_hard: do not wait for what runs; for executors of our own.
        """


class OwnCrew(Crew):
    """Processes of our own, on this machine, each a new interpreter: nothing of a parent with threads and
    loops is copied.

    Args:
        workers: how many; None for one for each core.
    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers or os.cpu_count() or 1
        super().__init__(self._new(), self._workers)

    @staticmethod
    def check() -> None:
        """See that this process may start others; before anything else is done.

        Raises:
            RuntimeError: it is being started itself, and imports the script that did.
        """
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            raise RuntimeError(GUARD)

    def _new(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._workers, mp_context=context, initializer=prepare_process)

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        # It may start processes.
        with _without_interrupts():
            return super().submit(function, *args)

    def renew(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._executor = self._new()

    def close(self, *, is_hard: bool = False) -> None:
        if is_hard:
            for process in list((getattr(self._executor, "_processes", None) or {}).values()):
                with contextlib.suppress(ValueError, OSError):
                    process.kill()
        self._executor.shutdown(wait=True, cancel_futures=True)


def prepare_process() -> None:
    """What a worker process does first: it leaves Ctrl-C to its parent, and does not outlive it.

    A terminal's Ctrl-C goes to all processes; the parent decides when its workers end. A parent that is
    killed says nothing: its workers would wait for work for ever, since each holds both ends of the queue.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="parent", daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(_ORPHANED)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile begin with Ctrl-C held back, until they have said what they want.

    This process loses none: what comes meanwhile comes afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
