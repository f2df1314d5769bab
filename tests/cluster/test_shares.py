"""The rate, divided: never more than there is, and all of it while there is work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirespeed.cluster.shares import LEAST, Shares

RATES = st.floats(0.01, 1e6)
SLOTS = st.integers(1, 64)


def test_without_a_rate_there_is_nothing_to_divide() -> None:
    shares = Shares(None, 3)
    assert shares.slots == 3
    assert shares.next(3) is None
    assert shares.take(1, None) is None
    assert shares.is_free


def test_shares_of_shards_that_begin_together_are_equal() -> None:
    shares = Shares(100, 4)
    assert [shares.take(owner, shares.next(4 - owner)) for owner in range(4)] == [25.0] * 4
    assert not shares.is_free


def test_a_share_that_comes_back_goes_to_the_next() -> None:
    shares = Shares(100, 2)
    shares.take(1, shares.next(2))
    shares.take(2, shares.next(1))
    shares.give_back(1)
    assert shares.take(3, shares.next(1)) == 50.0


def test_the_last_shard_has_all_that_is_free() -> None:
    shares = Shares(100, 4)
    shares.take(1, shares.next(4))
    assert shares.take(2, shares.next(1)) == 75.0


@pytest.mark.parametrize(("rate", "slots"), [(0.5, 1), (1, 1), (3.9, 3), (100, 8)])
def test_a_small_rate_runs_fewer_shards(rate: float, slots: int) -> None:
    assert Shares(rate, 8).slots == slots


def test_more_than_is_free_cannot_be_taken() -> None:
    shares = Shares(10, 2)
    shares.take(1, 6.0)
    with pytest.raises(ValueError, match="are free, not 6"):
        shares.take(2, 6.0)
    with pytest.raises(ValueError, match="already"):
        shares.take(1, 1.0)


@given(RATES, SLOTS, st.lists(st.tuples(st.booleans(), st.integers(0, 99)), max_size=200))
def test_the_sum_is_never_above_the_rate_and_all_of_it_when_all_slots_are_busy(
    rate: float, slots: int, steps: list[tuple[bool, int]]
) -> None:
    shares = Shares(rate, slots)
    out: dict[int, float] = {}
    for owner, (begins, which) in enumerate(steps):
        if begins and len(out) < shares.slots and shares.is_free:
            room = shares.slots - len(out)
            share = shares.take(owner, shares.next(room))
            assert share is not None
            assert share > 0
            out[owner] = share
        elif out and not begins:
            gone = sorted(out)[which % len(out)]
            shares.give_back(gone)
            del out[gone]
        assert sum(out.values()) <= rate * (1 + 1e-9)
        if len(out) == shares.slots:
            assert sum(out.values()) == pytest.approx(rate)


@given(RATES, SLOTS)
def test_no_share_of_a_full_crew_is_below_the_least(rate: float, slots: int) -> None:
    shares = Shares(rate, slots)
    for owner in range(shares.slots):
        share = shares.take(owner, shares.next(shares.slots - owner))
        assert share is not None
        assert share >= min(LEAST, rate) * (1 - 1e-9)
