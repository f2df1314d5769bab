"""Connections: their states, what is kept and why not, and what loops do to them."""

import asyncio
import gc
import ssl
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from wirespeed._core.connection import Connection, ConnectionState, PooledConnection, new_read_buffer
from wirespeed._core.deadlines import Deadlines
from wirespeed._core.exchange import CloseReason, Exchange, Failure
from wirespeed._core.parser import ResponseParser

from .fakes import FakeLoop, FakeTransport, RecordingSink, Wire, new_settings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def wire() -> Wire:
    return Wire()


def idle(wire: Wire) -> Connection:
    """Make the wire's connection idle, after one response."""
    wire.send()
    wire.transport.feed(OK)
    assert wire.conn.state == ConnectionState.IDLE
    return wire.conn


# Keep or close

CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
OLD = b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"
OLD_KEPT = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
SWITCHING = b"HTTP/1.1 101 X\r\nX-Other: 1\r\n\r\n"
UPGRADE = b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"


@pytest.mark.parametrize(
    ("options", "send", "message", "reason"),
    [
        ({}, {}, OK, CloseReason.KEPT),
        ({}, {}, OLD_KEPT, CloseReason.KEPT),
        ({}, {}, b"HTTP/1.1 204 X\r\n\r\n", CloseReason.KEPT),
        ({}, {}, b"HTTP/1.1 100 Continue\r\n\r\n" + OK, CloseReason.KEPT),
        ({}, {"skip_body": True}, OK[:-2], CloseReason.KEPT),
        ({}, {}, CLOSE, CloseReason.SERVER_CLOSES),
        ({}, {}, OLD, CloseReason.SERVER_CLOSES),
        ({}, {"skip_body": True}, CLOSE[:-2], CloseReason.SERVER_CLOSES),
        ({"force_close": True}, {}, OK, CloseReason.FORCE_CLOSE),
        ({"keepalive_timeout": 0.0}, {}, OK, CloseReason.FORCE_CLOSE),
        ({}, {}, OK + b"HTTP/1.1 200 OK\r\n", CloseReason.SURPLUS_BYTES),
        ({}, {"skip_body": True}, OK, CloseReason.SURPLUS_BYTES),
        ({}, {}, SWITCHING, CloseReason.KEPT),
        ({}, {}, SWITCHING + b"frames", CloseReason.UPGRADED),
        ({}, {}, b"garbage\r\n", CloseReason.MALFORMED),
        ({}, {}, OK[:-2] + b"ok garbage", CloseReason.MALFORMED),
    ],
)
def test_connection_is_kept_or_closed_for_a_named_reason(
    options: dict[str, Any], send: dict[str, Any], message: bytes, reason: CloseReason
) -> None:
    wire = Wire(**options)
    exchange = wire.send(**send)
    wire.transport.feed(message)
    kept = reason == CloseReason.KEPT
    assert wire.conn.close_reason == reason
    assert wire.conn.state == (ConnectionState.IDLE if kept else ConnectionState.CLOSED)
    assert (wire.pool.in_use, wire.pool.idle) == (0, int(kept))
    assert (wire.transport.end is None) == kept
    assert exchange.waiter.done()
    assert exchange.is_complete == (reason != CloseReason.MALFORMED)
    exchange.waiter.exception()
    wire.loop.run_ready()
    assert wire.loop.errors == []


@pytest.mark.parametrize("tail", [b"", b"frames"])
def test_upgraded_connection_stays_with_its_response_until_that_is_let_go(tail: bytes) -> None:
    wire = Wire()
    exchange = wire.send(total_at=wire.loop.now + 1)
    wire.transport.feed(UPGRADE + tail)
    wire.transport.feed(b"more frames")
    wire.loop.advance(2)
    assert wire.conn.state == ConnectionState.ACTIVE
    assert exchange.waiter.result() is None
    assert not exchange.is_complete
    assert exchange.take_body() == b""
    assert exchange.transport is wire.transport
    exchange.abandon()
    assert wire.conn.state == ConnectionState.CLOSED
    assert wire.conn.close_reason == CloseReason.UPGRADED
    assert (wire.pool.in_use, wire.pool.idle) == (0, 0)


def test_connection_serves_many_requests(wire: Wire) -> None:
    for i in range(1, 20):
        if i > 1:
            assert wire.pool.take(wire.host) is wire.conn
        exchange = wire.send(skip_body=i % 3 == 0)
        assert wire.conn.exchange is exchange
        wire.transport.feed(OK[:-2] if i % 3 == 0 else OK)
        assert wire.conn.exchange is None
        assert wire.conn.requests == i
        assert exchange.take_body() == (b"" if i % 3 == 0 else b"ok")


def test_tls_connection_is_aborted_where_a_plain_one_is_closed() -> None:
    for is_tls, end in ((False, "close"), (True, "abort")):
        wire = Wire(is_tls=is_tls)
        assert wire.conn.is_tls is is_tls
        wire.send()
        wire.transport.feed(CLOSE)
        assert wire.transport.end == end


def test_reading_is_restarted_for_the_new_protocol_except_under_tls() -> None:
    assert Wire().transport.calls == ["set_protocol", "pause_reading", "resume_reading"]
    assert Wire(is_tls=True).transport.calls == ["set_protocol"]


# Idle


@pytest.mark.parametrize("style", ["asyncio", "uvloop", "tls"])
def test_bytes_while_idle_close_the_connection(wire: Wire, style: str) -> None:
    idle(wire)
    wire.transport.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n", style)
    assert wire.conn.close_reason == CloseReason.IDLE_BYTES
    assert wire.pool.idle == 0


def test_end_of_stream_while_idle_closes_the_connection_at_once(wire: Wire) -> None:
    idle(wire)
    assert wire.transport.protocol.eof_received() is False
    assert wire.conn.close_reason == CloseReason.IDLE_EOF
    assert wire.pool.take(wire.host) is None


def test_end_of_stream_during_an_exchange_is_decided_when_the_connection_is_lost(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(OK[:10])
    assert wire.transport.protocol.eof_received() is False
    assert exchange.error is None
    wire.transport.lose()
    assert exchange.error is not None
    assert exchange.error.failure == Failure.CONNECTION_LOST


def test_bytes_on_a_reserved_connection_close_it(wire: Wire) -> None:
    wire.transport.feed(b"unasked")
    assert wire.conn.close_reason == CloseReason.IDLE_BYTES
    assert wire.pool.in_use == 0


def test_idle_connection_is_closed_after_its_time(wire: Wire) -> None:
    idle(wire)
    wire.loop.advance(14.9)
    assert wire.pool.idle == 1
    wire.loop.advance(0.2)
    assert wire.conn.close_reason == CloseReason.IDLE_TIMEOUT
    assert wire.transport.end == "close"
    assert wire.pool.idle == 0


def test_use_moves_the_idle_deadline_without_a_timer_for_each(wire: Wire) -> None:
    idle(wire)
    armed = wire.loop.armed
    for _ in range(50):
        wire.loop.advance(0.1)
        wire.pool.take(wire.host)
        idle(wire)
    assert wire.loop.armed == armed
    wire.loop.advance(14.9)
    assert wire.conn.state == ConnectionState.IDLE
    wire.loop.advance(0.2)
    assert wire.conn.close_reason == CloseReason.IDLE_TIMEOUT


def test_connection_in_use_outlives_the_idle_deadline(wire: Wire) -> None:
    idle(wire)
    wire.pool.take(wire.host)
    exchange = wire.send()
    wire.loop.advance(100)
    assert wire.conn.state == ConnectionState.ACTIVE
    wire.transport.feed(OK)
    assert exchange.is_complete
    wire.loop.advance(14.9)
    assert wire.conn.state == ConnectionState.IDLE


def test_without_a_keepalive_timeout_no_timer_runs() -> None:
    wire = Wire(keepalive_timeout=None)
    idle(wire)
    assert wire.loop.timers == []
    wire.loop.advance(1_000_000)
    assert wire.conn.state == ConnectionState.IDLE


# Lost and closed


@pytest.mark.parametrize("exc", [None, ConnectionResetError("by peer")])
@pytest.mark.parametrize("state", ["reserved", "active", "idle", "closed"])
def test_lost_connection_leaves_the_pool_in_any_state(wire: Wire, state: str, exc: Exception | None) -> None:
    exchange = None
    if state == "active":
        exchange = wire.send()
    elif state == "idle":
        idle(wire)
    elif state == "closed":
        wire.conn.close()
    wire.transport.lose(exc)
    assert wire.conn.state == ConnectionState.CLOSED
    assert wire.conn.transport is None
    assert (wire.pool.in_use, wire.pool.idle) == (0, 0)
    assert wire.pool.wait_closed().done()
    if exchange is not None:
        assert wire.conn.close_reason == CloseReason.LOST
        assert wire.error_of(exchange.waiter).exc is exc
    wire.loop.run_ready()
    assert wire.loop.errors == []


NO_LENGTH = b"HTTP/1.1 200 OK\r\n\r\n"
TEN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"


@pytest.mark.parametrize("last", [ssl.SSLWantReadError, ssl.SSLZeroReturnError, bytes])
@pytest.mark.parametrize("head", [NO_LENGTH, TEN], ids=["until the end", "by length"])
@pytest.mark.parametrize("is_paused", [False, True])
def test_what_tls_did_not_hand_over_before_the_end_is_read(
    head: bytes, last: Callable[[], Any], is_paused: bool
) -> None:
    wire = Wire(is_tls=True)
    exchange = wire.send()
    wire.transport.feed(head + b"one")
    if is_paused:
        exchange.pause_reading()
    wire.transport.tls.rest = [b"two", b"four", last()]
    wire.transport.lose()
    assert exchange.error is None
    assert exchange.take_body() == b"onetwofour"
    assert wire.conn.state == ConnectionState.CLOSED
    assert wire.conn.close_reason == CloseReason.SERVER_CLOSES
    assert (wire.pool.in_use, wire.pool.idle) == (0, 0)
    assert wire.transport.calls == ["set_protocol"] + ["pause_reading"] * is_paused


def test_reader_that_is_behind_when_tls_ends_gets_the_rest() -> None:
    wire = Wire(is_tls=True)
    exchange = wire.send(settings=new_settings(high_water=4))
    wire.transport.feed(NO_LENGTH + b"one")
    wire.transport.tls.rest = [b"two", b"four"]
    wire.transport.lose()
    sink = RecordingSink()
    exchange.attach(sink)
    assert sink.events == [b"one", b"two", b"four", "eof"]
    assert "pause_reading" not in wire.transport.calls
    assert "resume_reading" not in wire.transport.calls


def test_message_that_tls_did_not_hand_over_whole_is_an_error() -> None:
    wire = Wire(is_tls=True)
    exchange = wire.send()
    wire.transport.feed(TEN + b"one")
    wire.transport.tls.rest = [b"two"]
    wire.transport.lose()
    assert exchange.error.failure == Failure.CONNECTION_LOST
    assert wire.conn.close_reason == CloseReason.LOST


@pytest.mark.parametrize("head", [NO_LENGTH, TEN], ids=["until the end", "by length"])
def test_rest_that_tls_cannot_decrypt_is_an_error(head: bytes) -> None:
    wire = Wire(is_tls=True)
    exchange = wire.send()
    wire.transport.feed(head + b"one")
    broken = ssl.SSLError("bad record mac")
    wire.transport.tls.rest = [b"two", broken]
    wire.transport.lose()
    assert exchange.error.failure == Failure.CONNECTION_LOST
    assert exchange.error.exc is broken
    assert wire.conn.close_reason == CloseReason.LOST


@pytest.mark.parametrize("how", ["reset", "idle"])
def test_tls_that_broke_or_was_not_in_use_is_not_read(how: str) -> None:
    wire = Wire(is_tls=True)
    exchange = wire.send()
    wire.transport.feed(OK if how == "idle" else NO_LENGTH + b"one")
    wire.transport.lose(ConnectionResetError() if how == "reset" else None)
    assert wire.transport.tls.reads == 0
    assert (exchange.error is None) is (how == "idle")


def test_closing_during_an_exchange_fails_it(wire: Wire) -> None:
    exchange = wire.send()
    wire.conn.close(CloseReason.POOL_CLOSED)
    wire.conn.close(CloseReason.ABANDONED)
    assert wire.error_of(exchange.waiter).failure == Failure.OWNER_CLOSED
    assert wire.conn.close_reason == CloseReason.POOL_CLOSED
    assert wire.transport.end == "abort"


def test_closing_an_idle_connection_is_gentle(wire: Wire) -> None:
    idle(wire).close()
    assert wire.transport.end == "close"
    assert wire.conn.close_reason == CloseReason.ABANDONED


# Legal moves


def test_connection_that_is_not_reserved_cannot_send(wire: Wire) -> None:
    wire.send()
    with pytest.raises(RuntimeError, match="cannot move from ACTIVE to ACTIVE"):
        wire.send()
    wire.transport.feed(OK)
    with pytest.raises(RuntimeError, match="cannot move from IDLE to ACTIVE"):
        wire.send()
    wire.conn.close()
    # Lost after it was reserved is not a caller's fault: the request may go elsewhere.
    with pytest.raises(ConnectionResetError, match="closing transport"):
        wire.send()
    assert wire.conn.requests == 1


def test_connection_that_is_not_reserved_cannot_be_lent(wire: Wire) -> None:
    wire.send()
    with pytest.raises(RuntimeError, match="cannot move from ACTIVE to LENT"):
        wire.conn.lend(asyncio.Protocol())
    assert wire.transport.protocol is wire.conn


def test_connection_in_use_cannot_be_taken_back(wire: Wire) -> None:
    idle(wire)
    with pytest.raises(RuntimeError, match="was not lent"):
        wire.conn.take_back()
    wire.conn.close()
    with pytest.raises(RuntimeError, match="was not lent"):
        wire.conn.take_back()


def test_connection_and_states_are_shown(wire: Wire) -> None:
    assert "RESERVED" in repr(wire.conn)
    assert "host" in repr(wire.conn)


# Memory


def check_freed(make: Callable[[Wire], object]) -> None:
    wire = Wire()
    gc.collect()
    gc.disable()
    try:
        make(wire)
        wire.loop.run_ready()
        wire.transport.protocol = None
        del wire.conn
        left = [obj for obj in gc.get_objects() if type(obj) in (PooledConnection, ResponseParser, Exchange)]
        assert left == []
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["closed idle", "closed active", "lost", "timed out", "surplus"])
def test_closed_connection_is_freed_without_the_collector(how: str) -> None:
    def end(wire: Wire) -> None:
        if how == "closed idle":
            idle(wire).close()
            return
        exchange = wire.send(read_timeout=3)
        exchange.waiter.cancel()
        if how == "closed active":
            wire.conn.close()
        elif how == "lost":
            wire.transport.lose()
        elif how == "timed out":
            wire.loop.advance(4)
        else:
            wire.transport.feed(OK + OK)

    check_freed(end)


def test_exchange_and_its_sink_are_freed_with_a_pool_that_nobody_closed() -> None:
    wire = Wire()
    exchange = wire.send(settings=new_settings(make_sink=None))
    wire.transport.feed(OK[:-1])
    exchange.attach(RecordingSink())
    sink = weakref.ref(exchange.sink)
    del exchange, wire
    gc.collect()
    assert sink() is None


def test_connection_made_directly_needs_an_owner() -> None:
    loop: Any = FakeLoop()
    options = {"loop": loop, "deadlines": Deadlines(loop), "buffer": new_read_buffer()}
    with pytest.raises(TypeError):
        PooledConnection(
            None, "host", FakeTransport(loop), keepalive_timeout=0, force_close=False, lenient=True, **options
        )  # type: ignore[arg-type]


@pytest.mark.parametrize("message", [OK, CLOSE], ids=["kept", "closed"])
def test_connection_with_unsent_bytes_is_aborted(wire: Wire, message: bytes) -> None:
    exchange = wire.send(has_upload=True)
    exchange.set_upload(asyncio.Future(loop=wire.loop))  # type: ignore[arg-type]
    wire.transport.unsent = 1_000_000
    wire.transport.feed(message)
    assert exchange.take_body() == b"ok"
    assert wire.transport.end == "abort"


def test_bytes_after_the_end_are_ignored(wire: Wire) -> None:
    wire.conn.close(CloseReason.POOL_CLOSED)
    wire.conn.get_buffer(-1)[:3] = b"abc"
    wire.conn.buffer_updated(3)
    assert wire.conn.eof_received() is False
    assert wire.conn.close_reason == CloseReason.POOL_CLOSED
