"""What an exchange died of, as aiohttp's exception. Called by the core when an exchange fails.

The one place where the core's failures become aiohttp's classes. The words of a parse error
come from aiohttp's own parser, which is shown the same bytes: it runs on this cold path
only, so its cost does not matter, and its messages are API too.
"""

import asyncio
from contextlib import suppress
from typing import Any, cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_exceptions import (
    ClientConnectionError,
    ClientOSError,
    ClientPayloadError,
    ServerDisconnectedError,
    SocketTimeoutError,
)
from aiohttp.http import HttpProcessingError, HttpResponseParser
from aiohttp.http_exceptions import BadHttpMessage, ContentLengthError, TransferEncodingError

from ._core.exchange import Exchange, Failure


class _NoProtocol:
    """Stands in for the protocol that aiohttp's parser would pause."""

    connected = True

    def pause_reading(self) -> None: ...

    def resume_reading(self, resume_parser: bool = True) -> None: ...


def translate(
    exchange: Exchange, failure: int, exc: BaseException | None, raw: list[bytes] | None
) -> BaseException:
    """Make the exception that the caller of a failed exchange gets.

    Args:
        exchange: the exchange, as far as it came.
        failure: a `Failure`.
        exc: what the core met: a parser's, a transport's or a decoder's exception.
        raw: what was read of a head that did not end or is malformed, read by read.

    Returns:
        An exception of the class, and with the message, that aiohttp raises.
    """
    if failure == Failure.TOTAL_TIMEOUT:
        # aiohttp's timer cancels the task and turns that into the timeout.
        return _caused_by(asyncio.TimeoutError(), asyncio.CancelledError())
    if failure == Failure.READ_TIMEOUT:
        return SocketTimeoutError("Timeout on reading data from socket")
    if failure == Failure.LET_GO:
        return ClientConnectionError("Connection closed")
    if failure == Failure.BAD_UPLOAD:
        assert exc is not None
        return exc
    if failure == Failure.BAD_CONTENT:
        return _caused_by(ClientPayloadError(str(exc)), exc)
    if failure == Failure.BAD_RESPONSE:
        return _malformed(exchange, exc, raw)
    if failure == Failure.OWNER_CLOSED and exchange.head is not None:
        return RuntimeError("Connection closed.")
    if exchange.head is None:
        return _lost_before_head(exchange, exc, raw)
    return _lost_in_body(exchange, exc)


def _caused_by(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


def _malformed(exchange: Exchange, exc: BaseException | None, raw: list[bytes] | None) -> BaseException:
    """A response that the parser refused: while its head was read, or in its body."""
    cause = _replay(exchange, raw)[1] if raw else None
    if cause is None:
        cause = exc if isinstance(exc, HttpProcessingError) else BadHttpMessage(str(exc))
    if exchange.head is not None and not raw:
        return _caused_by(ClientPayloadError(f"Response payload is not completed: {cause!r}"), exc)
    if isinstance(cause, HttpProcessingError):
        error = HttpProcessingError(code=cause.code, message=cause.message, headers=cause.headers)
    else:
        error = HttpProcessingError()
    return _caused_by(error, cause)


def _lost_before_head(
    exchange: Exchange, exc: BaseException | None, raw: list[bytes] | None
) -> BaseException:
    if exc is None:
        return ServerDisconnectedError(_replay(exchange, raw)[0] if raw else None)
    if isinstance(exc, OSError):
        return _caused_by(ClientOSError(*exc.args), exc)
    return exc


def _lost_in_body(exchange: Exchange, exc: BaseException | None) -> BaseException:
    """A body cut short (RFC 9112 section 8): say how much was missing and, if known, why."""
    head = exchange.head
    assert head is not None
    if head.chunked:
        cause: BaseException = TransferEncodingError("Not enough data to satisfy transfer length header.")
    elif head.content_length >= 0:
        cause = ContentLengthError(
            "Not enough data to satisfy content length header "
            f"(received {exchange.body_size} of {_declared_length(exchange)} bytes)."
        )
    else:
        # RFC 9112 section 8: complete only when the connection was closed without an error.
        cause = exc or ClientConnectionError("Connection closed")
    message = f"Response payload is not completed: {cause!r}"
    if exc is not None and exc is not cause:
        message = f"{message}. {exc!r}"
    return _caused_by(ClientPayloadError(message), cause)


def _declared_length(exchange: Exchange) -> int:
    """The Content-Length as it was sent; the core counts in 63 bits."""
    assert exchange.head is not None
    return next(int(value) for name, value in exchange.head.fields if name.lower() == b"content-length")


def _replay(exchange: Exchange, raw: list[bytes]) -> tuple[Any, BaseException | None]:
    """Show aiohttp's parser the bytes of a head; return the message it made of them, or its error."""
    settings = exchange.settings
    parser = HttpResponseParser(
        cast(BaseProtocol, _NoProtocol()),
        asyncio.get_event_loop(),
        settings.high_water // 2,
        payload_exception=ClientPayloadError,
        response_with_body=not exchange.skip_body,
        read_until_eof=True,
        auto_decompress=settings.make_sink is not None,
        max_line_size=settings.max_line_size,
        max_field_size=settings.max_field_size,
        max_headers=settings.max_headers,
    )
    try:
        for data in raw:
            parser.feed_data(data)
    except Exception as error:
        return None, error
    with suppress(Exception):
        return parser.feed_eof(), None
    return None, None
