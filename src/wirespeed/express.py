"""The express lane: a request over the native core.

A session awaits `RequestCoroutine` of the core, which does by itself what most requests need. What it
leaves to Python is here, as the methods of `ExpressLane`: heads that are not kept yet, dialling, errors and
the second try, cookies, redirects and `raise_for_status`. What a request may ask for beyond that is a `Call`.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from aiohttp import ClientSession, ClientTimeout
from aiohttp.client import IDEMPOTENT_METHODS
from aiohttp.client_exceptions import (
    ClientConnectionResetError,
    ClientError,
    ClientOSError,
    ServerDisconnectedError,
)
from aiohttp.helpers import sentinel
from aiohttp.http import HttpProcessingError

from . import attempt, shapes
from ._core.connection import Connection
from ._core.exchange import Exchange
from ._core.hosts import PoolClosed, TooManyWaiters, WaitTimeout
from ._core.lane import Address, Lane
from ._core.request import RequestCoroutine
from .acquisition import StandIn
from .call import NOT_CONNECTED, REDIRECTS, Call, check_status, count_retry
from .lanes import WATCH, lane_reason
from .prepare import Prepared, as_timeout, has_usual_heads, has_usual_jar, new_settings
from .response import ClientResponse

# Those whose heads are put together from shapes.
SHAPED_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "PUT", "POST", "PATCH"})


class ExpressLane(Lane):
    """What the express lane keeps of one session, and what it does in Python.

    Args:
        session: the session; not kept.
    """

    def __init__(self, session: ClientSession) -> None:
        super().__init__(WATCH, ClientResponse, SHAPED_METHODS, Prepared, sentinel)
        self.settings = new_settings(session, {})

    # What the core asks about a session

    def _is_full(self, session: ClientSession) -> bool:
        return lane_reason(session, "GET", {}) is not None

    def _is_plain(self, session: ClientSession) -> tuple[bool, bool]:
        """Whether heads may be put together from shapes, and whether the jar is as aiohttp makes it."""
        is_plain = (
            has_usual_heads(session)
            # A mock looks at each connection before it is used.
            and not hasattr(type(session._connector), "pool")
        )
        return is_plain, has_usual_jar(session)

    def _timeout_of(self, timeout: Any) -> ClientTimeout:
        return as_timeout(timeout)

    # What heads are made of

    def _locate(self, session: ClientSession, str_or_url: Any) -> Address | None:
        return shapes.locate(self, session, str_or_url)

    _new_shape = staticmethod(shapes.new_shape)
    _remember_cookies = staticmethod(shapes.remember_cookies)
    _ask_jar = staticmethod(shapes.ask_jar)
    _as_data = staticmethod(shapes.as_data)

    # What the core leaves to Python. `asked` is the RequestCoroutine.

    def _perform(
        self, session: Any, method: str, str_or_url: Any, options: Mapping[str, Any]
    ) -> Awaitable[aiohttp.ClientResponse]:
        """Do all of a request, on the lane that is found now."""
        return session._perform(method, str_or_url, options)  # type: ignore[no-any-return]

    async def _dial(self, asked: RequestCoroutine, has_slot: bool) -> Connection:
        """Get a connection for a request that found none at once.

        Args:
            asked: the request.
            has_slot: the pool has granted it a slot, to dial on.
        """
        return await attempt.acquire(
            asked.session,
            asked.connector,
            asked.prepared,
            asked.timeout,
            asked.total_at,
            has_slot=has_slot,
            asked_at=asked.asked_at,
            connect_at=asked.connect_at,
        )

    def _observe(self, asked: RequestCoroutine) -> Callable[[Exchange], object]:
        """What tells the observers when an exchange has ended."""
        return functools.partial(attempt.tell_end, asked.connector, asked.prepared)

    def _unsent(self, asked: RequestCoroutine, exc: BaseException) -> None:
        """Tell the observers that a request was not sent."""
        attempt.tell_unsent(asked.connector, asked.prepared, asked.asked_at, exc)

    async def _recover(self, asked: RequestCoroutine, exc: Exception) -> aiohttp.ClientResponse:
        """Give the caller what a failed attempt comes to: an error, or the response to a second try."""
        session, prepared = asked.session, asked.prepared
        try:
            if isinstance(exc, StandIn):
                # The connector, somebody's subclass, dials what the pool cannot keep. Nothing was sent.
                exc.hand_over()
                return await session._request(  # type: ignore[no-any-return]
                    asked.method, asked.str_or_url, **asked.options
                )
            if isinstance(exc, PoolClosed | TooManyWaiters | WaitTimeout):
                if isinstance(exc, TooManyWaiters):
                    # The others are told of where the waiting ends.
                    self._unsent(asked, exc)
                raise asked.connector._refusal(prepared.host, prepared.real_url, exc) from exc
            if isinstance(exc, HttpProcessingError):
                raise attempt.bad_response(prepared, exc) from exc
            if type(exc) is ConnectionResetError:
                # Lost while it was in hand.
                exc = _caused(ClientConnectionResetError(*exc.args), exc)
            if not isinstance(exc, ClientError):
                if isinstance(exc, OSError) and not isinstance(exc, asyncio.TimeoutError):
                    raise ClientOSError(*exc.args) from exc
                raise exc
            is_lost = isinstance(exc, ClientOSError | ServerDisconnectedError)
            if not is_lost or isinstance(exc, NOT_CONNECTED):
                raise exc
            if not (session._retry_connection and prepared.method in IDEMPOTENT_METHODS):
                raise exc
        finally:
            del exc  # its traceback holds this frame
        count_retry(session, prepared.key)
        call = self._call(asked)
        call.may_retry = False
        return await call.run()

    async def _look_at(self, asked: RequestCoroutine, resp: ClientResponse) -> aiohttp.ClientResponse:
        """Deal with cookies, a redirect, or a status that the caller does not want."""
        session, options = asked.session, asked.options
        try:
            if resp.has_cookies:
                cookies = resp._raw_cookie_headers
                assert cookies is not None
                session._cookie_jar.update_cookies_from_headers(cookies, resp.url)
            if resp.status in REDIRECTS and options.get("allow_redirects", True):
                return await self._call(asked).run(resp)
            raise_for_status = options.get("raise_for_status")
            if raise_for_status is None:
                raise_for_status = session._raise_for_status
            if raise_for_status:
                await check_status(resp, raise_for_status)
        except BaseException:
            resp.close()
            raise
        return resp

    def _call(self, asked: RequestCoroutine) -> Call:
        return Call(
            asked.session,
            self.settings,
            asked.prepared.method,
            asked.str_or_url,
            asked.options,
            asked.total_at,
        )


def _caused(exc: BaseException, cause: BaseException) -> Any:
    exc.__cause__ = cause
    return exc


async def perform(
    session: ClientSession, lane: ExpressLane, method: str, str_or_url: Any, options: Mapping[str, Any]
) -> aiohttp.ClientResponse:
    """Send a request that is more than a head with a short body, and return its response.

    Args:
        session: the session; the caller found that the express lane takes the request.
        lane: what is kept of this session.
        method: the method, in any case.
        str_or_url: as in aiohttp.
        options: the keyword arguments, all of them among `lanes.EXPRESS_OPTIONS`.

    Raises:
        What `aiohttp.ClientSession.request` raises.
    """
    tracker = options.get("upload_tracker")
    if tracker is not None:
        tracker._bind()
    try:
        if session.closed:
            raise RuntimeError("Session is closed")
        call = Call(session, lane.settings, method.upper(), str_or_url, options)
    except BaseException:
        if tracker is not None:
            tracker._finalize()
        raise
    try:
        return await call.run()
    except StandIn as exc:
        if tracker is not None:
            raise
        exc.hand_over()
    return await session._request(method, str_or_url, **options)
