"""The total time of a request around code of the user's: aiohttp's TimerContext on the pool's one timer.

Whoever is inside when the time passes is cancelled, and the cancellation becomes a TimeoutError where it
leaves. Called by requests with middlewares or traces, and by aiohttp's code that is given one for a timer. It
must not know requests.
"""

import asyncio

cdef object _current_task = asyncio.current_task
cdef object _CancelledError = asyncio.CancelledError
# CPython 3.11 and later count who wants a task cancelled.
cdef bint COUNTS = hasattr(asyncio.Task, "uncancel")


cdef class Clock(Deadline):
    """A timer that is entered with `with`, by any number of tasks.

    Args:
        loop: the event loop.
        deadlines: of the pool.
        at: loop time at which it passes.

    Attributes:
        deadline: loop time at which it passes, or would have passed when it was stopped before.
        has_passed: whether it has passed, and whoever was inside was cancelled.
    """

    def __cinit__(self):
        self.tasks = []

    def __init__(self, loop, Deadlines deadlines not None, double at):
        self.loop = loop
        self.deadline = at
        self.start(deadlines)

    # The time

    cdef int start(self, Deadlines deadlines) except -1:
        return deadlines.set(self, self.deadline)

    def stop(self):
        """Let the time not pass any more. Safe to call twice."""
        self._unlink()
        if self.handle is not None:
            self.handle.cancel()
            self.handle = None

    cdef int _on_deadline(self, double now) except -1:
        self._pass()
        return 0

    cdef int _on_forgotten(self) except -1:
        # A session was closed while code of the user's goes on.
        self._unlink()
        if not self.loop.is_closed():
            self.handle = self.loop.call_at(self.deadline, self._pass)
        return 0

    def _pass(self):
        self.handle = None
        if not self.has_passed:
            self.has_passed = True
            for task in set(self.tasks):
                task.cancel()

    # Inside

    cdef int enter(self) except -1:
        if self.is_handed_over:
            self.is_handed_over = False
            return 0
        task = _current_task(self.loop)
        if task is None:
            raise RuntimeError("Timeout context manager should be used inside a task")
        if self.has_passed:
            raise asyncio.TimeoutError from None
        if not self.tasks:
            if COUNTS:
                self.cancelling = task.cancelling()
        elif self.tasks[0] is not task:
            self.has_others = True
        self.tasks.append(task)
        return 0

    cdef int leave(self, object exc) except -1:
        """Leave with an exception, or None; raise TimeoutError where the exception is our cancellation."""
        task = self._take_leaver() if self.has_others else self.tasks.pop() if self.tasks else None
        if self.has_passed and type(exc) is _CancelledError:
            if COUNTS and task.uncancel() > self.cancelling:
                # Somebody else has cancelled it, too.
                return 0
            raise asyncio.TimeoutError from exc
        return 0

    cdef object _take_leaver(self):
        """Attempts side by side leave in any order; a cancelling is taken back from whom it was for."""
        task = _current_task(self.loop)
        if task in self.tasks:
            self.tasks.remove(task)
            return task
        return self.tasks.pop() if self.tasks else None

    def hand_over(self):
        """Let whoever enters next, in the same step, go on inside."""
        self.is_handed_over = True

    # What aiohttp calls

    def assert_timeout(self):
        """Raise TimeoutError when the time has passed."""
        if self.has_passed:
            raise asyncio.TimeoutError from None

    def __enter__(self):
        self.enter()
        return self

    def __exit__(self, kind, exc, traceback):
        self.leave(exc if kind is not None and exc is not None else None)
