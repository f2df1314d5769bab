"""What the model of the pool counts, and the laws that hold after each of its steps.

Used by test_pool_model.py, which does the steps.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from wirespeed._core.connection import Connection, ConnectionState
from wirespeed._core.exchange import CloseReason
from wirespeed._core.hosts import Host, PoolClosed, Waiter, WaitTimeout
from wirespeed._core.pool import Pool

from .fakes import FakeLoop, FakeTransport

CLOCKS = 0.01  # deadlines have a grid of milliseconds
OWNED = (ConnectionState.RESERVED, ConnectionState.ACTIVE, ConnectionState.LENT)


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


class PoolLaws:
    """The state of the model, which the state machine changes, and what must be true of it."""

    pool: Pool
    loop: FakeLoop

    # Settings; 0 for no limit, None for what is not set
    limit: int
    limit_per_host: int
    max_open: int | None
    max_waiters: int | None
    pool_timeout: float | None
    keepalive: float | None
    max_age: float | None
    max_requests: int | None
    force_close: bool

    def _set_out(self) -> None:
        """Nothing has happened yet."""
        self.queued: list[Caller] = []
        self.dialling: list[Caller] = []
        self.slots: list[Caller] = []
        self.dials: list[Dial] = []
        self.conns: list[tuple[Connection, FakeTransport]] = []
        self.held: list[tuple[Connection, int]] = []
        self.counted: dict[str, Counted] = defaultdict(Counted)
        # What the server said of a connection: seconds, and the number of its last request.
        self.told: dict[Connection, tuple[float | None, int | None]] = {}
        # What was known of the server when a connection became idle.
        self.idle_limits: dict[Connection, float | None] = {}
        self._was_eligible: set[Host] = set()
        self._passed: dict[Host, dict[Host, int]] = defaultdict(lambda: defaultdict(int))

    # Laws

    def notice(self) -> None:
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
                    self.check_reused(grant[0])
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
                self.check_reused(grant[0])
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
        for host in self._was_eligible:
            if host in served or host not in eligible:
                self._passed.pop(host, None)
                continue
            for other in served:
                self._passed[host][other] += 1
                assert self._passed[host][other] <= 1, f"{host} was passed by {other}"
        self._was_eligible = eligible

    def check_reused(self, conn: Connection) -> None:
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
                assert any(dial.waiter is caller.waiter for dial in self.dials), "waits for no dial"

    def _check_idle(self) -> None:
        """No connection stays longer than it may; and what was known when it became idle is noted."""
        now = self.loop.now
        for conn, _ in self.conns:
            if conn.state != ConnectionState.IDLE:
                self.idle_limits.pop(conn, None)
                continue
            if conn not in self.idle_limits:
                self.idle_limits[conn] = conn.host.snapshot(self.pool.now())["learned_keepalive"]
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
            self._compare(host.snapshot(self.pool.now()), [host.key])
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
