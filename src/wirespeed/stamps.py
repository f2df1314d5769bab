"""`timings` and `connection_info` of responses that aiohttp's own code makes.

A connector puts `Stamps` on the aiohttp `Connection` that it hands out (`stamp`), with what it knows of the
way to it; `StampedResponse` is aiohttp's response, which notes the moments from there on: when the request
was sent, when the response's head was there, when its body ended. Without stamps, as on a foreign connector,
the response knows its own moments only. Used by the fallback, and by the full lane, whose responses have no
exchange to ask. It must not know the pool.

The first byte is taken for the moment at which the head was complete: aiohttp's parser tells no other.
"""

import asyncio
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import aiohttp
from aiohttp.connector import Connection

from .observe import CloseReason, ConnectionInfo, Timings
from .observe.observer import Observer

if TYPE_CHECKING:
    from .policy.retry import RetryRecord

_logger = logging.getLogger("wirespeed")
# Where the stamps are on a Connection of aiohttp's.
_ATTRIBUTE = "_wirespeed_stamps"
# 101: what follows is another protocol's, and no part of the request.
_SWITCHING = 101


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


class Watched(Protocol):
    """What has observers: a connector."""

    observers: tuple[Observer, ...]


class Stamps:
    """The moments of one request on one connection, by `time.perf_counter`.

    Args:
        link: the connection; None when nothing is known about it.
        origin: of the request, for the observers.
        watched: the connector; None where there is nobody to tell.
        asked_at: when the connection was asked for; 0 for now.
        reused: whether the connection came from the pool.
        idle_for: seconds for which it was idle.
        age: seconds since it was made.
        requests: which request of the connection this one is.
        queue, dns, connect, tls: as of Timings.
    """

    __slots__ = (
        "acquired_at",
        "age",
        "asked_at",
        "connect",
        "dns",
        "ended_at",
        "error",
        "has_timed_out",
        "head_at",
        "idle_for",
        "is_told",
        "link",
        "method",
        "origin",
        "queue",
        "requests",
        "reused",
        "sent_at",
        "status",
        "tls",
        "watched",
    )

    def __init__(
        self,
        link: Link | None = None,
        *,
        origin: str = "",
        watched: Watched | None = None,
        asked_at: float = 0.0,
        reused: bool = False,
        idle_for: float = 0.0,
        age: float = 0.0,
        requests: int = 1,
        queue: float = 0.0,
        dns: float = 0.0,
        connect: float = 0.0,
        tls: float = 0.0,
    ) -> None:
        self.link, self.origin, self.watched = link, origin, watched
        self.reused, self.idle_for, self.age, self.requests = reused, idle_for, age, requests
        self.queue, self.dns, self.connect, self.tls = queue, dns, connect, tls
        self.acquired_at = perf_counter()
        self.asked_at = asked_at or self.acquired_at
        self.sent_at: float | None = None
        self.head_at: float | None = None
        self.ended_at: float | None = None
        self.has_timed_out = False
        """No response came in time; for the connector, which will be told to close the connection."""
        # For the observers.
        self.method = ""
        self.status: int | None = None
        self.error: BaseException | None = None
        self.is_told = False

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

    @property
    def is_watched(self) -> bool:
        return self.watched is not None and bool(self.watched.observers)

    def tell_end(self) -> None:
        """Tell the observers, once; also a callback of the Connection, when it is given back or closed."""
        if self.is_told or self.watched is None or (self.status is None and self.error is None):
            # With neither, `start` is not over, and will tell.
            return
        self.is_told = True
        error, self.error = self.error, None
        duration = perf_counter() - self.asked_at
        tell_request(self.watched, self.origin, self.method, self.status, duration, error)


def stamp(connection: Connection, stamps: Stamps) -> None:
    """Put stamps on a connection for the response that will be read from it."""
    setattr(connection, _ATTRIBUTE, stamps)


def tell_request(
    watched: Watched,
    origin: str,
    method: str,
    status: int | None,
    duration: float,
    error: BaseException | None,
) -> None:
    """Tell each observer of an attempt; one that raises is logged, and stops neither the others nor us."""
    for observer in watched.observers:
        try:
            observer.request_ended(origin, method, status, duration, error)
        except Exception:
            _logger.exception("an observer of the pool failed: %r", observer)


def tell_connection(watched: Watched, origin: str, duration: float, reason: CloseReason) -> None:
    """Tell each observer of the end of a connection; likewise."""
    for observer in watched.observers:
        try:
            observer.connection_closed(origin, duration, reason)
        except Exception:
            _logger.exception("an observer of the pool failed: %r", observer)


class StampedResponse(aiohttp.ClientResponse):
    """aiohttp's response with `timings`, `connection_info` and `retry_history`."""

    # The attempts before this one, under a retry policy.
    retry_history: "tuple[RetryRecord, ...]" = ()
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
        stamps.method = self.method
        if stamps.is_watched:
            connection.add_callback(stamps.tell_end)
        try:
            resp = await super().start(connection)
        except BaseException as exc:
            stamps.has_timed_out = isinstance(exc, asyncio.TimeoutError)
            stamps.error = exc
            stamps.tell_end()
            stamps.error = None
            raise
        stamps.note_head()
        stamps.status = self.status
        if stamps.ended_at is not None or self.status == _SWITCHING:
            stamps.tell_end()
        return resp

    def _response_eof(self) -> None:
        if self._stamps is not None:
            self._stamps.note_end()
        super()._response_eof()

    def _notify_content(self) -> None:
        """The body will not be read further: note whether that is for an error of it."""
        if self._stamps is not None and self.content is not None:
            self._stamps.error = self.content.exception()
        super()._notify_content()
