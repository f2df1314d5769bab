"""How a connector gets a connection: from the pool's idle ones, from those that are freed, or by dialling.

Dialling stays aiohttp's (`_create_connection`: resolver, DNS cache, happy eyeballs, TLS, proxies).
A part of the connectors; it must not know requests beyond what dialling needs of them.
"""

import asyncio
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import ClientRequest, helpers
from aiohttp.client import DEFAULT_TIMEOUT
from aiohttp.client_exceptions import (
    ClientConnectionError,
    ClientConnectionResetError,
    ClientConnectorError,
    ConnectionTimeoutError,
    ServerDisconnectedError,
)
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import BaseConnector
from aiohttp.tracing import Trace
from yarl import URL

from ._core.connection import Connection as PooledConnection
from ._core.connection import ConnectionState
from ._core.dial import Dial as DirectDial
from ._core.dial import start_dial
from ._core.hosts import ConnectTimeout, Host, PoolClosed, TooManyWaiters, Waiter, WaitTimeout
from ._core.pool import Pool
from .dialling import Dial
from .direct import address_for
from .loops import start_task
from .pooling import PoolFull, PoolTimeout
from .sockets import TCPOptions
from .survey import Survey
from .telling import TellingConnector

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout

    from ._core.figures import ConnectionFacts

# The packages whose transports are known to do what asyncio's documentation says.
_LOOPS = frozenset({"asyncio", "uvloop", "winloop", "wirespeed"})
# Seconds for which a dial may go on whose caller was served otherwise; aiohttp's sock_connect.
_ORPHAN_DIAL_MAX = 30.0
# Seconds after which it makes way for others: a dial that is still worth its slot has ended by then.
_ORPHAN_DIAL_FREE = 1.0


def connection_timeout(url: URL, exc: ConnectTimeout) -> ConnectionTimeoutError:
    """What the caller gets when the time for connecting has passed, to be raised from the cause of `exc`.

    Args:
        url: the request's, without a fragment.
        exc: gets a cause as aiohttp's timer has it, unless it has one.
    """
    if exc.__cause__ is None:
        exc.__cause__ = asyncio.TimeoutError()
        exc.__cause__.__cause__ = asyncio.CancelledError()
    return ConnectionTimeoutError(f"Connection timeout to host {url}")


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


class _Orphan:
    """A dial that goes on for the pool, for its caller was served otherwise.

    A server that takes no more connections would else fill the pool with them: every request that
    finds its one good connection busy leaves another.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pool: Pool,
        host: Host,
        task: "asyncio.Task[Any] | DirectDial",
    ) -> None:
        self._loop, self._pool, self._host, self._task = loop, pool, host, task
        self._until = loop.time() + _ORPHAN_DIAL_MAX
        self._handle = loop.call_later(_ORPHAN_DIAL_FREE, self._look)
        task.add_done_callback(self._end)

    def _look(self) -> None:
        if self._is_in_the_way() or self._loop.time() >= self._until:
            self._task.cancel()
        else:
            self._handle = self._loop.call_later(_ORPHAN_DIAL_FREE, self._look)

    def _is_in_the_way(self) -> bool:
        pool, host = self._pool, self._host
        if pool.max_waiters != 0:
            return pool.waiting > 0
        # Nobody may wait: whoever comes is refused.
        return 0 < pool.limit <= pool.in_use or 0 < pool.limit_per_host <= host.in_use

    def _end(self, _: object) -> None:
        self._handle.cancel()


class _Queue:
    """Whether a caller is in the queue of the pool: then it is the pool's fault that its time passes."""

    is_in = False


@dataclass(slots=True)
class _Wanted:
    """A connection that is wanted; see `Acquirer.acquire`."""

    req: ClientRequest
    timeout: "ClientTimeout"
    total_at: float = 0.0
    asked_at: float = 0.0
    connect_at: float = 0.0


class Acquirer(TellingConnector):
    """The part of the connectors that acquires connections."""

    pool: Pool
    _tcp: TCPOptions | None
    _survey: Survey
    _dials: "set[asyncio.Task[Any]]"

    async def acquire(
        self,
        host: Host,
        req: ClientRequest,
        timeout: "ClientTimeout",
        total_at: float,
        *,
        has_slot: bool = False,
        asked_at: float = 0.0,
        connect_at: float = 0.0,
    ) -> PooledConnection:
        """Get a reserved connection: an idle one, one that is given back, or a new one.

        Args:
            host: the pool's Host of the request's connection key.
            req: what aiohttp's dialling needs to know.
            timeout: `connect`, `sock_connect` and `ceil_threshold` are used.
            total_at: loop time at which the whole request times out; 0 for never.
            has_slot: the caller holds a slot of the pool, to dial on.
            asked_at: when the connection was asked for, on the pool's clock; 0 for now.
            connect_at: loop time at which `connect` passes; 0 where it is to be found from `timeout`.

        Raises:
            PoolTimeout: `connect` or `pool_timeout` passed before there was a slot.
            PoolFull: too many wait for a slot already.
            ConnectionTimeoutError: `connect` or `sock_connect` passed.
            TimeoutError: `total_at` passed.
            ClientConnectorError: the connection could not be made.
            ServerDisconnectedError: it was made, and lost at once.
            ClientConnectionError: the connector was closed.
        """
        try:
            return await self._obtain(host, _Wanted(req, timeout, total_at, asked_at, connect_at), has_slot)
        except ConnectTimeout as exc:
            raise connection_timeout(req.url, exc) from exc.__cause__

    async def _obtain(self, host: Host, wanted: _Wanted, has_slot: bool = False) -> PooledConnection:
        timeout = wanted.timeout
        if not wanted.connect_at and timeout.connect is not None and timeout.connect > 0:
            wanted.connect_at = helpers.calculate_timeout_when(
                self._loop.time(), timeout.connect, timeout.ceil_threshold
            )
        wanted.asked_at = wanted.asked_at or self.pool.now()
        try:
            while True:
                conn = None if has_slot else await self._slot(host, wanted)
                has_slot = False
                if conn is None:
                    conn = await self._race(host, wanted)
                if conn.state == ConnectionState.RESERVED:
                    return conn
                if conn.is_dialled and not self.pool.is_closed:
                    # A server that takes connections and drops them: we would dial for ever.
                    raise ServerDisconnectedError
                # Lost between the grant and this step; its slot was passed on.
                host = self.pool.host(host.key)
        except (PoolClosed, TooManyWaiters, WaitTimeout) as exc:
            raise self._refusal(host, wanted.req.url, exc) from exc

    async def acquire_untraced(self, req: ClientRequest, timeout: "ClientTimeout") -> PooledConnection:
        """Get a reserved connection for aiohttp's own code, whose words for a timeout are its own.

        Raises:
            TimeoutError: `connect` or `sock_connect` passed; else as `acquire`.
        """
        host = self.pool.host(req.connection_key)
        conn = self.pool.take(host)
        if conn is not None:
            return conn
        try:
            return await self._obtain(host, _Wanted(req, timeout))
        except ConnectTimeout as exc:
            raise asyncio.TimeoutError from exc

    def _refusal(self, host: Host, url: URL, exc: Exception) -> ClientConnectionError:
        """What the caller gets that the pool had nothing for."""
        if isinstance(exc, PoolClosed):
            return ClientConnectionError("Connector is closed.")
        pressure = self._survey.pressure(host)
        if isinstance(exc, TooManyWaiters):
            text = f"No connection to host {url}, max_waiters={self.options.max_waiters} wait already"
            return PoolFull(text, pressure)
        return PoolTimeout(f"Connection timeout to host {url}", pressure, *exc.args)

    async def _slot(self, host: Host, wanted: _Wanted) -> PooledConnection | None:
        """Wait for a slot of the pool; with it may come a connection."""
        pool = self.pool
        if pool.try_reserve(host):
            return None
        waiter = pool.wait(host, wanted.connect_at, wanted.total_at)
        try:
            return await waiter.future
        except BaseException:
            pool.cancel(waiter)
            raise
        finally:
            del waiter  # an exception's traceback holds this frame, and the future the exception

    async def _race(self, host: Host, wanted: _Wanted) -> PooledConnection:
        """Dial on a slot that is held, and take what comes first: the new connection, or one that is freed.

        When it is a freed one, the dial goes on, and what it makes joins the pool.
        """
        pool, req, timeout = self.pool, wanted.req, wanted.timeout
        queued = pool.now() - wanted.asked_at
        waiter = pool.begin_dial(host, wanted.connect_at, wanted.total_at, queued)
        task: asyncio.Task[Any] | DirectDial | None = None
        try:
            if not waiter.future.done():
                task = self._start_direct(waiter, req, timeout) or self._start_dial(waiter, req, timeout)
            conn = await waiter.future
        except BaseException:
            pool.cancel(waiter)
            if task is not None:
                task.cancel()
            raise
        else:
            assert conn is not None
            if task is not None and not task.done():
                self._leave_dial(host, task)
            return conn
        finally:
            # An exception's traceback holds this frame; the future and the task's result are the exception.
            del waiter, task

    def _leave_dial(self, host: Host, dial: "asyncio.Task[Any] | DirectDial") -> None:
        """Let a dial go on for the pool."""
        _Orphan(self._loop, self.pool, host, dial)

    def _start_direct(
        self, waiter: Waiter, req: ClientRequest, timeout: "ClientTimeout"
    ) -> DirectDial | None:
        """Dial straight to the address, where that is all there is to do."""
        if type(req) is not ClientRequest or (address := address_for(self, waiter.host.key)) is None:
            return None
        at, seconds = 0.0, timeout.sock_connect
        if seconds is not None and seconds > 0:
            at = helpers.calculate_timeout_when(self._loop.time(), seconds, timeout.ceil_threshold)
        return start_dial(self.pool, waiter, address, at)

    def _start_dial(
        self, waiter: Waiter, req: ClientRequest, timeout: "ClientTimeout"
    ) -> "asyncio.Task[Exception | None]":
        """Dial in a task; what comes of it goes to the waiter, or to the pool."""
        dial = Dial()
        task = start_task(self._dial(waiter, dial, req, timeout))
        if not task.done():
            self._dials.add(task)
            task.add_done_callback(functools.partial(self._end_dial, waiter, dial))
        try:
            return task
        finally:
            del waiter, task  # when it has failed in its first step, its frame's caller was this one

    def _end_dial(self, waiter: Waiter, dial: Dial, task: "asyncio.Task[Exception | None]") -> None:
        self._dials.discard(task)
        if not dial.has_begun:
            # Cancelled before its first step: nothing of it has run.
            self.pool.fail_dial(waiter, asyncio.CancelledError())

    async def _dial(
        self, waiter: Waiter, dial: Dial, req: ClientRequest, timeout: "ClientTimeout"
    ) -> Exception | None:
        """Dial for a waiter; returns why it failed."""
        transport = None
        dial.begin()
        try:
            try:
                protocol = await self._create_connection(req, [], timeout)
            except asyncio.TimeoutError as exc:
                raise ConnectTimeout() from exc
            transport = self._strip(protocol)
            conn = self.pool.end_dial(waiter, transport, self._finish(transport, dial, req))
        except BaseException as exc:
            if transport is not None:
                transport.abort()
            if not isinstance(exc, PoolClosed):
                self.pool.fail_dial(waiter, exc)
            if not isinstance(exc, Exception):
                raise
            return exc
        finally:
            del waiter  # its future has the exception, whose traceback holds this frame
        self._anchor(conn, protocol)
        return None

    def _finish(self, transport: asyncio.Transport, dial: Dial, req: ClientRequest) -> "ConnectionFacts":
        """Set the options of a socket that was dialled, and sum up the dial."""
        facts = dial.facts(transport)
        if self._tcp is not None:
            try:
                self._tcp.apply_to(transport)
            except OSError as exc:
                raise ClientConnectorError(req.connection_key, exc) from exc
        return facts

    def _strip(self, protocol: ResponseHandler) -> asyncio.Transport:
        """Take the transport from the handler it was dialled with.

        Raises:
            StandIn: it is something else. Not isinstance(): mocks pass for what they stand for.
            ClientConnectionResetError: it is in doubt already.
        """
        if not issubclass(type(protocol), ResponseHandler) or not _changes_hands(
            protocol.transport, protocol
        ):
            raise StandIn(self, protocol)
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("Cannot write to closing transport")
        if protocol.should_close:
            transport.abort()
            raise ClientConnectionResetError("Cannot write to closing transport")
        protocol.transport = None
        return transport

    @staticmethod
    def _anchor(conn: PooledConnection, protocol: ResponseHandler) -> None:
        if type(protocol) is not ResponseHandler:
            # A connector's own: aiohttp-socks' closes the connection when it is collected.
            conn.anchor = protocol

    async def acquire_traced(
        self, req: ClientRequest, traces: Sequence[Trace], timeout: "ClientTimeout"
    ) -> PooledConnection:
        """Get a reserved connection as `acquire` does, and tell the traces of each step.

        The total time is the caller's to see to: the code of traces takes part of it.

        Raises:
            PoolTimeout: `connect` or `pool_timeout` passed before there was a slot.
            PoolFull: too many wait for a slot already.
            TimeoutError: `connect` passed.
            ConnectionTimeoutError: `sock_connect` passed.
            ClientConnectorError: the connection could not be made.
            ClientConnectionError: the connector was closed.
        """
        pool = self.pool
        host = pool.host(req.connection_key)
        conn = pool.take(host)
        if conn is None:
            asked_at = pool.now()
            queue = _Queue()
            try:
                async with helpers.ceil_timeout(timeout.connect, timeout.ceil_threshold):
                    while (conn := await self._slot_traced(host, traces, queue)) is not None:
                        if conn.state == ConnectionState.RESERVED:
                            break
                        host = pool.host(host.key)
                    if conn is None:
                        # Its signals are the request's: it dials in its own task, for itself.
                        waited = pool.now() - asked_at
                        conn = await self._dial_traced(host, req, traces, timeout)
                        conn.waited = waited
                        return conn
            except (PoolClosed, TooManyWaiters, WaitTimeout) as exc:
                raise self._refusal(host, req.url, exc) from exc
            except asyncio.TimeoutError as exc:
                if not queue.is_in:
                    raise
                host.count_wait_timeout()
                raise self._refusal(host, req.url, WaitTimeout(pool.now() - asked_at)) from exc
        try:
            for trace in traces:
                await trace.send_connection_reuseconn()
            if req.proxy:
                self._update_proxy_auth_header_and_build_proxy_req(req)
        except BaseException:
            pool.give_back(conn)
            raise
        return conn

    async def _slot_traced(
        self, host: Host, traces: Sequence[Trace], queue: _Queue
    ) -> PooledConnection | None:
        pool = self.pool
        if pool.try_reserve(host):
            return None
        if pool.is_closed:
            raise PoolClosed
        waiter = pool.wait(host)
        try:
            for trace in traces:
                await trace.send_connection_queued_start()
            queue.is_in = True
            conn = await waiter.future
            queue.is_in = False
            for trace in traces:
                await trace.send_connection_queued_end()
        except BaseException:
            pool.cancel(waiter)
            raise
        finally:
            del waiter  # as in _slot
        return conn

    async def _dial_traced(
        self, host: Host, req: ClientRequest, traces: Sequence[Trace], timeout: "ClientTimeout"
    ) -> PooledConnection:
        protocol = transport = None
        dial = Dial()
        dial.begin()
        try:
            for trace in traces:
                await trace.send_connection_create_start()
            protocol = await self._create_connection(req, list(traces), timeout)
            for trace in traces:
                await trace.send_connection_create_end()
            transport = self._strip(protocol)
            facts = self._finish(transport, dial, req)
        except BaseException as exc:
            if transport is not None:
                transport.abort()
            elif protocol is not None and not isinstance(exc, StandIn):
                protocol.abort()
            self.pool.free(host)
            raise
        try:
            conn = self.pool.add(host, transport, facts)
        except PoolClosed:
            transport.abort()
            raise
        self._anchor(conn, protocol)
        return conn

    async def prewarm(self, origin: str | URL, n: int = 1, *, timeout: "ClientTimeout | None" = None) -> int:
        url = self._check_prewarming(origin, n)
        timeout = timeout or DEFAULT_TIMEOUT
        pool = self.pool
        req = ClientRequest("GET", url, loop=self._loop, ssl=True)
        host = pool.host(req.connection_key)
        waiters = pool.begin_prewarm(host, n)
        tasks = [self._start_dial(waiter, req, timeout) for waiter in waiters]
        late = 0
        if tasks:
            try:
                await asyncio.wait(tasks, timeout=timeout.connect or timeout.total)
            finally:
                for task in tasks:
                    late += task.cancel()
        if pool.is_closed:
            raise ClientConnectionError("Connector is closed.")
        # Those that did not end in time are cancelled, but have their slots still.
        count = host.in_use + host.idle_count - late
        if tasks and not count:
            error = next(filter(None, map(_outcome, tasks)), None)
            try:
                if error is None and not late:
                    # Made, and lost at once.
                    raise ServerDisconnectedError
                if error is None or isinstance(error, ConnectTimeout):
                    raise ConnectionTimeoutError(f"Connection timeout to host {url}") from error
                raise error
            finally:
                del error, task, tasks  # its traceback holds this frame
        return count


def _outcome(task: "asyncio.Task[Exception | None]") -> Exception | None:
    """Why a dial failed; None when it did not, or not yet, or was cancelled."""
    return task.result() if task.done() and not task.cancelled() else None


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
