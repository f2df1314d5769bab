"""The scheduler on fakes: no processes, no requests."""

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from typing import Any

import pytest

from wirespeed.cluster import scheduler as scheduler_module
from wirespeed.cluster.crews import Crew
from wirespeed.cluster.scheduler import Scheduler
from wirespeed.cluster.shards import Shard
from wirespeed.cluster.shares import Shares
from wirespeed.cluster.worker import ShardReport
from wirespeed.jobs import JobError, Settings, Summary


class Pool(Crew):
    """Threads that break when a shard says so, all together, as a pool of processes does."""

    def __init__(self, slots: int = 2, *, is_renewable: bool = True) -> None:
        self.slots = self.ahead = slots
        self.renewed = 0
        self._is_renewable = is_renewable
        self._threads = ThreadPoolExecutor(2 * slots)
        self._pending: list[Future[Any]] = []
        self.is_broken = False
        self.worry: str | None = None

    def submit(self, function: Callable[..., Any], *args: Any) -> "Future[Any]":
        if self.is_broken:
            raise BrokenExecutor("broken")
        future: Future[Any] = Future()
        self._pending.append(future)
        self._threads.submit(self._perform, future, function, *args)
        return future

    def _perform(self, future: "Future[Any]", function: Callable[..., Any], shard: Shard) -> None:
        try:
            outcome: Any = function(shard)
        except BrokenExecutor:
            self.is_broken = True
            for each in self._pending:
                if not each.done():
                    each.set_exception(BrokenExecutor("a worker died"))
        except BaseException as exc:
            future.set_exception(exc)
        else:
            if not future.done():
                future.set_result(outcome)

    def renew(self) -> None:
        if not self._is_renewable:
            super().renew()
        self.renewed += 1
        self.is_broken = False
        self._pending.clear()

    def trouble(self) -> str | None:
        return self.worry

    def close(self, *, is_hard: bool = False) -> None:
        self._threads.shutdown()


class Shards:
    """So many shards; what was done with them."""

    def __init__(self, count: int) -> None:
        self._left = [str(number) for number in range(1, count + 1)]
        self.done: list[str] = []
        self.given_up: list[str] = []
        self.begun: set[str] = set()
        self.leave: dict[str, str] = {}
        self.is_halted = False

    @property
    def is_over(self) -> bool:
        return not self._left

    def next(self, rate: float | None) -> Shard | None:
        return shard_named(self._left.pop(0)) if self._left else None

    def wanted(self, rate: float | None, room: int) -> int:
        return min(room, len(self._left))

    def stop(self) -> None:
        self.is_halted = True

    def has_begun(self, shard: Shard) -> bool:
        return shard.name in self.begun

    def report(self, shard: Shard, report: ShardReport) -> Shard | None:
        self.done.append(shard.name)
        left = self.leave.pop(shard.name, None)
        return None if left is None else shard_named(left)

    def give_up(self, shard: Shard, reason: str) -> None:
        self.given_up.append(shard.name)

    def tick(self, running: list[Shard]) -> None:
        pass


def shard_named(name: str) -> Shard:
    return Shard(name, 0, ((1, b""),), Settings(), "", None, False)


def run(
    work: Shards,
    crew: Crew,
    does: Callable[[Shard], object] = lambda shard: None,
    rate: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Scheduler:
    def perform(shard: Shard) -> ShardReport:
        work.begun.add(shard.name)
        does(shard)
        return ShardReport(shard.name, Summary(), (), 1, 0.1, "test")

    scheduler = Scheduler(crew, work, perform, Shares(rate, crew.slots), stop)
    try:
        scheduler.run()
    except JobError:
        scheduler.drain(5)
        raise
    finally:
        crew.close()
    return scheduler


def names(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def test_all_shards_are_done() -> None:
    work = Shards(20)
    assert run(work, Pool()).is_complete
    assert sorted(work.done, key=int) == names(20)


def test_what_a_shard_leaves_is_done_too() -> None:
    work = Shards(2)
    work.leave = {"1": "1b", "1b": "1c"}
    run(work, Pool())
    assert sorted(work.done) == ["1", "1b", "1c", "2"]


def test_shards_of_a_worker_that_died_are_done_again() -> None:
    work, crew = Shards(10), Pool()

    def dies_once(shard: Shard) -> None:
        if shard.name == "3" and shard.attempt == 1:
            raise BrokenExecutor

    run(work, crew, dies_once)
    assert sorted(work.done, key=int) == names(10)
    assert crew.renewed == 1
    assert not work.given_up


def test_a_shard_that_kills_is_given_up_and_none_for_what_it_did() -> None:
    work, crew, alone = Shards(30), Pool(4), []
    under_way: set[str] = set()

    def dies(shard: Shard) -> None:
        under_way.add(shard.name)
        try:
            if shard.name == "7":
                alone.append(under_way == {"7"})
                raise BrokenExecutor
        finally:
            under_way.discard(shard.name)

    run(work, crew, dies)
    assert work.given_up == ["7"]
    assert sorted([*work.done, "7"], key=int) == names(30)
    assert crew.renewed == len(alone) == 3
    assert alone[-1]


def test_workers_that_kill_everything_end_the_job() -> None:
    def dies(shard: Shard) -> None:
        raise BrokenExecutor

    work = Shards(10)
    with pytest.raises(JobError, match="keep dying"):
        run(work, Pool(1), dies)
    assert len(work.given_up) == 2


def test_workers_that_never_begin_end_the_job() -> None:
    work = Shards(10)

    def dies(shard: Shard) -> None:
        work.begun.clear()
        raise BrokenExecutor

    with pytest.raises(JobError, match=r"die before they begin.*__main__"):
        run(work, Pool(), dies)


def test_a_pool_that_cannot_be_renewed_ends_the_job() -> None:
    def dies(shard: Shard) -> None:
        raise BrokenExecutor

    with pytest.raises(JobError, match="executor is broken"):
        run(Shards(3), Pool(is_renewable=False), dies)


def test_what_a_worker_cannot_write_ends_the_job_and_others_are_heard_out() -> None:
    work, failed, are_four = Shards(10), threading.Event(), threading.Barrier(4)

    def fails(shard: Shard) -> None:
        are_four.wait(5)
        if shard.name == "1":
            failed.set()
            raise JobError("disk full")
        failed.wait(5)

    with pytest.raises(JobError, match="disk full"):
        run(work, Pool(), fails)
    assert work.is_halted
    assert set(work.done) == {"2", "3", "4"}


def test_an_exception_is_tried_again_and_then_ends_the_job() -> None:
    tries: list[int] = []

    def fails(shard: Shard) -> None:
        tries.append(shard.attempt)
        raise LookupError("what")

    with pytest.raises(JobError, match="LookupError: what"):
        run(Shards(1), Pool(), fails)
    assert tries == [1, 2, 3]


def test_a_worker_without_the_package_ends_the_job_at_once() -> None:
    def fails(shard: Shard) -> None:
        raise ModuleNotFoundError("No module named 'wirespeed'")

    with pytest.raises(JobError, match="No module"):
        run(Shards(1), Pool(), fails)


def test_work_that_somebody_cancels_is_done_again() -> None:
    work, crew = Shards(1), Pool(1)
    real, futures = crew.submit, []

    def submit(function: Callable[..., Any], *args: Any) -> "Future[Any]":
        if len(futures) < 2:
            futures.append(Future())
            futures[-1].cancel()
            futures[-1].set_running_or_notify_cancel()
            return futures[-1]
        return real(function, *args)

    crew.submit = submit  # type: ignore[method-assign]
    run(work, crew)
    assert work.done == ["1"]


def test_stop_ends_what_waits_and_finishes_what_runs() -> None:
    work, running, go_on = Shards(100), threading.Event(), threading.Event()

    def waits(shard: Shard) -> None:
        running.set()
        go_on.wait(5)

    def stop() -> bool:
        if running.wait(5):
            go_on.set()
        return True

    scheduler = run(work, Pool(), waits, stop=_second_time(stop))
    assert scheduler.is_stopped
    assert not scheduler.is_complete
    assert work.is_halted
    assert 1 <= len(work.done) <= 4


def _second_time(stop: Callable[[], bool]) -> Callable[[], bool]:
    calls: list[None] = []

    def asked() -> bool:
        calls.append(None)
        return len(calls) > 1 and stop()

    return asked


def test_a_scheduler_that_is_gone_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "TROUBLE_MAX", 0.3)
    work, crew, go_on = Shards(100), Pool(), threading.Event()

    def waits(shard: Shard) -> None:
        crew.worry = "the scheduler is gone"
        go_on.wait(1)

    with pytest.raises(JobError, match="the scheduler is gone"):
        run(work, crew, waits)


def test_a_scheduler_that_comes_back_is_no_trouble() -> None:
    work, crew = Shards(20), Pool()

    def worries(shard: Shard) -> None:
        crew.worry = "gone" if shard.name == "5" else None
        if crew.worry:
            timer = threading.Timer(0.3, setattr, (crew, "worry", None))
            timer.start()
            timer.join()

    assert run(work, crew, worries).is_complete
    assert sorted(work.done, key=int) == names(20)


# The rate


def test_shares_of_what_runs_never_exceed_the_rate_and_are_all_of_it() -> None:
    lock, out, sums, full = threading.Lock(), {}, [], []

    def notes(shard: Shard) -> None:
        with lock:
            out[shard.name] = shard.settings.rate
            sums.append(sum(out.values()))
            if len(out) == 4:
                full.append(sums[-1])
        threading.Event().wait(0.02)
        with lock:
            del out[shard.name]

    work = Shards(40)
    run(work, Pool(4), notes, rate=100.0)
    assert max(sums) <= 100.0 + 1e-6
    assert full == [pytest.approx(100.0)] * len(full)
    assert full
    assert len(work.done) == 40


def test_a_lone_shard_has_the_whole_rate() -> None:
    rates: list[float | None] = []
    run(Shards(1), Pool(4), lambda shard: rates.append(shard.settings.rate), rate=100.0)
    assert rates == [100.0]
