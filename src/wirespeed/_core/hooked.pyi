from collections.abc import Awaitable, Callable
from typing import Any, final

from .guard import Watch
from .lane import Lane
from .request import RequestCoroutine

@final
class Listeners:
    config: Any
    def __init__(
        self,
        config: Any,
        new_context: Callable[..., Any],
        starts: tuple[Callable[..., Any], ...],
        ends: tuple[Callable[..., Any], ...],
    ) -> None: ...

@final
class Hooks:
    def __init__(
        self,
        untimed: Any,
        start_params: Callable[..., Any],
        end_params: Callable[..., Any],
        watch: Watch,
        names: dict[str, Any],
    ) -> None: ...

def hook(lane: Lane, asked: RequestCoroutine) -> Awaitable[Any] | None: ...
