"""The reservations of the rate limit: one key's line, who waits in it, and the permits.

`rate.RateLimit` decides who may stand in the line; here everybody is placed, always at its end, taken back,
always from its end, and moved when the server says so.
"""

from collections import deque
from typing import Any

from .gates import Permit
from .outcome import Observation
from .pacing import Line
from .serverlimit import ServerLimit


class RatePermit(Permit):
    """One attempt's leave. The gate fills it in, and `place` does: an `__init__` costs more.

    Attributes:
        ready_at: its instant, on the gate's clock; may move away as long as it lies ahead, where the server
            is listened to.
        weight: how many attempts it counts for.
    """

    # `state` is None when the attempt is over; `before` and `epoch` are the line's and the server's.
    __slots__ = ("before", "epoch", "is_given_up", "state", "weight")

    before: Any
    epoch: int
    is_given_up: bool
    state: "RateState | None"
    weight: float

    def observe(self, seen: Observation) -> None:
        state = self.state
        if state is None:
            return
        self.state = None
        if state.server is not None:
            state.hear(self, seen)
        elif state.waiting:
            state.tidy(seen.at)

    def release(self, now: float) -> None:
        state = self.state
        if state is not None:
            self.state = None
            state.give_up(self, now)


class RateState:
    """One key: the line of its algorithm, and who waits in it."""

    __slots__ = (
        "cancelled",
        "delayed",
        "latest",
        "line",
        "passed",
        "refused",
        "server",
        "server_pauses",
        "waited_seconds",
        "waiting",
    )

    def __init__(self, line: Line, server: ServerLimit | None) -> None:
        self.line = line
        self.server = server
        # The latest that was placed; None where it was taken back, and nobody waits.
        self.latest: RatePermit | None = None
        # Those whose instant lies ahead, in order; also such that were given up, and, until `tidy`, some
        # whose instant has come.
        self.waiting: deque[RatePermit] = deque()
        self.passed = self.delayed = self.refused = self.cancelled = self.server_pauses = 0
        self.waited_seconds = 0.0

    def is_idle(self, now: float) -> bool:
        if self.latest is not None and self.latest.ready_at > now:
            return False
        return self.line.is_clear(now) and (self.server is None or self.server.is_clear(now))

    def tidy(self, now: float) -> None:
        """Forget that those have waited whose instant has come."""
        waiting = self.waiting
        while waiting and waiting[0].ready_at <= now:
            waiting.popleft()

    # Placing, always at the end of the line

    def place(self, permit: RatePermit, now: float) -> float:
        """Give an attempt its instant."""
        at = now
        latest = self.latest
        if latest is not None and latest.ready_at > now:
            at = latest.ready_at
        server = self.server
        if server is None:
            permit.ready_at = ready_at = self.line.place(permit, permit.weight, at)
            return ready_at
        permit.epoch = -1
        at = server.earliest(permit.weight, at)
        permit.ready_at = ready_at = self.line.place(permit, permit.weight, at)
        server.count(permit)
        return ready_at

    def unplace(self, permit: RatePermit) -> None:
        """Take back what was placed last."""
        self.line.undo(permit)
        if self.server is not None and not permit.is_given_up:
            self.server.uncount(permit)

    # An attempt is over

    def give_up(self, permit: RatePermit, now: float) -> None:
        """An attempt was given up; its reservation is returned where nobody stands behind it."""
        waiting = self.waiting
        if now > permit.ready_at:
            if self.server is not None:
                self.server.finish(permit)
            if waiting:
                self.tidy(now)
            return
        self.cancelled += 1
        if permit is not self.latest:
            if self.server is not None:
                self.server.finish(permit)
            permit.is_given_up = True
            return
        self.unplace(permit)
        if waiting and waiting[-1] is permit:
            waiting.pop()
        while waiting and waiting[-1].is_given_up and waiting[-1].ready_at >= now:
            self.unplace(waiting.pop())
        self.latest = waiting[-1] if waiting else None

    # The server

    def hear(self, permit: RatePermit, seen: Observation) -> None:
        """Read what the server says, and move those that wait if need be."""
        server = self.server
        assert server is not None
        now = seen.at
        server.finish(permit)
        waiting = self.waiting
        if waiting:
            self.tidy(now)
        if not seen.headers:
            return
        is_stopped = server.hear_pause(seen, bool(waiting))
        is_new, is_used_up = server.hear_quota(seen)
        if is_stopped or is_used_up:
            self.server_pauses += 1
        if is_new:
            server.recount([permit for permit in waiting if not permit.is_given_up])
        if not waiting:
            return
        first = waiting[0].ready_at
        if first < server.paused_until:
            self._move(0, now)
        elif first < server.until and server.room() < 0:
            self._move(self._first_above(server), now)

    def _first_above(self, server: ServerLimit) -> int:
        """The place in the line from which on there is no room before the end of the window."""
        excess = -server.room()
        index = len(self.waiting)
        for permit in reversed(self.waiting):
            if excess <= 0:
                break
            index -= 1
            if permit.ready_at < server.until and not permit.is_given_up:
                excess -= permit.weight
        return index

    def _move(self, index: int, now: float) -> None:
        """Place all those anew that wait at an index and behind."""
        waiting = self.waiting
        server = self.server
        assert server is not None
        moved: list[RatePermit] = []
        while len(waiting) > index:
            permit = waiting.pop()
            self.unplace(permit)
            if not permit.is_given_up:
                moved.append(permit)
        server.forget_bookings()
        self.latest = waiting[-1] if waiting else None
        while moved:
            permit = moved.pop()
            before = permit.ready_at
            self.waited_seconds += max(0.0, self.place(permit, max(now, before)) - before)
            waiting.append(permit)
            self.latest = permit
