"""The protocol of the fallback's connections: aiohttp's, with the history of its connection.

It writes into the account of its origin (`ledger`) what becomes of it. Made and used by `connectors`.
"""

import asyncio
import random
import weakref
from time import perf_counter
from typing import Any

from aiohttp.client_exceptions import SocketTimeoutError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

from ..observe import CloseReason
from ..pooling import Holder, PoolOptions
from ..stamps import Link, Stamps, Watched, tell_connection
from .ledger import Account

# Lifetimes are shortened by up to this part of them, so that connections do not end all at once.
_JITTER = 0.1
_FAILURES: dict[type, CloseReason] = {
    SocketTimeoutError: CloseReason.TIMED_OUT,
    HttpProcessingError: CloseReason.MALFORMED,
}


class Handler(ResponseHandler):
    """aiohttp's protocol of a connection, which knows the history of its connection.

    A Handler that the connector did not adopt, as of a tunnel through a proxy, is not counted.
    """

    account: Account | None = None
    reason: CloseReason | None = None
    """Why the connector is about to close it; else `close` and `connection_lost` judge for themselves."""
    is_held = is_idle = is_ended = False
    requests = 0
    ready_at = acquired_at = idle_since = 0.0
    link = Link()
    stamps: Stamps | None = None
    """Of the request that it serves."""
    requests_allowed: float = float("inf")
    lives_until: float = float("inf")
    task: "weakref.ref[asyncio.Task[Any]] | None" = None

    def __init__(self, loop: asyncio.AbstractEventLoop, watched: "weakref.ref[Watched]") -> None:
        super().__init__(loop)
        # Weakly: a connector that nobody has any more complains when it is collected.
        self.watched = watched
        # Loops make the protocol once TCP is connected, and tell it of the transport after TLS.
        self.connected_at = perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.ready_at = perf_counter()

    # Taken and given back

    def adopt(self, account: Account, options: PoolOptions) -> None:
        """Begin to count it: the pool has made it."""
        self.account = account
        account.created += 1
        self.link = Link.of(self.transport)
        shortening = 1 - _JITTER * random.random()
        if options.max_connection_age is not None:
            self.lives_until = self.ready_at + options.max_connection_age * shortening
        if options.max_requests_per_connection is not None:
            self.requests_allowed = max(1, round(options.max_requests_per_connection * shortening))
        if self.is_ended:
            # Lost on the way here.
            self._count_end()

    def take(self) -> float:
        """It is in use from now on; tell for how many seconds it was idle."""
        assert self.account is not None
        self.acquired_at = perf_counter()
        idle_for = 0.0
        if self.is_idle:
            self.is_idle = False
            self.account.idle -= 1
            idle_for = self.acquired_at - self.idle_since
        self.is_held = True
        self.account.in_use += 1
        task = asyncio.current_task()
        self.task = None if task is None else weakref.ref(task)
        return idle_for

    def give_back(self, *, is_kept: bool) -> None:
        """It is in use no more; idle, if it is kept and still connected."""
        if self.account is None or not self.is_held:
            return
        self.is_held = False
        self.task = self.stamps = None
        self.account.in_use -= 1
        if is_kept and not self.is_ended:
            self.is_idle = True
            self.idle_since = perf_counter()
            self.account.idle += 1

    def as_holder(self, now: float) -> Holder:
        task = None if self.task is None else self.task()
        origin = "" if self.account is None else self.account.origin
        return Holder(origin, now - self.acquired_at, None if task is None else task.get_name())

    # Its end

    def why_close(self, *, should_close: bool, force_close: bool) -> CloseReason | None:
        """Why it will not be kept, or None: aiohttp's reasons, and those of our parameters.

        Args:
            should_close: its user closes it.
            force_close: the connector keeps none.
        """
        payload, stamps = self._payload, self.stamps
        if self.upgraded:
            return CloseReason.UPGRADED
        if self._exception is not None:
            return _FAILURES.get(type(self._exception), CloseReason.LOST)
        if should_close or (payload is not None and not payload.is_eof()):
            if stamps is not None and stamps.has_timed_out:
                return CloseReason.TIMED_OUT
            if stamps is not None and stamps.ended_at is not None and stamps.sent_at is None:
                return CloseReason.UPLOAD_UNFINISHED
            return CloseReason.ABANDONED
        if force_close:
            return CloseReason.FORCE_CLOSE
        if self._should_close:
            return CloseReason.SERVER_CLOSES
        if self.should_close:
            return CloseReason.SURPLUS_BYTES
        if self.requests >= self.requests_allowed:
            return CloseReason.MAX_REQUESTS
        if perf_counter() >= self.lives_until:
            return CloseReason.MAX_AGE
        return None

    def close(self) -> None:
        self._end(CloseReason.IDLE_TIMEOUT if self.is_idle else CloseReason.ABANDONED)
        super().close()

    def abort(self) -> None:
        self._end(CloseReason.IDLE_TIMEOUT if self.is_idle else CloseReason.ABANDONED)
        super().abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        payload = self._payload
        if not self.is_idle:
            reason = _FAILURES.get(type(self._exception), CloseReason.LOST)
        elif self._tail or self._buffer or self._exception is not None:
            reason = CloseReason.IDLE_BYTES
        else:
            reason = CloseReason.IDLE_EOF if exc is None else CloseReason.IDLE_RESET
        super().connection_lost(exc)
        if reason is CloseReason.LOST and payload is not None and payload.is_eof():
            # Its end was that of the body, or the response had been read.
            reason = CloseReason.SERVER_CLOSES if payload.exception() is None else reason
        self._end(reason)

    def _end(self, reason: CloseReason) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        self.reason = self.reason or reason
        if self.account is not None:
            if self.is_idle:
                self.is_idle = False
                self.account.idle -= 1
            self._count_end()

    def _count_end(self) -> None:
        assert self.account is not None
        assert self.reason is not None
        self.account.closed[self.reason] += 1
        self.account.requests_per_connection.add(self.requests)
        watched = self.watched()
        if watched is not None and watched.observers:
            tell_connection(watched, self.account.origin, perf_counter() - self.ready_at, self.reason)
