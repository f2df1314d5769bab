"""Lines, results and records as tests want them."""

from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from wirespeed.batch import Request, Result
from wirespeed.jobs.lines import Line
from wirespeed.jobs.records import encode


def line(number: int = 1, url: str = "http://host/", **options: Any) -> Line:
    return Line(number, Request(options.pop("method", "GET"), url, **options))


def result(
    given: Line,
    status: int | None = 200,
    body: bytes = b"",
    headers: Any = (),
    *,
    url: str | None = None,
    **facts: Any,
) -> Result:
    fields = CIMultiDictProxy(CIMultiDict(headers))
    real = None if url is None else URL(url)
    return Result(given.request, 0, status=status, body=body, headers=fields, url=real, **facts)


def record(number: int, status: int = 200, body: bytes = b"body", **facts: Any) -> bytes:
    """A record as parts hold it."""
    given = line(number, f"http://host/{number}")
    return encode(given, result(given, status, body, **facts))
