"""`TCPConnector`, `UnixConnector` and `ClientResponse` where the native core is missing.

They are aiohttp's, with aiohttp's pool and its ways, and take the parameters and have the methods of the
native ones, so that a program runs unchanged. Of the parameters `max_waiters`, `pool_timeout`, `max_open`,
`max_connection_age`, `max_requests_per_connection`, `reuse` and `tcp` do what they say; `learn_keepalive` and
`track_leaks` have no effect, which is logged once, at INFO: a fallback should not be noisy. What aiohttp does
otherwise stays so: a caller that dials waits for its own dial, `Keep-Alive` fields are not looked at, and
`connect` that passes in the queue is a PoolTimeout only where `pool_timeout` is set: a program that sets
nothing of ours has aiohttp's errors.

It must not need the core. `connectors` watch aiohttp's pool, `handler` its connections, and `ledger` counts.
"""

from collections.abc import Awaitable
from typing import Any

from ..stamps import StampedResponse
from .connectors import TCPConnector as TCPConnector
from .connectors import UnixConnector as UnixConnector


class ClientResponse(StampedResponse):
    """aiohttp's response, with `timings` and `connection_info`."""


async def raise_cause(awaitable: Awaitable[Any], outer: type, inner: type) -> Any:
    """Await, and raise an exception's cause in its place where that is the better one.

    As the core's (`_core/rethrow`), but with a frame: in an `async with`, aiohttp's warning of `auth=`
    names aiohttp's line instead of the caller's.
    """
    try:
        return await awaitable
    except BaseException as exc:
        cause = exc.__cause__
        if cause is None or not isinstance(exc, outer) or not isinstance(cause, inner):
            raise
    raise cause from cause.__cause__
