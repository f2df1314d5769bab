"""The floor: the least that a client on this loop and this parser could spend.

Prebuilt request bytes, one connection per caller, one future per request, httptools without
header callbacks, the body joined when it came in pieces. No URL, no headers, no timeout, no
check beyond the parser's: it is a bound to compare with, not a client to use.
"""

import asyncio
import json
from typing import Any, Final, cast
from urllib.parse import urlencode, urlsplit

import httptools

from . import workloads
from .clients import Call, Client, Target
from .workloads import Kind, Workload

_BUFFER_SIZE: Final = 256 << 10
"""Bytes of the receive buffer: uvloop's own read size."""


class FloorConnection(asyncio.BufferedProtocol):
    """One keep-alive connection; a request at a time."""

    __slots__ = ("_future", "_loop", "_open", "_parser", "_pieces", "_transport", "_view", "lost")

    def __init__(self, loop: asyncio.AbstractEventLoop, view: memoryview, connections: set[Any]) -> None:
        self._loop = loop
        self._open = connections
        self._parser = httptools.HttpResponseParser(self)
        self._view = view
        self._pieces: list[bytes] = []
        self._future: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport
        self.lost = loop.create_future()

    def request(self, head: bytes) -> "asyncio.Future[int]":
        """Send a request; the future gives the length of the answer's body."""
        self._future = future = self._loop.create_future()
        self._transport.write(head)
        return future

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_exception(exc or ConnectionResetError("closed by the server"))
        del self._parser  # it refers back
        self._open.discard(self)
        self.lost.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._parser.feed_data(self._view[:nbytes])

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        future, self._future = self._future, None
        pieces, self._pieces = self._pieces, []
        if future is not None and not future.done():
            future.set_result(len(pieces[0] if len(pieces) == 1 else b"".join(pieces)))


class FloorClient(Client):
    """As many connections as there are requests in flight, kept in a list."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._idle: list[FloorConnection] = []
        self._open: set[FloorConnection] = set()

    async def open(self) -> Call:
        loop = asyncio.get_running_loop()
        workload = self.target.workload
        address = urlsplit(self.target.url)
        host, port = address.hostname or "127.0.0.1", address.port or 80
        context = self.target.ssl_context()
        head = _request_bytes(f"{host}:{port}", workload)
        idle = self._idle
        # One for all: what is received is parsed before the next connection receives.
        view = memoryview(bytearray(_BUFFER_SIZE))
        # The JSON is not decoded: a request that the others decode counts as answered when read.
        decoded = workload.expected if workload.kind in (Kind.DECODE, Kind.RICH) else None

        async def connect() -> FloorConnection:
            _, conn = await loop.create_connection(
                lambda: FloorConnection(loop, view, self._open), host, port, ssl=context
            )
            return conn

        async def kept() -> int:
            conn = idle.pop() if idle else await connect()
            length = await conn.request(head)
            idle.append(conn)
            return length if decoded is None else decoded

        async def fresh() -> int:
            conn = await connect()
            length = await conn.request(head)
            conn.close()
            return length

        return fresh if workload.is_fresh else kept

    async def close(self) -> None:
        # Not close(): over TLS that waits for the server's goodbye.
        left = tuple(self._open)
        for conn in left:
            conn.abort()
        await asyncio.gather(*(conn.lost for conn in left))


def _request_bytes(host: str, workload: Workload) -> bytes:
    """Build what aiohttp would send."""
    target = workload.path
    lines = [f"Host: {host}", "Accept: */*", "Accept-Encoding: gzip, deflate", "User-Agent: floor/1"]
    body = b""
    if workload.kind is Kind.RICH:
        target += f"?{urlencode(workloads.PARAMS)}"
        lines += [f"{name}: {value}" for name, value in workloads.HEADERS.items()]
        cookies = "; ".join(f"{name}={value}" for name, value in workloads.COOKIES.items())
        lines.append(f"Cookie: {cookies}")
    if workload.kind is Kind.POST:
        body = json.dumps(workloads.POST_PAYLOAD).encode()
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    if workload.is_fresh:
        lines.append("Connection: close")
    method = "POST" if workload.kind is Kind.POST else "GET"
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""]).encode() + body
