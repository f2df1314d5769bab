"""A job on Dask distributed, on a cluster of real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wirespeed.batch import Progress
from wirespeed.cluster import fetch
from wirespeed.cluster import scheduler as scheduler_module
from wirespeed.jobs import JobError

from .support import Recorder, assert_whole

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.timeout(120)

SCHEDULER = """
import asyncio, distributed
async def main():
    async with distributed.Scheduler(port=0, host="127.0.0.1", dashboard=False) as scheduler:
        print(scheduler.address, flush=True)
        await scheduler.finished()
asyncio.run(main())
"""
WORKER = """
import asyncio, sys, distributed
async def main():
    async with distributed.Worker(sys.argv[1], nthreads=1, dashboard=False) as worker:
        await worker.finished()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=str(tmp_path_factory.mktemp("dask")),
        silence_logs=50,
    ) as cluster:
        yield cluster


@pytest.fixture
def slow() -> Iterator[Recorder]:
    with Recorder(0.02) as server:
        yield server


def test_a_job_on_a_cluster_by_its_address(cluster: Any, tmp_path: Path) -> None:
    told: list[Progress] = []
    with Recorder() as server:
        report = fetch(
            server.urls(1_000),
            dask=cluster.scheduler_address,
            output=tmp_path / "out",
            concurrency=10,
            on_progress=told.append,
        )
        assert report.is_complete
        assert report.summary.done == told[-1].done == 1_000
        assert set(server.counts().values()) == {1}
    assert_whole(tmp_path / "out", 1_000)


def test_a_worker_that_is_killed_costs_nothing(cluster: Any, slow: Recorder, tmp_path: Path) -> None:
    killed: list[int] = []

    def tell(progress: Progress) -> None:
        if progress.done > 100 and not killed:
            pid = cluster.workers[0].pid
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    with distributed.Client(cluster, set_as_default=False) as client:
        report = fetch(
            slow.urls(1_000),
            executor=client.get_executor(),
            output=tmp_path / "out",
            concurrency=10,
            on_progress=tell,
        )
        assert client.status == "running"
    assert killed
    assert report.is_complete
    assert report.summary.done == 1_000
    assert not report.summary.failed
    assert_whole(tmp_path / "out", 1_000)
    assert slow.counts().total() < 1_200


def test_stop(cluster: Any, slow: Recorder, tmp_path: Path) -> None:
    stop, urls = threading.Event(), slow.urls(1_000)

    def tell(progress: Progress) -> None:
        if progress.done > 50:
            stop.set()

    output, address = tmp_path / "out", cluster.scheduler_address
    report = fetch(urls, dask=address, output=output, concurrency=10, on_progress=tell, stop=stop)
    assert not report.is_complete
    assert 50 < report.summary.done < 900
    again = fetch(urls, dask=address, output=output, concurrency=10, resume=True)
    assert again.summary.recovered == report.summary.done
    assert_whole(output, 1_000)
    assert set(slow.counts().values()) == {1}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_is_gone_loses_nothing(
    how: signal.Signals, slow: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "TROUBLE_MAX", 0.5)
    urls, output = slow.urls(800), tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as scheduler:
        assert scheduler.stdout is not None
        address = scheduler.stdout.readline().strip()
        with subprocess.Popen([sys.executable, "-c", WORKER, address], stderr=subprocess.DEVNULL) as worker:

            def tell(progress: Progress) -> None:
                if progress.done > 100:
                    scheduler.send_signal(how)

            try:
                with pytest.raises(JobError, match=r"the scheduler tcp://.* is gone.*--resume"):
                    fetch(urls, dask=address, output=output, concurrency=10, on_progress=tell)
            finally:
                worker.kill()
                scheduler.kill()
    report = fetch(urls, output=output, workers=1, concurrency=10, resume=True)
    assert report.summary.recovered > 100
    assert_whole(output, 800)


def test_no_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wirespeed.cluster.dask.CONNECT_TIMEOUT", 0.5)
    begun_at = time.monotonic()
    with pytest.raises(JobError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        fetch(["http://127.0.0.1:9/"], dask="tcp://127.0.0.1:9", output=tmp_path / "out")
    assert time.monotonic() - begun_at < 20
