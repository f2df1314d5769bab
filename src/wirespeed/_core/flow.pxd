"""A transport, and who has to wait for it."""

from wirespeed._core.exchange cimport ReadGate


cdef class Flow(ReadGate):
    cdef readonly object transport          # None once it is lost
    cdef object loop
    cdef bint is_reading_paused
    cdef list _drain_waiters                # futures of those who wait for room to write
    cdef readonly bint _paused              # the name aiohttp's StreamWriter reads

    cdef int _wake_drainers(self, bint is_lost) except -1
