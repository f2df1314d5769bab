"""One connection of the embedded server: bytes in, answers out, in the order asked.

It parses with httptools, keeps pipelined requests in order behind an answer that is still
being streamed or delayed, stops reading when too many wait, and stops writing when the client
does not read. What to answer is decided in `answers.py`; `server.py` makes the connections.

The same bytes get the same answer: a request that arrived whole and alone is remembered with
its answer until the Date header next changes, so that a repeated request costs one dict lookup.
"""

import asyncio
import enum
from collections import deque
from collections.abc import Iterator
from email.utils import formatdate
from typing import Final, cast

import httptools

from .answers import BLOCK_SIZE, MAX_KEPT, Answer, Request, answer, failure, has_body, reason

_MAX_QUEUED: Final = 64
"""Pipelined requests that may wait before reading stops."""
_MAX_MEMO: Final = 64
"""Requests remembered with their answer; with `BLOCK_SIZE` it bounds the memo at 16 MiB."""
_MAX_MEMO_REQUEST: Final = 4096
"""Longest request remembered, bytes."""
_WRITE_HIGH: Final = 1 << 20
"""Bytes waiting in the transport at which writing pauses."""
_DATE_PERIOD: Final = 1.0
"""Seconds between two Date values: its own resolution."""

# With Server, Date, Content-Type, Content-Length and Connection: the eight of a typical server.
_COMMON: Final = "Cache-Control: no-store\r\nVary: Accept-Encoding\r\nX-Content-Type-Options: nosniff\r\n"


class State(enum.Enum):
    """What a connection does now."""

    READY = "ready"  # the next complete request is answered at once
    DELAYED = "delayed"  # an answer waits for its timer
    STREAMING = "streaming"  # an answer is partly written
    CLOSED = "closed"  # nothing more is written


_MOVES: Final = {
    State.READY: {State.DELAYED, State.STREAMING, State.CLOSED},
    State.DELAYED: {State.READY, State.STREAMING, State.CLOSED},
    State.STREAMING: {State.READY, State.CLOSED},
    State.CLOSED: {State.CLOSED},
}


class ServerState:
    """What the connections of one server share.

    Attributes:
        loop: the loop they run on.
        connections: those that are open.
        requests: requests answered since the start.
        accepted: connections accepted since the start.
        memo: whole requests and the bytes that answer them.
        date: value of the Date header.
    """

    __slots__ = ("_timer", "accepted", "connections", "date", "loop", "memo", "requests")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.connections: set[Connection] = set()
        self.requests = 0
        self.accepted = 0
        self.memo: dict[bytes, bytes] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._on_tick()

    def _on_tick(self) -> None:
        self.date = formatdate(usegmt=True)
        self.memo.clear()
        self._timer = self.loop.call_later(_DATE_PERIOD, self._on_tick)

    def close(self) -> None:
        """Stop the clock and abort every connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in tuple(self.connections):
            connection.abort()


class Connection(asyncio.Protocol):
    """One client connection; callbacks of the transport and of the parser."""

    __slots__ = (
        "_answered",
        "_body",
        "_body_length",
        "_fixed",
        "_headers",
        "_in_message",
        "_is_write_paused",
        "_keeps_body",
        "_parser",
        "_pieces",
        "_queue",
        "_server",
        "_state",
        "_then_close",
        "_timer",
        "_transport",
        "_url",
    )

    def __init__(self, server: ServerState) -> None:
        self._server = server
        self._transport: asyncio.Transport  # from connection_made on
        self._parser = httptools.HttpRequestParser(self)
        self._state = State.READY
        # The message being received.
        self._in_message = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_length = 0
        self._keeps_body = False
        # The answer being sent, and the requests behind it.
        self._queue: deque[Request] = deque()
        self._pieces: Iterator[bytes | memoryview] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._then_close = False
        self._is_write_paused = False
        # What the present data_received answered: input of the memo.
        self._answered = 0
        self._fixed: bytes | None = None

    def _set_state(self, state: State) -> None:
        if state not in _MOVES[self._state]:
            raise RuntimeError(f"illegal move from {self._state.name} to {state.name}")
        self._state = state

    # Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._server.connections.add(self)
        self._server.accepted += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._set_state(State.CLOSED)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._pieces = None
        self._queue.clear()
        # CPython 3.10's TLS transport warns that it was not closed when the client closed first.
        self._transport.abort()
        # Parser and connection refer to each other: let go, so that neither waits for the collector.
        del self._parser

    def abort(self) -> None:
        """Close the connection at once, whatever is left to send."""
        self._transport.abort()

    # Request in

    def data_received(self, data: bytes) -> None:
        is_clean = not self._in_message and self._state is State.READY and not self._is_write_paused
        if is_clean:
            known = self._server.memo.get(data)
            if known is not None:
                self._server.requests += 1
                self._transport.write(known)
                return
        if self._state is State.CLOSED:
            return
        self._answered = 0
        self._fixed = None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(501, "upgrades are not offered")
        except httptools.HttpParserCallbackError:
            self.abort()
            raise
        except httptools.HttpParserError as exc:
            self._fail(400, str(exc))
        else:
            if is_clean and self._answered == 1 and not self._in_message:
                self._remember(data)

    def _remember(self, data: bytes) -> None:
        memo, fixed = self._server.memo, self._fixed
        if fixed is not None and len(memo) < _MAX_MEMO and len(data) <= _MAX_MEMO_REQUEST:
            memo[data] = fixed

    def _fail(self, status: int, message: str) -> None:
        """Answer after what is queued, then close: the bytes that follow cannot be trusted."""
        if self._state is State.READY and not self._queue:
            self._send("GET", failure(status, message, close=True), keep_alive=False)
        else:
            self._then_close = True
        self._pause_reading()

    def _pause_reading(self) -> None:
        if self._state is not State.CLOSED and self._transport.is_reading():
            self._transport.pause_reading()

    # Parser callbacks

    def on_message_begin(self) -> None:
        self._in_message = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._keeps_body = self._url.startswith(b"/echo")
        for name, value in self._headers:
            if name.lower() == b"expect" and value.lower() == b"100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_length += len(body)
        if self._keeps_body and self._body_length <= MAX_KEPT:
            self._body.append(body)

    def on_message_complete(self) -> None:
        request = Request(
            self._parser.get_method().decode("ascii"),
            self._url.decode("latin-1"),
            self._headers,
            b"".join(self._body),
            self._body_length,
            self._parser.should_keep_alive(),
        )
        self._in_message = False
        self._url, self._headers, self._body, self._body_length = b"", [], [], 0
        if self._state is State.READY and not self._is_write_paused:
            self._answered += 1
            self._respond(request)
            return
        self._queue.append(request)
        if len(self._queue) >= _MAX_QUEUED:
            self._pause_reading()

    # Answer out

    def _respond(self, request: Request) -> None:
        self._server.requests += 1
        reply = answer(request)
        if reply.delay:
            self._set_state(State.DELAYED)
            self._timer = self._server.loop.call_later(reply.delay, self._on_delay_over, request, reply)
        else:
            self._send(request.method, reply, keep_alive=request.keep_alive)

    def _on_delay_over(self, request: Request, reply: Answer) -> None:
        self._timer = None
        self._set_state(State.READY)
        self._send(request.method, reply, keep_alive=request.keep_alive)
        self._on_ready()

    def _send(self, method: str, reply: Answer, *, keep_alive: bool) -> None:
        transport = self._transport
        is_last = reply.close or not keep_alive
        head = self._head(method, reply, is_last)
        if not has_body(method, reply.status):
            whole = head
        elif reply.pieces is None:
            whole = head + reply.body
        else:
            transport.write(head)
            self._pieces = reply.pieces
            self._then_close |= is_last
            self._set_state(State.STREAMING)
            self._pump()
            return
        transport.write(whole)
        if is_last:
            self._finish()
        elif not reply.delay and len(whole) <= BLOCK_SIZE:
            self._fixed = whole

    def _head(self, method: str, reply: Answer, is_last: bool) -> bytes:
        lines = [
            f"HTTP/1.1 {reply.status} {reason(reply.status)}",
            "Server: wirespeed-testing",
            f"Date: {self._server.date}",
            f"Content-Type: {reply.content_type}",
        ]
        if reply.pieces is not None and reply.length is None:
            lines.append("Transfer-Encoding: chunked")
        elif reply.status >= 200 and reply.status not in (204, 304):
            lines.append(f"Content-Length: {len(reply.body) if reply.length is None else reply.length}")
        lines.append(f"Connection: {'close' if is_last else 'keep-alive'}")
        lines.extend(f"{name}: {value}" for name, value in reply.headers)
        return ("\r\n".join(lines) + "\r\n" + _COMMON + "\r\n").encode("latin-1")

    def _pump(self) -> None:
        """Write pieces until the transport is full or none is left."""
        if self._pieces is None:
            return
        for piece in self._pieces:
            self._transport.write(piece)
            if self._is_write_paused:
                return
        self._pieces = None
        self._set_state(State.READY)
        if self._then_close and not self._queue:
            self._finish()

    def _on_ready(self) -> None:
        """Answer the requests that waited, as far as the client reads."""
        while self._queue and self._state is State.READY and not self._is_write_paused:
            self._respond(self._queue.popleft())
        if self._state is State.CLOSED:
            return
        if self._then_close:
            if self._state is State.READY and not self._queue:
                self._finish()
        elif len(self._queue) < _MAX_QUEUED and not self._transport.is_reading():
            self._transport.resume_reading()

    def _finish(self) -> None:
        self._set_state(State.CLOSED)
        self._queue.clear()
        self._transport.close()

    # Write flow control

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._pump()
        self._on_ready()
