"""The pool: idle connections by host, two limits, and those who wait, in order.

A slot is the right to have one connection in use or being dialled. Slots are counted, never
scanned; a freed slot goes to the next waiter in the same step in which it was freed.
"""

from wirespeed._core.connection cimport Connection, ConnectionOwner, ConnectionState
from wirespeed._core.deadlines cimport Deadline, Deadlines
from wirespeed._core.exchange cimport CloseReason
from wirespeed._core.figures cimport ConnectionFacts, Figures, spread
from wirespeed._core.learning cimport KeepAliveLearner


cdef class Host:
    """The connections and waiters of one connection key."""
    cdef readonly object key
    cdef readonly bint is_evicted           # the pool forgot it: look the key up again
    cdef readonly Py_ssize_t in_use         # slots taken: reserved, active, lent or dialling
    cdef readonly Py_ssize_t dialling       # those of them that have no connection yet
    cdef readonly Py_ssize_t idle_count     # idle connections that are alive
    cdef readonly Figures figures
    cdef Figures totals                     # the pool's
    cdef KeepAliveLearner learner           # None until an idle connection was ended by the server
    cdef object idle                        # deque of Connection, oldest first; the dead are skipped
    cdef object waiters                     # OrderedDict {Waiter: None}, oldest first
    cdef object diallers                    # the same of those who dial, and take what comes first
    cdef bint is_queued                     # in the pool's queue of hosts to serve

    cdef double learned(self, double now) noexcept


cdef class Waiter(Deadline):
    """One caller that waits: in the queue for a slot, or with a slot for a connection."""
    cdef readonly Host host
    cdef readonly object future             # result: a reserved Connection, or None: a slot, dial yourself
    cdef readonly bint is_dialling
    cdef readonly double asked_at           # on the clock of ages
    cdef bint is_granted
    cdef bint has_waited                    # there was no room when it came
    cdef double queued                      # seconds that a dialler has waited for its slot
    cdef double total_at
    cdef Deadlines deadlines
    cdef object holder


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
    cdef object _remembered                 # OrderedDict {key: Host} of evicted hosts, oldest first
    cdef readonly Figures figures
    cdef readonly Py_ssize_t in_use         # slots taken: reserved, active, lent or dialling
    cdef readonly Py_ssize_t dialling       # those of them that have no connection yet
    cdef readonly Py_ssize_t idle
    cdef readonly Py_ssize_t waiting
    cdef readonly bint is_closed
    cdef set _open                          # connections whose transport is not gone yet
    cdef object _gone                       # future for wait_closed, or None
    cdef object _queue                      # deque of hosts with waiters and room
    cdef object _idle_order                 # OrderedDict {Connection: None} of all hosts, with max_open only

    # Who looks
    cdef public object who                  # called in the stack of whoever asks; its result is conn.holder
    cdef public object on_closed            # called with each connection that was closed, or None

    # Acquire
    cpdef Connection take(self, Host host)
    cdef object _holder(self)
    cdef bint _has_room(self, Host host) noexcept
    cdef int _count(self, Host host) except -1
    cdef int _count_dial(self, Host host) except -1
    cdef int _uncount(self, Host host) except -1
    cdef int _make_room(self) except -1
    cdef Connection _adopt(self, Host host, transport, ConnectionFacts facts)
    cdef Waiter _new_waiter(self, Host host, double connect_at, double total_at)

    # Release
    cdef int _free(self, Host host) except -1
    cdef int _return(self, Connection conn, double now) except -1
    cdef bint _hand_to_dialler(self, Connection conn, double now) except -1
    cdef int _purge_idle(self, Host host) except -1
    cdef int _resolve(self, Waiter waiter, Connection conn) except -1
    cdef int _queue_host(self, Host host) except -1
    cdef int _grant(self, Host host, Waiter waiter) except -1
    cdef int _enqueue(self, Host host) except -1
    cdef int _serve(self) except -1
    cdef int _purge_queue(self) except -1
    cdef Connection _pop_idle(self, Host host, double now)
    cdef int _learn(self, Connection conn, ConnectionState before) except -1
    cdef int _evict_if_empty(self, Host host) except -1
