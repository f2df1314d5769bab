"""Outputs in storage, and workers that share no directory with us."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wirespeed.batch import Progress
from wirespeed.cluster import fetch, shards
from wirespeed.cluster.storage import is_url
from wirespeed.jobs import JobError

from .support import Recorder, assert_whole

fsspec = pytest.importorskip("fsspec")


@pytest.fixture
def server() -> Iterator[Recorder]:
    with Recorder() as server:
        yield server


def test_processes_write_to_storage(server: Recorder, tmp_path: Path) -> None:
    url = f"file://{tmp_path.as_posix()}/out.ndjson"
    report = fetch(server.urls(500), output=url, workers=2, concurrency=10)
    assert (report.is_complete, report.output, report.summary.done) == (True, url, 500)
    assert_whole(tmp_path / "out.ndjson", 500)
    assert [path.name for path in tmp_path.iterdir()] == ["out.ndjson"]
    assert set(server.counts().values()) == {1}


def test_a_job_in_storage_is_resumed_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SIZE_MAX", 50)
    stop, url = threading.Event(), "memory://wirespeed-test/out.ndjson"

    def tell(progress: Progress) -> None:
        if progress.done:
            stop.set()

    with Recorder(0.01) as server, ThreadPoolExecutor(1) as executor:
        urls = server.urls(600)
        first = fetch(urls, executor=executor, output=url, concurrency=5, on_progress=tell, stop=stop)
        assert not first.is_complete
        assert 0 < first.summary.done < 600
        with pytest.raises(JobError, match=r"memory://wirespeed-test/out\.ndjson\.partial is of a job"):
            fetch(urls, executor=executor, output=url)
        second = fetch(urls, executor=executor, output=url, concurrency=5, resume=True)
        assert second.summary.recovered == first.summary.done
        assert set(server.counts().values()) == {1}
        third = fetch(urls, executor=executor, output=url, resume=True)
        assert (third.is_complete, third.summary.done) == (True, 600)
        assert server.counts().total() == 600
    fs = fsspec.filesystem("memory")
    assert fs.ls("/wirespeed-test", detail=False) == ["/wirespeed-test/out.ndjson"]
    fs.get_file("/wirespeed-test/out.ndjson", str(tmp_path / "out"))
    assert_whole(tmp_path / "out", 600)


def test_storage_that_cannot_be_used(server: Recorder) -> None:
    for url, message in {
        "nonsense://x/out": "cannot use nonsense://x",
        "memory://x/out/": "directory of bodies",
        "file:///proc/nowhere/out": "cannot (read|write) file:///proc/nowhere",
    }.items():
        with pytest.raises(JobError, match=message):
            fetch(server.urls(3), output=url, workers=1)
    assert not server.asked


@pytest.mark.parametrize("where", ["s3://b/x", "abfs://c/x", "simplecache::s3://b/x", "file:///x"])
def test_urls(where: str) -> None:
    assert is_url(where)


@pytest.mark.parametrize("where", ["out.ndjson", "/a/b", "C:\\x", "-", Path("a://b")])
def test_paths(where: "str | Path") -> None:
    assert not is_url(where)
