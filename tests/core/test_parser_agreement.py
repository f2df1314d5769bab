"""The parser against itself, cut anywhere, and against aiohttp's own parser."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from .parsing import CHUNKED, agrees_with_aiohttp, by_aiohttp, chunks, outcome, parse

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


@given(st.binary(max_size=200))
@example(b"")
def test_random_bytes_end_in_an_error_or_in_waiting(data: bytes) -> None:
    parser = parse(data)
    assert parser.head is None
    assert not parser.is_complete
    assert not parser.ends_with_connection()
