"""Requests from lines of text: a URL each, or a JSON object.

Nothing here raises for what a line holds: what is wrong with it is the line's `error`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..batch import Request

LINE_MAX = 16 * 2**20
"""Bytes of a line: a request with a large body fits, a file without line breaks does not fill the memory."""


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
    raise NotImplementedError
