"""Decoding a body that is there as a whole, with aiohttp's decoders. Called by the driver of the core."""

from typing import Any

from aiohttp import ClientPayloadError
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.http_parser import DeflateBuffer

from .result import BodyTooLarge

ENCODINGS = frozenset((b"gzip", b"deflate", b"br", b"zstd"))
"""What aiohttp decodes; a body in another encoding is left as it is."""

_STEP = 256 * 1024
"""Bytes that are decoded before the size is looked at."""


class _Collected:
    """Takes what a decoder gives, as a StreamReader does."""

    _low_water = _STEP
    total_compressed_bytes = 0

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def feed_data(self, data: bytes, size: int = 0) -> None:
        self.parts.append(data)
        self.size += len(data)

    def feed_eof(self) -> None:
        pass


def decode(body: bytes, encoding: bytes, limit: int | None) -> bytes:
    """Decode a whole body.

    Args:
        body: as it came.
        encoding: of the field Content-Encoding.
        limit: bytes that it may become; None for any number.

    Raises:
        BodyTooLarge: it becomes longer.
        ClientPayloadError: it cannot be decoded.
    """
    encoding = encoding.lower()
    if not body or encoding not in ENCODINGS:
        return body
    collected: Any = _Collected()
    try:
        decoder = DeflateBuffer(collected, encoding.decode(), max_decompress_size=_STEP)
        has_more = decoder.feed_data(body, len(body))
        while has_more and (limit is None or collected.size <= limit):
            has_more = decoder.feed_data(b"", 0)
        if limit is not None and collected.size > limit:
            raise BodyTooLarge(limit)
        decoder.feed_eof()
    except ContentEncodingError as exc:
        raise ClientPayloadError(str(exc)) from exc
    return b"".join(collected.parts)
