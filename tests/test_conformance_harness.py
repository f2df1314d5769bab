"""The comparison of two runs of aiohttp's tests sees a difference where there is one, and says so."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conformance.known import KNOWN
from conformance.report import show, write_junit
from conformance.results import Comparison, Results, RunBroken, plain_id
from conformance.suite import GROUPS


def results(**outcomes: str) -> Results:
    found = Results()
    for name, outcome in outcomes.items():
        found.add(f"tests/test_a.py::test_{name}[pyloop]", outcome, "", "pyloop")
    return found


def compare(theirs: Results, ours: Results, *known: str, **more: Any) -> Comparison:
    return Comparison(theirs, ours, {f"test_a.py::test_{name}": "a reason" for name in known}, **more)


def test_runs_that_agree_are_good() -> None:
    comparison = compare(
        results(a="passed", b="skipped", c="failed"), results(a="passed", b="skipped", c="failed")
    )
    assert comparison.is_good
    assert comparison.others == []
    assert comparison.counts(comparison.aiohttp.tests) == (1, 1, 0, 0)


@pytest.mark.parametrize("outcome", ["failed", "skipped", "xfailed"])
def test_test_that_passes_on_aiohttp_only_is_a_difference(outcome: str) -> None:
    comparison = compare(results(a="passed"), results(a=outcome))
    assert comparison.unexplained == ["test_a.py::test_a"]
    assert not comparison.is_good


def test_test_that_is_missing_is_a_difference() -> None:
    assert compare(results(a="passed", b="passed"), results(a="passed")).unexplained == ["test_a.py::test_b"]


def test_known_difference_is_good_and_counted() -> None:
    comparison = compare(results(a="passed", b="passed"), results(a="failed", b="passed"), "a")
    assert comparison.is_good
    assert comparison.counts(comparison.aiohttp.tests) == (2, 1, 1, 0)


def test_known_difference_that_is_gone_is_not_good() -> None:
    comparison = compare(results(a="passed"), results(a="passed"), "a")
    assert comparison.stale == ["test_a.py::test_a"]
    assert not comparison.is_good


def test_known_difference_of_a_test_that_was_not_run_does_not_count() -> None:
    assert compare(results(a="passed"), results(a="passed"), "b").is_good


def test_test_that_passes_when_run_again_is_no_difference() -> None:
    rerun = frozenset({"test_a.py::test_a"})
    comparison = compare(results(a="passed"), results(a="failed"), rerun=rerun)
    assert comparison.is_good
    assert comparison.counts(comparison.aiohttp.tests) == (1, 1, 0, 0)


def test_what_does_not_pass_on_aiohttp_is_noted_only() -> None:
    comparison = compare(results(a="failed"), results(a="passed"))
    assert comparison.is_good
    assert comparison.others == ["test_a.py::test_a"]


def test_worst_phase_of_a_test_is_its_outcome() -> None:
    found = results(a="passed")
    found.add("tests/test_a.py::test_a[pyloop]", "failed", "at teardown", "pyloop")
    found.add("tests/test_a.py::test_a[pyloop]", "passed", "", "pyloop")
    assert found.tests["test_a.py::test_a"].text == "at teardown"


@pytest.mark.parametrize(
    ("node_id", "name"),
    [
        ("tests/test_a.py::test_a[pyloop]", "test_a.py::test_a"),
        ("tests/test_a.py::test_a[pyloop-1-x]", "test_a.py::test_a[1-x]"),
        ("tests/test_a.py::TestA::test_a[x]", "test_a.py::TestA::test_a[x]"),
    ],
)
def test_ids_do_not_name_the_loop(node_id: str, name: str) -> None:
    assert plain_id(node_id, "pyloop") == name


def test_report_without_an_end_is_a_broken_run(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    record = {"kind": "test", "id": "tests/test_a.py::test_a", "outcome": "passed", "text": ""}
    with pytest.raises(RunBroken, match="the collection"):
        Results.load(report, "pyloop")
    report.write_text(json.dumps(record) + "\n", "utf-8")
    with pytest.raises(RunBroken, match="test_a"):
        Results.load(report, "pyloop")
    end = {"kind": "end", "express": 3, "full": {"proxy": 2}}
    report.write_text("\n".join(map(json.dumps, (record, end))), "utf-8")
    found = Results.load(report, "pyloop")
    assert (found.express, found.full["proxy"], len(found.tests)) == (3, 2, 1)


def test_junit_report_counts_what_ci_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = results(a="passed", b="passed", c="passed", d="passed", e="failed")
    ours = results(a="passed", b="failed", c="failed", d="passed", e="failed")
    comparison = compare(theirs, ours, "b", "d")
    write_junit(comparison, tmp_path / "junit.xml", 1.0)
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "2", "errors": "0", "skipped": "1"}
    show(comparison, verbose=True)
    printed = capsys.readouterr().out
    assert "UNKNOWN: test_a.py::test_c" in printed
    assert "GONE: test_a.py::test_d" in printed
    assert "known: test_a.py::test_b\n    a reason" in printed


def test_known_differences_are_of_files_that_are_run() -> None:
    files = {file for group in GROUPS.values() for file in group}
    assert {name.partition("::")[0] for name in KNOWN} <= files
