"""Which lane a request takes, and the named reason when it is the full one.

The guard looks at each call whether somebody replaced a method of aiohttp that the express
lane goes around: mocks, recorders and tracers work by patching, and a request that went
past a mock would reach the real network.
"""

import dataclasses
import enum
import logging
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import aiohttp
from aiohttp import connector as _connector
from aiohttp import hdrs
from yarl import URL

from ._switch import NATIVE

_logger = logging.getLogger("wirespeed")


class LaneReason(enum.Enum):
    """Why a request runs on aiohttp's own code instead of the core."""

    NO_EXTENSION = "no extension"
    PATCHED = "aiohttp is patched"
    FOREIGN_CONNECTOR = "foreign connector"
    CUSTOM_CLASS = "custom request or response class"
    PROXY = "proxy"
    TRUST_ENV = "trust_env"
    UPGRADE = "protocol upgrade"
    CONNECT = "CONNECT method"
    OPTION = "an option only aiohttp implements"

    @property
    def remedy(self) -> str:
        """What to change so that the express lane takes the request."""
        return _REMEDIES[self]


_REMEDIES = {
    LaneReason.NO_EXTENSION: "install a wheel of wirespeed, or a C compiler; unset WIRESPEED_NO_EXTENSIONS",
    LaneReason.PATCHED: "the tool that patched it must see the request: take it away, or use one that works "
    "through trace_configs or middlewares",
    LaneReason.FOREIGN_CONNECTOR: "use wirespeed.TCPConnector or UnixConnector, or derive from them without "
    "replacing connect() and _release(); make it after wirespeed.install()",
    LaneReason.CUSTOM_CLASS: "leave out request_class and response_class",
    LaneReason.PROXY: "requests through a proxy are aiohttp's",
    LaneReason.TRUST_ENV: "leave out trust_env=True, and name proxies and credentials where they are needed",
    LaneReason.UPGRADE: "websockets and other protocols are aiohttp's",
    LaneReason.CONNECT: "tunnels are aiohttp's",
    LaneReason.OPTION: "leave out the option",
}


class FullLaneError(RuntimeError):
    """A request of a session with `strict_native=True` would have run on aiohttp's own code.

    Nothing was sent. `reason` is the LaneReason.
    """

    def __init__(self, message: str, reason: LaneReason) -> None:
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Which lane a request would take; `str()` of it is a sentence."""

    lane: Literal["express", "full"]
    reason: LaneReason | None = None
    """Why it is the full lane; None for the express lane."""
    detail: str = ""
    """What exactly was found: the option, the class, the patched method."""

    @property
    def remedy(self) -> str:
        """What to change so that the express lane takes the request; empty when it does."""
        return self.reason.remedy if self.reason else ""

    def __str__(self) -> str:
        if self.reason is None:
            return "express lane"
        detail = f" ({self.detail})" if self.detail else ""
        return f"full lane: {self.reason.value}{detail}; {self.remedy}"


# What the express lane takes; everything else is the full lane's, unknown names included:
# aiohttp then raises its own TypeError.
EXPRESS_OPTIONS = frozenset(
    {
        "allow_redirects", "auth", "auto_decompress", "chunked", "compress", "cookies", "data",
        "expect100", "headers", "json", "max_field_size", "max_headers", "max_line_size", "max_redirects",
        "middlewares", "params", "raise_for_status", "read_bufsize", "server_hostname", "skip_auto_headers",
        "ssl", "timeout", "fingerprint", "ssl_context", "trace_request_ctx", "upload_tracker", "verify_ssl",
    }
)  # fmt: skip

# Options that are the full lane's unless they have the value named here.
_NEUTRAL: dict[str, tuple[Any, LaneReason]] = {
    "proxy": (None, LaneReason.PROXY),
    "proxy_auth": (None, LaneReason.PROXY),
    "read_until_eof": (True, LaneReason.OPTION),
}

_COMMON_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Patch(NamedTuple):
    """A method of aiohttp that somebody replaced."""

    method: str
    by: str
    """The module and name of what is there now."""


_OF_TCP = ("connect", "_resolve_host", "_create_connection", "_wrap_create_connection")
_OF_UNIX = ("connect", "_create_connection")
_OF_RESPONSE = ("__init__", "start", "read", "json", "get_encoding", "__aexit__")
# The methods that tools patch. Not ClientSession.__init__: what a replacement of it does is
# in the session's attributes, which are read at each request.
_PATCHED_BY_TOOLS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (aiohttp.ClientSession, ("_request", "_build_url", "_prepare_headers")),
    (aiohttp.ClientSession, ("request", "get", "options", "head", "post", "put", "patch", "delete")),
    # All of it: heads are made by ClientRequest once and then kept.
    (aiohttp.ClientRequest, tuple(n for n, m in vars(aiohttp.ClientRequest).items() if callable(m))),
    (aiohttp.ClientRequest, ("DEFAULT_HEADERS", "GET_METHODS", "POST_METHODS")),
    (aiohttp.ClientResponse, _OF_RESPONSE),
    (aiohttp.TCPConnector, _OF_TCP),
    (aiohttp.UnixConnector, _OF_UNIX),
    (_connector.BaseConnector, ("connect",)),
)
# In the place of what a tool hid, by patching it before this module was imported.
_UNKNOWN = object()


def _is_aiohttps_own(member: Any) -> bool:
    """Whether a method is aiohttp's, not one that a tool put there before this module was imported."""
    home = getattr(member, "__globals__", {}).get("__name__", "")
    return home.startswith("aiohttp.") and not hasattr(member, "__wrapped__")


# Each with the class attribute as it is in aiohttp's source, or none.
_WATCHED: list[tuple[type, str, Any]] = [
    (owner, name, _UNKNOWN if callable(member) and not _is_aiohttps_own(member) else member)
    for owner, names in _PATCHED_BY_TOOLS
    for name in names
    for member in (owner.__dict__.get(name),)
]


def patches() -> list[Patch]:
    """List the methods that the guard finds replaced; while there are any, no request is express."""
    return [
        Patch(f"{owner.__module__}.{owner.__qualname__}.{name}", _origin(owner.__dict__.get(name)))
        for owner, name, original in _WATCHED
        if _is_replaced(owner, name, original)
    ]


def _is_replaced(owner: type, name: str, original: Any) -> bool:
    member = owner.__dict__.get(name)
    if member is original:
        return False
    if original is _UNKNOWN:
        return not _is_aiohttps_own(member)
    # A tool that takes its patch off may leave the inherited method on the class itself.
    return original is not None or member is not getattr(super(owner, owner), name, None)


def _origin(member: Any) -> str:
    """Where a replacement comes from: wrappers take over the names of what they wrap, not its code."""
    wrapper = getattr(member, "_self_wrapper", member)  # wrapt's
    code = getattr(wrapper, "__code__", None)
    module = getattr(wrapper, "__globals__", {}).get("__name__") or type(wrapper).__module__
    name = getattr(code, "co_qualname", None) or getattr(code, "co_name", None) or type(wrapper).__qualname__
    return f"{module}.{name}"


if NATIVE:
    from ._core.guard import Watch
    from ._core.response import watch
    from .connector import PooledConnector, TCPConnector, UnixConnector
    from .response import ClientResponse

    # After install() it is our classes that tools find and patch.
    _WATCHED += [
        (owner, name, owner.__dict__.get(name))
        for owner, names in (
            (ClientResponse, _OF_RESPONSE),
            (PooledConnector, ("connect",)),
            (TCPConnector, _OF_TCP),
            (UnixConnector, _OF_UNIX),
        )
        for name in names
    ]
    # A change of a base class is one of these, too.
    WATCH = Watch(
        aiohttp.ClientSession,
        aiohttp.ClientRequest,
        aiohttp.CookieJar,
        ClientResponse,
        TCPConnector,
        UnixConnector,
    )

    watch(ClientResponse, WATCH)

    def is_patched() -> bool:
        """Compare member by member, since some class was changed; remember when all is as it was."""
        # First: a patch that another thread makes while this one compares must not be missed.
        WATCH.remember()
        if any(_is_replaced(*watched) for watched in _WATCHED):
            WATCH.forget()
            return True
        return False

    def lane_reason(
        session: aiohttp.ClientSession, method: str, options: Mapping[str, Any]
    ) -> LaneReason | None:
        """Name the reason for the full lane, or None: the express lane takes the request.

        Args:
            session: the session; its attributes are read at each call, since tools assign them.
            method: the request's method.
            options: the keyword arguments of the request.
        """
        if not WATCH.is_unchanged() and is_patched():
            return LaneReason.PATCHED
        connector = session._connector
        if connector is not None and not _is_ours(connector):
            return LaneReason.FOREIGN_CONNECTOR
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
            if (headers := options.get("headers")) and (reason := _reason_of_headers(headers)):
                return reason
            if not options.keys() <= EXPRESS_OPTIONS and (reason := _reason_of_options(options)):
                return reason
        if session._default_headers and hdrs.UPGRADE in session._default_headers:
            return LaneReason.UPGRADE
        return None

    _CONNECT, _RELEASE = PooledConnector.connect, PooledConnector._release

    def _is_ours(connector: Any) -> bool:
        """A connector of ours, or of a subclass that leaves alone what the express lane goes around."""
        cls = type(connector)
        return (
            # Not isinstance(): mocks pass for what they stand for.
            issubclass(cls, PooledConnector)
            and cls.connect is _CONNECT
            and cls._release is _RELEASE
            and "pool" in (own := connector.__dict__)
            and not ("connect" in own or "_create_connection" in own or "_release" in own)
        )

else:

    def lane_reason(
        session: aiohttp.ClientSession, method: str, options: Mapping[str, Any]
    ) -> LaneReason | None:
        """Without the extension every request is aiohttp's."""
        return LaneReason.NO_EXTENSION


def _reason_of_options(options: Mapping[str, Any]) -> LaneReason | None:
    for name in options.keys() - EXPRESS_OPTIONS:
        if name == "proxy_headers" and options.get("proxy") is None:
            # aiohttp ignores them; aiobotocore gives them with every request.
            continue
        neutral = _NEUTRAL.get(name)
        if neutral is None:
            return LaneReason.OPTION
        value, reason = neutral
        if options[name] is not value:
            return reason
    return None


def _reason_of_headers(headers: Any) -> LaneReason | None:
    """A request that changes the protocol is aiohttp's."""
    if not isinstance(headers, Mapping | list | tuple):
        # An iterator can be looked at once, and that is aiohttp's to do.
        return LaneReason.OPTION
    for item in headers:
        name = item[0] if isinstance(item, tuple | list) and item else item
        if isinstance(name, str) and len(name) == len("upgrade") and name.lower() == "upgrade":
            return LaneReason.UPGRADE
    return None


def explain(session: aiohttp.ClientSession, method: str, options: Mapping[str, Any]) -> Explanation:
    """Find the lane of a request, and what decides it."""
    reason = lane_reason(session, method, options)
    if reason is None:
        return Explanation("express")
    return Explanation("full", reason, _detail(reason, session, options))


def _detail(reason: LaneReason, session: aiohttp.ClientSession, options: Mapping[str, Any]) -> str:
    if reason is LaneReason.PATCHED:
        return ", ".join(f"{patch.method} is {patch.by}" for patch in patches())
    if reason is LaneReason.FOREIGN_CONNECTOR:
        cls = type(session._connector)
        return f"{cls.__module__}.{cls.__qualname__}"
    if reason is LaneReason.CUSTOM_CLASS:
        classes = (session._request_class, session._response_class)
        return ", ".join(f"{cls.__module__}.{cls.__qualname__}" for cls in classes)
    if reason is LaneReason.OPTION:
        names = sorted(name for name in options if _reason_of_options({name: options[name]}) is reason)
        return ", ".join(names) or "headers, given as an iterator"
    return ""


def refuse_or_log(
    session: aiohttp.ClientSession,
    method: str,
    str_or_url: Any,
    options: Mapping[str, Any],
    is_strict: bool,
) -> None:
    """Log a request that takes the full lane, at debug level; refuse it when the session is strict.

    Raises:
        FullLaneError: the session is strict.
    """
    if not is_strict and not _logger.isEnabledFor(logging.DEBUG):
        return
    explanation = explain(session, method, options)
    assert explanation.reason is not None
    url = _without_secrets(str_or_url)
    if is_strict:
        message = f"strict_native: {method} {url} takes the {explanation}"
        raise FullLaneError(message, explanation.reason)
    _logger.debug("%s %s takes the %s", method, url, explanation)


def _without_secrets(str_or_url: Any) -> str:
    """The URL without credentials and query, for messages."""
    try:
        return str(URL(str_or_url).with_user(None).with_query(None))
    except (TypeError, ValueError):
        return repr(str_or_url)


class LaneStats:
    """Requests of one session that took the full lane, by reason."""

    __slots__ = ("full",)

    def __init__(self) -> None:
        self.full: dict[LaneReason, int] = {}

    def count_full(self, reason: LaneReason) -> None:
        self.full[reason] = self.full.get(reason, 0) + 1

    def snapshot(self, express: int) -> dict[str, Any]:
        return {"express": express, "full": {r.value: n for r, n in self.full.items()}}
