"""A route: which requests it takes, what it answers one after the other, and what it was asked."""

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .criteria import Asked, Criteria
from .replies import (
    CLOSE,
    AnyStep,
    Failure,
    Handled,
    Handler,
    HeadersLike,
    NoConnection,
    Raw,
    Reply,
    Response,
    Script,
    as_exception,
)
from .request import Request

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _Turn:
    """One reply and how often it is given."""

    __slots__ = ("given", "reply", "times")

    def __init__(self, reply: Reply, times: int | None) -> None:
        if times is not None and times < 1:
            raise ValueError(f"times is how often the answer is given, at least once, not {times}")
        self.reply = reply
        self.times = times
        self.given = 0


class Route:
    """Requests that meet its criteria, and their answers. Made by the methods of the mock.

    Answers are given in the order they were added, each once, and the last one again and again.
    `times=` says how often exactly; a route whose last answer has a `times` takes no more requests
    after it. A route without answers answers 200 with an empty body.

    Attributes:
        calls: the requests it took, oldest first.
    """

    def __init__(self, criteria: Criteria) -> None:
        self.criteria = criteria
        self.calls: list[Request] = []
        self._turns: deque[_Turn] = deque()
        self._default: Reply = Response()

    def __repr__(self) -> str:
        return f"<Route {self.criteria} calls={self.call_count}>"

    # Answers

    def respond(
        self,
        status: int = 200,
        *,
        json: Any = None,
        text: str | None = None,
        body: bytes | str | Script = b"",
        headers: HeadersLike | None = None,
        reason: str | None = None,
        delay: float = 0.0,
        times: int | None = None,
    ) -> "Route":
        """Add a response; the arguments are those of `Response`.

        Args:
            times: how often it is given; see the class.

        Returns:
            The route.
        """
        if isinstance(body, Iterator):
            body = tuple(body)  # it may be sent again
        return self._add(
            Response(status, json=json, text=text, body=body, headers=headers, reason=reason, delay=delay),
            times,
        )

    def handle(self, handler: Handler, *, times: int | None = None) -> "Route":
        """Add a function that answers, also as a decorator.

        Args:
            handler: called with the Request; it returns, or is a coroutine function that returns, a
                `Response`, a script as for `streams`, or None for an empty 200. An exception that it
                raises is what the connection is lost with, so the client raises it.
            times: how often it is asked; see the class.

        Returns:
            The route.
        """
        return self._add(Handled(handler), times)

    def raises(self, failure: Failure, *, delay: float = 0.0, times: int | None = None) -> "Route":
        """Add a failure to connect: no request is sent.

        The client raises what it would for that failure: an OSError becomes aiohttp's
        ClientConnectorError, `socket.gaierror` its ClientConnectorDNSError, an SSLError its
        ClientConnectorSSLError, a TimeoutError its ConnectionTimeoutError; any other exception
        comes as it is. The body of a request can be a criterion where it is known
        beforehand: bytes, text, JSON, a form without files.

        Args:
            failure: an exception or its class.
            delay: seconds that connecting takes until then.
            times: how often; see the class.

        Returns:
            The route.
        """
        return self._add(NoConnection(failure, delay), times)

    def disconnects(
        self, failure: Failure | None = None, *, delay: float = 0.0, times: int | None = None
    ) -> "Route":
        """Add a loss of the connection after the request was received, before any response.

        The client sends an idempotent request once more, as it does in earnest, so this may be asked twice.

        Args:
            failure: what the connection is lost with, an exception or its class; None closes it in
                good order (aiohttp's ServerDisconnectedError).
            delay: seconds before that.
            times: how often; see the class.

        Returns:
            The route.
        """
        if failure is not None:
            as_exception(failure)
        return self._add(Raw([delay, CLOSE if failure is None else failure]), times)

    def streams(self, script: Script, *, times: int | None = None) -> "Route":
        """Add a response byte by byte.

        Args:
            script: an iterable or async iterable of bytes, each one read of the client; numbers, that
                many seconds of silence; RESET, CLOSE, or an exception, which end the connection. Without
                one of those the connection stays open.
            times: how often; see the class.

        Returns:
            The route.
        """
        return self._add(Raw(tuple[AnyStep, ...](script) if isinstance(script, Iterator) else script), times)

    def _add(self, reply: Reply, times: int | None) -> "Route":
        self._turns.append(_Turn(reply, times))
        return self

    # Being asked

    def peek(self) -> Reply | None:
        """The next answer, or None when all have been given as often as they should."""
        turns = self._turns
        if not turns:
            return self._default
        while len(turns) > 1 and turns[0].given >= (turns[0].times or 1):
            turns.popleft()
        turn = turns[0]
        return turn.reply if turn.times is None or turn.given < turn.times else None

    def take(self, request: Request) -> Reply:
        """Record a request and use up its answer; `peek` has said that there is one."""
        reply = self.peek()
        assert reply is not None
        if self._turns:
            self._turns[0].given += 1
        self.calls.append(request)
        return reply

    # Asking

    @property
    def called(self) -> bool:
        """Whether it took any request."""
        return bool(self.calls)

    @property
    def call_count(self) -> int:
        """How many requests it took."""
        return len(self.calls)

    def assert_called(self) -> None:
        """Fail unless it took a request."""
        __tracebackhide__ = True
        if not self.calls:
            raise AssertionError(f"not called: {self.criteria}")

    def assert_not_called(self) -> None:
        """Fail if it took a request."""
        __tracebackhide__ = True
        if self.calls:
            raise AssertionError(f"called {_times(self.calls)}: {self.criteria}")

    def assert_called_once(self) -> None:
        """Fail unless it took one request exactly."""
        __tracebackhide__ = True
        if self.call_count != 1:
            raise AssertionError(f"called {_times(self.calls)}, not once: {self.criteria}")

    def assert_called_with(self, **criteria: "Unpack[Asked]") -> None:
        """Fail unless the last request meets these criteria.

        Args:
            criteria: `params`, `headers`, `json`, `data` and `match`, as for a route.
        """
        __tracebackhide__ = True
        self.assert_called()
        if differences := Criteria(**criteria).differences(self.calls[-1]):
            raise AssertionError(f"{self.calls[-1].method} {self.calls[-1].url}: {'; '.join(differences)}")

    def assert_called_once_with(self, **criteria: "Unpack[Asked]") -> None:
        """Fail unless it took one request exactly, and that meets the criteria of `assert_called_with`."""
        __tracebackhide__ = True
        self.assert_called_once()
        self.assert_called_with(**criteria)


def _times(calls: list[Request]) -> str:
    return {0: "never", 1: "once"}.get(len(calls), f"{len(calls)} times")
