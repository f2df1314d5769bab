"""Bodies of known length, which come without the parser: where their bytes go, and where they must not."""

import gc
import itertools
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed._core.connection import ConnectionState
from wirespeed._core.exchange import CloseReason, Exchange, Failure

from .fakes import RecordingSink, Wire, new_settings

COUNTED_MIN = 32_768
BIG = 200_000
STYLES = st.sampled_from(["asyncio", "uvloop", "tls"])
# Around the sizes at which something else happens, and any.
SIZES = st.sampled_from(
    [
        1,
        COUNTED_MIN - 1,
        COUNTED_MIN,
        COUNTED_MIN + 1,
        COUNTED_MIN + 40,
        65_536,
        BIG,
        262_143,
        262_144,
        262_145,
    ]
) | st.integers(1, 300_000)


def head_of(size: int, *fields: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {size}", *fields, "", ""]).encode()


def body_of(size: int) -> bytes:
    """Bytes that tell where they belong."""
    return (b"".join(b"%07d|" % i for i in range(size // 8 + 1)))[:size]


def ask(**options: Any) -> tuple[Wire, Exchange]:
    """A request on its way, whose response may be kept whole."""
    wire = Wire(is_tls=options.pop("is_tls", False))
    return wire, wire.send(settings=new_settings(high_water=options.pop("high_water", 1 << 20)), **options)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(at)]


def taken(exchange: Exchange) -> bytes:
    body = exchange.take_body()
    assert body is not None
    return body


@given(size=SIZES, cuts=st.lists(st.integers(0, 300_100), max_size=6), style=STYLES)
def test_body_is_what_was_sent_however_it_was_cut(size: int, cuts: list[int], style: str) -> None:
    wire, exchange = ask(is_tls=style == "tls")
    body = body_of(size)
    wire.transport.feed_all(pieces(head_of(size) + body, cuts), style)
    assert taken(exchange) == body
    assert exchange.body_size == size
    assert wire.conn.state == ConnectionState.IDLE
    assert wire.conn.close_reason == CloseReason.KEPT


@given(
    size=SIZES,
    cuts=st.lists(st.integers(0, 300_100), max_size=6),
    surplus=st.sampled_from([b"x", b"HTTP/1.1 200 OK\r\n\r\n", bytes(70_000)]),
    style=STYLES,
)
def test_what_follows_a_body_is_none_of_it_and_ends_the_connection(
    size: int, cuts: list[int], surplus: bytes, style: str
) -> None:
    wire, exchange = ask(is_tls=style == "tls")
    body = body_of(size)
    # Together with its head, rubbish is a broken response.
    wire.transport.feed_all([head_of(size), *pieces(body + surplus, cuts)], style)
    assert taken(exchange) == body
    assert wire.conn.state == ConnectionState.CLOSED
    # What came with the body, after it in a read of its own, or looked like an answer that nobody asked for.
    assert wire.conn.close_reason in (
        CloseReason.SURPLUS_BYTES,
        CloseReason.IDLE_BYTES,
        CloseReason.MALFORMED,
    )
    assert (wire.pool.in_use, wire.pool.idle) == (0, 0)


@pytest.mark.parametrize("before", [0, 1, 10, 5000])
def test_one_byte_too_many_in_the_same_read_ends_the_connection(before: int) -> None:
    wire, exchange = ask()
    body = body_of(BIG)
    wire.transport.feed(head_of(BIG) + body[:before])
    view = memoryview(wire.transport.protocol.get_buffer(-1))
    assert len(view) == BIG - before + 1
    view[:] = body[before:] + b"H"
    wire.transport.protocol.buffer_updated(len(view))
    assert taken(exchange) == body
    assert wire.conn.close_reason == CloseReason.SURPLUS_BYTES


@given(
    size=st.integers(COUNTED_MIN, 300_000),
    cuts=st.lists(st.integers(0, 300_100), max_size=6),
    at=st.integers(0, 7),
    style=STYLES,
)
def test_stream_that_begins_at_any_point_gets_all_bytes_once(
    size: int, cuts: list[int], at: int, style: str
) -> None:
    wire, exchange = ask(is_tls=style == "tls")
    body, sink = body_of(size), RecordingSink()
    for i, piece in enumerate([head_of(size), *pieces(body, cuts)]):
        if i == at:
            exchange.attach(sink)
        wire.transport.feed(piece, style)
    if not exchange.sink:
        exchange.attach(sink)
    assert sink.events.pop() == "eof"
    assert b"".join(sink.events) == body
    assert wire.conn.state == ConnectionState.IDLE


@given(
    size=st.integers(COUNTED_MIN, 300_000), count=st.integers(0, 299_999), style=STYLES, streams=st.booleans()
)
def test_loss_in_the_middle_fails_with_what_came_before_it(
    size: int, count: int, style: str, streams: bool
) -> None:
    wire, exchange = ask(is_tls=style == "tls")
    body, sink = body_of(size), RecordingSink()
    count = min(count, size - 1)
    wire.transport.feed(head_of(size), style)
    waiter = None if streams else exchange.wait_body()
    wire.transport.feed_all(pieces(body[:count], [100, count // 2]), style)
    wire.transport.lose()
    assert exchange.failure == Failure.CONNECTION_LOST
    assert exchange.body_size == count
    assert exchange.take_body() is None
    if waiter is not None:
        assert waiter.exception() is exchange.error
    exchange.attach(sink)
    assert sink.events.pop() is exchange.error
    assert b"".join(sink.events) == body[:count]
    assert wire.pool.in_use == 0


# What the loop has in hand while it reads


def read_into(wire: Wire, head: bytes) -> memoryview:
    """Go as far as a loop that has asked for the buffer and not read yet."""
    wire.transport.feed(head)
    return memoryview(wire.transport.protocol.get_buffer(-1))


def blocks(size: int) -> list[bytearray]:
    """Blocks of memory that would come to lie where one of this size was freed."""
    return [bytearray(size) for _ in range(50)]


def test_response_that_is_collected_before_the_loop_reads_leaves_it_its_buffer() -> None:
    wire, exchange = ask()
    view = read_into(wire, head_of(BIG) + b"begin")
    # As the finalizer of a response does, in a collection of garbage between the two calls of the loop.
    exchange.abandon()
    del exchange
    wire.loop.run_ready()
    gc.collect()
    others = blocks(BIG)
    view[: BIG - 5] = b"\xff" * (BIG - 5)
    assert not any(map(any, others))
    wire.conn.buffer_updated(BIG - 5)
    assert wire.conn.state == ConnectionState.CLOSED


def test_stream_that_begins_before_the_loop_reads_gets_what_it_reads() -> None:
    wire, exchange = ask()
    body, sink = body_of(BIG), RecordingSink()
    view = read_into(wire, head_of(BIG) + body[:5])
    exchange.attach(sink)
    others = blocks(BIG)
    piece = body[5:50_005]  # kept: its memory would be what is handed out next, with these bytes
    view[:50_000] = piece
    assert not any(map(any, others))
    wire.conn.buffer_updated(50_000)
    wire.transport.feed(body[50_005:])
    assert sink.events.pop() == "eof"
    assert b"".join(sink.events) == body


def test_body_has_no_other_owner_once_it_was_received() -> None:
    wire, exchange = ask()
    wire.transport.feed(head_of(BIG) + body_of(BIG))
    body = taken(exchange)
    del exchange
    wire.conn.close()
    # `body` and the argument.
    assert sys.getrefcount(body) == 2


def test_loop_that_finds_nothing_to_read_asks_again() -> None:
    wire, exchange = ask()
    body = body_of(BIG)
    read_into(wire, head_of(BIG) + body[:5])
    wire.transport.protocol.get_buffer(-1)
    wire.transport.feed(body[5:])
    assert taken(exchange) == body


# What is left to the parser


@pytest.mark.parametrize(
    ("options", "head", "is_counted"),
    [
        ({}, head_of(BIG), True),
        ({}, head_of(BIG, "Connection: close"), True),
        ({}, b"HTTP/1.0 200 OK\r\nContent-Length: 200000\r\n\r\n", True),
        ({}, b"HTTP/1.1 100 Continue\r\n\r\n" + head_of(BIG), True),
        ({}, b"HTTP/1.1 102 Processing\r\nContent-Length: 3\r\n\r\n" + head_of(BIG), True),
        ({"skip_body": True}, head_of(BIG), False),
        ({}, b"HTTP/1.1 204 X\r\nContent-Length: 200000\r\n\r\n", False),
        ({}, b"HTTP/1.1 304 X\r\nContent-Length: 200000\r\n\r\n", False),
        ({}, b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n30d40\r\n", False),
        ({}, b"HTTP/1.1 200 X\r\n\r\n", False),
        ({}, head_of(COUNTED_MIN), False),
        ({"high_water": BIG - 1}, head_of(BIG), False),
        ({}, head_of(BIG, "Transfer-Encoding: chunked"), False),
        ({}, head_of(BIG, "Content-Length: 200001"), False),
        ({}, head_of(BIG, "Content-Length: 200000"), False),
        ({}, b"HTTP/1.1 200 X\r\nContent-Length: -200000\r\n\r\n", False),
        ({}, b"HTTP/1.1 200 X\r\nContent-Length: +200000\r\n\r\n", False),
        ({}, b"HTTP/1.1 200 X\r\nContent-Length: 200000, 200000\r\n\r\n", False),
        ({}, b"HTTP/1.1 200 X\r\nContent-Length: 200_000\r\n\r\n", False),
        ({}, b"HTTP/1.1 200 X\r\nContent-Length: 99999999999999999999\r\n\r\n", False),
        ({}, b"HTTP/1.1 101 X\r\nContent-Length: 200000\r\n\r\n", False),
    ],
)
def test_only_a_body_of_known_length_has_its_own_buffer(
    options: dict[str, Any], head: bytes, is_counted: bool
) -> None:
    wire, exchange = ask(**options)
    wire.transport.feed(head)
    if wire.transport.protocol is not None:
        buffer = wire.transport.protocol.get_buffer(-1)
        assert (len(buffer) == BIG + 1) == is_counted
    if exchange.waiter.done():
        exchange.waiter.exception()


def test_length_of_an_interim_response_counts_nothing() -> None:
    wire, exchange = ask()
    wire.transport.feed(b"HTTP/1.1 103 Hints\r\nContent-Length: 200000\r\n\r\n" + head_of(2) + b"ok")
    assert taken(exchange) == b"ok"
    assert wire.conn.state == ConnectionState.IDLE


def test_next_response_on_the_connection_is_parsed_from_its_start() -> None:
    wire, exchange = ask()
    body = body_of(BIG)
    for _ in range(3):
        wire.transport.feed(head_of(BIG) + body)
        assert taken(exchange) == body
        wire.conn = wire.pool.take(wire.host)  # type: ignore[assignment]
        exchange = wire.send(settings=new_settings(high_water=1 << 20))
    wire.transport.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert taken(exchange) == b"ok"


# Memory and back-pressure


def test_unread_body_above_the_high_water_mark_pauses_until_somebody_wants_all() -> None:
    wire, exchange = ask(high_water=100_000)
    body = body_of(1_000_000)
    wire.transport.feed(head_of(1_000_000) + body)
    assert not wire.transport.is_reading
    assert exchange.body_size < 500_000
    waiter = exchange.wait_body()
    assert wire.transport.is_reading
    wire.transport.feed(b"")
    assert waiter.done()
    assert taken(exchange) == body


def test_claim_beyond_what_is_made_room_for_at_once_is_kept_in_parts() -> None:
    wire, exchange = ask()
    wire.transport.feed(head_of(1 << 60))
    waiter = exchange.wait_body()
    wire.transport.feed(bytes(100_000))
    assert len(wire.transport.protocol.get_buffer(-1)) <= 262_144
    exchange.abandon()
    assert waiter.done()


def test_silence_in_the_middle_of_a_counted_body_is_timed() -> None:
    wire, exchange = ask(read_timeout=1.0)
    wire.transport.feed(head_of(BIG))
    waiter = exchange.wait_body()
    for _ in range(5):
        wire.transport.feed(bytes(1000))
        wire.loop.advance(0.9)
    assert not waiter.done()
    wire.loop.advance(0.2)
    assert exchange.failure == Failure.READ_TIMEOUT
    assert wire.error_of(waiter) is exchange.error


# TLS


@pytest.mark.parametrize("surplus", [b"", b"x"])
def test_rest_of_a_counted_body_that_tls_had_kept_is_taken_at_the_end(surplus: bytes) -> None:
    wire, exchange = ask(is_tls=True)
    body = body_of(BIG)
    wire.transport.feed(head_of(BIG) + body[:50_000])
    wire.transport.feed(body[50_000:60_000])
    wire.transport.tls.rest = [body[60_000:100_000], body[100_000:] + surplus]
    wire.transport.lose()
    assert taken(exchange) == body
    assert wire.conn.state == ConnectionState.CLOSED


def test_rest_that_tls_had_kept_reaches_a_stream_that_began_in_the_middle() -> None:
    wire, exchange = ask(is_tls=True)
    body, sink = body_of(BIG), RecordingSink()
    wire.transport.feed(head_of(BIG) + body[:50_000])
    wire.transport.feed(body[50_000:60_000])
    exchange.attach(sink)
    wire.transport.tls.rest = [body[60_000:]]
    wire.transport.lose()
    assert sink.events.pop() == "eof"
    assert b"".join(sink.events) == body


class BrokenSink(RecordingSink):
    def feed_data(self, data: bytes, size: int) -> bool:
        raise ValueError("broken")


def test_stream_that_fails_in_the_middle_closes_the_connection() -> None:
    wire, exchange = ask()
    wire.transport.feed(head_of(BIG))
    wire.transport.feed(bytes(50_000))
    sink = BrokenSink()
    exchange.attach(sink)
    wire.transport.feed(bytes(50_000))
    assert exchange.failure == Failure.BAD_CONTENT
    assert wire.conn.state == ConnectionState.CLOSED
    assert wire.pool.in_use == 0
