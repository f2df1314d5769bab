"""The connection pool. Called by the connector of the facade; gets connections back by up-call.

Laws: `in_use` never exceeds a limit; a slot freed while somebody may use it is passed on in
the same step; waiters of a host are served in order, hosts take turns; a cancelled waiter
gives back what it was granted. It must not dial, resolve or know aiohttp: a caller that
holds a slot and no connection dials itself, then calls `add` or `free`.
"""

import asyncio
from collections import OrderedDict, deque

cimport cython

from wirespeed._core.connection import PooledConnection, new_read_buffer

from wirespeed._core.limits cimport QUEUE_SLACK


class ConnectTimeout(asyncio.TimeoutError):
    """No connection was to be had within the time for connecting."""


class PoolClosed(Exception):
    """The pool was closed while somebody waited for a connection."""


@cython.final
cdef class Host:
    def __cinit__(self, key):
        self.key = key
        self.idle = deque()
        self.waiters = OrderedDict()

    def __repr__(self):
        return f"<Host {self.key!r} in_use={self.in_use} idle={self.idle_count} waiting={len(self.waiters)}>"


@cython.final
cdef class Waiter(Deadline):
    cdef int _on_deadline(self, double now) except -1:
        if self.future.done():
            return 0
        if self.total_at > 0 and now >= self.total_at:
            error = asyncio.TimeoutError()
            error.__cause__ = asyncio.CancelledError()
            self.future.set_exception(error)
        else:
            self.future.set_exception(ConnectTimeout())
        return 0


@cython.final
cdef class Pool(ConnectionOwner):
    """Connections to reuse, and slots for new ones.

    Args:
        loop: the event loop.
        limit: connections in use or being dialled at the same time; 0 for no limit.
        limit_per_host: the same for one key; 0 for no limit.
        keepalive_timeout: seconds a connection may be idle; None or 0 for no limit.
        force_close: close every connection after its first response.
        lenient: see ResponseParser.
    """

    def __init__(self, loop, *, Py_ssize_t limit, Py_ssize_t limit_per_host, keepalive_timeout,
                 bint force_close=False, bint lenient=True):
        self._loop = loop
        self.limit = limit
        self.limit_per_host = limit_per_host
        self._keepalive_timeout = keepalive_timeout or 0
        # A timeout of 0 keeps nothing: aiohttp compares ages with it.
        self.force_close = force_close or keepalive_timeout == 0
        self.lenient = lenient
        self.deadlines = Deadlines(loop)
        self._buffer = new_read_buffer()
        self.hosts = {}
        self._open = set()
        self._queue = deque()

    def __repr__(self):
        return (
            f"<Pool in_use={self.in_use}/{self.limit or 'no limit'} idle={self.idle} "
            f"waiting={self.waiting} hosts={len(self.hosts)}{' closed' if self.is_closed else ''}>"
        )

    def host(self, key):
        """Return the Host of a connection key, new or known."""
        found = self.hosts.get(key)
        if found is None:
            found = self.hosts[key] = Host(key)
        return found

    # Acquire

    cpdef Connection take(self, Host host):
        """Reserve an idle connection of the host, or return None when there is none or no room."""
        cdef Connection conn
        if host.idle_count == 0 or not self._has_room(host):
            return None
        # Counted first: closing the last dead connection must not evict the host that is being served.
        self._count(host)
        conn = self._pop_idle(host)
        if conn is None:
            # Nobody waits where there is room: the slot needs no passing on. The caller goes on to dial.
            host.in_use -= 1
            self.in_use -= 1
        else:
            conn._reserve()
        return conn

    def try_reserve(self, Host host not None):
        """Take a slot for a connection to be dialled; false when a limit is reached."""
        if self.is_closed or not self._has_room(host):
            return False
        self._count(host)
        return True

    def wait(self, Host host not None, double connect_at=0.0, double total_at=0.0):
        """Queue for a slot.

        Args:
            host: where to.
            connect_at: loop time at which the future fails with ConnectTimeout; 0 for never.
            total_at: loop time at which it fails with TimeoutError; 0 for never.

        Returns:
            A Waiter. Its future's result is a reserved connection, or None: the caller holds a
            slot and dials. A caller that stops waiting must call `cancel`.
        """
        cdef Waiter waiter = Waiter.__new__(Waiter)
        cdef double when = total_at
        waiter.host = host
        waiter.loop = self._loop
        waiter.total_at = total_at
        waiter.future = self._loop.create_future()
        if self.is_closed:
            waiter.future.set_exception(PoolClosed())
            return waiter
        if connect_at > 0 and (when <= 0 or connect_at < when):
            when = connect_at
        if when > 0:
            self.deadlines.set(waiter, when)
        host.waiters[waiter] = None
        self.waiting += 1
        self._enqueue(host)
        return waiter

    def cancel(self, Waiter waiter not None):
        """Stop waiting; what was granted meanwhile goes to the next."""
        waiter._unlink()
        if waiter.future.done() and not waiter.future.cancelled():
            # An error may have come while the caller was busy elsewhere: nobody will ask for it.
            waiter.future.exception()
        if waiter.is_granted:
            waiter.is_granted = False
            conn = waiter.future.result()
            if conn is None:
                self.free(waiter.host)
            else:
                self.give_back(<Connection> conn)
        elif waiter in waiter.host.waiters:
            del waiter.host.waiters[waiter]
            self.waiting -= 1
            if len(self._queue) > 2 * len(self.hosts) + QUEUE_SLACK:
                self._purge_queue()
        self._evict_if_empty(waiter.host)

    def free(self, Host host not None):
        """Give back a slot whose connection was not made."""
        if self.is_closed:
            return
        self._uncount(host)
        self._serve()
        self._evict_if_empty(host)

    def add(self, Host host not None, transport):
        """Adopt a transport that was dialled on a slot; returns its connection, reserved.

        Raises:
            PoolClosed: the pool was closed meanwhile; the transport is the caller's to close.
        """
        if self.is_closed:
            raise PoolClosed()
        conn = PooledConnection(
            self, host, transport, loop=self._loop, deadlines=self.deadlines, buffer=self._buffer,
            keepalive_timeout=self._keepalive_timeout, force_close=self.force_close, lenient=self.lenient,
        )
        self._open.add(conn)
        return conn

    def give_back(self, Connection conn not None):
        """Return a reserved connection that was not used; one that was lost meanwhile is no trouble."""
        if conn.state == ConnectionState.RESERVED:
            self._on_idle(conn)

    cdef bint _has_room(self, Host host) noexcept:
        if self.limit > 0 and self.in_use >= self.limit:
            return False
        return not (self.limit_per_host > 0 and host.in_use >= self.limit_per_host)

    cdef int _count(self, Host host) except -1:
        host.in_use += 1
        self.in_use += 1
        return 0

    cdef int _uncount(self, Host host) except -1:
        host.in_use -= 1
        self.in_use -= 1
        if host.waiters:
            self._queue_host(host)
        return 0

    # Release

    cdef int _on_idle(self, Connection conn) except -1:
        """A connection finished its response, or its loan, and may serve another."""
        conn._give_back()
        return self._return(conn)

    cdef int _return(self, Connection conn) except -1:
        cdef Host host = conn.host
        if self.force_close or self.is_closed:
            # Idle only for this instant: uncount it as a connection in use.
            self.idle += 1
            host.idle_count += 1
            self._uncount(host)
            conn._close(CloseReason.FORCE_CLOSE if self.force_close else CloseReason.POOL_CLOSED)
            return self._serve()
        host.idle.append(conn)
        host.idle_count += 1
        self.idle += 1
        self._uncount(host)
        if self.waiting:
            self._serve()
        return 0

    cdef int _on_closed(self, Connection conn, ConnectionState before) except -1:
        cdef Host host = conn.host
        if before == ConnectionState.IDLE:
            host.idle_count -= 1
            self.idle -= 1
            if host.idle_count == 0:
                host.idle.clear()
        else:
            self._uncount(host)
            self._serve()
        if conn.transport is None or before == ConnectionState.LENT:
            self._on_gone(conn)
        return self._evict_if_empty(host)

    cdef int _on_gone(self, Connection conn) except -1:
        """The transport is closed for good."""
        self._open.discard(conn)
        if self._gone is not None and not self._open and not self._gone.done():
            self._gone.set_result(None)
        return 0

    cdef Connection _pop_idle(self, Host host):
        cdef Connection conn
        cdef CloseReason reason
        while host.idle_count > 0:
            conn = host.idle.popleft()
            if conn.state != ConnectionState.IDLE:
                continue
            reason = conn.why_unusable()
            if reason != CloseReason.KEPT:
                conn._close(reason)
                continue
            host.idle_count -= 1
            self.idle -= 1
            return conn
        return None

    cdef int _enqueue(self, Host host) except -1:
        """Put a host with waiters into the queue, unless its own limit holds it back."""
        if self.limit_per_host <= 0 or host.in_use < self.limit_per_host:
            self._queue_host(host)
        return self._serve()

    cdef int _queue_host(self, Host host) except -1:
        if not host.is_queued:
            host.is_queued = True
            self._queue.append(host)
        return 0

    cdef int _purge_queue(self) except -1:
        """Drop the hosts whose waiters gave up: while a limit is reached nothing else takes them out."""
        cdef Host host
        kept = deque()
        for host in self._queue:
            if host.waiters:
                kept.append(host)
            else:
                host.is_queued = False
        self._queue = kept
        return 0

    cdef int _serve(self) except -1:
        """Pass free slots to waiters: hosts take turns, each host's waiters in order."""
        cdef Host host
        cdef Waiter waiter
        while self._queue and not (self.limit > 0 and self.in_use >= self.limit):
            host = self._queue.popleft()
            host.is_queued = False
            if not host.waiters or not self._has_room(host):
                continue
            waiter, _ = host.waiters.popitem(last=False)
            self.waiting -= 1
            waiter._unlink()
            if not waiter.future.done():
                self._grant(host, waiter)
            # In the queue also when the pool is full now: another host may free the next slot.
            if host.waiters and (self.limit_per_host <= 0 or host.in_use < self.limit_per_host):
                self._queue_host(host)
        return 0

    cdef int _grant(self, Host host, Waiter waiter) except -1:
        cdef Connection conn
        # Counted first, as in take().
        self._count(host)
        conn = self._pop_idle(host)
        if conn is not None:
            conn._reserve()
        waiter.is_granted = True
        waiter.future.set_result(conn)
        return 0

    cdef int _evict_if_empty(self, Host host) except -1:
        """Forget a host nobody uses: a crawler meets millions."""
        if host.in_use == 0 and host.idle_count == 0 and not host.waiters and not host.is_evicted:
            if self.hosts.get(host.key) is host:
                del self.hosts[host.key]
            host.is_evicted = True
        return 0

    # End

    def close(self):
        """Close every connection and fail every waiter with PoolClosed. Safe to call twice."""
        cdef Host host
        cdef Waiter waiter
        if self.is_closed:
            return
        self.is_closed = True
        self._queue.clear()
        for host in list(self.hosts.values()):
            for waiter in list(host.waiters):
                waiter._unlink()
                if not waiter.future.done():
                    waiter.future.set_exception(PoolClosed())
            self.waiting -= len(host.waiters)
            host.waiters.clear()
        for conn in list(self._open):
            try:
                (<Connection> conn)._drop(CloseReason.POOL_CLOSED)
            except Exception as exc:
                # One connection that fails to close must not keep the others open.
                self._loop.call_exception_handler(
                    {"message": "Error while closing a connection", "exception": exc}
                )
        self.deadlines.close()
        self.hosts.clear()

    def connections(self):
        """List the connections that are not gone, in no order; for whoever counts or looks."""
        return list(self._open)

    def wait_closed(self):
        """Return a future that is done when every transport of the closed pool is gone."""
        if self._gone is None:
            self._gone = self._loop.create_future()
            if not self._open:
                self._gone.set_result(None)
        return self._gone
