"""A set of numbers, in bits."""

import pickle

from hypothesis import given
from hypothesis import strategies as st

from wirespeed.jobs.lineset import LineSet


@given(st.lists(st.integers(0, 5000)), st.sets(st.integers(0, 5100)))
def test_it_is_a_set(numbers: list[int], others: set[int]) -> None:
    found, wanted = LineSet(), set[int]()
    for number in numbers:
        assert found.add(number) == (number not in wanted)
        wanted.add(number)
    for each in (found, pickle.loads(pickle.dumps(found))):
        assert list(each) == sorted(wanted)
        assert len(each) == len(wanted)
        assert {number for number in others if number in each} == others & wanted


def test_a_million_lines_take_an_eighth_of_their_number_in_bytes() -> None:
    lines = LineSet()
    for number in range(0, 1_000_000, 3):
        lines.add(number)
    assert len(pickle.dumps(lines)) < 150_000
