"""Parsing for tests: what the core's parser makes of bytes, and what aiohttp's own does."""

from dataclasses import dataclass
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpResponseParser

from wirespeed._core.parser import ResponseParser

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
