"""The second try of a session: aiohttp sends an idempotent request again whose connection was lost.

It does so once, by itself, and calls all of its middlewares again for that. wirespeed's sessions ask the
policies first (`may_send_again`). aiohttp's own do not: there the second try is known by the timer that it
has in common with the first, and is refused when it comes. Called by `Policies`.
"""

import contextlib
import contextvars
import copy
import weakref
from typing import Any, NamedTuple, Protocol

from aiohttp import (
    ClientConnectorError,
    ClientOSError,
    ClientRequest,
    ConnectionTimeoutError,
    ServerDisconnectedError,
)

_LOST = (ClientOSError, ServerDisconnectedError)
_UNMADE = (ClientConnectorError, ConnectionTimeoutError)
"""After these there is no second try, although some are such."""


class Asked(Protocol):
    """What decides about a second try."""

    def may_send_again(self, request: ClientRequest) -> bool: ...


class _Ended(NamedTuple):
    """A request that has ended with a lost connection, and may come a second time.

    Attributes:
        timer: of the caller's request; the second try has it, too.
        request: a reference to it; a middleware sends the same again, a session one made anew.
        passed: those that are not to take that try for a request of the caller's.
        error: to be raised by the one of them that refuses; None where they were asked already.
    """

    timer: Any
    request: "weakref.ref[ClientRequest]"
    passed: tuple[Asked, ...]
    error: BaseException | None


ENDED: contextvars.ContextVar[_Ended | None] = contextvars.ContextVar("wirespeed.policy", default=None)


def is_asked(request: ClientRequest) -> bool:
    """Whether the session asks by itself: its timers say whether they passed."""
    return hasattr(request._timer, "has_passed")


def expect(policies: Asked, request: ClientRequest, error: BaseException | None) -> None:
    """Remember a request with which a session may come a second time.

    Args:
        policies: who may refuse it.
        request: has ended.
        error: what it has ended with; None where the session has asked, and has leave.
    """
    if error is not None and (
        not isinstance(error, _LOST) or isinstance(error, _UNMADE) or is_asked(request)
    ):
        return
    ended = ENDED.get()
    passed = ended.passed if ended is not None and ended.timer is request._timer else ()
    # A copy has no traceback, which would keep all frames of the request for as long as the task runs. Not
    # every class of errors lets itself be copied.
    with contextlib.suppress(Exception):
        error = copy.copy(error)
    ENDED.set(_Ended(request._timer, weakref.ref(request), (*passed, policies), error))


def is_second_try(policies: Asked, request: ClientRequest) -> bool:
    """Whether a session comes with a request a second time.

    Raises:
        ClientError: anew what the first try has raised, where the second must not be.
    """
    ended = ENDED.get()
    if ended is None or ended.timer is not request._timer or policies not in ended.passed:
        return False
    others = tuple(other for other in ended.passed if other is not policies)
    ENDED.set(ended._replace(passed=others) if others else None)
    if ended.request() is request:
        return False
    if ended.error is not None and not policies.may_send_again(request):
        ENDED.set(None)
        try:
            raise ended.error
        finally:
            del ended  # its error holds this frame
    return True
