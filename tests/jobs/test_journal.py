"""The state of a job: whose it is, what is done, and when it is gone."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from wirespeed.jobs.errors import JobError
from wirespeed.jobs.journal import Identity, Journal

from .samples import record

INPUT = {"path": "/in", "size": 5, "digest": "aa"}
OPTIONS = {"method": "GET", "dedup": False, "ordered": False}


def identity(**changes: Any) -> Identity:
    return Identity(**{"input": INPUT, "kind": "ndjson", "options": OPTIONS, **changes})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.ndjson"


def interrupted(output: Path, *parts: bytes) -> Path:
    """Leave a state behind, as a process that is killed."""
    with Journal(output, identity()) as journal:
        for part in parts:
            journal.new_part().write_bytes(part)
    return journal.directory


def test_a_new_job_has_a_state_before_anything_is_sent(output: Path) -> None:
    with Journal(output, identity()) as journal:
        assert journal.directory == output.with_name("out.ndjson.partial")
        known = json.loads((journal.directory / "job.json").read_text())
        assert (known["input"], known["kind"], known["options"]) == (INPUT, "ndjson", OPTIONS)
        assert journal.parts() == []
        assert len(journal.done) == journal.summary.done == 0
        assert Journal.is_there(output)


def test_what_is_done_is_known_after_a_crash(output: Path) -> None:
    interrupted(output, record(2) + record(7, 404), record(4) + record(5)[:-1])
    with Journal(output, identity(), resume=True) as journal:
        assert list(journal.done) == [2, 4, 7]
        assert (journal.summary.done, journal.summary.failed, journal.summary.recovered) == (3, 1, 3)
        assert [part.name for part in journal.parts()] == ["part-00001.ndjson", "part-00002.ndjson"]
        assert journal.new_part().name == "part-00003.ndjson"


def test_a_record_that_is_there_twice_counts_once(output: Path) -> None:
    interrupted(output, record(2), record(2) + record(3))
    with Journal(output, identity(), resume=True) as journal:
        assert journal.summary.done == 2


def test_the_work_of_all_sessions_adds_up_without_the_time_between(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([1000.0, 5000.0, 9000.0])
    monkeypatch.setattr("wirespeed.jobs.journal.time.time", lambda: next(times))
    directory = interrupted(output, record(1))
    os.utime(directory / "part-00001.ndjson", (1010.0, 1010.0))
    with Journal(output, identity(), resume=True) as journal:
        assert journal.summary.seconds == 10.0
        journal.new_part().write_bytes(record(2))
    os.utime(directory / "part-00002.ndjson", (5005.0, 5005.0))
    with Journal(output, identity(), resume=True) as journal:
        assert journal.summary.seconds == 15.0


def test_a_state_without_resume_is_refused_with_a_hint(output: Path) -> None:
    interrupted(output, record(1))
    with pytest.raises(JobError, match=r"of a job that was interrupted: go on with --resume") as caught:
        Journal(output, identity())
    assert caught.value.hint
    with Journal(output, identity(), resume=True) as journal:
        assert journal.summary.done == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"input": {**INPUT, "digest": "bb"}},
            "its input is another, or has changed .it was digest 'aa', now 'bb'",
        ),
        ({"input": {"path": "-"}}, "its input is another"),
        ({"kind": "parquet"}, "its output is of another kind .it was 'ndjson', now 'parquet'"),
        ({"options": {**OPTIONS, "dedup": True}}, "its options are others .it was dedup False, now True"),
    ],
)
def test_another_job_does_not_go_on_with_it(output: Path, changes: Any, words: str) -> None:
    interrupted(output, record(1))
    with pytest.raises(JobError, match=words):
        Journal(output, identity(**changes), resume=True)
    with Journal(output, identity(), resume=True) as journal:
        assert journal.summary.done == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 99}', "\xff"])
def test_a_state_of_another_version_is_refused(output: Path, text: str) -> None:
    directory = interrupted(output)
    (directory / "job.json").write_text(text, "latin-1")
    with pytest.raises(JobError, match="not of this version"):
        Journal(output, identity(), resume=True)


def test_one_process_at_a_time(output: Path) -> None:
    with Journal(output, identity()):
        for resume in (False, True):
            with pytest.raises(JobError, match="another process works on"):
                Journal(output, identity(), resume=resume)
    with Journal(output, identity(), resume=True):
        pass


def test_nothing_to_resume_is_a_new_job(output: Path) -> None:
    with Journal(output, identity(), resume=True) as journal:
        assert journal.summary.done == 0


def test_a_removal_that_was_cut_short_leaves_nothing_to_resume(output: Path) -> None:
    directory = interrupted(output, record(1))
    (directory / "job.json").unlink()
    assert not Journal.is_there(output)
    with Journal(output, identity()) as journal:
        assert journal.parts() == []


def test_a_removed_state_is_gone(output: Path) -> None:
    with Journal(output, identity()) as journal:
        journal.new_part().write_bytes(record(1))
        journal.remove()
    assert not journal.directory.exists()


def test_a_file_in_the_place_of_the_state_is_named(output: Path) -> None:
    output.with_name("out.ndjson.partial").write_text("")
    with pytest.raises(JobError, match=r"cannot use .*out\.ndjson\.partial: File exists"):
        Journal(output, identity())


def test_a_part_that_cannot_be_read_is_named(output: Path) -> None:
    directory = interrupted(output)
    (directory / "part-00001.ndjson").mkdir()
    with pytest.raises(JobError, match=r"cannot use .*part-00001"):
        Journal(output, identity(), resume=True)
    # And nobody keeps it locked.
    (directory / "part-00001.ndjson").rmdir()
    with Journal(output, identity(), resume=True):
        pass
