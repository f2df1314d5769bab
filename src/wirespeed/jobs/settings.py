"""How the requests of a job are sent: what every process that sends some of them has to know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..batch.api import MAX_BODY

TIMEOUT = 300.0
"""Seconds for a request in all, as aiohttp's default."""
_METHOD_MARKS = frozenset("!#$%&'*+-.^_`|~")


@dataclass(frozen=True)
class Settings:
    """How requests are sent; picklable.

    Args:
        concurrency: requests under way at the same time, at most.
        rate: requests per second, further attempts included; None for no limit.
        retries: how often a request is sent again, at most.
        timeout: seconds for each attempt in all; 0 for no limit.
        max_body: bytes that a body may have, decoded; None for any number.
        per_host: connections to one host at the same time, at most; 0 for no limit.
        headers: of all requests; those of a line go before them.
        method: of lines that are only a URL, or say no method.

    Raises:
        ValueError, TypeError: a value is none; the message names it.
    """

    concurrency: int = 100
    rate: float | None = None
    retries: int = 0
    timeout: float = TIMEOUT
    max_body: int | None = MAX_BODY
    per_host: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"

    def __post_init__(self) -> None:
        _whole("concurrency", self.concurrency, 1)
        _whole("retries", self.retries, 0)
        _whole("per_host", self.per_host, 0)
        if self.max_body is not None:
            _whole("max_body", self.max_body, 0)
        if self.rate is not None and not _number("rate", self.rate) > 0:
            raise ValueError(f"rate must be above 0, not {self.rate}")
        if not _number("timeout", self.timeout) >= 0:
            raise ValueError(f"timeout must not be negative, but is {self.timeout}")
        if not is_method(self.method):
            raise ValueError(f"method must be an HTTP method, not {self.method!r}")
        for name, value in self.headers.items():
            if not is_header(name, value):
                raise ValueError(
                    f"headers must be names and values of HTTP header fields, not {name!r}: {value!r}"
                )
        # Of its own, and of a kind that can be pickled.
        object.__setattr__(self, "headers", dict(self.headers))
        object.__setattr__(self, "method", self.method.upper())


def is_method(value: Any) -> bool:
    """Whether it is a token, as the methods of RFC 9110 section 9.1 are."""
    return isinstance(value, str) and is_token(value)


def is_token(text: str) -> bool:
    """Whether it is a token of RFC 9110 section 5.6.2."""
    return bool(text) and all((c.isascii() and c.isalnum()) or c in _METHOD_MARKS for c in text)


def is_header(name: Any, value: Any) -> bool:
    """Whether they are name and value of a field that can be sent."""
    if not isinstance(name, str) or not isinstance(value, str) or not is_token(name):
        return False
    return not any(c in value for c in "\r\n\0")


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{name} must be a number, not {value}")
    return value
