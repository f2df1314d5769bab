"""The pool: idle connections by host, two limits, and those who wait, in order.

A slot is the right to have one connection in use or being dialled. Slots are counted, never
scanned; a freed slot goes to the next waiter in the same step in which it was freed.
"""

from wirespeed._core.connection cimport Connection, ConnectionOwner, ConnectionState
from wirespeed._core.deadlines cimport Deadline, Deadlines
from wirespeed._core.exchange cimport CloseReason


cdef class Host:
    """The connections and waiters of one connection key."""
    cdef readonly object key
    cdef readonly bint is_evicted           # the pool forgot it: look the key up again
    cdef readonly Py_ssize_t in_use         # slots taken: reserved, active, lent or dialling
    cdef readonly Py_ssize_t idle_count     # idle connections that are alive
    cdef object idle                        # deque of Connection, oldest first; the dead are skipped
    cdef object waiters                     # OrderedDict {Waiter: None}, oldest first
    cdef bint is_queued                     # in the pool's queue of hosts to serve


cdef class Waiter(Deadline):
    """One caller that waits for a slot."""
    cdef readonly Host host
    cdef readonly object future             # result: a reserved Connection, or None: a slot, dial yourself
    cdef bint is_granted
    cdef double total_at
    cdef object loop


cdef class Pool(ConnectionOwner):
    # Settings
    cdef readonly Py_ssize_t limit          # 0: none
    cdef readonly Py_ssize_t limit_per_host
    cdef readonly bint force_close
    cdef readonly bint lenient
    cdef double _keepalive_timeout

    # What there is
    cdef readonly Deadlines deadlines
    cdef object _loop
    cdef object _buffer
    cdef readonly dict hosts                # {key: Host}
    cdef readonly Py_ssize_t in_use
    cdef readonly Py_ssize_t idle
    cdef readonly Py_ssize_t waiting
    cdef readonly bint is_closed
    cdef set _open                          # connections whose transport is not gone yet
    cdef object _gone                       # future for wait_closed, or None
    cdef object _queue                      # deque of hosts with waiters and room

    # Acquire
    cpdef Connection take(self, Host host)
    cdef bint _has_room(self, Host host) noexcept
    cdef int _count(self, Host host) except -1
    cdef int _uncount(self, Host host) except -1

    # Release
    cdef int _return(self, Connection conn) except -1
    cdef int _queue_host(self, Host host) except -1
    cdef int _grant(self, Host host, Waiter waiter) except -1
    cdef int _enqueue(self, Host host) except -1
    cdef int _serve(self) except -1
    cdef int _purge_queue(self) except -1
    cdef Connection _pop_idle(self, Host host)
    cdef int _evict_if_empty(self, Host host) except -1
