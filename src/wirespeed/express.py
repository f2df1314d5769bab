"""The express lane: one request, with its retry and redirects, over the native core.

`perform` is what a session awaits. The steps and their order follow aiohttp's
`ClientSession._request`. It must not build heads (prepare.py) nor read bodies (response.py).
"""

import asyncio
import warnings
from collections.abc import Mapping
from math import ceil
from typing import Any

from aiohttp import ClientSession, ClientTimeout, hdrs, payload
from aiohttp.client import IDEMPOTENT_METHODS, _has_no_authority
from aiohttp.client_exceptions import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientOSError,
    ClientPayloadError,
    ClientResponseError,
    ConnectionTimeoutError,
    InvalidUrlClientError,
    InvalidUrlRedirectClientError,
    NonHttpUrlRedirectClientError,
    ServerDisconnectedError,
    TooManyRedirects,
)
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import HTTP_AND_EMPTY_SCHEMA_SET
from aiohttp.cookiejar import _UnlimitedCookieJar
from aiohttp.helpers import strip_auth_from_url
from aiohttp.http import HttpProcessingError
from multidict import istr
from yarl import URL

from ._core.exchange import Exchange, ExchangeSettings
from .prepare import (
    PLAIN_OPTIONS,
    SETTING_OPTIONS,
    Prepared,
    SessionState,
    build_url,
    new_settings,
    prepare,
    ssl_of,
    timeout_of,
)
from .response import ClientResponse
from .upload import new_writer, settle, start_upload

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What is raised as it is, although it is a ClientOSError: the request was never sent.
_NOT_CONNECTED = (
    ConnectionTimeoutError,
    ClientConnectorError,
    ClientConnectorCertificateError,
    ClientConnectorSSLError,
)


def _total_at(loop: asyncio.AbstractEventLoop, timeout: ClientTimeout) -> float:
    """Loop time at which the whole request times out, coarse from `ceil_threshold` on; 0 for never."""
    total = timeout.total
    if total is not None and total > 0:
        when = loop.time() + total
        return float(ceil(when)) if total >= timeout.ceil_threshold else when
    return 0.0


async def perform(
    session: ClientSession, state: SessionState, method: str, str_or_url: Any, options: Mapping[str, Any]
) -> ClientResponse:
    """Send a request and return its response once its head has come.

    Args:
        session: the session; the caller found that the express lane takes the request.
        state: what the lane keeps of this session.
        method: the method, in any case.
        str_or_url: as in aiohttp.
        options: the keyword arguments, all of them among `lanes.EXPRESS_OPTIONS`.

    Raises:
        What `aiohttp.ClientSession.request` raises.
    """
    if session.closed:
        raise RuntimeError("Session is closed")
    method = method.upper()
    if not options or options.keys() <= PLAIN_OPTIONS:
        prepared = state.plain.find(session, method, str_or_url)
        if prepared is not None:
            return await _perform_plain(session, state, prepared, str_or_url, options)
    return await _Call(session, state, method, str_or_url, options).run()


async def _perform_plain(
    session: ClientSession,
    state: SessionState,
    prepared: Prepared,
    str_or_url: Any,
    options: Mapping[str, Any],
) -> ClientResponse:
    """The common case, straight through; a retry or a redirect goes on as a `_Call`."""
    timeout = timeout_of(session, options) if options else session._timeout
    total_at = _total_at(session._loop, timeout)
    try:
        resp = await _attempt(session, prepared, state.settings, timeout, total_at)
    except _NOT_CONNECTED:
        raise
    except (ClientOSError, ServerDisconnectedError):
        if not (session._retry_connection and prepared.method in IDEMPOTENT_METHODS):
            raise
        call = _Call(session, state, prepared.method, str_or_url, options, total_at)
        call.may_retry = False
        return await call.run()
    if resp.status in _REDIRECTS and (not options or options.get("allow_redirects", True)):
        return await _Call(session, state, prepared.method, str_or_url, options, total_at).run(resp)
    raise_for_status = options.get("raise_for_status") if options else None
    if raise_for_status is None:
        raise_for_status = session._raise_for_status
    if raise_for_status:
        await _check(resp, raise_for_status)
    return resp


async def _check(resp: ClientResponse, raise_for_status: Any) -> None:
    try:
        if callable(raise_for_status):
            await raise_for_status(resp)
        else:
            resp.raise_for_status()
    except BaseException:
        resp.close()
        raise


async def _attempt(
    session: ClientSession,
    prepared: Prepared,
    settings: ExchangeSettings,
    timeout: ClientTimeout,
    total_at: float,
) -> ClientResponse:
    """Send once, on one connection; the cookies of the response go into the jar."""
    connector: Any = session._connector
    host = prepared.host
    if host.is_evicted:
        host = prepared.host = connector.pool.host(prepared.key)
    conn = connector.pool.take(host)
    try:
        if conn is None:
            conn = await connector.acquire(host, prepared.dial_request(session), timeout, total_at)
        try:
            exchange = conn.send(
                prepared.data if not prepared.has_upload else b"",
                settings,
                skip_body=prepared.skip_body,
                total_at=total_at,
                read_timeout=timeout.sock_read or 0.0,
                has_upload=prepared.has_upload,
                is_unclean=prepared.is_unclean,
            )
        except BaseException:
            conn.close()
            raise
        upload = await _upload(session, prepared, conn, exchange) if prepared.has_upload else None
        await _head(exchange, prepared)
    except ClientError:
        raise
    except OSError as exc:
        if exc.errno is None and isinstance(exc, asyncio.TimeoutError):
            raise
        raise ClientOSError(*exc.args) from exc
    resp = ClientResponse.adopt(exchange, session, prepared, upload)
    if exchange.head.has_cookies:
        cookies = resp._raw_cookie_headers
        assert cookies is not None
        session._cookie_jar.update_cookies_from_headers(cookies, resp.url)
    return resp


async def _head(exchange: Exchange, prepared: Prepared) -> None:
    """Wait for the head of the response."""
    try:
        await exchange.waiter
    except HttpProcessingError as exc:
        raise ClientResponseError(
            prepared.info(), (), status=exc.code, message=exc.message, headers=exc.headers
        ) from exc
    except BaseException:
        exchange.abandon()
        raise


async def _upload(session: ClientSession, prepared: Prepared, conn: Any, exchange: Exchange) -> Any:
    """Begin to send a body that did not fit into one write with the head."""
    req = prepared.req
    assert req is not None
    try:
        writer = prepared.writer = new_writer(req, conn, session._loop)
        version = req.version
        target = req.url.raw_path_qs
        await writer.write_headers(f"{req.method} {target} HTTP/{version.major}.{version.minor}", req.headers)
        return start_upload(req, writer, exchange, req._get_content_length())
    except BaseException:
        exchange.abandon()
        raise


class _Call:
    """A request that needs more than one plain attempt: its state over retry and redirects."""

    def __init__(
        self,
        session: ClientSession,
        state: SessionState,
        method: str,
        str_or_url: Any,
        options: Mapping[str, Any],
        total_at: float | None = None,
    ) -> None:
        self.session = session
        self.options = options
        self.method = method
        self.ssl = ssl_of(options)
        self.auth = options.get("auth")
        if self.auth is not None:
            warnings.warn(
                "The 'auth' parameter is deprecated and will be removed in v4;"
                " pass headers={'Authorization': "
                "aiohttp.encode_basic_auth(login, password)} instead",
                DeprecationWarning,
                stacklevel=4,
            )
        self.data = self._data(options)
        self.chunked = options.get("chunked")
        if not isinstance(self.chunked, bool) and self.chunked is not None:
            warnings.warn("Chunk size is deprecated #1615", DeprecationWarning, stacklevel=4)
        self.params = options.get("params") or {}
        self.cookies = options.get("cookies")
        self.headers = session._prepare_headers(options.get("headers"))
        self.url = build_url(session, str_or_url)
        self.skip_headers = self._skip_headers(options.get("skip_auto_headers"))
        self.timeout = timeout_of(session, options)
        self.total_at = _total_at(session._loop, self.timeout) if total_at is None else total_at
        is_usual = options.keys().isdisjoint(SETTING_OPTIONS)
        self.settings = state.settings if is_usual else new_settings(session, options)
        self.may_retry = session._retry_connection and method in IDEMPOTENT_METHODS
        self.req: ClientRequest | None = None
        self.history: list[ClientResponse] = []

    def _data(self, options: Mapping[str, Any]) -> Any:
        data, json = options.get("data"), options.get("json")
        if json is None:
            return data
        if data is not None:
            raise ValueError("data and json parameters can not be used at the same time")
        session = self.session
        if session._json_serialize_bytes is not None:
            return payload.JsonBytesPayload(json, dumps=session._json_serialize_bytes)
        return payload.JsonPayload(json, dumps=session._json_serialize)

    def _skip_headers(self, skip_auto_headers: Any) -> Any:
        if skip_auto_headers is not None:
            return {istr(name) for name in skip_auto_headers} | self.session._skip_auto_headers
        return self.session._skip_auto_headers or None

    async def run(self, resp: ClientResponse | None = None) -> ClientResponse:
        """Go on until there is a response to return.

        Args:
            resp: the response of an attempt that was made already, or None.
        """
        try:
            while True:
                if resp is None:
                    resp = await self._attempt()
                    if resp is None:
                        continue
                if resp.status not in _REDIRECTS or not self.options.get("allow_redirects", True):
                    break
                if not await self._follow(resp):
                    break
                resp = None
            await self._close_body()
            raise_for_status = self.options.get("raise_for_status")
            if raise_for_status is None:
                raise_for_status = self.session._raise_for_status
            if raise_for_status:
                await _check(resp, raise_for_status)
            resp._history = tuple(self.history)
            return resp
        except BaseException:
            if resp is not None:
                resp.close()
            await self._close_body()
            raise

    async def _close_body(self) -> None:
        if self.req is not None and self.req._body is not None:
            await self.req._body.close()

    async def _attempt(self) -> ClientResponse | None:
        """Build and send the request; None when it is to be sent again on another connection."""
        self.req = self._build()
        prepared = prepare(self.req, self.session._connector)  # type: ignore[arg-type]
        try:
            return await _attempt(self.session, prepared, self.settings, self.timeout, self.total_at)
        except _NOT_CONNECTED:
            raise
        except (ClientOSError, ServerDisconnectedError):
            if not self.may_retry:
                raise
            self.may_retry = False
            if self.data is not None:
                # The payload rewinds itself; building it anew would send only the unread rest.
                body = self.req._body
                if body is not None and body.consumed:
                    raise
                self.data = body
            return None

    def _build(self) -> ClientRequest:
        """Let aiohttp build the request for the URL as it is now."""
        session = self.session
        self.url, auth_from_url = strip_auth_from_url(self.url)
        url = self.url
        if not url.raw_host:
            raise (InvalidUrlRedirectClientError if self.history else InvalidUrlClientError)(url)
        auth = self._auth(url, auth_from_url)
        return ClientRequest(
            self.method,
            url,
            params=self.params,
            headers=self.headers,
            skip_auto_headers=self.skip_headers,
            data=self.data,
            cookies=self._cookies(url),
            auth=auth,
            version=session._version,
            compress=self.options.get("compress"),
            chunked=self.chunked,
            loop=session._loop,
            response_class=session._response_class,
            session=session,
            ssl=self.ssl,
            server_hostname=self.options.get("server_hostname"),
        )

    def _auth(self, url: URL, auth_from_url: Any) -> Any:
        """Credentials for this hop: the caller's, the URL's, or the session's for its own origin."""
        session = self.session
        if not self.history and self.auth and auth_from_url:
            raise ValueError("Cannot combine AUTH argument with credentials encoded in URL")
        if self.auth is None or (self.history and auth_from_url is not None):
            self.auth = auth_from_url
        if (
            self.auth is None
            and session._default_auth
            and (not session._base_url or session._base_url_origin == url.origin())
        ):
            self.auth = session._default_auth
        if self.auth is not None and hdrs.AUTHORIZATION in self.headers:
            raise ValueError(
                "Cannot combine AUTHORIZATION header with AUTH argument or credentials encoded in URL"
            )
        return self.auth

    def _cookies(self, url: URL) -> Any:
        jar: Any = self.session._cookie_jar
        cookies = jar.filter_cookies(url)
        if self.cookies is not None:
            own = _UnlimitedCookieJar(
                unsafe=jar.unsafe,
                quote_cookie=jar.quote_cookie,
                treat_as_secure_origin=frozenset(jar.treat_as_secure_origin),
            )
            own.update_cookies(self.cookies)
            if found := own.filter_cookies(url):
                cookies.load(found)
        return cookies

    async def _follow(self, resp: ClientResponse) -> bool:
        """Turn the call into the one that a redirect asks for; false when the response is final."""
        self.history.append(resp)
        max_redirects = self.options.get("max_redirects", 10)
        if max_redirects and len(self.history) >= max_redirects:
            resp.close()
            raise TooManyRedirects(self.history[0].request_info, tuple(self.history))
        self._change_method(resp)
        location = resp.headers.get(hdrs.LOCATION) or resp.headers.get(hdrs.URI)
        if location is None:
            return False
        resp.release()
        target = self._target(resp, location)
        origin = self._origin(resp, target)
        if self.url.origin() != origin:
            # Never send credentials to another origin (RFC 9110 section 15.4).
            self.auth = None
            self.cookies = None
            self.headers.popall(hdrs.AUTHORIZATION, None)
            self.headers.popall(hdrs.COOKIE, None)
            self.headers.popall(hdrs.PROXY_AUTHORIZATION, None)
        self.url = target
        self.params = {}
        if resp._upload is not None:
            await settle(resp._upload)
        return True

    def _change_method(self, resp: ClientResponse) -> None:
        """301 and 302 turn POST into GET, 303 everything but HEAD; else the body is sent again."""
        status = resp.status
        if (status == 303 and resp.method != hdrs.METH_HEAD) or (
            status in (301, 302) and resp.method == hdrs.METH_POST
        ):
            self.method = hdrs.METH_GET
            self.data = None
            if self.headers.get(hdrs.CONTENT_LENGTH):
                self.headers.pop(hdrs.CONTENT_LENGTH)
            return
        body = self.req._body if self.req is not None else None
        if body is not None and body.consumed:
            resp.close()
            raise ClientPayloadError(
                "Cannot follow redirect with a consumed request "
                "body. Use bytes, a seekable file-like object, "
                "or set allow_redirects=False."
            )
        self.data = body

    def _target(self, resp: ClientResponse, location: str) -> URL:
        try:
            target = URL(location, encoded=not self.session._requote_redirect_url)
        except ValueError as exc:
            resp.close()
            raise InvalidUrlRedirectClientError(
                location,
                "Server attempted redirecting to a location that does not look like a URL",
            ) from exc
        scheme = target.scheme
        if scheme not in HTTP_AND_EMPTY_SCHEMA_SET:
            resp.close()
            raise NonHttpUrlRedirectClientError(location)
        if not scheme or (scheme == self.url.scheme and _has_no_authority(location, scheme)):
            return self.url.join(target)
        return target

    @staticmethod
    def _origin(resp: ClientResponse, target: URL) -> URL:
        try:
            return target.origin()
        except ValueError as exc:
            resp.close()
            raise InvalidUrlRedirectClientError(target, "Invalid redirect URL origin") from exc
