"""The moving quantile, against the sorted measurements themselves."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.policy.quantiles import HIGHEST, LOWEST, RELATIVE_ERROR, MovingQuantile

seconds = st.floats(min_value=LOWEST, max_value=HIGHEST)


def exact(values: list[float], quantile: float) -> float:
    return sorted(values)[max(1, math.ceil(quantile * len(values) - 1e-9)) - 1]


def near(value: float) -> object:
    # The last bits of the logarithm may put a measurement on a bound into the bucket next to it.
    return pytest.approx(value, rel=RELATIVE_ERROR + 1e-9)


def fill(estimate: MovingQuantile, value: float, count: int, now: float = 0.0) -> None:
    for _ in range(count):
        estimate.record(value, now)


@given(values=st.lists(seconds, min_size=1, max_size=200), quantile=st.floats(0.01, 0.99))
def test_quantile_is_within_the_relative_error(values: list[float], quantile: float) -> None:
    estimate = MovingQuantile(quantile)
    for value in values:
        estimate.record(value, 0.0)
    assert estimate.at(quantile) == near(exact(values, quantile))


@given(st.lists(seconds, min_size=1, max_size=400), st.integers(1, 50))
def test_value_is_of_all_measurements_as_of_at_most_sixteen_ago(values: list[float], least: int) -> None:
    estimate = MovingQuantile(0.9, min_samples=least)
    asof = None
    for n, value in enumerate(values, 1):
        if estimate.record(value, 0.0):
            asof = n
        if asof is None:
            assert n < least
            assert estimate.value is None
        else:
            assert n - asof < 32
            assert estimate.value == near(exact(values[:asof], 0.9))


@pytest.mark.parametrize(
    ("value", "counted_as"),
    [
        (0.0, LOWEST),
        (-1.0, LOWEST),
        (LOWEST, LOWEST),
        (HIGHEST, HIGHEST),
        (1e9, HIGHEST),
        (math.inf, HIGHEST),
    ],
)
def test_what_is_out_of_range_counts_as_the_bound(value: float, counted_as: float) -> None:
    estimate = MovingQuantile(0.5)
    estimate.record(value, 0.0)
    assert estimate.at(0.5) == pytest.approx(counted_as, rel=2 * RELATIVE_ERROR)


def test_nan_is_refused_and_not_counted() -> None:
    estimate = MovingQuantile(0.5)
    with pytest.raises(ValueError, match="NaN"):
        estimate.record(math.nan, 0.0)
    assert len(estimate) == 0


def test_nothing_is_said_without_measurements() -> None:
    estimate = MovingQuantile(0.5)
    assert estimate.value is None
    assert estimate.at(0.5) is None


def test_measurements_older_than_two_generations_are_dropped() -> None:
    estimate = MovingQuantile(0.5, min_samples=1, generation=100)
    fill(estimate, 1.0, 100)
    fill(estimate, 0.1, 100)
    assert estimate.at(0.99) == near(1.0)
    fill(estimate, 0.1, 1)
    assert estimate.at(0.99) == near(0.1)
    assert len(estimate) == 101


@given(st.lists(seconds, min_size=1, max_size=150))
def test_it_is_of_the_last_one_to_two_generations(values: list[float]) -> None:
    estimate = MovingQuantile(0.5, min_samples=1, generation=30)
    for value in values:
        estimate.record(value, 0.0)
    assert min(len(values), 30) <= len(estimate) <= 60
    assert estimate.at(0.5) == near(exact(values[-len(estimate) :], 0.5))


def test_a_generation_ends_with_its_time() -> None:
    estimate = MovingQuantile(0.5, min_samples=10, seconds=60)
    fill(estimate, 1.0, 10, now=0.0)
    fill(estimate, 0.1, 10, now=60.0)
    assert estimate.at(0.99) == near(1.0)
    fill(estimate, 0.1, 10, now=119.0)
    assert len(estimate) == 30
    fill(estimate, 0.1, 1, now=120.0)
    assert estimate.at(0.99) == near(0.1)
    assert len(estimate) == 21


def test_where_little_is_measured_old_measurements_are_kept_until_there_are_enough_new_ones() -> None:
    estimate = MovingQuantile(0.5, min_samples=10, seconds=60)
    fill(estimate, 1.0, 10, now=0.0)
    for n in range(19):
        estimate.record(0.1, 1000.0 * (n + 1))
    assert len(estimate) >= 10
    fill(estimate, 0.1, 2, now=1e6)
    assert estimate.at(0.99) == near(0.1)
    assert len(estimate) >= 10


def test_time_that_goes_back_does_no_harm() -> None:
    estimate = MovingQuantile(0.5, min_samples=1, generation=10)
    for n in range(100):
        estimate.record(0.1, -float(n))
    assert estimate.at(0.5) == near(0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quantile": 0.0}, "quantile must be between 0 and 1, got 0"),
        ({"quantile": 1.0}, "quantile must be between 0 and 1, got 1"),
        ({"quantile": math.nan}, "quantile must be between 0 and 1, got nan"),
        ({"min_samples": 0}, "min_samples must be positive, got 0"),
        ({"generation": 0}, "generation must be positive, got 0"),
        ({"seconds": 0.0}, "seconds must be positive, got 0"),
    ],
)
def test_impossible_figures_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MovingQuantile(**{"quantile": 0.5, **given})  # type: ignore[arg-type]
