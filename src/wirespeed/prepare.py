"""A request made ready to send, and what a session and its options say about how.

The core puts most requests together from shapes (`_core/lane`, shapes.py). Any other is built by aiohttp's
ClientRequest, so that its headers are aiohttp's to the byte, and made ready here. Called by the express
lane. It must not send anything.
"""

from typing import Any

from aiohttp import ClientSession, ClientTimeout, CookieJar, DummyCookieJar, hdrs, payload
from aiohttp.client_exceptions import InvalidUrlClientError, NonHttpUrlClientError
from aiohttp.client_reqrep import ClientRequest, ConnectionKey, RequestInfo, _merge_ssl_params
from aiohttp.helpers import EMPTY_BODY_METHODS, sentinel
from aiohttp.http import HttpVersion10, HttpVersion11
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from ._core import lane as _core_lane
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
# Options that the exchange settings are made of.
SETTING_OPTIONS = frozenset(
    {"auto_decompress", "max_field_size", "max_headers", "max_line_size", "read_bufsize"}
)
_TLS_OPTIONS = frozenset({"fingerprint", "ssl", "ssl_context", "verify_ssl"})
# As they are in aiohttp's source; subclasses override, and tools patch them.
_FILTERS: dict[type, Any] = {cls: cls.filter_cookies for cls in (CookieJar, DummyCookieJar)}
_BUILD_URL = ClientSession._build_url
_PREPARE_HEADERS = ClientSession._prepare_headers


class Prepared(_core_lane.Prepared):
    """One request as the core takes it: put together from a shape, or built as aiohttp's ClientRequest."""

    __slots__ = ()

    def info(self) -> RequestInfo:
        """Make aiohttp's RequestInfo, as `ClientRequest.request_info` does."""
        if self.req is not None:
            return self.req.request_info  # type: ignore[no-any-return]
        if self.headers is None:
            assert self.shape is not None
            values = self.values
            self.headers = CIMultiDict(
                [(name, values[v] if isinstance(v, int) else v) for name, v in self.shape.fields]
            )
        url = self.real_url
        return RequestInfo(
            url.with_fragment(None) if url.raw_fragment else url,
            self.method,
            CIMultiDictProxy(self.headers),
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
        """The request as aiohttp's dialling wants it; mocks decide by it whether there is a connection."""
        if self.req is not None:
            return self.req  # type: ignore[no-any-return]
        headers = CIMultiDict(self.info().headers)
        url, loop, data = self.real_url, session._loop, self.body or None
        return ClientRequest(self.method, url, headers=headers, data=data, loop=loop, session=session)


def has_usual_heads(session: ClientSession) -> bool:
    """Whether a session makes heads as aiohttp's does, so that they may be put together from shapes."""
    own, cls, headers = session.__dict__, type(session), session._default_headers
    return (
        session._version == HttpVersion11
        and cls._build_url is _BUILD_URL
        and cls._prepare_headers is _PREPARE_HEADERS
        and "_build_url" not in own
        and "_prepare_headers" not in own
        and session._default_auth is None
        and hdrs.TRANSFER_ENCODING not in headers
        and hdrs.CONTENT_LENGTH not in headers
        and hdrs.UPGRADE not in headers
        and hdrs.EXPECT not in headers
    )


def has_usual_jar(session: ClientSession) -> bool:
    """Whether the session's jar is aiohttp's, and nobody has patched it."""
    jar: Any = session._cookie_jar
    return (
        type(jar) in _FILTERS
        and "filter_cookies" not in jar.__dict__
        and type(jar).filter_cookies is _FILTERS[type(jar)]
    )


def connection_key(url: URL) -> Any:
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
    prepared = Prepared(
        req.method, req.original_url, req.connection_key, b"", req.method in EMPTY_BODY_METHODS
    )
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
