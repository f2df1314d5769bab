"""What the embedded server answers: one function per route, from a request to an `Answer`.

Pure decisions: nothing here touches a socket, a loop or a clock. `protocol.py` is the only
caller; it renders an `Answer` to bytes and owns write flow control and delays.
"""

import functools
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

JSON_BODY: Final = b'{"id":10425,"name":"wirespeed","ok":true,"tags":["http","loop","c"]}'
"""The body of `/json`, always 68 bytes."""

MAX_BODY: Final = 1 << 30
"""Largest body a route makes, bytes."""
MAX_KEPT: Final = 64 << 20
"""Largest body held in memory at once, bytes: what `/echo` takes and `/gzip` makes."""
MAX_DELAY: Final = 60.0
"""Longest `/delay`, seconds."""
MAX_REDIRECTS: Final = 1000

# One block serves every body: byte i of a body is i % 256, whatever its length.
_BLOCK: Final = bytes(range(256)) * 1024
BLOCK_SIZE: Final = len(_BLOCK)
_CHUNK_SIZE: Final = 16 << 10
_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"


@dataclass(slots=True)
class Request:
    """A complete request.

    Attributes:
        method: as sent.
        target: the request target as sent, undecoded.
        headers: name and value pairs in wire order.
        body: kept for `/echo` alone.
        body_length: bytes received as body, whether kept or not.
        keep_alive: the client lets the connection live on.
    """

    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    body_length: int
    keep_alive: bool


@dataclass(slots=True)
class Answer:
    """What to send.

    Attributes:
        status: the HTTP status.
        body: the whole body, when `pieces` is None.
        content_type: value of Content-Type.
        headers: further headers, in order.
        pieces: a streamed body, already framed where `length` is None.
        length: bytes of a streamed body; None sends Transfer-Encoding: chunked.
        delay: seconds to wait before sending.
        close: send Connection: close, and close afterwards.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()
    pieces: Iterator[bytes | memoryview] | None = None
    length: int | None = None
    delay: float = 0.0
    close: bool = False


def answer(request: Request) -> Answer:
    """Decide what to answer.

    Args:
        request: the complete request.

    Returns:
        The answer of its route; 404 for an unknown route, 400 for a bad argument.
    """
    path, _, query = request.target.partition("?")
    route, _, argument = path[1:].partition("/")
    if path == "/cookies/set":
        return _set_cookies(query)
    exact = _EXACT.get(path)
    if exact is not None:
        return exact(request)
    numbered = _NUMBERED.get(route)
    if numbered is None:
        return failure(404, f"no route {path}")
    if not argument.isascii() or not argument.replace(".", "", 1).isdigit():
        return failure(400, f"/{route}/ takes a number, got {argument!r}")
    try:
        return numbered(float(argument) if route == "delay" else int(argument))
    except ValueError as exc:
        return failure(400, f"/{route}/{argument}: {exc}")


def failure(status: int, message: str, *, close: bool = False) -> Answer:
    """Make an error answer with a JSON body."""
    return Answer(status, json.dumps({"error": message}).encode(), close=close)


def has_body(method: str, status: int) -> bool:
    """Tell whether a response may carry a body (RFC 9110 section 6.4.1)."""
    return method != "HEAD" and status >= 200 and status not in (204, 304)


def reason(status: int) -> str:
    """Return the standard reason phrase, or "Unknown"."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def pattern(length: int) -> bytes:
    """Return the body that `/bytes/N`, `/chunked/N` and `/gzip/N` send, decoded.

    Args:
        length: bytes wanted.

    Returns:
        `length` bytes; byte i is i % 256.
    """
    whole, rest = divmod(length, BLOCK_SIZE)
    return _BLOCK * whole + _BLOCK[:rest]


def _pieces(length: int, size: int) -> Iterator[memoryview]:
    view = memoryview(_BLOCK)[:size]
    for _ in range(length // size):
        yield view
    if length % size:
        yield view[: length % size]


def _chunks(length: int) -> Iterator[bytes | memoryview]:
    for piece in _pieces(length, _CHUNK_SIZE):
        yield b"%x\r\n%b\r\n" % (len(piece), bytes(piece))
    yield b"0\r\n\r\n"


def _check_at_most(value: float, most: float) -> None:
    if value > most:
        raise ValueError(f"expected at most {most}")


# Routes without an argument


def _json(_: Request) -> Answer:
    return Answer(body=JSON_BODY)


def _close(_: Request) -> Answer:
    return Answer(body=JSON_BODY, close=True)


def _echo(request: Request) -> Answer:
    if request.body_length > MAX_KEPT:
        return failure(413, f"/echo takes at most {MAX_KEPT} bytes, got {request.body_length}")
    sent = {name.lower(): value for name, value in request.headers}
    content_type = sent.get(b"content-type", _BINARY.encode())
    return Answer(body=request.body, content_type=content_type.decode("latin-1"))


def _post(request: Request) -> Answer:
    return Answer(body=b'{"received":%d}' % request.body_length)


def _headers(request: Request) -> Answer:
    merged: dict[str, str] = {}
    for raw_name, raw_value in request.headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        merged[name] = f"{merged[name]}, {value}" if name in merged else value
    return Answer(body=json.dumps(merged).encode())


def _set_cookies(query: str) -> Answer:
    cookies = parse_qsl(query, keep_blank_values=True)
    if any(not (name + value).isprintable() or ";" in name + value for name, value in cookies):
        return failure(400, "a cookie holds a semicolon or a control character")
    headers = tuple(("Set-Cookie", f"{name}={value}; Path=/") for name, value in cookies)
    return Answer(body=json.dumps(dict(cookies)).encode(), headers=headers)


# Routes with a number


def _bytes(length: float) -> Answer:
    _check_at_most(length, MAX_BODY)
    size = int(length)
    if size <= BLOCK_SIZE:
        return Answer(body=_BLOCK[:size], content_type=_BINARY)
    return Answer(content_type=_BINARY, pieces=_pieces(size, BLOCK_SIZE), length=size)


def _chunked(length: float) -> Answer:
    _check_at_most(length, MAX_BODY)
    return Answer(content_type=_BINARY, pieces=_chunks(int(length)))


@functools.lru_cache(maxsize=8)
def _gzipped(length: int) -> bytes:
    return gzip.compress(pattern(length), compresslevel=zlib.Z_BEST_SPEED, mtime=0)


def _gzip(length: float) -> Answer:
    _check_at_most(length, MAX_KEPT)
    return Answer(body=_gzipped(int(length)), content_type=_BINARY, headers=(("Content-Encoding", "gzip"),))


def _redirect(count: float) -> Answer:
    _check_at_most(count, MAX_REDIRECTS)
    if count == 0:
        return Answer(body=JSON_BODY)
    return Answer(302, headers=(("Location", f"/redirect/{int(count) - 1}"),))


def _status(status: float) -> Answer:
    if not 200 <= status <= 599:
        raise ValueError("expected 200 to 599")
    return Answer(int(status), json.dumps({"status": int(status)}).encode())


def _delay(seconds: float) -> Answer:
    _check_at_most(seconds, MAX_DELAY)
    return Answer(body=JSON_BODY, delay=seconds)


_EXACT: Final[dict[str, Callable[[Request], Answer]]] = {
    "/json": _json,
    "/close": _close,
    "/echo": _echo,
    "/post": _post,
    "/headers": _headers,
}
_NUMBERED: Final[dict[str, Callable[[float], Answer]]] = {
    "bytes": _bytes,
    "chunked": _chunked,
    "gzip": _gzip,
    "redirect": _redirect,
    "status": _status,
    "delay": _delay,
}
