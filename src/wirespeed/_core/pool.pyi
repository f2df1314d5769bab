import asyncio
from collections.abc import Callable, Hashable
from typing import Any, final

from .connection import Connection, ConnectionOwner
from .deadlines import Deadlines
from .figures import ConnectionFacts, Figures
from .hosts import Host, Waiter

@final
class Pool(ConnectionOwner):
    limit: int
    limit_per_host: int
    max_waiters: int
    max_open: int
    force_close: bool
    lenient: bool
    deadlines: Deadlines
    hosts: dict[Hashable, Host]
    figures: Figures
    in_use: int
    dialling: int
    idle: int
    waiting: int
    is_closed: bool
    dials: set[Any]
    set_options: Callable[[Any], object] | None
    dial_error: Callable[[Any, Any, Any, bool], Exception] | None
    who: Callable[[], Any] | None
    on_closed: Callable[[Connection], object] | None
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        limit: int,
        limit_per_host: int,
        keepalive_timeout: float | None,
        force_close: bool = False,
        lenient: bool = True,
        max_waiters: int | None = None,
        pool_timeout: float | None = None,
        max_open: int | None = None,
        max_connection_age: float | None = None,
        max_requests_per_connection: int | None = None,
        is_lifo: bool = False,
        learns: bool = True,
    ) -> None: ...
    def host(self, key: Hashable) -> Host: ...
    def now(self) -> float: ...
    def take(self, host: Host) -> Connection | None: ...
    def try_reserve(self, host: Host) -> bool: ...
    def wait(self, host: Host, connect_at: float = 0.0, total_at: float = 0.0) -> Waiter: ...
    def begin_dial(
        self,
        host: Host,
        connect_at: float = 0.0,
        total_at: float = 0.0,
        queued: float = 0.0,
    ) -> Waiter: ...
    def begin_prewarm(self, host: Host, n: int) -> list[Waiter]: ...
    def end_dial(
        self,
        waiter: Waiter,
        transport: asyncio.Transport,
        facts: ConnectionFacts | None = None,
        is_read: bool = True,
    ) -> Connection: ...
    def fail_dial(self, waiter: Waiter, exc: BaseException) -> None: ...
    def cancel(self, waiter: Waiter) -> None: ...
    def free(self, host: Host) -> None: ...
    def add(
        self, host: Host, transport: asyncio.Transport, facts: ConnectionFacts | None = None
    ) -> Connection: ...
    def give_back(self, conn: Connection) -> None: ...
    def close(self) -> None: ...
    def idle_connections(self) -> list[Connection]: ...
    def connections(self) -> list[Connection]: ...
    def known_hosts(self) -> list[Host]: ...
    def snapshot(self) -> dict[str, Any]: ...
    def wait_closed(self) -> asyncio.Future[None]: ...
