from collections.abc import Awaitable
from typing import Any, final

from .clock import Clock
from .lane import Lane, Prepared

@final
class Template:
    def __init__(self, req: Any, headers: Any, is_amended: bool) -> None: ...

@final
class Hop:
    lane: Lane
    session: Any
    method: str
    str_or_url: Any
    options: dict[str, Any]
    prepared: Prepared
    total_at: float
    clock: Clock | None
    req: Any
    body: Any
    listeners: tuple[Any, ...] | None
    contexts: list[Any]
    headers: Any
    traces: list[Any] | None
    call: Any
    url: Any
    def __call__(self, req: Any) -> Awaitable[Any]: ...
