import asyncio
from collections.abc import Hashable
from typing import Any, final

from .connection import Connection
from .deadlines import Deadline
from .figures import Figures

class ConnectTimeout(asyncio.TimeoutError): ...
class WaitTimeout(ConnectTimeout): ...
class PoolClosed(Exception): ...
class TooManyWaiters(Exception): ...

@final
class Host:
    key: Hashable
    is_evicted: bool
    in_use: int
    dialling: int
    idle_count: int
    figures: Figures
    def __init__(self, key: Hashable, totals: Figures | None = None) -> None: ...
    def count_retry(self) -> None: ...
    def count_wait_timeout(self) -> None: ...
    def snapshot(self, now: float) -> dict[str, Any]: ...
    @property
    def waiting(self) -> int: ...

@final
class Waiter(Deadline):
    host: Host
    future: asyncio.Future[Connection | None]
    is_dialling: bool
    asked_at: float

@final
class Turns: ...
