"""The pool against a model: whatever callers, servers and time do, its counters and laws hold."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wirespeed._core.connection import Connection, ConnectionState
from wirespeed._core.exchange import CloseReason
from wirespeed._core.hosts import Host, Waiter
from wirespeed._core.pool import Pool

from .fakes import FakeLoop, FakeTransport, new_settings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
HEADS = [OK, OK, CLOSING]
BODIES = [b"ok", b"ok", b"ok surplus", b""]
KEYS = st.sampled_from("abc")


class PoolAgainstModel(RuleBasedStateMachine):
    """Holds what a program holds: slots, connections in each state, and waiters not yet looked at."""

    @initialize(limit=st.integers(0, 4), limit_per_host=st.integers(0, 2), force=st.integers(0, 4))
    def start(self, limit: int, limit_per_host: int, force: int) -> None:
        self.loop = FakeLoop()
        self.pool = Pool(
            self.loop,  # type: ignore[arg-type]
            limit=limit,
            limit_per_host=limit_per_host,
            keepalive_timeout=15.0,
            force_close=force == 4,
        )
        self.slots: list[Host] = []
        self.conns: list[tuple[Connection, FakeTransport]] = []
        self.held: list[Connection] = []
        self.waiters: list[Waiter] = []

    # What a program does

    @rule(key=KEYS, timeout=st.sampled_from([0, 0, 5]))
    def acquire(self, key: str, timeout: float) -> None:
        host = self.pool.host(key)
        conn = self.pool.take(host)
        if conn is not None:
            self.held.append(conn)
        elif self.pool.try_reserve(host):
            self.slots.append(host)
        else:
            self.waiters.append(self.pool.wait(host, self.loop.now + timeout if timeout else 0))

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def look_at_a_waiter(self, data: st.DataObject) -> None:
        """Its task wakes up; when it failed, it cancels."""
        waiter = data.draw(st.sampled_from(self.waiters))
        if not waiter.future.done():
            return
        self.waiters.remove(waiter)
        if waiter.future.cancelled() or waiter.future.exception() is not None:
            self.pool.cancel(waiter)
        elif waiter.future.result() is None:
            self.slots.append(waiter.host)
        else:
            self.held.append(waiter.future.result())

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def cancel_a_waiter(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(self.waiters))
        self.waiters.remove(waiter)
        self.pool.cancel(waiter)

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def cancel_the_task_of_a_waiter(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.waiters)).future.cancel()

    @precondition(lambda self: self.slots)
    @rule(is_made=st.booleans())
    def dial(self, is_made: bool) -> None:
        host = self.slots.pop(0)
        if is_made:
            transport = FakeTransport(self.loop)
            conn = self.pool.add(host, transport)  # type: ignore[arg-type]
            self.conns.append((conn, transport))
            self.held.append(conn)
        else:
            self.pool.free(host)

    def _held(self, data: st.DataObject, state: ConnectionState, use: Callable[[Connection], object]) -> None:
        conns = [conn for conn in self.held if conn.state == state]
        if conns:
            use(data.draw(st.sampled_from(conns)))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        def use(conn: Connection) -> None:
            self.held.remove(conn)
            self.pool.give_back(conn)

        self._held(data, ConnectionState.RESERVED, use)

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        def use(conn: Connection) -> None:
            conn.send(b"request", new_settings()).waiter.cancel()

        self._held(data, ConnectionState.RESERVED, use)

    @rule(data=st.data(), head=st.sampled_from(HEADS), body=st.sampled_from(BODIES))
    def answer(self, data: st.DataObject, head: bytes, body: bytes) -> None:
        def use(conn: Connection) -> None:
            transport: Any = conn.transport
            self.held.remove(conn)
            exchange = conn.exchange
            transport.feed(head + body)
            if not body and exchange is not None:
                exchange.abandon()

        self._held(data, ConnectionState.ACTIVE, use)

    @rule(data=st.data())
    def lend(self, data: st.DataObject) -> None:
        class Borrower:
            def connection_made(self, transport: object) -> None: ...
            def connection_lost(self, exc: object) -> None: ...

        self._held(data, ConnectionState.RESERVED, lambda conn: conn.lend(Borrower()))  # type: ignore[arg-type]

    @rule(data=st.data(), is_clean=st.booleans())
    def return_a_loan(self, data: st.DataObject, is_clean: bool) -> None:
        def use(conn: Connection) -> None:
            self.held.remove(conn)
            if is_clean:
                conn.take_back()
            else:
                conn.close(CloseReason.LENT_UNCLEAN)

        self._held(data, ConnectionState.LENT, use)

    # What servers and time do

    @precondition(lambda self: self.conns)
    @rule(data=st.data(), how=st.sampled_from(["lost", "eof", "bytes", "closing"]))
    def end_a_connection(self, data: st.DataObject, how: str) -> None:
        conn, transport = data.draw(st.sampled_from(self.conns))
        if conn.state in (ConnectionState.LENT, ConnectionState.CLOSED):
            return
        if how == "lost":
            transport.lose()
        elif how == "eof":
            transport.feed_eof()
        elif how == "bytes" and conn.state == ConnectionState.IDLE:
            transport.feed(b"?")
        elif how == "closing" and conn.state == ConnectionState.IDLE:
            # The loop knows, and calls connection_lost in its next step.
            transport.end = "lost"
            self.loop.call_soon(transport.lose)

    @rule(seconds=st.sampled_from([0.1, 3, 16]))
    def let_time_pass(self, seconds: float) -> None:
        self.loop.advance(seconds)

    # Laws

    def _granted(self) -> list[Waiter]:
        """The waiters that were served and have not looked yet."""
        done = [waiter for waiter in self.waiters if waiter.future.done() and not waiter.future.cancelled()]
        return [waiter for waiter in done if waiter.future.exception() is None]

    @invariant()
    def counters_are_what_the_model_counts(self) -> None:
        self.held = [conn for conn in self.held if conn.state != ConnectionState.CLOSED]
        hosts = list(self.slots)
        hosts += [conn.host for conn in self.held]
        for waiter in self._granted():
            conn = waiter.future.result()
            if conn is None or conn.state == ConnectionState.RESERVED:
                hosts.append(waiter.host)
        idle = [conn.host for conn, _ in self.conns if conn.state == ConnectionState.IDLE]
        assert self.pool.in_use == len(hosts)
        assert self.pool.idle == len(idle)
        for host in {*hosts, *idle, *self.pool.hosts.values()}:
            assert host.in_use == hosts.count(host)
            assert host.idle_count == idle.count(host)
        pending = sum(not waiter.future.done() for waiter in self.waiters)
        assert pending <= self.pool.waiting <= len(self.waiters)

    @invariant()
    def limits_hold(self) -> None:
        assert self.pool.in_use <= (self.pool.limit or 1000)
        for host in self.pool.hosts.values():
            assert host.in_use <= (self.pool.limit_per_host or 1000)

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        for waiter in self.waiters:
            if not waiter.future.done():
                is_full = self.pool.limit and self.pool.in_use == self.pool.limit
                limit = self.pool.limit_per_host
                assert is_full or (limit and waiter.host.in_use == limit)

    @invariant()
    def waiters_of_a_host_are_served_in_order(self) -> None:
        granted = self._granted()
        for i, waiter in enumerate(self.waiters):
            if not waiter.future.done():
                assert not any(later.host is waiter.host and later in granted for later in self.waiters[i:])

    @invariant()
    def each_key_has_one_host_and_only_while_it_is_used(self) -> None:
        used = {*self.slots, *(conn.host for conn in self.held), *(waiter.host for waiter in self.waiters)}
        used |= {conn.host for conn, _ in self.conns if conn.state == ConnectionState.IDLE}
        known = set(self.pool.hosts.values())
        waiting_in_vain = {waiter.host for waiter in self.waiters if waiter.future.done()}
        assert used - waiting_in_vain <= known
        assert known <= used
        assert not any(host.is_evicted for host in known)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for waiter in self.waiters:
            self.pool.cancel(waiter)
        for host in self.slots:
            self.pool.free(host)
        for conn in self.held:
            conn.close()
        self.loop.advance(100)
        assert (self.pool.in_use, self.pool.idle, self.pool.waiting) == (0, 0, 0)
        assert self.pool.hosts == {}
        assert self.loop.timers == []
        self.pool.close()
        self.loop.run_ready()
        assert all(conn.state == ConnectionState.CLOSED for conn, _ in self.conns)
        assert self.pool.wait_closed().done()
        assert self.loop.errors == []


TestPoolAgainstModel = PoolAgainstModel.TestCase
