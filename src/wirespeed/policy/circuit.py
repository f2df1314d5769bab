"""A circuit: its states, how it may go from one to the other and why, what is kept of it, and who is told.
What the breaker, its errors and whoever watches it have in common; it decides nothing.
"""

import enum
import logging
import math
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

from .gates import Permit
from .outcome import Outcome
from .windows import CountWindow, Window

_QUIET = 60.0
"""Seconds without an attempt after which a closed circuit without failures may be forgotten."""
_STALE = 600.0
"""Seconds without an attempt after which failures in a window of calls say nothing of the server any more."""

_logger = logging.getLogger("wirespeed.policy")


class CircuitState(enum.IntEnum):
    """Whether attempts are let through.

    Attributes:
        CLOSED: they are, and what comes of them is counted.
        HALF_OPEN: a few probes are.
        OPEN: none is.
    """

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


TRANSITIONS = {
    CircuitState.CLOSED: (CircuitState.OPEN,),
    CircuitState.OPEN: (CircuitState.HALF_OPEN, CircuitState.CLOSED),
    CircuitState.HALF_OPEN: (CircuitState.OPEN, CircuitState.CLOSED),
}


class Cause(enum.Enum):
    """Why a circuit is as it is, or an attempt was refused.

    Attributes:
        NEW: nothing has happened yet.
        FAILURE_RATE: too many calls, or probes, failed.
        SLOW_CALL_RATE: too many calls, or probes, were slow.
        SILENT: the probes got no answer, for too long.
        FORCED: opened by hand.
        WAITED: it was open for long enough.
        PROBING: as many probes as may be are under way.
        RECOVERED: the probes were answered well.
        RESET: closed by hand.
    """

    NEW = "new"
    FAILURE_RATE = "failure rate"
    SLOW_CALL_RATE = "slow-call rate"
    SILENT = "silent probes"
    FORCED = "forced"
    WAITED = "waited"
    PROBING = "probing"
    RECOVERED = "recovered"
    RESET = "reset"


class Reason(NamedTuple):
    """A cause, and what there is to say of it.

    Attributes:
        cause: for programs.
        text: for people, with the figures.
    """

    cause: Cause
    text: str

    def __str__(self) -> str:
        return self.text


OnStateChange = Callable[[Hashable, CircuitState, CircuitState, Reason], object]
"""Called with a key, the old state, the new one, and why."""


@dataclass(frozen=True)
class CircuitFigures:
    """Of one key.

    Attributes:
        state: now; an open circuit is so until the first attempt after its time.
        reason: why it is in this state.
        until: on the breaker's clock, when an open circuit lets probes through; None in other states.
        calls: in the window; of an open circuit, those that opened it; of a half-open one, the probes that
            have been answered.
        failure_rate: share of these that failed.
        slow_call_rate: share of these that were slow.
        last_outcome: of the last call that failed.
        passed: attempts that were let through; in shadow mode, all.
        rejected: attempts that were refused.
        would_reject: attempts that were let through by shadow mode only.
        opened: times that the circuit was opened.
        probed: attempts that were probes.
        failed: attempts that failed, late ones left out.
        slow: attempts that were slow, late ones left out.
        late: attempts that ended in another state than they were admitted in.
    """

    state: CircuitState
    reason: Reason
    until: float | None
    calls: int
    failure_rate: float
    slow_call_rate: float
    last_outcome: Outcome | None
    passed: int
    rejected: int
    would_reject: int
    opened: int
    probed: int
    failed: int
    slow: int
    late: int


class _Bystander(Permit):
    __slots__ = ()

    def __init__(self) -> None:
        self.ready_at = -math.inf


BYSTANDER = _Bystander()
"""The permit of attempts that nothing is learned from."""

_NEW = Reason(Cause.NEW, "nothing has been seen yet")


class Circuit:
    """Of one key. The breaker alone changes it, and `state` in its `_set_state` only.

    Attributes:
        era: number of the state; a permit of another one is late.
        seen_at: when an attempt was last let through while it was closed.
        window: of the calls that decide; of an open circuit, of those that opened it.
        permit: that all attempts share which need none of their own.
        taken: places of probes; those that are answered, and those that are under way.
        probed_at: when the last place was taken.
        wait: seconds for which it is open, or will be the next time.
        until: when it has been open for long enough.
    """

    __slots__ = (
        "era",
        "failed",
        "key",
        "last_outcome",
        "late",
        "opened",
        "passed",
        "permit",
        "probed",
        "probed_at",
        "reason",
        "rejected",
        "seen_at",
        "slow",
        "state",
        "taken",
        "until",
        "wait",
        "window",
        "would_reject",
    )

    def __init__(self, key: Hashable, now: float) -> None:
        self.key = key
        self.state = CircuitState.CLOSED
        self.reason = _NEW
        self.last_outcome: Outcome | None = None
        self.era = self.taken = 0
        self.seen_at = self.until = self.probed_at = now
        self.wait = 0.0
        self.window: Window = CountWindow(1)
        self.permit: Permit = BYSTANDER
        self.passed = self.rejected = self.would_reject = self.opened = 0
        self.probed = self.failed = self.slow = self.late = 0

    def is_idle(self, now: float) -> bool:
        if self.state is not CircuitState.CLOSED:
            return False
        quiet = now - self.seen_at
        if quiet < _QUIET:
            return False  # attempts may be under way
        _, failures, slow = self.window.figures(now)
        return quiet >= _STALE or not (failures or slow)

    def figures(self, now: float) -> CircuitFigures:
        """What there is to say of it; changes nothing."""
        is_open = self.state is CircuitState.OPEN
        window = self.window
        # What has opened it does not grow old.
        total, failures, slow = (
            (window.total, window.failures, window.slow) if is_open else window.figures(now)
        )
        return CircuitFigures(
            state=self.state,
            reason=self.reason,
            until=self.until if is_open else None,
            calls=total,
            failure_rate=failures / total if total else 0.0,
            slow_call_rate=slow / total if total else 0.0,
            last_outcome=self.last_outcome,
            passed=self.passed,
            rejected=self.rejected,
            would_reject=self.would_reject,
            opened=self.opened,
            probed=self.probed,
            failed=self.failed,
            slow=self.slow,
            late=self.late,
        )


class Watchers:
    """Who is told of changes of state; all of them in the order in which they were made."""

    __slots__ = ("_callbacks", "_changes", "_is_telling")

    def __init__(self) -> None:
        self._callbacks: dict[object, OnStateChange] = {}
        self._changes: deque[tuple[Hashable, CircuitState, CircuitState, Reason]] = deque()
        self._is_telling = False

    def subscribe(self, callback: OnStateChange) -> Callable[[], None]:
        """Tell a callback too, until what this returns is called."""
        token = object()
        self._callbacks[token] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(token, None)

        return unsubscribe

    def tell(self, key: Hashable, old: CircuitState, new: CircuitState, reason: Reason) -> None:
        """Tell all; or, in a callback's own call, have it told when all know what went before."""
        changes = self._changes
        changes.append((key, old, new, reason))
        if self._is_telling:
            return
        self._is_telling = True
        try:
            while changes:
                change = changes.popleft()
                for callback in tuple(self._callbacks.values()):
                    try:
                        callback(*change)
                    except Exception:
                        _logger.exception("A callback failed when the circuit of %s changed", change[0])
        finally:
            self._is_telling = False
