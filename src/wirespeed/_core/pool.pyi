import asyncio
from collections.abc import Hashable
from typing import final

from .connection import Connection, ConnectionOwner
from .deadlines import Deadline, Deadlines

class ConnectTimeout(asyncio.TimeoutError): ...
class PoolClosed(Exception): ...

@final
class Host:
    key: Hashable
    is_evicted: bool
    in_use: int
    idle_count: int
    def __init__(self, key: Hashable) -> None: ...

@final
class Waiter(Deadline):
    host: Host
    future: asyncio.Future[Connection | None]

@final
class Pool(ConnectionOwner):
    limit: int
    limit_per_host: int
    force_close: bool
    lenient: bool
    deadlines: Deadlines
    hosts: dict[Hashable, Host]
    in_use: int
    idle: int
    waiting: int
    is_closed: bool
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        limit: int,
        limit_per_host: int,
        keepalive_timeout: float | None,
        force_close: bool = False,
        lenient: bool = True,
    ) -> None: ...
    def host(self, key: Hashable) -> Host: ...
    def take(self, host: Host) -> Connection | None: ...
    def try_reserve(self, host: Host) -> bool: ...
    def wait(self, host: Host, connect_at: float = 0.0, total_at: float = 0.0) -> Waiter: ...
    def cancel(self, waiter: Waiter) -> None: ...
    def free(self, host: Host) -> None: ...
    def add(self, host: Host, transport: asyncio.Transport) -> Connection: ...
    def give_back(self, conn: Connection) -> None: ...
    def close(self) -> None: ...
    def connections(self) -> list[Connection]: ...
    def wait_closed(self) -> asyncio.Future[None]: ...
