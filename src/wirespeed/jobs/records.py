"""Records: what the output says of a line, as one line of JSON; and back.

    {"line": 7, "id": ..., "method": "GET", "url": ..., "status": 200, "attempts": 1, "elapsed": 0.012,
     "size": 11, "error": {"type": ..., "message": ...}, "final_url": ..., "headers": {...}, "body": ...}

`size` is of the body, in bytes. `body` is text that encodes back to the bytes that came, in the charset of
the Content-Type; other bodies are in `body_base64`, those in a directory are named by `body_file`. A header
that came more than once has a list of values. There is an `id` where the line has one, an `error` where there
is one, and a `final_url` where it is another than asked for.
"""

import functools
import json
from base64 import b64decode, b64encode
from json.encoder import encode_basestring
from typing import Any

from aiohttp.helpers import parse_mimetype

from ..batch import Result
from .lines import Line
from .summary import BAD_LINE

BLOCKS_MAX = 128
"""Heads of responses of which the JSON is remembered; at 32 KB, an unusual size, they take 8 MB."""
HEADERS = ',"headers":'
"""What the figures of a record come before, and its headers and body after."""
_START = b'{"line":'
_MIDDLE = HEADERS.encode()
_UTF_8 = "utf-8"
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def encode(line: Line, result: Result, body_file: str | None = None) -> bytes:
    """The record of a result, with its line break.

    Args:
        line: what the request came from.
        result: what became of it.
        body_file: name of the file that has the body; None for a body in the record.
    """
    request, error, body = line.request, result.error, result.body
    assert request is not None, "a line that is no request has no result"
    headers, content_type = _headers(result.header_block)
    asked = request.url if isinstance(request.url, str) else str(request.url)
    more = ""
    if error is not None:
        more = _error(type(error).__name__, str(error))
    elif (url := str(result.url)) != asked and url != f"{asked}/":
        more = f',"final_url":{encode_basestring(url)}'
    if body_file is not None:
        content = f'"body_file":{encode_basestring(body_file)}'
    else:
        content = _content(body, content_type) if body else '"body":""'
    status = "null" if result.status is None else result.status
    return _finish(
        f'{{"line":{line.number}{_id(request.id)},"method":{encode_basestring(request.method)},'
        f'"url":{encode_basestring(asked)},"status":{status},"attempts":{result.attempts},'
        f'"elapsed":{result.elapsed:.6f},"size":{len(body)}{more}{HEADERS}{headers},{content}}}\n'
    )


def encode_bad(line: Line, kind: str = BAD_LINE) -> bytes:
    """The record of a line without a result; its `error` says why.

    Args:
        line: the line.
        kind: the class of the error.
    """
    request = line.request
    what = '"method":null,"url":null'
    if request is not None:
        what = f'"method":{encode_basestring(request.method)},"url":{encode_basestring(str(request.url))}'
    return _finish(
        f'{{"line":{line.number}{_id(request and request.id)},{what},"status":null,"attempts":0,'
        f'"elapsed":0.0,"size":0{_error(kind, line.error or "")}{HEADERS}{{}},"body":""}}\n'
    )


def _id(given: Any) -> str:
    return "" if given is None else f',"id":{_dumps(given)}'


def _error(kind: str, message: str) -> str:
    # Some exceptions say nothing more than their class.
    return f',"error":{_dumps({"type": kind, "message": message or kind})}'


def _finish(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate, of an escape in the input or of a header's bytes: it stays an escape.
        return json.dumps(json.loads(text), separators=(",", ":")).encode("ascii") + b"\n"


# Headers


@functools.lru_cache(maxsize=BLOCKS_MAX)
def _headers(block: bytes) -> tuple[str, str | None]:
    """The JSON of header fields, and the Content-Type among them.

    Remembered, for most answers of a server within a second have the same; else it takes as long as all the
    rest of a record.
    """
    found: dict[str, tuple[str, list[str]]] = {}
    for line in block.decode("utf-8", "surrogateescape").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        # By the name as it came first, in whatever case it comes again.
        found.setdefault(name.lower(), (name, []))[1].append(value.strip(" \t"))
    fields = {name: values if len(values) > 1 else values[0] for name, values in found.values()}
    content_type = found.get("content-type")
    return _dumps(fields), None if content_type is None else content_type[1][0]


# Bodies


def _content(body: bytes, content_type: str | None) -> str:
    charset = charset_of(content_type)
    try:
        text = body.decode(charset)
        if charset == _UTF_8 or text.encode(charset) == body:
            return f'"body":{encode_basestring(text)}'
    except Exception:
        # Codecs named by a peer may raise anything.
        pass
    return f'"body_base64":"{b64encode(body).decode("ascii")}"'


@functools.lru_cache(maxsize=256)
def charset_of(content_type: str | None) -> str:
    """The charset that a Content-Type says; UTF-8 where it says none that we know."""
    charset = parse_mimetype(content_type or "").parameters.get("charset", _UTF_8)
    try:
        # Nobody looks for the codec of no bytes at all.
        b"\0\0\0\0".decode(charset, "ignore")
    except (LookupError, ValueError):
        return _UTF_8
    return _UTF_8 if charset.lower() in ("utf-8", "utf8") else charset


def body_of(record: dict[str, Any]) -> bytes:
    """The body that a record has, as it came; b"" where it has none."""
    coded = record.get("body_base64")
    if coded is not None:
        return b64decode(coded)
    text: str = record.get("body", "")
    return text.encode(charset_of(content_type_of(record))) if text else b""


def content_type_of(record: dict[str, Any]) -> str | None:
    """The Content-Type of a record's response."""
    for name, value in record["headers"].items():
        if name.lower() == "content-type":
            return value if isinstance(value, str) else value[0]
    return None


# Back


def decode(raw: bytes) -> dict[str, Any] | None:
    """A record; None where that is none."""
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("line"), int) else None


def decode_figures(raw: bytes) -> dict[str, Any] | None:
    """A record without its headers and its body, in a quarter of the time; None where that is none."""
    # What a power cut leaves behind may be as long as it should be, and zero.
    if not raw.endswith(b"}\n") or b"\0" in raw:
        return None
    # In a string the quote would have a backslash; in an object that is an `id` the rest is no JSON.
    record = decode(raw[: raw.find(_MIDDLE)] + b"}")
    return record if record is not None else decode(raw)


def number_of(raw: bytes) -> int:
    """The line number of what `encode` has made, without decoding the whole."""
    return int(raw[len(_START) : raw.index(b",", len(_START))])
