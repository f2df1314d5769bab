"""aiohttp's names over a network without sockets: each write is answered by a fixed response.

The session, the connector, its pool and the core are real; only what a connector dials is not.
A module by aiohttp's names, so that `wirespeed.testing.load` builds its client from it.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from aiohttp.client_proto import ResponseHandler

import wirespeed
from wirespeed import ClientSession, ClientTimeout, CookieJar, TraceConfig

__all__ = ["ClientSession", "ClientTimeout", "CookieJar", "TCPConnector", "TraceConfig"]

READ_SIZE: Final = 64 << 10
"""Most bytes of one read: libuv's."""
SECONDS_PER_LOOK: Final = 10e-6
"""What the loop's clock gains each time it is looked at."""


class Wire(asyncio.Transport):
    """A connection whose peer answers every write, in the loop's next turn.

    Args:
        loop: the running loop.
        answer: the bytes of the response, head and body.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: bytes) -> None:
        super().__init__()
        self._call_soon = loop.call_soon
        self._answer = memoryview(answer)
        self._unread = memoryview(b"")
        self._is_reading = True
        self._is_closing = False
        self._protocol: Any = None
        self.writes = 0

    def write(self, data: Any) -> None:
        self.writes += 1
        self._unread = self._answer
        self._call_soon(self._receive)

    def _receive(self) -> None:
        """One read, as uvloop does it; whatever is left comes in the next turn."""
        unread = self._unread
        if not unread or not self._is_reading or self._is_closing:
            return
        protocol = self._protocol
        buffer = memoryview(protocol.get_buffer(READ_SIZE))
        size = min(len(unread), READ_SIZE, len(buffer))
        buffer[:size] = unread[:size]
        self._unread = unread[size:]
        protocol.buffer_updated(size)
        if self._unread:
            self._call_soon(self._receive)

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        if self._unread:
            self._call_soon(self._receive)

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._call_soon(self._lose)

    abort = close

    def _lose(self) -> None:
        self._protocol.connection_lost(None)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return 0


@dataclass
class Peer:
    """Who is at the other end.

    Attributes:
        answer: what it sends for each write.
        wires: the connections that it was dialled on.
    """

    answer: bytes
    wires: list[Wire] = field(default_factory=list)


class TCPConnector(wirespeed.TCPConnector):
    """Dials wires to `peer`, which is for whoever makes the connector to choose beforehand."""

    peer: ClassVar[Peer]

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:
        protocol = ResponseHandler(self._loop)
        wire = Wire(self._loop, self.peer.answer)
        wire.set_protocol(protocol)
        protocol.connection_made(wire)
        self.peer.wires.append(wire)
        return protocol


def steady_clock() -> Callable[[], float]:
    """Make a clock that goes by a fixed step each time it is looked at, without a Python frame.

    Deadlines of one millisecond share a bucket; by a real clock it would depend on the machine how
    many do, and under valgrind there would be none to share with.
    """
    return itertools.count(1000.0, SECONDS_PER_LOOK).__next__
