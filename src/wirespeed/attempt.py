"""One attempt: a request sent once, on one connection, up to the head of its response.

The innermost handler of a request: what a client middleware calls, and what a retry or a
redirect calls again. Called by the express lane. It must not decide about retries, nor
touch the cookie jar.
"""

import asyncio
import functools
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import ClientSession, ClientTimeout, hdrs
from aiohttp.client_exceptions import (
    ClientConnectionResetError,
    ClientResponseError,
    ConnectionTimeoutError,
)
from aiohttp.client_reqrep import ClientRequest
from aiohttp.helpers import EMPTY_BODY_METHODS, BaseTimerContext
from aiohttp.http import HttpProcessingError
from aiohttp.tracing import Trace

from ._core.connection import Connection
from ._core.exchange import Exchange, ExchangeSettings, Failure
from ._core.response import adopt
from .acquisition import StandIn
from .pooling import PoolTimeout
from .prepare import Prepared
from .response import ClientResponse
from .stamps import tell_request
from .telling import origin_of
from .turns import take_turns
from .upload import new_writer, start_upload

_RESPONSE_CLASSES = (ClientResponse, aiohttp.ClientResponse)


async def send(
    session: ClientSession,
    prepared: Prepared,
    settings: ExchangeSettings,
    timeout: ClientTimeout,
    total_at: float,
    timer: BaseTimerContext | None = None,
    traces: Sequence[Trace] = (),
) -> ClientResponse:
    """Send a request and wait for the head of its response.

    Args:
        session: the session.
        prepared: the request; unless it is traced, its head is made.
        settings: what the exchange needs to know.
        timeout: `connect`, `sock_connect` and `sock_read` are used.
        total_at: loop time at which the whole request times out; 0 for never.
        timer: aiohttp's, which cancels this task at that time; else the core sees to it.
        traces: are told about the connection; those of the request, about what is sent.

    Raises:
        ClientError, TimeoutError, OSError: as aiohttp's connecting and sending.
    """
    connector: Any = session._connector
    if traces:
        conn = await _acquire_traced(connector, prepared, timeout, traces)
    else:
        if prepared.host is None or prepared.host.is_evicted:
            prepared.host = connector.pool.host(prepared.key)
        by = total_at if timer is None else 0.0
        conn = connector.pool.take(prepared.host) or await acquire(session, connector, prepared, timeout, by)
    try:
        if not prepared.data:
            await _tell_headers(prepared)
            prepared.fill()
        exchange = conn.send(
            prepared.data if not prepared.has_upload else b"",
            settings,
            skip_body=prepared.skip_body,
            total_at=total_at,
            read_timeout=timeout.sock_read or 0.0,
            has_upload=prepared.has_upload,
            is_unclean=prepared.is_unclean,
        )
    except ConnectionResetError as exc:
        conn.close()  # Lost while the code of traces ran, or that code's own.
        raise ClientConnectionResetError(*exc.args) from exc
    except BaseException:
        conn.close()
        raise
    if connector.observers:
        exchange.on_end = functools.partial(tell_end, connector, prepared)
    upload = None
    if prepared.has_upload:
        upload = await _upload(session, prepared, conn, exchange)
    elif (req := prepared.req) is not None and (tracker := req._upload_tracker) is not None:
        tracker._attempt_finished(req._upload_gen)
    await (_head(exchange, prepared) if timer is None else _head_timed(exchange, prepared, timer))
    own_traces = () if prepared.req is None else prepared.req._traces
    return adopt(ClientResponse, exchange, session, prepared, upload, own_traces)


async def acquire(
    session: ClientSession,
    connector: Any,
    prepared: Prepared,
    timeout: ClientTimeout,
    total_at: float,
    *,
    has_slot: bool = False,
    asked_at: float = 0.0,
    connect_at: float = 0.0,
) -> Connection:
    """Get a reserved connection that the pool did not have at once, and tell the observers of a failure.

    Args:
        session: the session.
        connector: its connector.
        prepared: the request.
        timeout: `connect`, `sock_connect` and `ceil_threshold` are used.
        total_at: loop time at which the whole request times out; 0 for never.
        has_slot: the pool has granted a slot, to dial on.
        asked_at: when the connection was asked for, on the pool's clock; 0 for now.
        connect_at: loop time at which `connect` passes; 0 where it is to be found from `timeout`.
    """
    host = prepared.host
    assert host is not None
    asked_at = asked_at or connector.pool.now()
    try:
        try:
            req = prepared.dial_request(session)
        except BaseException:
            if has_slot:
                connector.pool.free(host)
            raise
        conn: Connection = await connector.acquire(
            host, req, timeout, total_at, has_slot=has_slot, asked_at=asked_at, connect_at=connect_at
        )
        return conn
    except BaseException as exc:
        tell_unsent(connector, prepared, asked_at, exc)
        raise


async def _acquire_traced(
    connector: Any, prepared: Prepared, timeout: ClientTimeout, traces: Sequence[Trace]
) -> Connection:
    req = prepared.req
    assert req is not None
    asked_at = connector.pool.now()
    try:
        conn: Connection = await connector.acquire_traced(req, traces, timeout)
        return conn
    except BaseException as exc:
        tell_unsent(connector, prepared, asked_at, exc)
        if isinstance(exc, asyncio.TimeoutError) and not isinstance(exc, PoolTimeout):
            raise ConnectionTimeoutError(f"Connection timeout to host {req.url}") from exc
        raise


# Observers


def tell_unsent(connector: Any, prepared: Prepared, asked_at: float, exc: BaseException) -> None:
    """Tell the observers of an attempt that got no connection."""
    if connector.observers and not isinstance(exc, StandIn):
        duration = connector.pool.now() - asked_at
        tell_request(connector, origin_of(prepared.key), prepared.method, None, duration, exc)


def tell_end(connector: Any, prepared: Prepared, exchange: Exchange) -> None:
    """Tell the observers of an attempt that is over; the time for its connection is part of it."""
    facts = exchange.facts
    duration = connector.pool.now() - exchange.sent_at + exchange.queued
    if exchange.is_dialled:
        duration += facts.dns + facts.connect + facts.tls
    error = exchange.error
    if exchange.failure == Failure.LET_GO:
        # A body that nobody wants is no error; that nobody waits for the head is one.
        error = asyncio.CancelledError() if exchange.head is None else None
    status = None if exchange.head is None else exchange.head.status
    tell_request(connector, origin_of(prepared.key), prepared.method, status, duration, error)


async def _tell_headers(prepared: Prepared) -> None:
    """The last moment to change the headers, and their signal is known to be used for that."""
    req = prepared.req
    assert req is not None
    for trace in req._traces:
        await trace.send_request_headers(req.method, req.url, req.headers)


def bad_response(prepared: Prepared, exc: HttpProcessingError) -> ClientResponseError:
    """What the caller gets for a response that broke the protocol."""
    return ClientResponseError(prepared.info(), (), status=exc.code, message=exc.message, headers=exc.headers)


async def _head(exchange: Exchange, prepared: Prepared) -> None:
    """Wait for the head of the response."""
    try:
        await exchange.waiter
    except HttpProcessingError as exc:
        exchange.forget()
        raise bad_response(prepared, exc) from exc
    except BaseException:
        exchange.abandon()
        exchange.forget()
        raise


async def _head_timed(exchange: Exchange, prepared: Prepared, timer: BaseTimerContext) -> None:
    try:
        with timer:
            await _head(exchange, prepared)
    except BaseException:
        # The timer may have passed before the wait began.
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
        return start_upload(req, writer, conn, exchange, req._get_content_length())
    except BaseException:
        exchange.abandon()
        raise


# What a middleware may have made of a request


def is_express(req: ClientRequest) -> bool:
    """Whether the core can send a request as it is now; a middleware may have changed anything."""
    return (
        type(req) is ClientRequest
        and req.proxy is None
        and req.response_class in _RESPONSE_CLASSES
        and req.method != hdrs.METH_CONNECT
        and hdrs.UPGRADE not in req.headers
    )


async def send_by_aiohttp(
    session: ClientSession,
    req: ClientRequest,
    settings: ExchangeSettings,
    timeout: ClientTimeout,
    timer: BaseTimerContext,
    traces: list[Trace],
) -> aiohttp.ClientResponse:
    """Send a request that the core cannot, on a connection lent by the pool.

    Raises:
        What aiohttp's connecting and sending raise.
    """
    connector = session._connector
    assert connector is not None
    try:
        conn = await connector.connect(req, traces=traces, timeout=timeout)
    except PoolTimeout:
        raise
    except asyncio.TimeoutError as exc:
        raise ConnectionTimeoutError(f"Connection timeout to host {req.url}") from exc
    try:
        assert conn.protocol is not None
        conn.protocol.set_response_params(
            timer=timer,
            skip_payload=req.method in EMPTY_BODY_METHODS,
            read_until_eof=True,
            auto_decompress=settings.make_sink is not None,
            read_timeout=timeout.sock_read,
            read_bufsize=settings.high_water // 2,
            timeout_ceil_threshold=connector._timeout_ceil_threshold,
            max_line_size=settings.max_line_size,
            max_field_size=settings.max_field_size,
            max_headers=settings.max_headers,
        )
        take_turns(req._body)
        resp = await req.send(conn)
        try:
            await resp.start(conn)
        except BaseException:
            resp.close()
            raise
    except BaseException:
        conn.close()
        raise
    return resp
