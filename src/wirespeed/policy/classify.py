"""The one classifier of responses and exceptions; every policy, and the metrics, go by what it says."""

import asyncio
from collections.abc import Mapping

from aiohttp import (
    ClientConnectionError,
    ClientConnectionResetError,
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientHttpProxyError,
    ClientPayloadError,
    ClientResponseError,
    ConnectionTimeoutError,
    ServerConnectionError,
    ServerFingerprintMismatch,
)
from aiohttp.http import HttpProcessingError

from .outcome import Answered, Outcome

_STATUSES = 600


def _of_class(status: int) -> Outcome:
    if status < 400:
        return Outcome.SUCCESS
    return Outcome.CLIENT_FAULT if status < 500 else Outcome.SERVER_FAULT


class Classifier:
    """Says what an attempt came to.

    Replace it by a subclass, or by anything with these two methods, where a server means something else by
    its answers.

    Args:
        statuses: what single statuses mean, other than by default.

    Raises:
        ValueError: a status is not between 100 and 599.
    """

    def __init__(self, statuses: Mapping[int, Outcome] | None = None) -> None:
        table = [_of_class(status) for status in range(_STATUSES)]
        # RFC 6585 section 4, RFC 9110 section 15.6.4.
        table[429] = Outcome.THROTTLED
        table[503] = Outcome.OVERLOADED
        for status, outcome in (statuses or {}).items():
            if not 100 <= status < _STATUSES:
                raise ValueError(f"Expected a status between 100 and 599, got {status}")
            table[status] = Outcome(outcome)
        self._table = tuple(table)

    def of_response(self, resp: Answered) -> Outcome:
        """Classify a response by its head; `resp` has `status` and `headers`, as aiohttp's responses."""
        status = resp.status
        return self._table[status] if 0 <= status < _STATUSES else Outcome.SERVER_FAULT

    def of_error(self, exc: BaseException) -> Outcome:
        """Classify what an attempt has raised. An exception with an attribute `outcome` says so itself."""
        told = getattr(exc, "outcome", None)
        if isinstance(told, Outcome):
            return told
        if not isinstance(exc, Exception):
            return Outcome.CANCELLED  # or the program, or this coroutine, ends
        if isinstance(exc, ClientResponseError):
            return self._of_response_error(exc)
        if isinstance(exc, ClientConnectorCertificateError | ServerFingerprintMismatch):
            return Outcome.CLIENT_FAULT
        if isinstance(exc, ClientConnectorError | ConnectionTimeoutError):
            return Outcome.NOT_CONNECTED
        if isinstance(exc, asyncio.TimeoutError | TimeoutError):
            return Outcome.TIMED_OUT
        if isinstance(exc, ClientConnectionResetError):
            # Raised where a head was to be written to a connection that was gone.
            return Outcome.LOST_BEFORE_SENT
        if isinstance(exc, ServerConnectionError | ClientPayloadError | OSError):
            return Outcome.LOST_AFTER_SENT
        if isinstance(exc, ClientConnectionError):
            return Outcome.LOCAL  # the connector is closed
        return Outcome.CLIENT_FAULT

    def _of_response_error(self, exc: ClientResponseError) -> Outcome:
        if isinstance(exc, ClientHttpProxyError):
            return Outcome.NOT_CONNECTED
        if isinstance(exc.__cause__, HttpProcessingError):
            # Not HTTP; the 400 that aiohttp gives it is not the server's.
            return Outcome.SERVER_FAULT
        outcome = self._of_status(exc.status)
        # A content type, a handshake, too many redirects: no good, whatever the status.
        return Outcome.CLIENT_FAULT if outcome is Outcome.SUCCESS else outcome

    def _of_status(self, status: int) -> Outcome:
        return self._table[status] if 0 <= status < _STATUSES else Outcome.SERVER_FAULT
