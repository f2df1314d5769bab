"""One attempt's way through the gates, and what requests are told apart by.

No waiting in here: whoever drives attempts (`policies.py`, a batch) does that.
"""

from collections.abc import Hashable, Sequence
from typing import Any

from yarl import URL

from .gates import Gate, Permit
from .outcome import Observation

_NAMES_MAX = 1024
_names: dict[URL, str] = {}


def per_origin(request: Any) -> str:
    """The origin of a request, such as "https://api.example:8443"; without credentials."""
    return origin_name(request.url)


def origin_name(url: URL) -> str:
    """The origin of a URL."""
    origin = url.origin()
    name = _names.get(origin)
    if name is None:
        if len(_names) >= _NAMES_MAX:
            _names.clear()
        name = _names[origin] = str(origin)
    return name


def overall(request: Any) -> str:
    """One key for all requests: a limit that holds for the whole session."""
    return "all"


class Passage:
    """What one attempt was granted, in the order of the gates.

    Args:
        gates: in order.
        request: has `method`, `url` and `headers`.
        key: what the request is kept apart by.
    """

    __slots__ = ("_gates", "_permits", "key", "request", "seen")

    def __init__(self, gates: Sequence[Gate], request: Any, key: Hashable) -> None:
        self._gates = gates
        self.request = request
        self.key = key
        self._permits: list[Permit] = []
        self.seen: Observation | None = None

    def wake(self, permit: Permit) -> None:
        """A permit that was queued holds; whoever waits for it is to go on."""

    def look(self, gate: Gate, now: float) -> None:
        """Ask a gate whether there is a chance, before anything is waited for.

        Raises:
            PolicyError: there is none.
        """
        gate.look(self.key if gate.key_of is None else gate.key_of(self.request), now)

    def advance(self, now: float) -> Permit | None:
        """Pass the gates that are left, up to one that has to be waited for.

        Args:
            now: on the clock of the gates.

        Returns:
            The permit to wait for, until its `ready_at`; None when the attempt may be made.

        Raises:
            PolicyError: a gate refuses. What the others have granted is kept until `release`.
        """
        permits = self._permits
        for gate in self._gates[len(permits) :]:
            key = self.key if gate.key_of is None else gate.key_of(self.request)
            weight = 1.0 if gate.weight_of is None else gate.weight_of(self.request)
            permit = gate.acquire(key, weight=weight, now=now, wake=self.wake)
            permits.append(permit)
            if permit.ready_at > now:
                return permit
        return None

    def observe(self, seen: Observation) -> None:
        """Tell the gates what came of the attempt."""
        self.seen = seen
        for permit in self._permits:
            permit.observe(seen)

    def release(self, now: float) -> None:
        """Give back all that was granted. Safe to call twice."""
        permits, self._permits = self._permits, []
        try:
            for permit in permits:
                permit.release(now)
        except BaseException:
            # Such as what somebody's waker raises. The others must not stay occupied.
            self._permits = permits[permits.index(permit) + 1 :]
            self.release(now)
            raise
