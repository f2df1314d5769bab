"""The total time of a request around code of the user's."""

from wirespeed._core.deadlines cimport Deadline, Deadlines


cdef class Clock(Deadline):
    cdef object loop
    cdef readonly double deadline       # loop time
    cdef object handle                  # a timer of its own once the pool was closed, or None
    cdef list tasks                     # that are inside, and are cancelled when the time passes
    cdef readonly bint has_passed       # and what was inside was cancelled
    cdef bint is_handed_over            # whoever enters next goes on inside
    cdef bint has_others                # more than one task was inside
    cdef Py_ssize_t cancelling          # requests to cancel the task that has entered first, by others

    cdef int start(self, Deadlines deadlines) except -1
    cdef int enter(self) except -1
    cdef int leave(self, object exc) except -1
    cdef object _take_leaver(self)
