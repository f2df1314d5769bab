"""`ClientSession` and `request()`: aiohttp's API, and the choice of the lane."""

import functools
import warnings
from typing import Any

import aiohttp

from .lanes import LaneReason, LaneStats

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)

    class ClientSession(aiohttp.ClientSession):
        """First-class interface for making HTTP requests, aiohttp's own by signature."""

        ATTRS = aiohttp.ClientSession.ATTRS | {"_lanes"}

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._lanes = LaneStats()
            super().__init__(*args, **kwargs)

        def _request(self, *args: Any, **kwargs: Any) -> Any:
            self._lanes.count_full(LaneReason.NO_EXTENSION)
            return super()._request(*args, **kwargs)

        def native_stats(self) -> dict[str, Any]:
            """Count the requests of this session by lane.

            Returns:
                `{"express": n, "full": {reason: n}}`.
            """
            return self._lanes.snapshot()


functools.update_wrapper(ClientSession.__init__, aiohttp.ClientSession.__init__)
request = aiohttp.request
