"""The response parser: messages in any pieces, limits, and agreement with aiohttp's own parser."""

import gc
import itertools
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser
from hypothesis import example, given
from hypothesis import strategies as st

from wirespeed._core.parser import HeadRefused, ResponseParser

from .fakes import FakeLoop

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def parse(*reads: bytes | memoryview, head: bool = False, **limits: int) -> ResponseParser:
    parser = ResponseParser()
    begin(parser, head=head, **limits)
    for data in reads:
        if parser.error is None:
            parser.feed(data)
    return parser


def begin(
    parser: ResponseParser,
    *,
    head: bool = False,
    max_line_size: int = 8190,
    max_field_size: int = 8190,
    max_headers: int = 128,
) -> None:
    parser.begin(head, max_line_size, max_field_size, max_headers)


def body(parser: ResponseParser) -> bytes:
    return b"".join(part for part in parser.parts if part is not None)


def chunks(parser: ResponseParser) -> list[bytes]:
    """The body split where chunks end; what came after the last end is the last item."""
    split = [b""]
    for part in parser.parts:
        if part is None:
            split.append(b"")
        else:
            split[-1] += part
    return split


@dataclass
class Outcome:
    """What one response came to, for comparing."""

    status: int
    version: tuple[int, int]
    reason: str
    fields: list[tuple[bytes, bytes]]
    keep_alive: bool
    chunked: bool
    body: bytes
    is_complete: bool


def outcome(parser: ResponseParser) -> Outcome | None:
    head = parser.head
    if head is None:
        return None
    return Outcome(
        head.status, (head.major, head.minor), head.reason, head.fields,
        head.keep_alive, head.chunked, body(parser), parser.is_complete,
    )  # fmt: skip


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
    assert (parser.error, parser.has_surplus, parser.unfinished_head()) == (None, False, b"")


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


# Malformed messages and limits

MALFORMED = {
    "no http": b"SSH-2.0-OpenSSH\r\n",
    "request": b"GET / HTTP/1.1\r\n\r\n",
    "http/3": b"HTTP/3.0 200 OK\r\n\r\n",
    "status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "duplicate content-length": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "content-length list": OK + b"Content-Length: 2, 2\r\n\r\nab",
    "negative content-length": OK + b"Content-Length: -2\r\n\r\nab",
    "signed content-length": OK + b"Content-Length: +2\r\n\r\nab",
    "hexadecimal content-length": OK + b"Content-Length: 0x2\r\n\r\nab",
    "content-length beyond 64 bits": OK + b"Content-Length: 18446744073709551617\r\n\r\nab",
    "empty content-length": OK + b"Content-Length:\r\n\r\nab",
    "content-length and transfer-encoding": OK
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding and content-length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "space before the colon": OK + b"Content-Length : 2\r\n\r\nab",
    "no name": OK + b": a\r\n\r\n",
    "no colon": OK + b"abc\r\n\r\n",
    "nul in a value": OK + b"X: a\x00b\r\n\r\n",
    "nul in a name": OK + b"X\x00: ab\r\n\r\n",
    "nul in the reason": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    "lone cr": OK + b"X: a\rb\r\n\r\n",
    "chunk size of letters": CHUNKED + b"xyz\r\n",
    "negative chunk size": CHUNKED + b"-1\r\n",
    "chunk size with 0x": CHUNKED + b"0x1\r\na\r\n",
    "chunk size beyond 64 bits": CHUNKED + b"10000000000000000\r\n",
    "empty chunk size": CHUNKED + b"\r\n",
    "chunk longer than it says": CHUNKED + b"1\r\nab\r\n",
    "draft websocket": OK + b"Sec-WebSocket-Key1: a\r\n\r\n",
}
# Both parsers let these pass: llhttp's lenient mode, which aiohttp uses too.
LENIENT = {"nul in the reason", "lone cr", "space before the colon"}


@pytest.mark.parametrize("name", [name for name in MALFORMED if name not in LENIENT])
def test_malformed_message_is_refused_in_any_pieces(name: str) -> None:
    data = MALFORMED[name]
    assert parse(data).error is not None
    pieces = ResponseParser()
    begin(pieces)
    for i in range(len(data)):
        pieces.feed(data[i : i + 1])
        if pieces.error is not None:
            break
    assert pieces.error is not None
    assert not pieces.is_complete
    assert not pieces.ends_with_connection()


@pytest.mark.parametrize("name", [*MALFORMED])
def test_malformed_message_is_judged_as_aiohttp_does(name: str) -> None:
    ours = parse(MALFORMED[name])
    try:
        theirs: Outcome | None = by_aiohttp(MALFORMED[name])
    except HttpProcessingError:
        assert ours.error is not None
    else:
        assert ours.error is None
        assert outcome(ours) == theirs


def test_what_was_read_of_a_malformed_head_is_kept() -> None:
    assert parse(b"HTTP", b"/1.1 x\r\n").unfinished_head() == b"HTTP/1.1 x\r\n"
    assert parse(b"HTTP/1.1 200", b" OK\r\nX: ").unfinished_head() == b"HTTP/1.1 200 OK\r\nX: "
    assert parse(OK + b"\r\n", b"abc").unfinished_head() == b""


def test_parser_serves_again_after_an_error() -> None:
    parser = parse(b"garbage\r\n")
    begin(parser)
    assert parser.error is None
    assert parser.unfinished_head() == b""
    parser.feed(OK + b"Content-Length: 2\r\n\r\nok")
    assert parser.is_complete


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_reason_phrase_is_bounded_by_max_line_size(over: int) -> None:
    data = b"HTTP/1.1 200 " + b"r" * (50 + over) + b"\r\nContent-Length: 0\r\n\r\n"
    for reads in ([data], [data[i : i + 1] for i in range(len(data))]):
        assert (parse(*reads, max_line_size=50).error is not None) == (over > 0)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_field_is_bounded_by_max_field_size(over: int) -> None:
    data = OK + b"Name: " + b"v" * (46 + over) + b"\r\nContent-Length: 0\r\n\r\n"
    for reads in ([data], [data[i : i + 1] for i in range(len(data))]):
        assert (parse(*reads, max_field_size=50, max_line_size=50).error is not None) == (over > 0)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_number_of_fields_is_bounded_by_max_headers(over: int) -> None:
    parser = parse(OK + b"X: a\r\n" * (9 + over) + b"Content-Length: 0\r\n\r\n", max_headers=10)
    assert (parser.error is not None) == (over > 0)


@pytest.mark.parametrize("over", [0, 1])
def test_trailers_count_towards_max_headers(over: int) -> None:
    parser = parse(CHUNKED + b"0\r\n" + b"T: a\r\n" * (9 + over) + b"\r\n", max_headers=10)
    assert (parser.error is not None) == (over > 0)


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 200 ", OK + b"X", OK + b"X: ", CHUNKED + b"0\r\nX: ", CHUNKED + b"1;", CHUNKED + b"0"],
)
def test_line_without_an_end_is_refused_before_it_is_large(start: bytes) -> None:
    filler = b"0" if start.endswith(b"0") else b"a"
    parser = parse(start, max_line_size=1000, max_field_size=1000)
    fed = 0
    while parser.error is None and fed < 1_000_000:
        parser.feed(filler * 100)
        fed += 100
    assert parser.error is not None
    assert fed <= 1200


@pytest.mark.parametrize("line", [b"X: a\r\n", b"X:\r\n a\r\n", b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\n"])
def test_head_without_an_end_is_refused(line: bytes) -> None:
    parser = parse(OK, max_headers=10)
    fed = 0
    while parser.error is None and fed < 1_000_000:
        parser.feed(line)
        fed += len(line)
    assert parser.error is not None


def test_many_small_chunks_are_no_endless_line() -> None:
    parser = parse(CHUNKED, max_line_size=100, max_field_size=100, max_headers=5)
    for _ in range(10_000):
        parser.feed(b"1\r\na\r\n")
        parser.parts = []
    parser.feed(b"0\r\n\r\n")
    assert parser.error is None
    assert parser.is_complete


def test_strict_parser_refuses_what_a_lenient_one_accepts() -> None:
    for data in (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n"):
        assert parse(data).is_complete
        strict = ResponseParser(lenient=False)
        begin(strict)
        strict.feed(data)
        assert strict.error is not None


# Every way to cut, and aiohttp's parser

INTERIM = [b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 H\r\nLink: a\r\n\r\n"]

_name = st.text("abcXYZ-_09", min_size=1, max_size=8).map(str.encode)
_value = st.binary(max_size=12).map(lambda v: bytes(c for c in v if c >= 0x20 and c != 0x7F).strip(b" "))
_field = st.tuples(_name.filter(lambda name: not name.isdigit()), _value).map(
    lambda pair: b"%b: %b\r\n" % pair
)
_special = st.sampled_from(
    [
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Set-Cookie: a=b\r\n",
        b"Empty:\r\n",
        b"T: a \t\r\n",
    ]
)
_fields = st.lists(_field | _special, max_size=4).map(b"".join)


@st.composite
def _messages(draw: st.DrawFn) -> bytes:
    """One final response, perhaps with an interim one before it."""
    interim = draw(st.sampled_from(INTERIM))
    status = draw(st.sampled_from([200, 200, 200, 201, 204, 206, 301, 304, 404, 500, 999]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    reason = draw(st.sampled_from([b" OK", b" ", b"", b" Not Found"]))
    start = b"%bHTTP/%b %d%b\r\n%b" % (interim, version, status, reason, draw(_fields))
    content = draw(st.binary(max_size=40))
    if status in (204, 304):
        return start + b"\r\n"
    kind = draw(st.sampled_from(["length", "chunked", "close"]))
    if kind == "length":
        return start + b"Content-Length: %d\r\n\r\n" % len(content) + content
    if kind == "close":
        return start + b"\r\n" + content
    size = draw(st.integers(1, 10))
    extension = draw(st.sampled_from([b"", b";a", b";a=b"]))
    pieces = [content[i : i + size] for i in range(0, len(content), size)]
    lines = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailer = draw(st.sampled_from([b"", b"X-T: a\r\n", b"X-T: a\r\nX-U: b\r\n"]))
    return start + b"Transfer-Encoding: chunked\r\n\r\n" + lines + b"0\r\n" + trailer + b"\r\n"


def by_aiohttp(data: bytes, *, head: bool = False) -> Outcome:
    """What aiohttp's parser makes of the first final response.

    Raises:
        HttpProcessingError: the message is malformed.
    """
    loop: Any = FakeLoop()
    parser = HttpResponseParser(
        BaseProtocol(loop),
        loop,
        2**20,
        response_with_body=not head,
        read_until_eof=True,
        auto_decompress=False,
    )
    messages, _, _ = parser.feed_data(data)
    for message, payload in messages:
        if 100 <= message.code < 200 and message.code != 101:
            continue
        content = b"".join(getattr(payload, "_buffer", ()))
        return Outcome(
            message.code, tuple(message.version), message.reason, list(message.raw_headers),
            not message.should_close, message.chunked, content, payload.is_eof(),
        )  # fmt: skip
    raise HttpProcessingError(message="no final response")


@given(_messages(), st.data())
def test_message_in_any_pieces_is_the_same_message(message: bytes, data: st.DataObject) -> None:
    whole = parse(message)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(message)), max_size=8)))
    bounds = [0, *cuts, len(message)]
    pieces = parse(*(message[a:b] for a, b in itertools.pairwise(bounds) if a < b))
    assert whole.error is None
    assert pieces.error is None
    assert outcome(pieces) == outcome(whole)
    assert chunks(pieces) == chunks(whole)
    assert pieces.ends_with_connection() == whole.ends_with_connection()
    assert pieces.body_size == whole.body_size


@pytest.mark.parametrize(
    "message",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX:\r\nY: a\r\nContent-Length: 3\r\n\r\nabc",
        CHUNKED + b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nT: u\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nX: folded\r\n line\r\n\r\nto the end",
        b"\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
    ],
)
def test_every_position_for_a_cut_gives_the_same_message(message: bytes) -> None:
    whole = parse(message)
    for i in range(1, len(message)):
        for j in (i, min(i + 1, len(message)), min(i + 7, len(message))):
            pieces = parse(*(piece for piece in (message[:i], message[i:j], message[j:]) if piece))
            assert outcome(pieces) == outcome(whole)
            assert chunks(pieces) == chunks(whole)


@given(_messages())
def test_message_is_understood_as_aiohttp_understands_it(message: bytes) -> None:
    ours = parse(message)
    assert ours.error is None
    assert not ours.has_surplus
    agrees_with_aiohttp(message)


@given(_messages())
def test_response_to_head_is_understood_as_aiohttp_understands_it(message: bytes) -> None:
    start = message.rindex(b"HTTP/1.")
    message = message[: message.index(b"\r\n\r\n", start) + 4]
    ours = parse(message, head=True)
    assert ours.error is None
    assert not ours.has_surplus
    theirs = by_aiohttp(message, head=True)
    assert theirs.body == b""
    assert outcome(ours) == theirs


_MUTATIONS = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b":", b";", b",", b"0", b"1", b"g", b"\x80", b"\r\n ",
    b"\r\n\r\n", b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Upgrade: h2c\r\n",
    b"Connection: upgrade\r\n", b"HTTP/1.1 ", b"HTTP/1.1 150 X\r\n", b"HTTP/1.1 101 X\r\n",
]  # fmt: skip


@given(_messages(), st.data())
def test_mutated_message_is_judged_as_aiohttp_judges_it(message: bytes, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(message)))
        cut = data.draw(st.integers(0, 3))
        message = message[:start] + data.draw(st.sampled_from(_MUTATIONS)) + message[start + cut :]
    agrees_with_aiohttp(message)


def agrees_with_aiohttp(message: bytes) -> None:
    ours = parse(message)
    try:
        theirs = by_aiohttp(message)
    except HttpProcessingError:
        assert ours.error is not None or ours.head is None
        return
    assert ours.error is None
    result = outcome(ours)
    if ours.ends_with_connection():
        theirs.is_complete = False
    if theirs.status == 101:
        theirs.is_complete = True
    assert result == theirs


@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes_end_in_an_error_or_in_waiting(data: bytes) -> None:
    parser = parse(data)
    assert parser.head is None
    assert not parser.is_complete
    assert not parser.ends_with_connection()


def test_parsers_leave_nothing_behind() -> None:
    gc.collect()
    for i in range(200):
        parser = parse(OK + b"Content-Length: 2\r\n\r\nok", head=i % 2 == 0)
        del parser
    gc.collect()
    assert not [obj for obj in gc.get_objects() if type(obj) is ResponseParser]
