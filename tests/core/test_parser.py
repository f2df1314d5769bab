"""The response parser: what it takes from a message, in whatever pieces it comes."""

import gc
from typing import Any

import pytest

from wirespeed._core.parser import HeadRefused, ResponseParser

from .parsing import CHUNKED, OK, begin, body, parse

# One response


def test_status_line_and_fields_are_taken_apart() -> None:
    parser = parse(b"HTTP/1.1 404 Not Found\r\nX-A:  padded \t\r\nx-a: again\r\nContent-Length: 2\r\n\r\nno")
    head = parser.head
    assert head is not None
    assert (head.status, head.reason, head.major, head.minor) == (404, "Not Found", 1, 1)
    assert head.fields == [(b"X-A", b"padded"), (b"x-a", b"again"), (b"Content-Length", b"2")]
    assert (head.content_length, head.chunked, head.no_body, head.keep_alive) == (2, False, False, True)
    assert parser.is_complete
    assert (body(parser), parser.body_size) == (b"no", 2)
    assert (parser.error, parser.has_surplus, parser.unfinished_head()) == (None, False, [])


def test_fields_that_the_core_acts_on_are_noted() -> None:
    head = parse(OK + b"SET-Cookie: a=b\r\nlocation: /\r\nContent-encoding: GZIP\r\n\r\n").head
    assert head is not None
    assert (head.has_cookies, head.has_location, head.content_encoding) == (True, True, b"GZIP")
    plain = parse(OK + b"Set-Cookies: a\r\nLocations: /\r\nSet_Cookie: a\r\n\r\n").head
    assert plain is not None
    assert (plain.has_cookies, plain.has_location, plain.content_encoding) == (False, False, None)


@pytest.mark.parametrize(
    ("line", "reason"), [(b"", ""), (b" ", ""), (b" a  b", "a  b"), (b" \xff", "\udcff")]
)
def test_reason_phrase_may_be_absent_or_not_utf8(line: bytes, reason: str) -> None:
    head = parse(b"HTTP/1.1 200" + line + b"\r\nContent-Length: 0\r\n\r\n").head
    assert head is not None
    assert head.reason == reason


@pytest.mark.parametrize(
    "kind", [bytes, lambda data: memoryview(bytearray(data))], ids=["bytes", "memoryview"]
)
def test_reads_may_be_bytes_or_a_view_of_a_buffer_that_is_reused(kind: Any) -> None:
    buffer = bytearray(100)
    parser = parse()
    for data in (b"HTTP/1.1 20", b"0 OK\r\nX: a", b"b\r\nContent-Length: 4\r\n\r\nab", b"cd"):
        if kind is bytes:
            parser.feed(data)
        else:
            buffer[: len(data)] = data
            parser.feed(memoryview(buffer)[: len(data)])
            buffer[:] = b"#" * len(buffer)
    head = parser.head
    assert head is not None
    assert head.fields[0] == (b"X", b"ab")
    assert body(parser) == b"abcd"
    assert parser.is_complete


@pytest.mark.parametrize(("version", "keep_alive"), [(b"1.0", False), (b"1.1", True)])
def test_version_decides_about_keeping_unless_a_field_does(version: bytes, keep_alive: bool) -> None:
    def kept(field: bytes) -> bool:
        head = parse(b"HTTP/%b 200 OK\r\nContent-Length: 0\r\n%b\r\n" % (version, field)).head
        assert head is not None
        assert head.minor == int(version[2:])
        return head.keep_alive

    assert kept(b"") is keep_alive
    assert kept(b"Connection: close\r\n") is False
    assert kept(b"Connection: keep-alive\r\n") is True


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body_ends_with_its_head(status: int) -> None:
    parser = parse(b"HTTP/1.1 %d X\r\nContent-Length: 10\r\n\r\n" % status)
    assert parser.head is not None
    assert parser.head.no_body
    assert parser.is_complete
    assert parser.head.keep_alive


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: a"])
def test_response_to_head_ends_with_its_head_and_the_next_one_is_read(field: bytes) -> None:
    parser = parse(OK + field + b"\r\n\r\n", head=True)
    assert parser.is_complete
    assert not parser.has_surplus
    begin(parser)
    assert (parser.head, parser.is_complete) == (None, False)
    parser.feed(OK + b"Content-Length: 2\r\n\r\nok")
    assert body(parser) == b"ok"
    assert parser.is_complete
    assert not parser.has_surplus


@pytest.mark.parametrize("count", [1, 2, 100])
def test_interim_responses_are_skipped(count: int) -> None:
    interim = [b"HTTP/1.1 100 Continue\r\nX: interim\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 50
    interim = interim[:count]
    parser = parse(*interim, b"HTTP/1.0 200 OK\r\nY: final\r\nContent-Length: 2\r\n\r\nok")
    assert parser.head is not None
    assert (parser.head.status, parser.head.fields[0], parser.head.minor) == (200, (b"Y", b"final"), 0)
    assert body(parser) == b"ok"


def test_endless_interim_responses_are_refused() -> None:
    parser = parse(b"HTTP/1.1 102 Processing\r\n\r\n" * 101)
    assert isinstance(parser.error, HeadRefused)
    assert "interim" in str(parser.error)


@pytest.mark.parametrize(
    "content",
    [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"],
)
def test_body_of_an_interim_response_is_not_part_of_the_final_one(content: bytes) -> None:
    parser = parse(b"HTTP/1.1 150 X\r\n" + content + OK + b"Content-Length: 2\r\n\r\nok")
    assert parser.parts == [b"ok"]
    assert parser.body_size == 2
    assert parser.is_complete


@pytest.mark.parametrize("fields", [b"Upgrade: x\r\nConnection: upgrade\r\n", b"Upgrade: x\r\n", b""])
def test_upgrade_completes_the_response_and_leaves_a_surplus(fields: bytes) -> None:
    parser = parse(b"HTTP/1.1 101 Switching\r\n" + fields + b"\r\nother protocol")
    assert parser.head is not None
    assert parser.head.status == 101
    assert parser.is_complete
    assert parser.has_surplus
    assert parser.error is None


# Bodies


def test_chunks_are_marked_where_they_end() -> None:
    parser = parse(CHUNKED + b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\n\r\n")
    assert parser.parts == [b"abc", None, b"de", None, None]
    assert parser.is_complete
    assert parser.body_size == 5


def test_trailers_are_dropped_and_do_not_reach_the_next_response() -> None:
    parser = parse(CHUNKED + b"1\r\na\r\n0\r\nX-Trailer: t\r\nX-Other: u\r\n\r\n")
    assert parser.is_complete
    assert parser.head is not None
    assert [name for name, _ in parser.head.fields] == [b"Transfer-Encoding"]
    begin(parser)
    parser.feed(OK + b"Y: 1\r\nContent-Length: 0\r\n\r\n")
    assert parser.head.fields == [(b"Y", b"1"), (b"Content-Length", b"0")]


def test_body_without_a_length_ends_with_the_connection() -> None:
    parser = parse(OK + b"\r\n", b"all of", b" this")
    assert not parser.is_complete
    assert parser.ends_with_connection()
    assert body(parser) == b"all of this"
    assert parser.head is not None
    assert not parser.head.keep_alive


@pytest.mark.parametrize("coding", [b"xchunked", b"x chunked", b"chunked, gzip", b"gzip;chunked"])
def test_only_the_last_coding_makes_a_body_chunked(coding: bytes) -> None:
    parser = parse(OK + b"Transfer-Encoding: " + coding + b"\r\n\r\n5\r\n")
    assert parser.head is not None
    assert not parser.head.chunked
    assert parser.ends_with_connection()
    assert body(parser) == b"5\r\n"


@pytest.mark.parametrize(
    "reads",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        OK + b"Content-Length: 5\r\n\r\nabcd",
        CHUNKED + b"5\r\nabcde\r\n",
        CHUNKED + b"5\r\nabcde\r\n0\r\n",
        OK + b"Content-Length: 0\r\n\r\n",
        OK + b"Content-Length: 5, 6\r\n\r\n",
        OK + b"Content-Length: 9223372036854775808\r\n\r\nabcd",
        OK + b"Content-Length: 0000000000000000000005\r\n\r\nabcd",
    ],
)
def test_message_that_has_an_end_of_its_own_does_not_end_with_the_connection(reads: bytes) -> None:
    assert not parse(reads).ends_with_connection()


@pytest.mark.parametrize(
    ("message", "is_noticed"),
    [(b"HTTP/1.1 200 OK\r\n\r\n", True), (b"H", True), (b"garbage", True), (b"\x00", True), (b"\r\n", False)],
)
def test_bytes_after_a_message_are_noticed(message: bytes, is_noticed: bool) -> None:
    first = OK + b"Content-Length: 2\r\n\r\nok"
    together = parse(first + message)
    apart = parse(first, message)
    for parser in (together, apart):
        assert parser.is_complete
        assert body(parser) == b"ok"
        assert (parser.has_surplus or parser.error is not None) == is_noticed


@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: a"])
@pytest.mark.parametrize("extra", [b"5", b"5\r", b"5\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"hello"])
def test_bytes_after_a_response_to_head_are_noticed(field: bytes, extra: bytes) -> None:
    data = OK + field + b"\r\n\r\n" + extra
    for reads in ([data], [data[:30], data[30:]]):
        parser = parse(*reads, head=True)
        assert parser.is_complete
        assert parser.has_surplus or parser.error is not None
        assert parser.parts == []


def test_parsers_leave_nothing_behind() -> None:
    gc.collect()
    for i in range(200):
        parser = parse(OK + b"Content-Length: 2\r\n\r\nok", head=i % 2 == 0)
        del parser
    gc.collect()
    assert not [obj for obj in gc.get_objects() if type(obj) is ResponseParser]
