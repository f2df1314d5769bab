"""Results of `wirespeed bench` for a terminal: one workload in detail, or several with their goals."""

from collections.abc import Iterator
from typing import Final

from rich import box
from rich.table import Table

from ..testing.load.clients import BASE
from ..testing.load.results import SUBJECT, Cell, Results, Row

COULD_NOT_RUN: Final = 2
"""Exit code when a command could not do its work; typer's own for a bad command line."""

QUICK: Final = "A quick run: too few requests to compare anything; it only shows that everything runs."
"""What stands below such a run's figures."""

_TITLE_WIDTH: Final = 26
"""Columns of a workload's title in the overview; longer ones wrap."""
_GOAL_WIDTH: Final = 10
_CELL_WIDTH: Final = 11
"""Columns of a client's figures in the overview: "12.34x ±10%"."""
_GAP: Final = 2
"""Columns between two others."""


def tables(results: Results, width: int) -> list[Table]:
    """Return the tables of a run: with one workload in detail, with several as an overview.

    Args:
        results: what was measured.
        width: columns of the terminal. Clients that do not fit get a table of their own.
    """
    if len(results.workloads) == 1:
        return [_detail(results.workloads[0])]
    peers = [name for name in _measured(results) if name not in (BASE, SUBJECT)]
    room = (width - _TITLE_WIDTH) // (_CELL_WIDTH + _GAP)
    first = max(room - 3, 0)  # aiohttp, wirespeed and the goal
    made = [_overview(results, [BASE, SUBJECT, *peers[:first]], has_goal=True)]
    rest, each = peers[first:], max(room, 1)
    made += [_overview(results, rest[i : i + each], has_goal=False) for i in range(0, len(rest), each)]
    return made


def _measured(results: Results) -> list[str]:
    """The clients with something to show in at least one row."""
    cells = (cell for row in results.workloads for cell in row.clients if cell.declined is None)
    return list(dict.fromkeys(cell.name for cell in cells))


def _overview(results: Results, clients: list[str], *, has_goal: bool) -> Table:
    titles = {cell.name: cell.title for row in results.workloads for cell in row.clients}
    shown = Table(
        title="CPU µs per request, and how many times less than aiohttp's (± half the spread)",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    shown.add_column("workload", width=_TITLE_WIDTH - _GAP)
    for name in clients:
        shown.add_column(titles.get(name, name), justify="right", width=_CELL_WIDTH, overflow="fold")
        if has_goal and name == SUBJECT:
            shown.add_column("goal", width=_GOAL_WIDTH)
    for row in results.workloads:
        figures = []
        for name in clients:
            figures.append(_figures(row, row.cell(name)))
            if has_goal and name == SUBJECT:
                figures.append(_goal(row))
        shown.add_row(row.title, *figures, end_section=True)
    return shown


def _figures(row: Row, cell: Cell | None) -> str:
    if cell is None or cell.declined is not None:
        return "-"
    if cell.cpu_us_per_request is None:
        return "failed"
    lines = [f"{cell.cpu_us_per_request:,.1f}"]
    spread = cell.cpu_spread_percent if cell.name == BASE else cell.ratio_spread_percent
    compared = [] if cell.name == BASE or cell.ratio is None else [f"{cell.ratio:.2f}x"]
    compared += [] if spread is None else [f"±{spread / 2:.0f}%"]
    lines.append(" ".join(compared))
    if row.memory_goal_mb is not None and cell.peak_memory_mb is not None:
        lines.append(f"{cell.peak_memory_mb:,.0f} MB")
    return "\n".join(lines)


def goals(row: Row) -> list[str]:
    """Return what wirespeed shall reach on a workload; empty where nothing was set."""
    found = [] if row.goal is None else [f"{row.goal:.1f}x"]
    return found if row.memory_goal_mb is None else [*found, f"< {row.memory_goal_mb:,.0f} MB"]


def _goal(row: Row) -> str:
    verdict = {True: ["met"], False: ["missed"], None: []}[row.goal_met]
    return "\n".join([*goals(row), *verdict])


def _detail(row: Row) -> Table:
    shown = Table(
        title=f"{row.title}: {row.requests:,} requests, {row.concurrency} in flight",
        box=box.SIMPLE_HEAD,  # eight columns in a terminal of eighty
    )
    shown.add_column("client")
    for heading in ("req/s", "CPU µs/req", "± %", "p50 ms", "p99 ms", "peak MB", "times less CPU"):
        shown.add_column(heading, justify="right")
    for cell in row.clients:
        if cell.declined is not None or cell.failed is not None:
            shown.add_row(cell.title, "-" if cell.failed is None else "failed")
            continue
        spread = cell.cpu_spread_percent
        shown.add_row(
            cell.title,
            _number(cell.requests_per_second, ",.0f"),
            _number(cell.cpu_us_per_request, ",.1f"),
            _number(None if spread is None else spread / 2, ".1f"),
            _number(cell.p50_ms, ".3f"),
            _number(cell.p99_ms, ".3f"),
            _number(cell.peak_memory_mb, ",.0f"),
            _number(cell.ratio, ".2f"),
        )
    return shown


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def notes(results: Results) -> list[str]:
    """Return the lines below the tables: what went wrong, lanes, and what the figures depend on."""
    return [*_troubles(results), *_remarks(results), *facts(results)]


def _troubles(results: Results) -> Iterator[str]:
    for row in results.workloads:
        for cell in row.clients:
            if cell.failed is not None:
                yield f"{row.name}: {cell.title} failed: {cell.failed}."
            for ending in dict.fromkeys(record["ending"] for record in cell.rounds if "ending" in record):
                yield f"{row.name}: {cell.title} had its figures, and then: {ending}."
    rows_of: dict[tuple[str, str], list[str]] = {}
    for row in results.workloads:
        for cell in row.clients:
            if cell.declined is not None:
                rows_of.setdefault((cell.declined, cell.title), []).append(row.name)
    alike: dict[tuple[str, str], list[str]] = {}
    for (reason, title), rows in rows_of.items():
        where = "every workload" if len(rows) == len(results.workloads) else ", ".join(rows)
        alike.setdefault((reason, where), []).append(title)
    for (reason, where), titles in alike.items():
        yield f"Not measured, {reason}: {', '.join(titles)} ({where})."


def _remarks(results: Results) -> Iterator[str]:
    if not results.wirespeed["native"]:
        yield (
            "wirespeed runs WITHOUT its native core here: its requests run on aiohttp's own code, "
            "so the two cost the same."
        )
    is_single = len(results.workloads) == 1
    for row in results.workloads:
        wanted = goals(row)
        if is_single and wanted and row.goal_met is not None:
            yield f"The goal for wirespeed, {' and '.join(wanted)}, is {'met' if row.goal_met else 'missed'}."
        for cell in row.clients:
            if cell.express_share is None or (cell.express_share == 1.0 and not is_single):
                continue
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in cell.full_lane_reasons().items())
            line = f"{row.name}: {cell.express_share:.1%} of {cell.title}'s requests took the express lane"
            yield f"{line} (full lane: {reasons})." if reasons else f"{line}."


def facts(results: Results) -> list[str]:
    """Return what the figures depend on: versions and loops, the machine, the method."""
    rounds = f"{results.rounds} round{'s' * (results.rounds > 1)}"
    lines = [
        *environment(results),
        f"Median of {rounds}, clients in turn, each in a process of its own. CPU is user and system time of "
        "the client's process; ± is half the spread between rounds; the comparison with aiohttp is made "
        "round by round.",
    ]
    return [*lines, QUICK] if results.quick else lines


def environment(results: Results) -> list[str]:
    """Return versions and loops, and the machine."""
    machine, ours = results.machine, results.wirespeed
    pinned = (
        "server and clients not pinned"
        if machine["client_core"] is None
        else f"server on core {machine['server_core']}, clients on core {machine['client_core']}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    cells = [cell for row in results.workloads for cell in row.clients]
    loops = ", ".join(dict.fromkeys(cell.loop for cell in cells if cell.loop is not None))
    return [
        f"wirespeed {ours['version']} ({'native' if ours['native'] else 'not native'}); {versions}; "
        f"loop: {loops or 'none'}.",
        f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores usable, {pinned}; "
        f"{machine['system']}.",
    ]
