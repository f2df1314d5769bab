"""The pool against a model: whatever callers, dials, servers and time do, its laws and its figures hold.

The model is what a program and its network are: callers that ask, wait, look late, cancel and
send; dials that end whenever they like, also when their caller is gone; servers that close.
After each step everything is counted again from there and compared with the pool.
"""

import asyncio
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wirespeed._core.connection import Connection, ConnectionState
from wirespeed._core.exchange import CloseReason
from wirespeed._core.figures import ConnectionFacts
from wirespeed._core.hosts import Host, PoolClosed, TooManyWaiters
from wirespeed._core.pool import Pool

from .fakes import FakeLoop, FakeTransport, new_settings
from .pool_laws import Caller, Dial, PoolLaws

REQUEST = b"request"
TOLD = {b"": (None, None), b"timeout=4": (3.0, None), b"timeout=1, max=2": (0.75, 2), b"max=1": (None, 1)}
BODIES = [b"ok", b"ok", b"ok", b"ok surplus", b""]
FINISHES: dict[str, dict[str, Any]] = {
    "finish": {},
    "tell a timeout": {"told": b"timeout=4"},
    "tell an end": {"told": b"max=1"},
    "close": {"closes": True},
    "break off": {"body": b""},
    "say too much": {"body": b"ok surplus"},
}
STEPS = ["look", "look", "dial", "dial", "send", "send", "send", "lend", "finish", "finish", *FINISHES]
KEYS = st.sampled_from("aaabc")
BUSY = (ConnectionState.ACTIVE, ConnectionState.LENT)
HABIT = 5.0  # seconds after which the server that has habits closes idle connections


class Borrower:
    """A protocol of somebody else's, on loan."""

    def connection_made(self, transport: object) -> None: ...
    def connection_lost(self, exc: object) -> None: ...


class PoolAgainstModel(PoolLaws, RuleBasedStateMachine):
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
        self._set_out()

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
            self.check_reused(conn)
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
            self.check_reused(grant[0])
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

    @rule(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=12))
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
            elif step in FINISHES and (conns := self._held(*BUSY)):
                self._finish(conns[0], **FINISHES[step])
            self.laws_hold()

    def _look(self, caller: Caller) -> None:
        # What is over is counted once, and here would be too late.
        self.notice()
        (self.queued if caller in self.queued else self.dialling).remove(caller)
        grant = caller.grant
        if grant is None:
            self.pool.cancel(caller.waiter)
        elif grant[0] is None:
            self._dial(caller, caller.waiter.host)
        elif grant[0].state == ConnectionState.RESERVED:
            self._deliver(caller, grant[0])
        elif grant[0] is not caller.own:
            # Lost between the grant and this step; one of its own would be its failure.
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
        self.dials += map(Dial, self.pool.begin_prewarm(host, count))

    # Dials end

    def _made(self, conn: Connection, transport: FakeTransport) -> None:
        self.conns.append((conn, transport))
        self.counted[conn.host.key].created += 1

    def _is_awaited(self, dial: Dial) -> bool:
        """Its caller has not been served otherwise, nor is it gone; it may wait for another dial by now."""
        caller = dial.caller
        return caller in self.dialling and caller.waiter is dial.waiter and caller.is_pending

    @precondition(lambda self: self.dials)
    @rule(data=st.data())
    def dial_succeeds(self, data: st.DataObject) -> None:
        self._end_dial(data.draw(st.sampled_from(self.dials)))

    def _end_dial(self, dial: Dial) -> None:
        self.dials.remove(dial)
        transport = FakeTransport(self.loop)
        is_awaited = self._is_awaited(dial)
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
        is_awaited = self._is_awaited(dial)
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
            # What was granted was granted now, not when the time has passed.
            self.laws_hold()
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
        self.notice()
        self.held = [(conn, name) for conn, name in self.held if conn.state != ConnectionState.CLOSED]
        self._check_owners()
        self._check_limits()
        self._check_nobody_waits_in_vain()
        self._check_idle()
        self._check_hosts()
        self._check_figures()
        assert self.loop.errors == []

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


TestPoolAgainstModel = PoolAgainstModel.TestCase
