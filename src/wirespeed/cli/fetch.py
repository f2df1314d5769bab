"""`wirespeed fetch`: the requests of a file, to a file, with a bar, a summary and a way to go on.

What is sent and written is the business of `jobs`, or of `cluster` where there are several workers. Here are
the options, the signals, what is shown meanwhile and at the end, and the exit code.
"""

import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, Final

import typer
from rich.console import Console

from ..jobs import Job, JobError, Report, Settings, run
from ..jobs.summary import histogram_class
from . import options, summary
from .bar import Bar
from .report import COULD_NOT_RUN

SOME_FAILED: Final = 1
"""Exit code when a request has failed, or when it was interrupted; what was written stays."""
STREAM: Final = "-"
"""In the place of a file: standard input or output."""
_PLAIN_WIDTH: Final = 120
"""Columns of the tables where there is no terminal to ask."""
_STOPPING: Final = "finishing; Ctrl-C again ends at once"


def fetch(
    source: options.Input,
    output: options.Output,
    method: options.Method = "GET",
    header: options.Header = None,
    dedup: options.Dedup = False,
    concurrency: options.Concurrency = Settings.concurrency,
    per_host: options.PerHost = Settings.per_host,
    rate: options.Rate = Settings.rate,
    retries: options.Retries = Settings.retries,
    timeout: options.Timeout = Settings.timeout,
    max_body: options.MaxBody = "64MiB",
    ordered: options.Ordered = False,
    resume: options.Resume = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    workers: options.Workers = None,
    dask: options.Dask = None,
) -> None:
    """Send the requests of a file and write what comes back, however many there are.

    [bold]wirespeed fetch urls.txt -o out.ndjson --rate 500 --retries 3[/bold]

    Ctrl-C finishes what is under way. After it, or after a crash, [bold]--resume[/bold]
    goes on: nothing is lost, and nothing that was written is sent again.

    Exit code: 0 when all went well, 1 when a request failed or the job was
    interrupted, 2 when it could not run.
    """
    show = _Show(source, output, as_json=as_json, is_quiet=quiet)
    try:
        with options.naming("--header"):
            fields = options.headers(header or [])
        with options.naming("--max-body"):
            bound = options.size(max_body)
        settings = Settings(concurrency, rate, retries, timeout, bound, per_host, fields, method)
        job = Job(source, output, settings, dedup, ordered, resume)
        code = show.report(_run(job, show, workers, dask))
    except JobError as exc:
        code = show.failure(exc)
    raise typer.Exit(code)


def _run(job: Job, show: "_Show", workers: int | None, dask: str | None) -> Report:
    histogram_class()  # the summary needs it, and nothing is sent without one
    with show.bar as bar, Ending(show) as ending:
        is_local = dask is None and (workers or 1) == 1
        if is_local and "://" not in os.fspath(job.output):
            return run(job, on_progress=bar.show, stop=ending)
        # Not before it is wanted: most jobs run in this process.
        from .. import cluster

        return cluster.run(job, workers=workers, dask=dask, on_progress=bar.show, stop=ending)


class _Show:
    """What is said, and where: a bar and messages on standard error, the summary on standard output.

    With the records on standard output, all else is on standard error.

    Args:
        source: the job's input.
        output: the job's output.
        as_json: the summary, or what went wrong, is one JSON object, alone on its stream.
        is_quiet: no bar and no tables.
    """

    def __init__(self, source: str, output: str, *, as_json: bool, is_quiet: bool) -> None:
        self._is_piped = source == STREAM
        self._is_streamed = output == STREAM
        self._as_json = as_json
        self._is_quiet = is_quiet
        self._err = _console(stderr=True)
        self._out = self._err if self._is_streamed else _console(stderr=False)
        # A bar below records that are on the terminal themselves would be torn by each.
        self.bar = Bar(self._err, is_wanted=not is_quiet and not (self._is_streamed and sys.stdout.isatty()))

    @property
    def has_messages(self) -> bool:
        """Whether there may be anything but a JSON object on standard error."""
        return not (self._as_json and self._is_streamed)

    def report(self, report: Report) -> int:
        """Show what became of the job; returns the exit code."""
        document = report.summary.as_dict()
        is_resumable = not report.is_complete and not self._is_streamed
        document |= {"output": report.output, "complete": report.is_complete}
        document["resume"] = go_on() if is_resumable else None
        try:
            self._show(report, document)
            self._out.file.flush()
        except OSError as exc:
            # The work is done all the same; but not all went well.
            _drop(self._out)
            if not self._is_streamed:
                self._say(f"the summary could not be shown: {exc}")
            return SOME_FAILED
        return 0 if report.is_complete and not report.summary.failed else SOME_FAILED

    def _show(self, report: Report, document: dict[str, Any]) -> None:
        if self._as_json:
            self._print_json(document)
            return
        bad = report.summary.bad_lines
        for number, error in bad:
            self._say(f"line {number}: {error}")
        if (more := report.summary.bad - len(bad)) > 0:
            self._say(f"{more:,} more lines are no requests; the output says why")
        if not self._is_quiet:
            summary.show(document, self._out)
        if not report.is_complete:
            self._say(self.ended("interrupted"))
        elif report.summary.done == report.summary.recovered > 0:
            # Somebody may have meant another output.
            self._say(f"nothing was left to send: all of {report.output} was done before")

    def ended(self, how: str) -> str:
        """Return the words for an end before the end, with the way to go on."""
        if self._is_streamed:
            return how
        same = ", and the same standard input" if self._is_piped else ""
        return f"{how}; go on with{same}: {go_on()}"

    def failure(self, error: JobError) -> int:
        """Show why the job could not run, or not to its end; returns the exit code."""
        if isinstance(error.__cause__, BrokenPipeError):
            # Who reads our records has left: that is their way to say enough.
            return SOME_FAILED
        # Hints are for callers of `jobs`, too; here the whole command can be said.
        resume = go_on() if "--resume" in error.hint else None
        if self._as_json:
            self._print_json({"error": error.message, "hint": error.hint, "resume": resume})
        if self.has_messages:
            self._say(str(error))
            if resume is not None:
                self._say(f"to go on: {resume}")
        return COULD_NOT_RUN

    def _print_json(self, document: dict[str, Any]) -> None:
        self._out.file.write(json.dumps(document) + "\n")

    def _say(self, text: str) -> None:
        self._err.print(f"wirespeed fetch: {text}", markup=False, soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _PLAIN_WIDTH)
    return console


def _drop(console: Console) -> None:
    """Let a stream's last words go nowhere: Python would try once more at its end, and complain."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, console.file.fileno())
    os.close(null)


class Ending:
    """The wish to end, which signals tell. Has `is_set`, as the jobs want it.

    The first Ctrl-C, or SIGTERM, lets the job finish what is under way. The second ends the process at once:
    whatever it waits for, it does not wait; what is written is written, and the job can be resumed.

    Args:
        show: what is said of it.
    """

    def __init__(self, show: _Show) -> None:
        self._show = show
        self._wanted = threading.Event()
        self._before: dict[int, Any] = {}

    def is_set(self) -> bool:
        """Whether no further request shall be begun."""
        return self._wanted.is_set()

    def __enter__(self) -> "Ending":
        for number in (signal.SIGINT, signal.SIGTERM):
            # What is ignored stays so, as in a shell's background job.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # No stream of Python's here: what was interrupted may be writing to it.
        if not self.is_set():
            self._wanted.set()
            if not self._show.bar.say(_STOPPING):
                self._write(_STOPPING)
            return
        self._show.bar.abandon()
        self._write(self._show.ended("ended"))
        # Workers are ours, and would wait for somebody who is gone.
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(SOME_FAILED)

    def _write(self, text: str) -> None:
        if self._show.has_messages:
            with contextlib.suppress(OSError):
                os.write(2, f"wirespeed fetch: {text}\n".encode())


def go_on() -> str:
    """Return the command that resumes this one."""
    name = os.path.basename(sys.argv[0])
    program = ["python", "-m", "wirespeed"] if name in ("__main__.py", "-c", "") else [name]
    arguments = [each for each in sys.argv[1:] if each != "--resume"]
    # Behind the command's name: at the end it might follow a "--".
    at = arguments.index("fetch") + 1 if "fetch" in arguments else 0
    command = [*program, *arguments[:at], "--resume", *arguments[at:]]
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
