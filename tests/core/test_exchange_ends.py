"""How an exchange ends early or on time: failures, deadlines, uploads, and what is left of it."""

import gc
import weakref

import pytest

from wirespeed._core.connection import ConnectionState
from wirespeed._core.exchange import CloseReason, Exchange, Failure

from .fakes import RecordingSink, Translated, Wire, new_settings

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class FakeTask:
    """An upload."""

    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


@pytest.fixture
def wire() -> Wire:
    return Wire()


# Failure


def fail_by(wire: Wire, failure: Failure, exchange: Exchange) -> None:
    """Let an exchange with deadlines at 5 and at 3 s fail for a reason."""
    if failure == Failure.BAD_RESPONSE:
        wire.transport.feed(b"zzz\r\n")
    elif failure == Failure.CONNECTION_LOST:
        wire.transport.lose(OSError("reset"))
    elif failure == Failure.READ_TIMEOUT:
        wire.loop.advance(3)
    elif failure == Failure.TOTAL_TIMEOUT:
        exchange.pause_reading()
        wire.loop.advance(5)


FAILURES = [Failure.BAD_RESPONSE, Failure.CONNECTION_LOST, Failure.READ_TIMEOUT, Failure.TOTAL_TIMEOUT]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("stage", ["head", "body", "stream"])
def test_failure_reaches_whoever_waits_once(wire: Wire, failure: Failure, stage: str) -> None:
    exchange = wire.send(total_at=1005, read_timeout=3)
    sink = RecordingSink()
    waiter = exchange.waiter
    if stage != "head":
        wire.transport.feed(CHUNKED + b"1\r\na\r\n")
        assert waiter.result() is None
        if stage == "stream":
            exchange.attach(sink)
        waiter = exchange.wait_body()
    fail_by(wire, failure, exchange)
    assert exchange.error is not None
    assert exchange.error.failure == failure
    assert wire.error_of(waiter) is exchange.error
    if stage == "stream":
        assert sink.events == ["begin chunks", b"a", "end of chunk", exchange.error]
    assert not exchange.is_complete
    assert not exchange.connected
    assert not exchange.is_set
    assert wire.conn.state == ConnectionState.CLOSED
    wire.loop.advance(100)
    assert wire.loop.errors == []
    assert wire.pool.in_use == 0


@pytest.mark.parametrize("failure", FAILURES)
def test_reader_that_comes_after_a_failure_hears_of_it(wire: Wire, failure: Failure) -> None:
    exchange = wire.send(total_at=1005, read_timeout=3)
    wire.transport.feed(CHUNKED + b"1\r\na\r\n")
    fail_by(wire, failure, exchange)
    assert wire.error_of(exchange.wait_body()) is exchange.error
    assert exchange.take_body() is None
    sink = RecordingSink()
    exchange.attach(sink)
    assert sink.events == ["begin chunks", b"a", "end of chunk", exchange.error]


def test_what_was_read_of_the_head_goes_with_the_failure(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(b"HTTP/1.1 2")
    reset = ConnectionResetError("by peer")
    wire.transport.lose(reset)
    failed: Translated = wire.error_of(exchange.waiter)
    assert (failed.failure, failed.exc, failed.raw) == (Failure.CONNECTION_LOST, reset, [b"HTTP/1.1 2"])


def test_body_that_the_connection_was_to_end_is_not_ended_by_a_reset(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(b"HTTP/1.1 200 OK\r\n\r\nab")
    wire.transport.lose(ConnectionResetError("by peer"))
    assert exchange.error is not None
    assert exchange.error.failure == Failure.CONNECTION_LOST


def test_cancelled_waiter_is_left_alone(wire: Wire) -> None:
    exchange = wire.send()
    exchange.waiter.cancel()
    wire.transport.feed(HEAD % 2 + b"ok")
    assert exchange.is_complete
    following = Wire()
    other = following.send()
    other.waiter.cancel()
    following.transport.lose()
    assert other.error is not None


@pytest.mark.parametrize("stage", ["sent", "in head", "in body", "paused"])
def test_abandoning_closes_the_connection_unless_the_exchange_is_over(wire: Wire, stage: str) -> None:
    exchange = wire.send(total_at=1005, read_timeout=3, settings=new_settings(high_water=1))
    if stage != "sent":
        wire.transport.feed((HEAD % 9)[: 5 if stage == "in head" else None])
    if stage == "paused":
        wire.transport.feed(b"abcd")
        assert not wire.transport.is_reading
    exchange.abandon()
    exchange.abandon()
    assert wire.conn.close_reason == CloseReason.ABANDONED
    assert wire.transport.end == "abort"
    assert (wire.pool.in_use, wire.pool.idle) == (0, 0)
    wire.loop.advance(100)
    assert exchange.error is not None
    assert exchange.error.failure == Failure.LET_GO
    assert wire.loop.errors == []


def test_abandoning_after_the_end_keeps_the_connection(wire: Wire) -> None:
    exchange = wire.send()
    wire.transport.feed(HEAD % 2 + b"ok")
    exchange.abandon()
    assert wire.conn.state == ConnectionState.IDLE
    assert wire.transport.end is None


# Deadlines


def test_total_deadline_holds_however_fast_bytes_come(wire: Wire) -> None:
    exchange = wire.send(total_at=1005, read_timeout=3)
    wire.transport.feed(HEAD % 100)
    for _ in range(4):
        wire.loop.advance(1)
        wire.transport.feed(b"a")
    assert exchange.error is None
    wire.loop.advance(1)
    assert exchange.error is not None
    assert exchange.error.failure == Failure.TOTAL_TIMEOUT
    assert wire.conn.close_reason == CloseReason.TIMED_OUT


def test_read_deadline_moves_with_every_read(wire: Wire) -> None:
    exchange = wire.send(read_timeout=3)
    wire.transport.feed(HEAD % 100)
    for _ in range(10):
        wire.loop.advance(2.9)
        wire.transport.feed(b"a")
    assert exchange.error is None
    wire.loop.advance(2.9)
    assert exchange.error is None
    wire.loop.advance(0.2)
    assert exchange.error is not None
    assert exchange.error.failure == Failure.READ_TIMEOUT


def test_read_deadline_does_not_pass_while_the_reader_pauses(wire: Wire) -> None:
    exchange = wire.send(read_timeout=3)
    wire.transport.feed(HEAD % 100)
    exchange.attach(RecordingSink())
    exchange.pause_reading()
    wire.loop.advance(100)
    assert exchange.error is None
    exchange.resume_reading()
    wire.loop.advance(2.9)
    assert exchange.error is None
    wire.loop.advance(0.2)
    assert exchange.error is not None


def test_read_deadline_does_not_pass_while_the_request_is_sent(wire: Wire) -> None:
    exchange = wire.send(read_timeout=3, has_upload=True)
    exchange.set_upload(FakeTask())  # type: ignore[arg-type]
    wire.loop.advance(100)
    assert exchange.error is None
    exchange.finish_upload()
    wire.loop.advance(2.9)
    assert exchange.error is None
    wire.loop.advance(0.2)
    assert exchange.error is not None


def test_total_deadline_passes_while_the_request_is_sent(wire: Wire) -> None:
    exchange = wire.send(total_at=1005, read_timeout=3, has_upload=True)
    task = FakeTask()
    exchange.set_upload(task)  # type: ignore[arg-type]
    wire.loop.advance(5)
    assert exchange.error is not None
    assert exchange.error.failure == Failure.TOTAL_TIMEOUT
    assert task.cancelled == 1


def test_deadlines_end_with_the_exchange(wire: Wire) -> None:
    exchange = wire.send(total_at=1005, read_timeout=3)
    assert exchange.is_set
    wire.transport.feed(HEAD % 2 + b"ok")
    assert not exchange.is_set
    wire.loop.advance(10)
    assert exchange.error is None
    assert wire.conn.state == ConnectionState.IDLE


# Upload


def test_upload_is_cancelled_when_the_response_completes_first(wire: Wire) -> None:
    exchange = wire.send(has_upload=True)
    task = FakeTask()
    exchange.set_upload(task)  # type: ignore[arg-type]
    wire.transport.feed(HEAD % 2 + b"ok")
    assert task.cancelled == 1
    assert exchange.upload is None
    assert exchange.take_body() == b"ok"
    assert wire.conn.close_reason == CloseReason.UPLOAD_UNFINISHED


@pytest.mark.parametrize("is_complete", [True, False])
def test_upload_that_comes_after_the_end_is_cancelled(wire: Wire, is_complete: bool) -> None:
    exchange = wire.send(has_upload=True)
    if is_complete:
        wire.transport.feed(HEAD % 2 + b"ok")
    else:
        wire.transport.lose()
    task = FakeTask()
    exchange.set_upload(task)  # type: ignore[arg-type]
    assert task.cancelled == 1
    assert exchange.upload is None


@pytest.mark.parametrize("is_abandoned", [True, False])
def test_upload_is_cancelled_with_the_exchange(wire: Wire, is_abandoned: bool) -> None:
    exchange = wire.send(has_upload=True)
    task = FakeTask()
    exchange.set_upload(task)  # type: ignore[arg-type]
    if is_abandoned:
        exchange.abandon()
    else:
        wire.transport.lose()
    assert task.cancelled == 1


@pytest.mark.parametrize("has_head", [False, True])
def test_upload_that_was_cut_ends_the_exchange(wire: Wire, has_head: bool) -> None:
    exchange = wire.send(has_upload=True)
    if has_head:
        wire.transport.feed(HEAD % 2)
    exchange.cut_upload()
    assert exchange.error is not None
    assert exchange.error.failure == Failure.CONNECTION_LOST
    assert wire.conn.state == ConnectionState.CLOSED


@pytest.mark.parametrize("is_known_before", [False, True])
def test_request_whose_end_the_server_cannot_find_costs_the_connection(
    wire: Wire, is_known_before: bool
) -> None:
    exchange = wire.send(has_upload=not is_known_before, is_unclean=is_known_before)
    if not is_known_before:
        exchange.finish_upload(False)
    wire.transport.feed(HEAD % 2 + b"ok")
    assert exchange.take_body() == b"ok"
    assert wire.conn.close_reason == CloseReason.UPLOAD_UNFINISHED


def test_failing_translation_is_delivered_in_place_of_the_failure(wire: Wire) -> None:
    def translate(*failure: object) -> BaseException:
        raise LookupError("no words")

    exchange = wire.send(settings=new_settings(translate=translate))
    wire.transport.lose()
    assert isinstance(wire.error_of(exchange.waiter), LookupError)
    assert (wire.pool.in_use, wire.pool.idle) == (0, 0)


def test_failed_upload_fails_the_exchange_before_the_head(wire: Wire) -> None:
    exchange = wire.send(has_upload=True)
    error = OSError("no such file")
    exchange.fail_upload(error)
    failed = wire.error_of(exchange.waiter)
    assert (failed.failure, failed.exc) == (Failure.BAD_UPLOAD, error)
    assert wire.conn.close_reason == CloseReason.UPLOAD_UNFINISHED


def test_failed_upload_after_the_head_leaves_the_response_but_not_the_connection(wire: Wire) -> None:
    exchange = wire.send(has_upload=True)
    wire.transport.feed(HEAD % 2)
    exchange.fail_upload(OSError("no such file"))
    assert exchange.error is None
    wire.transport.feed(b"ok")
    assert exchange.take_body() == b"ok"
    assert wire.conn.close_reason == CloseReason.UPLOAD_UNFINISHED


# Memory


@pytest.mark.parametrize("end", ["complete", "lost", "abandoned"])
def test_finished_exchange_is_freed_without_the_collector(end: str) -> None:
    wire = Wire()
    exchange = wire.send(total_at=1005)
    future = weakref.ref(exchange.waiter)
    exchange.waiter.cancel()
    gc.disable()
    try:
        if end == "complete":
            wire.transport.feed(HEAD % 2 + b"ok")
        elif end == "lost":
            wire.transport.lose()
        else:
            exchange.abandon()
        wire.loop.run_ready()
        del exchange
        assert future() is None
    finally:
        gc.enable()


def test_read_deadline_starts_anew_when_a_stream_is_attached(wire: Wire) -> None:
    exchange = wire.send(read_timeout=3, settings=new_settings(high_water=1))
    wire.transport.feed(HEAD % 100 + b"ab")
    assert not wire.transport.is_reading
    wire.loop.advance(2.9)
    exchange.attach(RecordingSink())
    wire.loop.advance(2.9)
    assert exchange.error is None
    wire.loop.advance(0.2)
    assert exchange.error is not None


def test_read_deadline_starts_with_the_head_although_the_upload_goes_on(wire: Wire) -> None:
    exchange = wire.send(read_timeout=3, has_upload=True)
    exchange.set_upload(FakeTask())  # type: ignore[arg-type]
    wire.loop.advance(100)
    wire.transport.feed(HEAD % 2)
    wire.loop.advance(2.9)
    assert exchange.error is None
    wire.loop.advance(0.2)
    assert exchange.error is not None
    assert exchange.error.failure == Failure.READ_TIMEOUT


def test_read_deadline_starts_anew_when_an_upload_failed_after_the_head(wire: Wire) -> None:
    exchange = wire.send(read_timeout=3, has_upload=True)
    exchange.set_upload(FakeTask())  # type: ignore[arg-type]
    wire.transport.feed(HEAD % 2)
    wire.loop.advance(2)
    exchange.fail_upload(OSError("no such file"))
    wire.loop.advance(2.9)
    assert exchange.error is None
    wire.loop.advance(0.2)
    assert exchange.error is not None
    assert exchange.error.failure == Failure.READ_TIMEOUT
