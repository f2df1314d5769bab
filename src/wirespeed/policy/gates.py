"""What the policies that let attempts through have in common: gates and their permits.

A gate decides and never waits: it says from when on an attempt may be made, and is told what came of it.
Whoever drives it (a middleware, a batch, a program) does the waiting. No gate does I/O, sleeps, or knows an
event loop. A gate belongs to one thread; its `stats()` may be read from any.
"""

import abc
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, ClassVar, Literal, NamedTuple

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from .outcome import Observation

QUEUED = math.inf
"""When a permit holds that waits for another's release."""

Clock = Callable[[], float]
"""Seconds that never go back, such as `time.monotonic`."""

Wake = Callable[["Permit"], object]
"""Called with a permit that was queued, once, when it holds; in somebody else's call, and must not raise."""


KeyOf = Callable[[Any], Hashable]
"""What a request is kept apart by; a request has `method`, `url` and `headers`."""


WeightOf = Callable[[Any], float]
"""How many attempts a request counts for."""


class Metric(NamedTuple):
    """A figure of a policy for the exporters.

    Attributes:
        attribute: of the statistics of one key.
        name: what the exporters call it, after the policy's name. A gauge is summed where keys share a label,
            unless its name ends in `seconds`, `rate` or `ratio`.
        kind: a counter only grows; a gauge is the state now.
        help: one sentence.
    """

    attribute: str
    name: str
    kind: Literal["counter", "gauge"]
    help: str


ignore: Callable[[object], None] = deque[object](maxlen=0).append
"""Takes anything and does nothing, as the methods of `Permit` do; without a frame, for permits that every
attempt has."""


class Permit:
    """One attempt's leave, by one gate.

    Attributes:
        ready_at: from when on it holds, on the gate's clock; `QUEUED` until another permit's release
            makes room, which `wake` is told of.
    """

    __slots__ = ("ready_at",)

    ready_at: float

    def observe(self, seen: Observation) -> None:
        """Tell the gate what came of the attempt; at most once, before `release`."""

    def release(self, now: float) -> None:
        """Give back what the attempt occupied. Safe to call twice.

        Released without an observation, the attempt was not made, or ended unseen: what was reserved for it
        is given back where that is possible, and nothing is learned. A queued permit leaves the queue.

        Args:
            now: on the gate's clock.
        """


class Policy(abc.ABC):
    """What keeps faith with the servers in one respect.

    As a middleware of a session it works alone; `Policies` composes several.

    Attributes:
        name: of the policy, in the metrics.
        metrics: the figures that `stats().by_key` has for each key.
        clock: used where no `now` is given.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    clock: Clock = staticmethod(time.monotonic)
    # Composes policies; `policies.py`, which is above, sets it.
    compose: ClassVar[Callable[..., Any]]
    _alone: Any = None

    def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> Awaitable[ClientResponse]:
        """Send a request under this policy: what a session calls of a middleware."""
        if self._alone is None:
            self._alone = Policy.compose(clock=self.clock, **{self.name: self})
        answer: Awaitable[ClientResponse] = self._alone(request, handler)
        return answer

    def may_send_again(self, request: ClientRequest) -> bool:
        """What wirespeed's sessions ask before they send a request a second time by themselves."""
        return self._alone is None or bool(self._alone.may_send_again(request))

    @abc.abstractmethod
    def stats(self) -> Any:
        """A frozen snapshot, with `by_key`: the figures of each key that is kept; from any thread."""


class Gate(Policy):
    """A policy that each attempt passes.

    Attributes:
        key_of: what a request is kept apart by, from the request; None for what the Policies go by.
        weight_of: how many attempts a request counts for, from the request; None for one.
    """

    key_of: KeyOf | None = None
    weight_of: WeightOf | None = None

    @abc.abstractmethod
    def acquire(
        self, key: Hashable, *, weight: float = 1.0, now: float | None = None, wake: Wake | None = None
    ) -> Permit:
        """Ask for leave to make an attempt.

        Args:
            key: what the gate keeps apart, mostly an origin.
            weight: how many attempts this one counts for.
            now: on the gate's clock; None reads it.
            wake: told when a permit that is queued holds.

        Raises:
            PolicyError: the attempt must not be made.
            ValueError: the weight is not positive, or more than there can ever be.
        """

    def look(self, key: Hashable, now: float | None = None) -> None:
        """Refuse an attempt that has no chance, before it waits for anything; changes nothing.

        Raises:
            PolicyError: the attempt would be refused.
        """
