"""Many deadlines, one loop timer. Called by the pool, its waiters, exchanges and connections.

A `loop.call_later` and a cancel for each request cost about 2 µs at high concurrency. Here
setting a deadline links it into the bucket of its millisecond, unsetting it unlinks it, and
the loop knows one timer, for the earliest bucket. A bucket that emptied meanwhile is thrown
away when its time comes. It must not decide anything: what a deadline means is its owner's.
"""

from heapq import heappop, heappush
from time import perf_counter

cimport cython
from libc.math cimport ceil

from wirespeed._core.limits cimport NEVER, TICKS_PER_SECOND

cdef extern from *:
    """
    #ifdef __linux__
    #include <time.h>
    /* What time.perf_counter() reads there. */
    static inline double wirespeed_clock(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    }
    #else
    static inline double wirespeed_clock(void) { return -1.0; }
    #endif
    """
    double wirespeed_clock() noexcept nogil

# What is called for the time; None for the system's clock, read without Python.
cdef object _clock = None


def use_clock(clock=None):
    """Read another clock of ages and durations than the system's; for tests.

    Args:
        clock: called for seconds; None for what `time.perf_counter` reads.
    """
    global _clock
    _clock = clock if clock is not None or wirespeed_clock() >= 0 else perf_counter


use_clock()


@cython.no_gc
cdef class Deadline:
    """Something that has to happen at a time unless it is unset before."""

    def __dealloc__(self):
        self._unlink()

    cdef int _on_deadline(self, double now) except -1:
        raise NotImplementedError

    cdef int _on_forgotten(self) except -1:
        self._unlink()
        return 0

    cdef void _unlink(self) noexcept:
        if self._bucket is None:
            return
        if self._before is not NULL:
            (<Deadline> self._before)._after = self._after
        else:
            self._bucket.first = self._after
        if self._after is not NULL:
            (<Deadline> self._after)._before = self._before
        self._before = self._after = NULL
        self._bucket = None

    @property
    def is_set(self):
        """Whether the deadline is armed."""
        return self._bucket is not None


@cython.final
@cython.no_gc
cdef class Bucket:
    """The deadlines of one millisecond; holds no reference, so it takes no part in cycles."""

    cdef void _push(self, Deadline deadline) noexcept:
        deadline._bucket = self
        deadline._before = NULL
        deadline._after = self.first
        if self.first is not NULL:
            (<Deadline> self.first)._before = <void*> deadline
        self.first = <void*> deadline


@cython.final
cdef class Deadlines:
    """The deadlines of one pool, on one timer of its loop.

    Args:
        loop: the event loop whose clock and timer are used.
    """

    def __cinit__(self, loop):
        self._loop = loop
        self._handle = None
        self._buckets = {}
        self._ticks = []
        self._recent = None

    cdef double time(self) except -1:
        return self._loop.time()

    cdef double now(self) except -1:
        """The clock of ages and durations; the loop's has milliseconds, and stands still in a callback."""
        return wirespeed_clock() if _clock is None else _clock()

    cdef int set(self, Deadline deadline, double when) except -1:
        """Call `deadline._on_deadline` at `when`, seconds of loop time, rounded up to a millisecond."""
        cdef long long tick
        cdef Bucket bucket = self._recent
        if not when < NEVER:
            # Centuries away, infinite or not a number: nothing to wait for.
            deadline._unlink()
            return 0
        tick = <long long> ceil(when * TICKS_PER_SECOND)
        if tick / <double> TICKS_PER_SECOND < when:
            # The product was rounded down to a whole number.
            tick += 1
        if tick <= self._served:
            # Set anew by a deadline that is being served: never in the same round.
            tick = self._served + 1
        deadline._unlink()
        if bucket is None or bucket.tick != tick:
            found = self._buckets.get(tick)
            if found is None:
                bucket = Bucket.__new__(Bucket)
                bucket.tick = tick
                self._buckets[tick] = bucket
                heappush(self._ticks, tick)
            else:
                bucket = <Bucket> found
            self._recent = bucket
        bucket._push(deadline)
        if self._handle is None or tick < self._armed_for:
            self._rearm(tick)
        return 0

    cdef int _rearm(self, long long tick) except -1:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_for = tick
        self._handle = self._loop.call_at(tick / <double> TICKS_PER_SECOND, self._on_timer)
        return 0

    def _on_timer(self):
        """Serve every bucket whose time has come, then arm the timer for the next one in use."""
        cdef Bucket bucket
        cdef Deadline deadline
        cdef double now = self._loop.time()
        # The loop may wake a fraction of its clock's resolution early.
        cdef long long tick = max(<long long> (now * TICKS_PER_SECOND), self._armed_for)
        self._handle = None
        self._served = tick
        while self._ticks:
            bucket = <Bucket> self._buckets[self._ticks[0]]
            if bucket.tick > tick and bucket.first is not NULL:
                break
            heappop(self._ticks)
            del self._buckets[bucket.tick]
            if self._recent is bucket:
                self._recent = None
            self._serving = bucket
            while bucket.first is not NULL:
                deadline = <Deadline> bucket.first
                deadline._unlink()
                try:
                    deadline._on_deadline(max(now, bucket.tick / <double> TICKS_PER_SECOND))
                except Exception as exc:
                    self._loop.call_exception_handler(
                        {"message": f"Error in a deadline of {deadline!r}", "exception": exc}
                    )
        self._serving = None
        if self._ticks and self._handle is None:
            self._rearm(self._ticks[0])

    cpdef object close(self):
        """Forget every deadline and cancel the timer. Safe to call twice."""
        cdef Bucket bucket
        cdef Deadline deadline
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for bucket in [self._serving, *self._buckets.values()]:
            while bucket is not None and bucket.first is not NULL:
                deadline = <Deadline> bucket.first
                deadline._on_forgotten()
        self._buckets.clear()
        self._ticks.clear()
        self._recent = None

    @property
    def is_armed(self):
        """Whether a timer of the loop is pending."""
        return self._handle is not None

    def __len__(self):
        """Count the deadlines that are set (walks them: for tests)."""
        cdef Bucket bucket
        cdef void* link
        cdef Py_ssize_t count = 0
        for bucket in self._buckets.values():
            link = bucket.first
            while link is not NULL:
                count += 1
                link = (<Deadline> link)._after
        return count


@cython.final
cdef class Alarm(Deadline):
    """A deadline that calls a Python function: for tests and for callers outside the core.

    Args:
        callback: called with the loop time, in seconds, when the deadline has come.
    """

    cdef object _callback

    def __init__(self, callback):
        self._callback = callback

    def set(self, Deadlines deadlines not None, double when):
        """Arm, or arm anew, for `when` seconds of loop time."""
        deadlines.set(self, when)

    def unset(self):
        """Disarm; nothing happens when it is not armed."""
        self._unlink()

    cdef int _on_deadline(self, double now) except -1:
        self._callback(now)
        return 0
