"""Sessions under watch: one made for each request, and those that nobody closes.

Called by `ClientSession` while leaks are tracked. It knows of a session what its hooks say.
"""

import collections
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from .frames import Stack, running_task
from .verdicts import Leak, LeakKind, Verdicts, new_serial

# So many in a row, made at one line and closed after at most one request each, are a habit.
SESSIONS_IN_A_ROW = 5
# Lines that are remembered; those that made a session longest ago are forgotten.
_LINES = 1_000

_PER_REQUEST = (
    "{count} sessions in a row were made here and closed after at most one request each: every "
    "request pays for a connection of its own. Make one ClientSession when the program starts, use it "
    "for all requests, and close it at the end."
)
_COLLECTED = (
    "a ClientSession that was made here was dropped without being closed. "
    "Use `async with ClientSession() as session:`, or `await session.close()`."
)
_OUTLIVED = (
    "a ClientSession that was made here was still open when its event loop was closed. "
    "Use `async with ClientSession() as session:`, or `await session.close()` before the loop ends."
)


class _Made:
    """One session: where it was made, and what its requests were."""

    def __init__(self, session: Any, gone: Callable[[object], None]) -> None:
        task = running_task()
        self.stack = Stack.capture(task, maker_of=session)
        self.task = task.get_name() if task is not None else None
        self.at = time.perf_counter()
        self.requests = 0
        # By a websocket, for one: that is worth a session.
        self.is_upgraded = False
        # Kept: a session is closed when its connector is, and nobody else knows afterwards.
        self.connector = session._connector
        self.is_owner: bool = session._connector_owner
        self.session = weakref.ref(session, gone)
        self.serial = new_serial()

    def leak(self, kind: LeakKind, message: str, serial: int | None = None) -> Leak:
        return Leak(
            kind=kind,
            message=message,
            where=self.stack.where,
            url=None,
            task=self.task,
            age=time.perf_counter() - self.at,
            stack=self.stack.summary(),
            serial=serial or self.serial,
        )


class _Line:
    """The sessions in a row that were made at one line and were of little use."""

    def __init__(self, first: _Made) -> None:
        self.count = 0
        self.first = first
        self.serial = new_serial()


class SessionLog:
    """The sessions that are made while leaks are tracked.

    Args:
        verdicts: where those go that outlive their sessions.
    """

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        self._open: dict[int, _Made] = {}
        self._lines: collections.OrderedDict[object, _Line] = collections.OrderedDict()

    def opened(self, session: Any) -> None:
        """Note a new session, which is not kept alive, and where it was made."""
        number = id(session)

        def gone(_: object) -> None:
            if (made := self._open.pop(number, None)) is not None and made.is_owner:
                if not made.connector.closed and not sys.is_finalizing():
                    self._verdicts.add(made.leak(LeakKind.UNCLOSED, _COLLECTED))
                self._count(made)

        made = self._open[number] = _Made(session, gone)
        # The session sees to its connector, and the verdict about both is the session's.
        if made.is_owner and (tracker := getattr(made.connector, "_tracker", None)) is not None:
            tracker.is_owned = True

    def asked(self, session: Any, options: Mapping[str, Any]) -> None:
        """Note a request of a session, and its options."""
        if (made := self._open.get(id(session))) is not None:
            made.requests += 1
            headers = options.get("headers")
            if isinstance(headers, Mapping) and "Upgrade" in headers:
                made.is_upgraded = True

    def closed(self, session: Any) -> None:
        """Note that a session is closed; may be called again."""
        made = self._open.pop(id(session), None)
        # A session over somebody else's connector is cheap: its connections stay.
        if made is not None and made.is_owner:
            self._count(made)

    def _count(self, made: _Made) -> None:
        made.connector = None
        key = made.stack.line[:2]
        line = self._lines.pop(key, None)
        if made.requests > 1 or made.is_upgraded:
            # Of use: the row ends.
            return
        line = self._lines[key] = line or _Line(made)
        line.count += 1
        if len(self._lines) > _LINES:
            self._lines.popitem(last=False)

    def leaks(self) -> list[Leak]:
        """List the lines that make a session for each request, and the sessions that outlived their loop."""
        found = []
        for line in list(self._lines.values()):
            if line.count >= SESSIONS_IN_A_ROW:
                message = _PER_REQUEST.format(count=line.count)
                found.append(line.first.leak(LeakKind.SESSION_PER_REQUEST, message, line.serial))
        for made in list(self._open.values()):
            session = made.session()
            if session is not None and made.is_owner and not session.closed and session._loop.is_closed():
                found.append(made.leak(LeakKind.UNCLOSED, _OUTLIVED))
        return found

    def start_over(self) -> None:
        """Forget the sessions that were closed: what comes is counted by itself."""
        self._lines.clear()
