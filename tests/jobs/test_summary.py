"""Figures of a job, added up in whatever pieces."""

import json
import pickle
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wirespeed.jobs.errors import JobError
from wirespeed.jobs.lines import Line
from wirespeed.jobs.records import decode, encode, encode_bad
from wirespeed.jobs.summary import SHOWN_MAX, Summary

from .samples import line, result

errors = st.sampled_from([None, TimeoutError("slow"), OSError("gone")])
outcomes = st.tuples(
    st.sampled_from([200, 204, 404, 503]), errors, st.integers(1, 3), st.floats(0, 1e7), st.binary(max_size=9)
)


def noted(outcomes: list[Any]) -> Summary:
    summary = Summary()
    for status, error, attempts, elapsed, body in outcomes:
        got = result(
            line(),
            None if error else status,
            b"" if error else body,
            error=error,
            attempts=attempts,
            elapsed=elapsed,
        )
        summary.note(got)
    return summary


@settings(max_examples=30, deadline=None)  # the histogram is Python
@given(st.lists(st.lists(outcomes, max_size=8), max_size=4))
def test_pieces_add_up_to_the_whole(pieces: list[list[Any]]) -> None:
    whole = noted([outcome for piece in pieces for outcome in piece])
    total = Summary()
    for piece in pieces:
        total.merge(pickle.loads(pickle.dumps(noted(piece))))
    assert total.as_dict() == whole.as_dict()


@settings(max_examples=30, deadline=None)  # the histogram is Python
@given(st.lists(outcomes, max_size=8))
def test_records_give_the_same_figures_as_results(outcomes: list[Any]) -> None:
    before, after = Summary(), Summary()
    for number, (status, error, attempts, elapsed, body) in enumerate(outcomes, 1):
        asked = line(number)
        got = result(asked, status, body, error=error, attempts=attempts, elapsed=round(elapsed, 6))
        before.note(got)
        record = decode(encode(asked, got))
        assert record is not None
        after.note_record(record)
    before.note_bad(99, "no host")
    bad = decode(encode_bad(Line(99, None, "no host")))
    assert bad is not None
    after.note_record(bad)
    assert after.as_dict() == before.as_dict()
    assert after.bad_lines == before.bad_lines == [(99, "no host")]


@settings(max_examples=30, deadline=None)  # the histogram is Python
@given(st.lists(st.floats(0, 4000), min_size=1, max_size=50))
def test_quantiles_are_right_to_three_digits(times: list[float]) -> None:
    summary = noted([(200, None, 1, elapsed, b"") for elapsed in times])
    latency = summary.as_dict()["latency"]
    assert latency["max"] == pytest.approx(max(times), rel=2e-3, abs=2e-6)
    assert latency["mean"] == pytest.approx(sum(times) / len(times), rel=2e-3, abs=2e-6)
    assert latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]


def test_what_failed_is_counted_by_what_it_was() -> None:
    summary = noted(
        [
            (200, None, 1, 0.5, b"12345"),
            (404, None, 1, 0.5, b"no"),
            (None, TimeoutError(), 3, 9.0, b""),
        ]
    )
    for number in range(1, 20):
        summary.note_bad(number, "no host")
    summary.seconds = 2.0
    found = json.loads(json.dumps(summary.as_dict()))
    assert (found["done"], found["ok"], found["failed"], found["bad_lines"]) == (22, 1, 21, 19)
    assert found["statuses"] == {"200": 1, "404": 1}
    assert found["errors"] == {"BadLine": 19, "TimeoutError": 1}
    assert (found["bytes"], found["attempts"], found["requests_per_second"]) == (7, 5, 11.0)
    assert summary.bad_lines == [(number, "no host") for number in range(1, SHOWN_MAX + 1)]


def test_nothing_at_all_has_figures_too() -> None:
    found = Summary().as_dict()
    assert (found["done"], found["requests_per_second"], found["latency"]["max"]) == (0, 0.0, 0.0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(JobError, match=r"hdrhistogram is missing: pip install 'wirespeed\[cli\]'"):
        Summary().as_dict()


def test_it_is_small_however_many_there_were() -> None:
    summary = noted([(200, None, 1, 1.001**number / 1e6, b"") for number in range(25_000)])
    assert len(pickle.dumps(summary)) < 250_000
