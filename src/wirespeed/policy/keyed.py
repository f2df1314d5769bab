"""The state of each key of a policy, bounded: a crawler meets millions of hosts.

What is forgotten is what cannot matter any more; the counters of forgotten keys are summed, so that no
total ever falls.
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from .gates import Metric

MAX_KEYS = 10_000
_LOOKS = 16
"""Old keys that are looked at for each new one above the bound."""


class KeyedState(Protocol):
    """What a policy keeps of a key; the counters of its metrics are attributes."""

    def is_idle(self, now: float) -> bool:
        """Whether a new state would decide as this one."""
        ...


S = TypeVar("S", bound=KeyedState)
F = TypeVar("F")


@dataclass(frozen=True)
class KeyedStats(Generic[F]):
    """A snapshot of a policy.

    Attributes:
        by_key: the figures of each key that is kept.
        forgotten: the sums of the counters of the keys that are not.
    """

    by_key: Mapping[Hashable, F]
    forgotten: Mapping[str, float]


class Keyed(Generic[S]):
    """States by key, made on first use.

    Args:
        make: makes the state of a key.
        metrics: of the policy.
        max_keys: above it, idle keys are forgotten, the oldest first. States that still matter are kept,
            whatever their number.

    Raises:
        ValueError: `max_keys` is not positive.
    """

    def __init__(
        self, make: Callable[[Hashable, float], S], metrics: tuple[Metric, ...] = (), max_keys: int = MAX_KEYS
    ) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys must be positive, got {max_keys}")
        self._make = make
        self._max = max_keys
        self._counters = tuple(metric.attribute for metric in metrics if metric.kind == "counter")
        self._states: dict[Hashable, S] = {}
        # Whose turn it is to be looked at. Apart from the states, so that a state that is kept never leaves
        # its place: snapshots are taken on other threads meanwhile.
        self._turns: deque[Hashable] = deque()
        self.forgotten: dict[str, float] = dict.fromkeys(self._counters, 0.0)
        # What every request asks: the state of a key, or None where nothing is known of it.
        self.find: Callable[[Hashable], S | None] = self._states.get

    def get(self, key: Hashable, now: float) -> S:
        """Return the state of a key."""
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= self._max:
                self._forget(now)
            state = self._states[key] = self._make(key, now)
            self._turns.append(key)
        return state

    def items(self) -> list[tuple[Hashable, S]]:
        """A copy of what there is; safe from any thread."""
        return list(self._states.items())

    def stats(self, figures: Callable[[S], F]) -> KeyedStats[F]:
        """Take a snapshot, from any thread.

        Args:
            figures: makes those of a state.
        """
        # In this order: a key that is forgotten meanwhile is missed this time, and not counted twice.
        forgotten = MappingProxyType(dict(self.forgotten))
        return KeyedStats(MappingProxyType({key: figures(state) for key, state in self.items()}), forgotten)

    def __len__(self) -> int:
        return len(self._states)

    def _forget(self, now: float) -> None:
        turns = self._turns
        for _ in range(min(_LOOKS, len(turns))):
            key = turns.popleft()
            state = self._states[key]
            if not state.is_idle(now):
                turns.append(key)  # the next look is at others
                continue
            del self._states[key]
            for name in self._counters:
                self.forgotten[name] += getattr(state, name)
