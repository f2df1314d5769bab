"""Snapshots of the pool's figures, timings and what is told of connections: values, without a pool."""

import copy
import dataclasses
import json
import pickle
from types import MappingProxyType
from typing import Any

import pytest

import wirespeed
from wirespeed.observe import CloseReason, ConnectionInfo, Histogram, PoolStats, Spread, Timings
from wirespeed.observe.stats import WAIT_BOUNDS

STATS = PoolStats(
    in_use=2,
    idle=3,
    created=7,
    closed={CloseReason.IDLE_EOF: 2},
    waits=Histogram(2, 0.5, 0.4, counts=(0,) * 7 + (2,) + (0,) * 8),
    dials=Spread(4, 2.0, 1.0),
    learned_keepalive=4.5,
)
AGAIN = [copy.copy, copy.deepcopy, *(lambda x, n=n: pickle.loads(pickle.dumps(x, n)) for n in range(2, 6))]


def test_nothing_is_all_zeros() -> None:
    stats = PoolStats()
    assert (stats.open, stats.closed, stats.waits.count, stats.dials.mean) == (0, {}, 0, 0.0)
    assert stats.learned_keepalive is None
    assert stats == PoolStats()


def test_open_is_in_use_and_idle() -> None:
    assert STATS.open == 5


def test_mean_is_of_what_happened() -> None:
    assert Spread(4, 2.0, 1.0).mean == 0.5
    assert Histogram().mean == 0.0


def test_buckets_are_one_more_than_their_bounds() -> None:
    assert len(Histogram().counts) == len(Histogram().bounds) + 1 == len(WAIT_BOUNDS) + 1
    assert list(WAIT_BOUNDS) == sorted(set(WAIT_BOUNDS))


@pytest.mark.parametrize("value", [STATS, STATS.waits, STATS.dials], ids=lambda value: type(value).__name__)
def test_snapshot_cannot_be_changed(value: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.count = 5


def test_reasons_of_a_snapshot_are_a_copy_that_cannot_be_changed() -> None:
    counted = {CloseReason.LOST: 1}
    stats = PoolStats(closed=MappingProxyType(counted))
    counted[CloseReason.LOST] = 9
    assert stats.closed == {CloseReason.LOST: 1}
    with pytest.raises(TypeError):
        stats.closed[CloseReason.LOST] = 2  # type: ignore[index]


@pytest.mark.parametrize("again", AGAIN, ids=["copy", "deepcopy", *(f"pickle {n}" for n in range(2, 6))])
def test_snapshot_goes_to_other_processes(again: Any) -> None:
    other = again(STATS)
    assert other == STATS
    assert type(other.closed) is MappingProxyType
    assert list(other.closed) == [CloseReason.IDLE_EOF]
    assert {STATS: 1}[other] == 1


def test_replaced_field_leaves_the_rest() -> None:
    assert dataclasses.replace(STATS, idle=0) == dataclasses.replace(copy.copy(STATS), idle=0)


def test_figures_as_plain_values_are_json() -> None:
    plain = json.loads(json.dumps(STATS.as_dict()))
    assert plain["open"] == 5
    assert plain["closed"] == {"idle_eof": 2}
    assert plain["dials"] == {"count": 4, "total": 2.0, "max": 1.0, "mean": 0.5}
    assert plain["waits"]["bounds"] == list(WAIT_BOUNDS)
    assert plain["learned_keepalive"] == 4.5
    assert plain.keys() == {field.name for field in dataclasses.fields(PoolStats)} | {"open"}


def test_reasons_have_names_and_say_what_they_mean() -> None:
    assert [reason.value for reason in CloseReason] == list(range(len(CloseReason)))
    assert CloseReason["MAX_AGE"] is CloseReason.MAX_AGE
    assert CloseReason.MAX_AGE.name.lower() == "max_age"


@pytest.mark.skipif(not wirespeed.NATIVE, reason="the core has the other half")
def test_reasons_are_numbered_as_in_the_core() -> None:
    from wirespeed._core.exchange import CloseReason as OfTheCore

    assert {reason.name: int(reason) for reason in OfTheCore} == {
        reason.name: int(reason) for reason in CloseReason
    }


@pytest.mark.skipif(not wirespeed.NATIVE, reason="the core has the other half")
def test_bounds_of_the_waits_are_those_of_the_core() -> None:
    from wirespeed._core import figures

    assert figures.WAIT_BOUNDS == WAIT_BOUNDS


# Timings

WHOLE = Timings(queue=0.1, dns=0.2, connect=0.3, tls=0.4, send=0.5, first_byte=0.6, body=0.7)


def test_total_is_the_sum_of_the_stages() -> None:
    assert WHOLE.total == pytest.approx(2.8)


@pytest.mark.parametrize("stage", ["send", "first_byte", "body"])
def test_there_is_no_total_before_the_end(stage: str) -> None:
    assert dataclasses.replace(WHOLE, **{stage: None}).total is None


def test_stages_that_took_no_time_count() -> None:
    assert Timings(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0).total == 0.0


def test_timings_and_connections_are_values() -> None:
    info = ConnectionInfo(True, 1.0, 2.0, 3, ("127.0.0.1", 5), "/run/sock", "TLSv1.3", None)
    for value in (WHOLE, info):
        assert pickle.loads(pickle.dumps(value)) == copy.copy(value) == value
        assert hash(value) == hash(copy.copy(value))
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.queue = 1  # type: ignore[union-attr]
