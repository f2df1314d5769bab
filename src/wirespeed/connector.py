"""`TCPConnector` and `UnixConnector`: aiohttp's settings and dialling over the core's pool.

Both lanes get their connections here, so the limits hold over both together. A transport that
the full lane uses is lent to aiohttp's ResponseHandler and taken back when it is released
clean. It must not know requests beyond their connection key.
"""

import asyncio
import warnings
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import helpers
from aiohttp.client_exceptions import ClientConnectionResetError
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import BaseConnector, Connection
from aiohttp.tracing import Trace
from yarl import URL

from ._core.connection import Connection as PooledConnection
from ._core.exchange import CloseReason as _CoreReason
from ._core.pool import Pool
from ._signatures import like
from .acquisition import Acquirer, StandIn
from .dialling import ProtocolFactory, note_resolved
from .direct import dial_error
from .observe import CloseReason
from .observe.observer import Observer
from .observe.stats import PoolStats
from .observe.tracking import is_wanted
from .pooling import TCP_DEFAULTS, UNIX_DEFAULTS, PoolOptions
from .sockets import Preset, TCPOptions
from .stamps import Link, Stamps, stamp, tell_connection, tell_request
from .survey import Survey, stats, stats_by_origin
from .telling import origin_of
from .views import IdleView, InUseView

if TYPE_CHECKING:
    import socket
    import ssl as _ssl
    from typing import Literal

    from aiohttp import Fingerprint
    from aiohttp.abc import AbstractResolver
    from aiohttp.client import ClientTimeout
    from aiohttp.connector import SocketFactoryType

    from .observe.leaks import Leak, LeakTracker


_BASE_CONNECT = BaseConnector.connect


class PooledConnector(Acquirer):
    """What the connectors share: a pool in place of BaseConnector's dictionaries."""

    # A connector that aiohttp made before `install()` has neither: it goes on with aiohttp's code.
    _lent: dict[ResponseHandler, PooledConnection] = {}  # noqa: RUF012
    # What `_resolve_host` is unless somebody overrides or patches it; None for no names to resolve.
    _own_resolve_host: Any = None
    # None while leaks are not tracked.
    _tracker: "LeakTracker | None" = None

    def _make_pool(self, options: PoolOptions) -> None:
        self.options = options
        self.pool = Pool(
            self._loop,
            limit=self._limit,
            limit_per_host=self._limit_per_host,
            keepalive_timeout=self._keepalive_timeout,
            force_close=self._force_close,
            lenient=not helpers.DEBUG,
            max_waiters=options.max_waiters,
            pool_timeout=options.pool_timeout,
            max_open=options.max_open,
            max_connection_age=options.max_connection_age,
            max_requests_per_connection=options.max_requests_per_connection,
            is_lifo=options.reuse == "lifo",
            learns=options.learn_keepalive,
        )
        if is_wanted(options.track_leaks):
            from .observe.leaks import LeakTracker

            self._tracker = LeakTracker(connector=self)
            self.pool.who = self._tracker.acquiring
        self._tcp = TCPOptions.of(options.tcp)
        self.pool.set_options = None if self._tcp is None else self._tcp.apply_to
        self.pool.dial_error = dial_error
        self._survey = Survey(self.pool, self._limit)
        self._factory = ProtocolFactory(self._factory)  # type: ignore[assignment]
        self._lent: dict[ResponseHandler, PooledConnection] = {}
        self._dials: set[asyncio.Task[Any]] = set()
        self._conns = IdleView(self.pool)
        self._acquired = InUseView(self.pool)

    @property
    def is_pooled(self) -> bool:
        return "pool" in self.__dict__

    # The full lane: aiohttp's own interface

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: "ClientTimeout") -> Connection:
        inherited = super().connect
        if getattr(inherited, "__func__", None) is not _BASE_CONNECT or not self.is_pooled:
            # A tool patched aiohttp's connect; it has to see the call, and serves it alone.
            return await inherited(req, traces, timeout)
        asked_at = self.pool.now()
        try:
            # A request of a test may have no proxy to ask for.
            if traces or getattr(req, "proxy", None):
                conn = await self.acquire_traced(req, traces or (), timeout)
            else:
                conn = await self.acquire_untraced(req, timeout)
        except StandIn as exc:
            # Handled as aiohttp handles its connections, by aiohttp's code.
            self._acquired.add(exc.protocol)
            return Connection(self, req.connection_key, exc.protocol, self._loop)
        except BaseException as exc:
            if self.observers:
                duration = self.pool.now() - asked_at
                tell_request(self, origin_of(req.connection_key), req.method, None, duration, exc)
            raise
        connection = self._lend(conn)
        stamp(connection, self._stamps(conn, asked_at))
        if self._tracker is not None:
            self._tracker.lent(conn.holder, req.method, req.url, connection)
        return connection

    def _stamps(self, conn: PooledConnection, asked_at: float) -> Stamps:
        facts, is_new, now = conn.facts, conn.is_dialled, self.pool.now()
        return Stamps(
            Link(facts.local, facts.peer, facts.tls_version, facts.tls_cipher),
            origin=origin_of(conn.host.key),
            watched=self,
            asked_at=asked_at,
            reused=not is_new,
            idle_for=0.0 if is_new else now - conn.idle_since,
            age=now - facts.created_at,
            requests=conn.requests,
            queue=conn.waited,
            dns=facts.dns if is_new else 0.0,
            connect=facts.connect if is_new else 0.0,
            tls=facts.tls if is_new else 0.0,
        )

    def _lend(self, conn: PooledConnection) -> Connection:
        protocol = ResponseHandler(self._loop)
        try:
            conn.lend(protocol)
        except ConnectionResetError as exc:
            raise ClientConnectionResetError(*exc.args) from exc
        self._lent[protocol] = conn
        return Connection(self, conn.host.key, protocol, self._loop)

    def _lent_to(self, protocol: ResponseHandler) -> PooledConnection | None:
        """The connection that a protocol of aiohttp's has on loan."""
        return self._lent.get(protocol)

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        """Take back what was lent: into the pool when it is clean, else closed."""
        conn = self._lent.pop(protocol, None)
        if conn is None:
            # Closed with the connector, or connected by aiohttp's own code.
            super()._release(key, protocol, should_close=should_close)
            return
        if should_close or self._force_close or protocol.should_close or not protocol.is_connected():
            transport = protocol.transport
            protocol.close()
            conn.close(_CoreReason.LENT_UNCLEAN)
            if key.is_ssl and not self._cleanup_closed_disabled:
                self._cleanup_closed_transports.append(transport)
            return
        protocol._drop_timeout()
        protocol.transport = None
        conn.take_back(protocol.writing_paused)

    # Looking in

    def __repr__(self) -> str:
        if not self.is_pooled:
            return super().__repr__()
        return self._describe()

    def stats(self, origin: str | URL | None = None) -> PoolStats:
        return stats(self.__dict__["pool"], origin)

    def stats_by_origin(self) -> dict[str, PoolStats]:
        return stats_by_origin(self.__dict__["pool"])

    def leaks(self) -> "list[Leak]":
        """List the leaks of this connector's connections, each with the line that acquired.

        With `track_leaks` only; else there are none to tell. `observe.leaks.LeakTracker.leaks` says
        how each is decided; `observe.leaks.all_leaks` lists those of the whole process, sessions included.
        """
        return [] if self._tracker is None else self._tracker.look()

    def _held(self) -> list[tuple[Any, float, int]]:
        """List the holder and the age of each connection in use, and how many callers wait for it."""
        pool = self.pool
        now = pool.now()
        is_full = 0 < pool.limit <= pool.in_use
        return [
            (conn.holder, now - conn.acquired_at, pool.waiting if is_full else conn.host.waiting)
            for conn in pool.connections()
            if conn.holder is not None
        ]

    def add_observer(self, observer: Observer) -> None:
        super().add_observer(observer)
        self.__dict__["pool"].on_closed = self._tell_closed

    def remove_observer(self, observer: Observer) -> None:
        super().remove_observer(observer)
        if not self.observers:
            self.__dict__["pool"].on_closed = None

    def _tell_closed(self, conn: PooledConnection) -> None:
        duration = self.__dict__["pool"].now() - conn.facts.created_at
        tell_connection(self, origin_of(conn.host.key), duration, CloseReason(conn.close_reason))

    # End

    def _close(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        if self._closed:
            return []
        if self._loop.is_closed() or not self.is_pooled:
            return super()._close(abort_ssl=abort_ssl)
        if self.pool.is_closed:
            # An observer of the connections that are being closed.
            return []
        if self._tracker is not None:
            self._tracker.closing(self._held())
        waiters: list[Awaitable[object]] = []
        for protocol, conn in self._lent.items():
            if abort_ssl and conn.is_tls:
                protocol.abort()
            else:
                protocol.close()
            if closed := protocol.closed:
                waiters.append(closed)
        self._lent.clear()
        self.pool.close()
        for task in self._dials:
            task.cancel()
        for dial in tuple(self.pool.dials):
            dial.cancel()
            waiters.append(dial.wait_ended())
        waiters.extend(self._dials)
        waiters.append(self.pool.wait_closed())
        # What is left in the views is aiohttp's own.
        return [*super()._close(abort_ssl=abort_ssl), *waiters]

    def _cleanup(self) -> None:
        """Close what aiohttp's own code kept and is idle for too long; the pool sees to itself."""
        view = self._conns
        if not isinstance(view, IdleView):
            super()._cleanup()
            return
        self._conns = view.own()
        super()._cleanup()
        view.clear()
        view.update(self._conns)
        self._conns = view

    def __del__(self, _warnings: Any = warnings) -> None:
        if not self.is_pooled:
            super().__del__(_warnings)
            return
        if self._closed or not (pool := self.pool).idle:
            return
        conns = [repr(host) for host in pool.hosts.values()]
        description = repr(self)
        if self._tracker is not None:
            self._tracker.dropped()
        self._close()
        _warnings.warn(f"Unclosed connector {description}", ResourceWarning, source=self)
        context = {"connector": self, "connections": conns, "message": "Unclosed connector"}
        if self._source_traceback is not None:
            context["source_traceback"] = self._source_traceback
        self._loop.call_exception_handler(context)


like(BaseConnector.connect)(PooledConnector.connect)


class TCPConnector(PooledConnector, aiohttp.TCPConnector):
    """TCP connector with aiohttp's parameters, over the native pool, and with parameters of the pool.

    Args:
        limit: connections in use or being dialled at the same time; 0 for no limit. As in aiohttp, idle
            ones are not counted.
        limit_per_host: the same for one host, where idle ones never come on top.
        max_waiters: callers that may wait for a slot; more are refused with `PoolFull`. None for any number,
            0 to refuse whoever would have to wait.
        pool_timeout: seconds that a caller may wait for a slot, then `PoolTimeout`; None for no limit but
            that of `ClientTimeout.connect`.
        max_open: connections open or being dialled, idle ones counted; the idle connection that was not
            used for longest makes room. `limit` is lowered to it. None for no limit.
        max_connection_age: seconds after which a connection is not used for another request, less a random
            0 to 10 %; None for no limit.
        max_requests_per_connection: requests after which a connection is closed, less a random 0 to 10 %;
            None for no limit.
        reuse: "fifo" takes the connection that has been idle longest, as aiohttp; "lifo" the one used
            last, so that those that are not needed end.
        learn_keepalive: learn from the ages at which an origin's idle connections end, and stop using
            them shortly before.
        tcp: options of the sockets: a TCPOptions, or "lan", "internet" or "nat"; None for aiohttp's.
        track_leaks: note who acquired each connection, for `leaks()`; None to leave it to the environment
            variable WIRESPEED_TRACK_LEAKS.

    Raises:
        ValueError, TypeError: a parameter that makes no sense.
    """

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            verify_ssl: bool = True,
            fingerprint: bytes | None = None,
            use_dns_cache: bool = True,
            ttl_dns_cache: int | None = 10,
            dns_cache_max_size: int = 1000,
            family: socket.AddressFamily = ...,
            ssl_context: _ssl.SSLContext | None = None,
            ssl: "bool | Fingerprint | _ssl.SSLContext" = True,
            local_addr: tuple[str, int] | None = None,
            resolver: AbstractResolver | None = None,
            keepalive_timeout: float | None = ...,
            force_close: bool = False,
            limit: int = 100,
            limit_per_host: int = 0,
            enable_cleanup_closed: bool = False,
            loop: asyncio.AbstractEventLoop | None = None,
            timeout_ceil_threshold: float = 5,
            happy_eyeballs_delay: float | None = 0.25,
            interleave: int | None = None,
            socket_factory: SocketFactoryType | None = None,
            ssl_shutdown_timeout: float | None = ...,
            max_waiters: int | None = None,
            pool_timeout: float | None = None,
            max_open: int | None = None,
            max_connection_age: float | None = None,
            max_requests_per_connection: int | None = None,
            reuse: Literal["fifo", "lifo"] = "fifo",
            learn_keepalive: bool = True,
            tcp: TCPOptions | Preset | None = None,
            track_leaks: bool | None = None,
        ) -> None: ...

    else:

        @like(aiohttp.TCPConnector.__init__, **TCP_DEFAULTS)
        def __init__(self, **kwargs):
            options, aiohttps = PoolOptions.split(kwargs)
            super().__init__(**aiohttps)
            self._make_pool(options)

        @like(aiohttp.TCPConnector._resolve_host)
        async def _resolve_host(self, host, port, traces=None):
            try:
                return await super()._resolve_host(host, port, traces=traces)
            finally:
                if not helpers.is_ip_address(host):
                    note_resolved()


if not TYPE_CHECKING:
    TCPConnector._own_resolve_host = TCPConnector._resolve_host


class UnixConnector(PooledConnector, aiohttp.UnixConnector):
    """Unix socket connector with aiohttp's parameters, and those of TCPConnector's pool, but for `tcp`."""

    if TYPE_CHECKING:

        def __init__(
            self,
            path: str,
            force_close: bool = False,
            keepalive_timeout: float | None = ...,
            limit: int = 100,
            limit_per_host: int = 0,
            loop: asyncio.AbstractEventLoop | None = None,
            *,
            max_waiters: int | None = None,
            pool_timeout: float | None = None,
            max_open: int | None = None,
            max_connection_age: float | None = None,
            max_requests_per_connection: int | None = None,
            reuse: Literal["fifo", "lifo"] = "fifo",
            learn_keepalive: bool = True,
            track_leaks: bool | None = None,
        ) -> None: ...

    else:

        @like(aiohttp.UnixConnector.__init__, **UNIX_DEFAULTS)
        def __init__(self, path, *args, tcp=None, **kwargs):
            if tcp is not None:
                raise TypeError("a Unix socket has no TCP options")
            options, aiohttps = PoolOptions.split(kwargs)
            super().__init__(path, *args, **aiohttps)
            self._make_pool(options)
