"""What the pool keeps of each host, who waits there, and the turns that hosts take. Used by the pool alone.

It must not decide about limits: a Host counts, a Waiter waits, Turns keep the order.
"""

import asyncio
from collections import OrderedDict, deque

cimport cython

from wirespeed._core.connection cimport ConnectionState
from wirespeed._core.exchange cimport CloseReason
from wirespeed._core.limits cimport QUEUE_SLACK


class ConnectTimeout(asyncio.TimeoutError):
    """No connection was to be had within the time for connecting."""


class WaitTimeout(ConnectTimeout):
    """No slot was to be had in time; the only argument is the seconds that were waited."""


class PoolClosed(Exception):
    """The pool was closed while somebody waited for a connection."""


class TooManyWaiters(Exception):
    """As many callers wait for a slot as may."""


@cython.final
cdef class Host:
    def __cinit__(self, key, Figures totals=None):
        self.key = key
        self.idle = deque()
        self.waiters = OrderedDict()
        self.diallers = OrderedDict()
        self.figures = Figures.__new__(Figures)
        self.totals = totals or Figures.__new__(Figures)

    def __repr__(self):
        return f"<Host {self.key!r} in_use={self.in_use} idle={self.idle_count} waiting={len(self.waiters)}>"

    @property
    def waiting(self):
        """How many wait for a slot."""
        return len(self.waiters)

    def count_retry(self):
        """A request is sent again because a reused connection turned out dead."""
        self.figures.counts.stale_retries += 1
        self.totals.counts.stale_retries += 1

    def count_wait_timeout(self):
        """A caller's time has passed in the queue."""
        self.figures.counts.wait_timeouts += 1
        self.totals.counts.wait_timeouts += 1

    def snapshot(self, double now):
        """Copy the figures of the host, as `Pool.snapshot` does for all, and what was learned."""
        figures = self.figures.snapshot()
        figures.update(
            in_use=self.in_use - self.dialling, idle=self.idle_count, dialling=self.dialling,
            waiting=len(self.waiters),
            learned_keepalive=None if self.learner is None else self.learner.limit_at(now),
        )
        return figures

    cdef bint is_empty(self) noexcept:
        return self.in_use == 0 and self.idle_count == 0 and not self.waiters

    # Idle connections

    cdef int push_idle(self, Connection conn) except -1:
        self.idle.append(conn)
        self.idle_count += 1
        return 0

    cdef Connection pop_idle(self, bint is_lifo):
        """Take out the connection that has been idle for longest, or is_lifo, for the shortest time."""
        cdef Connection conn
        while self.idle_count > 0:
            conn = self.idle.pop() if is_lifo else self.idle.popleft()
            if conn.state == ConnectionState.IDLE:
                return conn
        return None

    cdef int drop_idle(self) except -1:
        """An idle connection was closed; it stays in the deque among the dead."""
        self.idle_count -= 1
        if self.idle_count == 0:
            self.idle.clear()
        elif len(self.idle) > 2 * self.idle_count + QUEUE_SLACK:
            # Last in, first out, nothing else takes them out.
            alive = [conn for conn in self.idle if (<Connection> conn).state == ConnectionState.IDLE]
            self.idle = deque(alive)
        return 0

    # How long the server keeps idle connections

    cdef double learned(self, double now) noexcept:
        """Seconds for which the server is known to keep idle connections; -1 for unknown."""
        return -1 if self.learner is None else self.learner.limit(now)

    cdef int learn(self, Connection conn, ConnectionState before) except -1:
        """Note the age at which the server ended an idle connection, or lost a request to one."""
        cdef CloseReason reason = conn.close_reason
        cdef double now, age = conn.stale_age
        if before == ConnectionState.IDLE:
            if not (reason == CloseReason.IDLE_EOF or reason == CloseReason.IDLE_RESET
                    or reason == CloseReason.IDLE_BYTES):
                return 0
        elif age < 0:
            return 0
        now = conn.deadlines.now()
        if self.learner is None:
            self.learner = KeepAliveLearner.__new__(KeepAliveLearner)
        return self.learner.note_end(age if age >= 0 else now - conn.idle_since, now)

    # Those who wait, and those who dial

    cdef Waiter pop_waiter(self, Py_ssize_t* waiting):
        """Take out the one who has waited for longest and still does; `waiting` counts those of all hosts."""
        cdef Waiter waiter
        while self.waiters:
            waiter, _ = self.waiters.popitem(last=False)
            waiting[0] -= 1
            if not waiter.future.done():
                return waiter
        return None

    cdef int fail_waiters(self) except -1:
        """Tell all who wait, for a slot or for what they dial, that the pool is closed."""
        cdef Waiter waiter
        for waiter in [*self.waiters, *self.diallers]:
            waiter._unlink()
            if not waiter.future.done():
                waiter.future.set_exception(PoolClosed())
        self.waiters.clear()
        self.diallers.clear()
        return 0

    cdef Waiter pop_dialler(self):
        """Take out the one who has dialled for longest and still waits, or None."""
        cdef Waiter waiter
        while self.diallers:
            waiter, _ = self.diallers.popitem(last=False)
            if not waiter.future.done():
                return waiter
        return None


@cython.final
cdef class Waiter(Deadline):
    cdef int _set_up(self, Host host, Deadlines deadlines, object future, object holder) except -1:
        self.host = host
        self.deadlines = deadlines
        self.future = future
        self.holder = holder
        self.asked_at = deadlines.now()
        return 0

    cdef int _arm(self, double connect_at, double total_at) except -1:
        cdef double when = total_at
        self.total_at = total_at
        if connect_at > 0 and (when <= 0 or connect_at < when):
            when = connect_at
        return self.deadlines.set(self, when) if when > 0 else 0

    cdef int resolve(self, Connection conn) except -1:
        """Hand over a connection, or a slot; what is not taken comes back with `Pool.cancel`."""
        self._unlink()
        self.is_granted = True
        self.future.set_result(conn)
        return 0

    cdef int _on_deadline(self, double now) except -1:
        if self.future.done():
            return 0
        if self.total_at > 0 and now >= self.total_at:
            error = asyncio.TimeoutError()
            error.__cause__ = asyncio.CancelledError()
        elif self.is_dialling:
            error = ConnectTimeout()
        else:
            error = WaitTimeout(self.deadlines.now() - self.asked_at)
        if not self.is_dialling:
            self.host.count_wait_timeout()
        self.future.set_exception(error)
        return 0


@cython.final
cdef class Turns:
    """The hosts with waiters and room, in the order in which they are served; each is in it once."""

    def __cinit__(self):
        self.queue = deque()

    cdef int add(self, Host host) except -1:
        if not host.is_queued:
            host.is_queued = True
            self.queue.append(host)
        return 0

    cdef Host next(self):
        """Take out the host whose turn it is."""
        cdef Host host = self.queue.popleft()
        host.is_queued = False
        return host

    cdef int purge(self, Py_ssize_t hosts) except -1:
        """Drop the hosts whose waiters gave up: while a limit is reached nothing else takes them out.

        Args:
            hosts: how many there are; nothing is done before the queue is far longer.
        """
        cdef Host host
        if len(self.queue) <= 2 * hosts + QUEUE_SLACK:
            return 0
        kept = deque()
        for host in self.queue:
            if host.waiters:
                kept.append(host)
            else:
                host.is_queued = False
        self.queue = kept
        return 0
