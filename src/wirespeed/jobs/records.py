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

_START = b'{"line":'
_UTF_8 = "utf-8"
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def encode(line: Line, result: Result, body_file: str | None = None) -> bytes:
    """The record of a result, with its line break.

    Args:
        line: what the request came from.
        result: what became of it.
        body_file: name of the file that has the body; None for a body in the record.
    """
    headers = result.headers
    fields = dict(headers)
    if len(fields) != len(headers):
        fields = _collected(headers)
    body = result.body
    if body_file is not None:
        content = f'"body_file":{encode_basestring(body_file)}'
    elif body:
        content = _content(body, headers.get("Content-Type"))
    else:
        content = '"body":""'
    status = "null" if result.status is None else result.status
    return _finish(
        f'{_opening(line)},"status":{status},"attempts":{result.attempts},"elapsed":{result.elapsed:.6f},'
        f'"size":{len(body)}{_optional(line, result)},"headers":{_dumps(fields)},{content}}}\n'
    )


def encode_bad(line: Line, kind: str = BAD_LINE) -> bytes:
    """The record of a line without a result; its `error` says why.

    Args:
        line: the line.
        kind: the class of the error.
    """
    error = _dumps({"type": kind, "message": line.error})
    return _finish(
        f'{_opening(line)},"status":null,"attempts":0,"elapsed":0.0,"size":0,"error":{error},'
        f'"headers":{{}},"body":""}}\n'
    )


def _opening(line: Line) -> str:
    request = line.request
    if request is None:
        return f'{{"line":{line.number},"method":null,"url":null'
    given = f',"id":{_dumps(request.id)}' if request.id is not None else ""
    method, url = encode_basestring(request.method), encode_basestring(str(request.url))
    return f'{{"line":{line.number}{given},"method":{method},"url":{url}'


def _optional(line: Line, result: Result) -> str:
    error = result.error
    if error is not None:
        # Some say nothing more than their class.
        message = str(error) or type(error).__name__
        return f',"error":{_dumps({"type": type(error).__name__, "message": message})}'
    url, asked = str(result.url), line.request and str(line.request.url)
    if url == asked or url == f"{asked}/":
        return ""
    return f',"final_url":{encode_basestring(url)}'


def _finish(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # A lone surrogate, of an escape in the input or of a header's bytes: it stays an escape.
        return json.dumps(json.loads(text), separators=(",", ":")).encode("ascii") + b"\n"


def _collected(headers: Any) -> dict[str, Any]:
    """Fields by name; a list of values where a name came more than once, in whatever case."""
    fields: dict[str, Any] = {}
    for name in headers:
        values = headers.getall(name)
        if len(values) == 1:
            fields[name] = values[0]
        elif not any(known.lower() == name.lower() for known in fields):
            fields[name] = values
    return fields


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
        b"".decode(charset)
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


def number_of(raw: bytes) -> int:
    """The line number of what `encode` has made, without decoding the whole."""
    return int(raw[len(_START) : raw.index(b",", len(_START))])
