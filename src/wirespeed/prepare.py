"""A request made ready to send: its host in the pool and its head as bytes.

A plain request (no body, no headers of its own, no cookies) is put together from cached
pieces: the request line, and the field lines that its host and method have in common. Any
other is built by aiohttp's ClientRequest, so that its headers are aiohttp's to the byte.
Called by the express lane. It must not send anything.
"""

from http.cookies import BaseCookie
from typing import Any

from aiohttp import ClientSession, ClientTimeout, CookieJar, hdrs, payload
from aiohttp.client_exceptions import InvalidUrlClientError, NonHttpUrlClientError
from aiohttp.client_reqrep import ClientRequest, ConnectionKey, RequestInfo, _merge_ssl_params
from aiohttp.helpers import EMPTY_BODY_METHODS, sentinel
from aiohttp.http import HttpVersion10, HttpVersion11
from multidict import CIMultiDict, CIMultiDictProxy, getversion
from yarl import URL

from ._core import request as _core_request
from ._core.exchange import ExchangeSettings
from ._core.head import field_lines, request_line
from .autopsy import translate
from .connector import PooledConnector
from .response import make_decoder

# A body of at most this many bytes goes out in one write with its head.
INLINE_BODY_MAX = 64 * 1024
_INLINE_PAYLOADS = frozenset(
    {payload.BytesPayload, payload.StringPayload, payload.JsonPayload, payload.JsonBytesPayload}
)
# Plain requests of a method that are kept ready, and hosts whose field lines are; emptied when full.
PREPARED_MAX = 4096
_TEMPLATES_MAX = 4096
# Options that leave the head alone.
PLAIN_OPTIONS = frozenset({"allow_redirects", "max_redirects", "raise_for_status", "timeout"})
# Options that the exchange settings are made of.
SETTING_OPTIONS = frozenset(
    {"auto_decompress", "max_field_size", "max_headers", "max_line_size", "read_bufsize"}
)
_TLS_OPTIONS = frozenset({"fingerprint", "ssl", "ssl_context", "verify_ssl"})
# As they are in aiohttp's source; subclasses override, and tools patch them.
_FILTER_COOKIES = CookieJar.filter_cookies
_BUILD_URL = ClientSession._build_url
_PREPARE_HEADERS = ClientSession._prepare_headers
PLAIN_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "PUT", "POST", "PATCH"})


class Prepared(_core_request.Prepared):
    """One request as the core takes it."""

    __slots__ = ("_headers",)

    def __init__(self, method: str, real_url: URL, key: Any, data: bytes) -> None:
        super().__init__(method, real_url, key, data, method in EMPTY_BODY_METHODS)
        self._headers: CIMultiDict[str] | None = None

    def info(self) -> RequestInfo:
        """Make aiohttp's RequestInfo, as `ClientRequest.request_info` does."""
        if self.req is not None:
            return self.req.request_info  # type: ignore[no-any-return]
        assert self._headers is not None
        url = self.real_url
        return RequestInfo(
            url.with_fragment(None) if url.raw_fragment else url,
            self.method,
            CIMultiDictProxy(self._headers),
            url,
        )

    @property
    def output_size(self) -> int:
        """Bytes that were sent so far, head included."""
        return len(self.data) if self.writer is None else self.writer.output_size

    def fill(self) -> None:
        """Make the head of a built request, and its body when it fits into the same write.

        Raises:
            ValueError: a control character in a header, or a bad Content-Length.
            TypeError: a header value that is not a str.
        """
        req = self.req
        assert req is not None
        head = request_line(req.method, req.url.raw_path_qs, req.version.minor)
        self.data = b"%b%b\r\n" % (head, field_lines(req.headers.items()))
        length = req._get_content_length()
        body = req._body
        size = 0
        if req._continue is not None or (body is not None and not _is_inline(req, body)):
            self.has_upload = True
            size = length or 0
        elif body is not None:
            inline = bytes(body._value if length is None else body._value[:length])
            self.data += inline
            size = len(inline)
        elif req.chunked is not None:
            self.data += b"0\r\n\r\n"
        is_framed = req.chunked is not None or hdrs.TRANSFER_ENCODING not in req.headers
        self.is_unclean = not is_framed or (req.chunked is None and (length or 0) != size)

    def dial_request(self, session: ClientSession) -> ClientRequest:
        """The request as aiohttp's dialling wants it."""
        return self.req or ClientRequest(self.method, self.real_url, loop=session._loop, session=session)


class PlainRequests:
    """The heads of one session's plain requests, made of field lines that are kept by host and method."""

    def __init__(self) -> None:
        self._is_usable = False
        # Of requests that are not plain, for shapes.py.
        self.shapes: dict[Any, Any] = {}
        self._templates: dict[tuple[str, str], tuple[CIMultiDict[str], bytes]] = {}
        # What the heads were made of; compared at each request, since programs assign these.
        self._default_headers: Any = None
        self._headers_version = -1
        self._skip_auto_headers: Any = None
        self._connector: Any = None
        self._auth: Any = None
        self._version: Any = None
        self._base_url: Any = None

    def is_usable(self, session: ClientSession) -> bool:
        """Whether the session makes heads as aiohttp's does; what is kept of others is forgotten."""
        headers: Any = session._default_headers
        if not (
            headers is self._default_headers
            and getversion(headers) == self._headers_version
            and session._skip_auto_headers is self._skip_auto_headers
            and session._connector is self._connector
            and session._default_auth is self._auth
            and session._version is self._version
            and session._base_url is self._base_url
        ):
            self._reset(session)
        own = session.__dict__
        return self._is_usable and "_build_url" not in own and "_prepare_headers" not in own

    def find(
        self, session: ClientSession, method: str, str_or_url: Any
    ) -> "Prepared | BaseCookie[str] | None":
        """Make a request ready to send; return its cookies when it is plain but for them, or else None.

        Raises:
            InvalidUrlClientError: not a URL, or one without a host.
            NonHttpUrlClientError: a scheme that the connector does not know.
        """
        if not self.is_usable(session):
            return None
        prepared = self._prepare(session, method, str_or_url)
        return prepared and (filter_cookies(session, prepared.real_url) or prepared)

    def forget(self) -> None:
        """Forget everything: what the heads are made of has changed."""
        self._templates.clear()
        self.shapes.clear()
        self._default_headers = None

    def _reset(self, session: ClientSession) -> None:
        self.forget()
        headers: Any = session._default_headers
        self._default_headers, self._headers_version = headers, getversion(headers)
        self._skip_auto_headers = session._skip_auto_headers
        self._connector = session._connector
        self._auth = session._default_auth
        self._version = session._version
        self._base_url = session._base_url
        self._is_usable = (
            session._version == HttpVersion11
            and type(session)._build_url is _BUILD_URL
            and type(session)._prepare_headers is _PREPARE_HEADERS
            and session._default_auth is None
            and hdrs.TRANSFER_ENCODING not in headers
            and hdrs.CONTENT_LENGTH not in headers
            and hdrs.UPGRADE not in headers
            and hdrs.EXPECT not in headers
        )

    def _prepare(self, session: ClientSession, method: str, str_or_url: Any) -> Prepared | None:
        if method not in PLAIN_METHODS:
            return None
        url = build_url(session, str_or_url)
        if not url.raw_host:
            raise InvalidUrlClientError(url)
        if url.raw_user is not None or url.raw_password is not None:
            return None
        connector: Any = session._connector
        origin = url.host_port_subcomponent or ""
        template = self._templates.get((method, origin))
        if template is None:
            template = self._template(session, connector, method, url, origin)
        headers, lines = template
        key = _connection_key(url)
        prepared = Prepared(method, url, key, request_line(method, url.raw_path_qs, 1) + lines)
        prepared._headers = headers
        return prepared

    def _template(
        self, session: ClientSession, connector: PooledConnector, method: str, url: URL, origin: str
    ) -> tuple[CIMultiDict[str], bytes]:
        """Let ClientRequest make the headers that all plain requests to a host have in common."""
        req = ClientRequest(
            method,
            url,
            headers=session._prepare_headers(None),
            skip_auto_headers=session._skip_auto_headers or None,
            loop=session._loop,
            session=session,
        )
        add_connection_headers(req, connector)
        template = (req.headers, field_lines(req.headers.items()) + b"\r\n")
        if len(self._templates) >= _TEMPLATES_MAX:
            self._templates.clear()
        self._templates[method, origin] = template
        return template


def has_usual_jar(session: ClientSession) -> bool:
    """Whether the session's jar is aiohttp's, and nobody has patched it."""
    jar: Any = session._cookie_jar
    return (
        type(jar) is CookieJar
        and "filter_cookies" not in jar.__dict__
        and CookieJar.filter_cookies is _FILTER_COOKIES
    )


def filter_cookies(session: ClientSession, url: URL) -> "BaseCookie[str] | None":
    """Ask the session's jar for the cookies of a request; an empty jar is not asked."""
    jar: Any = session._cookie_jar
    if has_usual_jar(session) and not jar._cookies:
        return None
    cookies: BaseCookie[str] = jar.filter_cookies(url)
    return cookies or None


def _connection_key(url: URL) -> Any:
    """The key of a request without connection options, as ClientRequest.connection_key makes it."""
    is_ssl = url.scheme in ("https", "wss")
    return ConnectionKey(url.raw_host or "", url.port, is_ssl, True, None, None, None, None)


def build_url(session: ClientSession, str_or_url: Any) -> URL:
    """Make the absolute URL of a request.

    Raises:
        InvalidUrlClientError: not a URL, or one without a host.
        NonHttpUrlClientError: a scheme that the connector does not know.
    """
    try:
        url = session._build_url(str_or_url)
    except ValueError as exc:
        raise InvalidUrlClientError(str_or_url) from exc
    assert session._connector is not None
    if url.scheme not in session._connector.allowed_protocol_schema_set:
        raise NonHttpUrlClientError(url)
    return url


def add_connection_headers(req: ClientRequest, connector: PooledConnector) -> None:
    """Add what `ClientRequest.send` adds when it knows the connection."""
    skipped = req._skip_auto_headers
    if (
        req.method in ClientRequest.POST_METHODS
        and (skipped is None or hdrs.CONTENT_TYPE not in skipped)
        and hdrs.CONTENT_TYPE not in req.headers
    ):
        req.headers[hdrs.CONTENT_TYPE] = "application/octet-stream"
    if hdrs.CONNECTION not in req.headers:
        if connector.force_close:
            if req.version == HttpVersion11:
                req.headers[hdrs.CONNECTION] = "close"
        elif req.version == HttpVersion10:
            req.headers[hdrs.CONNECTION] = "keep-alive"


def prepare(req: ClientRequest, connector: PooledConnector) -> Prepared:
    """Make a built request ready but for its head, which `Prepared.fill` makes."""
    add_connection_headers(req, connector)
    prepared = Prepared(req.method, req.original_url, req.connection_key, b"")
    prepared.req = req
    return prepared


def _is_inline(req: ClientRequest, body: payload.Payload) -> bool:
    """Whether a body goes out with the head: it is at hand, short, and nobody is told of its sending."""
    return (
        type(body) in _INLINE_PAYLOADS
        and req.chunked is None
        and not req.compress
        and (body.size or 0) <= INLINE_BODY_MAX
        and not req._traces
        and req._upload_tracker is None
    )


def new_settings(session: ClientSession, options: Any) -> ExchangeSettings:
    """Make the exchange settings of a session, or of a request that overrides them."""

    def of(name: str, default: Any) -> Any:
        value = options.get(name)
        return default if value is None else value

    return ExchangeSettings(
        max_line_size=of("max_line_size", session._max_line_size),
        max_field_size=of("max_field_size", session._max_field_size),
        max_headers=of("max_headers", session._max_headers),
        high_water=2 * of("read_bufsize", session._read_bufsize),
        make_sink=make_decoder if of("auto_decompress", session._auto_decompress) else None,
        translate=translate,
    )


def ssl_of(options: Any) -> Any:
    """The `ssl` of a request, the deprecated options merged in.

    Raises:
        TypeError, ValueError: as aiohttp's `_merge_ssl_params`.
    """
    if options.keys().isdisjoint(_TLS_OPTIONS):
        return True
    return _merge_ssl_params(
        options.get("ssl", True), *map(options.get, ("verify_ssl", "ssl_context", "fingerprint"))
    )


def timeout_of(session: ClientSession, options: Any) -> ClientTimeout:
    """The ClientTimeout of a request: its own, its number of seconds, or the session's."""
    timeout = options.get("timeout", ...)
    if timeout is ... or timeout is sentinel:
        return session._timeout
    return as_timeout(timeout)


def as_timeout(timeout: Any) -> ClientTimeout:
    """A ClientTimeout, also of a number of seconds for the whole request."""
    return timeout if isinstance(timeout, ClientTimeout) else ClientTimeout(total=timeout)
