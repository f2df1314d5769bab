"""`ClientSession` and `request()`: aiohttp's API, and the choice of the lane."""

import asyncio
import contextvars
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from aiohttp.client import _RequestContextManager, _SessionRequestContextManager
from aiohttp.helpers import sentinel
from aiohttp.http import HttpVersion11

from ._signatures import like
from ._switch import NATIVE
from .batch import Batch
from .batch.api import MAX_BODY
from .lanes import EXPRESS_OPTIONS, Explanation, LaneReason, LaneStats, explain, lane_reason, refuse_or_log
from .observe import tracking
from .pooling import PoolTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence

    from aiohttp import BaseConnector, BasicAuth, ClientTimeout
    from aiohttp.abc import AbstractCookieJar
    from aiohttp.http import HttpVersion
    from aiohttp.typedefs import JSONBytesEncoder, JSONEncoder, LooseCookies, LooseHeaders, StrOrURL

    from .batch import Progress
    from .batch.request import Given
    from .policy import RateLimit, Retry
    from .typed import TypedSession as _Session
    from .typed import request as _typed_request
else:
    _Session = aiohttp.ClientSession

if TYPE_CHECKING or NATIVE:
    from . import express
    from ._core import request as core
    from ._core.request import RequestCoroutine
    from ._core.rethrow import raise_cause
    from .connector import TCPConnector
    from .express import ExpressLane
    from .lanes import WATCH, is_patched
    from .response import ClientResponse
else:
    from .fallback import ClientResponse, TCPConnector, raise_cause

_T = TypeVar("_T")
_REQUEST = aiohttp.ClientSession._request
# The request on its way through a patched method, in this task.
_patched_call: contextvars.ContextVar[object] = contextvars.ContextVar("patched_call", default=None)


with warnings.catch_warnings():
    # aiohttp discourages subclasses of ClientSession; this one is what isinstance rests on.
    warnings.simplefilter("ignore", DeprecationWarning)

    class ClientSession(_Session):
        """First-class interface for making HTTP requests: aiohttp's own, on the native core.

        Every argument, method and attribute is aiohttp's; see its documentation. Without
        the extension it is aiohttp's session in all it does, with connectors and responses that
        take the parameters and have the attributes of the native ones.

        Args:
            strict_native: refuse, with `FullLaneError`, a request that would run on aiohttp's own
                code instead of the core, before anything is sent.
        """

        ATTRS = aiohttp.ClientSession.ATTRS | {"_lane", "_lanes", "_strict_native"}

        # None in a session that aiohttp made before `install()`.
        _lanes: LaneStats | None = None
        _lane: "ExpressLane | None" = None
        _strict_native = False

        if TYPE_CHECKING:

            def __init__(
                self,
                base_url: StrOrURL | None = None,
                *,
                connector: BaseConnector | None = None,
                loop: asyncio.AbstractEventLoop | None = None,
                cookies: LooseCookies | None = None,
                headers: LooseHeaders | None = None,
                proxy: StrOrURL | None = None,
                proxy_auth: BasicAuth | None = None,
                skip_auto_headers: Iterable[str] | None = None,
                auth: BasicAuth | None = None,
                json_serialize: JSONEncoder = ...,
                json_serialize_bytes: JSONBytesEncoder | None = None,
                request_class: type[aiohttp.ClientRequest] = ...,
                response_class: type[aiohttp.ClientResponse] = ...,
                ws_response_class: type[aiohttp.ClientWebSocketResponse[bool]] = ...,
                version: HttpVersion = ...,
                cookie_jar: AbstractCookieJar | None = None,
                connector_owner: bool = True,
                raise_for_status: bool | Callable[[aiohttp.ClientResponse], Awaitable[None]] = False,
                timeout: ClientTimeout | None = ...,
                auto_decompress: bool = True,
                trust_env: bool = False,
                requote_redirect_url: bool = True,
                trace_configs: list[aiohttp.TraceConfig] | None = None,
                read_bufsize: int = ...,
                max_line_size: int = 8190,
                max_field_size: int = 8190,
                max_headers: int = 128,
                fallback_charset_resolver: Callable[[aiohttp.ClientResponse, bytes], str] = ...,
                middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
                ssl_shutdown_timeout: float | None = ...,
                strict_native: bool = False,
            ) -> None: ...

            async def __aenter__(self) -> "ClientSession": ...

        else:

            @like(aiohttp.ClientSession.__init__)
            def __init__(self, base_url=None, *, connector=None, loop=None, strict_native=False, **kwargs):
                self._connector = None
                self._strict_native = strict_native
                if connector is None:
                    shutdown = kwargs.get("ssl_shutdown_timeout", sentinel)
                    connector = TCPConnector(loop=loop, ssl_shutdown_timeout=shutdown)
                    try:
                        self._init(base_url, connector, loop, kwargs)
                    except BaseException:
                        connector._close()
                        raise
                else:
                    self._init(base_url, connector, loop, kwargs)
                if tracking.sessions is not None:
                    tracking.sessions.opened(self)

            def _init(self, base_url, connector, loop, kwargs):
                kwargs.setdefault("response_class", ClientResponse)
                super().__init__(base_url, connector=connector, loop=loop, **kwargs)
                if NATIVE:
                    self._lane = ExpressLane(self)

            @like(aiohttp.ClientSession._request)
            def _request(self, method, str_or_url, **kwargs):
                if tracking.sessions is not None:
                    from .observe import leaks

                    asking = leaks.ask(self, _request_of_ours, method, str_or_url, kwargs)
                    if asking is not None:
                        return asking
                try:
                    lane = self._lane
                except AttributeError:
                    # A tool kept this function of ours, and calls it for a session of aiohttp's.
                    return _REQUEST(self, method, str_or_url, **kwargs)
                is_unusual = not NATIVE or not kwargs.keys() <= EXPRESS_OPTIONS
                if is_unusual or (not WATCH.is_unchanged() and is_patched()):
                    return self._perform(method, str_or_url, kwargs)
                if lane is None:
                    lane = self._lane = ExpressLane(self)
                return RequestCoroutine(lane, self, method, str_or_url, kwargs)

            if NATIVE:
                request = like(aiohttp.ClientSession.request)(core.request)
                get = like(aiohttp.ClientSession.get)(core.get)
                options = like(aiohttp.ClientSession.options)(core.options)
                head = like(aiohttp.ClientSession.head)(core.head)
                post = like(aiohttp.ClientSession.post)(core.post)
                put = like(aiohttp.ClientSession.put)(core.put)
                patch = like(aiohttp.ClientSession.patch)(core.patch)
                delete = like(aiohttp.ClientSession.delete)(core.delete)

            def _perform(self, method, str_or_url, options):
                """Find the lane of a request that is more than the core does by itself, and take it."""
                reason = lane_reason(self, method, options)
                if reason is None:
                    lane = self._lane
                    if lane is None:
                        lane = self._lane = ExpressLane(self)
                    lane.express += 1
                    return express.perform(self, lane, method, str_or_url, options)
                refuse_or_log(self, method, str_or_url, options, self._strict_native)
                if self._lanes is None:
                    self._lanes = LaneStats()
                self._lanes.count_full(reason)
                if reason is LaneReason.PATCHED:
                    return self._request_patched(super()._request, method, str_or_url, options)
                return _in_the_pools_words(self, super()._request(method, str_or_url, **options))

            async def _request_patched(self, request, method, str_or_url, kwargs):
                """Go through a patch; it may have kept `_request` above for the original, and call it."""
                # The task, too: tasks that are started on the way inherit the context.
                call = (asyncio.current_task(), self, method, str_or_url)
                if _patched_call.get() == call:
                    return await _REQUEST(self, method, str_or_url, **kwargs)
                token = _patched_call.set(call)
                try:
                    return await _in_the_pools_words(self, request(method, str_or_url, **kwargs))
                finally:
                    _patched_call.reset(token)

            @like(aiohttp.ClientSession.close)
            def close(self):
                if tracking.sessions is not None:
                    tracking.sessions.closed(self)
                return super().close()

        async def prewarm(self, origin: "StrOrURL", n: int = 1) -> int:
            """Open connections before they are needed, within the session's timeout and the limits.

            Args:
                origin: where to, as in "https://example.org"; relative to `base_url` if there is one.
                n: how many connections shall be open, idle and used ones counted.

            Returns:
                How many connections to the origin are open, or nearly.

            Raises:
                ValueError, TypeError: bad arguments.
                ClientConnectorError: no connection at all could be made.
                ClientConnectionError: the connector is closed, or it is none of wirespeed's.
                RuntimeError: the session is closed.
            """
            if self.closed:
                raise RuntimeError("Session is closed")
            prewarm = getattr(self._connector, "prewarm", None)
            if prewarm is None:
                raise aiohttp.ClientConnectionError(f"{self._connector!r} cannot open connections beforehand")
            count: int = await prewarm(self._build_url(origin), n, timeout=self._timeout)
            return count

        def batch(
            self,
            requests: "Iterable[Given] | AsyncIterable[Given]",
            *,
            concurrency: int = 100,
            ordered: bool = False,
            retry: "Retry | int | None" = None,
            rate: "RateLimit | float | None" = None,
            timeout: "ClientTimeout | float | None" = sentinel,  # type: ignore[assignment]
            max_body: int | None = MAX_BODY,
            on_progress: "Callable[[Progress], object] | None" = None,
        ) -> Batch:
            """Send very many requests at constant memory: `async for result in session.batch(urls)`.

            They go the way of single requests: the same pool and limits, cookies, redirects, policies and
            other middlewares. Failures are results. A consumer that is slow holds back the input: what was
            taken of it and not handed over yet is at most twice `concurrency`, and of an async iterable up to
            64 more.

            Args:
                requests: an iterable or async iterable of URLs (str or yarl.URL) and `wirespeed.Request`s. It
                    is asked for the next in the middle of other work: it must not block.
                concurrency: requests under way at the same time, at most; the connector's `limit` holds, too.
                ordered: give results in the order of the requests. One slow answer then holds up those behind
                    it.
                retry: which requests to send again, or how often at most; each attempt has the whole timeout.
                rate: requests per second, further attempts included; or a policy, with its own keys. Waiting
                    for it does not count against the timeout.
                timeout: of each attempt, a ClientTimeout or seconds in all; the session's when not given.
                max_body: bytes that a body may have, as it comes and decoded; a longer one is the error
                    `BodyTooLarge`. None for any length.
                on_progress: called with a `Progress`, four times a second and at the end.

            Returns:
                A `Batch`: an async iterator of `Result`. Nothing is sent before it is iterated.

            Raises:
                TypeError, ValueError: bad arguments.
                RuntimeError: the session is closed.
            """
            return Batch(
                self,
                requests,
                concurrency=concurrency,
                ordered=ordered,
                retry=retry,
                rate=rate,
                timeout=timeout,
                max_body=max_body,
                on_progress=on_progress,
            )

        def explain(self, method: str, url: Any, **options: Any) -> Explanation:
            """Tell which lane a request would take, and why; nothing is sent.

            Args:
                method: the method.
                url: the URL; the lane does not depend on it.
                options: the keyword arguments that the request would have.

            Returns:
                The lane, the named reason when it is aiohttp's own code, and what to change.
            """
            return explain(self, method, options)

        def native_stats(self) -> dict[str, Any]:
            """Count the requests of this session by lane.

            Returns:
                `{"express": n, "full": {reason: n}}`; a request is counted when it is made.
            """
            express_count = 0 if self._lane is None else self._lane.express
            return (self._lanes or LaneStats()).snapshot(express_count)


def _in_the_pools_words(session: aiohttp.ClientSession, request: "Awaitable[_T]") -> "Awaitable[_T]":
    """Raise what the pool said, which on aiohttp's code is behind its words for any timeout of connecting."""
    if not NATIVE:
        # One more frame of Python, which aiohttp's warnings would point at: only where it is of use.
        options = getattr(session._connector, "options", None)
        if options is None or options.pool_timeout is None:
            return request
    return raise_cause(request, aiohttp.ConnectionTimeoutError, PoolTimeout)


if not TYPE_CHECKING:
    _request_of_ours = ClientSession.__dict__["_request"]
    if NATIVE:
        # It is what aiohttp's methods return, too.
        _RequestContextManager.register(RequestCoroutine)
        core.serve(aiohttp.ClientSession, _request_of_ours, WATCH, is_patched, tracking, EXPRESS_OPTIONS)

if tracking.is_wanted():
    from .observe import leaks

    leaks.start()

if TYPE_CHECKING:
    request = _typed_request
else:

    @like(aiohttp.request)
    def request(method, url, *, version=HttpVersion11, connector=None, loop=None, **kwargs):
        connector_owner = connector is None
        if connector is None:
            connector = TCPConnector(loop=loop, force_close=True)
        session = ClientSession(
            loop=loop,
            cookies=kwargs.pop("cookies", None),
            version=version,
            timeout=kwargs.pop("timeout", sentinel),
            connector=connector,
            connector_owner=connector_owner,
        )
        return _SessionRequestContextManager(session._request(method, url, **kwargs), session)
