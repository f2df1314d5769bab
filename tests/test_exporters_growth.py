"""Growth: no sum of a label falls, and nothing is lost or counted twice, whatever becomes of the keys."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wirespeed.observe import growth
from wirespeed.observe.growth import OTHER, Growth

N = ("n", "")


def growth_of(max_labels: int | None) -> Growth[int]:
    return Growth(max_labels, lambda count: {N: count}, lambda count: count)


def sums(grown: Growth[int]) -> dict[str, float]:
    return {label: flows[N] for label, flows in grown.by_label.items()}


KEYS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.integers(0, 1), KEYS, st.integers(0, 5)),
        st.tuples(st.just("forget"), st.integers(0, 1), KEYS),
        st.tuples(st.just("look"), st.sampled_from(["01", "0", "1", ""])),
    ),
    max_size=60,
)


@settings(derandomize=True, deadline=None, database=None, max_examples=300)
@given(STEPS, st.sampled_from([None, 0, 2]))
def test_sums_never_fall_and_together_are_all_that_was_counted(
    steps: list[Any], max_labels: int | None
) -> None:
    grown = growth_of(max_labels)
    sources: list[dict[str, int]] = [{}, {}]
    forgotten = [0, 0]
    for what, *args in [*steps, ("look", "01")]:
        if what == "count":
            number, key, count = args
            sources[number][key] = sources[number].get(key, 0) + count
        elif what == "forget":
            number, key = args
            forgotten[number] += sources[number].pop(key, 0)
        else:
            seen = [number for number in (0, 1) if str(number) in args[0]]
            before = sums(grown)
            members = grown.update(
                {number: dict(sources[number]) for number in seen},
                {number: {N: forgotten[number]} for number in seen},
                {0, 1}.difference(seen),
            )
            after = sums(grown)
            assert all(after[label] >= value for label, value in before.items())
            keys = {key for number in seen for key in sources[number]}
            if max_labels is None:
                assert members.keys() - {OTHER} == keys
            else:
                assert len(members.keys() - {OTHER}) == min(max_labels, len(keys))
            assert sum(map(sum, members.values())) == sum(sum(sources[number].values()) for number in seen)
    assert sum(sums(grown).values()) == sum(forgotten) + sum(sum(source.values()) for source in sources)


def test_a_source_that_comes_back_is_not_counted_anew() -> None:
    grown = growth_of(None)
    grown.update({0: {"a": 5}})
    grown.update({}, absent=[0])
    assert grown.update({0: {"a": 7}}) == {"a": [7]}
    assert sums(grown) == {"a": 7}


@pytest.mark.parametrize("knows_forgotten", [False, True])
def test_a_key_that_starts_again_between_two_looks_is_counted_from_nothing(knows_forgotten: bool) -> None:
    grown = growth_of(None)
    grown.update({0: {"a": 5}}, {0: {N: 0}} if knows_forgotten else None)
    grown.update({0: {"a": 2}}, {0: {N: 6}} if knows_forgotten else None)
    assert sums(grown) == ({"a": 7, OTHER: 1} if knows_forgotten else {"a": 7})


def test_among_equals_the_label_stays() -> None:
    grown = growth_of(1)
    grown.update({0: {"b": 1}})
    assert grown.update({0: {"a": 1, "b": 1}}).keys() == {"b", OTHER}


def test_the_memory_of_labels_that_are_gone_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "GONE_LABELS", 3)
    grown = growth_of(1)
    for number in range(10):
        grown.update({0: {f"k{number}": 2, "quiet": 1}})
    assert sums(grown) == {"k6": 2, "k7": 2, "k8": 2, "k9": 2, OTHER: 1}


def test_there_is_no_other_while_there_is_nothing() -> None:
    grown = growth_of(0)
    assert grown.update({0: {"a": 1}}) == {OTHER: [1]}
    assert grown.update({}) == {}
    assert grown.update({0: {}}, {0: {N: 9}}) == {}
