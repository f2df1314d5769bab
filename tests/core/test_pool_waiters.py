"""Those who wait for the pool: turns, handing over, stopping, timeouts, cost."""

import asyncio
import gc
import time

import pytest

from wirespeed._core.connection import ConnectionState
from wirespeed._core.hosts import ConnectTimeout, Host, TooManyWaiters

from .fakes import PoolFixture, new_settings, transport_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def fixture() -> PoolFixture:
    return PoolFixture()


# Waiting


def test_waiter_with_room_is_served_at_once(fixture: PoolFixture) -> None:
    assert fixture.wait().future.result() is None
    conn = fixture.idle()
    assert fixture.wait().future.result() is conn
    assert fixture.counts == (2, 0, 0)


def test_connection_goes_to_the_next_waiter_in_the_step_that_ends_a_response() -> None:
    fixture = PoolFixture(limit=1)
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
    fixture = PoolFixture(limit=1)
    host = fixture.pool.host("a")
    assert fixture.pool.try_reserve(host)
    waiter = fixture.wait("b")
    fixture.pool.free(host)
    assert waiter.future.result() is None
    assert fixture.counts == (1, 0, 0)
    assert set(fixture.pool.hosts) == {"b"}


def test_slot_goes_to_the_next_waiter_when_a_connection_is_lost() -> None:
    fixture = PoolFixture(limit=1)
    conn = fixture.connect()
    waiter = fixture.wait()
    transport_of(conn).lose()
    assert waiter.future.result() is None
    assert fixture.counts == (1, 0, 0)


def test_waiters_of_a_host_are_served_in_order() -> None:
    fixture = PoolFixture(limit=1)
    conn = fixture.connect()
    waiters = [fixture.wait() for _ in range(5)]
    for i in range(5):
        fixture.pool.give_back(conn)
        assert [waiter.future.done() for waiter in waiters] == [True] * (i + 1) + [False] * (4 - i)


def test_hosts_take_turns() -> None:
    fixture = PoolFixture(limit=1)
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


def test_slot_that_one_host_frees_goes_to_the_second_waiter_of_another() -> None:
    fixture = PoolFixture(limit=2)
    other = fixture.connect("b")
    host = fixture.pool.host("a")
    assert fixture.pool.try_reserve(host)
    first, second = fixture.wait("a"), fixture.wait("a")
    fixture.pool.free(host)
    assert first.future.done()
    assert not second.future.done()
    fixture.pool.give_back(other)
    assert second.future.done()
    assert fixture.counts == (2, 1, 0)


def test_host_at_its_own_limit_does_not_hold_up_the_others() -> None:
    fixture = PoolFixture(limit=2, limit_per_host=1)
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
    fixture = PoolFixture(limit=1)
    conn = fixture.connect()
    first, second = fixture.wait(), fixture.wait()
    fixture.pool.cancel(first)
    fixture.pool.cancel(first)
    assert fixture.counts == (1, 0, 1)
    fixture.pool.give_back(conn)
    assert not first.future.done()
    assert second.future.result() is conn


def test_waiter_whose_future_was_cancelled_is_passed_over() -> None:
    fixture = PoolFixture(limit=1)
    conn = fixture.connect()
    first, second = fixture.wait(), fixture.wait()
    first.future.cancel()
    fixture.pool.give_back(conn)
    assert second.future.result() is conn
    fixture.pool.cancel(first)
    assert fixture.counts == (1, 0, 0)


@pytest.mark.parametrize("has_conn", [True, False])
def test_waiter_that_stops_after_it_was_served_gives_back_what_it_got(has_conn: bool) -> None:
    fixture = PoolFixture(limit=1)
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
    fixture = PoolFixture(limit=1)
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
    fixture = PoolFixture(limit=1)
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
    fixture = PoolFixture(limit=1)
    fixture.connect()
    waiter = fixture.wait(**deadlines)
    fixture.loop.advance(2)
    assert type(waiter.future.exception()) is asyncio.TimeoutError
    fixture.pool.cancel(waiter)


def test_waiter_that_timed_out_is_passed_over() -> None:
    fixture = PoolFixture(limit=1)
    conn = fixture.connect()
    first, second = fixture.wait(connect_at=1001), fixture.wait()
    fixture.loop.advance(2)
    fixture.pool.give_back(conn)
    assert second.future.result() is conn
    assert isinstance(first.future.exception(), ConnectTimeout)
    fixture.pool.cancel(first)
    assert fixture.counts == (1, 0, 0)


def test_deadline_of_a_served_waiter_does_not_come() -> None:
    fixture = PoolFixture(limit=1)
    conn = fixture.connect()
    waiter = fixture.wait(connect_at=1001)
    fixture.pool.give_back(conn)
    fixture.loop.advance(5)
    assert waiter.future.result() is conn
    assert not waiter.is_set


# Cost


@pytest.mark.parametrize("per_host", [False, True], ids=["one host", "a host each"])
def test_waiters_cost_the_same_however_many_wait(per_host: bool) -> None:
    def cost(size: int) -> float:
        fixture = PoolFixture(limit=1, keepalive_timeout=None)
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
    gc.disable()  # whose work grows with everything that other tests left
    try:
        assert cost(10_000) < 8 * max(cost(500), 2e-6)
    finally:
        gc.enable()


# Refusing


def test_hosts_of_the_refused_are_forgotten() -> None:
    """A crawler whose pool is full meets millions of hosts, too."""
    fixture = PoolFixture(limit=1, max_waiters=0)
    fixture.connect("busy")
    for i in range(100):
        with pytest.raises(TooManyWaiters):
            fixture.wait(f"host {i}")
    assert list(fixture.pool.hosts) == ["busy"]
    assert fixture.pool.host("host 1").snapshot(fixture.pool.now())["refused"] == 1


def test_caller_that_an_observer_cancels_while_it_is_served_gets_nothing_and_keeps_no_slot() -> None:
    fixture = PoolFixture(limit=1)
    dead = fixture.idle("a")
    busy = fixture.connect("b")
    waiter, other = fixture.wait("a"), fixture.wait("c")
    transport_of(dead).end = "closing"
    fixture.pool.on_closed = lambda conn: waiter.future.cancel() if conn is dead else None
    fixture.pool.give_back(busy)
    fixture.pool.cancel(waiter)
    assert other.future.result() is None
    assert fixture.counts == (1, 1, 0)
    assert list(fixture.pool.hosts) == ["b", "c"]
