"""Requests from lines of text: a URL each, or a JSON object.

Nothing here raises for what a line holds: what is wrong with it is the line's `error`.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ..batch import Request
from .settings import is_header, is_token

LINE_MAX = 16 * 2**20
"""Bytes of a line: a request with a large body fits, a file without line breaks does not fill the memory."""
_DIGEST_SIZE = 12
"""Bytes of a request's digest: among 10**9 requests there are two with the same by a chance of 10**-11."""
_SHOWN_MAX = 80
_URL = re.compile(r"(?i:https?)://[^\s/?#:]")
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
_WEB = ("http", "https")


@dataclass(slots=True)
class Line:
    """A line of the input.

    Attributes:
        number: of the line in the input, from 1.
        request: what it asks for; None where it cannot be understood.
        error: why it cannot; None where it can.
    """

    number: int
    request: Request | None
    error: str | None = None


class _Bad(Exception):
    """What is wrong with a line."""


def read(stream: Iterable[bytes], *, method: str = "GET", dedup: bool = False) -> Iterator[Line]:
    """Read requests, one at a time.

    A line is a URL, or a JSON object with `url` and any of `method`, `params`, `headers`, `json`, `data` and
    `id`. Blank lines and lines that start with # are passed over, and count.

    Args:
        stream: a binary file, or other lines of bytes.
        method: where a line says none.
        dedup: pass over requests that are the same as an earlier one, whatever their ids. It takes about 80
            bytes of memory for each request.
    """
    lines = _read(stream, method)
    return unique(lines) if dedup else lines


def _read(stream: Iterable[bytes], method: str) -> Iterator[Line]:
    for number, raw in enumerate(_bounded(stream), 1):
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        raw = raw.strip()
        if not raw or raw[0] == 0x23:  # "#"
            continue
        try:
            line = Line(number, _request(raw, method))
        except _Bad as exc:
            line = Line(number, None, str(exc))
        yield line


def unique(lines: Iterable[Line]) -> Iterator[Line]:
    """Lines whose request is not the same as an earlier one; all those without a request."""
    seen: set[bytes] = set()
    for line in lines:
        if line.request is not None:
            digest = _digest(line.request)
            if digest in seen:
                continue
            seen.add(digest)
        yield line


def _bounded(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The lines, those that are too long cut down to one byte more than they may have."""
    readline: Callable[[int], bytes] | None = getattr(stream, "readline", None)
    if readline is None:
        yield from stream
        return
    while raw := readline(LINE_MAX + 1):
        yield raw
        while len(raw) > LINE_MAX and raw[-1] != 0x0A:
            raw = readline(LINE_MAX + 1)
            if not raw:
                return


def _request(raw: bytes, method: str) -> Request:
    if len(raw) > LINE_MAX:
        raise _Bad(f"the line is longer than {LINE_MAX} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise _Bad(f"not UTF-8: byte {exc.object[exc.start]:#04x} at {exc.start + 1}") from None
    if text[0] == "{":
        return _described(text, method)
    if _URL.match(text) is None:
        raise _Bad(_trouble(text))
    return Request(method, text)


def _trouble(url: str) -> str:
    """What is wrong with something that is no URL of ours."""
    scheme = _SCHEME.match(url)
    shown = repr(url if len(url) <= _SHOWN_MAX else url[:_SHOWN_MAX] + "...")
    if scheme is None or not url.startswith("//", scheme.end()):
        return f"no URL with http:// or https://, and no JSON object: {shown}"
    if scheme[1].lower() not in _WEB:
        return f"unsupported scheme {scheme[1]!r}: {shown}"
    return f"no host: {shown}"


# JSON


def _described(text: str, method: str) -> Request:
    try:
        given = json.loads(text)
    except RecursionError:
        raise _Bad("bad JSON: too deep") from None
    except ValueError as exc:
        raise _Bad(f"bad JSON: {exc}") from None
    for name in given:
        if name not in _CHECKS:
            raise _Bad(f"unknown key {name!r:.{_SHOWN_MAX}}; there are {', '.join(_CHECKS)}")
    if given.get("url") is None:
        raise _Bad("there is no url")
    for name, value in given.items():
        if value is not None:
            _CHECKS[name](name, value)
    if given.get("json") is not None and given.get("data") is not None:
        raise _Bad("json and data exclude each other")
    given["method"] = (given.get("method") or method).upper()
    return Request(**given)


def _check_url(name: str, value: Any) -> None:
    _expect(name, value, isinstance(value, str), "a string")
    if _URL.match(value) is None:
        raise _Bad(_trouble(value))


def _check_method(name: str, value: Any) -> None:
    _expect(name, value, isinstance(value, str) and is_token(value), "an HTTP method")


def _check_params(name: str, value: Any) -> None:
    if isinstance(value, list):
        _expect(name, value, all(isinstance(pair, list) and len(pair) == 2 for pair in value), _PAIRS)
        pairs = value
    else:
        _expect(name, value, isinstance(value, str | dict), _PAIRS)
        pairs = list(value.items()) if isinstance(value, dict) else []
    for key, item in pairs:
        items = item if isinstance(item, list) and isinstance(value, dict) else [item]
        is_right = isinstance(key, str) and all(_is_plain(each) for each in items)
        _expect(f"{name}[{key!r}]", item, is_right, "a string or a number, or in an object a list of them")


def _check_headers(name: str, value: Any) -> None:
    _expect(name, value, isinstance(value, dict), "an object")
    for key, item in value.items():
        _expect(f"{name}[{key!r}]", item, is_header(key, item), "the name and the value of a header field")


def _check_data(name: str, value: Any) -> None:
    _expect(name, value, isinstance(value, str | dict), "a string, or an object that is a form")
    if isinstance(value, dict):
        for key, item in value.items():
            _expect(f"{name}[{key!r}]", item, isinstance(item, str), "a string")


def _check_nothing(name: str, value: Any) -> None:
    pass


_PAIRS = "a string, an object or a list of pairs"
_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "method": _check_method,
    "url": _check_url,
    "params": _check_params,
    "headers": _check_headers,
    "json": _check_nothing,
    "data": _check_data,
    "id": _check_nothing,
}


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _expect(name: str, value: Any, is_right: bool, what: str) -> None:
    if not is_right:
        shown = json.dumps(value)
        shown = shown if len(shown) <= _SHOWN_MAX else shown[:_SHOWN_MAX] + "..."
        raise _Bad(f"{name} must be {what}, not {shown}")


def _digest(request: Request) -> bytes:
    """Of what is sent, short enough to keep for all requests."""
    what = [request.method, str(request.url), request.params, request.headers, request.json, request.data]
    # A lone surrogate has no UTF-8, but a \u in ASCII.
    try:
        text = json.dumps(what, sort_keys=True, default=str)
    except (TypeError, ValueError):
        # Of a program's own making: keys of several types, or a circle.
        text = ascii(what)
    return blake2b(text.encode("ascii"), digest_size=_DIGEST_SIZE).digest()
