"""The pool: limits, reuse, hosts, the end."""

import asyncio
from typing import Any

import pytest

from wirespeed._core.connection import ConnectionState
from wirespeed._core.exchange import CloseReason
from wirespeed._core.hosts import PoolClosed

from .fakes import FakeTransport, PoolFixture, new_settings, transport_of


@pytest.fixture
def fixture() -> PoolFixture:
    return PoolFixture()


# Limits and reuse


@pytest.mark.parametrize(
    ("limit", "limit_per_host", "a", "b"),
    [(3, 0, 3, 0), (3, 2, 2, 1), (0, 2, 2, 2), (1, 1, 1, 0), (0, 0, 50, 50)],
)
def test_limits_hold_over_all_and_for_each_host(limit: int, limit_per_host: int, a: int, b: int) -> None:
    pool = PoolFixture(limit=limit, limit_per_host=limit_per_host).pool
    reserved = {key: sum(pool.try_reserve(pool.host(key)) for _ in range(50)) for key in "ab"}
    assert reserved == {"a": a, "b": b}
    assert pool.in_use == a + b


def test_idle_connection_is_taken_and_reserved_in_one_step(fixture: PoolFixture) -> None:
    conn = fixture.idle()
    assert fixture.counts == (0, 1, 0)
    assert fixture.pool.take(fixture.pool.host("a")) is conn
    assert conn.state == ConnectionState.RESERVED
    assert fixture.counts == (1, 0, 0)
    assert fixture.pool.take(fixture.pool.host("a")) is None


def test_idle_connections_are_taken_oldest_first() -> None:
    fixture = PoolFixture(limit=5)
    conns = [fixture.connect() for _ in range(3)]
    for conn in conns:
        fixture.pool.give_back(conn)
    assert [fixture.pool.take(fixture.pool.host("a")) for _ in conns] == conns


def test_idle_connection_serves_its_own_host_only(fixture: PoolFixture) -> None:
    fixture.idle("a")
    assert fixture.pool.take(fixture.pool.host("b")) is None


def test_idle_connection_is_not_taken_beyond_a_limit() -> None:
    fixture = PoolFixture(limit=1)
    fixture.idle("a")
    fixture.connect("b")
    assert fixture.pool.take(fixture.pool.host("a")) is None
    assert fixture.counts == (1, 1, 0)


def test_connections_whose_transport_is_closing_are_skipped() -> None:
    fixture = PoolFixture(limit=5)
    conns = [fixture.connect() for _ in range(3)]
    for conn in conns:
        fixture.pool.give_back(conn)
    for conn in conns[:2]:
        transport_of(conn).end = "lost"
    assert fixture.pool.take(fixture.pool.host("a")) is conns[2]
    assert [conn.close_reason for conn in conns[:2]] == [CloseReason.IDLE_EOF] * 2
    assert fixture.counts == (1, 0, 0)


def test_connection_lost_while_idle_is_not_taken(fixture: PoolFixture) -> None:
    conn = fixture.idle()
    transport_of(conn).lose()
    assert fixture.counts == (0, 0, 0)
    assert fixture.pool.take(fixture.pool.host("a")) is None


def test_idle_connections_expire() -> None:
    fixture = PoolFixture(limit=5)
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
    fixture = PoolFixture(limit=1, **options)
    conn = fixture.connect()
    waiter = fixture.wait()
    fixture.pool.give_back(conn)
    assert conn.close_reason == CloseReason.FORCE_CLOSE
    assert waiter.future.result() is None
    assert fixture.counts == (1, 0, 0)


def test_giving_back_twice_changes_nothing(fixture: PoolFixture) -> None:
    conn = fixture.connect()
    fixture.pool.give_back(conn)
    fixture.pool.give_back(conn)
    assert fixture.counts == (0, 1, 0)


# Hosts


def test_unused_hosts_are_forgotten() -> None:
    fixture = PoolFixture(limit=0)
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
    fixture = PoolFixture(limit_per_host=1)
    transport_of(fixture.idle()).end = "lost"
    host = fixture.pool.host("a")
    assert fixture.pool.take(host) is None
    assert fixture.pool.try_reserve(host)
    assert fixture.pool.host("a") is host
    assert not fixture.pool.try_reserve(fixture.pool.host("a"))


def test_host_is_not_forgotten_when_a_waiter_is_served_past_a_dead_connection() -> None:
    fixture = PoolFixture(limit=1)
    idle = fixture.idle("a")
    other = fixture.connect("b")
    waiter = fixture.wait("a")
    transport_of(idle).end = "lost"
    fixture.pool.give_back(other)
    assert waiter.future.result() is None
    assert fixture.pool.host("a") is waiter.host
    assert not waiter.host.is_evicted


def test_host_of_a_waiter_that_was_passed_over_is_forgotten() -> None:
    fixture = PoolFixture(limit=1)
    conn = fixture.connect("a")
    waiter = fixture.wait("b")
    waiter.future.cancel()
    fixture.pool.give_back(conn)
    fixture.pool.cancel(waiter)
    assert set(fixture.pool.hosts) == {"a"}


def test_host_in_any_use_is_remembered() -> None:
    fixture = PoolFixture(limit=1)
    in_use = fixture.connect("a")
    fixture.wait("b")
    assert set(fixture.pool.hosts) == {"a", "b"}
    assert fixture.pool.host("a") is in_use.host
    fixture.pool.give_back(in_use)
    assert set(fixture.pool.hosts) == {"a", "b"}


def test_pool_and_hosts_are_shown(fixture: PoolFixture) -> None:
    conn = fixture.connect()
    assert repr(fixture.pool) == "<Pool in_use=1/2 idle=0 waiting=0 hosts=1>"
    assert repr(conn.host) == "<Host 'a' in_use=1 idle=0 waiting=0>"
    fixture.pool.close()
    assert "closed" in repr(fixture.pool)


# The end


def test_close_ends_everything() -> None:
    fixture = PoolFixture(limit=4)
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


def test_closed_pool_serves_nobody(fixture: PoolFixture) -> None:
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


def test_pool_without_connections_is_closed_at_once(fixture: PoolFixture) -> None:
    fixture.pool.close()
    assert fixture.pool.wait_closed().done()
    assert fixture.pool.wait_closed() is fixture.pool.wait_closed()


def test_close_leaves_a_lent_transport_to_its_borrower(fixture: PoolFixture) -> None:
    conn = fixture.connect()
    transport = transport_of(conn)
    conn.lend(asyncio.Protocol())
    fixture.pool.close()
    assert transport.end is None
    assert fixture.pool.wait_closed().done()
