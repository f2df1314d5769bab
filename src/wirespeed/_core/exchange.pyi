import asyncio
import enum
from collections.abc import Callable
from typing import Any, final

from .deadlines import Deadline
from .figures import ConnectionFacts
from .message import ResponseHead

class CloseReason(enum.IntEnum):
    KEPT = 0
    FORCE_CLOSE = 1
    SERVER_CLOSES = 2
    SURPLUS_BYTES = 3
    IDLE_BYTES = 4
    IDLE_EOF = 5
    IDLE_TIMEOUT = 6
    MALFORMED = 7
    LOST = 8
    ABANDONED = 9
    TIMED_OUT = 10
    UPLOAD_UNFINISHED = 11
    UPGRADED = 12
    LENT_UNCLEAN = 13
    POOL_CLOSED = 14
    IDLE_RESET = 15
    SERVER_TIMEOUT = 16
    LEARNED_TIMEOUT = 17
    MAX_AGE = 18
    MAX_REQUESTS = 19
    EVICTED = 20

class Failure(enum.IntEnum):
    BAD_RESPONSE = 0
    CONNECTION_LOST = 1
    TOTAL_TIMEOUT = 2
    READ_TIMEOUT = 3
    BAD_CONTENT = 4
    BAD_UPLOAD = 5
    LET_GO = 6
    OWNER_CLOSED = 7
    BODY_TOO_LARGE = 8

class ReadGate: ...

@final
class ExchangeSettings:
    max_line_size: int
    max_field_size: int
    max_headers: int
    high_water: int
    max_body: int
    make_sink: Callable[[Exchange], Any] | None
    translate: Callable[[Exchange, int, BaseException | None, list[bytes] | None], BaseException]
    def __init__(
        self,
        *,
        max_line_size: int,
        max_field_size: int,
        max_headers: int,
        high_water: int,
        make_sink: Callable[[Exchange], Any] | None,
        translate: Callable[[Exchange, int, BaseException | None, list[bytes] | None], BaseException],
        max_body: int | None = None,
    ) -> None: ...

@final
class Exchange(Deadline):
    head: ResponseHead | None
    waiter: asyncio.Future[None]
    error: BaseException | None
    failure: Failure | None
    is_complete: bool
    skip_body: bool
    body_size: int
    facts: ConnectionFacts
    on_end: Callable[[Exchange], object] | None
    queued: float
    idle_for: float
    sent_at: float
    upload_at: float
    first_at: float
    end_at: float
    number: int
    is_dialled: bool
    settings: ExchangeSettings
    sink: Any
    is_plain: bool
    prepared: Any
    upload: asyncio.Task[None] | None
    def attach(self, sink: Any) -> None: ...
    def take_body(self) -> bytes | None: ...
    def wait_body(self) -> asyncio.Future[None]: ...
    @property
    def transport(self) -> asyncio.Transport | None: ...
    @property
    def connected(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self, resume_parser: bool = True) -> None: ...
    def wait_continue(self, future: asyncio.Future[bool]) -> None: ...
    def set_upload(self, task: asyncio.Task[None], before_cut: Callable[[], None] | None = None) -> None: ...
    def finish_upload(self, is_whole: bool = True) -> None: ...
    def cut_upload(self) -> None: ...
    def fail_upload(self, exc: BaseException) -> None: ...
    def forget(self) -> None: ...
    def abandon(self) -> None: ...
