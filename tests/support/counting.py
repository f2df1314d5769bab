"""A server that remembers what it was asked, for tests of commands that run in processes of their own.

It runs in a thread, so that a test can look at its log while it waits for a command.
"""

import asyncio
import base64
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wirespeed.testing.machine import raise_file_limit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def host(self) -> str:
        return self.headers.get("host", "")


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    delay: float = 0.0
    is_dropped: bool = False
    fields: tuple[tuple[str, str], ...] = ()

    def encoded(self) -> bytes:
        head = f"HTTP/1.1 {self.status} Whatever\r\nContent-Type: {self.content_type}\r\n"
        head += f"Content-Length: {len(self.body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.fields)
        return head.encode() + b"\r\n" + self.body


@dataclass
class CountingServer:
    """A server on the loopback interface, as a context manager.

    What it answers is in the path: `/status/CODE/N`, `/slow/SECONDS/N`, `/size/BYTES/N`, `/redirect/N`,
    `/flaky/TIMES/N` (503 that many times, then 200), `/drop/N` (the connection is closed), `/binary/N` (bytes
    that are no UTF-8), `/latin/N`, `/json/N`. Every other path, such as `/ok/N`, is answered by itself.

    Attributes:
        log: the requests in the order of their arrival.
        delay: seconds before each answer.
        in_flight: requests under way, by Host; `peak` is the most there were at once, `peak[""]` in all.
        is_holding: answers wait until `release`.
    """

    delay: float = 0.0
    is_holding: bool = False
    log: list[Asked] = field(default_factory=list)
    in_flight: "Counter[str]" = field(default_factory=Counter)
    peak: "Counter[str]" = field(default_factory=Counter)
    port: int = 0

    def __enter__(self) -> "CountingServer":
        raise_file_limit()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="counting-server")
        self._thread.start()
        assert started.wait(20)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> "Counter[str]":
        """How often each path was asked for."""
        return Counter(asked.path for asked in tuple(self.log))

    def clear(self) -> None:
        """Forget what it was asked; answer at once again."""
        self.log.clear()
        self.peak.clear()
        self.delay = 0.0
        self.release()

    def release(self) -> None:
        """Answer what waits, and what comes."""
        self.is_holding = False
        self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        for peer in tuple(self.peers):
            peer.release()

    def wait_for(self, count: int, seconds: float = 20.0) -> None:
        """Wait until it was asked so many times."""
        until = time.monotonic() + seconds
        while len(self.log) < count:
            assert time.monotonic() < until, f"{len(self.log)} requests of {count} in {seconds} s"
            time.sleep(0.002)

    def _run(self, started: threading.Event) -> None:
        asyncio.run(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.peers: set[_Peer] = set()
        server = await self._loop.create_server(lambda: _Peer(self), "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stop.wait()
        server.close()
        for peer in tuple(self.peers):
            peer.transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0.01)

    def reply(self, asked: Asked) -> Reply:
        _, kind, *rest = asked.path.split("?")[0].split("/")
        makers: dict[str, Callable[[], Reply]] = {
            "status": lambda: Reply(int(rest[0]), asked.path.encode()),
            "slow": lambda: Reply(delay=float(rest[0]), body=asked.path.encode()),
            "size": lambda: Reply(body=b"x" * int(rest[0])),
            "redirect": lambda: Reply(302, fields=(("Location", f"/ok/{rest[0]}"),)),
            "flaky": lambda: Reply(503 if self.paths()[asked.path] <= int(rest[0]) else 200, b"at last"),
            "drop": lambda: Reply(is_dropped=True),
            "binary": lambda: Reply(body=b"\xff\xfe\x00" + rest[0].encode()),
            "latin": lambda: Reply(body="é".encode("latin-1"), content_type="text/plain; charset=latin-1"),
            "json": lambda: Reply(body=b'{"n": %s}' % rest[0].encode(), content_type="application/json"),
        }
        made = makers.get(kind, lambda: Reply(body=asked.path.encode()))()
        return made


class _Peer(asyncio.Protocol):
    def __init__(self, server: CountingServer) -> None:
        self._server = server
        self._unread = b""
        self._timers: set[asyncio.TimerHandle] = set()
        self._waiting: list[str] = []
        self._held: list[tuple[Asked, Reply]] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._server.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.peers.discard(self)
        for timer in self._timers:
            timer.cancel()
        for host in self._waiting:
            self._server.in_flight[host] -= 1

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end]
            length = _LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._unread) < whole:
                return
            body, self._unread = self._unread[end + 4 : whole], self._unread[whole:]
            self._on_request(head.decode("latin-1"), body)

    def _on_request(self, head: str, body: bytes) -> None:
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        server = self._server
        asked = Asked(server._loop.time(), method, path, headers, body)
        server.log.append(asked)
        server.in_flight[asked.host] += 1
        self._waiting.append(asked.host)
        server.peak[asked.host] = max(server.peak[asked.host], server.in_flight[asked.host])
        everywhere = sum(server.in_flight.values())
        server.peak[""] = max(server.peak[""], everywhere)
        reply = server.reply(asked)
        delay = reply.delay or server.delay
        if server.is_holding:
            self._held.append((asked, reply))
        elif delay:
            self._timers.add(server._loop.call_later(delay, self._answer, asked, reply))
        else:
            self._answer(asked, reply)

    def release(self) -> None:
        held, self._held = self._held, []
        for asked, reply in held:
            self._answer(asked, reply)

    def _answer(self, asked: Asked, reply: Reply) -> None:
        self._server.in_flight[asked.host] -= 1
        self._waiting.remove(asked.host)
        if reply.is_dropped:
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(reply.encoded())


def body_of(record: dict[str, Any]) -> bytes:
    """The body that a record of the output holds."""
    if "body_base64" in record:
        return base64.b64decode(record["body_base64"])
    return str(record.get("body", "")).encode()
