"""The harness: N requests in one `run_until_complete` per round, CPU beside time, one table at the end.

pytest-benchmark times a plain function, so a round is a function that drives a client's own loop
through a whole workload (`wirespeed.testing.load.measure.LoadRun`). The server runs in another
process on another core; this process is pinned to the last one.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from nginx_server import find_nginx, nginx_version, run_nginx
from rich.console import Console

from wirespeed.cli.report import QUICK, environment, tables
from wirespeed.testing.certificates import Certificates, make_certificates
from wirespeed.testing.load.clients import CLIENTS, ClientSpec, Target
from wirespeed.testing.load.measure import LoadRun, Sample
from wirespeed.testing.load.results import Outcome, Results, collect, summarise
from wirespeed.testing.load.rounds import obstacle, requests_of
from wirespeed.testing.load.workloads import WORKLOADS, Workload
from wirespeed.testing.machine import pin, raise_file_limit, split_cores, usable_cores
from wirespeed.testing.process import ServerProcess

CASE_TIMEOUT = 900
"""Seconds for one case, all rounds included."""
WIDTH = 240
"""Columns of the summary: every client fits."""


@dataclass(frozen=True)
class Case:
    """One cell of the table: a client on a workload."""

    workload: Workload
    client: ClientSpec

    def obstacle(self, quick: bool) -> str | None:
        """Tell why it cannot run here, or None."""
        if self.workload.is_long:
            return "it takes minutes; see wirespeed bench"
        return obstacle(self.client, self.workload, quick=quick)


@dataclass
class Gathered:
    """What the run gathered for its summary."""

    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)


GATHERED = pytest.StashKey[Gathered]()
CORES = pytest.StashKey[tuple[int | None, int | None]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("wirespeed")
    group.addoption("--server", choices=("embedded", "nginx"), default="embedded", help="who answers")
    group.addoption("--quick", action="store_true", help="a smoke run: few requests, one round")
    group.addoption("--rounds", type=int, default=3, help="measured rounds of each case")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[GATHERED] = Gathered()
    # Before this process is pinned: afterwards it sees one core, which the server would share.
    config.stash[CORES] = split_cores()
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
            config.stash[GATHERED].skipped.setdefault(reason, []).append(case.workload.name)
            dropped.append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def _case_of(item: pytest.Item) -> Case | None:
    callspec = getattr(item, "callspec", None)
    case = None if callspec is None else callspec.params.get("case")
    return case if isinstance(case, Case) else None


@pytest.fixture(scope="session")
def client_core(pytestconfig: pytest.Config) -> Iterator[int | None]:
    """Pin this process to the last usable core, for the session."""
    cores, (_, core) = usable_cores(), pytestconfig.stash[CORES]
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
    server_core, _ = request.config.stash[CORES]
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
    rounds = _rounds(request.config)
    outcomes = request.config.stash[GATHERED].outcomes

    def run(case: Case) -> None:
        workload = case.workload
        requests = requests_of(workload, case.client, quick=quick)
        samples: list[Sample] = []
        benchmark.group = workload.title
        with LoadRun(case.client, target_of(workload)) as load:
            load.run(max(requests // 10, workload.concurrency))
            benchmark.pedantic(lambda: samples.append(load.run(requests)), rounds=rounds, iterations=1)
            outcome = Outcome([load.record(sample) for sample in samples])
        (cell,) = summarise(workload, requests, {case.client.name: outcome}).clients
        benchmark.extra_info.update(dataclasses.asdict(cell))
        outcomes.setdefault(workload.name, {})[case.client.name] = outcome

    return run


def _rounds(config: pytest.Config) -> int:
    rounds: int = config.getoption("--rounds")
    return 1 if config.getoption("--quick") else rounds


def _results(config: pytest.Config) -> Results:
    quick: bool = config.getoption("--quick")
    outcomes = config.stash[GATHERED].outcomes
    rows = [
        summarise(workload, requests_of(workload, quick=quick), outcomes[workload.name], quick=quick)
        for workload in WORKLOADS.values()
        if workload.name in outcomes
    ]
    return collect(rows, rounds=_rounds(config), cores=config.stash[CORES], quick=quick)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    results = _results(config)
    machine_info["wirespeed"] = results.wirespeed
    machine_info["versions"] = results.versions
    machine_info["server_and_client_core"] = config.stash[CORES]
    machine_info["server"] = _server_name(config)


def _server_name(config: pytest.Config) -> str:
    program = find_nginx()
    if config.getoption("--server") == "nginx" and program is not None:
        return nginx_version(program).removeprefix("nginx version: ")
    return "embedded server"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print CPU per request, and its ratio to aiohttp, for every case that ran."""
    gathered = config.stash[GATHERED]
    write = terminalreporter.write_line
    if gathered.skipped:
        terminalreporter.section("not measured here")
        for reason, workloads in gathered.skipped.items():
            write(f"{reason} ({', '.join(dict.fromkeys(workloads))})")
    if not gathered.outcomes:
        return
    terminalreporter.section("CPU per request")
    results = _results(config)
    console = Console(width=WIDTH, color_system=None)
    with console.capture() as capture:
        for table in tables(results, WIDTH):
            console.print(table)
    lines = [*capture.get().splitlines(), *environment(results), f"Server: {_server_name(config)}."]
    for line in [*lines, QUICK] if results.quick else lines:
        write(line)
