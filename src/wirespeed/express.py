"""The express lane: a request over the native core.

`perform` is what a session awaits. A plain request goes straight through; a retry, a
redirect, and whatever else a request may ask for go on as a `Call`.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import ClientSession
from aiohttp.client import IDEMPOTENT_METHODS
from aiohttp.client_exceptions import ClientError, ClientOSError, ServerDisconnectedError

from . import shapes
from .acquisition import StandIn
from .attempt import send
from .call import NOT_CONNECTED, REDIRECTS, Call, check_status, count_retry, total_at
from .prepare import PLAIN_OPTIONS, Prepared, SessionState, timeout_of


async def perform(
    session: ClientSession, state: SessionState, method: str, str_or_url: Any, options: Mapping[str, Any]
) -> aiohttp.ClientResponse:
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
    if options and (tracker := options.get("upload_tracker")) is not None:
        tracker._bind()
        try:
            call = _new_call(session, state, method, str_or_url, options)
        except BaseException:
            tracker._finalize()
            raise
        return await call.run()
    try:
        if not session._trace_configs and not session._middlewares and not session.closed:
            method = method.upper()
            found: Any = None
            if not options or options.keys() <= PLAIN_OPTIONS:
                found = state.plain.find(session, method, str_or_url)
            if not isinstance(found, Prepared) and options.keys() <= shapes.OPTIONS:
                found = shapes.find(session, state.plain, method, str_or_url, options, found)
            if isinstance(found, Prepared):
                return await _perform_plain(session, state, found, str_or_url, options)
            if found is not None:
                options = found
        return await _new_call(session, state, method, str_or_url, options).run()
    except StandIn as exc:
        # The connector, somebody's subclass, dials what the pool cannot keep. Nothing was sent.
        exc.hand_over()
    return await session._request(method, str_or_url, **options)


def _new_call(
    session: ClientSession, state: SessionState, method: str, str_or_url: Any, options: Mapping[str, Any]
) -> Call:
    if session.closed:
        raise RuntimeError("Session is closed")
    return Call(session, state, method.upper(), str_or_url, options)


async def _perform_plain(
    session: ClientSession,
    state: SessionState,
    prepared: Prepared,
    str_or_url: Any,
    options: Mapping[str, Any],
) -> aiohttp.ClientResponse:
    """The common case, straight through; a retry or a redirect goes on as a `Call`."""
    timeout = timeout_of(session, options) if options else session._timeout
    total_by = total_at(session._loop, timeout)
    try:
        resp = await send(session, prepared, state.settings, timeout, total_by)
    except NOT_CONNECTED:
        raise
    except (ClientOSError, ServerDisconnectedError):
        if not (session._retry_connection and prepared.method in IDEMPOTENT_METHODS):
            raise
        count_retry(session, prepared.key)
        call = Call(session, state, prepared.method, str_or_url, options, total_by)
        call.may_retry = False
        return await call.run()
    except ClientError:
        raise
    except OSError as exc:
        if exc.errno is None and isinstance(exc, asyncio.TimeoutError):
            raise
        raise ClientOSError(*exc.args) from exc
    try:
        if resp.has_cookies:
            cookies = resp._raw_cookie_headers
            assert cookies is not None
            session._cookie_jar.update_cookies_from_headers(cookies, resp.url)
        if resp.status in REDIRECTS and (not options or options.get("allow_redirects", True)):
            return await Call(session, state, prepared.method, str_or_url, options, total_by).run(resp)
        raise_for_status = options.get("raise_for_status") if options else None
        if raise_for_status is None:
            raise_for_status = session._raise_for_status
        if raise_for_status:
            await check_status(resp, raise_for_status)
    except BaseException:
        resp.close()
        raise
    return resp
