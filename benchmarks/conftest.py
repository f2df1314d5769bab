"""The harness: N requests in one `run_until_complete` per round, CPU beside time, one table at the end.

pytest-benchmark times a plain function, so a round is a function that drives a client's own loop
through a whole workload (`wirespeed.testing.load.measure.LoadRun`). The server runs in another
process on another core; this process is pinned to the last one.
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from nginx_server import find_nginx, nginx_version, run_nginx

import wirespeed
from wirespeed.testing.certificates import Certificates, make_certificates
from wirespeed.testing.load.clients import BASE, CLIENTS, ClientSpec, Target
from wirespeed.testing.load.measure import LoadRun, Sample
from wirespeed.testing.load.workloads import WORKLOADS, Workload
from wirespeed.testing.machine import cpu_model, pin, raise_file_limit, split_cores, usable_cores
from wirespeed.testing.process import ServerProcess

QUICK_DIVISOR = 50
"""How many times fewer requests `--quick` sends."""
QUICK_COST = 10_000
"""A client's relative cost times the requests in flight that `--quick` still has time for."""
CASE_TIMEOUT = 900
"""Seconds for one case, all rounds included."""
PACKAGES = ("aiohttp", "httptools", "uvloop", "aiofastnet", "httpx", "pyreqwest")


@dataclass(frozen=True)
class Case:
    """One cell of the table: a client on a workload."""

    workload: Workload
    client: ClientSpec

    def obstacle(self, quick: bool) -> str | None:
        """Tell why it cannot run here, or None."""
        reason = self.client.missing() or self.client.declines(self.workload)
        if reason is None and quick and self.client.relative_cost * self.workload.concurrency > QUICK_COST:
            return "too slow for --quick"
        return reason


@dataclass
class Results:
    """What the run gathered for its summary."""

    cells: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)


RESULTS = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("wirespeed")
    group.addoption("--server", choices=("embedded", "nginx"), default="embedded", help="who answers")
    group.addoption("--quick", action="store_true", help="a smoke run: few requests, one round")
    group.addoption("--rounds", type=int, default=3, help="measured rounds of each case")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = Results()
    if config.getoption("--server") == "nginx" and find_nginx() is None:
        raise pytest.UsageError("--server nginx: nginx is not installed")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        # Workload first, so that the clients of one workload run next to each other.
        cases = [Case(workload, client) for workload in WORKLOADS.values() for client in CLIENTS.values()]
        ids = [f"{case.workload.name}-{case.client.name}" for case in cases]
        metafunc.parametrize("case", cases, ids=ids)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot run, and keep the reason for the summary."""
    kept, dropped = [], []
    for item in items:
        case = _case_of(item)
        obstacle = None if case is None else case.obstacle(config.getoption("--quick"))
        if case is None or obstacle is None:
            item.add_marker(pytest.mark.timeout(CASE_TIMEOUT))
            kept.append(item)
        else:
            reason = f"{case.client.title}: {obstacle}"
            config.stash[RESULTS].skipped.setdefault(reason, []).append(case.workload.name)
            dropped.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def _case_of(item: pytest.Item) -> Case | None:
    callspec = getattr(item, "callspec", None)
    case = None if callspec is None else callspec.params.get("case")
    return case if isinstance(case, Case) else None


@pytest.fixture(scope="session")
def client_core() -> Iterator[int | None]:
    """Pin this process to the last usable core, for the session."""
    cores, (_, core) = usable_cores(), split_cores()
    raise_file_limit()
    if core is not None:
        pin(core)
    yield core
    if core is not None:
        os.sched_setaffinity(0, cores)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def target_of(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificates: Certificates,
) -> Iterator[Callable[[Workload], Target]]:
    """Start a plain and a TLS server when first wanted, on the first core, for the session."""
    server_core, _ = split_cores()
    urls: dict[bool, str] = {}
    with contextlib.ExitStack() as stack:

        def start(tls: Certificates | None) -> str:
            if request.config.getoption("--server") == "nginx":
                folder = tmp_path_factory.mktemp("nginx")
                return stack.enter_context(run_nginx(folder, server_core, tls))
            pair = None if tls is None else (tls.certfile, tls.keyfile)
            return stack.enter_context(ServerProcess(cpu=server_core, tls=pair)).url

        def target(workload: Workload) -> Target:
            tls = certificates if workload.is_tls else None
            if workload.is_tls not in urls:
                urls[workload.is_tls] = start(tls)
            return Target(urls[workload.is_tls], workload, None if tls is None else tls.cafile)

        yield target


@pytest.fixture
def run_case(
    request: pytest.FixtureRequest,
    benchmark: Any,
    client_core: int | None,
    target_of: Callable[[Workload], Target],
) -> Callable[[Case], None]:
    """Return a function that warms a client up, measures its rounds and records what they cost."""
    quick = request.config.getoption("--quick")
    rounds = 1 if quick else request.config.getoption("--rounds")
    results = request.config.stash[RESULTS]

    def run(case: Case) -> None:
        workload, target = case.workload, target_of(case.workload)
        requests = workload.requests // case.client.relative_cost // (QUICK_DIVISOR if quick else 1)
        requests = max(requests, workload.concurrency)
        samples: list[Sample] = []
        benchmark.group = workload.title
        with LoadRun(case.client, target) as load:
            load.run(max(requests // 10, workload.concurrency))
            benchmark.pedantic(lambda: samples.append(load.run(requests)), rounds=rounds, iterations=1)
            benchmark.extra_info.update(_figures(samples), loop=load.loop_name, lanes=load.lanes())
        if workload.is_gather and not quick:
            benchmark.extra_info["peak_memory_mb"] = _peak_memory(case, target, client_core)
        results.cells[workload.name, case.client.name] = dict(benchmark.extra_info)

    return run


def _figures(samples: list[Sample]) -> dict[str, Any]:
    cpu = [sample.cpu_us_per_request for sample in samples]
    middle = statistics.median(cpu)
    return {
        "requests_per_round": samples[0].requests,
        "cpu_us_per_request": middle,
        "cpu_us_per_request_rounds": cpu,
        "cpu_spread_percent": (max(cpu) - min(cpu)) / middle * 100,
        "requests_per_second": statistics.median(sample.requests_per_second for sample in samples),
    }


def _peak_memory(case: Case, target: Target, core: int | None) -> float | None:
    """Measure memory in a process that did nothing else."""
    command = [sys.executable, "-m", "wirespeed.testing.load", "--url", target.url]
    command += ["--client", case.client.name, "--workload", case.workload.name]
    command += ["--no-pin"] if core is None else ["--cpu", str(core)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=CASE_TIMEOUT)
    peak: float | None = json.loads(done.stdout)["peak_memory_mb"]
    return peak


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["wirespeed"] = {"version": wirespeed.__version__, "native": wirespeed.NATIVE}
    machine_info["versions"] = _versions()
    machine_info["server"] = _server_name(config)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _server_name(config: pytest.Config) -> str:
    program = find_nginx()
    if config.getoption("--server") == "nginx" and program is not None:
        return nginx_version(program).removeprefix("nginx version: ")
    return "embedded server"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print CPU per request, and its ratio to aiohttp, for every case that ran."""
    results = config.stash[RESULTS]
    write = terminalreporter.write_line
    if results.skipped:
        terminalreporter.section("not measured here")
        for reason, workloads in results.skipped.items():
            write(f"{reason} ({', '.join(dict.fromkeys(workloads))})")
    if not results.cells:
        return
    terminalreporter.section("CPU per request")
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    native = "native" if wirespeed.NATIVE else "WITHOUT its native core: aiohttp's own code runs"
    write(f"wirespeed {wirespeed.__version__} ({native}), Python {platform.python_version()}, {versions}")
    write(f"{cpu_model()}, server: {_server_name(config)}; median of the rounds, ± half their spread")
    if config.getoption("--quick"):
        write("--quick: too few requests to compare anything; it only shows that everything runs")
    for workload in WORKLOADS.values():
        _write_workload(write, workload, results.cells)


def _write_workload(
    write: Callable[[str], None], workload: Workload, cells: dict[tuple[str, str], dict[str, Any]]
) -> None:
    rows = [(name, cells[workload.name, name]) for name in CLIENTS if (workload.name, name) in cells]
    if not rows:
        return
    write("")
    write(f"{workload.title:34} {'µs CPU':>10} {'± %':>6} {'less CPU':>9} {'req/s':>9}")
    base = cells.get((workload.name, BASE))
    for name, cell in rows:
        cpu = cell["cpu_us_per_request"]
        ratio = "-" if base is None else f"{base['cpu_us_per_request'] / cpu:.2f}x"
        line = f"  {CLIENTS[name].title:32} {cpu:10,.1f} {cell['cpu_spread_percent'] / 2:6.1f} {ratio:>9}"
        line += f" {cell['requests_per_second']:9,.0f}"
        if cell.get("peak_memory_mb"):
            line += f"  peak {cell['peak_memory_mb']:,.0f} MB"
        if cell["lanes"] is not None and cell["lanes"]["full"]:
            line += f"  full lane: {cell['lanes']['full']}"
        write(line)
