"""The command line: `wirespeed bench`, its JSON document, and its plain failures."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import wirespeed
from wirespeed.testing.load import workloads
from wirespeed.testing.load.clients import CLIENTS, find_client
from wirespeed.testing.load.measure import quantile
from wirespeed.testing.load.results import Results

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = ("--requests", "40", "--concurrency", "4", "--rounds", "2")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command line in a process of its own, without a terminal."""

    def call(*arguments: str, code: str = "from wirespeed.cli import main; main()", **variables: str) -> Any:
        command = [sys.executable, "-W", "error", "-c", code, *arguments]
        # A wide terminal for messages that would wrap; no colours whatever the machine says.
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
        if "PYTHONPATH" in variables and "PYTHONPATH" in environment:
            variables["PYTHONPATH"] += os.pathsep + environment["PYTHONPATH"]
        environment |= variables
        return subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=50,
            stdin=subprocess.DEVNULL,
        )

    return call


def test_bench_prints_the_table_and_writes_json(run: Run, tmp_path: Path) -> None:
    done = run("bench", *TINY, "--json", "out.json")
    assert done.returncode == 0, done.stderr
    for heading in ("client", "req/s", "CPU µs/req", "p50 ms", "p99 ms", "peak MB", "times less CPU"):
        assert heading in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert f"wirespeed {wirespeed.__version__}" in done.stdout
    assert "express lane" in done.stdout
    assert ("WITHOUT its native core" in done.stdout) is not wirespeed.NATIVE
    assert done.stderr.count("round ") == 4

    found = json.loads((tmp_path / "out.json").read_text())
    assert {"python", "aiohttp", "httptools"} <= set(found["versions"])
    assert found["wirespeed"] == {"version": wirespeed.__version__, "native": wirespeed.NATIVE}
    results = Results.from_json((tmp_path / "out.json").read_text())
    assert (results.rounds, results.quick) == (2, False)
    (row,) = results.workloads
    assert (row.name, row.concurrency, row.requests, row.goal) == ("json64", 4, 40, 5.0)
    aiohttp, ours = row.clients
    assert (aiohttp.name, ours.name) == ("aiohttp", "wirespeed")
    assert aiohttp.ratio == 1.0
    assert aiohttp.express_share is None
    assert ours.express_share == (1.0 if wirespeed.NATIVE else 0.0)
    for cell in row.clients:
        assert len(cell.rounds) == 2
        assert cell.cpu_us_per_request is not None
        assert cell.cpu_us_per_request > 0
        assert cell.p50_ms is not None
        assert cell.p99_ms is not None
        assert 0 < cell.p50_ms <= cell.p99_ms
        assert cell.rounds[0]["requests"] == 40


def test_bench_of_several_workloads_is_an_overview_with_a_chart(run: Run, tmp_path: Path) -> None:
    chosen = ("--workload", "json", "--workload", "asyncio", "--requests", "8", "--concurrency", "2")
    done = run("bench", *chosen, "--rounds", "1", "--json", "out.json", "--svg", "out.svg")
    assert done.returncode == 0, done.stderr
    results = Results.from_json((tmp_path / "out.json").read_text())
    assert [row.name for row in results.workloads] == ["json64", "asyncio64"]
    assert {cell.loop for cell in results.workloads[1].clients} == {"asyncio"}
    chart = (tmp_path / "out.svg").read_text("utf-8")
    ElementTree.fromstring(chart)
    # What was written shows the same later, without a server or a client.
    again = run("bench", "--from", "out.json", "--svg", "again.svg")
    assert again.returncode == 0, again.stderr
    assert (again.stdout, again.stderr) == (done.stdout, "")
    assert (tmp_path / "again.svg").read_text("utf-8") == chart


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("raise RuntimeError('broken peer')", "RuntimeError: broken peer"),
        ("import os\nos._exit(3)", "exit code 3"),
    ],
)
def test_bench_goes_on_when_a_client_fails(run: Run, tmp_path: Path, module: str, reason: str) -> None:
    (tmp_path / "httpx.py").write_text(module)
    done = run("bench", *TINY, "--peer", "httpx", "--peer", "floor", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"json64: httpx failed: {reason}." in done.stdout
    # Not tried again after its first round; the others have both.
    assert done.stderr.count("httpx") == 1
    assert done.stderr.count("bare floor") == 2
    assert re.search(r"^ *bare floor +[\d,]+ +", done.stdout, re.MULTILINE)


def test_bench_measures_peers_and_tls(run: Run) -> None:
    done = run(
        "bench",
        "--workload",
        "tls",
        "--requests",
        "8",
        "--concurrency",
        "2",
        "--rounds",
        "1",
        "--peer",
        "floor",
    )
    assert done.returncode == 0, done.stderr
    assert "GET json over TLS" in done.stdout
    assert CLIENTS["floor"].title in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--workload", "nope"), "no workload 'nope'; there are json1"),
        (("--peer", "nope"), "no client 'nope'; there are aiohttp"),
        (("--from", "missing.json"), "missing.json"),
        (("--from", "other.json"), "other.json: not results of this version: schema 1, expected 2"),
        (("--requests", "0"), "--requests"),
        (("--json", "missing/out.json"), "missing"),
    ],
)
def test_bench_that_cannot_run_says_why_and_exits_2(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "other.json").write_text('{"schema": 1}')
    done = run("bench", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_version_says_whether_the_core_is_there(run: Run) -> None:
    done = run("--version")
    assert done.returncode == 0
    core = "native core" if wirespeed.NATIVE else "no native core"
    assert done.stdout.startswith(f"wirespeed {wirespeed.__version__} ({core}")


def test_missing_extra_is_one_line_that_says_what_to_install(run: Run) -> None:
    code = "import sys; sys.modules['typer'] = None; from wirespeed.cli import main; main()"
    done = run("bench", code=code)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "wirespeed: the command line needs typer: pip install 'wirespeed[cli]'\n"


def test_load_prints_one_json_line(run: Run) -> None:
    code = "from wirespeed.testing.load.__main__ import main; main()"
    done = run("--client", "floor", "--workload", "post", "--requests", "20", "--concurrency", "2", code=code)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["cpu_us_per_request"] > 0


def test_every_workload_is_found_by_its_names() -> None:
    for name in workloads.WORKLOADS:
        assert workloads.find_workload(name).name == name
    assert workloads.find_workload("json").name == "json64"


def test_client_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LookupError, match="'httpx' cannot run: httpx is not installed"):
        find_client("httpx")


def test_quantile_is_by_nearest_rank() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert quantile(ordered, 0.5) == 51.0
    assert quantile(ordered, 0.99) == 100.0
    assert quantile([7.0], 0.99) == 7.0
