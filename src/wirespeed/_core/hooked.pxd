"""A request whose way leads through code of the user's: middlewares, and the listeners of traces."""

from wirespeed._core.clock cimport Clock
from wirespeed._core.coroutine cimport NativeCoroutine
from wirespeed._core.guard cimport Watch
from wirespeed._core.pool cimport Pool
from wirespeed._core.request cimport Lane, Prepared, RequestCoroutine, Times


cdef class Template:
    """What requests of one method and URL have in common."""
    cdef Prepared prepared
    cdef object url                     # as listeners are told of it
    cdef object request_class           # aiohttp's ClientRequest
    cdef dict attributes                # of a request that nobody has touched; "_session" is of each its own
    cdef object headers                 # its headers
    cdef bint is_amended                # sending adds to them

    cdef object new_request(self, Hop hop)
    cdef bint is_untouched(self, Hop hop, object req) except -1


cdef class Listeners:
    """Those of one TraceConfig."""
    cdef readonly object config
    cdef object new_context
    cdef tuple starts, ends


cdef class Hooks:
    """What a session keeps for such requests."""
    cdef readonly object untimed        # in the place of a Clock
    cdef dict templates                 # {method as given: {str or URL: Template}}
    cdef object start_params, end_params
    cdef Watch watch
    cdef dict names
    cdef object trace_class
    cdef tuple configs                  # the TraceConfigs of the session
    cdef tuple listeners                # theirs, or None: more is listened to than is done here

    cdef bint are_known(self, Lane lane, list configs) except -1


cdef class Hop:
    """One request, and the handler that sends it: what a middleware calls."""
    cdef readonly Lane lane
    cdef readonly object session
    cdef readonly object method, str_or_url
    cdef readonly dict options
    cdef Times times
    cdef Pool pool
    cdef object connector
    cdef Template template
    cdef readonly double total_at
    cdef readonly Clock clock           # None where there is no total time
    cdef readonly object req            # a middleware's ClientRequest, or None
    cdef object version                 # of its headers, as they were made
    # Traces
    cdef readonly tuple listeners       # by TraceConfig
    cdef readonly list contexts
    cdef readonly object headers        # that they are told of, or None
    cdef public list traces             # aiohttp's Trace objects, where they are needed
    cdef public object call             # aiohttp's steps in Python, once they are needed

    cdef object timer(self)


cdef class AttemptCoroutine(RequestCoroutine):
    """What the handler returns."""
    cdef Hop hop
    cdef object req
    cdef bint is_inside                 # of the clock

    cdef int _leave(self, object exc) except -1


cdef class HookedCoroutine(NativeCoroutine):
    """The request, from the first listener to the last."""
    cdef Hop hop
    cdef object middlewares
    cdef object trace_request_ctx
    cdef object raise_for_status
    cdef bint follows
    cdef int stage
    cdef Py_ssize_t config_at, receiver_at
    cdef object params                  # that the listeners of one signal get
    cdef object headers_version
    cdef object resp

    cdef int _dismiss(self) except -1
    cdef object _tell(self)
    cdef object _next_listener(self)
    cdef object _enter(self)
    cdef object _new_attempt(self)
    cdef object _answer(self, object resp)
    cdef bint _is_final(self, object resp) except -1
    cdef object _go_on(self, object resp, object exc)
    cdef object _give_up(self, object exc)
