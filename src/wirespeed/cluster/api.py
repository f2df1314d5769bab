"""A job on many processes or machines: what the user calls."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarl import URL

from ..batch import Progress, Request
from ..jobs import Job, JobError, Line, OpenJob, Report, Settings
from .crews import Crew, OwnCrew
from .dask import DaskCrew, OwnDaskCrew
from .scheduler import Scheduler
from .shares import Shares
from .stdout import Stdout
from .storage import Mirror, is_url
from .work import JobWork
from .worker import run_shard

DRAIN = 30.0
"""Seconds that shards under way have when the job cannot go on."""

OnProgress = Callable[[Progress], object]


def fetch(
    requests: "str | os.PathLike[str] | Iterable[Line | Request | URL | str]",
    *,
    output: "str | os.PathLike[str]",
    executor: Executor | None = None,
    workers: int | None = None,
    dask: str | None = None,
    settings: Settings | None = None,
    dedup: bool = False,
    ordered: bool = False,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    stop: Any = None,
    **options: Any,
) -> Report:
    """Send very many requests from many processes or machines, and collect what comes back in one output.

    Args:
        requests: path of a file of lines (see `wirespeed.jobs.read`), or requests; read as they are needed.
        output: see `wirespeed.jobs`: `*.parquet`, a directory, or NDJSON. A URL that fsspec knows, such as
            "s3://bucket/out.ndjson", for workers that share no file system; the state is beside it.
        executor: any of `concurrent.futures`, or Dask's `client.get_executor()`; left open. None for
            processes of our own.
        workers: how many shards run at the same time; None for what the executor has, or one for each core.
        dask: address of a Dask scheduler, in the place of an executor.
        settings: how requests are sent. `rate` is that of all together; `concurrency` and `per_host` are of
            each worker.
        dedup, ordered, resume: as for `Job`.
        on_progress: called four times a second and at the end, in this thread.
        stop: an object with `is_set()`, or a callable: no more is begun then, what is under way is finished.
        options: in the place of `settings`, what it is made of: `concurrency=50, rate=100`.

    Returns:
        What became of it, as for a job on one machine.

    Raises:
        JobError: it could not run, or not to its end; what was written stays, and its hint says how to go on.
        TypeError: both `settings` and `options`, or both `executor` and `dask`.
    """
    if settings is not None and options:
        raise TypeError(f"settings and {', '.join(options)} exclude each other")
    settings = settings or Settings(**options)
    job = Job(requests, output, settings, dedup=dedup, ordered=ordered, resume=resume)
    return run(job, executor=executor, workers=workers, dask=dask, on_progress=on_progress, stop=stop)


def run(
    job: Job,
    *,
    executor: Executor | None = None,
    workers: int | None = None,
    dask: str | None = None,
    on_progress: OnProgress | None = None,
    stop: Any = None,
) -> Report:
    """Run a job on many processes or machines. Arguments, returns and raises: see `fetch`."""
    if executor is not None and dask is not None:
        raise TypeError("executor and dask exclude each other")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    how = _How(executor, workers, dask, on_progress, getattr(stop, "is_set", stop) or (lambda: False))
    if not is_url(job.output):
        return _open_and_run(job, how, None)
    with Mirror(job) as mirror:
        try:
            report = _open_and_run(mirror.job, how, mirror)
        except JobError as exc:
            raise mirror.renamed(exc) from exc
        return mirror.named(report)


@dataclass
class _How:
    """Who runs a job, and who is told."""

    executor: Executor | None
    workers: int | None
    dask: str | None
    on_progress: OnProgress | None
    stop: Callable[[], bool]


def _open_and_run(job: Job, how: _How, mirror: Mirror | None) -> Report:
    with OpenJob(job) as opened:
        if opened.is_done:
            return opened.finish()
        if mirror is not None:
            mirror.begin()
        with _crew(how) as crew:
            is_whole = _run(opened, crew, how, mirror)
        report = opened.finish() if is_whole else opened.interrupted()
        if mirror is not None and is_whole:
            mirror.publish()
        return report


@contextmanager
def _crew(how: _How) -> Iterator[Crew]:
    crew: Crew
    if how.dask is not None:
        crew = OwnDaskCrew(how.dask, how.workers)
    elif how.executor is None:
        crew = OwnCrew(how.workers)
    else:
        crew = (DaskCrew if DaskCrew.fits(how.executor) else Crew)(how.executor, how.workers)
    try:
        yield crew
    except JobError:
        crew.close()
        raise
    except BaseException:
        # Ctrl-C, or a bug: nobody waits for workers any more.
        crew.close(is_hard=True)
        raise
    crew.close()


def _run(opened: OpenJob, crew: Crew, how: _How, mirror: Mirror | None) -> bool:
    """Returns whether all of it is done."""
    with _state(opened) as (directory, stdout):
        shares = Shares(opened.job.settings.rate, crew.slots)
        on_part = None if stdout is None else stdout.take
        work = JobWork(opened, directory, shares.slots, how.on_progress, on_part, mirror)
        scheduler = Scheduler(crew, work, run_shard, shares, how.stop)
        try:
            try:
                work.session.begin()
                scheduler.run()
            except Exception:
                scheduler.drain(DRAIN)
                raise
            finally:
                work.session.end()
                work.tell()
                opened.summary.merge(work.summary)
                opened.summary.seconds += work.summary.seconds
            if stdout is not None:
                stdout.finish()
        except JobError as exc:
            raise JobError(exc.message, exc.hint or opened.interrupted().hint) from exc
        except OSError as exc:
            message = f"cannot use {exc.filename or directory}: {exc.strerror or exc}"
            raise JobError(message, opened.interrupted().hint) from exc
        return scheduler.is_complete


@contextmanager
def _state(opened: OpenJob) -> "Iterator[tuple[Path, Stdout | None]]":
    """Where workers write to; a directory of our own where the job has no state."""
    if opened.journal is not None:
        yield opened.journal.directory, None
        return
    with tempfile.TemporaryDirectory(prefix="wirespeed-", ignore_cleanup_errors=True) as name:
        yield Path(name), Stdout(ordered=opened.job.ordered)
