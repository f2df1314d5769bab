"""A policy that tells what a test has it tell: what exporters see of one."""

import dataclasses
import enum
from types import SimpleNamespace
from typing import Any

from wirespeed.policy import Metric


class State(enum.IntEnum):
    CALM = 0
    TENSE = 1


@dataclasses.dataclass(frozen=True)
class Told:
    passed: int = 0
    waited: float = 0.0
    in_use: float = 0
    delay_seconds: float | None = None
    state: State = State.CALM


@dataclasses.dataclass(frozen=True)
class ToldStats:
    by_key: dict[Any, Told]
    forgotten: dict[str, float]


class FakePolicy:
    """Figures by key, to be changed by the test."""

    metrics = (
        Metric("passed", "passed", "counter", "Attempts that passed."),
        Metric("waited", "waited_seconds", "counter", "Seconds that they waited."),
        Metric("in_use", "in_use", "gauge", "Attempts under way."),
        Metric("delay_seconds", "delay_seconds", "gauge", "Seconds that the next one waits."),
        Metric("state", "state", "gauge", "The state of the key."),
    )

    def __init__(self, name: str = "fake", **passed: int) -> None:
        self.name = name
        self.by_key: dict[Any, Told] = {key: Told(count) for key, count in passed.items()}
        self.forgotten = {"passed": 0.0, "waited": 0.0}
        self.reads = 0

    def set(self, key: Any, **figures: Any) -> None:
        """Change some figures of a key."""
        self.by_key[key] = dataclasses.replace(self.by_key.get(key, Told()), **figures)

    def forget(self, key: Any) -> None:
        """Keep a key no more."""
        told = self.by_key.pop(key)
        self.forgotten["passed"] += told.passed
        self.forgotten["waited"] += told.waited

    def stats(self) -> ToldStats:
        self.reads += 1
        return ToldStats(dict(self.by_key), dict(self.forgotten))


class FakePolicies:
    """Policies that are composed; `attempts` by key and outcome."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self.attempts: dict[Any, dict[Any, int]] = {}

    def stats(self) -> Any:
        attempts = {key: dict(counts) for key, counts in self.attempts.items()}
        return SimpleNamespace(attempts=attempts, **{part.name: part.stats() for part in self.parts})
