"""Figures of a run: from the records of its rounds to what tables and charts show, to JSON and back.

Pure but for `describe_machine` and `installed_versions`: what was measured comes in, what is
shown goes out. The fields of the classes are the fields of the JSON document.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from ..._switch import NATIVE
from ..._version import __version__
from ..machine import cpu_model, usable_cores
from .clients import BASE, CLIENTS
from .workloads import Workload

SCHEMA: Final = 2
"""Version of the JSON document; raised when a field changes its meaning or goes."""
SUBJECT: Final = "wirespeed"
"""The client that goals are set for."""


@dataclass
class Outcome:
    """What became of one client on one workload, while its rounds are run.

    Attributes:
        records: of `measure.measure`, one for each round.
        declined: why it cannot run the workload; None when it can.
        failed: what went wrong; None so far.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    declined: str | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Cell:
    """One client on one workload over all rounds: medians, and the records they come from.

    Figures are None where it was not measured, and where a figure could not be taken.

    Attributes:
        declined: why it cannot run the workload.
        failed: what went wrong; then only `rounds` tells of the rounds before.
        cpu_spread_percent: distance from the lowest to the highest round, against the median;
            None with a single round.
        ratio: how many times less CPU than aiohttp: the median of each round's ratio, so that a
            slow round weighs on both sides.
        ratio_spread_percent: the same distance between the rounds' ratios.
        express_share: part of wirespeed's requests on the express lane, 0 to 1.
    """

    name: str
    title: str
    declined: str | None = None
    failed: str | None = None
    loop: str | None = None
    requests_per_second: float | None = None
    cpu_us_per_request: float | None = None
    cpu_spread_percent: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    peak_memory_mb: float | None = None
    ratio: float | None = None
    ratio_spread_percent: float | None = None
    express_share: float | None = None
    rounds: tuple[dict[str, Any], ...] = ()

    def full_lane_reasons(self) -> dict[str, int]:
        """Return how many of wirespeed's requests took the full lane, by reason."""
        reasons: dict[str, int] = {}
        for record in self.rounds:
            for reason, count in (record["lanes"] or {"full": {}})["full"].items():
                reasons[reason] = reasons.get(reason, 0) + count
        return reasons


@dataclass(frozen=True)
class Row:
    """All clients on one workload.

    Attributes:
        requests: of one round; of costly clients fewer.
        goal: see `Workload.goal`.
        memory_goal_mb: see `Workload.memory_goal_mb`.
        goal_met: whether wirespeed meets both; None without a goal, and where it cannot be told.
        clients: in the order of the table.
    """

    name: str
    title: str
    concurrency: int
    requests: int
    goal: float | None
    memory_goal_mb: float | None
    goal_met: bool | None
    clients: tuple[Cell, ...]

    def cell(self, client: str) -> Cell | None:
        """Return a client's cell; None when it was not asked for."""
        return next((cell for cell in self.clients if cell.name == client), None)


@dataclass(frozen=True)
class Results:
    """A whole run.

    Attributes:
        wirespeed: its `version`, and whether it is `native`.
        versions: of Python and of the packages measured.
        machine: see `describe_machine`.
        rounds: of each client on each workload.
        quick: too few requests to compare anything.
        workloads: in the order of the table.
    """

    wirespeed: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    rounds: int
    quick: bool
    workloads: tuple[Row, ...]

    def to_json(self) -> str:
        """Return the JSON document, which ends with a line break."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Results":
        """Read what `to_json` has written.

        Raises:
            ValueError: it is something else, or of another schema.
        """
        found = json.loads(text)
        schema = found.pop("schema", None) if isinstance(found, dict) else None
        if schema != SCHEMA:
            raise ValueError(f"not results of this version: schema {schema}, expected {SCHEMA}")
        try:
            found["workloads"] = tuple(_row(row) for row in found["workloads"])
            return cls(**found)
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not results of schema {SCHEMA}: {exc}") from exc


def _row(found: dict[str, Any]) -> Row:
    cells = tuple(Cell(**{**cell, "rounds": tuple(cell["rounds"])}) for cell in found["clients"])
    return Row(**{**found, "clients": cells})


def collect(
    rows: Iterable[Row], *, rounds: int, cores: tuple[int | None, int | None], quick: bool = False
) -> Results:
    """Put rows together with what their figures depend on.

    Args:
        rows: from `summarise`.
        rounds: of each client on each workload.
        cores: of the server and of the clients; None where the system chose.
        quick: too few requests to compare anything.
    """
    return Results(
        wirespeed={"version": __version__, "native": NATIVE},
        versions=installed_versions(),
        machine=describe_machine(*cores),
        rounds=rounds,
        quick=quick,
        workloads=tuple(rows),
    )


def summarise(workload: Workload, requests: int, outcomes: dict[str, Outcome], *, quick: bool = False) -> Row:
    """Take the medians over the rounds.

    Args:
        workload: what was sent.
        requests: of one round.
        outcomes: of each client by name, in the order of the table.
        quick: too few requests to say whether a goal is met.
    """
    base = outcomes.get(BASE)
    base_cpu = _cpu(base.records) if base is not None and base.failed is None else []
    cells = tuple(_cell(name, outcome, base_cpu) for name, outcome in outcomes.items())
    subject = next((cell for cell in cells if cell.name == SUBJECT), None)
    return Row(
        name=workload.name,
        title=workload.title,
        concurrency=workload.concurrency,
        requests=requests,
        goal=workload.goal,
        memory_goal_mb=workload.memory_goal_mb,
        goal_met=None if subject is None or quick else _goal_met(workload, subject),
        clients=cells,
    )


def _goal_met(workload: Workload, cell: Cell) -> bool | None:
    if workload.goal is None and workload.memory_goal_mb is None:
        return None
    if cell.failed is not None:
        return False
    met: list[bool | None] = []
    if workload.goal is not None:
        met.append(None if cell.ratio is None else cell.ratio >= workload.goal)
    if workload.memory_goal_mb is not None:
        peak = cell.peak_memory_mb
        met.append(None if peak is None else peak < workload.memory_goal_mb)
    return False if False in met else None if None in met else True


def _cell(name: str, outcome: Outcome, base_cpu: list[float]) -> Cell:
    title, rounds = CLIENTS[name].title, outcome.records
    if outcome.declined is not None or outcome.failed is not None or not rounds:
        return Cell(name, title, outcome.declined, outcome.failed, rounds=tuple(rounds))
    cpu = _cpu(rounds)
    ratios = [theirs / ours for theirs, ours in zip(base_cpu, cpu, strict=True)] if base_cpu else []
    return Cell(
        name=name,
        title=title,
        loop=rounds[0]["loop"],
        requests_per_second=_median(rounds, "requests_per_second"),
        cpu_us_per_request=statistics.median(cpu),
        cpu_spread_percent=_spread_percent(cpu),
        p50_ms=_median(rounds, "p50_ms"),
        p99_ms=_median(rounds, "p99_ms"),
        peak_memory_mb=_median(rounds, "peak_memory_mb"),
        ratio=round(statistics.median(ratios), 2) if ratios else None,
        ratio_spread_percent=_spread_percent(ratios),
        express_share=_express_share(rounds),
        rounds=tuple(rounds),
    )


def _cpu(rounds: list[dict[str, Any]]) -> list[float]:
    return [float(record["cpu_us_per_request"]) for record in rounds]


def _spread_percent(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    return round((max(values) - min(values)) / statistics.median(values) * 100, 1)


def _median(rounds: list[dict[str, Any]], name: str) -> float | None:
    values = [record[name] for record in rounds if record[name] is not None]
    return statistics.median(values) if values else None


def _express_share(rounds: list[dict[str, Any]]) -> float | None:
    counted = [record["lanes"] for record in rounds if record["lanes"] is not None]
    express: int = sum(lanes["express"] for lanes in counted)
    total = express + sum(sum(lanes["full"].values()) for lanes in counted)
    return express / total if total else None


def describe_machine(server_core: int | None, client_core: int | None) -> dict[str, Any]:
    """Return what figures depend on: processor, cores, and the system with its kernel."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(usable_cores()) or os.cpu_count(),
        "system": platform.platform(),
        "server_core": server_core,
        "client_core": client_core,
    }


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, of what aiohttp and wirespeed run on, and of the clients installed."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    needed = (module for spec in CLIENTS.values() for module in spec.needs if module != SUBJECT)
    for package in dict.fromkeys(("aiohttp", "uvloop", "winloop", "httptools", *needed)):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
