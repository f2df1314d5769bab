"""The pool: limits, turns, handing over, timeouts, eviction, the end."""

import asyncio
import time
from typing import Any

import pytest

from wirespeed._core.connection import Connection, ConnectionState
from wirespeed._core.exchange import CloseReason
from wirespeed._core.pool import ConnectTimeout, Host, Pool, PoolClosed, Waiter

from .fakes import FakeLoop, FakeTransport, new_settings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Fixture:
    def __init__(self, **options: Any) -> None:
        self.loop = FakeLoop()
        chosen = {"limit": 2, "limit_per_host": 0, "keepalive_timeout": 15.0} | options
        self.pool = Pool(self.loop, **chosen)  # type: ignore[arg-type]

    def connect(self, key: str = "a") -> Connection:
        """Take a slot and dial."""
        host = self.pool.host(key)
        assert self.pool.try_reserve(host)
        return self.pool.add(host, FakeTransport(self.loop))  # type: ignore[arg-type]

    def idle(self, key: str = "a") -> Connection:
        conn = self.connect(key)
        self.pool.give_back(conn)
        return conn

    def wait(self, key: str = "a", **deadlines: float) -> Waiter:
        return self.pool.wait(self.pool.host(key), **deadlines)

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.pool.in_use, self.pool.idle, self.pool.waiting


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def transport_of(conn: Connection) -> FakeTransport:
    transport: Any = conn.transport
    return transport  # type: ignore[no-any-return]


# Limits and reuse


@pytest.mark.parametrize(
    ("limit", "limit_per_host", "a", "b"),
    [(3, 0, 3, 0), (3, 2, 2, 1), (0, 2, 2, 2), (1, 1, 1, 0), (0, 0, 50, 50)],
)
def test_limits_hold_over_all_and_for_each_host(limit: int, limit_per_host: int, a: int, b: int) -> None:
    pool = Fixture(limit=limit, limit_per_host=limit_per_host).pool
    reserved = {key: sum(pool.try_reserve(pool.host(key)) for _ in range(50)) for key in "ab"}
    assert reserved == {"a": a, "b": b}
    assert pool.in_use == a + b


def test_idle_connection_is_taken_and_reserved_in_one_step(fixture: Fixture) -> None:
    conn = fixture.idle()
    assert fixture.counts == (0, 1, 0)
    assert fixture.pool.take(fixture.pool.host("a")) is conn
    assert conn.state == ConnectionState.RESERVED
    assert fixture.counts == (1, 0, 0)
    assert fixture.pool.take(fixture.pool.host("a")) is None


def test_idle_connections_are_taken_oldest_first() -> None:
    fixture = Fixture(limit=5)
    conns = [fixture.connect() for _ in range(3)]
    for conn in conns:
        fixture.pool.give_back(conn)
    assert [fixture.pool.take(fixture.pool.host("a")) for _ in conns] == conns


def test_idle_connection_serves_its_own_host_only(fixture: Fixture) -> None:
    fixture.idle("a")
    assert fixture.pool.take(fixture.pool.host("b")) is None


def test_idle_connection_is_not_taken_beyond_a_limit() -> None:
    fixture = Fixture(limit=1)
    fixture.idle("a")
    fixture.connect("b")
    assert fixture.pool.take(fixture.pool.host("a")) is None
    assert fixture.counts == (1, 1, 0)


def test_connections_whose_transport_is_closing_are_skipped() -> None:
    fixture = Fixture(limit=5)
    conns = [fixture.connect() for _ in range(3)]
    for conn in conns:
        fixture.pool.give_back(conn)
    for conn in conns[:2]:
        transport_of(conn).end = "lost"
    assert fixture.pool.take(fixture.pool.host("a")) is conns[2]
    assert [conn.close_reason for conn in conns[:2]] == [CloseReason.IDLE_EOF] * 2
    assert fixture.counts == (1, 0, 0)


def test_connection_lost_while_idle_is_not_taken(fixture: Fixture) -> None:
    conn = fixture.idle()
    transport_of(conn).lose()
    assert fixture.counts == (0, 0, 0)
    assert fixture.pool.take(fixture.pool.host("a")) is None


def test_idle_connections_expire() -> None:
    fixture = Fixture(limit=5)
    first = fixture.connect()
    second = fixture.connect()
    fixture.pool.give_back(first)
    fixture.loop.advance(10)
    fixture.pool.give_back(second)
    fixture.loop.advance(6)
    assert fixture.counts == (0, 1, 0)
    assert first.close_reason == CloseReason.IDLE_TIMEOUT
    fixture.loop.advance(10)
    assert second.close_reason == CloseReason.IDLE_TIMEOUT
    assert fixture.pool.hosts == {}


@pytest.mark.parametrize("options", [{"force_close": True}, {"keepalive_timeout": 0}])
def test_force_close_keeps_nothing_and_hands_the_slot_on(options: dict[str, Any]) -> None:
    fixture = Fixture(limit=1, **options)
    conn = fixture.connect()
    waiter = fixture.wait()
    fixture.pool.give_back(conn)
    assert conn.close_reason == CloseReason.FORCE_CLOSE
    assert waiter.future.result() is None
    assert fixture.counts == (1, 0, 0)


def test_giving_back_twice_changes_nothing(fixture: Fixture) -> None:
    conn = fixture.connect()
    fixture.pool.give_back(conn)
    fixture.pool.give_back(conn)
    assert fixture.counts == (0, 1, 0)


# Waiting


def test_waiter_with_room_is_served_at_once(fixture: Fixture) -> None:
    assert fixture.wait().future.result() is None
    conn = fixture.idle()
    assert fixture.wait().future.result() is conn
    assert fixture.counts == (2, 0, 0)


def test_connection_goes_to_the_next_waiter_in_the_step_that_ends_a_response() -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    exchange = conn.send(b"request", new_settings())
    waiters = [fixture.wait() for _ in range(3)]
    assert fixture.counts == (1, 0, 3)
    transport_of(conn).feed(OK)
    assert exchange.is_complete
    assert waiters[0].future.result() is conn
    assert conn.state == ConnectionState.RESERVED
    assert fixture.counts == (1, 0, 2)
    assert not fixture.pool.try_reserve(fixture.pool.host("a"))


def test_slot_goes_to_the_next_waiter_when_a_dial_fails() -> None:
    fixture = Fixture(limit=1)
    host = fixture.pool.host("a")
    assert fixture.pool.try_reserve(host)
    waiter = fixture.wait("b")
    fixture.pool.free(host)
    assert waiter.future.result() is None
    assert fixture.counts == (1, 0, 0)
    assert set(fixture.pool.hosts) == {"b"}


def test_slot_goes_to_the_next_waiter_when_a_connection_is_lost() -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    waiter = fixture.wait()
    transport_of(conn).lose()
    assert waiter.future.result() is None
    assert fixture.counts == (1, 0, 0)


def test_waiters_of_a_host_are_served_in_order() -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    waiters = [fixture.wait() for _ in range(5)]
    for i in range(5):
        fixture.pool.give_back(conn)
        assert [waiter.future.done() for waiter in waiters] == [True] * (i + 1) + [False] * (4 - i)


def test_hosts_take_turns() -> None:
    fixture = Fixture(limit=1)
    host = fixture.pool.host("x")
    assert fixture.pool.try_reserve(host)
    waiters = [(key, fixture.wait(key)) for key in "aaabbc"]
    order = []
    while waiters:
        fixture.pool.free(host)
        key, waiter = next(item for item in waiters if item[1].future.done())
        waiters.remove((key, waiter))
        host = waiter.host
        order.append(key)
    assert order == ["a", "b", "c", "a", "b", "a"]


def test_host_at_its_own_limit_does_not_hold_up_the_others() -> None:
    fixture = Fixture(limit=2, limit_per_host=1)
    first = fixture.connect("a")
    second = fixture.connect("b")
    blocked, other = fixture.wait("a"), fixture.wait("c")
    fixture.pool.give_back(second)
    assert not blocked.future.done()
    assert other.future.done()
    fixture.pool.give_back(first)
    assert blocked.future.result() is first
    assert fixture.counts == (2, 1, 0)


def test_waiter_may_stop_before_it_is_served() -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    first, second = fixture.wait(), fixture.wait()
    fixture.pool.cancel(first)
    fixture.pool.cancel(first)
    assert fixture.counts == (1, 0, 1)
    fixture.pool.give_back(conn)
    assert not first.future.done()
    assert second.future.result() is conn


def test_waiter_whose_future_was_cancelled_is_passed_over() -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    first, second = fixture.wait(), fixture.wait()
    first.future.cancel()
    fixture.pool.give_back(conn)
    assert second.future.result() is conn
    fixture.pool.cancel(first)
    assert fixture.counts == (1, 0, 0)


@pytest.mark.parametrize("has_conn", [True, False])
def test_waiter_that_stops_after_it_was_served_gives_back_what_it_got(has_conn: bool) -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    first, second = fixture.wait(), fixture.wait()
    if has_conn:
        fixture.pool.give_back(conn)
    else:
        transport_of(conn).lose()
    assert first.future.done()
    fixture.pool.cancel(first)
    assert second.future.result() is (conn if has_conn else None)
    fixture.pool.cancel(second)
    fixture.pool.cancel(second)
    assert fixture.counts == (0, int(has_conn), 0)


@pytest.mark.parametrize("how", ["lost", "pool closed"])
def test_waiter_may_stop_after_the_connection_it_got_was_lost(how: str) -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    waiter = fixture.wait()
    fixture.pool.give_back(conn)
    if how == "lost":
        transport_of(conn).lose()
    else:
        fixture.pool.close()
    fixture.pool.cancel(waiter)
    assert fixture.counts == (0, 0, 0)


# Timeouts


def test_waiter_fails_when_connecting_takes_too_long() -> None:
    fixture = Fixture(limit=1)
    fixture.connect()
    waiter = fixture.wait(connect_at=1002, total_at=1005)
    fixture.loop.advance(1.9)
    assert not waiter.future.done()
    fixture.loop.advance(0.2)
    assert isinstance(waiter.future.exception(), ConnectTimeout)
    fixture.pool.cancel(waiter)
    assert fixture.counts == (1, 0, 0)


@pytest.mark.parametrize("deadlines", [{"total_at": 1002}, {"total_at": 1002, "connect_at": 1005}])
def test_waiter_fails_when_the_whole_request_takes_too_long(deadlines: dict[str, float]) -> None:
    fixture = Fixture(limit=1)
    fixture.connect()
    waiter = fixture.wait(**deadlines)
    fixture.loop.advance(2)
    assert type(waiter.future.exception()) is asyncio.TimeoutError
    fixture.pool.cancel(waiter)


def test_waiter_that_timed_out_is_passed_over() -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    first, second = fixture.wait(connect_at=1001), fixture.wait()
    fixture.loop.advance(2)
    fixture.pool.give_back(conn)
    assert second.future.result() is conn
    assert isinstance(first.future.exception(), ConnectTimeout)
    fixture.pool.cancel(first)
    assert fixture.counts == (1, 0, 0)


def test_deadline_of_a_served_waiter_does_not_come() -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect()
    waiter = fixture.wait(connect_at=1001)
    fixture.pool.give_back(conn)
    fixture.loop.advance(5)
    assert waiter.future.result() is conn
    assert not waiter.is_set


# Hosts


def test_unused_hosts_are_forgotten() -> None:
    fixture = Fixture(limit=0)
    for i in range(100):
        host = fixture.pool.host(i)
        assert fixture.pool.try_reserve(host)
        fixture.pool.free(host)
        assert host.is_evicted
    conn = fixture.connect()
    waiting = conn.host
    transport_of(conn).lose()
    assert waiting.is_evicted
    assert fixture.pool.hosts == {}


def test_host_whose_last_idle_connection_is_dead_is_not_forgotten_while_it_is_served() -> None:
    fixture = Fixture(limit_per_host=1)
    transport_of(fixture.idle()).end = "lost"
    host = fixture.pool.host("a")
    assert fixture.pool.take(host) is None
    assert fixture.pool.try_reserve(host)
    assert fixture.pool.host("a") is host
    assert not fixture.pool.try_reserve(fixture.pool.host("a"))


def test_host_is_not_forgotten_when_a_waiter_is_served_past_a_dead_connection() -> None:
    fixture = Fixture(limit=1)
    idle = fixture.idle("a")
    other = fixture.connect("b")
    waiter = fixture.wait("a")
    transport_of(idle).end = "lost"
    fixture.pool.give_back(other)
    assert waiter.future.result() is None
    assert fixture.pool.host("a") is waiter.host
    assert not waiter.host.is_evicted


def test_host_of_a_waiter_that_was_passed_over_is_forgotten() -> None:
    fixture = Fixture(limit=1)
    conn = fixture.connect("a")
    waiter = fixture.wait("b")
    waiter.future.cancel()
    fixture.pool.give_back(conn)
    fixture.pool.cancel(waiter)
    assert set(fixture.pool.hosts) == {"a"}


def test_host_in_any_use_is_remembered() -> None:
    fixture = Fixture(limit=1)
    in_use = fixture.connect("a")
    fixture.wait("b")
    assert set(fixture.pool.hosts) == {"a", "b"}
    assert fixture.pool.host("a") is in_use.host
    fixture.pool.give_back(in_use)
    assert set(fixture.pool.hosts) == {"a", "b"}


def test_pool_and_hosts_are_shown(fixture: Fixture) -> None:
    conn = fixture.connect()
    assert repr(fixture.pool) == "<Pool in_use=1/2 idle=0 waiting=0 hosts=1>"
    assert repr(conn.host) == "<Host 'a' in_use=1 idle=0 waiting=0>"
    fixture.pool.close()
    assert "closed" in repr(fixture.pool)


# The end


def test_close_ends_everything() -> None:
    fixture = Fixture(limit=4)
    idle = fixture.idle("i")
    reserved = fixture.connect("r")
    active = fixture.connect("a")
    exchange = active.send(b"request", new_settings())
    assert fixture.pool.try_reserve(fixture.pool.host("d"))
    assert fixture.pool.try_reserve(fixture.pool.host("d"))
    waiters = [fixture.wait("w"), fixture.wait("w", total_at=1001)]
    closed = fixture.pool.wait_closed()
    fixture.pool.close()
    fixture.pool.close()
    assert all(conn.close_reason == CloseReason.POOL_CLOSED for conn in (idle, reserved, active))
    assert all(isinstance(waiter.future.exception(), PoolClosed) for waiter in waiters)
    assert exchange.waiter.exception() is not None
    assert (fixture.pool.idle, fixture.pool.waiting) == (0, 0)
    assert fixture.loop.timers == []
    assert not closed.done()
    fixture.loop.run_ready()
    assert closed.done()
    for waiter in waiters:
        fixture.pool.cancel(waiter)


def test_closed_pool_serves_nobody(fixture: Fixture) -> None:
    host = fixture.pool.host("a")
    assert fixture.pool.try_reserve(host)
    conn = fixture.connect("b")
    fixture.pool.close()
    assert fixture.pool.is_closed
    assert fixture.pool.take(host) is None
    assert not fixture.pool.try_reserve(host)
    assert isinstance(fixture.pool.wait(host).future.exception(), PoolClosed)
    with pytest.raises(PoolClosed):
        fixture.pool.add(host, FakeTransport(fixture.loop))  # type: ignore[arg-type]
    fixture.pool.free(host)
    fixture.pool.give_back(conn)
    assert conn.state == ConnectionState.CLOSED


def test_pool_without_connections_is_closed_at_once(fixture: Fixture) -> None:
    fixture.pool.close()
    assert fixture.pool.wait_closed().done()
    assert fixture.pool.wait_closed() is fixture.pool.wait_closed()


def test_close_leaves_a_lent_transport_to_its_borrower(fixture: Fixture) -> None:
    conn = fixture.connect()
    transport = transport_of(conn)
    conn.lend(asyncio.Protocol())
    fixture.pool.close()
    assert transport.end is None
    assert fixture.pool.wait_closed().done()


# Cost


@pytest.mark.parametrize("per_host", [False, True], ids=["one host", "a host each"])
def test_waiters_cost_the_same_however_many_wait(per_host: bool) -> None:
    def cost(size: int) -> float:
        fixture = Fixture(limit=1, keepalive_timeout=None)
        host: Host = fixture.pool.host("x")
        assert fixture.pool.try_reserve(host)
        start = time.process_time()
        waiters = [fixture.wait(str(i) if per_host else "a") for i in range(size)]
        for waiter in waiters[::3]:
            fixture.pool.cancel(waiter)
        fixture.pool.free(host)
        served = [waiter for i, waiter in enumerate(waiters) if i % 3]
        for waiter in served:
            assert waiter.future.result() is None
            fixture.pool.free(waiter.host)
        assert fixture.counts == (0, 0, 0)
        return (time.process_time() - start) / size

    # Twenty times the waiters; a list that is searched would cost twenty times as much each.
    assert cost(10_000) < 8 * max(cost(500), 2e-6)
