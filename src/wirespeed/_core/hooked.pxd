"""A request whose way leads through code of the user's: middlewares, and the listeners of traces."""

from wirespeed._core.coroutine cimport NativeCoroutine
from wirespeed._core.guard cimport Watch
from wirespeed._core.hop cimport Hop, Template
from wirespeed._core.lane cimport Lane


cdef class Listeners:
    """Those of one TraceConfig."""
    cdef readonly object config
    cdef object new_context
    cdef tuple starts, ends


cdef class Hooks:
    """What a session keeps for such requests."""
    cdef object untimed                 # in the place of a Clock
    cdef object start_params, end_params
    cdef Watch watch
    cdef dict names                     # of aiohttp's client
    cdef object trace_class
    cdef tuple configs                  # the TraceConfigs of the session
    cdef tuple listeners                # theirs, or None: more is listened to than is done here
    cdef dict templates                 # {Shape: Template or None}
    cdef list values                    # of the session, when they were made

    cdef bint are_known(self, Lane lane, list configs) except -1
    cdef Template template(self, Hop hop)


cdef class HookedCoroutine(NativeCoroutine):
    """The request, from the first listener to the last."""
    cdef Hop hop
    cdef object middlewares
    cdef object trace_request_ctx
    cdef object raise_for_status
    cdef bint follows
    cdef int part
    cdef object resp

    # Of traces
    cdef Py_ssize_t config_at, receiver_at
    cdef object url                     # that listeners are told of
    cdef object params                  # what the listeners of one signal get
    cdef object headers_version
    cdef object cookies                 # the field that was made before they were told

    cdef int _dismiss(self) except -1
    cdef bint _take_options(self, dict options) except -1
    cdef bint _find(self) except -1
    cdef int _listen(self, Hooks hooks) except -1
    cdef object _cookie_field(self)
    cdef object _tell(self)
    cdef object _next_listener(self)
    cdef object _enter(self)
    cdef bint _is_as_before(self) except -1
    cdef object _new_attempt(self)
    cdef object _answer(self, object resp)
    cdef bint _is_final(self, object resp) except -1
    cdef object _go_on(self, object resp, object exc)
    cdef object _give_up(self, object exc)
