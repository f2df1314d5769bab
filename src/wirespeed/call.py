"""A call: one request of the user, over its retry, redirects, middlewares and traces.

The steps and their order follow aiohttp's `ClientSession._request`; the state that they
share there as local variables is an object's here. Called by the express lane for what is
not plain. It must not build heads (prepare.py) nor talk to connections (attempt.py).
"""

import asyncio
import warnings
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import aiohttp
from aiohttp import ClientSession, ClientTimeout, hdrs, payload
from aiohttp import client as _client
from aiohttp.client import IDEMPOTENT_METHODS, _has_no_authority
from aiohttp.client_exceptions import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientOSError,
    ClientPayloadError,
    ConnectionTimeoutError,
    InvalidUrlClientError,
    InvalidUrlRedirectClientError,
    NonHttpUrlRedirectClientError,
    ServerDisconnectedError,
    TooManyRedirects,
)
from aiohttp.client_middlewares import build_client_middlewares
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import HTTP_AND_EMPTY_SCHEMA_SET
from aiohttp.cookiejar import _UnlimitedCookieJar
from aiohttp.helpers import BaseTimerContext, TimerNoop, strip_auth_from_url
from aiohttp.tracing import Trace
from multidict import istr
from yarl import URL

from . import attempt
from ._core.clock import Clock
from ._core.exchange import ExchangeSettings
from ._core.hop import Hop
from .prepare import SETTING_OPTIONS, build_url, new_settings, prepare, ssl_of, timeout_of
from .upload import settle

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What is raised as it is, although it is a ClientOSError: the request was never sent.
NOT_CONNECTED = (
    ConnectionTimeoutError,
    ClientConnectorError,
    ClientConnectorCertificateError,
    ClientConnectorSSLError,
)


class Untimed(TimerNoop):
    """The timer of requests without a total time; policies know by `has_passed` that a call asks them."""

    has_passed = False


UNTIMED = Untimed()
BaseTimerContext.register(Clock)


def total_at(loop: asyncio.AbstractEventLoop, timeout: ClientTimeout) -> float:
    """Loop time at which the whole request times out, coarse from `ceil_threshold` on; 0 for never."""
    total = timeout.total
    if total is not None and total > 0:
        when = loop.time() + total
        return float(ceil(when)) if total >= timeout.ceil_threshold else when
    return 0.0


async def check_status(resp: aiohttp.ClientResponse, raise_for_status: Any) -> None:
    """Raise for a response that the caller does not want."""
    if callable(raise_for_status):
        await raise_for_status(resp)
    else:
        resp.raise_for_status()


def count_retry(session: ClientSession, key: ConnectionKey) -> None:
    """Note in the figures that a request is sent again on another connection."""
    connector: Any = session._connector
    if connector is not None:
        connector.pool.host(key).count_retry()


class _Again(Exception):
    """A request whose connection was lost is to be sent once more."""


class Call:
    """One request of the user.

    Args:
        session: the session; the caller found that the express lane takes the request.
        settings: what the exchanges of this session have in common.
        method: the method, upper-case.
        str_or_url: as in aiohttp.
        options: the keyword arguments, all of them among `lanes.EXPRESS_OPTIONS`.
        total_by: loop time at which the whole request times out, when that was found already.
        url: what `str_or_url` comes to, when that was found already.

    Raises:
        ValueError, TypeError, InvalidURL: bad arguments, as in aiohttp; nothing was sent.
    """

    def __init__(
        self,
        session: ClientSession,
        settings: ExchangeSettings,
        method: str,
        str_or_url: Any,
        options: Mapping[str, Any],
        total_by: float | None = None,
        url: URL | None = None,
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
                stacklevel=3,
            )
        self.data = self._data(options)
        self.chunked = options.get("chunked")
        if not isinstance(self.chunked, bool) and self.chunked is not None:
            warnings.warn("Chunk size is deprecated #1615", DeprecationWarning, stacklevel=3)
        self.params = options.get("params") or {}
        self.cookies = options.get("cookies")
        self.headers = session._prepare_headers(options.get("headers"))
        self.url = build_url(session, str_or_url) if url is None else url
        self.skip_headers = self._skip_headers(options.get("skip_auto_headers"))
        self.timeout = timeout_of(session, options)
        self.total_at = total_at(session._loop, self.timeout) if total_by is None else total_by
        is_usual = options.keys().isdisjoint(SETTING_OPTIONS)
        self.settings = settings if is_usual else new_settings(session, options)
        self.may_retry = session._retry_connection and method in IDEMPOTENT_METHODS
        self.middlewares = options.get("middlewares")
        if self.middlewares is None:
            self.middlewares = session._middlewares
        self.tracker = options.get("upload_tracker")
        self.traces: list[Trace] = []
        self.timer: Any = UNTIMED  # or a Clock
        self._stop_timer: Callable[[], None] | None = None
        self.req: ClientRequest | None = None
        self.key: ConnectionKey | None = None
        self.resp: aiohttp.ClientResponse | None = None
        self.history: list[aiohttp.ClientResponse] = []

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

    # From start to end

    async def run(
        self,
        first: aiohttp.ClientResponse | None = None,
        error: BaseException | None = None,
        *,
        has_begun: bool = False,
    ) -> aiohttp.ClientResponse:
        """Go on until there is a response to return.

        Args:
            first: the response of an attempt that was made already, or None.
            error: what such an attempt has raised, or None.
            has_begun: the clock runs, and the traces were told.

        Raises:
            What `aiohttp.ClientSession.request` raises.
        """
        self.resp = first
        try:
            if not has_begun:
                await self._begin()
            with self.timer:
                resp = await self._hop_on(first, error)
            await self._close_body()
            raise_for_status = self.options.get("raise_for_status")
            if raise_for_status is None:
                raise_for_status = self.session._raise_for_status
            if raise_for_status:
                await check_status(resp, raise_for_status)
            self._leave_timer(resp)
            resp._history = tuple(self.history)
            for trace in self.traces:
                await trace.send_request_end(self.method, self.traced_url(), self.headers, resp)
            if self.tracker is not None:
                self.tracker._finalize()
            return resp
        except BaseException as exc:
            await self._fail(exc)
            raise
        finally:
            del error  # its traceback holds this frame

    async def give_up(self, exc: BaseException) -> aiohttp.ClientResponse:
        """End a request that something else than an attempt has failed.

        Raises:
            BaseException: `exc`.
        """
        try:
            await self._fail(exc)
            raise exc
        finally:
            del exc

    async def _fail(self, exc: BaseException) -> None:
        if self._stop_timer is not None:
            self._stop_timer()
        if self.tracker is not None:
            self.tracker._finalize()
        if self.resp is not None:
            self.resp.close()
        await self._close_body()
        for trace in self.traces:
            await trace.send_request_exception(self.method, self.traced_url(), self.headers, exc)

    def take_over(self, hop: Hop, traces: list[Trace]) -> None:
        """Go on with what the core has begun: its clock, its traces and its request."""
        if hop.clock is not None:
            self.timer = hop.clock
            self._stop_timer = hop.clock.stop
        self.traces = traces
        if hop.headers is not None:
            self.headers = hop.headers
        self.req = hop.req
        self.key = hop.prepared.key

    async def _begin(self) -> None:
        """Start the clock where code of the user's runs inside, and tell the traces."""
        session = self.session
        if not (session._trace_configs or self.middlewares):
            return
        clock = None
        if self.total_at:
            connector: Any = session._connector
            clock = Clock(session._loop, connector.pool.deadlines, self.total_at)
            self._stop_timer = clock.stop
        context = self.options.get("trace_request_ctx")
        for config in session._trace_configs:
            # Through its module: tools replace it there.
            new_trace = vars(_client)["Trace"]
            trace = new_trace(session, config, config.trace_config_ctx(trace_request_ctx=context))
            await trace.send_request_start(self.method, self.traced_url(), self.headers)
            self.traces.append(trace)
        if clock is not None:
            self.timer = clock

    def _leave_timer(self, resp: aiohttp.ClientResponse) -> None:
        """Stop the clock; the core times the body, but aiohttp's own parts of it need this one."""
        if self._stop_timer is not None:
            if getattr(resp, "_exchange", None) is None and resp.connection is not None:
                resp.connection.add_callback(self._stop_timer)
            else:
                self._stop_timer()

    def traced_url(self) -> URL:
        """The URL as traces are told of it."""
        return self.url.update_query(self.params)

    async def _settle(self, req: ClientRequest) -> None:
        """Wait until the cancelled upload of a request has ended, within the total time."""
        if (task := req._writer) is None:
            return
        left = max(0.0, self.total_at - self.session._loop.time()) if self.total_at else None
        if not await settle(task, left):
            raise asyncio.TimeoutError

    async def _close_body(self) -> None:
        if self.req is not None and self.req._body is not None:
            await self.req._body.close()

    async def _hop_on(
        self, resp: aiohttp.ClientResponse | None, error: BaseException | None
    ) -> aiohttp.ClientResponse:
        """Send, and send again while that is called for."""
        while True:
            if resp is None:
                failed, error = error, None
                try:
                    resp = await self._try(failed)
                except _Again:
                    continue
                finally:
                    del failed
                self.resp = resp
            if cookies := resp._raw_cookie_headers:
                self.session._cookie_jar.update_cookies_from_headers(cookies, resp.url)
            if resp.status not in REDIRECTS or not self.options.get("allow_redirects", True):
                return resp
            for trace in self.traces:
                await trace.send_request_redirect(self.method, self.traced_url(), self.headers, resp)
            if not await self._follow(resp):
                return resp
            resp = None

    # One hop

    async def _try(self, error: BaseException | None) -> aiohttp.ClientResponse:
        """Build and send the request.

        Args:
            error: what sending it has raised, when that was done already.

        Raises:
            _Again: it is to be sent again on another connection.
        """
        if error is None:
            self.req = self.build()
        req = self.req
        try:
            if error is not None:
                raise error
            assert req is not None
            if self.middlewares:
                return await build_client_middlewares(self.handle, self.middlewares)(req)
            return await self.handle(req)
        except NOT_CONNECTED:
            raise
        except (ClientOSError, ServerDisconnectedError):
            if not self.may_retry or not self._is_affordable(req):
                raise
            self.may_retry = False
            if self.data is not None and req is not None:
                # The payload rewinds itself; building it anew would send only the unread rest.
                await self._settle(req)
                body = req._body
                if body is not None and body.consumed:
                    raise
                self.data = body
            key = self.key if req is None else req.connection_key
            assert key is not None
            count_retry(self.session, key)
            raise _Again from None
        except ClientError:
            raise
        except OSError as exc:
            if exc.errno is None and isinstance(exc, asyncio.TimeoutError):
                raise
            raise ClientOSError(*exc.args) from exc
        finally:
            del error

    def _is_affordable(self, req: ClientRequest | None) -> bool:
        """Whether the policies among the middlewares let the request be sent again, and pay for it."""
        asked = [getattr(middleware, "may_send_again", None) for middleware in self.middlewares or ()]
        return all(may_send_again(req) for may_send_again in asked if may_send_again is not None)

    async def handle(self, req: ClientRequest) -> aiohttp.ClientResponse:
        """Send a request once: the innermost handler of the middlewares."""
        if (tracker := req._upload_tracker) is not None:
            req._upload_gen = tracker._attempt_started()
        if (self.middlewares or self.traces) and not attempt.is_express(req):
            return await attempt.send_by_aiohttp(
                self.session, req, self.settings, self.timeout, self.timer, self.traces
            )
        # None when the session was closed meanwhile; aiohttp says it in the same way.
        if self.session._connector is None:
            raise AssertionError
        prepared = prepare(req, self.session._connector)  # type: ignore[arg-type]
        if not self.traces:
            prepared.fill()
        timer = None if self.timer is UNTIMED else self.timer
        return await attempt.send(
            self.session, prepared, self.settings, self.timeout, self.total_at, timer, self.traces
        )

    def build(self) -> ClientRequest:
        """Let aiohttp build the request for the URL as it is now."""
        session = self.session
        self.url, auth_from_url = strip_auth_from_url(self.url)
        url = self.url
        if not url.raw_host:
            raise (InvalidUrlRedirectClientError if self.history else InvalidUrlClientError)(url)
        auth = self._auth(url, auth_from_url)
        req = ClientRequest(
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
            expect100=self.options.get("expect100", False),
            loop=session._loop,
            response_class=session._response_class,
            session=session,
            ssl=self.ssl,
            server_hostname=self.options.get("server_hostname"),
            timer=self.timer,
            traces=self.traces,
        )
        req._upload_tracker = self.tracker
        return req

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

    async def _follow(self, resp: aiohttp.ClientResponse) -> bool:
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
        if self.data is not None and self.req is not None:
            # Two uploads must not read one body.
            await self._settle(self.req)
        return True

    def _change_method(self, resp: aiohttp.ClientResponse) -> None:
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
        if self.req is None:
            # The first attempt was not this call's: the body is as the caller gave it.
            return
        body = self.req._body
        if body is not None and body.consumed:
            resp.close()
            raise ClientPayloadError(
                "Cannot follow redirect with a consumed request "
                "body. Use bytes, a seekable file-like object, "
                "or set allow_redirects=False."
            )
        self.data = body

    def _target(self, resp: aiohttp.ClientResponse, location: str) -> URL:
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
    def _origin(resp: aiohttp.ClientResponse, target: URL) -> URL:
        try:
            return target.origin()
        except ValueError as exc:
            resp.close()
            raise InvalidUrlRedirectClientError(target, "Invalid redirect URL origin") from exc
