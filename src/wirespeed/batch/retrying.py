"""A batch's retry policy as the core's driver goes by it: the first attempt is the core's own.

Only what has to be decided about goes through `Policies`, which then make all further attempts.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import ClientResponse

from ..policy import Observation, Policies
from ..policy.passage import origin_name
from ..policy.retry import RETRY_AFTER_STATUSES, Retry

_STATUSES = 1000


class Retrying:
    """What the driver asks of a retry policy.

    Args:
        policies: with nothing but a retry policy and its budget.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        assert policies.retry is not None
        assert policies.budget is not None
        self._deposit = policies.budget.deposit
        self._finals = frozenset(
            status for status in range(_STATUSES) if self._is_final(policies.retry, status)
        )
        self._origin: Any = None
        self._key = ""

    @staticmethod
    def fits(policies: Policies) -> bool:
        """Whether the policies are nothing but a retry policy of which all is known."""
        return type(policies.retry) is Retry and len(policies.parts) == 2

    def _is_final(self, retry: Retry, status: int) -> bool:
        seen = self._observed(status, 0.0, None)
        return status not in RETRY_AFTER_STATUSES and not retry.is_retryable(seen)

    def _observed(self, status: int, elapsed: float, resp: Any) -> Observation:
        at = time.monotonic()
        outcome = self._policies._classifier.of_response(resp or _Answer(status))
        return Observation(outcome, elapsed, at, status, resp or {})

    def is_final(self, status: int) -> bool:
        """Whether an answer of this status is what the caller gets, whatever else it says."""
        return status in self._finals

    def count(self, prepared: Any) -> None:
        """Note that a request of the core is made, which pays for others being sent again."""
        # A connection key is one origin's: other URLs of it need not be made.
        if prepared.key is not self._origin:
            self._origin, self._key = prepared.key, origin_name(prepared.real_url)
        self._deposit(self._key)

    async def go_on(
        self,
        request: Any,
        elapsed: float,
        resp: ClientResponse | None,
        error: BaseException | None,
        send: Callable[[Any], Awaitable[ClientResponse]],
    ) -> ClientResponse:
        """Go on from what the first attempt has come to.

        Args:
            request: what policies see of it.
            elapsed: seconds that the attempt took.
            resp: its response, or None.
            error: why there is none.
            send: makes another attempt.
        """
        policies = self._policies
        try:
            sent_at = time.monotonic() - elapsed
            attempt = policies._taken_over(request, origin_name(request.url), [], sent_at)
            if resp is not None:
                policies._observe(attempt, self._observed(resp.status, elapsed, resp))
            return await policies._take_over(attempt, send, resp, error, None)
        finally:
            del error  # its traceback holds this frame


class _Answer:
    headers: Any = {}  # noqa: RUF012

    def __init__(self, status: int) -> None:
        self.status = status
