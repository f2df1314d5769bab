"""The connection pool. Called by the connector of the facade; gets connections back by up-call.

Laws: `in_use` never exceeds a limit; a slot freed while somebody may use it is passed on in
the same step; waiters of a host are served in order, hosts take turns; a cancelled waiter
gives back what it was granted. It must not dial, resolve or know aiohttp: a caller that
holds a slot and no connection dials itself, then calls `add` or `free`. Meanwhile it may take
a connection that is freed (`begin_dial`); what it dialled is then the pool's.
"""

import asyncio
from collections import OrderedDict
from random import random

cimport cython
from cpython.weakref cimport PyWeakref_NewRef

from wirespeed._core.connection import PooledConnection, new_read_buffer
from wirespeed._core.hosts import PoolClosed, TooManyWaiters

from wirespeed._core.limits cimport HOSTS_REMEMBERED

_current_task = asyncio.current_task
# How much of max_connection_age and max_requests_per_connection is left to chance.
cdef double JITTER = 0.1


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
        max_waiters: callers that may wait for a slot; None for any number.
        pool_timeout: seconds that a caller waits for a slot; None for no limit.
        max_open: connections in use, being dialled or idle; at least `limit`; None for no limit.
        max_connection_age: seconds after which a connection is not kept, less 0 to 10 %; None for no limit.
        max_requests_per_connection: requests after which it is not kept, less 0 to 10 %; None: any.
        is_lifo: take the connection that became idle last, not first.
        learns: learn how long servers keep idle connections.
    """

    def __init__(self, loop, *, Py_ssize_t limit, Py_ssize_t limit_per_host, keepalive_timeout,
                 bint force_close=False, bint lenient=True, max_waiters=None, pool_timeout=None,
                 max_open=None, max_connection_age=None, max_requests_per_connection=None,
                 bint is_lifo=False, bint learns=True):
        self._loop = loop
        self.limit = limit
        self.limit_per_host = limit_per_host
        self._keepalive_timeout = keepalive_timeout or 0
        # A timeout of 0 keeps nothing: aiohttp compares ages with it.
        self.force_close = force_close or keepalive_timeout == 0
        self.lenient = lenient
        self.max_waiters = -1 if max_waiters is None else max_waiters
        self.max_open = max_open or 0
        if self.max_open > 0 and (limit == 0 or limit > self.max_open):
            # Else all of them could be in use, with nothing to make room for the next.
            self.limit = self.max_open
        self._pool_timeout = pool_timeout or 0
        self._max_connection_age = max_connection_age or 0
        self._max_requests = max_requests_per_connection or 0
        self._is_lifo = is_lifo
        self._learns = learns
        self.deadlines = Deadlines(loop)
        self._buffer = new_read_buffer()
        self.hosts = {}
        self._remembered = {}
        self.figures = Figures.__new__(Figures)
        self._open = set()
        self.dials = set()
        self._turns = Turns.__new__(Turns)
        self._idle_order = OrderedDict() if self.max_open > 0 else None

    def __repr__(self):
        return (
            f"<Pool in_use={self.in_use}/{self.limit or 'no limit'} idle={self.idle} "
            f"waiting={self.waiting} hosts={len(self.hosts)}{' closed' if self.is_closed else ''}>"
        )

    cpdef Host host(self, key):
        """Return the Host of a connection key, new or known."""
        cdef Host host
        found = self.hosts.get(key)
        if found is not None:
            return <Host> found
        host = self._remembered.pop(key, None)
        if host is None:
            host = Host.__new__(Host, key, self.figures)
        host.is_evicted = False
        self.hosts[key] = host
        return host

    cpdef double now(self) except -1:
        """The clock of ages."""
        return self.deadlines.now()

    # Acquire

    cpdef Connection take(self, Host host):
        """Reserve an idle connection of the host, or return None when there is none or no room."""
        cdef Connection conn
        cdef double now
        if host.idle_count == 0 or not self._has_room(host):
            return None
        now = self.deadlines.now()
        # Counted first: closing the last dead connection must not evict the host that is being served.
        self._count(host)
        conn = self._pop_idle(host, now)
        if conn is None:
            # Nobody waits where there is room: the slot needs no passing on. The caller goes on to dial.
            host.in_use -= 1
            self.in_use -= 1
        else:
            conn._reserve(now, 0, self._holder())
        return conn

    cpdef bint try_reserve(self, Host host) except -1:
        """Take a slot for a connection to be dialled; false when a limit is reached."""
        if self.is_closed or not self._has_room(host):
            return False
        self._count_dial(host)
        return True

    cpdef Waiter wait(self, Host host, double connect_at=0.0, double total_at=0.0):
        """Queue for a slot.

        Args:
            host: where to.
            connect_at: loop time at which the future fails with WaitTimeout; 0 for never. So it
                does after `pool_timeout`.
            total_at: loop time at which it fails with TimeoutError; 0 for never.

        Returns:
            A Waiter. Its future's result is a reserved connection, or None: the caller holds a
            slot and dials. A caller that stops waiting must call `cancel`.

        Raises:
            TooManyWaiters: `max_waiters` callers wait already, and there is no room.
        """
        cdef Waiter waiter
        cdef double pool_at
        if not self.is_closed and 0 <= self.max_waiters <= self.waiting and not self._has_room(host):
            host.figures.counts.refused += 1
            self.figures.counts.refused += 1
            self._evict_if_empty(host)
            raise TooManyWaiters()
        if self._pool_timeout > 0:
            pool_at = self.deadlines.time() + self._pool_timeout
            connect_at = min(connect_at, pool_at) if connect_at > 0 else pool_at
        waiter = self._new_waiter(host, connect_at, total_at)
        if self.is_closed:
            waiter.future.set_exception(PoolClosed())
            return waiter
        host.waiters[waiter] = None
        self.waiting += 1
        self._enqueue(host)
        waiter.has_waited = not waiter.is_granted
        return waiter

    cpdef Waiter begin_dial(self, Host host, double connect_at=0.0, double total_at=0.0, double queued=0.0):
        """Wait for a connection with a slot in hand: the one that the caller dials, or one that is freed.

        The slot belongs to the dial from here on, which ends with `end_dial` or `fail_dial`, also
        when the waiter is served or gone by then.

        Args:
            host: where to.
            connect_at: loop time at which the future fails with ConnectTimeout; 0 for never.
            total_at: loop time at which it fails with TimeoutError; 0 for never.
            queued: seconds that the caller has waited for the slot.

        Returns:
            A Waiter. When its future is done already there is nothing to dial, and no slot. A
            caller that stops waiting must call `cancel`.
        """
        cdef Waiter waiter = self._new_waiter(host, connect_at, total_at)
        cdef Connection conn
        waiter.is_dialling = True
        waiter.queued = queued
        conn = self._pop_idle(host, waiter.asked_at)
        if self.is_closed:
            # Perhaps just now, by an observer of a connection that was too old.
            self._free(host)
            waiter.future.set_exception(PoolClosed())
        elif conn is None:
            host.diallers[waiter] = None
        else:
            # Freed since the slot was granted.
            host.dialling -= 1
            self.dialling -= 1
            conn._reserve(waiter.asked_at, queued, waiter.holder)
            waiter.resolve(conn)
        return waiter

    def begin_prewarm(self, Host host not None, Py_ssize_t n):
        """Take slots for connections that nobody has asked for, until n are open or being dialled.

        Idle ones count against `limit_per_host` here: nobody is about to take them.

        Returns:
            Waiters for `end_dial` and `fail_dial`, for which nobody waits.
        """
        cdef Waiter waiter
        cdef list waiters = []
        if self.limit_per_host > 0:
            n = min(n, self.limit_per_host)
        if self.max_open > 0:
            n = min(n, self.max_open)  # else the host's own idle ones would make room
        while host.in_use + host.idle_count < n and self.try_reserve(host):
            waiter = self._new_waiter(host, 0, 0)
            waiter.is_dialling = True
            waiter.future.cancel()
            waiters.append(waiter)
        self._evict_if_empty(host)
        return waiters

    cpdef Connection end_dial(self, Waiter waiter, transport, ConnectionFacts facts=None, bint is_read=True):
        """Adopt what was dialled: for the waiter, or where that is served or gone, for the pool.

        Args:
            waiter: of `begin_dial` or `begin_prewarm`.
            transport: connected.
            facts: how it was dialled.
            is_read: the transport reads already, for another protocol.

        Returns:
            The connection.

        Raises:
            PoolClosed: the pool was closed meanwhile; the transport is the caller's to close.
        """
        cdef Host host = waiter.host
        cdef Connection conn = self._adopt(host, transport, facts, is_read)
        if waiter.future.done() or waiter not in host.diallers:
            self.give_back(conn)
        else:
            del host.diallers[waiter]
            conn.holder = waiter.holder
            conn.waited = waiter.queued
            waiter.resolve(conn)
        return conn

    cpdef fail_dial(self, Waiter waiter, exc):
        """Give back the slot of a dial that failed; the waiter gets the exception if it still waits."""
        cdef Host host = waiter.host
        if waiter in host.diallers and not waiter.future.done():
            del host.diallers[waiter]
            waiter._unlink()
            if isinstance(exc, asyncio.CancelledError):
                waiter.future.cancel()
            else:
                waiter.future.set_exception(exc)
        self.free(host)

    cpdef int cancel(self, Waiter waiter) except -1:
        """Stop waiting; what was granted meanwhile goes to the next."""
        waiter._unlink()
        if waiter.future.done() and not waiter.future.cancelled():
            # An error may have come while the caller was busy elsewhere: nobody will ask for it.
            waiter.future.exception()
        if waiter.is_granted:
            waiter.is_granted = False
            conn = waiter.future.result()
            if conn is None:
                self._free(waiter.host)
            else:
                self.give_back(<Connection> conn)
        elif waiter.is_dialling:
            waiter.host.diallers.pop(waiter, None)
        elif waiter in waiter.host.waiters:
            del waiter.host.waiters[waiter]
            self.waiting -= 1
            self._turns.purge(len(self.hosts))
        return self._evict_if_empty(waiter.host)

    def free(self, Host host not None):
        """Give back a slot whose connection could not be made."""
        host.figures.counts.dial_failures += 1
        self.figures.counts.dial_failures += 1
        self._free(host)

    cdef int _free(self, Host host) except -1:
        host.dialling -= 1
        self.dialling -= 1
        self._uncount(host)
        if not self.is_closed:
            self._serve()
        return self._evict_if_empty(host)

    def add(self, Host host not None, transport, ConnectionFacts facts=None):
        """Adopt a transport that was dialled on a slot; returns its connection, reserved.

        Args:
            host: the host whose slot is held.
            transport: connected.
            facts: how it was dialled.

        Raises:
            PoolClosed: the pool was closed meanwhile; the transport is the caller's to close.
        """
        cdef Connection conn = self._adopt(host, transport, facts, True)
        conn.holder = self._holder()
        return conn

    cdef Connection _adopt(self, Host host, transport, ConnectionFacts facts, bint is_read):
        cdef Connection conn
        cdef Figures figures
        cdef double now = self.deadlines.now()
        cdef double expires_at = 0
        cdef long long max_requests = 0
        if self.is_closed:
            self._free(host)
            raise PoolClosed()
        # Not all at once: connections that were made together shall not end together.
        if self._max_connection_age > 0:
            expires_at = now + self._max_connection_age * (1 - JITTER * <double> random())
        if self._max_requests > 0:
            max_requests = max(1, round(self._max_requests * (1 - JITTER * <double> random())))
        conn = PooledConnection(
            self, host, transport, loop=self._loop, deadlines=self.deadlines, buffer=self._buffer,
            keepalive_timeout=self._keepalive_timeout, force_close=self.force_close, lenient=self.lenient,
            figures=host.figures, totals=self.figures, facts=facts,
            expires_at=expires_at, max_requests=max_requests, is_read=is_read,
        )
        facts = conn.facts
        facts.created_at = conn.acquired_at = now
        conn.is_dialled = True
        for figures in (host.figures, self.figures):
            figures.counts.created += 1
            spread(&figures.counts.dials, facts.dns + facts.connect + facts.tls)
            if facts.tls > 0:
                spread(&figures.counts.tls, facts.tls)
        host.dialling -= 1
        self.dialling -= 1
        self._open.add(conn)
        return conn

    def give_back(self, Connection conn not None):
        """Return a reserved connection that was not used; one that was lost meanwhile is no trouble."""
        if conn.state == ConnectionState.RESERVED:
            if conn.transport.is_closing():
                conn._close(CloseReason.IDLE_EOF)  # nobody is to get one that ends
            else:
                self._on_idle(conn)

    cdef Waiter _new_waiter(self, Host host, double connect_at, double total_at):
        cdef Waiter waiter = Waiter.__new__(Waiter)
        waiter._set_up(host, self.deadlines, self._loop.create_future(), self._holder())
        if not self.is_closed:
            waiter._arm(connect_at, total_at)
        return waiter

    cdef object _holder(self):
        """Who asks: what `who` says, or a weak reference to the task, which must not live longer for it."""
        if self.who is not None:
            return self.who()
        task = _current_task(self._loop)
        return None if task is None else PyWeakref_NewRef(task, None)

    cdef bint _has_room(self, Host host) noexcept:
        if self.limit > 0 and self.in_use >= self.limit:
            return False
        return not (self.limit_per_host > 0 and host.in_use >= self.limit_per_host)

    cdef int _count(self, Host host) except -1:
        host.in_use += 1
        self.in_use += 1
        return 0

    cdef int _count_dial(self, Host host) except -1:
        """Take a slot for a connection that is to be made."""
        self._count(host)
        host.dialling += 1
        self.dialling += 1
        if self.max_open > 0:
            self._make_room()
        return 0

    cdef int _make_room(self) except -1:
        """Close the connections that were not used for longest, until all fit into max_open."""
        cdef Connection conn
        while self.idle and self.in_use + self.idle > self.max_open:
            conn, _ = self._idle_order.popitem(last=False)
            conn._close(CloseReason.EVICTED)
        return 0

    cdef int _uncount(self, Host host) except -1:
        host.in_use -= 1
        self.in_use -= 1
        if host.waiters:
            self._turns.add(host)
        return 0

    # Release

    cdef int _on_idle(self, Connection conn) except -1:
        """A connection finished its response, or its loan, and may serve another."""
        cdef Host host = conn.host
        cdef double now = conn.read_at if conn.state == ConnectionState.ACTIVE else self.deadlines.now()
        if host.learner is not None and conn.state != ConnectionState.RESERVED and not conn.is_dialled:
            host.learner.note_use(conn.acquired_at - conn.idle_since)
        conn._give_back(now, host.learned(now))
        return self._return(conn, now)

    cdef int _return(self, Connection conn, double now) except -1:
        cdef Host host = conn.host
        cdef CloseReason reason = CloseReason.POOL_CLOSED
        if not self.is_closed:
            reason = conn.why_spent(now)
        if reason != CloseReason.KEPT:
            # Idle only for this instant: uncount it as a connection in use.
            self.idle += 1
            host.idle_count += 1
            self._uncount(host)
            conn._close(reason)
            return self._serve()
        if host.diallers and self._hand_to_dialler(conn, now):
            return 0
        host.push_idle(conn)
        self.idle += 1
        if self._idle_order is not None:
            self._idle_order[conn] = None
        self._uncount(host)
        if self.waiting:
            self._serve()
        return 0

    cdef bint _hand_to_dialler(self, Connection conn, double now) except -1:
        """Give a freed connection, with its slot, to the one who has dialled for longest."""
        cdef Host host = conn.host
        cdef Waiter waiter = host.pop_dialler()
        if waiter is None:
            return False
        conn._reserve(now, waiter.queued + now - waiter.asked_at, waiter.holder)
        host.figures.counts.reused += 1
        self.figures.counts.reused += 1
        waiter.resolve(conn)
        return True

    cdef int _on_closed(self, Connection conn, ConnectionState before) except -1:
        cdef Host host = conn.host
        if self._learns:
            host.learn(conn, before)
        if before == ConnectionState.IDLE:
            host.drop_idle()
            self.idle -= 1
            if self._idle_order is not None:
                self._idle_order.pop(conn, None)
        else:
            self._uncount(host)
            self._serve()
        if self.on_closed is not None:
            try:
                self.on_closed(conn)
            except Exception as exc:
                self._loop.call_exception_handler(
                    {"message": "Error in an observer of connections", "exception": exc}
                )
        if conn.transport is None or before == ConnectionState.LENT:
            self._on_gone(conn)
        return self._evict_if_empty(host)

    cdef int _on_gone(self, Connection conn) except -1:
        """The transport is closed for good."""
        self._open.discard(conn)
        if self._gone is not None and not self._open and not self._gone.done():
            self._gone.set_result(None)
        return 0

    cdef Connection _pop_idle(self, Host host, double now):
        cdef Connection conn
        cdef CloseReason reason
        while True:
            conn = host.pop_idle(self._is_lifo)
            if conn is None:
                return None
            reason = conn.why_unusable(now)
            if reason == CloseReason.KEPT and 0 <= host.learned(now) <= now - conn.idle_since:
                # Learned while it was idle.
                reason = CloseReason.LEARNED_TIMEOUT
            if reason != CloseReason.KEPT:
                conn._close(reason)
                continue
            host.idle_count -= 1
            self.idle -= 1
            if self._idle_order is not None:
                del self._idle_order[conn]
            host.figures.counts.reused += 1
            self.figures.counts.reused += 1
            return conn

    cdef int _enqueue(self, Host host) except -1:
        """Put a host with waiters into the queue, unless its own limit holds it back."""
        if self.limit_per_host <= 0 or host.in_use < self.limit_per_host:
            self._turns.add(host)
        return self._serve()

    cdef int _serve(self) except -1:
        """Pass free slots to waiters: hosts take turns, each host's waiters in order."""
        cdef Host host
        cdef Waiter waiter
        while self._turns.queue and not (self.limit > 0 and self.in_use >= self.limit):
            host = self._turns.next()
            if not host.waiters or not self._has_room(host):
                continue
            waiter = host.pop_waiter(&self.waiting)
            if waiter is not None:
                self._grant(host, waiter)
            # In the queue also when the pool is full now: another host may free the next slot.
            if host.waiters and (self.limit_per_host <= 0 or host.in_use < self.limit_per_host):
                self._turns.add(host)
        return 0

    cdef int _grant(self, Host host, Waiter waiter) except -1:
        cdef Connection conn
        cdef double now = self.deadlines.now()
        # Counted first, as in take().
        self._count(host)
        conn = self._pop_idle(host, now)
        if conn is not None:
            conn._reserve(now, now - waiter.asked_at, waiter.holder)
        else:
            host.dialling += 1
            self.dialling += 1
            if self.max_open > 0:
                self._make_room()
        if waiter.future.done():
            # An observer of a connection that was closed on the way has cancelled the caller.
            return self._free(host) if conn is None else self._on_idle(conn)
        if waiter.has_waited:
            host.figures.waited(now - waiter.asked_at)
            self.figures.waited(now - waiter.asked_at)
        return waiter.resolve(conn)

    cdef int _evict_if_empty(self, Host host) except -1:
        """Forget a host nobody uses, but for its figures: a crawler meets millions."""
        if host.is_empty() and not host.is_evicted:
            if self.hosts.get(host.key) is host:
                del self.hosts[host.key]
                self._remembered[host.key] = host
                if len(self._remembered) > HOSTS_REMEMBERED:
                    del self._remembered[next(iter(self._remembered))]
            host.is_evicted = True
        return 0

    # End

    def close(self):
        """Close every connection and fail every waiter with PoolClosed. Safe to call twice."""
        cdef Host host
        if self.is_closed:
            return
        self.is_closed = True
        self._turns.queue.clear()
        for host in list(self.hosts.values()):
            self.waiting -= len(host.waiters)
            host.fail_waiters()
            self._evict_if_empty(host)
        for conn in list(self._open):
            try:
                (<Connection> conn)._drop(CloseReason.POOL_CLOSED)
            except Exception as exc:
                # One connection that fails to close must not keep the others open.
                self._loop.call_exception_handler(
                    {"message": "Error while closing a connection", "exception": exc}
                )
        self.deadlines.close()

    def idle_connections(self):
        """List the idle connections, in no order."""
        return [conn for conn in self._open if (<Connection> conn).state == ConnectionState.IDLE]

    def connections(self):
        """List the connections that are not gone, in no order; for whoever counts or looks."""
        return list(self._open)

    def known_hosts(self):
        """List the hosts, and those without connections that are remembered, in no order; from any thread."""
        # Walking dicts runs no Python code; an OrderedDict asks its keys' hashes, and a proxy's URL has one.
        return [*self.hosts.values(), *self._remembered.values()]

    def snapshot(self):
        """Copy the figures of the whole pool, as `Host.snapshot` does those of a host."""
        return self.figures.snapshot() | {
            "in_use": self.in_use - self.dialling, "idle": self.idle, "dialling": self.dialling,
            "waiting": self.waiting, "learned_keepalive": None,
        }

    def wait_closed(self):
        """Return a future that is done when every transport of the closed pool is gone."""
        if self._gone is None:
            self._gone = self._loop.create_future()
            if not self._open:
                self._gone.set_result(None)
        return self._gone
