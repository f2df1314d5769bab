"""`TCPConnector` and `UnixConnector`: aiohttp's settings and dialling over the core's pool.

Both lanes get their connections here, so the limits hold over both together. Dialling
stays aiohttp's (`_create_connection`: resolver, DNS cache, happy eyeballs, TLS, proxies).
A transport that the full lane uses is lent to aiohttp's ResponseHandler and taken back when
it is released clean. It must not know requests beyond their connection key.
"""

import asyncio
import warnings
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import helpers
from aiohttp.client_exceptions import (
    ClientConnectionError,
    ClientConnectionResetError,
    ConnectionTimeoutError,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import BaseConnector, Connection
from aiohttp.tracing import Trace

from ._core.connection import Connection as PooledConnection
from ._core.connection import ConnectionState
from ._core.exchange import CloseReason
from ._core.pool import ConnectTimeout, Host, Pool, PoolClosed
from ._signatures import like
from .views import IdleView, InUseView

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout


# asyncio's, or that of async_timeout where asyncio has none (CPython 3.10): aiohttp has chosen.
timeout_at: Any = vars(helpers)["async_timeout"].timeout_at
# The packages whose transports are known to do what asyncio's documentation says.
_LOOPS = frozenset({"asyncio", "uvloop", "winloop", "wirespeed"})
_BASE_CONNECT = BaseConnector.connect


class StandIn(ClientConnectionError):
    """What was dialled is no connection that the pool could keep: a test put its own thing there.

    The slot is free again. `protocol` is the thing.
    """

    def __init__(self, connector: BaseConnector, protocol: Any) -> None:
        super().__init__(f"Expected a connection of aiohttp's, got {protocol!r}")
        self.connector = connector
        self.protocol = protocol

    def hand_over(self) -> None:
        """Leave the connector to the full lane from here on: it takes a `connect` of one's own for a sign."""
        self.protocol.close()
        self.connector.connect = self.connector.connect  # type: ignore[method-assign]


class PooledConnector(BaseConnector):
    """What the connectors share: a pool in place of BaseConnector's dictionaries."""

    pool: Pool
    # A connector that aiohttp made before `install()` has neither: it goes on with aiohttp's code.
    _lent: dict[ResponseHandler, PooledConnection] = {}  # noqa: RUF012

    def _make_pool(self) -> None:
        self.pool = Pool(
            self._loop,
            limit=self._limit,
            limit_per_host=self._limit_per_host,
            keepalive_timeout=self._keepalive_timeout,
            force_close=self._force_close,
            lenient=not helpers.DEBUG,
        )
        self._lent: dict[ResponseHandler, PooledConnection] = {}
        self._conns = IdleView(self.pool)
        self._acquired = InUseView(self.pool)

    @property
    def is_pooled(self) -> bool:
        return "pool" in self.__dict__

    # The express lane

    async def acquire(
        self, host: Host, req: ClientRequest, timeout: "ClientTimeout", total_at: float
    ) -> PooledConnection:
        """Get a reserved connection: an idle one, one that is given back, or a new one.

        Args:
            host: the pool's Host of the request's connection key.
            req: what aiohttp's dialling needs to know.
            timeout: `connect`, `sock_connect` and `ceil_threshold` are used.
            total_at: loop time at which the whole request times out; 0 for never.

        Raises:
            ConnectionTimeoutError: `connect` or `sock_connect` passed.
            TimeoutError: `total_at` passed.
            ClientConnectorError: the connection could not be made.
            ClientConnectionError: the connector was closed.
        """
        connect_at = 0.0
        if timeout.connect is not None and timeout.connect > 0:
            connect_at = helpers.calculate_timeout_when(
                self._loop.time(), timeout.connect, timeout.ceil_threshold
            )
        try:
            while (conn := await self._slot(host, connect_at, total_at)) is not None:
                if conn.state == ConnectionState.RESERVED:
                    return conn
                # Lost between the grant and this step; its slot was passed on.
                host = self.pool.host(host.key)
            protocol = await self._dial(host, req, timeout, connect_at, total_at)
        except PoolClosed as exc:
            raise ClientConnectionError("Connector is closed.") from exc
        except ConnectTimeout as exc:
            cause = exc.__cause__ or asyncio.TimeoutError()
            raise ConnectionTimeoutError(f"Connection timeout to host {req.url}") from cause
        return self._adopt(host, protocol)

    async def _slot(self, host: Host, connect_at: float, total_at: float) -> PooledConnection | None:
        """Wait for a slot of the pool; with it may come a connection."""
        pool = self.pool
        if pool.try_reserve(host):
            return None
        waiter = pool.wait(host, connect_at, total_at)
        try:
            return await waiter.future
        except BaseException:
            pool.cancel(waiter)
            raise

    async def _dial(
        self, host: Host, req: ClientRequest, timeout: "ClientTimeout", connect_at: float, total_at: float
    ) -> ResponseHandler:
        """Make a new connection for a slot that is held; the slot is freed when that fails."""
        try:
            async with timeout_at(total_at or None):
                try:
                    async with timeout_at(connect_at or None):
                        return await self._create_connection(req, [], timeout)
                except asyncio.TimeoutError as exc:
                    raise ConnectTimeout() from exc
        except BaseException:
            self.pool.free(host)
            raise

    @staticmethod
    def _strip(protocol: ResponseHandler) -> asyncio.Transport | None:
        """Take the transport from the handler it was dialled with; None when it is in doubt already."""
        transport = protocol.transport
        if transport is None or transport.is_closing():
            return None
        if protocol.should_close:
            transport.abort()
            return None
        protocol.transport = None
        return transport

    def _adopt(self, host: Host, protocol: ResponseHandler) -> PooledConnection:
        """Make a connection of the pool of what was dialled.

        Raises:
            StandIn: it is something else. Not isinstance(): mocks pass for what they stand for.
        """
        if not issubclass(type(protocol), ResponseHandler):
            self.pool.free(host)
            raise StandIn(self, protocol)
        if not _changes_hands(protocol.transport, protocol):
            self.pool.free(host)
            raise StandIn(self, protocol)
        transport = self._strip(protocol)
        if transport is None:
            self.pool.free(host)
            raise ClientConnectionResetError("Cannot write to closing transport")
        try:
            conn = self.pool.add(host, transport)
        except PoolClosed as exc:
            transport.abort()
            raise ClientConnectionError("Connector is closed.") from exc
        except BaseException:
            transport.abort()
            self.pool.free(host)
            raise
        if type(protocol) is not ResponseHandler:
            # A connector's own: aiohttp-socks' closes the connection when it is collected.
            conn.anchor = protocol
        return conn

    async def acquire_traced(
        self, req: ClientRequest, traces: Sequence[Trace], timeout: "ClientTimeout"
    ) -> PooledConnection:
        """Get a reserved connection as `acquire` does, and tell the traces of each step.

        The total time is the caller's to see to: the code of traces takes part of it.

        Raises:
            TimeoutError: `connect` passed.
            ConnectionTimeoutError: `sock_connect` passed.
            ClientConnectorError: the connection could not be made.
            ClientConnectionError: the connector was closed.
        """
        host = self.pool.host(req.connection_key)
        conn = self.pool.take(host)
        if conn is None:
            async with helpers.ceil_timeout(timeout.connect, timeout.ceil_threshold):
                while (conn := await self._slot_traced(host, traces)) is not None:
                    if conn.state == ConnectionState.RESERVED:
                        break
                    host = self.pool.host(host.key)
                if conn is None:
                    return await self._dial_traced(host, req, traces, timeout)
        try:
            for trace in traces:
                await trace.send_connection_reuseconn()
            if req.proxy:
                self._update_proxy_auth_header_and_build_proxy_req(req)
        except BaseException:
            self.pool.give_back(conn)
            raise
        return conn

    async def _slot_traced(self, host: Host, traces: Sequence[Trace]) -> PooledConnection | None:
        pool = self.pool
        if pool.try_reserve(host):
            return None
        if pool.is_closed:
            raise ClientConnectionError("Connector is closed.")
        waiter = pool.wait(host)
        try:
            for trace in traces:
                await trace.send_connection_queued_start()
            conn = await waiter.future
            for trace in traces:
                await trace.send_connection_queued_end()
        except PoolClosed as exc:
            raise ClientConnectionError("Connector is closed.") from exc
        except BaseException:
            pool.cancel(waiter)
            raise
        return conn

    async def _dial_traced(
        self, host: Host, req: ClientRequest, traces: Sequence[Trace], timeout: "ClientTimeout"
    ) -> PooledConnection:
        protocol = None
        try:
            for trace in traces:
                await trace.send_connection_create_start()
            protocol = await self._create_connection(req, list(traces), timeout)
            for trace in traces:
                await trace.send_connection_create_end()
        except BaseException:
            if protocol is not None:
                protocol.abort()
            self.pool.free(host)
            raise
        return self._adopt(host, protocol)

    # The full lane: aiohttp's own interface

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: "ClientTimeout") -> Connection:
        inherited = super().connect
        if getattr(inherited, "__func__", None) is not _BASE_CONNECT or not self.is_pooled:
            # A tool patched aiohttp's connect; it has to see the call, and serves it alone.
            return await inherited(req, traces, timeout)
        try:
            conn = await self.acquire_traced(req, traces or (), timeout)
        except StandIn as exc:
            # Handled as aiohttp handles its connections, by aiohttp's code.
            self._acquired.add(exc.protocol)
            return Connection(self, req.connection_key, exc.protocol, self._loop)
        return self._lend(conn)

    def _lend(self, conn: PooledConnection) -> Connection:
        protocol = ResponseHandler(self._loop)
        try:
            conn.lend(protocol)
        except ConnectionResetError as exc:
            raise ClientConnectionResetError(*exc.args) from exc
        self._lent[protocol] = conn
        return Connection(self, conn.host.key, protocol, self._loop)

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
            conn.close(CloseReason.LENT_UNCLEAN)
            if key.is_ssl and not self._cleanup_closed_disabled:
                self._cleanup_closed_transports.append(transport)
            return
        protocol._drop_timeout()
        protocol.transport = None
        conn.take_back(protocol.writing_paused)

    # End

    def _close(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        if self._closed:
            return []
        if self._loop.is_closed() or not self.is_pooled:
            return super()._close(abort_ssl=abort_ssl)
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
        self._close()
        _warnings.warn(f"Unclosed connector {self!r}", ResourceWarning, source=self)
        context = {"connector": self, "connections": conns, "message": "Unclosed connector"}
        if self._source_traceback is not None:
            context["source_traceback"] = self._source_traceback
        self._loop.call_exception_handler(context)


def _changes_hands(transport: Any, protocol: asyncio.BaseProtocol) -> bool:
    """Whether a transport can be given another protocol; those of mocks may not, or pretend to."""
    if transport is None or type(transport).__module__.partition(".")[0] in _LOOPS:
        return True
    other = asyncio.Protocol()
    try:
        transport.set_protocol(other)
        is_changed = transport.get_protocol() is other
        transport.set_protocol(protocol)
    except (AttributeError, NotImplementedError):
        return False
    return is_changed


like(BaseConnector.connect)(PooledConnector.connect)


class TCPConnector(PooledConnector, aiohttp.TCPConnector):
    """TCP connector with aiohttp's parameters, over the native pool."""

    if not TYPE_CHECKING:

        @like(aiohttp.TCPConnector.__init__)
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self._make_pool()


class UnixConnector(PooledConnector, aiohttp.UnixConnector):
    """Unix socket connector with aiohttp's parameters, over the native pool."""

    if not TYPE_CHECKING:

        @like(aiohttp.UnixConnector.__init__)
        def __init__(self, path, **kwargs):
            super().__init__(path, **kwargs)
            self._make_pool()
