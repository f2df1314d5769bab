"""Sliding windows, against lists that are counted anew each time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.policy.windows import FAILED, SLICES, SLOW, CountWindow, TimeWindow, Window

flags = st.sampled_from([0, FAILED, SLOW, FAILED | SLOW])


def recount(calls: list[int]) -> tuple[int, int, int]:
    return len(calls), sum(call & FAILED for call in calls), sum(bool(call & SLOW) for call in calls)


def figures(window: Window) -> tuple[int, int, int]:
    return window.total, window.failures, window.slow


@given(st.lists(flags, max_size=60), st.integers(1, 20))
def test_window_of_calls_has_the_last_ones(calls: list[int], size: int) -> None:
    window = CountWindow(size)
    for n, call in enumerate(calls, 1):
        window.record(call, 0.0)
        assert figures(window) == window.figures(1e9) == recount(calls[:n][-size:])


@given(
    st.lists(
        st.tuples(flags, st.floats(0, 3) | st.sampled_from([0.0, 1.0, 9.0, 10.0, 11.0, 1e6])), max_size=60
    ),
    st.floats(0, 30),
    st.sampled_from([1.0, 10.0, 0.7]),
    st.sampled_from([0.0, 1000.0, -7.3]),
)
def test_window_of_seconds_has_those_of_its_ten_slices(
    steps: list[tuple[int, float]], later: float, seconds: float, now: float
) -> None:
    window = TimeWindow(seconds)
    width = seconds / SLICES
    seen: list[tuple[float, int]] = []

    def alive() -> tuple[int, int, int]:
        return recount([call for at, call in seen if now // width - at // width < SLICES])

    for call, passed in steps:
        now += passed
        seen.append((now, call))
        window.record(call, now)
        assert figures(window) == window.figures(now) == alive()
    before = figures(window)
    now += later
    assert window.figures(now) == alive()
    assert figures(window) == before


def test_time_that_goes_back_counts_for_the_newest_slice() -> None:
    window = TimeWindow(10)
    window.record(FAILED, 100.0)
    window.record(FAILED, 93.0)
    assert window.figures(109.9) == (2, 2, 0)
    assert window.figures(110.0) == (0, 0, 0)


@pytest.mark.parametrize("window", [CountWindow(5), TimeWindow(5)])
def test_new_window_is_empty(window: Window) -> None:
    assert window.figures(0.0) == (0, 0, 0)
