"""`wirespeed bench`: the same requests through aiohttp, through wirespeed and through others, side by side.

What is run and how is in `testing.load.rounds`; here are the options, the progress bar and the
files. Tables are made by `report`, the chart by `chart`.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Final

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

from ..testing.load.clients import BASE, CLIENTS, ClientSpec, find_client
from ..testing.load.results import SUBJECT, Results, Row, collect
from ..testing.load.rounds import Plan, obstacle, run
from ..testing.load.workloads import WORKLOADS, Workload, find_workload
from ..testing.machine import split_cores
from .chart import chart
from .report import COULD_NOT_RUN, notes, tables

_ALL: Final = "all"
_SUBJECT_FAILED: Final = 1
"""Exit code when wirespeed failed on a workload; the table is there all the same."""
_INTERRUPTED: Final = 130
_ROUNDS: Final = 3
_PLAIN_WIDTH: Final = 240
"""Columns of the tables where there is no terminal to ask: every client fits."""
_PEERS: Final = [name for name in CLIENTS if name not in (BASE, SUBJECT)]


class CannotRun(Exception):
    """The benchmark could not be run; the message says why."""


def bench(
    workload: Annotated[
        list[str] | None,
        typer.Option(
            help=f"What to send, json64 if left out; may be repeated. One of {', '.join(WORKLOADS)}; or all, "
            "without gather1m, which takes minutes."
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(help=f"A further client; may be repeated. One of {', '.join(_PEERS)}; or all."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All workloads and all peers, where not chosen otherwise.")
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(min=1, help=f"Rounds, {_ROUNDS} if left out; the median is shown.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Requests per round; the workload's own number if left out.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests in flight; the workload's own number if left out.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke run: few requests, one round. Its figures mean nothing.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured to a file.")
    ] = None,
    svg_file: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw a chart.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Show what --json has written; nothing is measured."),
    ] = None,
) -> None:
    """Send the same requests through aiohttp, wirespeed and other clients, and compare what they cost."""
    out, err = _console(stderr=False), _console(stderr=True)
    try:
        for file in filter(None, (json_file, svg_file)):
            file.open("a").close()  # fails now, not after the run
        if source is not None:
            results, code = _read(source), 0
        else:
            workloads = _workloads(workload or [_ALL if everything else "json64"], concurrency)
            clients = _clients(peer or ([_ALL] if everything else []))
            count = rounds or (1 if quick else _ROUNDS)
            plan = Plan(workloads, clients, count, *split_cores(), requests, quick)
            results, code = _measure(plan, json_file, err)
        _show(results, out)
        if json_file is not None:
            _write(json_file, results.to_json())
        if svg_file is not None:
            _write(svg_file, chart(results))
    except (CannotRun, OSError) as exc:
        err.print(f"wirespeed bench: {exc}", markup=False, soft_wrap=True)
        raise typer.Exit(COULD_NOT_RUN) from None
    raise typer.Exit(code)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    return console


def _workloads(names: list[str], concurrency: int | None) -> tuple[Workload, ...]:
    found: dict[str, Workload] = {}
    for name in names:
        try:
            chosen = (
                [each for each in WORKLOADS.values() if not each.is_long]
                if name == _ALL
                else [find_workload(name)]
            )
        except LookupError as exc:
            raise CannotRun(exc.args[0]) from None
        found |= {each.name: each for each in chosen}
    if concurrency is None:
        return tuple(found.values())
    return tuple(dataclasses.replace(each, concurrency=concurrency) for each in found.values())


def _clients(peers: list[str]) -> tuple[str, ...]:
    """Resolve the peers asked for; all of them may hold some that are not installed, which the notes say."""
    names = [BASE, SUBJECT]
    for peer in peers:
        if peer == _ALL:
            names += _PEERS
            continue
        try:
            names.append(find_client(peer).name)
        except LookupError as exc:
            raise CannotRun(exc.args[0]) from None
    return tuple(dict.fromkeys(names))


def _read(file: Path) -> Results:
    try:
        return Results.from_json(file.read_text("utf-8"))
    except ValueError as exc:
        raise CannotRun(f"{file}: {exc}") from None


def _write(file: Path, text: str) -> None:
    file.write_text(text, "utf-8", newline="\n")


def _show(results: Results, out: Console) -> None:
    for table in tables(results, out.width):
        out.print(table)
        out.print()
    for line in notes(results):
        out.print(line, markup=False, soft_wrap=True)


def _measure(plan: Plan, json_file: Path | None, err: Console) -> tuple[Results, int]:
    """Run the plan; what is done is kept when the rest is interrupted, and written as it comes."""
    rows: list[Row] = []
    cores = (plan.server_core, plan.client_core)
    code = 0
    with _Progress(plan, err) as progress:
        try:
            for row in run(plan, progress):
                rows.append(row)
                if json_file is not None:
                    results = collect(rows, rounds=plan.rounds, cores=cores, quick=plan.quick)
                    _write(json_file, results.to_json())
        except KeyboardInterrupt:
            if not rows:
                raise
            code = _INTERRUPTED
    cells = (row.cell(SUBJECT) for row in rows)
    if code == 0 and any(cell is not None and cell.failed is not None for cell in cells):
        code = _SUBJECT_FAILED
    return collect(rows, rounds=plan.rounds, cores=cores, quick=plan.quick), code


class _Progress:
    """A bar where there is a terminal, a line for each round where there is none."""

    def __init__(self, plan: Plan, err: Console) -> None:
        self._plan = plan
        self._err = err
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        # Few refreshes: the bar shares a core with what is measured.
        self._bar = Progress(
            *columns, console=err, transient=True, refresh_per_second=4, disable=not err.is_terminal
        )
        able = sum(
            obstacle(CLIENTS[client], workload, quick=plan.quick) is None
            for workload in plan.workloads
            for client in plan.clients
        )
        self._task = self._bar.add_task("starting", total=plan.rounds * able)

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def round_starts(self, workload: Workload, client: ClientSpec, number: int) -> None:
        self._bar.update(self._task, description=self._describe(workload, client, number))

    def round_ends(self, workload: Workload, client: ClientSpec, number: int, outcome: str) -> None:
        self._bar.advance(self._task)
        if not self._err.is_terminal:
            line = f"{self._describe(workload, client, number)}: {outcome}"
            self._err.print(line, markup=False, soft_wrap=True)

    def _describe(self, workload: Workload, client: ClientSpec, number: int) -> str:
        return f"{workload.name}, round {number} of {self._plan.rounds}: {client.title}"
