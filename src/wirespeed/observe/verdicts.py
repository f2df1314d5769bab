"""What the leak tracking says: verdicts, and those that outlive what they are about."""

import collections
import enum
import itertools
import traceback
from dataclasses import dataclass, field

# Verdicts kept of connectors, responses and sessions that are gone; the oldest are dropped.
_KEPT = 1_000

_serials = itertools.count(1)


def new_serial() -> int:
    """A number that no other leak of this process has."""
    return next(_serials)


class LeakKind(enum.Enum):
    """What was leaked, and how."""

    NEVER_RELEASED = "never released"
    """A response was neither read to its end nor released, and nobody is left to do it."""
    HELD = "held while others wait"
    """A connection was held for longer than the threshold while other callers waited for one."""
    SESSION_PER_REQUEST = "session per request"
    """A session was made for each request: nothing is reused."""
    CANCELLED = "cancelled while holding"
    """As NEVER_RELEASED: the task was cancelled, and did not give its connection back on its way out."""
    COLLECTED_UNREAD = "collected unread"
    """A response was dropped unread: the garbage collector closed its connection."""
    UNCLOSED = "not closed"
    """A session or a connector was dropped, or its event loop was closed, before it was closed."""


@dataclass(frozen=True)
class Leak:
    """A leak that was found; `str()` of it is one line, `report()` has the stack, too.

    Attributes:
        kind: what was leaked, and how.
        message: the same in plain words, with what to change.
        where: the user's line that acquired it, "file:line in function".
        url: the URL of the request, without user and password; None for sessions and connectors.
        task: the name of the task that acquired it; None where there was none.
        age: seconds since it was acquired.
        stack: the stack that acquired it, without wirespeed's and aiohttp's own frames.
        serial: the same number for the same leak, however often it is listed.
    """

    kind: LeakKind
    message: str
    where: str
    url: str | None
    task: str | None
    age: float
    stack: traceback.StackSummary = field(repr=False, compare=False)
    serial: int = field(repr=False, default_factory=new_serial)

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.message} (acquired at {self.where})"

    def report(self) -> str:
        """Several lines: the kind and the line that acquired, the message, the stack."""
        by = f", task {self.task!r}" if self.task else ""
        lines = [f"{self.kind.value}: acquired at {self.where}{by}, {self.age:.1f} s ago"]
        lines.append(f"  {self.message}")
        for entry in self.stack.format():
            lines += ["  " + line for line in entry.splitlines()]
        return "\n".join(lines)


class Verdicts:
    """Verdicts that stand although what they are about is gone; bounded."""

    def __init__(self) -> None:
        self._leaks: collections.deque[Leak] = collections.deque(maxlen=_KEPT)

    def add(self, leak: Leak) -> None:
        """Add one; finalizers come here, in any thread and at any moment."""
        self._leaks.append(leak)

    def as_list(self) -> list[Leak]:
        """List the verdicts, oldest first."""
        while True:
            try:
                return list(self._leaks)
            except RuntimeError:  # one was added meanwhile
                continue
