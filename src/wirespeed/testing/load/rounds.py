"""A run of several clients on several workloads, of which no client can spoil more than its own cell.

The server and every client run in processes of their own, each on its own core where the
platform can pin; clients take turns round by round, so that a slow moment hits them alike. A
client that crashes, hangs or gets wrong answers is left out of the rounds that follow on that
workload; each workload has a server of its own.
"""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..certificates import make_certificates
from ..process import ServerProcess
from .clients import CLIENTS, ClientSpec
from .results import Outcome, Row, summarise
from .workloads import Workload

QUICK_DIVISOR: Final = 50
"""How many times fewer requests a quick run sends."""
_QUICK_COST: Final = 10_000
"""A client's relative cost times the requests in flight that a quick run still has time for."""
_TIME_LIMIT: Final = 300.0
"""Seconds for one client's round, the slowest workload on a slow machine included."""
_LONG_TIME_LIMIT: Final = 3_600.0
"""Seconds for a round of a workload that takes minutes."""
_QUICK_TIME_LIMIT: Final = 60.0
_MESSAGE_LENGTH: Final = 300
"""Characters kept of what a failed client said."""


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        workloads: what is sent, each with the concurrency of this run.
        clients: names, in the order of the table.
        rounds: every client runs once in each.
        server_core: core of the server; None leaves it to the system.
        client_core: core of the clients; None leaves it to the system.
        requests: of one round; None takes each workload's own number.
        quick: few requests, to see that everything runs.
    """

    workloads: tuple[Workload, ...]
    clients: tuple[str, ...]
    rounds: int
    server_core: int | None
    client_core: int | None
    requests: int | None = None
    quick: bool = False


class Watcher(Protocol):
    """Is told how a run goes on."""

    def round_starts(self, workload: Workload, client: ClientSpec, number: int) -> None: ...

    def round_ends(self, workload: Workload, client: ClientSpec, number: int, outcome: str) -> None: ...


class Failed(Exception):
    """A round gave no figures; the message says why."""


def obstacle(spec: ClientSpec, workload: Workload, *, quick: bool = False) -> str | None:
    """Tell why a client cannot run a workload here; None when it can."""
    reason = spec.missing() or spec.declines(workload)
    if reason is None and quick and spec.relative_cost * workload.concurrency > _QUICK_COST:
        return "too slow for a quick run"
    return reason


def requests_of(workload: Workload, spec: ClientSpec | None = None, *, quick: bool = False) -> int:
    """Return how many requests a round of the workload sends; of a costly client fewer."""
    # Not of a gather: its figures are those of so many tasks.
    cost = 1 if spec is None or workload.is_gather else spec.relative_cost
    return max(workload.requests // cost // (QUICK_DIVISOR if quick else 1), workload.concurrency)


def run(plan: Plan, watcher: Watcher) -> Iterator[Row]:
    """Run a plan; yields each workload's row when it is done.

    Args:
        plan: what to run.
        watcher: is told of each round.
    """
    for workload in plan.workloads:
        outcomes = {
            name: Outcome(declined=obstacle(CLIENTS[name], workload, quick=plan.quick))
            for name in plan.clients
        }
        try:
            with _serve(workload, plan.server_core) as (url, cafile):
                for number in range(1, plan.rounds + 1):
                    for name, outcome in outcomes.items():
                        if outcome.declined is None and outcome.failed is None:
                            _run_round(plan, workload, CLIENTS[name], number, (url, cafile), outcome, watcher)
        except Failed as exc:
            for outcome in outcomes.values():
                if outcome.declined is None:
                    outcome.failed = str(exc)
        requests = plan.requests or requests_of(workload, quick=plan.quick)
        yield summarise(workload, requests, outcomes, quick=plan.quick)


def _run_round(
    plan: Plan,
    workload: Workload,
    spec: ClientSpec,
    number: int,
    server: tuple[str, str | None],
    outcome: Outcome,
    watcher: Watcher,
) -> None:
    watcher.round_starts(workload, spec, number)
    try:
        record = _run_worker(plan, workload, spec, *server)
    except Failed as exc:
        outcome.failed = str(exc)
        watcher.round_ends(workload, spec, number, f"failed: {exc}")
    else:
        outcome.records.append(record)
        cost = f"{record['cpu_us_per_request']:,.1f} µs of CPU per request"
        watcher.round_ends(workload, spec, number, cost)


@contextlib.contextmanager
def _serve(workload: Workload, core: int | None) -> Iterator[tuple[str, str | None]]:
    """Run the embedded server; yields its URL and the file of the authority to trust."""
    with contextlib.ExitStack() as stack:
        tls, cafile = None, None
        try:
            if workload.is_tls:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wirespeed-bench-"))
                made = make_certificates(folder)
                tls, cafile = (made.certfile, made.keyfile), made.cafile
            server = stack.enter_context(ServerProcess(cpu=core, tls=tls))
        except ModuleNotFoundError as exc:
            raise Failed(f"{workload.name} needs {exc.name}: pip install {exc.name}") from None
        except RuntimeError as exc:
            raise Failed(str(exc)) from exc
        yield server.url, cafile


def _run_worker(
    plan: Plan, workload: Workload, spec: ClientSpec, url: str, cafile: str | None
) -> dict[str, Any]:
    """Measure one client in a process of its own.

    Raises:
        Failed: it gave no figures, or took too long; its process is gone.
    """
    requests = plan.requests or requests_of(workload, spec, quick=plan.quick)
    command = [sys.executable, "-m", __package__, "--url", url, "--client", spec.name]
    command += ["--workload", workload.name, "--concurrency", str(workload.concurrency)]
    command += ["--requests", str(requests)]
    command += ["--no-pin"] if plan.client_core is None else ["--cpu", str(plan.client_core)]
    if cafile is not None:
        command += ["--cafile", cafile]
    limit = _LONG_TIME_LIMIT if workload.is_long else _TIME_LIMIT
    limit = _QUICK_TIME_LIMIT if plan.quick else limit
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"no end within {limit:g} s") from None
    return read_record(done.returncode, done.stdout, done.stderr)


def read_record(code: int, stdout: str, stderr: str) -> dict[str, Any]:
    """Read what a measuring process left behind.

    Args:
        code: its exit code; a signal's number below 0.
        stdout: its record is the last line.
        stderr: its last line is the reason where there is no record.

    Returns:
        The record; with a field `ending` where the process went wrong afterwards, as some that have
        threads of their own do when the interpreter ends.

    Raises:
        Failed: it ended without figures; the message says why.
    """
    lines = stdout.splitlines()
    try:
        record = json.loads(lines[-1]) if lines else None
    except ValueError:
        record = None
    if isinstance(record, dict) and "error" in record:
        raise Failed(_short(record["error"]))
    ending = _short(": ".join((_ending(code), *stderr.strip().splitlines()[-1:])))
    if not isinstance(record, dict):
        raise Failed(ending)
    return record if code == 0 else {**record, "ending": ending}


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


def _short(message: str) -> str:
    message = " ".join(message.split())
    return message if len(message) <= _MESSAGE_LENGTH else message[: _MESSAGE_LENGTH - 1] + "…"
