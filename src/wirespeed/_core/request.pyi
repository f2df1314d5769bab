from collections.abc import Callable, Iterable
from typing import Any

from .coroutine import NativeCoroutine
from .guard import Watch
from .lane import Lane

class RequestCoroutine(NativeCoroutine):
    lane: Any
    session: Any
    method: str
    str_or_url: Any
    options: dict[str, Any]
    prepared: Any
    connector: Any
    total_at: float
    connect_at: float
    asked_at: float
    timeout: Any
    def __init__(
        self, lane: Lane, session: Any, method: str, str_or_url: Any, options: dict[str, Any]
    ) -> None: ...
    async def __aenter__(self) -> Any: ...
    async def __aexit__(self, kind: Any, exc: Any, traceback: Any) -> None: ...

def serve(
    base: type,
    own_request: object,
    watch: Watch,
    is_patched: Callable[[], bool],
    tracking: object,
    known: Iterable[str],
) -> None: ...
def request(self: Any, method: str, url: Any, **kwargs: Any) -> RequestCoroutine: ...
def get(self: Any, url: Any, *, allow_redirects: bool = True, **kwargs: Any) -> RequestCoroutine: ...
def options(self: Any, url: Any, *, allow_redirects: bool = True, **kwargs: Any) -> RequestCoroutine: ...
def head(self: Any, url: Any, *, allow_redirects: bool = False, **kwargs: Any) -> RequestCoroutine: ...
def post(self: Any, url: Any, *, data: Any = None, **kwargs: Any) -> RequestCoroutine: ...
def put(self: Any, url: Any, *, data: Any = None, **kwargs: Any) -> RequestCoroutine: ...
def patch(self: Any, url: Any, *, data: Any = None, **kwargs: Any) -> RequestCoroutine: ...
def delete(self: Any, url: Any, **kwargs: Any) -> RequestCoroutine: ...
