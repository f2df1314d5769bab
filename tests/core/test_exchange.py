"""Exchanges: how the bytes of a response reach a caller, and how the caller hears of an end."""

from typing import Any

import pytest

from wirespeed._core.connection import ConnectionState
from wirespeed._core.exchange import CloseReason, Exchange, Failure

from .fakes import RecordingSink, Wire, new_settings

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENCODED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"


class Decoder(RecordingSink):
    """Turns every byte into ten, at most one byte's worth a call, and pauses when it holds too many."""

    def __init__(self, exchange: Exchange, room: int = 30) -> None:
        super().__init__()
        self.exchange = exchange
        self.room = room
        self.pending = b""
        self.held = b""

    def feed_data(self, data: bytes, size: int) -> bool:
        if b"!" in data:
            raise ValueError("not decodable")
        self.pending += data
        if self.pending:
            self.held += self.pending[:1] * 10
            self.pending = self.pending[1:]
        if len(self.held) > self.room:
            self.exchange.pause_reading()
        return bool(self.pending)

    def read(self) -> bytes:
        taken, self.held = self.held, b""
        self.exchange.resume_reading()
        return taken


@pytest.fixture
def wire() -> Wire:
    return Wire()


def read_all(wire: Wire, style: str) -> None:
    """What the next caller does, who wants the whole body."""
    assert wire.pool.take(wire.host) is wire.conn
    exchange = wire.send()
    wire.transport.feed(HEAD % 5 + b"hello", style)
    assert exchange.take_body() == b"hello"


# The whole body


@pytest.mark.parametrize("style", ["asyncio", "uvloop", "tls"])
def test_response_in_one_read_is_complete_when_the_caller_hears_of_it(wire: Wire, style: str) -> None:
    exchange = wire.send(b"request")
    assert wire.transport.written == b"request"
    assert not exchange.waiter.done()
    assert exchange.head is None
    assert exchange.connected
    wire.transport.feed(HEAD % 5 + b"hello", style)
    assert exchange.waiter.result() is None
    assert exchange.is_complete
    assert exchange.take_body() == b"hello"
    assert exchange.take_body() == b"hello"
    assert exchange.body_size == 5
    assert not exchange.connected
    assert exchange.transport is None
    assert wire.conn.state == ConnectionState.IDLE


def test_response_in_single_bytes(wire: Wire) -> None:
    exchange = wire.send()
    message = HEAD % 5 + b"hello"
    for i in range(len(message)):
        assert exchange.waiter.done() == (i >= len(message) - 5)
        assert exchange.take_body() is None
        wire.transport.feed(message[i : i + 1])
    assert exchange.take_body() == b"hello"


@pytest.mark.parametrize("style", ["asyncio", "uvloop", "tls"])
def test_body_larger_than_the_read_buffer_arrives_whole(wire: Wire, style: str) -> None:
    content = bytes(range(256)) * 4000
    exchange = wire.send(settings=new_settings(high_water=2**30))
    wire.transport.feed(HEAD % len(content) + content, style)
    assert exchange.take_body() == content


@pytest.mark.parametrize("message", [HEAD % 0, b"HTTP/1.1 204 X\r\n\r\n", CHUNKED + b"0\r\n\r\n"])
def test_empty_body_is_empty_bytes(wire: Wire, message: bytes) -> None:
    exchange = wire.send()
    wire.transport.feed(message)
    assert exchange.take_body() == b""


def test_body_of_chunks_is_joined(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
    assert exchange.take_body() == b"abc"


def test_body_that_the_connection_ends(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(b"HTTP/1.1 200 OK\r\n\r\nab")
    waiter = exchange.wait_body()
    wire.transport.feed(b"cd")
    assert not waiter.done()
    wire.transport.feed_eof()
    assert waiter.result() is None
    assert exchange.take_body() == b"abcd"
    assert wire.conn.close_reason == CloseReason.SERVER_CLOSES


def test_response_to_head_has_no_body(wire: Wire) -> None:
    exchange = wire.send(skip_body=True)
    assert exchange.skip_body
    wire.transport.feed(HEAD % 5)
    assert exchange.take_body() == b""
    assert wire.conn.state == ConnectionState.IDLE


def test_body_is_awaited_once_at_a_time(wire: Wire) -> None:
    exchange = wire.send()
    with pytest.raises(RuntimeError, match="already waiting"):
        exchange.wait_body()
    wire.transport.feed(HEAD % 2)
    waiter = exchange.wait_body()
    with pytest.raises(RuntimeError, match="already waiting"):
        exchange.wait_body()
    wire.transport.feed(b"ok")
    assert waiter.done()
    assert exchange.wait_body().done()


# Backpressure


def test_reading_pauses_when_nobody_asked_for_the_body(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(high_water=100))
    wire.transport.feed(HEAD % 300 + b"a" * 100)
    assert wire.transport.is_reading
    wire.transport.feed(b"a")
    assert not wire.transport.is_reading
    wire.transport.feed(b"a" * 99)
    assert exchange.body_size == 101
    assert exchange.take_body() is None


def test_waiting_for_the_whole_body_reads_on_without_a_bound(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(high_water=100))
    wire.transport.feed(HEAD % 300 + b"a" * 150)
    assert not wire.transport.is_reading
    waiter = exchange.wait_body()
    assert wire.transport.is_reading
    wire.transport.feed(b"a" * 149)
    assert wire.transport.is_reading
    assert not waiter.done()
    wire.transport.feed(b"a")
    assert waiter.done()
    assert exchange.take_body() == b"a" * 300


def test_very_many_chunks_pause_reading_however_small(wire: Wire) -> None:
    wire.send(settings=new_settings(high_water=2**30))
    wire.transport.feed(CHUNKED)
    fed = 0
    while wire.transport.is_reading and fed < 100_000:
        wire.transport.feed(b"1\r\na\r\n" * 1000)
        fed += 1000
    assert 10_000 < fed < 20_000


def test_connection_that_was_paused_reads_again_when_it_is_idle(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(high_water=100))
    wire.transport.feed(HEAD % 300 + b"a" * 300)
    assert exchange.is_complete
    assert wire.transport.is_reading
    read_all(wire, "asyncio")


# A stream


def test_stream_attached_first_gets_everything_as_it_comes(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(HEAD % 4)
    sink = RecordingSink()
    exchange.attach(sink)
    assert sink.events == []
    wire.transport.feed(b"ab")
    assert sink.events == [b"ab"]
    wire.transport.feed(b"cd")
    assert sink.events == [b"ab", b"cd", "eof"]
    assert exchange.take_body() is None


def test_stream_attached_after_the_end_gets_everything_at_once(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed_all([HEAD % 4 + b"ab", b"cd"])
    sink = RecordingSink()
    exchange.attach(sink)
    assert sink.events == [b"ab", b"cd", "eof"]


def test_stream_hears_where_chunks_end(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(CHUNKED + b"2\r\nab\r\n2\r\nc")
    sink = RecordingSink()
    exchange.attach(sink)
    wire.transport.feed(b"d\r\n0\r\n\r\n")
    assert sink.events == [
        "begin chunks", b"ab", "end of chunk", b"c", b"d", "end of chunk", "end of chunk", "eof",
    ]  # fmt: skip


def test_stream_may_be_attached_once(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(HEAD % 4)
    exchange.attach(RecordingSink())
    with pytest.raises(RuntimeError, match="reader already"):
        exchange.attach(RecordingSink())


def test_attaching_resumes_what_buffering_had_paused(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(high_water=10))
    wire.transport.feed(HEAD % 100 + b"a" * 50)
    assert not wire.transport.is_reading
    exchange.attach(RecordingSink())
    assert wire.transport.is_reading


def test_stream_that_is_full_at_once_keeps_reading_paused(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(high_water=10))
    wire.transport.feed(HEAD % 100 + b"a" * 50)
    decoder = Decoder(exchange)
    exchange.attach(decoder)
    assert not wire.transport.is_reading
    assert len(decoder.held) == 40


def test_stream_pauses_and_resumes_the_transport(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(HEAD % 100)
    exchange.attach(RecordingSink())
    exchange.pause_reading()
    exchange.pause_reading()
    assert wire.transport.calls[-1] == "pause_reading"
    exchange.resume_reading()
    exchange.resume_reading()
    assert wire.transport.calls[-2:] == ["pause_reading", "resume_reading"]


# A decoder


def decoded(content: bytes) -> bytes:
    return b"".join(content[i : i + 1] * 10 for i in range(len(content)))


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_decoder_gives_more_output_only_as_it_is_read(wire: Wire, size: int) -> None:
    made: list[Decoder] = []

    def make_sink(exchange: Exchange) -> Decoder:
        made.append(Decoder(exchange))
        return made[0]

    content = b"abcdefghijklmnopqrst"
    exchange = wire.send(settings=new_settings(make_sink=make_sink))
    wire.transport.feed(ENCODED % len(content))
    assert exchange.sink is made[0]
    out = b""
    for i in range(0, len(content), size):
        wire.transport.feed(content[i : i + size])
        assert len(made[0].held) <= 40
        while made[0].held:
            out += made[0].read()
            assert len(made[0].held) <= 40
    assert out == decoded(content)
    assert made[0].events == ["eof"]
    assert exchange.is_complete


def test_decoder_that_holds_more_when_the_response_is_complete_ends_after_it(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(make_sink=Decoder))
    wire.transport.feed(ENCODED % 10 + b"abcde")
    wire.transport.unread.clear()
    wire.transport.is_reading = True
    wire.transport.feed(b"fghij")
    decoder: Decoder = exchange.sink
    assert exchange.is_complete
    assert exchange.connected, "more of the body is to come"
    assert wire.conn.state == ConnectionState.IDLE
    out = b""
    while decoder.held:
        assert decoder.events == ([] if decoder.pending or exchange.connected else ["eof"])
        out += decoder.read()
    assert out == decoded(b"abcdefghij")
    assert decoder.events == ["eof"]
    assert not exchange.connected


def test_connection_serves_the_next_while_a_decoder_still_holds_output(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(make_sink=Decoder))
    wire.transport.feed(ENCODED % 10 + b"abcdefghij")
    decoder: Decoder = exchange.sink
    wire.pool.take(wire.host)
    assert wire.transport.is_reading
    following = wire.send()
    exchange.pause_reading()
    assert wire.transport.is_reading
    out = b""
    while decoder.held:
        out += decoder.read()
    wire.transport.feed(HEAD % 2 + b"ok")
    assert out == decoded(b"abcdefghij")
    assert following.take_body() == b"ok"


@pytest.mark.parametrize("message", [HEAD % 3 + b"abc", b"HTTP/1.1 304 X\r\nContent-Encoding: gzip\r\n\r\n"])
def test_no_decoder_is_made_for_a_plain_or_absent_body(wire: Wire, message: bytes) -> None:
    exchange = wire.send(settings=new_settings(make_sink=Decoder))
    wire.transport.feed(message)
    assert exchange.sink is None
    assert exchange.is_complete


def test_encoding_that_nobody_decodes_is_left_as_it_is(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(make_sink=lambda exchange: None))
    wire.transport.feed(ENCODED % 3 + b"abc")
    assert exchange.take_body() == b"abc"


def test_decoder_that_cannot_be_made_fails_the_exchange(wire: Wire) -> None:
    error = LookupError("no such package")

    def make_sink(exchange: Exchange) -> Any:
        raise error

    exchange = wire.send(settings=new_settings(make_sink=make_sink))
    wire.transport.feed(ENCODED % 3 + b"ab")
    failed = wire.error_of(exchange.waiter)
    assert (failed.failure, failed.exc) == (Failure.BAD_RESPONSE, error)
    assert wire.transport.end == "abort"


def test_body_that_cannot_be_decoded_fails_the_reader(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(make_sink=Decoder))
    wire.transport.feed(ENCODED % 3)
    wire.transport.feed(b"!")
    assert exchange.sink.events == [exchange.error]
    assert exchange.error.failure == Failure.BAD_CONTENT
    assert isinstance(exchange.error.exc, ValueError)
    assert wire.conn.close_reason == CloseReason.MALFORMED


def test_body_that_proves_undecodable_after_its_end_fails_the_reader(wire: Wire) -> None:
    class FailsAtTheEnd(RecordingSink):
        def feed_eof(self) -> None:
            raise ValueError("truncated")

    exchange = wire.send(settings=new_settings(make_sink=lambda exchange: FailsAtTheEnd()))
    wire.transport.feed(ENCODED % 1 + b"a")
    assert exchange.is_complete
    assert exchange.sink.events == [b"a", exchange.error]
    assert exchange.error.failure == Failure.BAD_CONTENT
    assert wire.conn.state == ConnectionState.IDLE


def test_head_reaches_the_caller_when_the_same_read_cannot_be_decoded(wire: Wire) -> None:
    exchange = wire.send(settings=new_settings(make_sink=Decoder))
    wire.transport.feed(ENCODED % 3 + b"!!!")
    assert exchange.waiter.result() is None
    assert exchange.head is not None
    assert exchange.sink.events == [exchange.error]
    assert wire.error_of(exchange.wait_body()) is exchange.error
    assert wire.conn.close_reason == CloseReason.MALFORMED
