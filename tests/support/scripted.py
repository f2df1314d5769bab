"""A raw server that follows a script and remembers every byte it was sent.

A script is a list of connections, each a list of steps. A connection that has come to the
end of its steps, and every connection beyond the list, answers plainly and keeps the
connection alive, so that whether a client reused a connection can be read off
`ScriptedServer.received`. Nothing here knows HTTP beyond the end of a request: what goes
out is exactly the bytes of the script.
"""

import asyncio
import contextlib
import itertools
import os
import re
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import trustme

PLAIN_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain"
"""What a connection says once its script has ended."""

TICKS = 4
"""Loop iterations between two pieces: enough for the peer to read the first alone."""


@dataclass(frozen=True)
class Expect:
    """Read one whole request: the head, and a body by Content-Length or chunked."""


@dataclass(frozen=True)
class ExpectHead:
    """Read a head and leave what follows unread."""


@dataclass(frozen=True)
class ExpectBytes:
    """Read that many bytes."""

    count: int


@dataclass(frozen=True)
class Send:
    """Write bytes at once; the marks `@BASE@`, `@OTHER@` and `@PORT@` become what they name."""

    data: bytes


@dataclass(frozen=True)
class Pieces:
    """Write pieces, a few loop iterations or `delay` seconds apart."""

    pieces: tuple[bytes, ...]
    delay: float = 0.0


@dataclass(frozen=True)
class Pause:
    """Do nothing for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Await:
    """Do nothing until the case sets the server's event of that name."""

    name: str


@dataclass(frozen=True)
class Close:
    """Close after what was written has gone out."""


@dataclass(frozen=True)
class Reset:
    """Abort with a TCP reset (SO_LINGER of zero)."""


@dataclass(frozen=True)
class SendEof:
    """Close the writing half only."""


@dataclass(frozen=True)
class Stall:
    """Say nothing until the client goes away."""


@dataclass(frozen=True)
class StopReading:
    """Leave everything the client sends in the socket buffers."""


Step = (
    Expect
    | ExpectHead
    | ExpectBytes
    | Send
    | Pieces
    | Pause
    | Await
    | Close
    | Reset
    | SendEof
    | Stall
    | StopReading
)
Script = Sequence[Sequence[Step]]


def by_byte(data: bytes) -> Pieces:
    """Deliver `data` one byte at a time."""
    return Pieces(tuple(data[i : i + 1] for i in range(len(data))))


def split_at(data: bytes, *offsets: int, delay: float = 0.0) -> Pieces:
    """Deliver `data` in pieces that begin at the offsets."""
    bounds = [0, *offsets, len(data)]
    return Pieces(tuple(data[a:b] for a, b in itertools.pairwise(bounds)), delay)


class _ClientGone(Exception):
    """The client closed before the step could be done."""


_LENGTH = re.compile(rb"^content-length:[ \t]*(\d+)[ \t]*\r?$", re.I | re.M)
_CHUNKED = re.compile(rb"^transfer-encoding:[^\r\n]*chunked", re.I | re.M)


class Peer(asyncio.Protocol):
    """One accepted connection, driven through its steps by a task of its own."""

    def __init__(self, server: "ScriptedServer") -> None:
        self._server = server
        self._unread = bytearray()
        self._wake = asyncio.Event()
        self._eof = False
        self.received = bytearray()
        self.lost = asyncio.Event()
        self.is_waiting = False

    # Transport events

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        steps = self._server.take_steps(self)
        self.task = asyncio.get_running_loop().create_task(self._drive(steps))

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._unread += data
        self._wake.set()

    def eof_received(self) -> bool:
        self._eof = True
        self._wake.set()
        return not self._server.is_tls

    def connection_lost(self, exc: Exception | None) -> None:
        self._eof = True
        self._wake.set()
        self.lost.set()

    # The script

    async def _drive(self, steps: Sequence[Step]) -> None:
        try:
            for step in steps:
                await self._step(step)
            while not self.transport.is_closing():
                await self._expect(whole=True)
                self.transport.write(PLAIN_ANSWER)
        except _ClientGone:
            self.transport.close()
        finally:
            self.is_waiting = True

    async def _step(self, step: Step) -> None:
        match step:
            case Expect():
                await self._expect(whole=True)
            case ExpectHead():
                await self._expect(whole=False)
            case ExpectBytes(count):
                await self._expect_bytes(count)
            case Send(data):
                self.transport.write(self._server.fill_in(data))
            case Pieces(pieces, delay):
                await self._send_pieces(pieces, delay)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Await(name):
                self.is_waiting = True
                await self._server.event(name).wait()
                self.is_waiting = False
            case Close():
                self.transport.close()
            case Reset():
                reset(self.transport)
            case SendEof():
                self.transport.write_eof()
            case Stall() | StopReading():
                if isinstance(step, StopReading):
                    self.transport.pause_reading()
                while True:
                    await self._more()

    async def _send_pieces(self, pieces: Sequence[bytes], delay: float) -> None:
        for piece in pieces:
            if self.transport.is_closing():
                return
            self.transport.write(self._server.fill_in(piece))
            if delay:
                await asyncio.sleep(delay)
            else:
                await tick()

    async def _expect(self, *, whole: bool) -> None:
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            await self._more()
        head = bytes(self._unread[: end + 4])
        del self._unread[: end + 4]
        if not whole:
            return
        if _CHUNKED.search(head):
            await self._expect_chunks()
        elif length := _LENGTH.search(head):
            await self._expect_bytes(int(length[1]))

    async def _expect_chunks(self) -> None:
        while True:
            while (end := self._unread.find(b"\r\n")) < 0:
                await self._more()
            size = int(bytes(self._unread[:end]).split(b";")[0], 16)
            await self._expect_bytes(end + 2 + size + 2)
            if not size:
                return

    async def _expect_bytes(self, count: int) -> None:
        while len(self._unread) < count:
            await self._more()
        del self._unread[:count]

    async def _more(self) -> None:
        """Wait for bytes; raise `_ClientGone` when there will be none."""
        if self._eof or self.transport.is_closing():
            raise _ClientGone
        self._wake.clear()
        self.is_waiting = True
        await self._wake.wait()
        self.is_waiting = False


@dataclass
class ScriptedServer:
    """A listening socket on the loopback interface that plays a script.

    Args:
        script: the steps of each connection, in the order of acceptance.
        scheme: "http", "https" (certificate of `authority()`) or "unix".
    """

    script: Script = ()
    scheme: str = "http"
    origins: dict[bytes, bytes] = field(default_factory=dict)
    peers: list[Peer] = field(default_factory=list)
    port: int = 0
    path: str = ""

    @property
    def is_tls(self) -> bool:
        return self.scheme == "https"

    @property
    def base(self) -> str:
        """The origin, as a request names it."""
        if self.scheme == "unix":
            return "http://localhost"
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def received(self) -> list[bytes]:
        """What each connection was sent, in the order of acceptance."""
        return [bytes(peer.received) for peer in self.peers]

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._events: dict[str, asyncio.Event] = {}
        if self.scheme == "unix":
            self._directory = tempfile.TemporaryDirectory()
            self.path = os.path.join(self._directory.name, "s")
            self._server = await loop.create_unix_server(lambda: Peer(self), self.path)
            return
        context = server_context() if self.is_tls else None
        self._server = await loop.create_server(lambda: Peer(self), "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, drop every connection and end every task."""
        self._server.close()
        for peer in self.peers:
            peer.task.cancel()
            peer.transport.abort()
        results = await asyncio.gather(*(peer.task for peer in self.peers), return_exceptions=True)
        await asyncio.gather(*(peer.lost.wait() for peer in self.peers))
        await self._server.wait_closed()
        if self.scheme == "unix":
            self._directory.cleanup()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def stop_listening(self) -> None:
        """Refuse further connections and keep those there are."""
        self._server.close()

    def take_steps(self, peer: Peer) -> Sequence[Step]:
        self.peers.append(peer)
        index = len(self.peers) - 1
        return self.script[index] if index < len(self.script) else ()

    def event(self, name: str) -> asyncio.Event:
        """The event that an `Await` step of that name waits for."""
        return self._events.setdefault(name, asyncio.Event())

    def fill_in(self, data: bytes) -> bytes:
        for mark, origin in self.origins.items():
            data = data.replace(mark, origin)
        return data

    async def settle(self) -> None:
        """Wait until every connection waits for its client, and its bytes have arrived there."""
        for _ in range(200):
            await tick()
            if all(peer.is_waiting or peer.task.done() for peer in self.peers):
                break
            await asyncio.sleep(0.002)
        await tick()

    async def all_lost(self, seconds: float) -> int:
        """Wait for the clients to close; return how many connections are left open."""
        for peer in self.peers:
            if not peer.transport.is_closing():
                peer.transport.resume_reading()
        waits: list[Awaitable[object]] = [peer.lost.wait() for peer in self.peers]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waits), seconds)
        return sum(not peer.lost.is_set() for peer in self.peers)


async def tick(count: int = TICKS) -> None:
    """Let the loop turn, polling its sockets each time."""
    for _ in range(count):
        await asyncio.sleep(0)


def reset(transport: asyncio.Transport) -> None:
    """Abort so that the peer sees a reset rather than an orderly end."""
    own = transport.get_extra_info("socket")
    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


@lru_cache(maxsize=1)
def authority() -> trustme.CA:
    """The certificate authority of every TLS server of the tests."""
    return trustme.CA()


@lru_cache(maxsize=1)
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@lru_cache(maxsize=1)
def client_context() -> ssl.SSLContext:
    """A client's context that trusts `authority()`."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context
