"""Who acquired a connection: the task, the stack and the request. Made by the tracker in `leaks`."""

import asyncio
import time
import weakref
from typing import Any

from .frames import Stack
from .verdicts import new_serial


class Asker:
    """A task that acquired connections, and how it ended; it is not kept alive."""

    __slots__ = ("_is_cancelled", "_task", "name")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = weakref.ref(task)
        self._is_cancelled = False
        self.name = task.get_name()
        task.add_done_callback(self._on_done)

    @classmethod
    def of(cls, task: "asyncio.Task[Any] | None") -> "Asker | None":
        """The one Asker of a task: a worker that lives long acquires often, and over many connectors."""
        if task is None:
            return None
        try:
            asker = _askers.get(task)
            if asker is None:
                asker = _askers[task] = cls(task)
        except TypeError:  # a task factory's own kind, without weak references
            return None
        return asker

    def _on_done(self, task: "asyncio.Task[Any]") -> None:
        # Not its exception(): asking for it silences "exception was never retrieved".
        self._is_cancelled = task.cancelled()

    @property
    def task(self) -> "asyncio.Task[Any] | None":
        return self._task()

    @property
    def has_ended(self) -> bool:
        task = self._task()
        return task is None or task.done()

    @property
    def is_cancelled(self) -> bool:
        """Whether it ended by being cancelled."""
        task = self._task()
        # The callback comes a step of the loop after the end.
        return self._is_cancelled or (task is not None and task.done() and task.cancelled())


_askers: "weakref.WeakKeyDictionary[asyncio.Task[Any], Asker]" = weakref.WeakKeyDictionary()


class Asking:
    """A request on its way: where it was asked for, and the connection that it got last."""

    __slots__ = ("acquisition", "is_fresh", "method", "stack", "url")

    def __init__(self, stack: Stack, method: str, url: Any) -> None:
        self.stack = stack
        self.method = method
        self.url = url
        self.acquisition: Acquisition | None = None
        # The session's method is about to be called a second time, for the request itself.
        self.is_fresh = True


class Acquisition:
    """Who acquired a connection. The holder of the connection, from the asking until it is given back.

    Attributes:
        stack: where it was asked for.
        asked_at: when, of `time.perf_counter`.
        url, method: of the request; set when the connection is used.
        response: a weak reference to what gives the connection back when it is released: the response,
            or aiohttp's Connection; None while there is none.
        serial: its number.
    """

    __slots__ = (
        "__weakref__", "_asker", "_tracker", "asked_at", "is_reported", "method", "response", "serial",
        "stack", "url",
    )  # fmt: skip

    def __init__(self, stack: Stack, asker: Asker | None, tracker: Any = None) -> None:
        self.stack = stack
        self._asker = asker
        self._tracker = weakref.ref(tracker) if tracker is not None else None
        self.asked_at = time.perf_counter()
        self.url: Any = None
        self.method: str | None = None
        self.response: weakref.ref[Any] | None = None
        self.serial = new_serial()
        # A verdict stands that outlives the connection.
        self.is_reported = False

    def __repr__(self) -> str:
        return f"<Acquisition by {self.task_name!r} at {self.where}>"

    @property
    def where(self) -> str:
        """The user's line, "file:line in function"."""
        return self.stack.where

    @property
    def task(self) -> "asyncio.Task[Any] | None":
        """The task; None where it was not acquired in a task, or when that is gone."""
        return self._asker.task if self._asker is not None else None

    @property
    def task_name(self) -> str | None:
        """The name of the task; None where it was not acquired in a task."""
        return self._asker.name if self._asker is not None else None

    @property
    def has_ended(self) -> bool:
        """Whether the task has ended."""
        return self._asker is not None and self._asker.has_ended

    @property
    def is_cancelled(self) -> bool:
        """Whether the task has ended by being cancelled."""
        return self._asker is not None and self._asker.is_cancelled

    @property
    def is_upgraded(self) -> bool:
        """Whether it is a websocket's connection, or another protocol's, which are held on purpose."""
        if "_ws_connect" in self.stack.functions:
            return True
        resp = self.response() if self.response is not None else None
        return getattr(resp, "status", None) == 101

    @property
    def is_answered(self) -> bool:
        """Whether the head of the response has come."""
        resp = self.response() if self.response is not None else None
        return getattr(resp, "status", None) is not None

    def answered(self, resp: object) -> None:
        """Note what gives the connection back: the response, or aiohttp's Connection; not kept alive."""
        try:
            self.response = weakref.ref(resp)
        except TypeError:  # a mock's
            self.response = None

    def collected(self, resp: object) -> None:
        """Note that the response is collected unread; see `LeakTracker.collected`."""
        if self._tracker is not None and (tracker := self._tracker()) is not None:
            tracker.collected(self, resp)

    def request(self) -> str:
        """The request in words, "GET http://..."."""
        return f"{self.method or 'a request'} {without_secrets(self.url) or ''}".rstrip()


def without_secrets(url: Any) -> str | None:
    """A URL as text, without user and password."""
    if url is None:
        return None
    has_secret = getattr(url, "raw_user", None) or getattr(url, "raw_password", None)
    return str(url.with_user(None) if has_secret else url)
