"""`ClientResponse`: aiohttp's response over a native exchange.

On the express lane a response is made by `adopt`, and what a caller may never look at
(headers, cookies, request_info, the stream) is made when it is first asked for. Without an
exchange, as on the full lane, every method is aiohttp's own.
"""

import asyncio
import functools
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import aiohttp
from aiohttp import hdrs
from aiohttp.client_exceptions import ClientConnectionError
from aiohttp.client_reqrep import RequestInfo
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop, set_exception
from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11
from aiohttp.http_parser import DeflateBuffer
from aiohttp.streams import EmptyStreamReader, StreamReader
from aiohttp.typedefs import JSONDecoder
from multidict import CIMultiDict, CIMultiDictProxy, istr
from yarl import URL

from ._core import response as core
from ._core.exchange import Exchange
from ._core.response import Fact, FactKind, State, StateKind
from ._signatures import like
from .observe.timings import ConnectionInfo, Timings
from .stamps import StampedResponse
from .upload import settle

_T = TypeVar("_T")


def _nobody(_: object) -> None:
    """A connector of others has lent nothing of ours."""


_NOOP_TIMER = TimerNoop()
_VERSIONS = {(1, 1): HttpVersion11, (1, 0): HttpVersion10}
_DECODABLE = frozenset({b"gzip", b"deflate", b"br", b"zstd"})

# The names that aiohttp writes in one way however they came.
_KNOWN_NAMES = {name.lower().encode(): name for name in vars(hdrs).values() if isinstance(name, istr)}
# Header names as the objects that CIMultiDict keys by; emptied when full, so that a server
# that invents names cannot grow it (aiohttp keeps 512 likewise).
_NAMES: dict[bytes, istr] = {}
_NAMES_MAX = 512


def _name(raw: bytes) -> istr:
    name = _NAMES.get(raw)
    if name is None:
        name = _KNOWN_NAMES.get(raw.lower()) or istr(raw.decode("utf-8", "surrogateescape"))
        if len(_NAMES) >= _NAMES_MAX:
            _NAMES.clear()
        _NAMES[raw] = name
    return name


def headers_of(fields: Iterable[tuple[bytes, bytes]]) -> CIMultiDictProxy[str]:
    """The header fields as aiohttp has them."""
    return CIMultiDictProxy(
        CIMultiDict([(_name(name), value.decode("utf-8", "surrogateescape")) for name, value in fields])
    )


def make_decoder(exchange: Exchange) -> DeflateBuffer | None:
    """Make the decoder of a compressed body, which feeds a StreamReader; None when it is not ours to decode.

    Raises:
        ContentEncodingError: the package that decodes it is not installed.
    """
    head = exchange.head
    assert head is not None
    assert head.content_encoding is not None
    encoding = head.content_encoding.lower()
    if encoding not in _DECODABLE:
        return None
    limit = exchange.settings.high_water // 2
    return DeflateBuffer(_new_stream(exchange, limit), encoding.decode(), max_decompress_size=limit)


def _new_stream(exchange: Exchange, limit: int) -> StreamReader:
    loop = asyncio.get_event_loop()
    return StreamReader(exchange, limit, loop=loop)  # type: ignore[arg-type]


class _lazy(Generic[_T]):
    """An attribute of the express lane that is made on first use; assignment replaces it."""

    def __init__(self, make: Callable[["ClientResponse", Exchange], _T]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, resp: None, owner: type) -> None: ...
    @overload
    def __get__(self, resp: "ClientResponse", owner: type) -> _T: ...
    def __get__(self, resp: "ClientResponse | None", owner: type) -> _T | None:
        if resp is None or resp._exchange is None:
            return None
        value = resp.__dict__[self._name] = self._make(resp, resp._exchange)
        return value


class ExchangeProtocol:
    """What `resp.connection.protocol` offers of aiohttp's protocol: its state, and its end.

    The connection's real protocol is the core's and not for others to drive.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._exchange.transport

    @property
    def upgraded(self) -> bool:
        head = self._exchange.head
        return head is not None and head.status == 101 and not self._exchange.is_complete

    @property
    def should_close(self) -> bool:
        """The connection of an unfinished response cannot be used again."""
        return True

    def is_connected(self) -> bool:
        transport = self._exchange.transport
        return transport is not None and not transport.is_closing()

    def exception(self) -> BaseException | None:
        return self._exchange.error

    def close(self) -> None:
        self._exchange.abandon()

    abort = close


class ExchangeConnection(Connection):
    """What `resp.connection` is until the body was received, or the response was closed."""

    def __init__(self, resp: "ClientResponse", exchange: Exchange) -> None:
        self._resp = weakref.ref(resp)
        self._exchange = exchange
        self._loop = resp._loop
        self._key = None  # type: ignore[assignment]
        self._protocol = ExchangeProtocol(exchange)  # type: ignore[assignment]
        self._callbacks = []

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Have a callback called once the connection is free: the body was received, or given up."""
        super().add_callback(callback)
        if len(self._callbacks) == 1:
            self._exchange.on_end = functools.partial(self._on_end, self._exchange.on_end)

    def _on_end(self, then: Callable[[Exchange], object] | None, exchange: Exchange) -> None:
        self._notify_release()
        if then is not None:
            then(exchange)

    def __repr__(self) -> str:
        return f"Connection<{self._exchange!r}>"

    def __del__(self, _warnings: Any = warnings) -> None:
        """Nothing: the exchange, not this view of it, holds the connection."""

    def close(self) -> None:
        resp = self._resp()
        if resp is None:
            self._exchange.abandon()
        else:
            resp.close()

    release = close  # an unfinished response's connection cannot be used again


class ClientResponse(StampedResponse):
    """aiohttp's response; see aiohttp's documentation for every public member."""

    _exchange: Exchange | None = None
    _upload: "asyncio.Task[None] | None" = None
    _acquisition: Any = None  # of observe.leaks, while leaks are tracked
    _timer = _NOOP_TIMER
    _traces: list[Any] = []  # noqa: RUF012 - replaced, never appended to

    status = Fact(FactKind.STATUS)
    method = Fact(FactKind.METHOD)
    _real_url = Fact(FactKind.REAL_URL)
    _loop = Fact(FactKind.LOOP)
    _resolve_charset = Fact(FactKind.RESOLVE_CHARSET)
    # Whether a response of the express lane sets cookies; its headers need not be made for that.
    has_cookies = Fact(FactKind.HAS_COOKIES)

    _body = State(StateKind.BODY, None)
    _connection = State(StateKind.CONNECTION, None)
    _closed = State(StateKind.CLOSED, True)
    _released = State(StateKind.RELEASED, False)
    _in_context = State(StateKind.IN_CONTEXT, False)

    read = like(aiohttp.ClientResponse.read)(core.read)
    json = like(aiohttp.ClientResponse.json)(core.json)
    __aexit__ = like(aiohttp.ClientResponse.__aexit__)(core.leave)
    __del__ = core.collect  # type: ignore[assignment]

    def _adopt_upload(self, upload: "asyncio.Task[None]") -> None:
        """Name the task that still sends the request body."""
        self._upload = upload
        # What aiohttp's `upload_complete` and `output_size` look at while the upload runs.
        assert self._exchange is not None
        self._stream_writer = self._exchange.prepared.writer
        self._writer = upload

    # Made on first use

    @_lazy
    def reason(self, exchange: Exchange) -> str:
        assert exchange.head is not None
        return exchange.head.reason

    @_lazy
    def version(self, exchange: Exchange) -> HttpVersion:
        assert exchange.head is not None
        pair = (exchange.head.major, exchange.head.minor)
        return _VERSIONS.get(pair) or HttpVersion(*pair)

    @_lazy
    def _url(self, exchange: Exchange) -> URL:
        url: URL = self._real_url
        return url.with_fragment(None) if url.raw_fragment else url

    if TYPE_CHECKING:
        _cache: dict[str, Any]
    else:

        @_lazy
        def _cache(self, exchange: Exchange) -> dict[str, Any]:
            return {}

    @_lazy
    def _request_info(self, exchange: Exchange) -> RequestInfo:
        info: RequestInfo = exchange.prepared.info()
        return info

    @_lazy
    def _output_size(self, exchange: Exchange) -> int:
        size: int = exchange.prepared.output_size
        return size

    @_lazy
    def _raw_headers(self, exchange: Exchange) -> tuple[tuple[bytes, bytes], ...]:
        assert exchange.head is not None
        return tuple(exchange.head.fields)

    @_lazy
    def _headers(self, exchange: Exchange) -> CIMultiDictProxy[str]:  # type: ignore[override]
        assert exchange.head is not None
        return headers_of(exchange.head.fields)

    @_lazy
    def _raw_cookie_headers(self, exchange: Exchange) -> tuple[str, ...] | None:
        if exchange.head is None or not exchange.head.has_cookies:
            return None
        return tuple(self._headers.getall(hdrs.SET_COOKIE, ()))

    @_lazy
    def content(self, exchange: Exchange) -> StreamReader:
        """The body as a stream; from here on it goes through aiohttp's StreamReader."""
        assert exchange.head is not None
        exchange.is_plain = False
        if exchange.sink is not None:
            return exchange.sink.out  # type: ignore[no-any-return]
        if exchange.head.no_body:
            # One of its own: aiohttp's shared EMPTY_PAYLOAD remembers what others read of it.
            return EmptyStreamReader()
        stream = _new_stream(exchange, exchange.settings.high_water // 2)
        exchange.attach(stream)
        if self._body is not None and stream.exception() is None:
            # read() had it all: what is left to stream is nothing.
            stream.read_nowait()
        if self._released and exchange.error is None:
            set_exception(stream, ClientConnectionError("Connection closed"))
        return stream

    # Where the time went

    @property
    def timings(self) -> Timings | None:
        """Where the time of this request went, so far; None where that is not known."""
        exchange = self._exchange
        if exchange is None:
            return super().timings
        facts = exchange.facts
        is_dialled = exchange.is_dialled
        sent_by = exchange.upload_at or exchange.first_at
        return Timings(
            queue=exchange.queued,
            dns=facts.dns if is_dialled else 0.0,
            connect=facts.connect if is_dialled else 0.0,
            tls=facts.tls if is_dialled else 0.0,
            send=sent_by - exchange.sent_at if sent_by else None,
            first_byte=max(0.0, exchange.first_at - sent_by) if exchange.first_at else None,
            body=exchange.end_at - exchange.first_at if exchange.end_at else None,
        )

    @property
    def connection_info(self) -> ConnectionInfo | None:
        """The connection that this request was sent on; None where that is not known."""
        exchange = self._exchange
        if exchange is None:
            return super().connection_info
        facts = exchange.facts
        return ConnectionInfo(
            reused=not exchange.is_dialled,
            idle_for=exchange.idle_for,
            age=exchange.sent_at - facts.created_at,
            requests=exchange.number,
            local=facts.local,
            peer=facts.peer,
            tls_version=facts.tls_version,
            tls_cipher=facts.tls_cipher,
        )

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Start response processing, on aiohttp's own code."""
        conn = getattr(connection._connector, "_lent_to", _nobody)(connection.protocol)
        resp = await super().start(connection)
        if conn is not None and "Keep-Alive" in self._headers:
            field = ",".join(self._headers.getall("Keep-Alive"))
            conn.note_keep_alive(field.encode("utf-8", "surrogateescape"))
        return resp

    # The connection

    @property
    def connection(self) -> Any:
        exchange = self._exchange
        if exchange is None:
            return self._connection
        if exchange.transport is None and (exchange.error is None or self._closed):
            return None
        if self._connection is None:
            self._connection = ExchangeConnection(self, exchange)
        return self._connection

    @property
    def closed(self) -> bool:
        exchange = self._exchange
        if exchange is None:
            return self._closed  # type: ignore[no-any-return]
        return self._closed or (exchange.is_complete and exchange.error is None)

    def _end(self) -> None:
        """Let go of the exchange: an unread body's connection is closed with it."""
        exchange = self._exchange
        assert exchange is not None
        if not self._released:
            self._released = True
            content = self.__dict__.get("content") or (exchange.sink and exchange.sink.out)
            if content and content.exception() is None:
                set_exception(content, ClientConnectionError("Connection closed"))
        self._closed = True
        if (connection := self._connection) is not None:
            # Not by its close() or release(): they come here.
            self._connection = None
            connection._notify_release()
            if connection.protocol is not None and not self._loop.is_closed():
                connection.protocol.close()
        elif not exchange.is_complete and not self._loop.is_closed():
            exchange.abandon()

    def close(self) -> None:
        if self._exchange is None:
            return super().close()
        self._end()

    def release(self) -> Any:
        if self._exchange is None:
            return super().release()
        self._end()
        return aiohttp.helpers.noop()

    async def wait_for_close(self) -> None:
        if self._exchange is None:
            return await super().wait_for_close()
        if self._upload is not None:
            await settle(self._upload)
        self._end()

    def _collect(self, _warnings: Any = warnings) -> None:
        """Clean up what nobody has let go of; for the finalizer."""
        exchange = self._exchange
        if exchange is None:
            if self._acquisition is not None and not self._closed and self._connection is not None:
                self._acquisition.collected(self)
            super().__del__(_warnings)
        elif not self._loop.is_closed():
            if self._acquisition is not None:
                self._acquisition.collected(self)
            exchange.abandon()
            if self._loop.get_debug():
                _warnings.warn(f"Unclosed response {self!r}", ResourceWarning, source=self)
                self._loop.call_exception_handler({"client_response": self, "message": "Unclosed response"})

    # The body

    async def _read(self) -> bytes:
        """`read()` where the body is not at hand, or somebody is to be told of it."""
        exchange = self._exchange
        if exchange is None:
            return await super().read()
        if self._body is None:
            try:
                self._body = await self._wait_body(exchange)
                for trace in self._traces:
                    await trace.send_response_chunk_received(self.method, self.url, self._body)
            except BaseException:
                self.close()
                raise
        elif self._released:
            raise ClientConnectionError("Connection closed")
        if self._upload is not None and (exchange.is_complete or exchange.error is not None):
            # Not after a 101, whose connection stays open.
            await settle(self._upload)
        return self._body  # type: ignore[no-any-return]

    async def _json(self, *, encoding: str | None, loads: JSONDecoder, content_type: str | None) -> Any:
        """`json()` where it is not the usual."""
        return await super().json(encoding=encoding, loads=loads, content_type=content_type)

    async def _wait_body(self, exchange: Exchange) -> bytes:
        if self._released:
            # aiohttp's stream knows that it was closed, or that it was empty anyway.
            return await self.content.read()
        body = exchange.take_body()
        if body is None and exchange.sink is None:
            await exchange.wait_body()
            body = exchange.take_body()
        if body is None:
            body = await self.content.read()
        return body

    async def _leave(self) -> None:
        """`async with` ends, and there is more to do than to note it."""
        self._in_context = False
        if self._exchange is None:
            self.release()
            await self.wait_for_close()
            return
        self._end()
        if self._upload is not None:
            await settle(self._upload)
