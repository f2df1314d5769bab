"""A raw server that follows a script, and records every byte and every connection.

A script is a list of steps for each connection, in the order in which they are accepted.
A connection beyond the script answers every request with a plain 200, so that a follow-up
request always has an answer and shows whether a connection was reused.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True)
class Expect:
    """Read one whole request: its head, and its body by Content-Length or chunks."""


@dataclass(frozen=True)
class ExpectHead:
    """Read one request's head only."""


@dataclass(frozen=True)
class Send:
    """Write bytes; in pieces of `piece` bytes, each its own segment, when it is not 0."""

    data: bytes
    piece: int = 0


@dataclass(frozen=True)
class Close:
    """Close the connection: FIN after what was sent."""


@dataclass(frozen=True)
class SendEof:
    """Half-close: FIN, and go on reading."""


@dataclass(frozen=True)
class Reset:
    """Break the connection: RST."""


@dataclass(frozen=True)
class Pause:
    """Do nothing for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Stall:
    """Do nothing until the client goes away."""


Step = Expect | ExpectHead | Send | Close | SendEof | Reset | Pause | Stall
Script = Sequence[Step]


def answer(data: bytes, *, piece: int = 0) -> list[Step]:
    """Read a request, send an answer, then serve plain answers on the same connection."""
    return [Expect(), Send(data, piece)]


class ScriptedServer:
    """The server: `async with ScriptedServer(scripts) as server`, then `server.url("/")`."""

    def __init__(
        self,
        scripts: Sequence[Script] = (),
        *,
        tls: ssl.SSLContext | None = None,
        path: str | None = None,
    ) -> None:
        self._scripts = scripts
        self._tls = tls
        self._path = path
        self.received: list[bytearray] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def __aenter__(self) -> "ScriptedServer":
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._path)
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def url(self, path: str) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}{path}" if self.port else f"http://localhost{path}"

    def wire(self) -> list[bytes]:
        """What each connection received, with the port and multipart boundaries made equal."""
        return [self._normalise(bytes(data)) for data in self.received]

    def _normalise(self, data: bytes) -> bytes:
        for boundary in set(re.findall(rb"boundary=([0-9a-f]{32})", data)):
            data = data.replace(boundary, b"BOUNDARY")
        return data.replace(b":%d" % self.port, b":PORT") if self.port else data

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        index = len(self.received)
        record = bytearray()
        self.received.append(record)
        script = self._scripts[index] if index < len(self._scripts) else ()
        try:
            for step in script:
                await self._play(step, reader, writer, record)
                if isinstance(step, Close | Reset):
                    return
            while True:
                method = await self._read_request(reader, record)
                # The answer to HEAD has no body (RFC 9110 section 9.3.2).
                writer.write(PLAIN[:-2] if method == b"HEAD" else PLAIN)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            if not any(isinstance(step, Reset) for step in script):
                writer.close()
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    await writer.wait_closed()

    async def _play(
        self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray
    ) -> None:
        match step:
            case Expect():
                await self._read_request(reader, record)
            case ExpectHead():
                record += await reader.readuntil(b"\r\n\r\n")
            case Send(data, 0):
                writer.write(data)
                await writer.drain()
            case Send(data, piece):
                for start in range(0, len(data), piece):
                    writer.write(data[start : start + piece])
                    await writer.drain()
                    await asyncio.sleep(0.0005)
            case SendEof():
                writer.write_eof()
            case Reset():
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Stall():
                while data := await reader.read(65536):
                    record += data
            case Close():
                writer.close()

    async def _read_request(self, reader: asyncio.StreamReader, record: bytearray) -> bytes:
        """Read one request, framed as it says; return its method."""
        head = await reader.readuntil(b"\r\n\r\n")
        record += head
        lower = head.lower()
        if found := re.search(rb"\r\ncontent-length: *(\d+)\r\n", lower):
            record += await reader.readexactly(int(found[1]))
        elif b"\r\ntransfer-encoding: chunked\r\n" in lower:
            while True:
                line = await reader.readuntil(b"\r\n")
                record += line
                chunk = await reader.readexactly(int(line.split(b";")[0], 16) + 2)
                record += chunk
                if line.startswith(b"0"):
                    break
        return head.split(b" ", 1)[0]
