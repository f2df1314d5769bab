"""Records: what the output says of a line, as one line of JSON; and back.

    {"line": 7, "id": ..., "method": "GET", "url": ..., "status": 200, "attempts": 1, "elapsed": 0.012, "size": 11,
     "headers": {...}, "body": ... | "body_base64": ... | "body_file": ..., "error": {"type", "message"}, "final_url": ...}

`size` is of the body in bytes. `body` is text that encodes back to the bytes that came, in the charset of
the Content-Type; other bodies are in `body_base64`. A header that came more than once has a list.
"""

from typing import Any

from ..batch import Result
from .lines import Line


def encode(line: Line, result: Result, body_file: str | None = None) -> bytes:
    """The record of a result, with its line break.

    Args:
        line: what the request came from.
        result: what became of it.
        body_file: name of the file that has the body; None for a body in the record.
    """
    raise NotImplementedError


def encode_bad(line: Line, kind: str = "BadLine") -> bytes:
    """The record of a line without a result; its `error` says why. `kind` is the class of the error."""
    raise NotImplementedError


def decode(raw: bytes) -> dict[str, Any] | None:
    """A record; None where that is none."""
    raise NotImplementedError


def body_of(record: dict[str, Any]) -> bytes:
    """The body that a record has, as it came; b"" where it has none."""
    raise NotImplementedError


def number_of(raw: bytes) -> int:
    """The line number of what `encode` has made, without decoding the whole."""
    raise NotImplementedError
