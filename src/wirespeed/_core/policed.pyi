from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from typing import Any, final

from yarl import URL

from .coroutine import NativeCoroutine
from .deadlines import Deadline

@final
class Gateway:
    def __init__(self, gate: Any) -> None: ...

@final
class Plan:
    def __init__(
        self,
        policies: Any,
        policies_class: type,
        ended: ContextVar[Any],
        new_seen: Callable[..., Any],
        tally_of: Callable[[Hashable, float], Any],
        is_copiable: Callable[[Any], bool],
        good: tuple[bool, ...],
        of_url: Callable[[Any], Hashable],
    ) -> None: ...
    def __call__(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Awaitable[Any]: ...

@final
class Late(Deadline):
    def pass_now(self) -> None: ...

@final
class PolicedCoroutine(NativeCoroutine):
    @property
    def url(self) -> URL: ...
    def __call__(self, permit: Any) -> None: ...
