"""One sending of a request, as a middleware sees it: the request it is given, and the handler it calls."""

from wirespeed._core.address cimport Address
from wirespeed._core.clock cimport Clock
from wirespeed._core.lane cimport Lane, Prepared, Shape, Times
from wirespeed._core.pool cimport Pool
from wirespeed._core.request cimport RequestCoroutine


cdef class Template:
    """What aiohttp's requests of one shape have in common."""
    cdef object request_class           # ClientRequest
    cdef dict attributes                # in the place of those that are each request's own is None
    cdef list shared                    # [(name, value)] of the others
    cdef object headers                 # those of a request without values of its own
    cdef Py_ssize_t count               # how many
    cdef bint is_amended                # sending it adds more

    cdef object new_request(self, Hop hop)
    cdef bint is_untouched(self, Hop hop, object req) except -1


cdef class Hop:
    """A request, up to its first response, and the handler that sends it."""
    cdef readonly Lane lane
    cdef readonly object session
    cdef readonly object method, str_or_url
    cdef readonly dict options
    cdef Times times
    cdef Pool pool
    cdef object connector
    cdef Address address
    cdef readonly Prepared prepared
    cdef readonly double total_at
    cdef readonly Clock clock           # None where there is no total time
    cdef object timer                   # it, or what is in its place

    # Of middlewares
    cdef Template template
    cdef readonly object req            # their ClientRequest, or None
    cdef dict attributes                # of it
    cdef object own_headers             # and those among them that might be changed
    cdef object version                 # of the headers, as they were made
    cdef object own_url
    cdef object own_traces
    cdef readonly object body           # its payload, or None
    cdef object value                   # of the payload

    # Of traces
    cdef readonly tuple listeners       # by TraceConfig, or None
    cdef readonly list contexts         # by TraceConfig
    cdef readonly object headers        # that they are told of, or None
    cdef public list traces             # aiohttp's Trace objects, once they are needed

    cdef public object call             # aiohttp's steps in Python, once they are needed

    cdef bint is_there(self) except -1


cdef class AttemptCoroutine(RequestCoroutine):
    """What the handler returns."""
    cdef Hop hop
    cdef object req
    cdef bint is_inside                 # of the clock

    cdef Prepared _own(self)
    cdef int _leave(self, object exc) except -1
