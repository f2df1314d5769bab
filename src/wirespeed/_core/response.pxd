"""What is done with every response, in C."""

from wirespeed._core.coroutine cimport NativeCoroutine
from wirespeed._core.exchange cimport Exchange


cdef object new_response(object cls, Exchange exchange, object prepared, object resolve_charset,
                         bint is_plain)


cdef bint let_go(Exchange exchange) noexcept


cdef class Fact:
    cdef int kind


cdef class State:
    cdef int kind
    cdef object name, default


cdef class BodyCoroutine(NativeCoroutine):
    """`read()` and `json()`."""
    cdef object resp
    cdef bint is_json
    cdef object encoding, loads, content_type

    cdef bytes _whole_body(self, Exchange exchange)
    cdef int _end(self) except -1
    cdef bint _is_usual(self, Exchange exchange) except -1
