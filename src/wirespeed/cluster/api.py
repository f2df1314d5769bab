"""A job on many processes or machines: what the user calls."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
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
        output: see `wirespeed.jobs`: `*.parquet`, a directory, or NDJSON.
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
    with OpenJob(job) as opened:
        if opened.is_done:
            return opened.finish()
        with _crew(executor, workers, dask) as crew:
            is_whole = _run(opened, crew, on_progress, getattr(stop, "is_set", stop) or (lambda: False))
        return opened.finish() if is_whole else opened.interrupted()


@contextmanager
def _crew(executor: Executor | None, workers: int | None, dask: str | None) -> Iterator[Crew]:
    crew: Crew
    if dask is not None:
        crew = OwnDaskCrew(dask, workers)
    elif executor is None:
        crew = OwnCrew(workers)
    else:
        crew = (DaskCrew if DaskCrew.fits(executor) else Crew)(executor, workers)
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


def _run(opened: OpenJob, crew: Crew, on_progress: OnProgress | None, stop: Callable[[], bool]) -> bool:
    """Returns whether all of it is done."""
    with _state(opened) as (directory, stdout):
        shares = Shares(opened.job.settings.rate, crew.slots)
        work = JobWork(opened, directory, shares.slots, on_progress, None if stdout is None else stdout.take)
        scheduler = Scheduler(crew, work, run_shard, shares, stop)
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
