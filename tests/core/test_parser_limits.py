"""What the parser refuses: malformed messages, and messages that outgrow their limits."""

import pytest
from aiohttp.http_exceptions import HttpProcessingError

from wirespeed._core.parser import ResponseParser

from .parsing import CHUNKED, OK, Outcome, begin, by_aiohttp, outcome, parse

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
    assert parse(b"HTTP", b"/1.1 x\r\n").unfinished_head() == [b"HTTP", b"/1.1 x\r\n"]
    assert parse(b"HTTP/1.1 200", b" OK\r\nX: ").unfinished_head() == [b"HTTP/1.1 200", b" OK\r\nX: "]
    assert parse(OK + b"\r\n", b"abc").unfinished_head() == []


def test_parser_serves_again_after_an_error() -> None:
    parser = parse(b"garbage\r\n")
    begin(parser)
    assert parser.error is None
    assert parser.unfinished_head() == []
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
