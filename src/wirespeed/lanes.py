"""Which lane a request takes, and the named reason when it is the full one.

The guard looks at each call whether somebody replaced a method of aiohttp that the express
lane goes around: mocks, recorders and tracers work by patching, and a request that went
past a mock would reach the real network.
"""

import enum
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import connector as _connector
from aiohttp import hdrs

from ._switch import NATIVE


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
        "fingerprint", "ssl_context", "verify_ssl",
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
}

_COMMON_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_TELLING_LENGTHS = frozenset({len("expect"), len("upgrade")})

# The methods that tools patch; the class attribute as it is in aiohttp's source, or none.
_PATCHED_BY_TOOLS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (aiohttp.ClientSession, ("_request", "__init__")),
    (aiohttp.ClientRequest, ("__init__", "send", "is_ssl")),
    (aiohttp.ClientResponse, ("start", "read")),
    (aiohttp.TCPConnector, ("connect", "_resolve_host", "_create_connection", "_wrap_create_connection")),
    (aiohttp.UnixConnector, ("connect", "_create_connection")),
    (_connector.BaseConnector, ("connect",)),
)
_NEVER = object()


def _is_aiohttps_own(member: Any) -> bool:
    """Whether a method is aiohttp's, not one that a tool put there before this module was imported."""
    home = getattr(member, "__globals__", {}).get("__name__", "")
    return home.startswith("aiohttp.") and not hasattr(member, "__wrapped__")


_WATCHED: tuple[tuple[Mapping[str, Any], str, Any], ...] = tuple(
    (owner.__dict__, name, member if member is None or _is_aiohttps_own(member) else _NEVER)
    for owner, names in _PATCHED_BY_TOOLS
    for name in names
    for member in (owner.__dict__.get(name),)
)

if NATIVE:
    from .connector import PooledConnector
    from .response import ClientResponse

    def lane_reason(
        session: aiohttp.ClientSession, method: str, options: Mapping[str, Any]
    ) -> LaneReason | None:
        """Name the reason for the full lane, or None: the express lane takes the request.

        Args:
            session: the session; its attributes are read at each call, since tools assign them.
            method: the request's method.
            options: the keyword arguments of the request.
        """
        for members, name, original in _WATCHED:
            if members.get(name) is not original:
                return LaneReason.PATCHED
        connector = session._connector
        if connector is not None and not _is_ours(connector):
            return LaneReason.FOREIGN_CONNECTOR
        if session._trace_configs:
            return LaneReason.TRACING
        if session._middlewares:
            return LaneReason.MIDDLEWARES
        if session._trust_env:
            return LaneReason.TRUST_ENV
        if session._default_proxy is not None:
            return LaneReason.PROXY
        if (
            session._response_class is not ClientResponse
            or session._request_class is not aiohttp.ClientRequest
        ):
            return LaneReason.CUSTOM_CLASS
        if method not in _COMMON_METHODS and method.upper() == hdrs.METH_CONNECT:
            return LaneReason.CONNECT
        if options:
            if not options.keys() <= EXPRESS_OPTIONS and (reason := _reason_of_options(options)):
                return reason
            if (headers := options.get("headers")) and (reason := _reason_of_headers(headers)):
                return reason
        if session._default_headers:
            return _reason_of_headers(session._default_headers)
        return None

    _CONNECT, _RELEASE = PooledConnector.connect, PooledConnector._release

    def _is_ours(connector: Any) -> bool:
        """A connector of ours, or of a subclass that leaves alone what the express lane goes around."""
        cls = type(connector)
        return (
            isinstance(connector, PooledConnector)
            and cls.connect is _CONNECT
            and cls._release is _RELEASE
            and "connect" not in connector.__dict__
        )

else:

    def lane_reason(
        session: aiohttp.ClientSession, method: str, options: Mapping[str, Any]
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
    if not isinstance(headers, Mapping | list | tuple):
        # An iterator can be looked at once, and that is aiohttp's to do.
        return LaneReason.OPTION
    for item in headers:
        name = item[0] if isinstance(item, tuple | list) and item else item
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
