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
from ._core.address import Address
from ._core.connection import Connection
from ._core.dial import Dial
from ._core.exchange import Exchange, ExchangeSettings
from ._core.hosts import ConnectTimeout, PoolClosed, TooManyWaiters, WaitTimeout
from ._core.request import RequestCoroutine
from .acquisition import StandIn, connection_timeout
from .call import NOT_CONNECTED, REDIRECTS, Call, check_status, count_retry
from .direct import address_for
from .hooks import HookedLane, new_hooks
from .lanes import WATCH, lane_reason
from .prepare import Prepared, as_timeout, has_usual_heads, has_usual_jar, new_settings
from .response import ClientResponse

# Those whose heads are put together from shapes.
SHAPED_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "PUT", "POST", "PATCH"})


class ExpressLane(HookedLane):
    """What the express lane keeps of one session, and what it does in Python.

    Args:
        session: the session; not kept.
    """

    def __init__(self, session: ClientSession) -> None:
        super().__init__(WATCH, ClientResponse, SHAPED_METHODS, Prepared, sentinel)
        self.settings = new_settings(session, {})
        self.hooks = new_hooks()

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

    def _new_settings(self, session: ClientSession) -> ExchangeSettings:
        return new_settings(session, {})

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

    def _direct_address(self, asked: RequestCoroutine) -> tuple[str, int] | None:
        """Where the core may connect to by itself; None where dialling is aiohttp's."""
        return address_for(asked.connector, asked.prepared.key)

    def _leave_dial(self, asked: RequestCoroutine, dial: Dial) -> None:
        """The request was served otherwise; its dial goes on for the pool."""
        asked.connector._leave_dial(dial.waiter.host, dial)

    async def _dial_again(self, asked: RequestCoroutine, conn: Connection) -> Connection:
        """Get another connection for one that was lost before it was used."""
        pool = asked.connector.pool
        if not conn.is_dialled or pool.is_closed:
            asked.prepared.host = pool.host(asked.prepared.key)
            return await self._dial(asked, False)
        # A server that takes connections and drops them: we would dial for ever.
        exc = ServerDisconnectedError()
        self._unsent(asked, exc)
        raise exc

    async def _undialled(self, asked: RequestCoroutine, exc: Exception) -> aiohttp.ClientResponse:
        """Give the caller what a failed dial comes to."""
        try:
            return await self._recover(asked, self._as_dialled(asked, exc))
        finally:
            del exc  # its traceback holds this frame

    def _as_dialled(self, asked: RequestCoroutine, exc: Exception) -> Exception:
        """What a failed dial raises, which the observers are told of."""
        if type(exc) is ConnectTimeout:
            told = connection_timeout(asked.prepared.real_url.with_fragment(None), exc)
            exc = _caused(told, exc.__cause__)
        self._unsent(asked, exc)
        return exc

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
            exc = self._as_raised(asked, exc)
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

    def _as_raised(self, asked: RequestCoroutine, exc: Exception) -> Exception:
        """What an attempt raises for what it died of."""
        prepared = asked.prepared
        if isinstance(exc, PoolClosed | TooManyWaiters | WaitTimeout):
            if isinstance(exc, TooManyWaiters):
                # Of the others they are told where the waiting ends.
                self._unsent(asked, exc)
            told: Exception = asked.connector._refusal(prepared.host, prepared.real_url, exc)
        elif isinstance(exc, HttpProcessingError):
            told = attempt.bad_response(prepared, exc)
        elif type(exc) is ConnectionResetError:
            # Lost while it was in hand.
            told = ClientConnectionResetError(*exc.args)
        else:
            return exc
        told.__cause__ = exc
        return told

    async def _look_at(self, asked: RequestCoroutine, resp: ClientResponse) -> aiohttp.ClientResponse:
        """Deal with cookies, a redirect, or a status that the caller does not want."""
        session, options = asked.session, asked.options
        try:
            if resp.status in REDIRECTS and options.get("allow_redirects", True):
                return await self._call(asked).run(resp)
            if resp.has_cookies:
                cookies = resp._raw_cookie_headers
                assert cookies is not None
                session._cookie_jar.update_cookies_from_headers(cookies, resp.url)
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


def _caused(exc: BaseException, cause: BaseException | None) -> Any:
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
