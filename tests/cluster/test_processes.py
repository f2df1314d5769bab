"""A job on processes of its own, some of which die."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import wirespeed.jobs
from wirespeed.batch import Progress, Request
from wirespeed.cluster import fetch
from wirespeed.cluster.work import LOST
from wirespeed.jobs import Job, JobError, Settings
from wirespeed.testing.process import ServerProcess

from .support import Recorder, assert_whole, records_of

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

SCRIPT = """
import sys
from wirespeed.cluster import fetch
from wirespeed.jobs import JobError

def main():
    urls, output, resume = sys.argv[1:]
    report = fetch(urls, output=output, workers=2, concurrency=10, resume=bool(int(resume)))
    print(report.is_complete, report.summary.done, report.summary.recovered)

{guard}
    main()
"""
GUARDED = SCRIPT.format(guard='if __name__ == "__main__":')
UNGUARDED = SCRIPT.format(guard="if True:")


@pytest.fixture
def slow() -> Iterator[Recorder]:
    """Ten connections get 500 answers a second."""
    with Recorder(0.02) as server:
        yield server


@pytest.fixture
def fast() -> Iterator[Recorder]:
    with Recorder() as server:
        yield server


class Killer:
    """Kills a worker when so many lines are done; an `on_progress`."""

    def __init__(self, *at: int) -> None:
        self._at = list(at)
        self.killed: list[int] = []

    def __call__(self, progress: Progress) -> None:
        if self._at and progress.done >= self._at[0]:
            self._at.pop(0)
            [victim, *_] = multiprocessing.active_children()
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            self.killed.append(victim.pid)


def test_a_job_of_many_shards(fast: Recorder, tmp_path: Path) -> None:
    told: list[Progress] = []
    output = tmp_path / "out.ndjson"
    report = fetch(fast.urls(3_000), output=output, workers=2, concurrency=10, on_progress=told.append)
    assert report.is_complete
    assert report.summary.done == report.summary.attempts == 3_000
    assert not report.summary.failed
    assert_whole(output, 3_000)
    assert set(fast.counts().values()) == {1}
    assert told[-1].done == told[-1].taken == 3_000
    assert [progress.done for progress in told] == sorted(progress.done for progress in told)
    assert not multiprocessing.active_children()


@posix
def test_a_worker_that_is_killed_costs_nothing(slow: Recorder, tmp_path: Path) -> None:
    output, killer = tmp_path / "out.ndjson", Killer(100, 500)
    report = fetch(slow.urls(1_200), output=output, workers=2, concurrency=10, on_progress=killer)
    assert len(killer.killed) == 2
    assert report.is_complete
    assert report.summary.done == 1_200
    assert not report.summary.failed
    assert_whole(output, 1_200)
    # Only what was under way, or not yet written, is sent again.
    counts = slow.counts()
    assert len(counts) == 1_200
    assert counts.total() < 1_200 + 2 * 2 * 100


def test_threads_and_processes_of_others_will_do(fast: Recorder, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as executor:
        fetch(fast.urls(300), executor=executor, output=tmp_path / "threads", concurrency=5)
        assert executor.submit(int, "1").result(20) == 1
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        fetch(fast.urls(300), executor=pool, output=tmp_path / "processes", concurrency=5)
        assert pool.submit(int, "1").result(20) == 1
    assert_whole(tmp_path / "threads", 300)
    assert_whole(tmp_path / "processes", 300)


@posix
def test_a_broken_pool_of_others_ends_the_job_which_can_go_on(slow: Recorder, tmp_path: Path) -> None:
    output, urls = tmp_path / "out.ndjson", slow.urls(500)
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
        pytest.raises(JobError, match=r"broken.*--resume"),
    ):
        fetch(urls, executor=pool, output=output, concurrency=5, on_progress=Killer(50))
    report = fetch(urls, output=output, workers=1, concurrency=5, resume=True)
    assert report.summary.recovered >= 50
    assert_whole(output, 500)


def test_an_executor_that_was_shut_down(fast: Recorder, tmp_path: Path) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(JobError, match="takes no more work"):
        fetch(fast.urls(3), executor=executor, output=tmp_path / "out")


# Figures


def test_histograms_are_those_of_one_process(tmp_path: Path) -> None:
    with ServerProcess() as server:
        paths = ["/json", "/status/404", "/delay/0.05", "/bytes/1000"]
        urls = [f"{server.url}{path}?{number}" for number in range(200) for path in paths] + ["ftp://x/"]
        together = fetch(urls, output=tmp_path / "many", workers=2, concurrency=10).summary
        alone = wirespeed.jobs.run(Job(urls, tmp_path / "one", settings=Settings(concurrency=10))).summary
    for name in ("done", "failed", "bad", "bytes", "attempts", "statuses", "errors"):
        assert getattr(together, name) == getattr(alone, name), name
    # Of all that its parts have recorded, to the last count.
    again = wirespeed.jobs.Summary()
    for record in records_of(tmp_path / "many"):
        again.note_record(record)
    for quantile in (50, 90, 99, 100):
        assert together.latency().get_value_at_percentile(quantile) == pytest.approx(
            again.latency().get_value_at_percentile(quantile), rel=2e-3, abs=2
        )
    assert together.latency().total_count == alone.latency().total_count == 801
    assert together.latency().get_value_at_percentile(90) >= 50_000


def test_the_rate_is_that_of_all_together(fast: Recorder, tmp_path: Path) -> None:
    rate, count = 200.0, 400
    fetch(fast.urls(count), output=tmp_path / "out", workers=2, concurrency=20, rate=rate)
    assert_whole(tmp_path / "out", count)
    times = sorted(at for at, _ in fast.asked)
    # Two that begin at once, and what a busy machine sends late and then in time.
    for number, begun_at in enumerate(times[:-100]):
        assert times[number + 100] - begun_at >= 98 / rate * 0.75
    assert times[-1] - times[0] >= (count - 4) / rate * 0.97
    assert times[-1] - times[0] <= count / rate + 6.0


# Ends


@posix
def test_a_parent_that_is_killed_leaves_no_worker_and_loses_nothing(slow: Recorder, tmp_path: Path) -> None:
    script, urls, output = tmp_path / "script.py", tmp_path / "urls", tmp_path / "out.ndjson"
    script.write_text(GUARDED)
    urls.write_text("\n".join(slow.urls(1_000)))
    command = [sys.executable, str(script), str(urls), str(output)]
    with subprocess.Popen([*command, "0"], start_new_session=True) as parent:
        _wait_for(lambda: len(slow.asked) > 300)
        parent.kill()
    _wait_for(lambda: not _group_is_there(parent.pid))
    written = len(slow.counts())
    assert written < 1_000
    report = subprocess.run([*command, "1"], stdout=subprocess.PIPE, timeout=50, check=True)
    is_complete, done, recovered = report.stdout.split()
    assert (is_complete, int(done)) == (b"True", 1_000)
    assert 100 < int(recovered) <= written
    assert_whole(output, 1_000)
    # What was under way, and what was not older than a twentieth of a second.
    assert slow.counts().total() <= 1_000 + written - int(recovered)
    assert written - int(recovered) < 200


@posix
def test_ctrl_c_of_a_terminal_is_the_parents_alone(slow: Recorder, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import signal, sys, threading\n"
        "from wirespeed.cluster import fetch\n"
        'if __name__ == "__main__":\n'
        "    stop = threading.Event()\n"
        "    signal.signal(signal.SIGINT, lambda *_: stop.set())\n"
        "    report = fetch(sys.argv[1], output=sys.argv[2], workers=2, concurrency=10, stop=stop)\n"
        "    print(report.is_complete, report.summary.done, report.hint)\n"
    )
    urls, output = tmp_path / "urls", tmp_path / "out.ndjson"
    urls.write_text("\n".join(slow.urls(1_200)))
    command = [sys.executable, str(script), str(urls), str(output)]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as parent:
        _wait_for(lambda: len(slow.asked) > 200)
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=30)
    assert (parent.returncode, err) == (0, b"")
    is_complete, done, *hint = out.split()
    assert is_complete == b"False"
    assert b"--resume" in b" ".join(hint)
    # What was begun was finished, and nothing more begun.
    assert int(done) == slow.counts().total() == len(slow.counts()) < 1_200
    fetch(str(urls), output=output, workers=2, concurrency=10, resume=True)
    assert_whole(output, 1_200)
    assert set(slow.counts().values()) == {1}


def test_stop(slow: Recorder, tmp_path: Path) -> None:
    stop, output = threading.Event(), tmp_path / "out.ndjson"

    def tell(progress: Progress) -> None:
        if progress.done > 50:
            stop.set()

    report = fetch(slow.urls(1_200), output=output, workers=2, concurrency=10, on_progress=tell, stop=stop)
    assert not report.is_complete
    assert "--resume" in report.hint
    assert 50 < report.summary.done == len(slow.asked) < 1_100
    assert not output.exists()


def test_an_exception_in_this_thread_ends_the_workers_at_once(slow: Recorder, tmp_path: Path) -> None:
    def tell(progress: Progress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(slow.urls(1_200), output=tmp_path / "out", workers=2, concurrency=10, on_progress=tell)
    assert not multiprocessing.active_children()
    fetch(slow.urls(1_200), output=tmp_path / "out", workers=2, resume=True)
    assert_whole(tmp_path / "out", 1_200)


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script, urls = tmp_path / "script.py", tmp_path / "urls"
    script.write_text(UNGUARDED)
    urls.write_text("http://127.0.0.1:9/\n" * 200)
    command = [sys.executable, str(script), str(urls), str(tmp_path / "out"), "0"]
    done = subprocess.run(command, stderr=subprocess.PIPE, timeout=50, check=False)
    assert done.returncode == 1
    assert b'if __name__ == "__main__":' in done.stderr
    assert b"JobError: the workers die before they begin" in done.stderr


def test_the_standard_output(fast: Recorder, tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("\n".join(fast.urls(500)))
    code = (
        "import sys\nfrom wirespeed.cluster import fetch\n"
        "if __name__ == '__main__':\n    fetch(sys.argv[1], output='-', workers=2, ordered=True)\n"
    )
    (tmp_path / "script.py").write_text(code)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "urls")]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=50, check=True)
    assert [json.loads(raw)["line"] for raw in done.stdout.splitlines()] == list(range(1, 501))


def test_requests_that_kill_their_workers_are_failures(fast: Recorder, tmp_path: Path) -> None:
    urls: list[Any] = [*fast.urls(200)]
    urls[150] = Request("GET", urls[150], headers=_Deadly())
    output = tmp_path / "out.ndjson"
    report = fetch(urls, output=output, workers=2, concurrency=10)
    assert report.is_complete
    assert report.summary.done == 200
    assert 1 <= report.summary.errors[LOST] <= 100
    failed = [record for record in records_of(output) if record.get("error")]
    assert 151 in [record["line"] for record in failed]
    assert failed[0]["error"]["message"].startswith("3 workers have died")
    assert sorted(record["line"] for record in records_of(output)) == list(range(1, 201))


class _Deadly(dict[str, str]):
    """Headers that kill any other process that unpacks them."""

    def __reduce__(self) -> Any:
        return _headers, (os.getpid(),)


def _headers(owner: int) -> dict[str, str]:
    if os.getpid() != owner:
        os._exit(9)
    return {}


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _group_is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
