"""The options of `wirespeed fetch`, as typer wants them, and values that typer has no type for."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from ..jobs.settings import is_header, is_method

ANY: Final = "any"
"""As a size: no bound."""
_UNITS: Final = {
    "": 1, "b": 1,
    "k": 2**10, "kb": 10**3, "kib": 2**10,
    "m": 2**20, "mb": 10**6, "mib": 2**20,
    "g": 2**30, "gb": 10**9, "gib": 2**30,
}  # fmt: skip
"""As the core utilities read them: 1 kB is 1000 bytes, 1 K and 1 KiB are 1024."""
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)

# Panels of the help.
_REQUESTS: Final = "Requests"
_TRAFFIC: Final = "Traffic"
_OUTPUT: Final = "Output"
_SCALE: Final = "Scale out"


def size(text: str) -> int | None:
    """Read a number of bytes, such as `500000`, `10MB`, `1.5GiB`.

    Returns:
        Bytes; None for `any`.

    Raises:
        typer.BadParameter: it is none.
    """
    if text.strip().lower() == ANY:
        return None
    match = _SIZE.fullmatch(text)
    unit = None if match is None else _UNITS.get(match[2].lower())
    if match is None or unit is None:
        raise typer.BadParameter(f"{text!r} is no size; write bytes, 500KB, 10MB, 1GiB, or {ANY}")
    return round(float(match[1]) * unit)


def headers(fields: list[str]) -> dict[str, str]:
    """Read header fields, each as it stands in a request: `Name: value`.

    Raises:
        typer.BadParameter: one of them is none, or a name comes twice.
    """
    found: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(":")
        value = value.strip()
        if not colon:
            raise typer.BadParameter(f"{field!r} has no colon; write 'Name: value'")
        if not is_header(name, ""):
            raise typer.BadParameter(f"{name!r} is no name of a header field")
        if not is_header(name, value):
            raise typer.BadParameter(f"the value of {name} has characters that no header field may have")
        if name.lower() in map(str.lower, found):
            raise typer.BadParameter(f"{name} is given twice; join its values by commas")
        found[name] = value
    return found


def method(text: str) -> str:
    """Read a method, such as `GET`; any case.

    Raises:
        typer.BadParameter: it is none.
    """
    if not is_method(text):
        raise typer.BadParameter(f"{text!r} is no method")
    return text.upper()


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Name the option whose value is read."""
    try:
        yield
    except typer.BadParameter as exc:
        exc.param_hint = option
        raise


def _rate(value: float | None) -> float | None:
    # NaN is not above 0 either.
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"{value:g} is not a number above 0")
    return value


def _timeout(value: float) -> float:
    if not 0 <= value < float("inf"):
        raise typer.BadParameter(f"{value:g} is not a number of seconds")
    return value


Input = Annotated[
    str,
    typer.Argument(
        metavar="INPUT",
        help="A file with a URL on each line, or a JSON object with url, and method, params, headers, json, "
        "data and id where wanted. - is the standard input.",
        show_default=False,
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="OUTPUT",
        help="A file of NDJSON; a .parquet file; a folder for the bodies, with a slash at the end; or -, "
        "NDJSON on the standard output, which cannot be resumed.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Method = Annotated[
    str,
    typer.Option(
        callback=method, metavar="METHOD", help="Of lines that say none.", rich_help_panel=_REQUESTS
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option(
        metavar="'NAME: VALUE'",
        help="A header field of all requests; that of a line goes before it. May be repeated.",
        rich_help_panel=_REQUESTS,
    ),
]
Dedup = Annotated[
    bool,
    typer.Option(
        "--dedup", help="Pass over requests that are the same as an earlier one.", rich_help_panel=_REQUESTS
    ),
]
Concurrency = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Requests under way at a time, in each worker.", rich_help_panel=_TRAFFIC
    ),
]
PerHost = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="Connections to one host, of each worker; 0 for any number.",
        rich_help_panel=_TRAFFIC,
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        callback=_rate,
        metavar="NUMBER",
        help="Requests per second of all workers together, further attempts included.",
        rich_help_panel=_TRAFFIC,
    ),
]
Retries = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="N",
        help="How often a request is sent again that failed in a way that may pass.",
        rich_help_panel=_TRAFFIC,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        callback=_timeout,
        metavar="SECONDS",
        help="For each attempt, with its body; 0 for no limit.",
        rich_help_panel=_TRAFFIC,
    ),
]
MaxBody = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help=f"Of a body, decoded: bytes, 500KB, 10MB, 1GiB, or {ANY}. A longer one is an error.",
        rich_help_panel=_TRAFFIC,
    ),
]
Ordered = Annotated[
    bool, typer.Option("--ordered", help="Records in the order of the input.", rich_help_panel=_OUTPUT)
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on where an earlier run has ended, however it did.", rich_help_panel=_OUTPUT
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as a JSON object.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar, no summary.", rich_help_panel=_OUTPUT)
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes that share the work; of Dask, how many of its workers.",
        rich_help_panel=_SCALE,
        show_default=False,
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="A Dask scheduler whose workers share the work, such as tcp://10.0.0.1:8786.",
        rich_help_panel=_SCALE,
        show_default=False,
    ),
]
