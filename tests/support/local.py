"""A real server on 127.0.0.1 for tests of absolute behaviour.

The server runs on the test's own loop and consists of callbacks only: no tasks, no timers of
its own, so whatever is left on the loop after a test was left by the client. Handlers get an
`Exchange` and may answer at once, later, in pieces, or never. Servers whose memory must not
count as the client's live in `streamer.py`.
"""

import asyncio
import functools
import json
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

from support.checks import eventually

BLOCK = bytes(range(256)) * 256  # 64 KiB
Headers = Iterable[tuple[str, str]]


class Exchange:
    """One request as the server saw it, and the means to answer it."""

    def __init__(self, connection: "Connection", head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        self.connection = connection
        self.head = head
        self.method, self.target, _ = lines[0].split(" ", 2)
        parts = urlsplit(self.target)
        self.path = parts.path
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.headers = [tuple(line.split(": ", 1)) for line in lines[1:] if line]
        self.body = bytearray()
        self.body_size = 0
        self.keep_body = True
        self.complete = False
        self.answered = False

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    def send(self, data: bytes) -> None:
        """Write, unless the connection is gone."""
        if not self.connection.transport.is_closing():
            self.connection.total_sent += len(data)
            self.connection.transport.write(data)

    def finish(self) -> None:
        """Count the exchange as answered; a pipelined request may be looked at."""
        if not self.answered:
            self.answered = True
            self.connection.server.active -= 1

    def respond(self, status: int = 200, body: bytes = b"", headers: Headers = ()) -> None:
        """Send a whole response; Content-Length is added."""
        lines = [f"HTTP/1.1 {status} Status"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines += [f"Content-Length: {len(body)}", "", ""]
        payload = b"" if self.method == "HEAD" else body
        self.send("\r\n".join(lines).encode("latin-1") + payload)
        self.finish()

    def respond_json(self, value: Any, headers: Headers = ()) -> None:
        self.respond(200, json.dumps(value).encode(), [("Content-Type", "application/json"), *headers])

    def stream(self, size: int | None, *, chunked: bool = False) -> None:
        """Send `size` bytes (None: without end) as fast as the client takes them."""
        framing = "Transfer-Encoding: chunked" if chunked or size is None else f"Content-Length: {size}"
        self.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        self.connection.pump = Pump(self, size, chunked or size is None)
        self.connection.pump.run()


class Pump:
    """Writes a long body for as long as the transport takes it."""

    def __init__(self, exchange: Exchange, size: int | None, chunked: bool) -> None:
        self.exchange, self.left, self.chunked = exchange, size, chunked
        self.sent = 0

    def run(self) -> None:
        connection = self.exchange.connection
        while not (connection.paused or connection.lost or connection.transport.is_closing()):
            take = len(BLOCK) if self.left is None else min(len(BLOCK), self.left)
            if take == 0:
                if self.chunked:
                    self.exchange.send(b"0\r\n\r\n")
                connection.pump = None
                self.exchange.finish()
                return
            piece = BLOCK[:take]
            self.exchange.send(b"%x\r\n%b\r\n" % (take, piece) if self.chunked else piece)
            self.sent += take
            if self.left is not None:
                self.left -= take


class Connection(asyncio.Protocol):
    """One accepted connection: parses requests, hands them to the server's handlers."""

    transport: asyncio.Transport

    def __init__(self, server: "LocalServer") -> None:
        self.server = server
        self.received = bytearray()
        self.total_received = self.total_sent = 0
        self.exchange: Exchange | None = None
        self.pump: Pump | None = None
        self.paused = self.lost = self.eof = False
        self._body_left = 0
        self._chunked = self._chunk_ends = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.number = len(self.server.connections)
        self.server.connections.append(self)
        if self.server.on_connect is not None:
            self.server.on_connect(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = True
        self.transport.close()  # or TLS of CPython 3.10 warns of an unclosed transport
        if self.exchange is not None:
            self.exchange.finish()

    def eof_received(self) -> bool:
        self.eof = True
        return False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.pump is not None:
            self.pump.run()

    def data_received(self, data: bytes) -> None:
        self.total_received += len(data)
        if self.server.raw:
            if self.server.keep_received:
                self.received += data
            if self.server.on_data is not None:
                self.server.on_data(self, data)
            return
        self.received += data
        while self._advance():
            pass

    def _advance(self) -> bool:
        if self.exchange is None or self.exchange.complete:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.received[: end + 2])
            del self.received[: end + 4]
            self._start(Exchange(self, head))
        return self._read_body()

    def _start(self, exchange: Exchange) -> None:
        self.exchange = exchange
        server = self.server
        server.exchanges.append(exchange)
        server.active += 1
        server.max_active = max(server.max_active, server.active)
        self._chunked = (exchange.header("Transfer-Encoding") or "").lower() == "chunked"
        self._body_left = int(exchange.header("Content-Length") or 0)
        early = server.early_routes.get(exchange.path)
        if early is not None:
            early(exchange)

    def _read_body(self) -> bool:
        exchange = self.exchange
        assert exchange is not None
        if self._chunked:
            done = self._read_chunks(exchange)
        else:
            self._take(exchange, min(self._body_left, len(self.received)))
            done = self._body_left == 0
        if done and not exchange.complete:
            exchange.complete = True
            if exchange.path not in self.server.early_routes:
                self.server.dispatch(exchange)
        return done and bool(self.received)

    def _take(self, exchange: Exchange, size: int) -> None:
        exchange.body_size += size
        self._body_left -= size
        if exchange.keep_body:
            exchange.body += self.received[:size]
        del self.received[:size]

    def _read_chunks(self, exchange: Exchange) -> bool:
        while True:
            if self._body_left:
                self._take(exchange, min(self._body_left, len(self.received)))
                if self._body_left:
                    return False
                self._chunk_ends = True
            if self._chunk_ends:
                if len(self.received) < 2:
                    return False
                del self.received[:2]
                self._chunk_ends = False
            end = self.received.find(b"\r\n")
            if end < 0:
                return False
            size = int(bytes(self.received[:end]), 16)
            if size == 0:
                if len(self.received) < end + 4:
                    return False
                del self.received[: end + 4]
                return True
            del self.received[: end + 2]
            self._body_left = size


class LocalServer:
    """A server on 127.0.0.1 (or a unix socket) that a test programs through `routes`.

    Args:
        ssl_context: serve TLS with it.
        path: listen on this unix socket instead.
        raw: hand bytes to `on_data` and keep them in `Connection.received`; no parsing.
    """

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, path: str | None = None, raw: bool = False
    ) -> None:
        self.ssl_context, self.path, self.raw = ssl_context, path, raw
        self.keep_received = True
        self.connections: list[Connection] = []
        self.exchanges: list[Exchange] = []
        self.held: list[Exchange] = []
        self.active = self.max_active = 0
        self.on_connect: Callable[[Connection], None] | None = None
        self.on_data: Callable[[Connection, bytes], None] | None = None
        self.early_routes: dict[str, Callable[[Exchange], None]] = {}
        self.routes: dict[str, Callable[[Exchange], None]] = {
            "/ok": lambda x: x.respond(200, b"ok"),
            "/echo": _echo,
            "/hold": lambda x: self.held.append(x),
            "/drop": lambda x: x.connection.transport.abort(),
            "/bytes": lambda x: x.stream(int(x.query["n"])),
            "/chunked": lambda x: x.stream(int(x.query["n"]), chunked=True),
            "/endless": lambda x: x.stream(None),
            "/half": _half,
            "/status": lambda x: x.respond(int(x.query["n"]), b"status"),
            "/redirect": lambda x: x.respond(
                int(x.query.get("n", "302")), b"", [("Location", x.query["to"])]
            ),
        }

    def dispatch(self, exchange: Exchange) -> None:
        self.routes.get(exchange.path, lambda x: x.respond(404, b"no such route"))(exchange)

    def url(self, path: str = "/", *, scheme: str | None = None, host: str = "127.0.0.1") -> str:
        scheme = scheme or ("https" if self.ssl_context else "http")
        return f"{scheme}://{host}:{self.port}{path}" if self.path is None else f"{scheme}://{host}{path}"

    @property
    def open(self) -> list[Connection]:
        return [connection for connection in self.connections if not connection.lost]

    async def __aenter__(self) -> "LocalServer":
        loop = asyncio.get_running_loop()
        factory = functools.partial(Connection, self)
        if self.path is None:
            self._server = await loop.create_server(
                factory, "127.0.0.1", 0, ssl=self.ssl_context, backlog=1024
            )
            self.port: int = self._server.sockets[0].getsockname()[1]
        else:
            self._server = await loop.create_unix_server(factory, self.path)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for connection in self.open:
            connection.transport.abort()
        await self._server.wait_closed()
        await eventually(lambda: not self.open, "connections of the server closed")


def _echo(exchange: Exchange) -> None:
    exchange.respond_json(
        {
            "method": exchange.method,
            "target": exchange.target,
            "headers": exchange.headers,
            "body": exchange.body.decode("latin-1"),
            "connection": exchange.connection.number,
        }
    )


def _half(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-")
    exchange.connection.server.held.append(exchange)


@contextmanager
def port_that_never_accepts() -> Iterator[int]:
    """A port whose backlog is full: connecting to it hangs."""
    with socket.socket() as listener, ExitStack() as fillers:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(*names: str) -> ssl.SSLContext:
    """A server's context with a certificate for `names` (default: 127.0.0.1 and localhost)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    """A client's context that trusts the tests' authority and nobody else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context
