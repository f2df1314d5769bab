"""What type checkers are told of requests: aiohttp's signatures, and what our responses have beside.

`ClientResponse` is aiohttp's for them, because that is what middlewares, traces and hooks are declared to
take and to return. What `async with session.get(...) as resp` gives is declared to have `timings`,
`connection_info` and `retry_history` on top, and what `await session.get(...)` gives, too (but for pyright).
Tasks and `gather()` of requests stay aiohttp's: a list of other responses would be no list of aiohttp's.

Used by `client.py`; nothing imports it at run time.
"""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, ParamSpec

import aiohttp
from aiohttp.client import _BaseRequestContextManager, _RequestContextManager, _SessionRequestContextManager

from .stamps import StampedResponse

_Parameters = ParamSpec("_Parameters")

if TYPE_CHECKING:

    class Request(_BaseRequestContextManager[aiohttp.ClientResponse]):
        """What a session's methods return."""

        def __await__(self) -> Generator[Any, None, StampedResponse]: ...

        async def __aenter__(self) -> StampedResponse: ...

    class RequestWithSession(_SessionRequestContextManager):
        """What `request()` returns."""

        async def __aenter__(self) -> StampedResponse: ...

    def _like(
        method: Callable[_Parameters, _RequestContextManager],
    ) -> Callable[[Callable[..., None]], Callable[_Parameters, Request]]: ...

    def _with_session(
        function: Callable[_Parameters, _SessionRequestContextManager],
    ) -> Callable[[Callable[..., None]], Callable[_Parameters, RequestWithSession]]: ...

    class TypedSession(aiohttp.ClientSession):
        """aiohttp's session, whose requests give responses of ours."""

        @_like(aiohttp.ClientSession.request)
        def request(self) -> None: ...

        @_like(aiohttp.ClientSession.get)
        def get(self) -> None: ...

        @_like(aiohttp.ClientSession.options)
        def options(self) -> None: ...

        @_like(aiohttp.ClientSession.head)
        def head(self) -> None: ...

        @_like(aiohttp.ClientSession.post)
        def post(self) -> None: ...

        @_like(aiohttp.ClientSession.put)
        def put(self) -> None: ...

        @_like(aiohttp.ClientSession.patch)
        def patch(self) -> None: ...

        @_like(aiohttp.ClientSession.delete)
        def delete(self) -> None: ...

    @_with_session(aiohttp.request)
    def request() -> None: ...
