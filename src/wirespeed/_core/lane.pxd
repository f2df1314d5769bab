"""What is known of a session, and of the requests that were made through it."""

from wirespeed._core.address cimport Address, Origin
from wirespeed._core.exchange cimport ExchangeSettings
from wirespeed._core.guard cimport Watch
from wirespeed._core.hosts cimport Host
from wirespeed._core.pool cimport Pool


cdef class Kept:
    """Some of what was made for URLs, of a bounded number."""
    cdef readonly dict things           # {str or URL: what was made}
    cdef Py_ssize_t passed_over         # since there is no room

    cpdef object get(self, object key)
    cpdef int put(self, object key, object thing) except -1
    cpdef int clear(self) except -1


cdef class Shape:
    cdef readonly list fields           # (name, value), or (name, number of the request's own value)
    cdef list pieces                    # bytes between the values
    cdef list order                     # numbers of the values between them


cdef class Prepared:
    cdef readonly str method
    cdef object url                     # without `query`; the text of it while nobody has asked for it
    cdef object query                   # params in a form that changes nothing when it is parsed, or None
    cdef readonly object key
    cdef public Host host               # the pool's Host of the key, from the first sending on
    cdef public bytes data              # the head, and the body where it is short
    cdef readonly bint skip_body        # HEAD
    cdef public object req              # aiohttp's ClientRequest, or None
    cdef public object writer           # aiohttp's StreamWriter while a body is sent, or None
    cdef public bint has_upload         # a body follows the head
    cdef public bint is_unclean         # the server cannot find the end of what is sent

    # Of one that was put together from a shape
    cdef readonly Shape shape           # or None
    cdef readonly list values
    cdef readonly bytes body
    cdef public object headers          # CIMultiDict, once it is made


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
    cdef object prepared_class
    cdef object sentinel

    # How it was when it was last looked at
    cdef Watch own_watch                # of the session's class, and the connector's
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
    cdef object middlewares
    cdef object resolve_charset
    cdef object raise_for_status
    cdef bint is_plain                  # heads may be put together from shapes
    cdef bint is_usual_jar
    cdef bint is_dummy_jar              # it never has cookies

    cdef object json_serialize, json_serialize_bytes

    # Made of it
    cdef Kept addresses                 # Address
    cdef readonly dict origins          # {scheme://host:port, as yarl writes it: Origin}
    cdef dict plain                     # {method: Kept of Prepared}
    cdef Times times                    # of the session
    cdef Times other_times              # those that a request gave last
    cdef public ExchangeSettings settings

    cdef public long long express       # requests that took this lane

    cdef bint is_current(self, object session) except -1
    cdef bint has_cookies(self) except -1
    cdef Times times_of(self, object timeout)
    cdef Prepared kept(self, object method, object str_or_url)
    cdef int keep(self, Prepared prepared, object str_or_url) except -1
    cdef object fit(self, object session, object method, object str_or_url, dict options)
    cdef Prepared _new_shaped(self, str method, object url, object query, Origin origin, Shape shape,
                              list values, bytes body, bytes data)
    cdef Prepared _new_prepared(self, str method, object url, object key, Host host, bytes data)
    cdef object _cookies(self, object session, Address address)
    cdef Shape _shape(self, object session, Address address, str method, dict headers, int kind,
                      bint has_cookies)
    cdef object _body(self, dict options, int kind)
    cdef Address _address(self, object session, object str_or_url)
