from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")

async def raise_cause(
    awaitable: Awaitable[_T], outer: type[BaseException], inner: type[BaseException]
) -> _T: ...
