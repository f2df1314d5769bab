"""A request of the express lane: what is known of its session, and its coroutine."""

from wirespeed._core.connection cimport Connection
from wirespeed._core.coroutine cimport NativeCoroutine
from wirespeed._core.dial cimport Dial
from wirespeed._core.exchange cimport Exchange, ExchangeSettings
from wirespeed._core.guard cimport Watch
from wirespeed._core.hosts cimport Host, Waiter
from wirespeed._core.pool cimport Pool


cdef class Prepared:
    cdef readonly str method
    cdef readonly object real_url
    cdef readonly object key
    cdef public Host host               # the pool's Host of the key, from the first sending on
    cdef public bytes data              # the head, and the body where it is short
    cdef readonly bint skip_body        # HEAD
    cdef public object req              # aiohttp's ClientRequest, or None
    cdef public object writer           # aiohttp's StreamWriter while a body is sent, or None
    cdef public bint has_upload         # a body follows the head
    cdef public bint is_unclean         # the server cannot find the end of what is sent


cdef class Times:
    """A ClientTimeout, in seconds; 0 for no limit."""
    cdef object given                   # what the user said
    cdef object timeout                 # the ClientTimeout
    cdef double total, connect, sock_connect, sock_read, ceil_threshold

    cdef double coarse(self, double now, double seconds) noexcept
    cdef double connecting(self, double now, double seconds) noexcept


cdef class Lane:
    cdef readonly Watch watch
    cdef readonly object response_class
    cdef object sentinel

    # How it was when it was last looked at
    cdef Pool pool                      # of the connector
    cdef list values                    # of NAMES, in the session
    cdef Py_ssize_t count               # attributes of the session
    cdef Py_ssize_t connector_count     # of the connector
    cdef Py_ssize_t jar_count           # of the jar
    cdef long long generation           # of `watch`
    cdef object headers_version
    cdef object default_headers
    cdef object cookie_jar
    cdef object trace_configs
    cdef object resolve_charset
    cdef object raise_for_status
    cdef bint is_express                # a request without options is the express lane's
    cdef bint is_plain                  # and needs nothing but its head
    cdef bint is_usual_jar

    # Made of it
    cdef dict plain                     # {method: {str or URL: Prepared}}
    cdef Times times                    # of the session
    cdef Times other_times              # those that a request gave last
    cdef public ExchangeSettings settings

    cdef public long long express       # requests that took this lane

    cdef bint is_current(self, object session) except -1
    cdef Times times_of(self, object timeout)


cdef class RequestCoroutine(NativeCoroutine):
    cdef readonly Lane lane
    cdef readonly object session
    cdef readonly object method, str_or_url
    cdef readonly dict options
    cdef readonly Prepared prepared
    cdef readonly object connector
    cdef Pool pool
    cdef object resp                    # for `async with`
    cdef bint enters                    # it is awaited by `async with`
    cdef int stage
    cdef Times times
    cdef readonly double total_at, connect_at
    cdef readonly double asked_at       # on the clock of ages
    cdef object raise_for_status
    cdef bint follows
    cdef Waiter waiter
    cdef Dial dial                      # while it is our own
    cdef Exchange exchange

    cdef object _slowly(self)
    cdef Prepared _find(self)
    cdef object _acquire(self, Host host)
    cdef object _dial(self, Host host, bint has_slot)
    cdef object _on_raced(self, Connection conn)
    cdef object _send(self, Connection conn)
    cdef object _answer(self)
    cdef object _recover(self, object exc)
    cdef object _finish(self, object resp)
