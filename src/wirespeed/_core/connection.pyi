import asyncio
import enum
from typing import Any, final

from .deadlines import Deadline, Deadlines
from .exchange import CloseReason, Exchange, ExchangeSettings
from .figures import ConnectionFacts, Figures
from .flow import Flow

class ConnectionState(enum.IntEnum):
    RESERVED = 0
    ACTIVE = 1
    IDLE = 2
    LENT = 3
    CLOSED = 4

def new_read_buffer() -> bytearray: ...

class ConnectionOwner: ...

@final
class IdleDeadline(Deadline): ...

class Connection(Flow):
    host: Any
    state: ConnectionState
    close_reason: CloseReason
    acquired_at: float
    holder: Any
    waited: float
    is_dialled: bool
    idle_since: float
    facts: ConnectionFacts
    requests: int
    anchor: Any
    is_tls: bool
    exchange: Exchange | None
    def __init__(
        self,
        owner: ConnectionOwner,
        host: Any,
        transport: asyncio.Transport,
        *,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        buffer: bytearray,
        keepalive_timeout: float,
        force_close: bool,
        lenient: bool,
        figures: Figures | None = None,
        totals: Figures | None = None,
        facts: ConnectionFacts | None = None,
        expires_at: float = 0.0,
        max_requests: int = 0,
        is_read: bool = True,
    ) -> None: ...
    def note_keep_alive(self, field: bytes) -> None: ...
    def count_out(self, size: int) -> None: ...
    def send(
        self,
        data: bytes,
        settings: ExchangeSettings,
        *,
        skip_body: bool = False,
        total_at: float = 0.0,
        read_timeout: float = 0.0,
        has_upload: bool = False,
        is_unclean: bool = False,
    ) -> Exchange: ...
    def get_buffer(self, sizehint: int) -> memoryview: ...
    def buffer_updated(self, size: int) -> None: ...
    def eof_received(self) -> bool: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def lend(self, protocol: asyncio.BaseProtocol) -> None: ...
    def take_back(self, is_writing_paused: bool = False) -> None: ...
    def is_connected(self) -> bool: ...
    def close(self, reason: CloseReason = ...) -> None: ...

class PooledConnection(Connection, asyncio.BufferedProtocol): ...
