"""The figures of traffic policies, as the exporters of all kinds show them.

A policy is known by what it has: a name, its metrics, and `stats()`, which may be called from any thread.
Nothing is installed in it, so that requests cost the same whether it is read or not.
"""

import enum
import itertools
import threading
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

from .growth import OTHER, Flows, Growth
from .reading import Watched

# The last word of the names of gauges that do not add up.
_NOT_SUMMED = frozenset({"seconds", "rate", "ratio"})


class MetricLike(Protocol):
    """A figure of a policy: its attribute in the statistics of a key, its name, kind and meaning."""

    @property
    def attribute(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Literal["counter", "gauge"]: ...

    @property
    def help(self) -> str: ...


class PolicyLike(Protocol):
    """What is needed of a single policy."""

    @property
    def name(self) -> str: ...

    @property
    def metrics(self) -> tuple[MetricLike, ...]: ...

    def stats(self) -> Any:
        """A snapshot; `by_key` has the figures of each key, `forgotten` the sums of those not kept."""


class PoliciesLike(Protocol):
    """What is needed of policies that are composed."""

    @property
    def parts(self) -> tuple[PolicyLike, ...]: ...

    def stats(self) -> Any:
        """A snapshot; it has those of the parts, by name, and `attempts` by key and outcome."""


MaybePolicies = PolicyLike | PoliciesLike


class PolicyMetric(NamedTuple):
    """A metric that is shown.

    Attributes:
        policy: the name of the policies that have it; "" for what is of policies that are composed.
        name: of the metric.
        kind: a counter only grows; a gauge is the state now.
        help: one sentence.
        part: what its parts are told apart by, where it has any.
    """

    policy: str
    name: str
    kind: Literal["counter", "gauge"]
    help: str
    part: str


ATTEMPTS = PolicyMetric("", "attempts", "counter", "Attempts at requests, by what they came to.", "outcome")

# The numbers of a figure, by label and part; the part is "" where there are none.
Values = dict[tuple[str, str], float]


class KeyFigures(NamedTuple):
    """The figures of a key of a policy, by name and part."""

    counters: Flows
    gauges: Flows


class _Source(NamedTuple):
    """What the policies of one name have told, by number of the policy."""

    by_number: dict[int, dict[str, KeyFigures]]
    forgotten: dict[int, Flows]


class PolicyReader:
    """The figures of all policies of an exporter, which are held weakly; safe to use from any thread.

    Policies that have name and key in common are summed.

    Args:
        max_labels: how many keys of each kind of policy get a label of their own; None for all.
    """

    def __init__(self, max_labels: int | None) -> None:
        self._max_labels = max_labels
        self._watched: Watched[MaybePolicies] = Watched()
        # What follows changes with each reading, under the lock.
        self._lock = threading.Lock()
        self._figures: dict[tuple[str, str], PolicyMetric] = {}
        self._growth: dict[str, Growth[KeyFigures]] = {}
        # A policy keeps its number for as long as it lives, whatever it is a part of.
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._next = itertools.count()

    def add(self, policies: MaybePolicies) -> None:
        """Read these too; once is enough.

        Raises:
            TypeError: they are no policies.
        """
        parts = _parts_of(policies)
        figures = [] if parts is None else [ATTEMPTS]
        singles: tuple[Any, ...] = (policies,) if parts is None else parts
        for part in singles:
            if not all(hasattr(part, name) for name in ("name", "metrics", "stats")):
                raise TypeError(f"Expected policies of wirespeed's, got {policies!r}")
            figures += [_figure_of(part.name, metric) for metric in part.metrics]
        with self._lock:
            for policy in (policies, *singles):
                self._number_of(policy)  # refuses now what cannot be held weakly
            for figure in figures:
                # Of policies with the same name the first says what kind a metric is of.
                self._figures.setdefault((figure.policy, figure.name), figure)
        self._watched.add(policies)

    def discard(self, policies: MaybePolicies) -> None:
        """Do not read these any more; a part of them that is part of others is read for these."""
        self._watched.discard(policies)

    def known(self) -> list[PolicyMetric]:
        """The figures of all policies that were ever added, always in the same order; reads nothing."""
        with self._lock:
            return sorted(self._figures.values())

    def read(self) -> dict[PolicyMetric, Values]:
        """Take the figures of the policies that are still there."""
        with self._lock:
            found: dict[PolicyMetric, Values] = {figure: {} for figure in sorted(self._figures.values())}
            for name, source in self._read_sources().items():
                if name not in self._growth:
                    self._growth[name] = Growth(self._max_labels, _counters_of, _activity_of)
                growth = self._growth[name]
                absent = set(self._numbers.values()).difference(source.by_number)
                members = growth.update(source.by_number, source.forgotten, absent)
                for label, figures in members.items():
                    for numbers in (growth.by_label[label], _gauges_of(label, figures)):
                        for (metric, part), value in numbers.items():
                            found[self._figures[name, metric]][label, str(part)] = value
            return found

    def _read_sources(self) -> dict[str, _Source]:
        """Read each policy once, of however many it is a part; by name."""
        sources = {name: _Source({}, {}) for name in self._growth}
        for ref in self._watched.refs.values():
            policies: Any = ref()
            if policies is None:
                continue
            stats, parts = policies.stats(), _parts_of(policies)
            if parts is None:
                self._take(sources, policies, stats)
                continue
            source = sources.setdefault(ATTEMPTS.policy, _Source({}, {}))
            attempts = ((key, _attempts_of(counts)) for key, counts in stats.attempts.items())
            number = self._number_of(policies)
            source.by_number[number] = _by_label(attempts)
            source.forgotten[number] = _attempts_of(getattr(stats, "forgotten", {})).counters
            for part in parts:
                self._take(sources, part, getattr(stats, part.name))
        return sources

    def _take(self, sources: dict[str, _Source], policy: PolicyLike, stats: Any) -> None:
        """Take what a policy has told."""
        source = sources.setdefault(policy.name, _Source({}, {}))
        number = self._number_of(policy)
        source.by_number[number] = _by_label(_figures_of(stats.by_key, policy.metrics))
        forgotten: Mapping[str, float] | None = getattr(stats, "forgotten", None)
        if forgotten is not None:
            source.forgotten[number] = {
                (metric.name, ""): forgotten[metric.attribute]
                for metric in policy.metrics
                if metric.attribute in forgotten
            }

    def _number_of(self, policy: object) -> int:
        number = self._numbers.get(policy)
        if number is None:
            number = self._numbers[policy] = next(self._next)
        return number


def _parts_of(policies: Any) -> tuple[Any, ...] | None:
    """The parts of policies that are composed; None of a single one."""
    parts: tuple[Any, ...] | None = getattr(policies, "parts", None)
    return parts


def _figure_of(policy: str, metric: MetricLike) -> PolicyMetric:
    return PolicyMetric(policy, metric.name, metric.kind, metric.help, metric.name)


def _counters_of(figures: KeyFigures) -> Flows:
    return figures.counters


def _activity_of(figures: KeyFigures) -> float:
    return sum(figures.counters.values())


def _attempts_of(counts: Mapping[Any, int]) -> KeyFigures:
    return KeyFigures({(ATTEMPTS.name, outcome.name.lower()): n for outcome, n in counts.items()}, {})


def _figures_of(
    by_key: Mapping[Hashable, Any], metrics: Iterable[MetricLike]
) -> Iterator[tuple[Hashable, KeyFigures]]:
    """Take apart what a policy tells of each key. A gauge that is None now is left out."""
    counters: list[tuple[tuple[str, str], str]] = []
    gauges: list[tuple[tuple[str, str], str]] = []
    for metric in metrics:
        (counters if metric.kind == "counter" else gauges).append(((metric.name, ""), metric.attribute))
    for key, told in by_key.items():
        found: Flows = {}
        for name, attribute in gauges:
            value = getattr(told, attribute)
            if isinstance(value, enum.Enum):
                for state in type(value):
                    found[name[0], state.name.lower()] = int(state is value)
            elif value is not None:
                found[name] = value
        yield key, KeyFigures({name: getattr(told, attribute) for name, attribute in counters}, found)


def _by_label(found: Iterable[tuple[Hashable, KeyFigures]]) -> dict[str, KeyFigures]:
    """Put keys that read the same together."""
    by_label: dict[str, KeyFigures] = {}
    for key, figures in found:
        label = str(key)
        if label in by_label:
            known = by_label[label]
            for name, count in figures.counters.items():
                known.counters[name] = known.counters.get(name, 0) + count
            figures = KeyFigures(known.counters, _gauges_of(label, [known, figures]))
        by_label[label] = figures
    return by_label


def _gauges_of(label: str, members: Iterable[KeyFigures]) -> Flows:
    """Combine the gauges of keys that have a label in common."""
    found: Flows = {}
    for figures in members:
        for (name, part), value in figures.gauges.items():
            known = found.get((name, part))
            if name.rpartition("_")[2] not in _NOT_SUMMED:
                found[name, part] = value + (known or 0)
            elif label != OTHER:
                found[name, part] = value if known is None else max(known, value)
    return found
