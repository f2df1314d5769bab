from collections.abc import Awaitable, Callable
from typing import Any

from .clock import Clock
from .guard import Watch
from .request import Lane, Prepared, RequestCoroutine

class Template:
    def __init__(self, prepared: Prepared, url: Any, req: Any, headers: Any, is_amended: bool) -> None: ...

class Listeners:
    config: Any
    def __init__(
        self,
        config: Any,
        new_context: Callable[..., Any],
        starts: tuple[Callable[..., Any], ...],
        ends: tuple[Callable[..., Any], ...],
    ) -> None: ...

class Hooks:
    untimed: Any
    def __init__(
        self,
        untimed: Any,
        start_params: Callable[..., Any],
        end_params: Callable[..., Any],
        watch: Watch,
        names: dict[str, Any],
    ) -> None: ...
    def forget(self) -> None: ...

class Hop:
    lane: Any
    session: Any
    method: str
    str_or_url: Any
    options: dict[str, Any]
    total_at: float
    clock: Clock | None
    req: Any
    listeners: tuple[Listeners, ...] | None
    contexts: list[Any]
    headers: Any
    traces: list[Any] | None
    call: Any
    timeout: Any
    key: Any
    url: Any
    def __call__(self, req: Any) -> Awaitable[Any]: ...

def hook(lane: Lane, asked: RequestCoroutine) -> Awaitable[Any] | None: ...
