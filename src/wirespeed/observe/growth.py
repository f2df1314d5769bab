"""Sums of counters by label, which never fall, whatever becomes of what they are the sums of.

Sums of the figures as they are would fall when a key changes its label, is forgotten, or when one of several
sources is gone; and a counter that falls counts as a restart: rate() would take all that is left for new. So
what is added up is growth. Used by the exporters; knows nothing of theirs.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Generic, TypeVar

S = TypeVar("S")

# What only grows, by name and what it is of it (a reason, a bucket, a sum): one number each.
Flows = dict[tuple[str, str | int], float]

# The label of the keys that have none of their own. No origin is called so: they have schemes.
OTHER = "other"
# Labels whose sums are remembered after their keys were forgotten: who is met again goes on from there.
GONE_LABELS = 1000


class Growth(Generic[S]):
    """What has flowed under each label so far.

    Sources (connectors, policies) have numbers and tell figures by key. What several of them tell of a key is
    one. Each key is a label, up to `max_labels` of them: the busiest; the others share the label OTHER. Who
    becomes one of the busiest goes on under the own label from there.

    Args:
        max_labels: how many keys get a label of their own; None for all.
        flows_of: the counters of a key's figures.
        activity_of: how busy a key is, by its figures.

    Attributes:
        by_label: the sums; among them are some of labels that no key has now.
    """

    def __init__(
        self, max_labels: int | None, flows_of: Callable[[S], Flows], activity_of: Callable[[S], float]
    ) -> None:
        self._max_labels = max_labels
        self._flows_of = flows_of
        self._activity_of = activity_of
        self._last: dict[int, Mapping[str, S]] = {}
        self._counted: dict[int, Flows] = {}  # by source, under whatever label
        self._labelled: set[str] = set()
        self.by_label: dict[str, Flows] = {}

    def update(
        self,
        now: Mapping[int, Mapping[str, S]],
        forgotten: Mapping[int, Flows] | None = None,
        absent: Collection[int] = (),
    ) -> dict[str, list[S]]:
        """Add what happened since the last time to the labels that are shown now.

        Args:
            now: figures by source and key.
            forgotten: sums of the counters of a source's forgotten keys, where it knows them.
            absent: sources that are left out this time, but may tell more later.

        Returns:
            The figures of the keys of each label. OTHER may have none, and still have sums.
        """
        labels = self._choose_labels(now)
        for number, by_key in now.items():
            last = self._last.get(number, {})
            for key, figures in by_key.items():
                self._add(number, labels[key], figures, last.get(key))
        for number, flows in (forgotten or {}).items():
            self._add_unseen(number, now[number].values(), flows)
        kept = {*now, *absent}
        self._last = {number: self._last[number] for number in absent if number in self._last} | dict(now)
        self._counted = {number: flows for number, flows in self._counted.items() if number in kept}
        self._forget_labels({*labels, OTHER})
        members: dict[str, list[S]] = {OTHER: []} if labels and OTHER in self.by_label else {}
        for by_key in now.values():
            for key, figures in by_key.items():
                members.setdefault(labels[key], []).append(figures)
        return members

    def _choose_labels(self, now: Mapping[int, Mapping[str, S]]) -> dict[str, str]:
        """Map each key to its label."""
        activity: dict[str, float] = {}
        for by_key in now.values():
            for key, figures in by_key.items():
                activity[key] = activity.get(key, 0) + self._activity_of(figures)
        if self._max_labels is None:
            return {key: key for key in activity}
        # Among equals who has a label keeps it.
        ranked = sorted(activity, key=lambda key: (-activity[key], key not in self._labelled, key))
        self._labelled = set(ranked[: self._max_labels])
        return {key: key if key in self._labelled else OTHER for key in ranked}

    def _add(self, number: int, label: str, figures: S, before: S | None) -> None:
        grown = self.by_label.setdefault(label, {})
        if figures == before and grown:
            return
        counted = self._counted.setdefault(number, {})
        old = self._flows_of(before) if before is not None else {}
        for name, value in self._flows_of(figures).items():
            least = old.get(name, 0)
            # Less than before: the source had forgotten the key, and met it again.
            more = value - least if value >= least else value
            grown[name] = grown.get(name, 0) + more
            counted[name] = counted.get(name, 0) + more

    def _add_unseen(self, number: int, kept: Iterable[S], forgotten: Flows) -> None:
        """Add to OTHER what keys have counted after they were last seen, or that were never seen.

        A snapshot that was taken while a key was being forgotten may have it twice, or not at all; what was
        counted too much then is what is not counted later.
        """
        if not any(forgotten.values()):
            return
        counted = self._counted.setdefault(number, {})
        unseen = {name: value - counted.get(name, 0) for name, value in forgotten.items()}
        for figures in kept:
            for name, value in self._flows_of(figures).items():
                if name in unseen:
                    unseen[name] += value
        for name, more in unseen.items():
            if more > 0:
                other = self.by_label.setdefault(OTHER, {})
                other[name] = other.get(name, 0) + more
                counted[name] = counted.get(name, 0) + more

    def _forget_labels(self, known: Collection[str]) -> None:
        """Keep the memory of labels that are not in use bounded; those that were met first go first."""
        gone = [label for label in self.by_label if label not in known]
        for label in gone[: max(0, len(gone) - GONE_LABELS)]:
            del self.by_label[label]
