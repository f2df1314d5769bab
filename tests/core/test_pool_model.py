"""The pool against a model: whatever callers, dials, servers and time do, its laws and its figures hold.

The model is what a program and its network are: callers that ask, wait, look late, cancel and
send; dials that end whenever they like, also when their caller is gone; servers that close.
After each step everything is counted again from there and compared with the pool.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wirespeed._core.connection import Connection, ConnectionState
from wirespeed._core.exchange import CloseReason
from wirespeed._core.figures import ConnectionFacts
from wirespeed._core.hosts import Host, PoolClosed, TooManyWaiters, Waiter, WaitTimeout
from wirespeed._core.pool import Pool

from .fakes import FakeLoop, FakeTransport, new_settings

REQUEST = b"request"
TOLD = {b"": (None, None), b"timeout=4": (3.0, None), b"timeout=1, max=2": (0.75, 2), b"max=1": (None, 1)}
BODIES = [b"ok", b"ok", b"ok", b"ok surplus", b""]
KEYS = st.sampled_from("aaabc")
CLOCKS = 0.01  # deadlines have a grid of milliseconds
BUSY = (ConnectionState.ACTIVE, ConnectionState.LENT)
OWNED = (ConnectionState.RESERVED, ConnectionState.ACTIVE, ConnectionState.LENT)
HABIT = 5.0  # seconds after which the server that has habits closes idle connections


class Borrower:
    """A protocol of somebody else's, on loan."""

    def connection_made(self, transport: object) -> None: ...
    def connection_lost(self, exc: object) -> None: ...


@dataclass(eq=False)
class Dial:
    """A connection that is being made, for a caller or (without one) for the pool."""

    waiter: Waiter
    caller: "Caller | None" = None


@dataclass(eq=False)
class Caller:
    """Somebody who asks for a connection.

    Attributes:
        name: what the pool's `who` says while it asks.
        is_traced: it dials by itself, with the slot in hand.
        waiter: what it waits for, in the queue or with a dial.
        has_waited: there was no room when it came.
        slot: the host whose slot it has in hand.
        own: the connection that its own dial made, if that came first.
        is_noticed: the model has seen that its wait is over.
    """

    name: int
    key: str
    is_traced: bool
    asked_at: float = 0.0
    waiter: Any = None
    has_waited: bool = False
    slot: Host | None = None
    own: Connection | None = None
    is_noticed: bool = False

    @property
    def is_pending(self) -> bool:
        return not self.waiter.future.done()

    @property
    def grant(self) -> "tuple[Connection | None] | None":
        """What the wait brought, in a tuple: a connection, or None for a slot. None: nothing, or an error."""
        future = self.waiter.future
        if not future.done() or future.cancelled() or future.exception() is not None:
            return None
        return (future.result(),)


@dataclass
class Counted:
    """What the model counts of one host, in the order of the figures."""

    created: int = 0
    reused: int = 0
    requests: int = 0
    refused: int = 0
    wait_timeouts: int = 0
    dial_failures: int = 0
    waits: list[float] = field(default_factory=list)


class PoolAgainstModel(RuleBasedStateMachine):
    """Holds what a program holds: callers in each stage, connections, dials; and the counts of all."""

    @initialize(
        limits=st.tuples(st.sampled_from([1, 2, 2, 3, 4, 0]), st.sampled_from([0, 0, 0, 1, 2])),
        surplus=st.sampled_from([None, None, 0, 1, 2]),
        max_waiters=st.sampled_from([None, None, None, 0, 3]),
        pool_timeout=st.sampled_from([None, None, 4.0]),
        keepalive=st.sampled_from([15.0, 15.0, None, 2.0]),
        max_age=st.sampled_from([None, None, 20.0]),
        max_requests=st.sampled_from([None, None, None, 1, 3]),
        flags=st.tuples(st.booleans(), st.booleans(), st.integers(0, 7)),
    )
    def start(
        self,
        limits: tuple[int, int],
        surplus: int | None,
        max_waiters: int | None,
        pool_timeout: float | None,
        keepalive: float | None,
        max_age: float | None,
        max_requests: int | None,
        flags: tuple[bool, bool, int],
    ) -> None:
        self.loop = FakeLoop()
        self.max_open = None if surplus is None else max(1, limits[0]) + surplus
        # The pool lowers its limit to this one, or has one that it was not given.
        self.limit = limits[0] or self.max_open or 0
        self.limit_per_host = limits[1]
        self.max_waiters, self.pool_timeout, self.keepalive = max_waiters, pool_timeout, keepalive
        self.max_age, self.max_requests = max_age, max_requests
        self.is_lifo, learns, self.force_close = flags[0], flags[1], flags[2] == 7
        self.pool = Pool(
            self.loop,  # type: ignore[arg-type]
            limit=limits[0],
            limit_per_host=self.limit_per_host,
            keepalive_timeout=keepalive,
            force_close=self.force_close,
            max_waiters=max_waiters,
            pool_timeout=pool_timeout,
            max_open=self.max_open,
            max_connection_age=max_age,
            max_requests_per_connection=max_requests,
            is_lifo=self.is_lifo,
            learns=learns,
        )
        self.asking: int | None = None
        self.pool.who = lambda: self.asking
        self.callers = 0
        self.queued: list[Caller] = []
        self.dialling: list[Caller] = []
        self.slots: list[Caller] = []
        self.dials: list[Dial] = []
        self.conns: list[tuple[Connection, FakeTransport]] = []
        self.held: list[tuple[Connection, int]] = []
        self.counted: dict[str, Counted] = defaultdict(Counted)
        self.told: dict[Connection, tuple[float | None, int | None]] = {}
        self.idle_limits: dict[Connection, float | None] = {}
        self.was_eligible: set[Host] = set()
        self.passed: dict[Host, dict[Host, int]] = defaultdict(lambda: defaultdict(int))

    # Callers ask

    @rule(
        key=KEYS,
        count=st.integers(1, 3),
        timeout=st.sampled_from([0, 0, 5]),
        is_traced=st.sampled_from([False, False, False, True]),
    )
    def acquire(self, key: str, count: int, timeout: float, is_traced: bool) -> None:
        for _ in range(count):
            self.callers += 1
            self._ask(Caller(self.callers, key, is_traced), timeout)

    def _ask(self, caller: Caller, timeout: float = 0) -> None:
        pool, self.asking = self.pool, caller.name
        host = pool.host(caller.key)
        caller.asked_at, caller.is_noticed = self.loop.now, False
        conn = pool.take(host)
        if conn is not None:
            self.counted[caller.key].reused += 1
            self._check_reused(conn)
            self._deliver(caller, conn)
        elif pool.try_reserve(host):
            self._dial(caller, host)
        else:
            waiting = pool.waiting
            try:
                caller.waiter = pool.wait(host, self.loop.now + timeout if timeout else 0)
            except TooManyWaiters:
                assert self.max_waiters is not None
                assert waiting == self.max_waiters
                self.counted[caller.key].refused += 1
                return
            caller.has_waited = caller.is_pending
            self.queued.append(caller)

    def _dial(self, caller: Caller, host: Host) -> None:
        """Go on with a slot in hand."""
        if caller.is_traced:
            caller.slot = host
            self.slots.append(caller)
            return
        self.asking = caller.name
        caller.is_noticed, caller.own = False, None
        caller.waiter = self.pool.begin_dial(host, queued=self.loop.now - caller.asked_at)
        if caller.is_pending:
            self.dialling.append(caller)
            self.dials.append(Dial(caller.waiter, caller))
        elif (grant := caller.grant) is not None:
            # One was freed since the slot was granted.
            self.counted[caller.key].reused += 1
            assert grant[0] is not None
            self._check_reused(grant[0])
            self._deliver(caller, grant[0])
        else:
            assert isinstance(caller.waiter.future.exception(), PoolClosed)

    def _deliver(self, caller: Caller, conn: Connection) -> None:
        """A caller has looked, and has a connection from here on."""
        assert conn.state == ConnectionState.RESERVED
        assert conn.host.key == caller.key
        assert conn.holder == caller.name
        assert conn not in [held for held, _ in self.held], "delivered twice"
        self.held.append((conn, caller.name))

    @precondition(lambda self: any(not caller.is_pending for caller in self.queued + self.dialling))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        """The task of a caller wakes up; when its wait failed, it cancels and is gone."""
        done = [caller for caller in self.queued + self.dialling if not caller.is_pending]
        self._look(data.draw(st.sampled_from(done)))

    @rule(
        steps=st.lists(st.sampled_from(["look", "dial", "send", "lend", "finish"]), min_size=1, max_size=12)
    )
    def go_on(self, steps: list[str]) -> None:
        """Whatever has been pending for longest goes well; most of what a program does is of this kind."""
        for step in steps:
            done = [caller for caller in self.queued + self.dialling if not caller.is_pending]
            if step == "look" and done:
                self._look(done[0])
            elif step == "dial" and self.dials:
                self._end_dial(self.dials[0])
            elif step == "send" and (conns := self._held(ConnectionState.RESERVED)):
                self._send(conns[0])
            elif step == "lend" and (conns := self._held(ConnectionState.RESERVED)):
                self._lend(conns[-1])
            elif step == "finish" and (conns := self._held(*BUSY)):
                self._finish(conns[0])
            self.laws_hold()

    def _look(self, caller: Caller) -> None:
        # What is over is counted once, and here would be too late.
        self._notice()
        (self.queued if caller in self.queued else self.dialling).remove(caller)
        grant = caller.grant
        if grant is None:
            self.pool.cancel(caller.waiter)
        elif grant[0] is None:
            self._dial(caller, caller.waiter.host)
        elif grant[0].state == ConnectionState.RESERVED:
            self._deliver(caller, grant[0])
        else:
            # Lost between the grant and this step.
            self._ask(caller)

    @precondition(lambda self: self.queued or self.dialling)
    @rule(data=st.data(), is_late=st.booleans())
    def cancel(self, data: st.DataObject, is_late: bool) -> None:
        """The task of a caller is cancelled: its future at once, and the pool is told when it has looked."""
        caller = data.draw(st.sampled_from(self.queued + self.dialling))
        if is_late:
            caller.waiter.future.cancel()
            return
        (self.queued if caller in self.queued else self.dialling).remove(caller)
        self.pool.cancel(caller.waiter)

    @rule(key=KEYS, count=st.integers(1, 3))
    def prewarm(self, key: str, count: int) -> None:
        host = self.pool.host(key)
        self.asking = None
        while host.in_use + host.idle_count < count and self.pool.try_reserve(host):
            self.dials.append(Dial(self.pool.begin_dial(host, is_for_pool=True)))

    # Dials end

    def _made(self, conn: Connection, transport: FakeTransport) -> None:
        self.conns.append((conn, transport))
        self.counted[conn.host.key].created += 1

    @precondition(lambda self: self.dials)
    @rule(data=st.data())
    def dial_succeeds(self, data: st.DataObject) -> None:
        self._end_dial(data.draw(st.sampled_from(self.dials)))

    def _end_dial(self, dial: Dial) -> None:
        self.dials.remove(dial)
        transport = FakeTransport(self.loop)
        is_awaited = dial.caller is not None and dial.caller in self.dialling and dial.caller.is_pending
        self.asking = None
        try:
            conn = self.pool.end_dial(dial.waiter, transport, ConnectionFacts(connect=0.5))  # type: ignore[arg-type]
        except PoolClosed:
            assert self.pool.is_closed
            return
        assert not self.pool.is_closed
        self._made(conn, transport)
        if is_awaited:
            assert dial.caller is not None
            assert dial.caller.grant == (conn,)
            dial.caller.own = conn

    @precondition(lambda self: self.dials)
    @rule(data=st.data(), exc=st.sampled_from([OSError("no route"), asyncio.CancelledError()]))
    def dial_fails(self, data: st.DataObject, exc: BaseException) -> None:
        dial = data.draw(st.sampled_from(self.dials))
        self.dials.remove(dial)
        is_awaited = dial.caller is not None and dial.caller in self.dialling and dial.caller.is_pending
        before = dial.waiter.future.done()
        self.pool.fail_dial(dial.waiter, exc)
        self.counted[dial.waiter.host.key].dial_failures += 1
        if is_awaited:
            future = dial.waiter.future
            assert future.cancelled() or future.exception() is exc
        else:
            assert dial.waiter.future.done() == before

    @precondition(lambda self: self.slots)
    @rule(is_made=st.booleans())
    def traced_dial_ends(self, is_made: bool) -> None:
        caller = self.slots.pop(0)
        assert caller.slot is not None
        self.asking = caller.name
        if not is_made:
            self.pool.free(caller.slot)
            self.counted[caller.key].dial_failures += 1
            return
        transport = FakeTransport(self.loop)
        try:
            conn = self.pool.add(caller.slot, transport, ConnectionFacts(connect=0.5))  # type: ignore[arg-type]
        except PoolClosed:
            assert self.pool.is_closed
            return
        assert not self.pool.is_closed
        self._made(conn, transport)
        self._deliver(caller, conn)

    # Callers use what they have

    def _let_go(self, conn: Connection) -> None:
        self.held = [(held, name) for held, name in self.held if held is not conn]

    def _held(self, *states: ConnectionState) -> list[Connection]:
        return [conn for conn, _ in self.held if conn.state in states]

    def _send(self, conn: Connection) -> None:
        self.counted[conn.host.key].requests += 1
        conn.send(REQUEST, new_settings()).waiter.cancel()

    def _lend(self, conn: Connection) -> None:
        self.counted[conn.host.key].requests += 1
        conn.lend(Borrower())  # type: ignore[arg-type]

    @precondition(lambda self: self._held(ConnectionState.RESERVED))
    @rule(data=st.data(), how=st.sampled_from(["send", "send", "send", "lend", "give back"]))
    def use(self, data: st.DataObject, how: str) -> None:
        conn = data.draw(st.sampled_from(self._held(ConnectionState.RESERVED)))
        if how == "give back":
            self._let_go(conn)
            self.pool.give_back(conn)
        elif how == "lend":
            self._lend(conn)
        else:
            self._send(conn)

    @precondition(lambda self: self._held(*BUSY))
    @rule(
        data=st.data(),
        told=st.sampled_from([b"", b"", b"", *TOLD]),
        closes=st.sampled_from([False, False, False, True]),
        body=st.sampled_from(BODIES),
    )
    def finish(self, data: st.DataObject, told: bytes, closes: bool, body: bytes) -> None:
        """The server answers, or a loan is returned; what has no body is let go of in doubt."""
        conn = data.draw(st.sampled_from(self._held(*BUSY)))
        self._finish(conn, told, closes, body)

    def _finish(self, conn: Connection, told: bytes = b"", closes: bool = False, body: bytes = b"ok") -> None:
        self._let_go(conn)
        if conn.state == ConnectionState.LENT:
            if body:
                conn.take_back()
            else:
                conn.close(CloseReason.LENT_UNCLEAN)
            return
        transport: Any = conn.transport
        exchange = conn.exchange
        if told:
            timeout, more = TOLD[told]
            before = self.told.get(conn, (None, None))
            most = [count for count in (before[1], more and conn.requests + more) if count]
            self.told[conn] = timeout or before[0], min(most, default=None)
        fields = b"Keep-Alive: %s\r\n" % told if told else b""
        fields += b"Connection: close\r\n" if closes else b""
        transport.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%s\r\n%s" % (fields, body))
        if not body:
            assert exchange is not None
            exchange.abandon()

    # What servers and time do

    def _endable(self) -> list[tuple[Connection, FakeTransport]]:
        gone = (ConnectionState.LENT, ConnectionState.CLOSED)
        return [(conn, transport) for conn, transport in self.conns if conn.state not in gone]

    @precondition(lambda self: self._endable())
    @rule(data=st.data(), how=st.sampled_from(["lost", "reset", "eof", "bytes", "closing"]))
    def end_a_connection(self, data: st.DataObject, how: str) -> None:
        conn, transport = data.draw(st.sampled_from(self._endable()))
        if how in ("lost", "reset"):
            transport.lose(ConnectionResetError() if how == "reset" else None)
        elif how == "eof":
            transport.feed_eof()
        elif how == "bytes" and conn.state == ConnectionState.IDLE:
            transport.feed(b"?")
        elif how == "closing" and conn.state == ConnectionState.IDLE:
            # The loop knows, and calls connection_lost in its next step.
            transport.end = "lost"
            self.loop.call_soon(transport.lose)

    @rule(key=KEYS, times=st.integers(1, 4))
    def server_with_a_habit(self, key: str, times: int) -> None:
        """It closes idle connections after HABIT seconds; whoever sees that some times has learned it."""
        for _ in range(times):
            self.laws_hold()
            self._request(key)
            of_host = [pair for pair in self.conns if pair[0].host.key == key]
            if idle := [pair for pair in of_host if pair[0].state == ConnectionState.IDLE]:
                conn, transport = idle[-1]
                self.loop.advance_to(max(self.loop.now, conn.idle_since + HABIT))
                if conn.state == ConnectionState.IDLE:
                    transport.feed_eof()

    def _request(self, key: str) -> None:
        self.callers += 1
        caller = Caller(self.callers, key, is_traced=False)
        self._ask(caller)
        if caller in self.dialling:
            self._end_dial(next(dial for dial in self.dials if dial.caller is caller))
            self._look(caller)
        for conn, name in self.held:
            if name == caller.name:
                self._send(conn)
                self._finish(conn)

    @rule(seconds=st.sampled_from([0.1, 1, 3, 16]))
    def let_time_pass(self, seconds: float) -> None:
        self.loop.advance(seconds)

    @precondition(lambda self: self.callers > 20)
    @rule(dice=st.integers(0, 9))
    def close(self, dice: int) -> None:
        if dice == 9:
            self.pool.close()
            self.pool.close()

    # Laws

    @invariant()
    def laws_hold(self) -> None:
        self._notice()
        self.held = [(conn, name) for conn, name in self.held if conn.state != ConnectionState.CLOSED]
        self._check_owners()
        self._check_limits()
        self._check_nobody_waits_in_vain()
        self._check_idle()
        self._check_hosts()
        self._check_figures()
        assert self.loop.errors == []

    def _notice(self) -> None:
        """See whose wait is over since the last step: count it, and check whose turn it was."""
        served: set[Host] = set()
        for caller in self.queued:
            if caller.is_pending or caller.is_noticed:
                continue
            caller.is_noticed = True
            counted, future = self.counted[caller.key], caller.waiter.future
            if (grant := caller.grant) is not None:
                served.add(caller.waiter.host)
                if caller.has_waited:
                    counted.waits.append(self.loop.now - caller.asked_at)
                if grant[0] is not None:
                    counted.reused += 1
                    self._check_reused(grant[0])
            elif not future.cancelled() and not isinstance(future.exception(), PoolClosed):
                assert isinstance(future.exception(), WaitTimeout)
                counted.wait_timeouts += 1
        self._check_order(self.queued)
        for caller in self.dialling:
            if caller.is_pending or caller.is_noticed:
                continue
            caller.is_noticed = True
            grant = caller.grant
            if grant is not None and grant[0] is not caller.own:
                assert grant[0] is not None
                self.counted[caller.key].reused += 1
                self._check_reused(grant[0])
                older = self.dialling[: self.dialling.index(caller)]
                assert not any(other.is_pending and other.key == caller.key for other in older)
        self._check_turns(served)

    def _check_order(self, callers: list[Caller]) -> None:
        """Callers of a host are served in the order in which they came."""
        for number, caller in enumerate(callers):
            if caller.is_pending:
                later = [other for other in callers[number:] if other.key == caller.key]
                assert not any(other.grant is not None for other in later)

    def _check_turns(self, served: set[Host]) -> None:
        """While a host waits for nothing but a slot of the pool, no other gets more than one before it."""
        eligible = set()
        for host in {caller.waiter.host for caller in self.queued if caller.is_pending}:
            if not self.limit_per_host or host.in_use < self.limit_per_host:
                eligible.add(host)
        for host in self.was_eligible:
            if host in served or host not in eligible:
                self.passed.pop(host, None)
                continue
            for other in served:
                self.passed[host][other] += 1
                assert self.passed[host][other] <= 1, f"{host} was passed by {other}"
        self.was_eligible = eligible

    def _check_reused(self, conn: Connection) -> None:
        """What is taken from the pool may live on."""
        now = self.loop.now
        idle_for = now - conn.idle_since
        told, most = self.told.get(conn, (None, None))
        learned = self.idle_limits.get(conn)
        assert not self.force_close
        assert not self.pool.is_closed
        for limit in (self.keepalive, told, learned):
            assert limit is None or idle_for < limit
        assert self.max_age is None or now - conn.facts.created_at < self.max_age
        for count in (self.max_requests, most):
            assert count is None or conn.requests < count

    def _granted(self) -> list[tuple[Caller, Connection | None]]:
        """What callers were given and have not looked at yet; a connection may be lost by then."""
        found = []
        for caller in self.queued + self.dialling:
            if (grant := caller.grant) is not None:
                conn = grant[0]
                if conn is None or conn.state == ConnectionState.RESERVED:
                    found.append((caller, conn))
        return found

    def _check_owners(self) -> None:
        """Every connection that is not idle belongs to exactly one caller, who is on record."""
        owners = [(conn, name) for conn, name in self.held]
        owners += [(conn, caller.name) for caller, conn in self._granted() if conn is not None]
        owned = [conn for conn, _ in self.conns if conn.state in OWNED]
        assert len(owners) == len(owned), "lost, or delivered twice"
        assert {conn for conn, _ in owners} == set(owned)
        for conn, name in owners:
            assert conn.holder == name
        assert all(conn.holder is None for conn, _ in self.conns if conn.state == ConnectionState.IDLE)
        idle = {conn for conn, _ in self.conns if conn.state == ConnectionState.IDLE}
        assert idle == set(self.pool.idle_connections())

    def _check_limits(self) -> None:
        pool = self.pool
        assert not self.limit or pool.in_use <= self.limit
        assert self.max_open is None or pool.in_use + pool.idle <= self.max_open
        assert self.max_waiters is None or pool.waiting <= self.max_waiters
        for host in pool.hosts.values():
            assert not self.limit_per_host or host.in_use + host.idle_count <= self.limit_per_host

    def _check_nobody_waits_in_vain(self) -> None:
        pool = self.pool
        for caller in self.queued:
            if caller.is_pending:
                host = caller.waiter.host
                is_full = self.limit and pool.in_use == self.limit
                assert is_full or (self.limit_per_host and host.in_use == self.limit_per_host)
                assert not pool.is_closed
                waited = self.loop.now - caller.asked_at
                assert self.pool_timeout is None or waited <= self.pool_timeout + CLOCKS
        for caller in self.dialling:
            if caller.is_pending:
                assert caller.waiter.host.idle_count == 0
                assert not pool.is_closed
                assert any(dial.caller is caller for dial in self.dials), "waits for no dial"

    def _check_idle(self) -> None:
        """No connection stays longer than it may; and what was known when it became idle is noted."""
        now = self.loop.now
        for conn, _ in self.conns:
            if conn.state != ConnectionState.IDLE:
                self.idle_limits.pop(conn, None)
                continue
            if conn not in self.idle_limits:
                self.idle_limits[conn] = self.pool.snapshot(conn.host)["learned_keepalive"]
            for limit in (self.keepalive, self.told.get(conn, (None,))[0], self.idle_limits[conn]):
                assert limit is None or now - conn.idle_since <= limit + CLOCKS
            assert self.max_age is None or now - conn.facts.created_at <= self.max_age + CLOCKS

    def _check_hosts(self) -> None:
        """Each key has one host, and only while it is used."""
        if self.pool.is_closed:
            return
        known = set(self.pool.hosts.values())
        used = {conn.host for conn, _ in self.conns if conn.state != ConnectionState.CLOSED}
        used |= {dial.waiter.host for dial in self.dials}
        used |= {caller.waiter.host for caller, conn in self._granted() if conn is None}
        used |= {caller.waiter.host for caller in self.queued if caller.is_pending}
        maybe = {caller.waiter.host for caller in self.queued}
        keys = {host.key for host in used} | {caller.key for caller in self.slots}
        assert used <= known
        assert {host.key for host in known} - {host.key for host in maybe} <= keys
        assert not any(host.is_evicted for host in known)

    # Figures

    def _check_figures(self) -> None:
        hosts = self.pool.known_hosts()
        assert len({host.key for host in hosts}) == len(hosts)
        for host in hosts:
            self._compare(self.pool.snapshot(host), [host.key])
        self._compare(self.pool.snapshot(), "abc")
        # Nothing is counted of a host that the pool does not know, any more or yet.
        unknown = {*"abc"} - {host.key for host in hosts}
        assert all(self.counted[key] == Counted() for key in unknown)

    def _compare(self, figures: dict[str, Any], keys: Iterable[str]) -> None:
        conns = [(conn, transport) for conn, transport in self.conns if conn.host.key in keys]
        counted = [self.counted[key] for key in keys]
        closed = [conn for conn, _ in conns if conn.state == ConnectionState.CLOSED]
        slots = [caller for caller, conn in self._granted() if conn is None] + self.slots
        waits = [wait for count in counted for wait in count.waits]
        lives = [conn.requests for conn in closed]
        pending = sum(caller.is_pending for caller in self.queued if caller.key in keys)
        expected = {
            "in_use": sum(conn.state in OWNED for conn, _ in conns),
            "idle": sum(conn.state == ConnectionState.IDLE for conn, _ in conns),
            "dialling": sum(caller.key in keys for caller in slots)
            + sum(dial.waiter.host.key in keys for dial in self.dials),
            "bytes_in": sum(transport.received for _, transport in conns),
            "bytes_out": sum(len(transport.written) for _, transport in conns),
            "closed": [sum(conn.close_reason == reason for conn in closed) for reason in CloseReason],
            "dials": (len(conns), 0.5 * len(conns), 0.5 if conns else 0),
            "tls": (0, 0, 0),
            "lives": (len(lives), sum(lives), max(lives, default=0)),
            "stale_retries": 0,
        }
        for name in ("created", "reused", "requests", "refused", "wait_timeouts", "dial_failures"):
            expected[name] = sum(getattr(count, name) for count in counted)
        found = {name: figures[name] for name in expected}
        assert found == expected
        # Those who gave up are counted until they look.
        assert pending <= figures["waiting"] <= sum(caller.key in keys for caller in self.queued)
        count, total, most = figures["waits"]
        assert count == len(waits) == sum(figures["wait_buckets"])
        assert abs(total - sum(waits)) < 1e-6
        assert abs(most - max(waits, default=0)) < 1e-6

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for caller in self.queued + self.dialling:
            self.pool.cancel(caller.waiter)
        for dial in self.dials:
            self.pool.fail_dial(dial.waiter, asyncio.CancelledError())
        for caller in self.slots:
            assert caller.slot is not None
            self.pool.free(caller.slot)
        for conn, _ in self.held:
            conn.close()
        self.loop.advance(100)
        assert (self.pool.in_use, self.pool.dialling, self.pool.waiting) == (0, 0, 0)
        if self.keepalive is not None or self.pool.is_closed:
            assert self.pool.idle == 0
            assert self.pool.is_closed or self.pool.hosts == {}
            assert self.loop.timers == []
        self.pool.close()
        self.loop.run_ready()
        assert self.loop.timers == []
        assert self.pool.idle == 0
        assert all(conn.state == ConnectionState.CLOSED for conn, _ in self.conns)
        assert self.pool.wait_closed().done()
        assert self.loop.errors == []


TestPoolAgainstModel = pytest.mark.timeout(1800)(PoolAgainstModel.TestCase)
