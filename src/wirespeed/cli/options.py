"""Values of options that typer has no type for: sizes, header fields, methods. Says what is wrong with them."""

import re
from typing import Final

import typer

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
# RFC 9110, section 5.6.2: what names of fields and methods are made of.
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Section 5.5: visible characters, blanks and tabs; what ends a line would start another field.
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


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
        if not _TOKEN.fullmatch(name):
            raise typer.BadParameter(f"{name!r} is no name of a header field")
        if not _VALUE.fullmatch(value):
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
    if not _TOKEN.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no method")
    return text.upper()


def positive(value: float | None) -> float | None:
    """Check a number that must be above 0 and finite.

    Raises:
        typer.BadParameter: it is not.
    """
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"{value:g} is not a number above 0")
    return value
