"""Those who dial: what comes first is theirs, the rest is the pool's."""

import asyncio

import pytest

from wirespeed._core.connection import ConnectionState
from wirespeed._core.exchange import CloseReason
from wirespeed._core.hosts import ConnectTimeout, PoolClosed, Waiter

from .fakes import FakeTransport, PoolFixture, new_settings, transport_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Dialling(PoolFixture):
    def dial(self, key: str = "a", **options: float) -> Waiter:
        host = self.pool.host(key)
        assert self.pool.try_reserve(host)
        return self.pool.begin_dial(host, **options)

    def end(self, waiter: Waiter) -> FakeTransport:
        transport = FakeTransport(self.loop)
        self.pool.end_dial(waiter, transport)  # type: ignore[arg-type]
        return transport

    @property
    def figures(self) -> dict[str, int]:
        found = self.pool.snapshot()
        return {name: found[name] for name in ("in_use", "idle", "dialling", "created", "reused")}


@pytest.fixture
def fixture() -> Dialling:
    return Dialling(limit=10)


def test_dial_serves_its_caller(fixture: Dialling) -> None:
    waiter = fixture.dial()
    assert fixture.figures == {"in_use": 0, "idle": 0, "dialling": 1, "created": 0, "reused": 0}
    transport = fixture.end(waiter)
    conn = waiter.future.result()
    assert conn is not None
    assert conn.transport is transport
    assert conn.is_dialled
    assert fixture.figures == {"in_use": 1, "idle": 0, "dialling": 0, "created": 1, "reused": 0}


def test_freed_connection_comes_first_and_the_dial_joins_the_pool(fixture: Dialling) -> None:
    conn = fixture.connect()
    waiter = fixture.dial()
    exchange = conn.send(b"request", new_settings())
    transport_of(conn).feed(OK)
    assert exchange.is_complete
    assert waiter.future.result() is conn
    assert conn.state == ConnectionState.RESERVED
    assert not conn.is_dialled
    assert fixture.figures == {"in_use": 1, "idle": 0, "dialling": 1, "created": 1, "reused": 1}
    fixture.end(waiter)
    assert fixture.figures == {"in_use": 1, "idle": 1, "dialling": 0, "created": 2, "reused": 1}


def test_dial_that_joins_serves_who_dialled_after(fixture: Dialling) -> None:
    conn = fixture.connect()
    first, second = fixture.dial(), fixture.dial()
    fixture.pool.give_back(conn)
    assert first.future.result() is conn
    transport = fixture.end(first)
    served = second.future.result()
    assert served is not None
    assert served.transport is transport
    fixture.end(second)
    assert fixture.counts == (2, 1, 0)


def test_those_who_dial_are_served_in_order_and_before_those_who_wait() -> None:
    fixture = Dialling(limit=3)
    conn = fixture.connect()
    dialling = [fixture.dial(), fixture.dial()]
    waiting = fixture.wait()
    for waiter in (*dialling, waiting):
        assert not waiter.future.done()
        fixture.pool.give_back(conn)
        assert waiter.future.result() is conn
    assert fixture.counts == (3, 0, 0)


def test_connection_freed_between_the_slot_and_the_dial_is_taken_without_dialling(fixture: Dialling) -> None:
    conn = fixture.connect()
    host = fixture.pool.host("a")
    assert fixture.pool.try_reserve(host)
    fixture.pool.give_back(conn)
    waiter = fixture.pool.begin_dial(host)
    assert waiter.future.result() is conn
    assert fixture.counts == (1, 0, 0)
    assert fixture.figures["dialling"] == 0


def test_other_hosts_connections_are_no_help(fixture: Dialling) -> None:
    waiter = fixture.dial("a")
    fixture.idle("b")
    assert not waiter.future.done()


def test_failure_reaches_the_caller_and_frees_the_slot(fixture: Dialling) -> None:
    waiter = fixture.dial()
    fixture.pool.fail_dial(waiter, OSError("refused"))
    assert isinstance(waiter.future.exception(), OSError)
    assert fixture.counts == (0, 0, 0)
    assert fixture.pool.snapshot()["dial_failures"] == 1
    assert not fixture.pool.hosts


def test_failure_after_the_caller_was_served_is_nobodys(fixture: Dialling) -> None:
    conn = fixture.connect()
    waiter = fixture.dial()
    fixture.pool.give_back(conn)
    fixture.pool.fail_dial(waiter, OSError("refused"))
    assert waiter.future.result() is conn
    assert fixture.counts == (1, 0, 0)


def test_cancelled_caller_leaves_its_dial_to_the_pool(fixture: Dialling) -> None:
    waiter = fixture.dial()
    fixture.pool.cancel(waiter)
    fixture.end(waiter)
    assert fixture.counts == (0, 1, 0)


def test_caller_cancelled_after_it_was_served_gives_back(fixture: Dialling) -> None:
    conn = fixture.connect()
    waiter, other = fixture.dial(), fixture.dial()
    fixture.pool.give_back(conn)
    assert waiter.future.result() is conn
    fixture.pool.cancel(waiter)
    assert other.future.result() is conn
    assert fixture.figures["dialling"] == 2


def test_cancelled_dial_cancels_a_caller_that_waits(fixture: Dialling) -> None:
    waiter = fixture.dial()
    fixture.pool.fail_dial(waiter, asyncio.CancelledError())
    assert waiter.future.cancelled()
    assert fixture.counts == (0, 0, 0)


def test_time_for_connecting_passes(fixture: Dialling) -> None:
    waiter = fixture.dial(connect_at=fixture.loop.now + 5)
    fixture.loop.advance(5)
    assert type(waiter.future.exception()) is ConnectTimeout
    fixture.pool.cancel(waiter)
    fixture.end(waiter)
    assert fixture.counts == (0, 1, 0)


def test_a_caller_whose_time_has_passed_is_not_served(fixture: Dialling) -> None:
    conn = fixture.connect()
    waiter = fixture.dial(total_at=fixture.loop.now + 5)
    fixture.loop.advance(5)
    fixture.pool.give_back(conn)
    assert fixture.counts == (1, 1, 0)
    assert type(waiter.future.exception()) is asyncio.TimeoutError


def test_dial_for_the_pool(fixture: Dialling) -> None:
    host = fixture.pool.host("a")
    conn = fixture.connect()
    (waiter,) = fixture.pool.begin_prewarm(host, 2)
    fixture.pool.give_back(conn)
    assert fixture.counts == (1, 1, 0)
    fixture.end(waiter)
    assert fixture.counts == (0, 2, 0)


def test_closing_the_pool_fails_those_who_dial_and_refuses_what_they_made(fixture: Dialling) -> None:
    waiter = fixture.dial()
    fixture.pool.close()
    assert isinstance(waiter.future.exception(), PoolClosed)
    with pytest.raises(PoolClosed):
        fixture.end(waiter)
    assert fixture.counts == (0, 0, 0)
    host = fixture.pool.host("b")
    assert not fixture.pool.try_reserve(host)


def test_max_open_closes_what_was_unused_for_longest() -> None:
    fixture = Dialling(limit=2, max_open=3)
    conns = [fixture.connect(key) for key in "ab"]
    for conn in conns:
        fixture.pool.give_back(conn)
        fixture.loop.advance(1)
    third = fixture.idle("c")
    assert fixture.counts == (0, 3, 0)
    again = fixture.pool.take(fixture.pool.host("a"))
    assert again is conns[0]
    fixture.pool.give_back(again)
    fixture.connect("d")
    assert conns[1].close_reason == CloseReason.EVICTED
    assert conns[0].state == third.state == ConnectionState.IDLE
    assert fixture.counts == (1, 2, 0)


def test_max_open_lowers_the_limit() -> None:
    assert Dialling(limit=0, max_open=3).pool.limit == 3
    assert Dialling(limit=10, max_open=3).pool.limit == 3
    assert Dialling(limit=2, max_open=3).pool.limit == 2
