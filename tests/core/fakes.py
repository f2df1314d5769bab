"""A loop with a settable clock, a transport that records, and what exchanges talk to.

`FakeLoop` has what the core asks of a loop and nothing else. Its futures are asyncio's own,
so what waits on them behaves as it does in a program.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from wirespeed._core import deadlines
from wirespeed._core.connection import Connection
from wirespeed._core.exchange import Exchange, ExchangeSettings, Failure
from wirespeed._core.hosts import Host, Waiter
from wirespeed._core.pool import Pool

ASYNCIO_MAX_READ = 256 * 1024
LIBUV_READ = 64 * 1024


class FakeHandle:
    """A timer or a callback; cancelled ones stay in the queue, as with real loops."""

    def __init__(self, when: float, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.when = when
        self._callback = callback
        self._args = args
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def run(self) -> None:
        if not self.is_cancelled:
            self._callback(*self._args)
        del self  # as asyncio's: the traceback of an exception may hold this frame


class FakeLoop:
    """Time stands still until `advance`; callbacks wait until `run_ready`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.errors: list[dict[str, Any]] = []
        self.armed = 0
        self._timers: list[tuple[float, int, FakeHandle]] = []
        self._ready: list[FakeHandle] = []
        self._order = count()
        # Idle times are measured on the system's clock, which does not stop with the loop.
        deadlines.use_clock(self.time)

    # What the core and futures ask for

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def call_soon(self, callback: Callable[..., object], *args: Any, context: object = None) -> FakeHandle:
        handle = FakeHandle(self.now, callback, args)
        self._ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> FakeHandle:
        handle = FakeHandle(when, callback, args)
        self.armed += 1
        heappush(self._timers, (when, next(self._order), handle))
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    # What tests ask for

    @property
    def timers(self) -> list[float]:
        """The times of the timers that are pending."""
        return sorted(when for when, _, handle in self._timers if not handle.is_cancelled)

    def run_ready(self) -> None:
        while self._ready:
            self._ready.pop(0).run()

    def advance(self, seconds: float) -> None:
        self.advance_to(self.now + seconds)

    def advance_to(self, when: float) -> None:
        """Let time pass; each timer fires exactly at its time."""
        self.run_ready()
        while self._timers and self._timers[0][0] <= when:
            at, _, handle = heappop(self._timers)
            self.now = max(self.now, at)
            handle.run()
            self.run_ready()
        self.now = max(self.now, when)


class FakeTls:
    """What a TLS layer received and did not hand over: reads in order, an exception to raise it."""

    def __init__(self) -> None:
        self.rest: list[bytes | Exception] = []
        self.reads = 0

    def read(self, size: int) -> bytes:
        self.reads += 1
        step = self.rest.pop(0) if self.rest else ssl.SSLWantReadError()
        if isinstance(step, Exception):
            raise step
        return step


class FakeTransport:
    """Records what is done to it; feeds bytes through the protocol's buffer as loops do."""

    def __init__(self, loop: Any, *, is_tls: bool = False) -> None:
        self.loop = loop
        self.is_tls = is_tls
        self.tls = FakeTls()
        self.protocol: Any = None
        self.written = bytearray()
        self.calls: list[str] = []
        self.is_reading = True
        self.end: str | None = None
        self.unread = bytearray()
        self.received = 0
        self.unsent = 0

    # What protocols ask for

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"sslcontext": object(), "ssl_object": self.tls} if self.is_tls else {}
        return known.get(name, default)

    def set_protocol(self, protocol: Any) -> None:
        self.calls.append("set_protocol")
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")
        self.is_reading = False

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")
        self.is_reading = True

    def is_closing(self) -> bool:
        return self.end is not None

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def _end(self, how: str) -> None:
        if self.end is None:
            self.end = how
            self.loop.call_soon(self.lose)

    # What tests ask for

    def feed(self, data: bytes, style: str = "asyncio") -> None:
        """Receive bytes. What does not get through a pause, or an end, stays in `unread`.

        Args:
            data: the bytes.
            style: "asyncio": recv_into a buffer asked for with -1; "uvloop": reads of at most
                64 KiB; "tls": asyncio's SSLProtocol, which fills slices of one buffer.
        """
        self.unread += data
        size = LIBUV_READ if style == "uvloop" else ASYNCIO_MAX_READ
        while self.unread and self.is_reading and self.end is None:
            buffer = self.protocol.get_buffer(size if style == "uvloop" else -1)
            view = memoryview(buffer)
            taken = min(size, len(view), len(self.unread))
            step = 16_384 if style == "tls" else taken
            for start in range(0, taken, step):
                piece = self.unread[start : min(start + step, taken)]
                view[start:][: len(piece)] = piece
            del self.unread[:taken]
            self.received += taken
            self.protocol.buffer_updated(taken)

    def feed_all(self, pieces: Iterable[bytes], style: str = "asyncio") -> None:
        for piece in pieces:
            self.feed(piece, style)

    def feed_eof(self) -> None:
        """The peer sends no more; as loops do, the transport closes unless the protocol objects."""
        if self.protocol.eof_received() is not True:
            self.close()
        self.loop.run_ready()

    def lose(self, exc: Exception | None = None) -> None:
        """The connection is gone; says so once, to whoever is the protocol now."""
        self.end = self.end or "lost"
        if self.protocol is not None:
            protocol, self.protocol = self.protocol, None
            protocol.connection_lost(exc)


class Translated(Exception):
    """What the facade would have made of a failure."""

    def __init__(self, failure: Failure, exc: BaseException | None, raw: bytes | None) -> None:
        super().__init__(failure, exc, raw)
        self.failure = failure
        self.exc = exc
        self.raw = raw


class RecordingSink:
    """A stream that takes everything at once."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def feed_data(self, data: bytes, size: int) -> bool:
        self.events.append(data)
        return False

    def feed_eof(self) -> None:
        self.events.append("eof")

    def set_exception(self, exc: BaseException) -> None:
        self.events.append(exc)

    def begin_http_chunk_receiving(self) -> None:
        self.events.append("begin chunks")

    def end_http_chunk_receiving(self) -> None:
        self.events.append("end of chunk")


def new_settings(**changes: Any) -> ExchangeSettings:
    options: dict[str, Any] = {
        "max_line_size": 8190,
        "max_field_size": 8190,
        "max_headers": 128,
        "high_water": 1024,
        "make_sink": None,
        "translate": lambda exchange, failure, exc, raw: Translated(Failure(failure), exc, raw),
    }
    return ExchangeSettings(**options | changes)


class Wire:
    """A pool on a fake loop, with one connection to start with."""

    def __init__(self, *, is_tls: bool = False, now: float = 1000.0, **options: Any) -> None:
        self.loop = FakeLoop(now)
        chosen = {"limit": 100, "limit_per_host": 0, "keepalive_timeout": 15.0} | options
        self.pool = Pool(self.loop, **chosen)  # type: ignore[arg-type]
        self.host: Host = self.pool.host("host")
        self.transport = FakeTransport(self.loop, is_tls=is_tls)
        self.conn = self.dial(self.transport)

    def dial(self, transport: FakeTransport | None = None) -> Connection:
        """Add a connection to the pool, reserved."""
        assert self.pool.try_reserve(self.host)
        return self.pool.add(self.host, transport or FakeTransport(self.loop))  # type: ignore[arg-type]

    def send(self, data: bytes = b"GET / HTTP/1.1\r\n\r\n", **options: Any) -> Exchange:
        """Send a request on the connection; `settings` may be among the options."""
        settings = options.pop("settings", None) or new_settings()
        return self.conn.send(data, settings, **options)

    def error_of(self, future: "asyncio.Future[Any]") -> Any:
        """The exception of a future, taken so that nobody complains that it was not."""
        assert future.done()
        return future.exception()


class PoolFixture:
    """A pool on a fake loop, and short words for what callers do with it."""

    def __init__(self, **options: Any) -> None:
        self.loop = FakeLoop()
        chosen = {"limit": 2, "limit_per_host": 0, "keepalive_timeout": 15.0} | options
        self.pool = Pool(self.loop, **chosen)  # type: ignore[arg-type]

    def connect(self, key: str = "a") -> Connection:
        """Take a slot and dial."""
        host = self.pool.host(key)
        assert self.pool.try_reserve(host)
        return self.pool.add(host, FakeTransport(self.loop))  # type: ignore[arg-type]

    def idle(self, key: str = "a") -> Connection:
        conn = self.connect(key)
        self.pool.give_back(conn)
        return conn

    def wait(self, key: str = "a", **deadlines: float) -> Waiter:
        return self.pool.wait(self.pool.host(key), **deadlines)

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.pool.in_use, self.pool.idle, self.pool.waiting


def transport_of(conn: Connection) -> FakeTransport:
    transport: Any = conn.transport
    return transport  # type: ignore[no-any-return]
