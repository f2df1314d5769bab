"""The command line: `wirespeed bench`, its JSON document, and its plain failures."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wirespeed
from wirespeed.cli import report
from wirespeed.testing.load import workloads
from wirespeed.testing.load.clients import CLIENTS, find_client
from wirespeed.testing.load.measure import quantile

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = ("--requests", "40", "--concurrency", "4", "--rounds", "2")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command line in a process of its own, without a terminal."""

    def call(*arguments: str, code: str = "from wirespeed.cli import main; main()") -> Any:
        command = [sys.executable, "-W", "error", "-c", code, *arguments]
        # A wide terminal for messages that would wrap; no colours whatever the machine says.
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
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
    assert set(found) == {"schema", "wirespeed", "versions", "machine", "workload", "clients"}
    assert found["schema"] == report.SCHEMA
    assert found["wirespeed"] == {"version": wirespeed.__version__, "native": wirespeed.NATIVE}
    assert {"python", "aiohttp", "httptools"} <= set(found["versions"])
    assert found["workload"] == {
        "name": "json64",
        "title": "GET json, 64 concurrent",
        "concurrency": 4,
        "requests": 40,
        "rounds": 2,
    }
    aiohttp, ours = found["clients"]
    assert (aiohttp["name"], ours["name"]) == ("aiohttp", "wirespeed")
    assert aiohttp["ratio"] == 1.0
    assert aiohttp["express_share"] is None
    assert ours["express_share"] == (1.0 if wirespeed.NATIVE else 0.0)
    for client in found["clients"]:
        assert len(client["rounds"]) == 2
        assert client["cpu_us_per_request"] > 0
        assert client["requests_per_second"] > 0
        assert 0 < client["p50_ms"] <= client["p99_ms"]
        assert client["rounds"][0]["requests"] == 40


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
        (("--workload", "gather", "--peer", "floor"), "floor cannot run gather100k"),
        (("--requests", "0"), "--requests"),
        (("--json", "missing/out.json"), "missing"),
    ],
)
def test_bench_that_cannot_run_says_why_and_exits_2(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
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


def record(cpu: float, lanes: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "cpu_us_per_request": cpu,
        "requests_per_second": 1e6 / cpu,
        "p50_ms": None,
        "p99_ms": None,
        "peak_memory_mb": 40.0,
        "loop": "uvloop",
        "lanes": lanes,
    }


def test_summary_takes_medians_and_pairs_the_rounds() -> None:
    lanes = {"express": 3, "full": {"proxy": 1}}
    rows = report.summarise(
        {
            "aiohttp": [record(80), record(160), record(90)],
            "wirespeed": [record(20, lanes), record(40, lanes), record(15, lanes)],
        }
    )
    base, ours = rows
    assert (base.cpu_us_per_request, base.ratio, base.express_share) == (90, 1.0, None)
    assert base.cpu_spread_percent == pytest.approx(88.9)
    assert (ours.cpu_us_per_request, ours.ratio) == (20, 4.0)
    assert ours.express_share == 0.75
    assert report.full_lane_reasons(ours) == {"proxy": 3}
    assert ours.p50_ms is None


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
