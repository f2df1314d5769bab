"""Many deadlines, one loop timer.

A `Deadline` is a link in a bucket of deadlines that fall on the same millisecond. Links are
borrowed, so a deadline never keeps its owner alive: an owner that goes away unlinks itself.
"""

cdef class Deadline:
    # Owned by Deadlines
    cdef Bucket _bucket                 # None: not armed
    cdef void* _before                  # borrowed neighbours in the bucket
    cdef void* _after

    # Up-call, at or after the time asked for; `now` is never before it
    cdef int _on_deadline(self, double now) except -1
    # Up-call: the pool was closed, and its timer with it
    cdef int _on_forgotten(self) except -1
    cdef void _unlink(self) noexcept


cdef class Bucket:
    cdef long long tick                 # milliseconds of loop time
    cdef void* first                    # borrowed Deadline
    cdef void _push(self, Deadline deadline) noexcept


cdef class Deadlines:
    cdef object _loop
    cdef object _handle                 # the one TimerHandle, or None
    cdef long long _armed_for           # tick of _handle
    cdef long long _served              # everything up to this tick was called
    cdef dict _buckets                  # {tick: Bucket}
    cdef list _ticks                    # heap of the buckets' ticks
    cdef Bucket _recent                 # the bucket used last: most deadlines share it
    cdef Bucket _serving                # the bucket whose deadlines are being called

    # Owner's side
    cdef int set(self, Deadline deadline, double when) except -1
    cdef double time(self) except -1
    cdef double now(self) except -1
    cpdef object close(self)

    # Timer
    cdef int _rearm(self, long long tick) except -1
