"""Who else writes to a connection: aiohttp's protocol on loan, and aiohttp's writer that drains."""

import asyncio
import gc
from typing import Any

import pytest

from wirespeed._core.connection import Connection, ConnectionState
from wirespeed._core.exchange import CloseReason
from wirespeed._core.pool import Pool

from .fakes import FakeTransport, Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def wire() -> Wire:
    return Wire()


# Loans


class Borrower(asyncio.Protocol):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def connection_made(self, transport: Any) -> None:
        self.calls.append(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


@pytest.mark.parametrize("is_tls", [False, True])
def test_loan_hands_over_the_transport_and_gets_it_back(is_tls: bool) -> None:
    wire = Wire(is_tls=is_tls)
    borrower = Borrower()
    wire.conn.lend(borrower)
    assert wire.conn.state == ConnectionState.LENT
    assert wire.transport.protocol is borrower
    assert borrower.calls == [wire.transport]
    assert (wire.pool.in_use, wire.pool.idle) == (1, 0)
    wire.conn.take_back()
    assert wire.transport.protocol is wire.conn
    assert (wire.pool.in_use, wire.pool.idle) == (0, 1)
    assert wire.pool.take(wire.host) is wire.conn
    exchange = wire.send()
    wire.transport.feed(OK)
    assert exchange.take_body() == b"ok"


def test_loan_that_ends_unclean_leaves_the_transport_to_the_borrower(wire: Wire) -> None:
    wire.conn.lend(Borrower())
    wire.conn.close(CloseReason.LENT_UNCLEAN)
    assert wire.transport.end is None
    assert wire.conn.close_reason == CloseReason.LENT_UNCLEAN
    assert wire.pool.in_use == 0
    assert wire.pool.wait_closed().done()


# Upload flow control


def connected() -> Connection:
    """A reserved connection on the running loop, where coroutines can wait for it."""
    loop = asyncio.get_running_loop()
    pool = Pool(loop, limit=1, limit_per_host=0, keepalive_timeout=15.0)
    host = pool.host("host")
    assert pool.try_reserve(host)
    return pool.add(host, FakeTransport(loop))  # type: ignore[arg-type]


async def test_drain_waits_until_the_transport_takes_more() -> None:
    conn = connected()
    transport: Any = conn.transport
    await conn._drain_helper()
    conn.pause_writing()
    assert conn._paused
    first, second = (asyncio.ensure_future(conn._drain_helper()) for _ in range(2))
    await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()
    conn.resume_writing()
    await asyncio.gather(first, second)
    conn.pause_writing()
    lost = asyncio.ensure_future(conn._drain_helper())
    await asyncio.sleep(0)
    transport.lose()
    with pytest.raises(ConnectionResetError):
        await lost
    with pytest.raises(ConnectionResetError):
        await conn._drain_helper()
    conn.close()


async def test_cancelled_drain_does_not_cancel_the_next() -> None:
    conn = connected()
    conn.pause_writing()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(conn._drain_helper(), 0.001)
    following = asyncio.ensure_future(conn._drain_helper())
    await asyncio.sleep(0)
    assert not following.done()
    conn.resume_writing()
    await following
    conn.close()


async def test_connection_lost_after_a_cancelled_drain_is_no_news() -> None:
    loop = asyncio.get_running_loop()
    errors: list[object] = []
    loop.set_exception_handler(lambda loop, context: errors.append(context))
    conn = connected()
    conn.pause_writing()
    draining = asyncio.ensure_future(conn._drain_helper())
    await asyncio.sleep(0)
    draining.cancel()
    await asyncio.wait([draining])
    transport: Any = conn.transport
    transport.lose()
    gc.collect()
    await asyncio.sleep(0)
    assert errors == []
