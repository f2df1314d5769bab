"""The pool: idle connections by host, two limits, and those who wait, in order.

A slot is the right to have one connection in use or being dialled. Slots are counted, never
scanned; a freed slot goes to the next waiter in the same step in which it was freed.
"""

from wirespeed._core.connection cimport Connection, ConnectionOwner, ConnectionState
from wirespeed._core.deadlines cimport Deadlines
from wirespeed._core.exchange cimport CloseReason
from wirespeed._core.figures cimport ConnectionFacts, Figures, spread
from wirespeed._core.hosts cimport Host, Turns, Waiter


cdef class Pool(ConnectionOwner):
    # Settings
    cdef readonly Py_ssize_t limit          # 0: none
    cdef readonly Py_ssize_t limit_per_host
    cdef readonly Py_ssize_t max_waiters    # -1: any number
    cdef readonly Py_ssize_t max_open       # 0: none
    cdef readonly bint force_close
    cdef readonly bint lenient
    cdef double _keepalive_timeout
    cdef double _pool_timeout               # 0: none
    cdef double _max_connection_age         # 0: none
    cdef long long _max_requests            # 0: none
    cdef bint _is_lifo
    cdef bint _learns

    # What there is
    cdef readonly Deadlines deadlines
    cdef object _loop
    cdef object _buffer
    cdef readonly dict hosts                # {key: Host}
    cdef dict _remembered                   # {key: Host} of evicted hosts, oldest first
    cdef readonly Figures figures
    cdef readonly Py_ssize_t in_use         # slots taken: reserved, active, lent or dialling
    cdef readonly Py_ssize_t dialling       # those of them that have no connection yet
    cdef readonly Py_ssize_t idle
    cdef readonly Py_ssize_t waiting
    cdef readonly bint is_closed
    cdef set _open                          # connections whose transport is not gone yet
    cdef readonly set dials                 # those without a task, which are under way
    cdef object _gone                       # future for wait_closed, or None
    cdef Turns _turns                       # of the hosts with waiters and room
    cdef object _idle_order                 # OrderedDict {Connection: None} of all hosts, with max_open only

    # Dialling
    cdef public object set_options          # called with each transport that a Dial makes, or None
    cdef public object dial_error       # (key, address, OSError, whether the loop had waited) -> exception

    # Who looks
    cdef public object who                  # called in the stack of whoever asks; its result is conn.holder
    cdef public object on_closed            # called with each connection that was closed, or None

    cpdef Host host(self, key)
    cpdef double now(self) except -1

    # Acquire
    cpdef Waiter wait(self, Host host, double connect_at=*, double total_at=*)
    cpdef bint try_reserve(self, Host host) except -1
    cpdef Waiter begin_dial(self, Host host, double connect_at=*, double total_at=*, double queued=*)
    cpdef Connection end_dial(self, Waiter waiter, transport, ConnectionFacts facts=*, bint is_read=*)
    cpdef fail_dial(self, Waiter waiter, exc)
    cpdef int cancel(self, Waiter waiter) except -1
    cpdef Connection take(self, Host host)
    cdef object _holder(self)
    cdef bint _has_room(self, Host host) noexcept
    cdef int _count(self, Host host) except -1
    cdef int _count_dial(self, Host host) except -1
    cdef int _uncount(self, Host host) except -1
    cdef int _make_room(self) except -1
    cdef Connection _adopt(self, Host host, transport, ConnectionFacts facts, bint is_read)
    cdef Waiter _new_waiter(self, Host host, double connect_at, double total_at)

    # Release
    cdef int _free(self, Host host) except -1
    cdef int _return(self, Connection conn, double now) except -1
    cdef bint _hand_to_dialler(self, Connection conn, double now) except -1
    cdef int _grant(self, Host host, Waiter waiter) except -1
    cdef int _enqueue(self, Host host) except -1
    cdef int _serve(self) except -1
    cdef Connection _pop_idle(self, Host host, double now)
    cdef int _evict_if_empty(self, Host host) except -1
