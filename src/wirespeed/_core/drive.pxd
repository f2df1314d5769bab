"""The requests of a batch, driven by the callbacks of their connections."""

from wirespeed._core.exchange cimport Exchange, ExchangeSettings
from wirespeed._core.message cimport ResponseHead
from wirespeed._core.request cimport RequestCoroutine


cdef class ResultFields:
    cdef public object _given               # what the user gave: a URL, or a Request
    cdef public object _headers             # None: not made yet
    cdef public object _head                # what they are made of: a ResponseHead, or None
    cdef public object _url                 # a URL, or what has it as real_url, or None
    cdef public Py_ssize_t index
    cdef public object status               # None where there is no response
    cdef public object body
    cdef public object error
    cdef public Py_ssize_t attempts
    cdef public double elapsed              # seconds


cdef class Results:
    cdef public object _drive


cdef class Drive:
    # Given
    cdef readonly object loop
    cdef object source, take                # the source, and its method
    cdef object work
    cdef object session
    cdef object context                     # contextvars, of whoever made the batch
    cdef object result_class, request_class
    cdef dict options                       # of every request
    cdef readonly Py_ssize_t concurrency
    cdef readonly bint is_ordered
    cdef Py_ssize_t max_body                # -1: any number of bytes
    cdef object retrying                    # what is asked of a retry policy, or None
    cdef bint is_plain                      # no other policies are around the requests
    cdef object url_class, pending

    # The settings of exchanges, made of those of the lane
    cdef ExchangeSettings of_lane, settings
    cdef bint decodes                       # the session decodes bodies

    # Requests
    cdef set errands                        # under way
    cdef readonly Py_ssize_t taken, under_way, failed
    cdef readonly long long size            # bytes of all bodies
    cdef readonly object begun_at           # loop time, or None
    cdef bint has_ended, is_closed, is_filling, is_stalled
    cdef bint is_inside                     # a callback of a connection, which may be about to end
    cdef bint is_wary                       # connections have ended after their answers, unannounced
    cdef object error                       # what the source has raised

    # Results
    cdef list ready                         # from `at` on
    cdef Py_ssize_t at
    cdef dict early                         # {index: result}, of an ordered batch, waiting for earlier ones
    cdef Py_ssize_t given                   # handed over
    cdef long long held                     # bytes of bodies that are not handed over
    cdef object waiter                      # the future of the consumer, or None

    cpdef fill(self)
    cdef bint has_room(self) except -1
    cdef int begin(self, object given) except -1
    cdef int end(self, object error) except -1
    cdef int finish(self, Errand errand, ResultFields result) except -1
    cdef ResultFields new_result(self, Errand errand)
    cdef ExchangeSettings settings_for(self, ExchangeSettings of_lane)
    cdef int wake(self) except -1


cdef class Errand(RequestCoroutine):
    """One request of a batch. What a request's coroutine waits for, its drive waits for."""
    cdef Drive drive
    cdef object given
    cdef Py_ssize_t index
    cdef double begun_at
    cdef bint is_failed                     # the exchange has failed, which is not dealt with yet
    cdef bint is_settled                    # policies have had their say, or there are none
    cdef bint has_kept                      # the cookies that the response sets
    cdef object looked_at                   # the response of which Python decides whether it is the last

    cdef int go(self, object exc) except -1
    cdef int drop(self) except -1
    cdef object leave(self, object coroutine)
    cdef object again(self, object resp, bytes body, object error)
    cdef object _fail(self, object error)
    cdef object respond(self, Exchange exchange)
