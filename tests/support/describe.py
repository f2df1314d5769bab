"""Turn what a client gave back into plain values that can be compared and printed.

Only what must differ between two runs is made equal: the servers' ports, the boundary of
a multipart body, the key of a websocket and the directory of a unix socket. Nothing else is forgiven here.
"""

import re
from collections.abc import Iterable, Mapping
from http.cookies import SimpleCookie
from typing import Any

import aiohttp
from multidict import MultiDict, MultiDictProxy
from yarl import URL

_BOUNDARY = re.compile(rb"boundary=([0-9a-f]{32})\b")
_WEBSOCKET_KEY = re.compile(rb"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{22}==")
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")

ERROR_ATTRIBUTES = (
    "status",
    "message",
    "errno",
    "strerror",
    "host",
    "port",
    "ssl",
    "path",
    "url",
    "description",
    "expected",
    "got",
)


class Normaliser:
    """Replace what differs from run to run by marks of the same meaning."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._marks = {actual: mark for actual, mark in names.items() if actual}
        self._patterns = [
            (re.compile(rf"(?<!\d){re.escape(actual)}(?!\d)"), mark) for actual, mark in self._marks.items()
        ]

    def text(self, value: str) -> str:
        for pattern, mark in self._patterns:
            value = pattern.sub(mark, value)
        return _ADDRESS.sub("0x", value)

    def wire(self, value: bytes) -> bytes:
        """Normalise the bytes that one connection received."""
        for actual, mark in self._marks.items():
            value = value.replace(actual.encode(), mark.encode())
        for boundary in set(_BOUNDARY.findall(value)):
            value = value.replace(boundary, b"B" * len(boundary))
        return _WEBSOCKET_KEY.sub(b"KEY", value)

    def value(self, value: Any) -> Any:
        """Describe any value a case returns, deeply."""
        match value:
            case int() if str(value) in self._marks:
                return self._marks[str(value)]
            case None | bool() | int() | float():
                return value
            case bytes() | bytearray():
                return self.wire(bytes(value))
            case str():
                return self.text(value)
            case URL():
                return f"URL({self.text(str(value))!r})"
            case BaseException():
                return self.error(value)
            case aiohttp.ClientResponse():
                return self.response(value)
            case SimpleCookie():
                return [self.text(morsel.OutputString()) for morsel in value.values()]
            case MultiDict() | MultiDictProxy():
                return [(name, self.value(item)) for name, item in value.items()]
            case Mapping():
                return {str(name): self.value(item) for name, item in value.items()}
            case aiohttp.HttpVersion():
                return f"HTTP/{value.major}.{value.minor}"
            case aiohttp.RequestInfo():
                return self.request_info(value)
            case list() | tuple() | set() | frozenset():
                return [self.value(item) for item in value]
            case type():
                return f"{value.__module__}.{value.__qualname__}"
        return self.text(repr(value))

    def response(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        """Describe a response by everything a caller can see of it."""
        attributes: dict[str, Any] = {
            "status": response.status,
            "reason": response.reason,
            "version": response.version,
            "headers": response.headers,
            "raw_headers": response.raw_headers,
            "cookies": response.cookies,
            "history": [(past.status, past.url, past.method, past.closed) for past in response.history],
            "url": response.url,
            "real_url": response.real_url,
            "method": response.method,
            "host": response.host,
            "ok": response.ok,
            "closed": response.closed,
            "connection": response.connection is None,
            "content_type": response.content_type,
            "charset": response.charset,
            "content_length": response.content_length,
            "request_info": response.request_info,
            "repr": repr(response),
            "body": getattr(response, "_body", None),
            "at_eof": response.content.at_eof(),
            "content_exception": response.content.exception(),
        }
        return {name: self.value(value) for name, value in attributes.items()}

    def request_info(self, info: aiohttp.RequestInfo) -> dict[str, Any]:
        return {
            "url": self.value(info.url),
            "method": info.method,
            "headers": self.boundary_free(self.value(info.headers)),
            "real_url": self.value(info.real_url),
        }

    def boundary_free(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [
            (name, self.wire(value.encode("utf-8", "surrogatepass")).decode("utf-8", "replace"))
            for name, value in headers
        ]

    def error(self, exc: BaseException) -> dict[str, Any]:
        """Describe an exception: class, message, what it carries, and its cause."""
        described: dict[str, Any] = {
            "type": f"{type(exc).__module__}.{type(exc).__qualname__}",
            "str": self.text(str(exc)),
            "args": self._arguments(exc),
            "cause": self._cause(exc),
        }
        for name in ERROR_ATTRIBUTES:
            if hasattr(exc, name):
                described[name] = self.value(getattr(exc, name))
        for name in ("headers", "request_info", "history", "os_error"):
            if (carried := getattr(exc, name, None)) is not None:
                described[name] = self._carried(name, carried)
        return described

    def _carried(self, name: str, carried: Any) -> Any:
        if name == "history":
            return [(past.status, self.value(past.url)) for past in carried]
        if name == "os_error":
            return self.value([type(carried), carried.errno, str(carried)])
        return self.value(carried)

    def _arguments(self, exc: BaseException) -> Any:
        if isinstance(exc, aiohttp.ClientResponseError):
            return "request_info, history"
        return [self.value(item) for item in exc.args]

    def _cause(self, exc: BaseException) -> Any:
        cause = exc.__cause__
        return None if cause is None else f"{type(cause).__module__}.{type(cause).__qualname__}"
