"""`wirespeed fetch`: the requests of a file, to a file, with a bar, a summary and a way to go on.

What is sent and written is the business of `jobs`, or of `cluster` where there are several workers. Here are
the options, the signals, what is shown meanwhile and at the end, and the exit code.
"""

import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from . import options, summary
from .bar import Bar
from .report import COULD_NOT_RUN

if TYPE_CHECKING:
    from ..jobs import Job, Report

SOME_FAILED: Final = 1
"""Exit code when a request has failed, or when it was interrupted; what was written stays."""
STREAM: Final = "-"
"""In the place of a file: standard input or output."""
_PLAIN_WIDTH: Final = 120
"""Columns of the tables where there is no terminal to ask."""
_STOPPING: Final = "finishing what is under way; Ctrl-C again ends at once"

_REQUESTS: Final = "Requests"
_TRAFFIC: Final = "Traffic"
_OUTPUT: Final = "Output"
_SCALE: Final = "Scale out"


class Ending:
    """The wish to end, which signals tell. Has `is_set`, as the jobs want it.

    The first Ctrl-C, or SIGTERM, lets the job finish what is under way. The second ends the process at once:
    whatever it waits for, it does not wait; what is written is written, and the job can be resumed.

    Args:
        bar: told at the first signal.
    """

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
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
            if not self._bar.say(_STOPPING):
                os.write(2, f"wirespeed fetch: {_STOPPING}\n".encode())
            return
        self._bar.abandon()
        os.write(2, f"wirespeed fetch: ended; go on with: {go_on()}\n".encode())
        # Workers are ours, and would wait for somebody who is gone.
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(SOME_FAILED)


def go_on() -> str:
    """Return the command that resumes this one."""
    name = os.path.basename(sys.argv[0])
    program = ["python", "-m", "wirespeed"] if name in ("__main__.py", "-c", "") else [name]
    arguments = [each for each in sys.argv[1:] if each != "--resume"]
    # Behind the command's name: at the end it might follow a "--".
    at = arguments.index("fetch") + 1 if "fetch" in arguments else 0
    command = [*program, *arguments[:at], "--resume", *arguments[at:]]
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def fetch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="A file with a URL on each line, or a JSON object with url, and method, params, headers, json, "
            f"data, id where wanted; {STREAM} for standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help=f"A file of NDJSON; a file .parquet; a folder, with a slash at its end, for the bodies; or {STREAM}, "
            "NDJSON on standard output, which cannot be resumed.",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            callback=options.method, help="Of requests that have none of their own.", rich_help_panel=_REQUESTS
        ),
    ] = "GET",
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME: VALUE'",
            help="A header field of all requests that have none of that name; may be repeated.",
            rich_help_panel=_REQUESTS,
        ),
    ] = None,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Send the same request once.", rich_help_panel=_REQUESTS)
    ] = False,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Requests under way at a time.", rich_help_panel=_TRAFFIC)
    ] = 100,
    per_host: Annotated[
        int, typer.Option(min=0, help="The same for one host; 0 for no bound.", rich_help_panel=_TRAFFIC)
    ] = 0,
    rate: Annotated[
        float | None,
        typer.Option(
            callback=options.positive,
            metavar="NUMBER",
            help="Requests per second, in all; no bound if left out.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            help="How often a request is sent again when it fails in a way that may pass.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = 0,
    timeout: Annotated[
        float,
        typer.Option(
            callback=options.positive,
            metavar="SECONDS",
            help="For one request and its body.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = 60.0,
    max_body: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help=f"A body may be this long, decoded: bytes, 500KB, 10MB, 1GiB or {options.ANY}.",
            rich_help_panel=_TRAFFIC,
        ),
    ] = "64MiB",
    ordered: Annotated[
        bool, typer.Option("--ordered", help="Write in the order of the input.", rich_help_panel=_OUTPUT)
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where an earlier run ended, however it did.", rich_help_panel=_OUTPUT),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the summary as one JSON object.", rich_help_panel=_OUTPUT),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No bar, no tables.", rich_help_panel=_OUTPUT)
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes to share the work.", rich_help_panel=_SCALE, show_default=False),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask scheduler whose workers share the work, such as tcp://10.0.0.1:8786.",
            rich_help_panel=_SCALE,
        ),
    ] = None,
) -> None:
    pass
