"""What an attempt came to: the classes that every policy, and every metric of them, tells apart."""

import enum
from collections.abc import Mapping
from typing import Protocol


class Outcome(enum.IntEnum):
    """What an attempt came to.

    Attributes:
        SUCCESS: an answer that is no error; redirects are such.
        CLIENT_FAULT: the request is at fault (4xx, a URL that cannot be asked, a certificate that is not
            trusted): the same request would fail again.
        THROTTLED: the server has had too many requests of ours (429).
        OVERLOADED: the server says that it cannot serve anybody now (503).
        SERVER_FAULT: the server is at fault (other 5xx, an answer that is not HTTP).
        NOT_CONNECTED: no connection could be made; nothing was sent.
        LOST_BEFORE_SENT: the connection was lost before a byte of the request was sent.
        LOST_AFTER_SENT: the connection was lost after that; the server may have acted on the request.
        TIMED_OUT: no answer came in time; the server may have acted on the request.
        CANCELLED: whoever asked does not want the answer any more.
        LOCAL: refused in this process: a limit of its own, an open circuit, a closed connector.
    """

    SUCCESS = 0
    CLIENT_FAULT = 1
    THROTTLED = 2
    OVERLOADED = 3
    SERVER_FAULT = 4
    NOT_CONNECTED = 5
    LOST_BEFORE_SENT = 6
    LOST_AFTER_SENT = 7
    TIMED_OUT = 8
    CANCELLED = 9
    LOCAL = 10

    @property
    def is_failure(self) -> bool:
        """Whether the server, or the way to it, has failed: what a circuit breaker counts."""
        return _FAILURE[self]

    @property
    def is_pressure(self) -> bool:
        """Whether it says that the server has too much to do: what lowers a concurrency limit."""
        return _PRESSURE[self]

    @property
    def is_unsent(self) -> bool:
        """Whether nothing of the request was sent, so that any method may be sent again."""
        return _UNSENT[self]

    @property
    def is_verdict(self) -> bool:
        """Whether it says anything about the server at all."""
        return _VERDICT[self]


def _table(*outcomes: Outcome) -> tuple[bool, ...]:
    return tuple(outcome in outcomes for outcome in Outcome)


_FAILURE = _table(
    Outcome.OVERLOADED,
    Outcome.SERVER_FAULT,
    Outcome.NOT_CONNECTED,
    Outcome.LOST_BEFORE_SENT,
    Outcome.LOST_AFTER_SENT,
    Outcome.TIMED_OUT,
)
_PRESSURE = _table(Outcome.THROTTLED, Outcome.OVERLOADED, Outcome.TIMED_OUT)
_UNSENT = _table(Outcome.NOT_CONNECTED, Outcome.LOST_BEFORE_SENT, Outcome.LOCAL)
_VERDICT = tuple(outcome not in (Outcome.CANCELLED, Outcome.LOCAL) for outcome in Outcome)

_NO_HEADERS: Mapping[str, str] = {}


class Answered(Protocol):
    """What is looked at of a response; aiohttp's responses have it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class Observation:
    """What was seen of one attempt, once: when the head of its response came, or when it failed.

    Args:
        outcome: what it came to.
        latency: seconds from sending it to the head of the response, or to the failure; the time that it
            waited for its policies is no part of it.
        at: when that was, on the policies' clock.
        status: of the response; None where there is none.
        headers: of the response, case-insensitive; empty where there is none. Or the response itself: its
            headers are asked for when somebody looks at them, for ours are made only then.
        error: what was raised; None where there is a response.
    """

    __slots__ = ("_headers", "at", "error", "latency", "outcome", "status")

    def __init__(
        self,
        outcome: Outcome,
        latency: float,
        at: float,
        status: int | None = None,
        headers: Mapping[str, str] | Answered = _NO_HEADERS,
        error: BaseException | None = None,
    ) -> None:
        self.outcome = outcome
        self.latency = latency
        self.at = at
        self.status = status
        self._headers = headers
        self.error = error

    @property
    def headers(self) -> Mapping[str, str]:
        headers = self._headers
        return headers if isinstance(headers, Mapping) else headers.headers

    def __repr__(self) -> str:
        what = self.status if self.error is None else repr(self.error)
        return f"<Observation {self.outcome.name} ({what}) after {self.latency:.3f} s>"
