"""`wirespeed bench`: the same requests through aiohttp and through wirespeed, side by side.

The server and every client run in processes of their own, each on its own core where the
platform can pin; clients take turns round by round, so that a slow moment hits them alike.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from ..testing.certificates import Certificates, make_certificates
from ..testing.load.clients import BASE, CLIENTS, find_client
from ..testing.load.workloads import WORKLOADS, Workload, find_workload
from ..testing.machine import split_cores
from ..testing.process import ServerProcess
from .report import COULD_NOT_RUN, Plan, document, notes, summarise, table

_WORKER_TIMEOUT: Final = 300.0
"""Seconds for one client's round, the slowest workload on a slow machine included."""
_PLAIN_WIDTH: Final = 120
"""Columns of the table where there is no terminal to ask."""

Records = dict[str, list[dict[str, Any]]]


class CannotRun(Exception):
    """The benchmark could not be run; the message says why."""


def bench(
    requests: Annotated[
        int | None, typer.Option(min=1, help="Requests per round; the workload's own number if left out.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests in flight; the workload's own number if left out.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median is shown.")] = 3,
    workload: Annotated[str, typer.Option(help=f"One of {', '.join(WORKLOADS)}.")] = "json",
    peer: Annotated[
        list[str] | None,
        typer.Option(help=f"A further client; may be repeated. One of {', '.join(list(CLIENTS)[2:])}."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured to a file.")
    ] = None,
) -> None:
    """Send the same requests through aiohttp and through wirespeed, and compare what they cost."""
    out, err = _console(stderr=False), _console(stderr=True)
    try:
        plan = _plan(workload, requests, concurrency, rounds, peer or [])
        if json_file is not None:
            json_file.open("a").close()  # fails now, not after the run
        with _server(plan) as (url, cafile):
            rows = summarise(_measure(plan, url, cafile, err))
        out.print(table(plan, rows))
        for line in notes(plan, rows):
            out.print(line, markup=False, soft_wrap=True)
        if json_file is not None:
            json_file.write_text(json.dumps(document(plan, rows), indent=2) + "\n")
    except (CannotRun, OSError) as exc:
        err.print(f"wirespeed bench: {exc}", markup=False, soft_wrap=True)
        raise typer.Exit(COULD_NOT_RUN) from None


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def _plan(name: str, requests: int | None, concurrency: int | None, rounds: int, peers: list[str]) -> Plan:
    clients = tuple(dict.fromkeys((BASE, "wirespeed", *peers)))
    try:
        workload = find_workload(name)
        specs = [find_client(client) for client in clients]
    except LookupError as exc:
        raise CannotRun(exc.args[0]) from None
    if concurrency is not None:
        workload = dataclasses.replace(workload, concurrency=concurrency)
    for client, spec in zip(clients, specs, strict=True):
        refusal = spec.declines(workload)
        if refusal is not None:
            raise CannotRun(f"{client} cannot run {workload.name}: {refusal}")
    return Plan(workload, requests or workload.requests, rounds, clients, *split_cores())


@contextlib.contextmanager
def _server(plan: Plan) -> Iterator[tuple[str, str | None]]:
    """Run the embedded server; yields its URL and the file of the authority to trust."""
    with contextlib.ExitStack() as stack:
        made = _certificates(plan.workload, stack)
        tls = None if made is None else (made.certfile, made.keyfile)
        try:
            server = stack.enter_context(ServerProcess(cpu=plan.server_core, tls=tls))
        except RuntimeError as exc:
            raise CannotRun(str(exc)) from exc
        yield server.url, None if made is None else made.cafile


def _certificates(workload: Workload, stack: contextlib.ExitStack) -> Certificates | None:
    if not workload.is_tls:
        return None
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wirespeed-bench-"))
    try:
        return make_certificates(folder)
    except ModuleNotFoundError as exc:
        raise CannotRun(f"{workload.name} needs {exc.name}: pip install {exc.name}") from None


def _measure(plan: Plan, url: str, cafile: str | None, err: Console) -> Records:
    """Run every client once in each round, with a progress bar where there is a terminal."""
    records: Records = {client: [] for client in plan.clients}
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # Few refreshes: the bar shares a core with what is measured.
    with Progress(
        *columns, console=err, transient=True, refresh_per_second=4, disable=not err.is_terminal
    ) as progress:
        task = progress.add_task("starting", total=plan.rounds * len(plan.clients))
        for number in range(1, plan.rounds + 1):
            for client in plan.clients:
                progress.update(task, description=f"round {number} of {plan.rounds}: {CLIENTS[client].title}")
                record = _run_worker(plan, client, url, cafile)
                records[client].append(record)
                progress.advance(task)
                if not err.is_terminal:
                    cost = f"{record['cpu_us_per_request']:.1f} µs of CPU per request"
                    err.print(f"round {number} of {plan.rounds}: {CLIENTS[client].title}: {cost}")
    return records


def _run_worker(plan: Plan, client: str, url: str, cafile: str | None) -> dict[str, Any]:
    """Measure one client in a process of its own.

    Raises:
        CannotRun: it failed, or took too long; its process is gone.
    """
    workload = plan.workload
    command = [sys.executable, "-m", "wirespeed.testing.load", "--url", url, "--client", client]
    command += ["--workload", workload.name, "--concurrency", str(workload.concurrency)]
    command += ["--requests", str(plan.requests)]
    command += ["--no-pin"] if plan.client_core is None else ["--cpu", str(plan.client_core)]
    if cafile is not None:
        command += ["--cafile", cafile]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WORKER_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"{client} did not end within {_WORKER_TIMEOUT:.0f} s") from None
    if done.returncode != 0:
        raise CannotRun(f"{client} failed with exit code {done.returncode}:\n{done.stderr.strip()}")
    record: dict[str, Any] = json.loads(done.stdout)
    return record
