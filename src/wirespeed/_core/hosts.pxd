"""Hosts, those who wait there, and the order in which hosts are served."""

from wirespeed._core.connection cimport Connection, ConnectionState
from wirespeed._core.deadlines cimport Deadline, Deadlines
from wirespeed._core.figures cimport Figures
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
    cdef bint is_queued                     # in the pool's Turns

    cdef bint is_empty(self) noexcept
    cdef int push_idle(self, Connection conn) except -1
    cdef Connection pop_idle(self, bint is_lifo)
    cdef int drop_idle(self) except -1
    cdef double learned(self, double now) noexcept
    cdef int learn(self, Connection conn, ConnectionState before) except -1
    cdef Waiter pop_waiter(self, Py_ssize_t* waiting)
    cdef int fail_waiters(self) except -1
    cdef Waiter pop_dialler(self)


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

    cdef int _set_up(self, Host host, Deadlines deadlines, object future, object holder) except -1
    cdef int _arm(self, double connect_at, double total_at) except -1
    cdef int resolve(self, Connection conn) except -1


cdef class Turns:
    cdef object queue                       # deque of Host

    cdef int add(self, Host host) except -1
    cdef Host next(self)
    cdef int purge(self, Py_ssize_t hosts) except -1
