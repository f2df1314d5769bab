"""`ClientSession` and `request()`: aiohttp's API, and the choice of the lane."""

import functools
import warnings
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client import _SessionRequestContextManager
from aiohttp.helpers import sentinel
from aiohttp.http import HttpVersion11

from ._switch import NATIVE
from .lanes import LaneStats, lane_reason

if NATIVE:
    from . import express
    from .connector import TCPConnector
    from .prepare import SessionState
    from .response import ClientResponse

with warnings.catch_warnings():
    # aiohttp discourages subclasses of ClientSession; this one is what isinstance rests on.
    warnings.simplefilter("ignore", DeprecationWarning)

    class ClientSession(aiohttp.ClientSession):
        """First-class interface for making HTTP requests: aiohttp's own, on the native core.

        Every argument, method and attribute is aiohttp's; see its documentation. Without
        the extension it is aiohttp's session in all it does.
        """

        ATTRS = aiohttp.ClientSession.ATTRS | {"_lanes", "_state"}

        _lanes: LaneStats

        if not TYPE_CHECKING:

            @functools.wraps(aiohttp.ClientSession.__init__)
            def __init__(self, base_url=None, *, connector=None, loop=None, **kwargs):
                self._connector = None
                self._lanes = LaneStats()
                if not NATIVE:
                    super().__init__(base_url, connector=connector, loop=loop, **kwargs)
                    return
                if connector is None:
                    shutdown = kwargs.get("ssl_shutdown_timeout", sentinel)
                    connector = TCPConnector(loop=loop, ssl_shutdown_timeout=shutdown)
                    try:
                        self._init_native(base_url, connector, loop, kwargs)
                    except BaseException:
                        connector._close()
                        raise
                else:
                    self._init_native(base_url, connector, loop, kwargs)

            def _init_native(self, base_url, connector, loop, kwargs):
                kwargs.setdefault("response_class", ClientResponse)
                super().__init__(base_url, connector=connector, loop=loop, **kwargs)
                self._state = SessionState(self)

            @functools.wraps(aiohttp.ClientSession._request)
            def _request(self, method, str_or_url, **kwargs):
                reason = lane_reason(self, method, kwargs)
                if reason is None:
                    self._lanes.express += 1
                    return express.perform(self, self._state, method, str_or_url, kwargs)
                self._lanes.count_full(reason)
                return super()._request(method, str_or_url, **kwargs)

        def native_stats(self) -> dict[str, Any]:
            """Count the requests of this session by lane.

            Returns:
                `{"express": n, "full": {reason: n}}`; a request is counted when it is made.
            """
            return self._lanes.snapshot()


if TYPE_CHECKING:
    request = aiohttp.request
else:

    @functools.wraps(aiohttp.request)
    def request(method, url, *, version=HttpVersion11, connector=None, loop=None, **kwargs):
        connector_owner = connector is None
        if connector is None:
            factory = TCPConnector if NATIVE else aiohttp.TCPConnector
            connector = factory(loop=loop, force_close=True)
        session = ClientSession(
            loop=loop,
            cookies=kwargs.pop("cookies", None),
            version=version,
            timeout=kwargs.pop("timeout", sentinel),
            connector=connector,
            connector_owner=connector_owner,
        )
        return _SessionRequestContextManager(session._request(method, url, **kwargs), session)
