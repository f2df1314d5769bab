"""Figures of `wirespeed bench`: from the rounds' records to a table and a JSON document.

Pure but for `describe_machine`: what was measured comes in, what is shown goes out.
"""

import importlib.metadata
import os
import platform
import statistics
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.table import Table

from .._switch import NATIVE
from .._version import __version__
from ..testing.load.clients import BASE, CLIENTS
from ..testing.load.workloads import Workload
from ..testing.machine import cpu_model, usable_cores

SCHEMA: Final = 1
"""Version of the JSON document; raised when a field changes its meaning or goes."""
_PACKAGES: Final = ("aiohttp", "httptools", "uvloop", "winloop", "aiofastnet", "httpx", "pyreqwest")

COULD_NOT_RUN: Final = 2
"""Exit code when a command could not do its work; typer's own for a bad command line."""


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        workload: what is sent, with the concurrency of this run.
        requests: requests measured in one round of one client.
        rounds: rounds; every client runs once in each.
        clients: names, in the order of the table.
        server_core: core of the server; None leaves it to the system.
        client_core: core of the clients; None leaves it to the system.
    """

    workload: Workload
    requests: int
    rounds: int
    clients: tuple[str, ...]
    server_core: int | None
    client_core: int | None


@dataclass(frozen=True)
class Row:
    """One client over all rounds: medians, and the records they come from.

    Attributes:
        cpu_spread_percent: distance from the lowest to the highest round, against the median.
        ratio: how many times less CPU than aiohttp: the median of each round's ratio, so that a
            slow round weighs on both sides; None where aiohttp did not run.
        express_share: part of wirespeed's requests on the express lane, 0 to 1; None for others.
    """

    name: str
    title: str
    loop: str
    requests_per_second: float
    cpu_us_per_request: float
    cpu_spread_percent: float
    p50_ms: float | None
    p99_ms: float | None
    peak_memory_mb: float | None
    ratio: float | None
    express_share: float | None
    rounds: tuple[dict[str, Any], ...]


def summarise(records: dict[str, list[dict[str, Any]]]) -> list[Row]:
    """Take the median over the rounds.

    Args:
        records: for each client, a record of `load.measure.measure` for each round.

    Returns:
        A row for each client, in the order given.
    """
    base = _cpu(records[BASE]) if BASE in records else None
    return [_row(name, rounds, base) for name, rounds in records.items()]


def _cpu(rounds: list[dict[str, Any]]) -> list[float]:
    return [float(record["cpu_us_per_request"]) for record in rounds]


def _row(name: str, rounds: list[dict[str, Any]], base: list[float] | None) -> Row:
    cpu = _cpu(rounds)
    middle = statistics.median(cpu)
    return Row(
        name=name,
        title=CLIENTS[name].title,
        loop=rounds[0]["loop"],
        requests_per_second=_median(rounds, "requests_per_second") or 0.0,
        cpu_us_per_request=middle,
        cpu_spread_percent=round((max(cpu) - min(cpu)) / middle * 100, 1),
        p50_ms=_median(rounds, "p50_ms"),
        p99_ms=_median(rounds, "p99_ms"),
        peak_memory_mb=_median(rounds, "peak_memory_mb"),
        ratio=None if base is None else round(_median_ratio(base, cpu), 2),
        express_share=_express_share(rounds),
        rounds=tuple(rounds),
    )


def _median_ratio(base: list[float], cpu: list[float]) -> float:
    return statistics.median(theirs / ours for theirs, ours in zip(base, cpu, strict=True))


def _median(rounds: list[dict[str, Any]], field: str) -> float | None:
    values = [record[field] for record in rounds if record[field] is not None]
    return statistics.median(values) if values else None


def _express_share(rounds: list[dict[str, Any]]) -> float | None:
    counted = [record["lanes"] for record in rounds if record["lanes"] is not None]
    express = sum(lanes["express"] for lanes in counted)
    total = express + sum(sum(lanes["full"].values()) for lanes in counted)
    return express / total if total else None


def full_lane_reasons(row: Row) -> dict[str, int]:
    """Return how many of a client's requests took the full lane, by reason."""
    reasons: dict[str, int] = {}
    for record in row.rounds:
        for reason, count in (record["lanes"] or {"full": {}})["full"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    return reasons


def describe_machine(plan: Plan) -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, system."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable_cores()) or os.cpu_count(),
        "system": platform.platform(),
        "server_core": plan.server_core,
        "client_core": plan.client_core,
    }


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages measured, where installed."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def document(plan: Plan, rows: list[Row]) -> dict[str, Any]:
    """Return everything measured, as JSON-able values.

    Args:
        plan: what was run.
        rows: from `summarise`.

    Returns:
        Keys `schema`, `wirespeed`, `versions`, `machine`, `workload` and `clients`.
    """
    workload = plan.workload
    clients = [{**vars(row), "rounds": list(row.rounds)} for row in rows]
    return {
        "schema": SCHEMA,
        "wirespeed": {"version": __version__, "native": NATIVE},
        "versions": installed_versions(),
        "machine": describe_machine(plan),
        "workload": {
            "name": workload.name,
            "title": workload.title,
            "concurrency": workload.concurrency,
            "requests": plan.requests,
            "rounds": plan.rounds,
        },
        "clients": clients,
    }


def table(plan: Plan, rows: list[Row]) -> Table:
    """Return the table of the terminal; the title says what was sent."""
    workload = plan.workload
    shown = Table(
        title=f"{workload.title}: {plan.requests:,} requests, {workload.concurrency} in flight",
        box=box.SIMPLE_HEAD,  # eight columns in a terminal of eighty
    )
    shown.add_column("client")
    for heading in ("req/s", "CPU µs/req", "± %", "p50 ms", "p99 ms", "peak MB", "times less CPU"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            row.title,
            f"{row.requests_per_second:,.0f}",
            f"{row.cpu_us_per_request:,.1f}",
            f"{row.cpu_spread_percent / 2:.1f}",
            _number(row.p50_ms, ".3f"),
            _number(row.p99_ms, ".3f"),
            _number(row.peak_memory_mb, ",.0f"),
            _number(row.ratio, ".2f"),
        )
    return shown


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def notes(plan: Plan, rows: list[Row]) -> list[str]:
    """Return the lines below the table: lanes, versions, loop, machine, method."""
    lines = []
    if not NATIVE:
        lines.append(
            "wirespeed runs WITHOUT its native core here: its requests run on aiohttp's own code, "
            "so the two cost the same."
        )
    for row in rows:
        if row.express_share is None:
            continue
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in full_lane_reasons(row).items())
        line = f"{row.title}: {row.express_share:.1%} of its requests took the express lane"
        lines.append(f"{line} (full lane: {reasons})." if reasons else f"{line}.")
    machine = describe_machine(plan)
    pinned = (
        "server and clients not pinned"
        if plan.client_core is None
        else f"server on core {plan.server_core}, clients on core {plan.client_core}"
    )
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    loops = ", ".join(dict.fromkeys(row.loop for row in rows))
    lines += [
        f"wirespeed {__version__} ({'native' if NATIVE else 'not native'}); {versions}; loop: {loops}.",
        f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores usable, {pinned}; "
        f"{machine['system']}.",
        f"Median of {plan.rounds} round{'s' * (plan.rounds > 1)}, clients in turn, each in a process of its "
        "own. CPU is user and system time of the client's process; ± is half the spread between rounds; the "
        "last column is against aiohttp, round by round.",
    ]
    return lines
