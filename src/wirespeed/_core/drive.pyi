import asyncio
from collections.abc import Awaitable
from typing import Any, final

from .coroutine import NativeCoroutine
from .request import RequestCoroutine

class ResultFields:
    _given: Any
    _headers: Any
    _head: Any
    _url: Any
    index: int
    status: Any
    body: Any
    error: Any
    attempts: int
    elapsed: float

class Results:
    _drive: Any
    def __aiter__(self) -> Results: ...
    def __anext__(self) -> Awaitable[Any]: ...

@final
class Drive:
    loop: asyncio.AbstractEventLoop
    concurrency: int
    is_ordered: bool
    taken: int
    under_way: int
    failed: int
    size: int
    begun_at: float | None
    def __init__(self, source: Any, work: Any, concurrency: int, is_ordered: bool) -> None: ...
    @property
    def is_over(self) -> bool: ...
    def next(self) -> Awaitable[Any]: ...
    def close(self) -> list[asyncio.Task[Any]]: ...
    def fill(self) -> None: ...

@final
class Next(NativeCoroutine): ...

@final
class Errand(RequestCoroutine):
    def done(self) -> bool: ...
    def set_result(self, result: object) -> None: ...
    def set_exception(self, exc: BaseException) -> None: ...
    def exception(self) -> BaseException | None: ...
