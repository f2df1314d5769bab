from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from typing import Any, final

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

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
        ended: ContextVar[Any],
        new_seen: Callable[..., Any],
        tally_of: Callable[[Hashable, float], Any],
        is_copiable: Callable[[Any], bool],
        good: tuple[bool, ...],
        of_url: Callable[[Any], Hashable],
    ) -> None: ...
    def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> Awaitable[ClientResponse]: ...

@final
class Late(Deadline):
    def __call__(self) -> None: ...

@final
class PolicedCoroutine(NativeCoroutine):
    request: Any
    def __call__(self, permit: Any) -> None: ...
