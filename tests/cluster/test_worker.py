"""What a worker does with a shard, however often and whatever was there before."""

import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wirespeed.batch import Request
from wirespeed.cluster import worker
from wirespeed.cluster.beats import Session
from wirespeed.cluster.shards import Shard, pack
from wirespeed.cluster.worker import give_up, run_shard
from wirespeed.jobs import JobError, Line, Settings
from wirespeed.jobs.leftovers import adopt_all, leftovers, new_writing, part_of
from wirespeed.jobs.records import encode_bad

from .support import Recorder, records_of


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as server:
        yield server


@pytest.fixture
def session(tmp_path: Path) -> Session:
    session = Session(tmp_path, "token")
    session.begin()
    return session


def shard_of(server: Recorder, directory: Path, count: int, settings: Settings | None = None) -> Shard:
    lines = [Line(number, Request("GET", url)) for number, url in enumerate(server.urls(count), 1)]
    packed = tuple((line.number, pack(line)) for line in lines)
    return Shard("token-1", 0, packed, settings or Settings(concurrency=5), str(directory), None, False)


def test_a_shard_is_a_part(server: Recorder, tmp_path: Path, session: Session) -> None:
    shard = pickle.loads(pickle.dumps(shard_of(server, tmp_path, 20)))
    report = pickle.loads(pickle.dumps(run_shard(shard)))
    assert (report.name, report.sent, report.left, report.summary.done) == ("token-1", 20, (), 20)
    part = part_of(tmp_path, shard.name)
    assert {record["body"] for record in records_of(part)} == {f"/{number}" for number in range(1, 21)}
    assert not leftovers(tmp_path)
    assert session.counts(shard) == (20, 20, 0, report.summary.bytes)


def test_a_shard_that_is_done_is_not_sent_again(server: Recorder, tmp_path: Path, session: Session) -> None:
    shard = shard_of(server, tmp_path, 20)
    first, again = run_shard(shard), run_shard(shard.again(None))
    assert len(server.asked) == 20
    assert again.sent == 0
    assert again.summary.statuses == first.summary.statuses
    assert (again.summary.done, again.summary.bytes) == (20, first.summary.bytes)


def test_of_a_shard_that_was_begun_only_the_rest_is_sent(
    server: Recorder, tmp_path: Path, session: Session
) -> None:
    shard = shard_of(server, tmp_path, 20)
    run_shard(shard)
    # As if its worker had died in the middle of the 13th record.
    lines = part_of(tmp_path, shard.name).read_bytes().splitlines(keepends=True)
    part_of(tmp_path, shard.name).unlink()
    new_writing(tmp_path, shard.name).write_bytes(b"".join(lines[:12]) + lines[12][:-5])
    server.asked.clear()
    report = run_shard(shard.again(None))
    assert len(server.asked) == report.sent == 8
    assert (report.summary.done, report.left) == (20, ())
    assert len({record["line"] for record in records_of(part_of(tmp_path, shard.name))}) == 20
    assert not leftovers(tmp_path)


def test_who_was_taken_for_dead_has_nothing_to_name(
    server: Recorder, tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = shard_of(server, tmp_path, 20)
    send = worker._send

    def overtaken(*args: object) -> object:
        summary = send(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(worker, "_send", send)
        assert run_shard(shard).sent == 0
        return summary

    monkeypatch.setattr(worker, "_send", overtaken)
    with pytest.raises(JobError, match="cannot write"):
        run_shard(shard)
    assert sorted(record["line"] for record in records_of(part_of(tmp_path, shard.name))) == [*range(1, 21)]


def test_what_takes_too_long_is_left(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "SECONDS", 0.4)
    with Recorder(0.05) as server:
        shard = shard_of(server, tmp_path, 1_000, Settings(concurrency=5))
        report = run_shard(shard)
        assert 0 < report.sent < 500
        assert report.sent == len(server.asked)
    done = {record["line"] for record in records_of(part_of(tmp_path, shard.name))}
    assert done | set(report.left) == set(range(1, 1_001))
    assert len(done) + len(report.left) == 1_000
    # A report from the part says the same.
    assert run_shard(shard).left == report.left


def test_without_its_session_a_shard_ends_early(tmp_path: Path, session: Session) -> None:
    session.end()
    with Recorder(0.05) as server:
        report = run_shard(shard_of(server, tmp_path, 1_000))
    assert 900 < len(report.left) <= 1_000


def test_the_rate_of_a_shard_lasts_until_the_next_may_begin(
    server: Recorder, tmp_path: Path, session: Session
) -> None:
    begun_at = time.monotonic()
    run_shard(shard_of(server, tmp_path, 3, Settings(rate=5.0)))
    assert time.monotonic() - begun_at >= 0.6


def test_a_directory_that_is_not_there(server: Recorder, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"has no directory .*gone: .*file system") as caught:
        run_shard(shard_of(server, tmp_path / "gone", 3))
    assert pickle.loads(pickle.dumps(caught.value)).hint == caught.value.hint


def test_a_part_that_cannot_be_written(server: Recorder, tmp_path: Path, session: Session) -> None:
    shard = shard_of(server, tmp_path, 3)
    part_of(tmp_path, shard.name).mkdir()
    with pytest.raises(JobError, match="cannot write"):
        run_shard(shard)


def test_who_gives_up_keeps_what_is_there(server: Recorder, tmp_path: Path, session: Session) -> None:
    shard = shard_of(server, tmp_path, 5)
    done = b"".join(encode_bad(Line(number, None, "bad")) for number in (2, 3))
    new_writing(tmp_path, shard.name).write_bytes(done)
    report = give_up(shard, "WorkerLost", "why")
    assert report.summary.errors == {"BadLine": 2, "WorkerLost": 3}
    records = records_of(part_of(tmp_path, shard.name))
    assert [record["line"] for record in records] == [2, 3, 1, 4, 5]
    assert records[-1]["error"] == {"type": "WorkerLost", "message": "why"}
    assert records[-1]["url"] == server.urls(5)[-1]


# Leftovers of a session


def test_leftovers_become_parts(tmp_path: Path) -> None:
    records = [encode_bad(Line(number, None, "bad")) for number in range(1, 5)]
    new_writing(tmp_path, "a-1").write_bytes(records[0] + records[1])
    new_writing(tmp_path, "a-1").write_bytes(records[2] + records[3][:10])
    os.utime(leftovers(tmp_path)[0], (1_000, 1_000))
    adopt_all(tmp_path)
    [part] = tmp_path.glob("part-*.ndjson")
    assert {record["line"] for record in records_of(part)} == {1, 2, 3}
    assert not leftovers(tmp_path)
    adopt_all(tmp_path)


def test_an_adoption_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    path = new_writing(tmp_path, "a-1")
    path.with_name(path.name + ".held").write_bytes(encode_bad(Line(1, None, "bad")))
    adopt_all(tmp_path)
    [part] = tmp_path.glob("part-*.ndjson")
    assert [record["line"] for record in records_of(part)] == [1]


def test_a_new_session_ends_those_before(server: Recorder, tmp_path: Path, session: Session) -> None:
    Session(tmp_path, "other").begin()
    assert len(run_shard(shard_of(server, tmp_path, 10_000)).left) > 1_000
