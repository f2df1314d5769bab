import asyncio
import enum
from collections.abc import Sequence
from typing import Any, TypeVar, final

from .exchange import Exchange
from .guard import Watch

_Response = TypeVar("_Response")

def watch(cls: type[Any], unchanged: Watch) -> None: ...
def adopt(
    cls: type[_Response],
    exchange: Exchange,
    session: Any,
    prepared: Any,
    upload: asyncio.Task[None] | None = None,
    traces: Sequence[Any] = (),
) -> _Response: ...

class FactKind(enum.IntEnum):
    STATUS = 0
    METHOD = 1
    REAL_URL = 2
    LOOP = 3
    RESOLVE_CHARSET = 4
    HAS_COOKIES = 5

@final
class Fact:
    def __init__(self, kind: FactKind) -> None: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...

class StateKind(enum.IntEnum):
    BODY = 0
    CONNECTION = 1
    CLOSED = 2
    RELEASED = 3
    IN_CONTEXT = 4

@final
class State:
    def __init__(self, kind: StateKind, default: Any) -> None: ...
    def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...
    def __set__(self, instance: Any, value: Any, /) -> None: ...

async def read(self: Any) -> bytes: ...
async def json(self: Any, *, encoding: Any = None, loads: Any = ..., content_type: Any = ...) -> Any: ...
async def leave(self: Any, exc_type: Any, exc_val: Any, exc_tb: Any) -> None: ...
def collect(self: Any) -> None: ...
