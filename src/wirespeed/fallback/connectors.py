"""The connectors of the fallback: aiohttp's pool, watched.

Not replaced: through the methods that aiohttp's code calls itself (`connect`, `_get`, `_release`,
`_wait_for_available_connection`, `_create_connection`, `_close`) and through the protocol that its
connections have (`Handler`).
"""

import asyncio
import contextvars
import functools
import heapq
import itertools
import logging
import weakref
from collections.abc import Awaitable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import hdrs, helpers
from aiohttp.client import DEFAULT_TIMEOUT
from aiohttp.client_exceptions import ClientConnectorError, ConnectionTimeoutError
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import BaseConnector, Connection
from yarl import URL

from .._signatures import like
from ..observe import CloseReason, PoolStats
from ..pooling import TCP_DEFAULTS, UNIX_DEFAULTS, PoolFull, PoolOptions, PoolTimeout, Pressure
from ..sockets import TCPOptions
from ..stamps import Stamps, stamp, tell_request
from ..telling import TellingConnector, origin_of
from .handler import Handler
from .ledger import Account, Ledger

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout
    from aiohttp.tracing import Trace

_logger = logging.getLogger("wirespeed")
# asyncio's, or that of async_timeout where asyncio has none (CPython 3.10): aiohttp has chosen.
_timeout: Any = vars(helpers)["async_timeout"].timeout
# The connections named in the message of an error: enough to see who it is.
_HOLDERS = 5


def _has_expired(timeout: Any) -> bool:
    """Whether a timeout's time has passed: a method in asyncio, a property in async_timeout."""
    expired = timeout.expired
    return bool(expired() if callable(expired) else expired)


class _Asking:
    """One call of `connect`: what its steps, which aiohttp calls, find out."""

    __slots__ = ("at", "dial", "dns", "has_timed_out", "is_planned", "is_prewarming", "queue", "tls", "url")

    def __init__(self, url: URL, *, is_prewarming: bool = False) -> None:
        self.at = perf_counter()
        self.url = url
        self.is_prewarming = self.is_planned = is_prewarming
        self.has_timed_out = False
        """Given up in the queue; for `connect` to tell whether it was its own timeout."""
        self.queue = self.dns = self.dial = self.tls = 0.0


_asking: contextvars.ContextVar[_Asking | None] = contextvars.ContextVar("asking", default=None)


class WatchedConnector(TellingConnector):
    """What the connectors share: aiohttp's pool with our parameters and figures."""

    # Of a connector that aiohttp made before `install()`: it is watched from its next request on.
    options = PoolOptions()

    def _watch(self) -> None:
        """Begin to watch; as a rule at the end of the constructor."""
        self._ledger = Ledger()
        self._waiting = self._planned = 0
        self._tcp = TCPOptions.of(self.options.tcp)
        self._limit_name = "limit"
        most = self.options.max_open
        if most is not None and not 0 < self._limit <= most:
            self._limit_name, self._limit = "max_open", most
        self._factory = functools.partial(Handler, self._loop, weakref.ref(self))  # type: ignore[assignment]

    # Public

    async def prewarm(self, origin: str | URL, n: int = 1, *, timeout: "ClientTimeout | None" = None) -> int:
        url = self._check_prewarming(origin, n)
        timeout = timeout or DEFAULT_TIMEOUT
        req = ClientRequest(hdrs.METH_GET, url, loop=self._loop, ssl=True)
        tasks = [self._start_prewarming(req, timeout) for _ in range(self._room(req.connection_key, n))]
        if not tasks:
            return self._count(req.connection_key)
        try:
            await asyncio.wait(tasks, timeout=timeout.connect or timeout.total)
        finally:
            for task in tasks:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        count = self._count(req.connection_key)
        failures = [result for result in results if result is not None]
        if failures and not count:
            error = next((exc for exc in failures if not isinstance(exc, asyncio.CancelledError)), None)
            if error is None or isinstance(error, asyncio.TimeoutError):
                raise ConnectionTimeoutError(f"Connection timeout to host {url}") from error
            raise error
        return count

    def _count(self, key: ConnectionKey) -> int:
        account = self._ledger.of(key)
        return account.in_use + account.idle + account.dialling + account.planned

    def _start_prewarming(
        self, req: ClientRequest, timeout: "ClientTimeout"
    ) -> "asyncio.Task[Exception | None]":
        """Make one connection in a task of its own; others count it from now on, not from its first step."""
        asking, account = _Asking(req.url, is_prewarming=True), self._ledger.of(req.connection_key)
        self._planned += 1
        account.planned += 1
        task = asyncio.ensure_future(self._prewarm(req, timeout, asking))
        task.add_done_callback(lambda _: self._carry_out(asking, account))
        return task

    def _carry_out(self, asking: _Asking, account: Account) -> None:
        """What was planned is dialled now, or was given up."""
        if asking.is_planned:
            asking.is_planned = False
            self._planned -= 1
            account.planned -= 1

    def stats(self, origin: str | URL | None = None) -> PoolStats:
        account = self._ledger.whole() if origin is None else self._ledger.find(origin)
        return account.snapshot()

    def stats_by_origin(self) -> dict[str, PoolStats]:
        return self._ledger.snapshots()

    def leaks(self) -> list[Any]:
        """Nothing: leaks are tracked by the native core only."""
        return []

    def __repr__(self) -> str:
        if "_ledger" not in self.__dict__:
            # aiohttp made it, or its constructor failed.
            return f"<{type(self).__name__}{' closed' * self._closed}>"
        return self._describe()

    # A connection is asked for

    async def connect(
        self, req: ClientRequest, traces: list["Trace"], timeout: "ClientTimeout"
    ) -> Connection:
        if "_ledger" not in self.__dict__:
            self._watch()
        asking = _Asking(req.url)
        try:
            return await self._ask(req, traces, timeout, asking)
        except BaseException as exc:
            if self.observers:
                origin, duration = origin_of(req.connection_key), perf_counter() - asking.at
                tell_request(self, origin, req.method, None, duration, exc)
            raise

    async def _ask(
        self, req: ClientRequest, traces: list["Trace"], timeout: "ClientTimeout", asking: _Asking
    ) -> Connection:
        key = req.connection_key
        token = _asking.set(asking)
        try:
            connection = await super().connect(req, traces, timeout)
        except asyncio.TimeoutError as exc:
            if not asking.has_timed_out or isinstance(exc, PoolTimeout):
                raise
            raise self._pool_timeout(key, asking) from exc
        finally:
            _asking.reset(token)
        self._note(key, connection, asking)
        return connection

    def _note(self, key: ConnectionKey, connection: Connection, asking: _Asking) -> None:
        """Count a connection that was got, and write down for its response how."""
        account = self._ledger.of(key)
        handler = connection.protocol
        is_new = True
        # A test may have put something else in the place of what is dialled.
        if isinstance(handler, Handler):
            if is_new := handler.account is None:
                handler.adopt(account, self.options)
            idle_for = handler.take()
        if asking.is_prewarming:
            return
        account.requests += 1
        account.reused += not is_new
        stamps = Stamps(
            origin=account.origin,
            watched=self,
            asked_at=asking.at,
            reused=not is_new,
            queue=asking.queue,
            dns=asking.dns,
            connect=max(0.0, asking.dial - asking.dns - asking.tls),
            tls=asking.tls,
        )
        if isinstance(handler, Handler):
            handler.requests += 1
            handler.stamps = stamps
            stamps.link, stamps.requests, stamps.idle_for = handler.link, handler.requests, idle_for
            stamps.age = handler.acquired_at - handler.ready_at
        stamp(connection, stamps)

    async def _get(self, key: ConnectionKey, traces: list["Trace"]) -> Connection | None:
        asking = _asking.get()
        if asking is not None and asking.is_prewarming:
            return None
        if conns := self._conns.get(key):
            if self.options.max_connection_age is not None:
                self._retire(protocol for protocol, _ in conns)
            if self.options.reuse == "lifo":
                # aiohttp takes from the left. When the youngest is too old, the others are so all the more.
                conns.rotate(1)
        return await super()._get(key, traces)

    def _retire(self, protocols: Iterator[ResponseHandler]) -> None:
        """Close those that are too old; aiohttp passes over what is not connected."""
        now = perf_counter()
        for protocol in protocols:
            if isinstance(protocol, Handler) and now >= protocol.lives_until:
                protocol.reason = protocol.reason or CloseReason.MAX_AGE
                protocol.close()

    # Waiting

    async def _wait_for_available_connection(self, key: ConnectionKey, traces: list["Trace"]) -> None:
        """Wait for an available connection slot."""
        asking = _asking.get() or _Asking(URL())
        account = self._ledger.of(key)
        most = self.options.max_waiters
        if asking.is_prewarming or (most is not None and self._waiting >= most):
            # What is prewarmed had room when it was begun, and gives way to those who came since.
            account.refused += not asking.is_prewarming
            message = f"No connection to host {asking.url}, max_waiters={most} wait already"
            raise PoolFull(message, self._pressure(key))
        account.waiting += 1
        self._waiting += 1
        since = perf_counter()
        limit = _timeout(self.options.pool_timeout)
        try:
            try:
                async with limit:
                    await super()._wait_for_available_connection(key, traces)
            finally:
                account.waiting -= 1
                self._waiting -= 1
                asking.queue += perf_counter() - since
        except BaseException as exc:
            # It may have been woken and then cancelled: the slot is the next one's, or all sleep.
            self._release_waiter()
            if isinstance(exc, asyncio.TimeoutError) and _has_expired(limit):
                raise self._pool_timeout(key, asking) from exc
            # Without our parameter a timeout of connecting is aiohttp's, and so are its words.
            is_ours = self.options.pool_timeout is not None
            asking.has_timed_out = is_ours and isinstance(exc, asyncio.CancelledError)
            raise
        account.waits.add(asking.queue)

    def _pool_timeout(self, key: ConnectionKey, asking: _Asking) -> PoolTimeout:
        self._ledger.of(key).wait_timeouts += 1
        message = f"Connection timeout to host {asking.url}"
        return PoolTimeout(message, self._pressure(key), asking.queue)

    def _pressure(self, key: ConnectionKey) -> Pressure:
        """Tell what blocks, and who has connections."""
        account: Account | None = None
        name, limit = self._limit_name, self._limit
        if not limit or len(self._acquired) < limit:
            name, limit = "limit_per_host", self._limit_per_host
            account = self._ledger.of(key)
        figures = account or self._ledger.whole()
        held = (
            handler
            for handler in self._acquired
            if isinstance(handler, Handler) and (account is None or handler.account is account)
        )
        oldest = heapq.nsmallest(_HOLDERS, held, key=lambda handler: handler.acquired_at)
        now = perf_counter()
        return Pressure(
            name,
            limit,
            figures.in_use,
            figures.idle,
            figures.dialling,
            figures.waiting,
            tuple(handler.as_holder(now) for handler in oldest),
        )

    # Dialling

    async def _create_connection(
        self, req: ClientRequest, traces: list["Trace"], timeout: "ClientTimeout"
    ) -> ResponseHandler:
        asking = _asking.get() or _Asking(req.url)
        account = self._ledger.of(req.connection_key)
        self._evict()
        self._carry_out(asking, account)
        account.dialling += 1
        since = perf_counter()
        try:
            protocol = await super()._create_connection(req, traces, timeout)
            self._apply_tcp(req, protocol)
        except BaseException:
            account.dial_failures += 1
            raise
        finally:
            account.dialling -= 1
        asking.dial = perf_counter() - since
        account.dials.add(asking.dial)
        transport = protocol.transport
        if isinstance(protocol, Handler) and transport and transport.get_extra_info("ssl_object") is not None:
            asking.tls = max(0.0, protocol.ready_at - protocol.connected_at)
            account.tls_handshakes.add(asking.tls)
        return protocol

    def _apply_tcp(self, req: ClientRequest, protocol: ResponseHandler) -> None:
        transport = protocol.transport
        if self._tcp is None or transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        try:
            self._tcp.apply(sock)
        except OSError as exc:
            protocol.abort()
            raise ClientConnectorError(req.connection_key, exc) from exc

    async def _prewarm(
        self, req: ClientRequest, timeout: "ClientTimeout", asking: _Asking
    ) -> Exception | None:
        """Make one connection for the pool; the failure is the result."""
        try:
            connection = await self._ask(req, [], timeout, asking)
        except PoolFull:
            # Others took the slots meanwhile.
            return None
        except Exception as exc:
            return exc
        connection.release()
        return None

    def _room(self, key: ConnectionKey, n: int) -> int:
        """Tell how many connections `prewarm` may make now."""
        count = self._count(key)
        room = [n - count]
        if self._limit:
            room.append(self._limit - len(self._acquired) - self._planned)
        if self._limit_per_host:
            room.append(self._limit_per_host - count)
        if self.options.max_open is not None:
            room.append(self.options.max_open - len(self._acquired) - len(list(self._idle())) - self._planned)
        return max(0, min(room))

    def _idle(self) -> Iterator[ResponseHandler]:
        return (protocol for conns in self._conns.values() for protocol, _ in conns)

    def _evict(self) -> None:
        """Close the connection that was idle longest, where `max_open` leaves no room for a dial."""
        most = self.options.max_open
        if most is None:
            return
        # The dial that needs the room is among the acquired already.
        for _ in range(len(self._acquired) + sum(map(len, self._conns.values())) - most):
            key = min(
                filter(self._conns.get, self._conns), key=lambda key: self._conns[key][0][1], default=None
            )
            if key is None:
                return
            protocol, _since = self._conns[key].popleft()
            if not self._conns[key]:
                del self._conns[key]
            if isinstance(protocol, Handler):
                protocol.reason = protocol.reason or CloseReason.EVICTED
            protocol.close()

    # Given back, closed

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, Handler) and protocol.is_held:
            reason = protocol.why_close(should_close=should_close, force_close=self._force_close)
            protocol.give_back(is_kept=reason is None and not self._closed)
            if reason is not None:
                protocol.reason = protocol.reason or reason
                should_close = True
        super()._release(key, protocol, should_close=should_close)

    def _close(self, *, abort_ssl: bool = False) -> list[Awaitable[object]]:
        if not self._closed:
            for protocol in itertools.chain(self._acquired, self._idle()):
                if isinstance(protocol, Handler):
                    protocol.reason = protocol.reason or CloseReason.POOL_CLOSED
                    protocol.give_back(is_kept=False)
        return super()._close(abort_ssl=abort_ssl)


def _log_what_has_no_effect(kwargs: dict[str, Any]) -> None:
    for name in ("learn_keepalive", "track_leaks"):
        if kwargs.get(name):
            _log_once(name)


@functools.cache
def _log_once(name: str) -> None:
    _logger.info("%s has no effect: the native core is missing", name)


like(BaseConnector.connect)(WatchedConnector.connect)


class TCPConnector(WatchedConnector, aiohttp.TCPConnector):
    """aiohttp's TCP connector, which takes the parameters of the native one.

    Args:
        max_waiters: callers that may wait for a slot; more are refused with `PoolFull`.
        pool_timeout: seconds that a caller may wait for a slot, then `PoolTimeout`.
        max_open: connections open or being dialled; the one idle for longest makes room.
        max_connection_age: seconds after which a connection is not used again, less a random 0 to 10 %.
        max_requests_per_connection: requests after which it is closed, less a random 0 to 10 %.
        reuse: "fifo" takes the connection that has been idle longest, as aiohttp; "lifo" the one used last.
        tcp: options of the sockets: a TCPOptions, or "lan", "internet" or "nat".
        learn_keepalive, track_leaks: without effect here.

    Raises:
        ValueError, TypeError: a parameter that makes no sense.
    """

    if not TYPE_CHECKING:

        @like(aiohttp.TCPConnector.__init__, **TCP_DEFAULTS)
        def __init__(self, **kwargs):
            self.options, theirs = PoolOptions.split(kwargs)
            super().__init__(**theirs)
            self._watch()
            _log_what_has_no_effect(kwargs)

    @like(aiohttp.TCPConnector._resolve_host)
    async def _resolve_host(self, host: str, port: int, traces: Any = None) -> Any:
        asking = _asking.get()
        since = perf_counter()
        try:
            return await super()._resolve_host(host, port, traces)
        finally:
            if asking is not None and not helpers.is_ip_address(host):
                asking.dns += perf_counter() - since


class UnixConnector(WatchedConnector, aiohttp.UnixConnector):
    """aiohttp's Unix socket connector, which takes the parameters of TCPConnector but for `tcp`."""

    if not TYPE_CHECKING:

        @like(aiohttp.UnixConnector.__init__, **UNIX_DEFAULTS)
        def __init__(self, path, *args, tcp=None, **kwargs):
            if tcp is not None:
                raise TypeError("a Unix socket has no TCP options")
            self.options, theirs = PoolOptions.split(kwargs)
            super().__init__(path, *args, **theirs)
            self._watch()
            _log_what_has_no_effect(kwargs)
