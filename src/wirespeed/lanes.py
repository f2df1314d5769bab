"""Which lane a request takes, and the named reason when it is the full one.

The guard looks at each call whether somebody replaced a method of aiohttp that the express
lane goes around: mocks, recorders and tracers work by patching, and a request that went
past a mock would reach the real network.
"""

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import connector as _connector
from aiohttp import hdrs

from ._switch import NATIVE

if TYPE_CHECKING:
    from .client import ClientSession


class LaneReason(enum.Enum):
    """Why a request runs on aiohttp's own code instead of the core."""

    NO_EXTENSION = "no extension"
    PATCHED = "aiohttp is patched"
    FOREIGN_CONNECTOR = "foreign connector"
    CUSTOM_CLASS = "custom request or response class"
    TRACING = "trace_configs"
    MIDDLEWARES = "middlewares"
    PROXY = "proxy"
    TRUST_ENV = "trust_env"
    EXPECT_100 = "expect100"
    UPGRADE = "protocol upgrade"
    CONNECT = "CONNECT method"
    UPLOAD_TRACKER = "upload_tracker"
    OPTION = "an option only aiohttp implements"


# What the express lane takes; everything else is the full lane's, unknown names included:
# aiohttp then raises its own TypeError.
EXPRESS_OPTIONS = frozenset(
    {
        "allow_redirects", "auth", "auto_decompress", "chunked", "compress", "cookies", "data", "headers",
        "json", "max_field_size", "max_headers", "max_line_size", "max_redirects", "params",
        "raise_for_status", "read_bufsize", "server_hostname", "skip_auto_headers", "ssl", "timeout",
    }
)  # fmt: skip

# Options that are the full lane's unless they have the value named here.
_NEUTRAL: dict[str, tuple[Any, LaneReason]] = {
    "proxy": (None, LaneReason.PROXY),
    "proxy_auth": (None, LaneReason.PROXY),
    "proxy_headers": (None, LaneReason.PROXY),
    "expect100": (False, LaneReason.EXPECT_100),
    "middlewares": (None, LaneReason.MIDDLEWARES),
    "upload_tracker": (None, LaneReason.UPLOAD_TRACKER),
    "trace_request_ctx": (None, LaneReason.TRACING),
    "read_until_eof": (True, LaneReason.OPTION),
    "verify_ssl": (None, LaneReason.OPTION),
    "fingerprint": (None, LaneReason.OPTION),
    "ssl_context": (None, LaneReason.OPTION),
}

_COMMON_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TELLING_LENGTHS = frozenset({len("expect"), len("upgrade")})

# The methods that tools patch, as they were when this module was imported.
_WATCHED: tuple[tuple[Mapping[str, Any], str, Any], ...] = tuple(
    (owner.__dict__, name, owner.__dict__[name])
    for owner, names in (
        (aiohttp.ClientSession, ("_request", "__init__")),
        (aiohttp.ClientRequest, ("__init__", "send", "is_ssl")),
        (aiohttp.ClientResponse, ("start", "read")),
        (aiohttp.TCPConnector, ("_resolve_host", "_create_connection", "_wrap_create_connection")),
        (_connector.BaseConnector, ("connect",)),
    )
    for name in names
)

if NATIVE:
    from .connector import PooledConnector
    from .response import ClientResponse

    def lane_reason(
        session: "ClientSession", method: str, options: Mapping[str, Any]
    ) -> LaneReason | None:
        """Name the reason for the full lane, or None: the express lane takes the request.

        Args:
            session: the session; its attributes are read at each call, since tools assign them.
            method: the request's method.
            options: the keyword arguments of the request.
        """
        for members, name, original in _WATCHED:
            if members[name] is not original:
                return LaneReason.PATCHED
        connector = session._connector
        if type(connector) not in _CHECKED and connector is not None and not _is_ours(connector):
            return LaneReason.FOREIGN_CONNECTOR
        if session._trace_configs:
            return LaneReason.TRACING
        if session._middlewares:
            return LaneReason.MIDDLEWARES
        if session._trust_env:
            return LaneReason.TRUST_ENV
        if session._default_proxy is not None:
            return LaneReason.PROXY
        if session._response_class is not ClientResponse or session._request_class is not aiohttp.ClientRequest:
            return LaneReason.CUSTOM_CLASS
        if method not in _COMMON_METHODS and method.upper() == hdrs.METH_CONNECT:
            return LaneReason.CONNECT
        if options:
            if not options.keys() <= EXPRESS_OPTIONS and (reason := _reason_of_options(options)):
                return reason
            if headers := options.get("headers"):
                return _reason_of_headers(headers)
        if session._default_headers:
            return _reason_of_headers(session._default_headers)
        return None

    # Connector classes found to leave the pool's interface alone.
    _CHECKED: set[type] = set()

    def _is_ours(connector: Any) -> bool:
        """A connector of ours; a subclass counts unless it replaces what the express lane goes around."""
        cls = type(connector)
        if not isinstance(connector, PooledConnector) or connector.__dict__.get("connect") is not None:
            return False
        if cls.connect is not PooledConnector.connect or cls._release is not PooledConnector._release:
            return False
        _CHECKED.add(cls)
        return True

else:

    def lane_reason(
        session: "ClientSession", method: str, options: Mapping[str, Any]
    ) -> LaneReason | None:
        """Without the extension every request is aiohttp's."""
        return LaneReason.NO_EXTENSION


def _reason_of_options(options: Mapping[str, Any]) -> LaneReason | None:
    for name in options.keys() - EXPRESS_OPTIONS:
        neutral = _NEUTRAL.get(name)
        if neutral is None:
            return LaneReason.OPTION
        value, reason = neutral
        if options[name] is not value:
            return reason
    return None


def _reason_of_headers(headers: Any) -> LaneReason | None:
    """A request that changes the protocol, or waits before its body, is aiohttp's."""
    for item in headers:
        name = item if isinstance(item, str) else item[0]
        if isinstance(name, str) and len(name) in _TELLING_LENGTHS:
            lower = name.lower()
            if lower == "upgrade":
                return LaneReason.UPGRADE
            if lower == "expect":
                return LaneReason.EXPECT_100
    return None


class LaneStats:
    """Requests of one session, by lane and reason."""

    __slots__ = ("express", "full")

    def __init__(self) -> None:
        self.express = 0
        self.full: dict[LaneReason, int] = {}

    def count_full(self, reason: LaneReason) -> None:
        self.full[reason] = self.full.get(reason, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        return {"express": self.express, "full": {r.value: n for r, n in self.full.items()}}
