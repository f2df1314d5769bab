"""Sending a request body that does not fit into one write: files, generators, forms, compression.

aiohttp's payloads write themselves into aiohttp's StreamWriter, which chunks, compresses and
waits while the transport is full; the core's connection is the protocol it writes to. Called
by the express lane. It must not touch the response.
"""

import asyncio
import functools

from aiohttp.client_exceptions import ClientConnectionError, ClientOSError
from aiohttp.client_reqrep import ClientRequest
from aiohttp.http import StreamWriter

from ._core.connection import Connection
from ._core.exchange import Exchange
from .loops import start_task
from .turns import take_turns


def start_upload(
    req: ClientRequest, writer: StreamWriter, conn: Connection, exchange: Exchange, length: int | None
) -> "asyncio.Task[None] | None":
    """Start to send the body of a request whose head is in the writer.

    Args:
        req: the request; its payload is sent.
        writer: holds the head, and sends it with the first piece of the body.
        conn: counts what was sent.
        exchange: is told when the body was sent, or why not.
        length: bytes to send at most: the Content-Length, if there is one.

    Returns:
        The task that sends, or None when everything was sent at once.
    """
    task = start_task(_send(req, writer, conn, exchange, length))
    if task.done():
        return None
    req._writer = task
    tracker = req._upload_tracker
    exchange.set_upload(task, None if tracker is None else tracker._refresh_flushed)
    return task


async def _send(
    req: ClientRequest, writer: StreamWriter, conn: Connection, exchange: Exchange, length: int | None
) -> None:
    tracker, attempt = req._upload_tracker, req._upload_gen
    if tracker is not None:
        writer.on_body_write = functools.partial(tracker._add_bytes, attempt)
        tracker._attempt_writing(attempt, writer)
    head_size = len(writer._headers_buf or b"")
    try:
        if req._continue is not None:
            exchange.wait_continue(req._continue)
            writer.send_headers()
            await writer.drain()
            await req._continue
        # A middleware, or whoever made the server wait, may have taken the body away meanwhile.
        if (body := req._body) is not None:
            take_turns(body)
            await body.write_with_length(writer, length)
        await writer.write_eof()
    except Exception as exc:
        error = _failure(req, exc)
        if tracker is not None:
            tracker._attempt_failed(attempt, error)
        exchange.fail_upload(error)
        del error  # its cause's traceback holds this frame
    except BaseException:
        if tracker is not None:
            tracker._attempt_failed(attempt, None)
        exchange.cut_upload()
        raise
    else:
        if tracker is not None:
            tracker._attempt_finished(attempt)
        # A body shorter than its Content-Length leaves the server waiting for the next request's bytes.
        is_whole = writer.chunked or length is None or writer.output_size - head_size == length
        exchange.finish_upload(is_whole)
    finally:
        conn.count_out(writer.output_size)


def _failure(req: ClientRequest, exc: Exception) -> Exception:
    """What the caller gets when the body could not be sent, as aiohttp's `write_bytes` says it."""
    if isinstance(exc, OSError):
        if exc.errno is None and isinstance(exc, asyncio.TimeoutError):
            return exc
        error: Exception = ClientOSError(exc.errno, f"Can not write request body for {req.url!s}")
    else:
        error = ClientConnectionError(
            f"Failed to send bytes into the underlying connection Connection<{req.connection_key}>: {exc!r}"
        )
    error.__cause__ = exc
    return error


def new_writer(req: ClientRequest, conn: Connection, loop: asyncio.AbstractEventLoop) -> StreamWriter:
    """Make aiohttp's writer on a core connection, set up as `ClientRequest.send` does."""
    on_chunk_sent = (
        functools.partial(req._on_chunk_request_sent, req.method, req.url) if req._traces else None
    )
    writer = StreamWriter(conn, loop, on_chunk_sent)  # type: ignore[arg-type]
    if req.compress:
        writer.enable_compression(req.compress)  # type: ignore[arg-type]
    if req.chunked is not None:
        writer.enable_chunking()
    return writer


async def settle(task: "asyncio.Task[None]", timeout: float | None = None) -> bool:
    """Wait until an upload has ended; its own cancellation is not the caller's.

    Args:
        task: the upload.
        timeout: seconds to wait at most; None for no limit.

    Returns:
        Whether it has ended.
    """
    if not task.done():
        await asyncio.wait([task], timeout=timeout)
    return task.done()
