"""`timings` and `connection_info` of responses that aiohttp's own code makes.

A connector puts `Stamps` on the aiohttp `Connection` that it hands out (`stamp`), with what it knows of the
way to it; `StampedResponse` is aiohttp's response, which notes the moments from there on: when the request
was sent, when the response's head was there, when its body ended. Without stamps, as on a foreign connector,
the response knows its own moments only. Used by the fallback; a native response that goes on with aiohttp's
`start()` on the full lane derives from StampedResponse and calls `super().timings` where it has no exchange,
and its connector calls `stamp` where it lends a connection. It must not know the pool.

The first byte is taken for the moment at which the head was complete: aiohttp's parser tells no other.
"""

import asyncio
import logging
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import aiohttp
from aiohttp.connector import Connection

from .observe import ConnectionInfo, Timings

_logger = logging.getLogger("wirespeed")
# Where the stamps are on a Connection of aiohttp's.
_ATTRIBUTE = "_wirespeed_stamps"


class Link(NamedTuple):
    """What does not change while a connection lives; the addresses are None once it has ended."""

    local: tuple[object, ...] | str | None = None
    peer: tuple[object, ...] | str | None = None
    tls_version: str | None = None
    tls_cipher: str | None = None

    @classmethod
    def of(cls, transport: Any) -> "Link":
        """Ask a transport; those of tests answer what they like."""
        if transport is None:
            return cls()
        tls = transport.get_extra_info("ssl_object")
        cipher = tls.cipher() if tls is not None else None
        return cls(
            transport.get_extra_info("sockname") or None,
            transport.get_extra_info("peername") or None,
            tls.version() if tls is not None else None,
            cipher[0] if cipher else None,
        )


class Stamps:
    """The moments of one request on one connection, by `time.perf_counter`.

    Args:
        link: the connection; None when nothing is known about it.
        origin: of the request, for the observers.
        observers: the connector's list of them, itself: it may be empty now and not later.
        reused: whether the connection came from the pool.
        idle_for: seconds for which it was idle.
        age: seconds since it was made.
        requests: which request of the connection this one is.
        queue, dns, connect, tls: as of Timings.
    """

    __slots__ = (
        "acquired_at",
        "age",
        "connect",
        "dns",
        "ended_at",
        "has_timed_out",
        "head_at",
        "idle_for",
        "link",
        "observers",
        "origin",
        "queue",
        "requests",
        "reused",
        "sent_at",
        "tls",
    )

    def __init__(
        self,
        link: Link | None = None,
        *,
        origin: str = "",
        observers: Sequence[Any] = (),
        reused: bool = False,
        idle_for: float = 0.0,
        age: float = 0.0,
        requests: int = 1,
        queue: float = 0.0,
        dns: float = 0.0,
        connect: float = 0.0,
        tls: float = 0.0,
    ) -> None:
        self.link, self.origin, self.observers = link, origin, observers
        self.reused, self.idle_for, self.age, self.requests = reused, idle_for, age, requests
        self.queue, self.dns, self.connect, self.tls = queue, dns, connect, tls
        self.acquired_at = perf_counter()
        self.sent_at: float | None = None
        self.head_at: float | None = None
        self.ended_at: float | None = None
        self.has_timed_out = False
        """No response came in time; for the connector, which will be told to close the connection."""

    def note_sent(self, writer: "asyncio.Future[None] | None" = None) -> None:
        """The request was sent; also a callback of the task that sends its body."""
        if writer is None or not writer.cancelled():
            self.sent_at = perf_counter()

    def note_head(self) -> None:
        if self.head_at is None:
            self.head_at = perf_counter()

    def note_end(self) -> None:
        """The body ended; the head is there at the latest now, where there is no body."""
        if self.ended_at is None:
            self.note_head()
            self.ended_at = perf_counter()

    def timings(self) -> Timings:
        send = first_byte = body = None
        sent_at = self.sent_at
        if self.head_at is not None and (sent_at is None or sent_at > self.head_at):
            # The server answered before it had the whole request; the stages do not overlap.
            sent_at = self.head_at
        if sent_at is not None:
            send = sent_at - self.acquired_at
            if self.head_at is not None:
                first_byte = self.head_at - sent_at
        if self.head_at is not None and self.ended_at is not None:
            body = self.ended_at - self.head_at
        return Timings(self.queue, self.dns, self.connect, self.tls, send, first_byte, body)

    def connection_info(self) -> ConnectionInfo | None:
        if self.link is None:
            return None
        return ConnectionInfo(self.reused, self.idle_for, self.age, self.requests, *self.link)


def stamp(connection: Connection, stamps: Stamps) -> None:
    """Put stamps on a connection for the response that will be read from it."""
    setattr(connection, _ATTRIBUTE, stamps)


def tell(observers: Sequence[Any], event: str, *args: object) -> None:
    """Call each observer; one that raises is logged, and stops neither the others nor the request."""
    for observer in tuple(observers):
        try:
            getattr(observer, event)(*args)
        except Exception:
            _logger.exception("an observer of the pool failed: %r", observer)


class StampedResponse(aiohttp.ClientResponse):
    """aiohttp's response with `timings` and `connection_info`."""

    _stamps: Stamps | None = None

    @property
    def timings(self) -> Timings | None:
        """Where the time of the request went; None before the response was started."""
        return None if self._stamps is None else self._stamps.timings()

    @property
    def connection_info(self) -> ConnectionInfo | None:
        """The connection that the request was sent on, as it was then; None where nothing is known of it."""
        return None if self._stamps is None else self._stamps.connection_info()

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Start response processing."""
        stamps = self._stamps = getattr(connection, _ATTRIBUTE, None) or Stamps()
        writer = self._writer
        if writer is None:
            stamps.note_sent()
        else:
            writer.add_done_callback(stamps.note_sent)
        try:
            resp = await super().start(connection)
        except BaseException as exc:
            stamps.has_timed_out = isinstance(exc, asyncio.TimeoutError)
            self._tell(stamps, None, exc)
            raise
        stamps.note_head()
        self._tell(stamps, self.status, None)
        return resp

    def _tell(self, stamps: Stamps, status: int | None, error: BaseException | None) -> None:
        if stamps.observers:
            duration = perf_counter() - stamps.acquired_at
            tell(stamps.observers, "request_ended", stamps.origin, self.method, status, duration, error)

    def _response_eof(self) -> None:
        if self._stamps is not None:
            self._stamps.note_end()
        super()._response_eof()
