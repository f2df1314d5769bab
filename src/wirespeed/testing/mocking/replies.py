"""What goes back for a request: a response, raw bytes, or a failure; each as steps to be played.

A step is bytes (sent as one read), a number (seconds of silence), RESET, CLOSE, or an
exception that the connection is lost with. It must not know how steps are played.
"""

import enum
import errno
import http
import json as json_module
import os
import re
import socket
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from aiohttp import hdrs
from multidict import CIMultiDict

from .request import Request


class Step(enum.Enum):
    """Ends of a connection, to be used in a script."""

    RESET = "reset"
    """The connection is reset: the client gets a ConnectionResetError."""
    CLOSE = "close"
    """The server closes the connection in good order."""


RESET: Final = Step.RESET
CLOSE: Final = Step.CLOSE

Failure = BaseException | type[BaseException]
AnyStep = bytes | float | Step | Failure
Script = Iterable[AnyStep] | AsyncIterable[AnyStep]
HeadersLike = Mapping[str, str] | Iterable[tuple[str, str]]

_SEVERAL_BODIES: Final = "a response has one body: give one of json, text and body"
_UNSAFE: Final = re.compile(r"[\r\n\0]")
# What an exception class stands for when it is given without arguments.
_ERRNOS: Final[dict[type[BaseException], tuple[int, str]]] = {
    ConnectionRefusedError: (errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)),
    ConnectionResetError: (errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
    ConnectionAbortedError: (errno.ECONNABORTED, os.strerror(errno.ECONNABORTED)),
    BrokenPipeError: (errno.EPIPE, os.strerror(errno.EPIPE)),
    socket.gaierror: (socket.EAI_NONAME, "Name or service not known"),
}


def as_exception(failure: Failure) -> BaseException:
    """Make an instance of an exception class; the usual socket errors get their number and text."""
    if isinstance(failure, BaseException):
        return failure.with_traceback(None)
    return failure(*_ERRNOS.get(failure, ()))


class Response:
    """A response of the mock, for `Route.respond` and for handlers.

    Args:
        status: the status code.
        json: an object that becomes the body as JSON.
        text: a text that becomes the body in UTF-8.
        body: bytes; or an iterable or async iterable of bytes, pauses (seconds), RESET, CLOSE and
            exceptions, which is sent chunked unless `headers` has a Content-Length.
        headers: a mapping or pairs; a Content-Type for `json` and `text` and the framing of the
            body are added unless they are there.
        reason: the reason phrase; the usual one of the status unless given.
        delay: seconds before the response begins.

    Raises:
        ValueError: several bodies, or a line break in a header or the reason.
    """

    def __init__(
        self,
        status: int = 200,
        *,
        json: Any = None,
        text: str | None = None,
        body: bytes | str | Script = b"",
        headers: HeadersLike | None = None,
        reason: str | None = None,
        delay: float = 0.0,
    ) -> None:
        has_body = not isinstance(body, bytes | str) or len(body) > 0
        if (json is not None) + (text is not None) + has_body > 1:
            raise ValueError(_SEVERAL_BODIES)
        self.status = status
        self.headers: CIMultiDict[str] = CIMultiDict(headers or ())
        self.delay = delay
        if json is not None:
            body = json_module.dumps(json).encode()
            self.headers.setdefault(hdrs.CONTENT_TYPE, "application/json")
        elif text is not None:
            body = text.encode()
            self.headers.setdefault(hdrs.CONTENT_TYPE, "text/plain; charset=utf-8")
        self.body: bytes | Script = body.encode() if isinstance(body, str) else body
        if reason is None:
            known = status in http.HTTPStatus._value2member_map_
            reason = http.HTTPStatus(status).phrase if known else ""
        self.reason = reason
        for part in (reason, *self.headers, *self.headers.values()):
            if _UNSAFE.search(part):
                raise ValueError(f"a line break in the head of a response: {part!r}")

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"

    def steps(self, request: Request) -> Script:
        """The response on the wire, for this request."""
        has_body = request.method != hdrs.METH_HEAD and self.status >= 200 and self.status not in (204, 304)
        headers, body = self.headers.copy(), self.body
        is_framed = hdrs.CONTENT_LENGTH in headers or hdrs.TRANSFER_ENCODING in headers
        is_chunked = not is_framed and not isinstance(body, bytes) and request.version != "1.0"
        if is_chunked:
            headers[hdrs.TRANSFER_ENCODING] = "chunked"
        elif not is_framed and isinstance(body, bytes) and self.status >= 200 and self.status != 204:
            headers[hdrs.CONTENT_LENGTH] = str(len(body))
        closes = _closes(request, headers) or (
            has_body and not is_chunked and not is_framed and not isinstance(body, bytes)
        )
        lines = [f"HTTP/1.1 {self.status} {self.reason}", *(f"{k}: {v}" for k, v in headers.items())]
        head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        if isinstance(body, AsyncIterable) and has_body:
            return self._stream(head, body, is_chunked, closes)
        return self._whole(head, body if has_body else b"", is_chunked and has_body, closes)

    def _whole(self, head: bytes, body: Any, is_chunked: bool, closes: bool) -> Iterator[AnyStep]:
        if self.delay:
            yield self.delay
        if isinstance(body, bytes):
            yield head + body
        else:
            yield head
            for part in body:
                yield _chunk(part) if is_chunked else part
        if is_chunked:
            yield b"0\r\n\r\n"
        if closes:
            yield CLOSE

    async def _stream(
        self, head: bytes, body: AsyncIterable[AnyStep], is_chunked: bool, closes: bool
    ) -> AsyncIterator[AnyStep]:
        if self.delay:
            yield self.delay
        yield head
        async for part in body:
            yield _chunk(part) if is_chunked else part
        if is_chunked:
            yield b"0\r\n\r\n"
        if closes:
            yield CLOSE


def _chunk(part: AnyStep) -> AnyStep:
    # An empty chunk would end the body.
    return b"%x\r\n%b\r\n" % (len(part), part) if isinstance(part, bytes) and part else part


def _closes(request: Request, headers: CIMultiDict[str]) -> bool:
    """Whether the server closes the connection after this response (RFC 9112 section 9.3)."""
    asked = f"{request.headers.get(hdrs.CONNECTION, '')},{headers.get(hdrs.CONNECTION, '')}".lower()
    return "close" in asked or (request.version == "1.0" and "keep-alive" not in asked)


class Raw:
    """Bytes on the wire as a script gives them."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def __repr__(self) -> str:
        return f"<Raw {self.script!r}>"

    def steps(self, request: Request) -> Script:
        return self.script


class NoConnection:
    """The connection cannot be made."""

    def __init__(self, failure: Failure, delay: float = 0.0) -> None:
        # Once now, so that a class that wants arguments is found out where it is written.
        as_exception(failure)
        self.failure = failure
        self.delay = delay

    def __repr__(self) -> str:
        return f"<NoConnection {self.failure!r}>"

    def steps(self, request: Request) -> Script:
        """For a request that came over a connection made before: it is lost."""
        return [self.delay, self.failure]


Answer = Response | Raw | NoConnection
Handler = Callable[[Request], Any]


class Handled:
    """What a function makes of the request."""

    def __init__(self, function: Handler) -> None:
        self.function = function

    def __repr__(self) -> str:
        return f"<Handled by {self.function!r}>"


Reply = Answer | Handled


def answer_of(result: Any) -> Answer:
    """Make an answer of what a handler returned.

    Raises:
        TypeError: neither a Response, a script, nor None.
    """
    if result is None:
        return Response()
    if isinstance(result, Response):
        return result
    if isinstance(result, AsyncIterable) or (
        isinstance(result, Iterable) and not isinstance(result, str | bytes | Mapping)
    ):
        return Raw(result)
    raise TypeError(f"a handler returns a Response, a script or None, not {result!r}")
