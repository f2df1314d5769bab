"""`TCPConnector`, `UnixConnector` and `ClientResponse` where the native core is missing.

They are aiohttp's, with aiohttp's pool and its ways, and take the parameters and have the methods of the
native ones, so that a program runs unchanged. Of the parameters `max_waiters`, `pool_timeout`, `max_open`,
`max_connection_age`, `max_requests_per_connection`, `reuse` and `tcp` do what they say; `learn_keepalive` and
`track_leaks` have no effect, which is logged once, at INFO: a fallback should not be noisy. What aiohttp does
otherwise stays so: a caller that dials waits for its own dial, and `Keep-Alive` fields are not looked at.

It must not need the core. `connectors` watch aiohttp's pool, `handler` its connections, and `ledger` counts.
"""

from ..stamps import StampedResponse
from .connectors import TCPConnector as TCPConnector
from .connectors import UnixConnector as UnixConnector


class ClientResponse(StampedResponse):
    """aiohttp's response, with `timings` and `connection_info`."""
