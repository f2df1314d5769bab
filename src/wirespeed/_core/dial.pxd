"""One dial to a known address, from the loop's connecting to the connection in the pool."""

from wirespeed._core.deadlines cimport Deadline
from wirespeed._core.hosts cimport Waiter
from wirespeed._core.pool cimport Pool


cdef class DialDeadline(Deadline):
    """When connecting has taken too long."""
    cdef void* _dial                        # borrowed; the dial owns this


cdef class Dial:
    cdef Pool pool
    cdef readonly Waiter waiter             # its slot is the dial's
    cdef tuple address                      # host and port
    cdef DialDeadline deadline
    cdef double began                       # on the clock of ages
    cdef object coroutine                   # of the loop's create_connection; None when it has ended
    cdef object awaited                     # the future that it waits for, or None
    cdef bint has_waited                    # it went through the loop: the kernel did not refuse at once
    cdef bint must_cancel                   # where it next waits
    cdef bint is_cancelled
    cdef bint is_late                       # cancelled by the deadline
    cdef bint is_settled                    # the waiter, or the pool, has what came of it
    cdef object on_done                     # called at the end with the dial, or None
    cdef object ended                       # future of those who wait for the end, or None

    cdef int _start(self, double at) except -1
    cdef int _step(self, object exc) except -1
    cdef int _wait(self, object future) except -1
    cdef int _end(self, object exc) except -1
    cdef int _fail(self, object exc) except -1
    cdef int _on_late(self) except -1


cdef Dial start(Pool pool, Waiter waiter, tuple address, double at)
