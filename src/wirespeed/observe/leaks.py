"""Leaks of connections, and who is to blame: verdicts, each with the line that acquired.

A connector with `track_leaks=True` (or any, with `WIRESPEED_TRACK_LEAKS=1`) has a `LeakTracker`. The
pool asks it for an `Acquisition` whenever somebody wants a connection, and keeps that as the
connection's holder. `connector.leaks()` has the tracker judge what is in use; `all_leaks()` does
it for every connector of the process, and adds what is known of sessions and of connectors that are gone.

A verdict is given when it is certain, not when something looks odd; see `LeakTracker.leaks` for
how each is decided. Imported when something is to be tracked (`tracking`).
"""

import collections
import contextlib
import contextvars
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiohttp

from . import tracking
from .acquisitions import Acquisition as Acquisition
from .acquisitions import Asker, Asking, without_secrets
from .frames import Stack, running_task
from .hands import kept
from .sessions import SessionLog
from .verdicts import Leak as Leak
from .verdicts import LeakKind as LeakKind
from .verdicts import Verdicts

# Seconds; a request that takes longer is beyond most timeouts of servers and proxies.
HELD_AFTER = 30.0
_KEPT_PER_CONNECTOR = 200
_USE_WITH = "Use `async with session.get(...) as resp:`, or call `resp.release()` when it is not wanted."
_CLOSE = "Use `await connector.close()`, or leave it to the session that it is given to."

# The holder of a connection, its age in seconds, and how many callers wait for it.
InUse = tuple[Any, float, int]

_asking: contextvars.ContextVar["Asking | None"] = contextvars.ContextVar("wirespeed_asking", default=None)
_trackers: "weakref.WeakSet[LeakTracker]" = weakref.WeakSet()
_verdicts = Verdicts()


class LeakTracker:
    """Judges the connections of one connector.

    Args:
        held_after: seconds that a connection may be held while others wait.
        connector: whose connections; not kept alive. `all_leaks` finds them through it.
    """

    def __init__(self, held_after: float = HELD_AFTER, connector: Any = None) -> None:
        start()
        task = running_task()
        self.held_after = held_after
        self._connector = weakref.ref(connector) if connector is not None else None
        self._verdicts: collections.deque[Leak] = collections.deque(maxlen=_KEPT_PER_CONNECTOR)
        # About the connector itself
        self.is_owned = False  # by a session, which closes it
        self._made = Acquisition(Stack.capture(task, maker_of=connector), Asker.of(task))
        self._is_used = False
        self._is_closed = False
        _trackers.add(self)

    # Called by the pool and the connector

    def acquiring(self) -> Acquisition:
        """Note that the running task asks for a connection; the pool calls it in the stack of who asks."""
        task = running_task()
        asking = _asking.get()
        self._is_used = True
        if asking is None:
            return Acquisition(Stack.capture(task), Asker.of(task), self)
        acquisition = asking.acquisition = Acquisition(asking.stack, Asker.of(task), self)
        acquisition.method = asking.method
        acquisition.url = asking.url
        return acquisition

    def lent(self, holder: object, method: str, url: Any, connection: object) -> None:
        """Note that aiohttp's code got a connection, and for which request."""
        if isinstance(holder, Acquisition):
            holder.method = method
            holder.url = url
            holder.answered(connection)

    def collected(self, holder: object, resp: Any) -> None:
        """Note that a response is collected with its body unread; called by its finalizer.

        One whose exchange has failed, or whose connector was closed, had lost its connection
        before: that is no leak. Nor is it one when Python ends.
        """
        if not isinstance(holder, Acquisition) or holder.is_reported or sys.is_finalizing():
            return
        if getattr(getattr(resp, "_exchange", None), "error", None) is not None or self._is_closed:
            return
        message = f"the response of {holder.request()} was dropped unread, and its connection closed"
        self._record(holder, LeakKind.COLLECTED_UNREAD, f"{message}. {_USE_WITH}")

    def closing(self, in_use: Iterable[InUse]) -> None:
        """Note that the connector is about to be closed, and judge what is in use for the last time.

        A response is NEVER_RELEASED (or CANCELLED) when `leaks` says so, and also when the very
        task that closes the connector acquired it, or has it in hand, outside of an `async with`: after
        this, nobody can read it. Not so while an exception is on its way: then closing is
        cleaning up. What other tasks have in hand is cut short, not leaked.

        Args:
            in_use: as in `leaks`.
        """
        if self._is_closed:
            return
        self._is_closed = True
        closer = None if sys.exc_info()[0] is not None else running_task()
        suspects = [
            holder
            for holder, *_ in in_use
            if isinstance(holder, Acquisition)
            and _is_unreleased(holder)
            and (holder.has_ended or (closer is not None and holder.task is closer))
            and not (closer is not None and _is_in_block(holder))
        ]
        for holder in _nobodys(suspects, (), running=closer is None):
            message = f"the response of {holder.request()} was unread when its connector was closed"
            self._record(holder, _release_kind(holder), f"{message}. {_USE_WITH}")

    def _record(self, holder: Acquisition, kind: LeakKind, message: str) -> None:
        holder.is_reported = True
        leak = _leak(holder, kind, message, time.perf_counter() - holder.asked_at)
        self._verdicts.append(leak)
        _verdicts.add(leak)

    def dropped(self) -> None:
        """Note that the connector is collected, closed or not; called by its finalizer."""
        if self._is_used and not self._is_closed and not self.is_owned and not sys.is_finalizing():
            self._is_closed = True
            message = f"a connector that was made here was dropped without being closed. {_CLOSE}"
            self._record(self._made, LeakKind.UNCLOSED, message)

    __del__ = dropped

    # Verdicts

    def leaks(
        self,
        in_use: Iterable[InUse],
        *,
        final: bool = False,
        also_alive: Iterable[object] = (),
    ) -> list[Leak]:
        """Judge the connections in use, and list them with the verdicts that were found before.

        - NEVER_RELEASED: the task that acquired the connection has ended, the connection is still in
          use, and its response is in nobody's hands: no coroutine, generator or scheduled call that
          is alive reaches it (see `hands`), so nobody will read or release it. A response that
          another task reads, that lies in a queue with a reader, or that came out of `gather()` to
          somebody who goes on, is reached. One that only a global keeps is not. When the event loop
          is closed, nobody's hands are any good.
        - CANCELLED: the same, where the task ended by being cancelled.
        - HELD: in use for longer than `held_after` while callers wait. This one is about time alone:
          it also hits websockets, slow downloads and slow servers, and its message says which.
        - COLLECTED_UNREAD: was noted when it happened; see `collected`.

        A websocket's connection is held on purpose, so of these only HELD applies to it. A connection
        without a response waits for one, for as long as its task lives. A response whose body has
        arrived is no leak, read or not: its connection is back in the pool.

        Args:
            in_use: of each connection in use its holder, its age in seconds, and how many callers wait
                for it; only Acquisitions are judged.
            final: whether what is going on should be over, as at the end of a test: a
                task that acquired and has not ended does not excuse its response then.
            also_alive: objects that count as hands, too.

        Returns:
            The verdicts, those that were found before first.
        """
        held = [used for used in in_use if isinstance(used[0], Acquisition)]
        suspects = [h for h, *_ in held if (h.has_ended or (final and h.response)) and _is_unreleased(h)]
        nobodys = set(_nobodys(suspects, also_alive))
        found = list(self._verdicts)
        for holder, age, waiting in held:
            if holder.is_reported:
                continue
            if holder in nobodys:
                found.append(_leak(holder, _release_kind(holder), _released_message(holder), age))
            elif age > self.held_after and waiting > 0:
                found.append(_leak(holder, LeakKind.HELD, _held_message(holder, age, waiting), age))
        return found

    def look(self, *, final: bool = False, also_alive: Iterable[object] = ()) -> list[Leak]:
        """Judge the connections that the connector has in use now; see `leaks`."""
        connector = self._connector() if self._connector is not None else None
        if connector is None or self._is_closed:
            return list(self._verdicts)
        found = self.leaks(connector._held(), final=final, also_alive=also_alive)
        if self._is_used and not self.is_owned and connector._loop.is_closed():
            message = "a connector that was made here was still open when its event loop was closed."
            age = time.perf_counter() - self._made.asked_at
            found.append(_leak(self._made, LeakKind.UNCLOSED, f"{message} {_CLOSE}", age))
        return found


def _is_unreleased(holder: Acquisition) -> bool:
    """Whether there is a response that could have been released, or a task that ended without one."""
    if holder.is_reported or holder.is_upgraded:
        return False
    if holder.response is None:
        return holder.has_ended
    resp = holder.response()
    return resp is not None and not getattr(resp, "closed", False)


def _is_in_block(holder: Acquisition) -> bool:
    """Whether the response is in an `async with` block, whose end releases it."""
    resp = holder.response() if holder.response is not None else None
    return bool(getattr(resp, "_in_context", False))


def _nobodys(
    suspects: list[Acquisition], also_alive: Iterable[object], *, running: bool = True
) -> list[Acquisition]:
    """Choose those whose response is in nobody's hands."""
    targets: list[Any] = []
    sure: list[Acquisition] = []
    unsure: list[tuple[Acquisition, list[int]]] = []
    for holder in suspects:
        resp = holder.response() if holder.response is not None else None
        loop = getattr(resp, "_loop", None)
        if resp is None or (loop is not None and loop.is_closed()):
            sure.append(holder)
            continue
        # Whoever streams may have nothing but the stream.
        parts = [resp, vars(resp).get("content")] if hasattr(resp, "__dict__") else [resp]
        targets += [part for part in parts if part is not None]
        unsure.append((holder, [id(part) for part in parts if part is not None]))
    in_hands = kept(targets, also_alive, running=running)
    return sure + [holder for holder, numbers in unsure if in_hands.isdisjoint(numbers)]


def _release_kind(holder: Acquisition) -> LeakKind:
    return LeakKind.CANCELLED if holder.is_cancelled else LeakKind.NEVER_RELEASED


def _released_message(holder: Acquisition) -> str:
    if holder.is_cancelled:
        how = "was cancelled and did not release it on its way out"
    elif holder.has_ended:
        how = "has ended"
    else:
        how = "has moved on"
    return f"the response of {holder.request()} is unread, and the task that asked for it {how}. {_USE_WITH}"


def _held_message(holder: Acquisition, age: float, waiting: int) -> str:
    callers = f"{waiting} callers wait" if waiting > 1 else "a caller waits"
    what = f"{holder.request()} has held its connection for {age:.1f} s while {callers} for one."
    if holder.is_upgraded:
        return f"{what} Give websockets a connector of their own, or raise the limit."
    if not holder.is_answered:
        return f"{what} The server has not answered yet: set a timeout, or raise the limit."
    return f"{what} Read the body before doing anything slow, set a timeout, or raise the limit."


def _leak(holder: Acquisition, kind: LeakKind, message: str, age: float) -> Leak:
    return Leak(
        kind=kind,
        message=message,
        where=holder.where,
        url=without_secrets(holder.url),
        task=holder.task_name,
        age=age,
        stack=holder.stack.summary(),
        serial=holder.serial,
    )


# Called by ClientSession


def ask(
    session: Any,
    request: Callable[..., Awaitable[Any]],
    method: str,
    str_or_url: Any,
    options: Mapping[str, Any],
) -> Awaitable[Any] | None:
    """Note a request, and where it is asked for: the coroutine may run in a task that knows nothing of it.

    Args:
        session: the session.
        request: its method, which is called once more, for the request itself.
        method, str_or_url, options: the arguments of the call.

    Returns:
        What to return instead; None when the call is that of the request itself, or the session's
        connector does not track leaks.
    """
    asking = _asking.get()
    if asking is not None and asking.is_fresh:
        asking.is_fresh = False
        return None
    if tracking.sessions is not None:
        tracking.sessions.asked(session, options)
    if getattr(session._connector, "_tracker", None) is None:
        return None
    asking = Asking(Stack.capture(running_task()), method, str_or_url)
    return _ask(asking, request, session, method, str_or_url, options)


async def _ask(
    asking: Asking,
    request: Callable[..., Awaitable[Any]],
    session: Any,
    method: str,
    str_or_url: Any,
    options: Mapping[str, Any],
) -> Any:
    token = _asking.set(asking)
    try:
        resp = await request(session, method, str_or_url, **options)
    finally:
        # The context is another one where the garbage collector closes the coroutine.
        with contextlib.suppress(ValueError):
            _asking.reset(token)
    if (acquisition := asking.acquisition) is not None:
        acquisition.answered(resp)
        if isinstance(resp, aiohttp.ClientResponse):
            # A relative URL was made whole, and redirects were followed.
            acquisition.method, acquisition.url = resp.method, resp.url
            resp._acquisition = acquisition  # type: ignore[attr-defined]
    return resp


# The process


def start() -> None:
    """Watch the sessions that are made from now on. Connectors are asked for when they are made."""
    if tracking.sessions is None:
        tracking.sessions = SessionLog(_verdicts)


def all_leaks(*, final: bool = False, also_alive: Iterable[object] = ()) -> list[Leak]:
    """List the leaks of every connector and session of the process, gone ones included (the last 1,000).

    Connectors are looked at as they are: call it in the thread of their loop, or when that does
    not run.

    Args:
        final, also_alive: as in `LeakTracker.leaks`.
    """
    also = list(also_alive)
    found = {leak.serial: leak for leak in _verdicts.as_list()}
    for tracker in list(_trackers):
        for leak in tracker.look(final=final, also_alive=also):
            found.setdefault(leak.serial, leak)
    if tracking.sessions is not None:
        for leak in tracking.sessions.leaks():
            found.setdefault(leak.serial, leak)
    return list(found.values())
