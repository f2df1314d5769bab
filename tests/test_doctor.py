"""`wirespeed doctor`: each check on made-up facts, and the command in processes of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wirespeed
from wirespeed.cli import checks, doctor
from wirespeed.cli.checks import Finding, Status

OK, WARN, SLOW = Status.OK, Status.WARN, Status.SLOW


def check(finding: Finding, status: Status, seen: str, remedy: str = "") -> None:
    """Hold a finding to a status, and to parts of what it says; what is slow has a remedy."""
    assert finding.status is status
    assert seen in finding.seen
    assert remedy in finding.remedy
    assert (finding.remedy != "") or status is OK


@pytest.mark.parametrize(
    ("facts", "status", "seen", "remedy"),
    [
        ((True, False, {}), OK, "in use", ""),
        ((False, True, {}), SLOW, "WIRESPEED_NO_EXTENSIONS is set", "unset WIRESPEED_NO_EXTENSIONS"),
        ((False, False, {"pool": "ImportError: libx.so"}), SLOW, "pool: ImportError: libx.so", "pip install"),
        ((False, False, {}), SLOW, "not in use", "pip install"),
    ],
)
def test_extension(facts: tuple[Any, ...], status: Status, seen: str, remedy: str) -> None:
    check(checks.check_extension(*facts), status, seen, remedy)


@pytest.mark.parametrize(
    ("facts", "status", "seen", "remedy"),
    [
        ((True, (), None), OK, "are wirespeed's", ""),
        ((False, (), None), OK, "nothing has called", "wirespeed run"),
        ((False, (), "app"), WARN, "app does not call", "wirespeed run"),
        ((True, (), "app"), OK, "are wirespeed's", ""),
        ((True, ("a.B", "c.D"), "app"), SLOW, "cannot reach a.B, c.D", "before these classes"),
    ],
)
def test_install(facts: tuple[Any, ...], status: Status, seen: str, remedy: str) -> None:
    check(checks.check_install(*facts), status, seen, remedy)


def test_patches() -> None:
    check(checks.check_patches([]), OK, "none")
    found = checks.check_patches([("aiohttp.client.ClientSession._request", "ddtrace.f"), ("b", "c")])
    check(found, SLOW, "aiohttp.client.ClientSession._request by ddtrace.f; b by c", "switch the tool off")


@pytest.mark.parametrize(
    ("facts", "status", "seen"),
    [
        (("CPython 3.13.0", False, False, True), OK, "CPython 3.13.0"),
        (("CPython 3.13.0", True, False, True), SLOW, "a debug build"),
        (("CPython 3.14.0", False, True, False), OK, "free-threaded"),
        (("CPython 3.14.0", False, True, True), WARN, "the GIL is on"),
    ],
)
def test_python(facts: tuple[Any, ...], status: Status, seen: str) -> None:
    check(checks.check_python(*facts), status, seen)


@pytest.mark.parametrize(
    ("facts", "status", "seen", "remedy"),
    [
        (("yarl", "1.2", True, False), OK, "1.2, compiled", ""),
        (("yarl", "1.2", False, True), SLOW, "YARL_NO_EXTENSIONS is set", "unset YARL_NO_EXTENSIONS"),
        (("yarl", "1.2", False, False), SLOW, "1.2, pure Python", "--force-reinstall yarl"),
    ],
)
def test_package(facts: tuple[Any, ...], status: Status, seen: str, remedy: str) -> None:
    check(checks.check_package(*facts), status, seen, remedy)


@pytest.mark.parametrize(
    ("facts", "status", "seen", "remedy"),
    [
        (("uvloop", "0.22", "uvloop.Loop"), OK, "asyncio.run uses uvloop 0.22", ""),
        (
            ("uvloop", "0.22", "asyncio.X"),
            OK,
            "use uvloop 0.22; asyncio.run here uses asyncio.X",
            "wirespeed run",
        ),
        (("uvloop", None, "asyncio.X"), SLOW, "uvloop is not installed", "pip install uvloop"),
        (
            ("uvloop", "0.22", "asyncio.X", "no libuv"),
            SLOW,
            "cannot be imported: no libuv",
            "--force-reinstall uvloop",
        ),
    ],
)
def test_loop(facts: tuple[Any, ...], status: Status, seen: str, remedy: str) -> None:
    check(checks.check_loop(*facts), status, seen, remedy)


def test_debug_modes() -> None:
    check(checks.check_debug({}), OK, "off")
    check(checks.check_debug({"this": "do a", "that": "do a"}), SLOW, "this, that", "do a")
    assert checks.check_debug({"this": "do a", "that": "do a"}).remedy == "do a"


@pytest.mark.parametrize(
    ("facts", "status", "seen", "remedy"),
    [
        (("ThreadedResolver", 0.1), OK, "ThreadedResolver; localhost in 0.10 ms", ""),
        (("ThreadedResolver", 5000.0), SLOW, "5000.00 ms", "/etc/resolv.conf"),
        (("AsyncResolver", None), WARN, "cannot be resolved", "/etc/hosts"),
    ],
)
def test_resolver(facts: tuple[Any, ...], status: Status, seen: str, remedy: str) -> None:
    check(checks.check_resolver(*facts), status, seen, remedy)


INFINITE = float("inf")


@pytest.mark.parametrize(
    ("facts", "status", "seen", "remedy"),
    [
        ((1024, 4096, 100), OK, "1,024 (may be raised to 4,096), 164 wanted for 100", ""),
        ((INFINITE, INFINITE, 10**6), OK, "no limit", ""),
        ((1024, 4096, 1000), SLOW, "1,064 wanted", "ulimit -n 1064"),
        ((1024, INFINITE, 1000), SLOW, "may be raised to no limit", "ulimit -n 1064"),
        ((1024, 4096, 5000), SLOW, "5,064 wanted", "raise the hard limit"),
    ],
)
def test_open_files(facts: tuple[Any, ...], status: Status, seen: str, remedy: str) -> None:
    check(checks.check_open_files(*facts), status, seen, remedy)


@pytest.mark.parametrize(
    ("facts", "status", "seen", "remedy"),
    [
        ((32768, 60999, 2, 100), OK, "28,232 for each address", ""),
        ((32768, 60999, 2, 30000), SLOW, "470 new connections a second", "ip_local_port_range"),
        ((50000, 50999, 2, 100), WARN, "1,000 for each address", "ip_local_port_range"),
        ((32768, 60999, 0, 100), WARN, "tcp_tw_reuse 0", "tcp_tw_reuse=1"),
    ],
)
def test_ports(facts: tuple[Any, ...], status: Status, seen: str, remedy: str) -> None:
    check(checks.check_ports(*facts), status, seen, remedy)


def test_backlog() -> None:
    check(checks.check_backlog(4096), OK, "4,096 connections")
    check(checks.check_backlog(128), WARN, "128 connections", "net.core.somaxconn=4096")


@pytest.mark.parametrize(
    ("facts", "status", "seen"),
    [
        ((8, 4, None), OK, "4 of 8 usable"),
        ((8, 4, 2.5), OK, "time for 2.5 granted"),
        ((8, 1, None), WARN, "1 of 8 usable"),
        ((8, 8, 0.5), SLOW, "time for 0.5 granted"),
    ],
)
def test_cores(facts: tuple[Any, ...], status: Status, seen: str) -> None:
    check(checks.check_cores(*facts), status, seen)


def test_proxies() -> None:
    check(checks.check_proxies([]), OK, "none")
    check(
        checks.check_proxies(["http_proxy", "all_proxy"]), WARN, "http_proxy, all_proxy set", "trust_env=True"
    )


def test_exit_code_and_summary_are_those_of_the_slow() -> None:
    harmless = [Finding("a", OK, "x"), Finding("b", WARN, "y", "z")]
    assert not doctor.is_slow(harmless)
    assert doctor.summary(harmless).endswith("nothing here makes it slow.")
    slow = [*harmless, Finding("c", SLOW, "[bold]", "w"), Finding("d", SLOW, "x", "w")]
    assert doctor.is_slow(slow)
    assert doctor.summary(slow).endswith("slowed down by c, d.")
    assert doctor.document(slow) == {
        "schema": doctor.SCHEMA,
        "wirespeed": {"version": wirespeed.__version__, "native": wirespeed.NATIVE},
        "slow": True,
        "findings": [
            {"name": "a", "status": "ok", "seen": "x", "remedy": ""},
            {"name": "b", "status": "warn", "seen": "y", "remedy": "z"},
            {"name": "c", "status": "slow", "seen": "[bold]", "remedy": "w"},
            {"name": "d", "status": "slow", "seen": "x", "remedy": "w"},
        ],
    }


def test_quota_and_settings_of_the_kernel_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: "max 100000\n")
    assert doctor._cpu_quota() is None
    monkeypatch.setattr(Path, "read_text", lambda *_: "150000 100000\n")
    assert doctor._cpu_quota() == 1.5
    assert doctor._kernel("ipv4/ip_local_port_range") == [150000, 100000]

    def refuse(*_: object) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert doctor._cpu_quota() is None
    assert doctor._kernel("core/somaxconn") == []


def test_modules_of_the_core_are_all_tried() -> None:
    """The list is of those whose failure is shown, so it must not fall behind the core."""
    core = Path(wirespeed.__file__).parent / "_core"
    assert set(doctor._CORE) == {path.stem for path in core.glob("*.pyi")}


# The command

Run = Callable[..., "subprocess.CompletedProcess[str]"]
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if name not in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONTRACEMALLOC", "PYTHONMALLOC")
    and not name.lower().endswith("_proxy")
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*arguments: str, before: tuple[str, ...] = ("-m", "wirespeed"), **env: str) -> Any:
        return subprocess.run(
            [sys.executable, *before, *arguments],
            env={**CLEAN, "COLUMNS": "300", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", **env},
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            timeout=40,
            stdin=subprocess.DEVNULL,
        )

    return call


def findings_of(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, str]]:
    assert done.stderr == ""
    return {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_healthy_environment_is_not_slow(run: Run) -> None:
    done = run("doctor", "--json", "--connections", "1", before=("-W", "error", "-m", "wirespeed"))
    found = findings_of(done)
    assert found["extension"]["status"] == ("ok" if wirespeed.NATIVE else "slow")
    # What this environment and machine are is not for a test to demand; these are in our hands.
    for name in ("install", "patched methods", "debug modes"):
        assert found[name]["status"] == "ok", found[name]
    slow = [name for name, finding in found.items() if finding["status"] == "slow"]
    assert done.returncode == bool(slow)
    assert json.loads(done.stdout)["slow"] is bool(slow)
    assert all(found[name]["remedy"] for name in slow)


def test_table_names_every_finding(run: Run) -> None:
    done = run("doctor")
    assert done.returncode in (0, 1), done.stderr
    for name in findings_of(run("doctor", "--json")):
        assert f"  {name}" in done.stdout
    assert "\x1b" not in done.stdout
    assert f"wirespeed {wirespeed.__version__}: " in done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("env", "name", "seen"),
    [
        ({"WIRESPEED_NO_EXTENSIONS": "1"}, "extension", "switched off"),
        ({"AIOHTTP_NO_EXTENSIONS": "1"}, "aiohttp", "AIOHTTP_NO_EXTENSIONS is set"),
        ({"YARL_NO_EXTENSIONS": "1"}, "yarl", "YARL_NO_EXTENSIONS is set"),
        ({"MULTIDICT_NO_EXTENSIONS": "1"}, "multidict", "MULTIDICT_NO_EXTENSIONS is set"),
        ({"FROZENLIST_NO_EXTENSIONS": "1"}, "frozenlist", "FROZENLIST_NO_EXTENSIONS is set"),
        ({"PROPCACHE_NO_EXTENSIONS": "1"}, "propcache", "PROPCACHE_NO_EXTENSIONS is set"),
        ({"PYTHONASYNCIODEBUG": "1"}, "debug modes", "asyncio's debug mode, aiohttp's debug mode"),
        ({"PYTHONDEVMODE": "1"}, "debug modes", "Python's development mode"),
        ({"PYTHONTRACEMALLOC": "1"}, "debug modes", "tracemalloc"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_environment_variables_that_cost_speed_are_found(
    run: Run, env: dict[str, str], name: str, seen: str
) -> None:
    if sys.implementation.name != "cpython" and name not in ("extension", "debug modes"):
        pytest.skip("these packages are pure Python there")
    done = run("doctor", "--json", **env)
    found = findings_of(done)
    assert done.returncode == 1
    assert found[name]["status"] == "slow"
    assert seen in found[name]["seen"]
    assert found[name]["remedy"]


def test_proxies_of_the_environment_are_named_without_their_values(run: Run) -> None:
    done = run("doctor", "--json", HTTP_PROXY="http://user:secret@127.0.0.1:3128", NO_PROXY="localhost")
    finding = findings_of(done)["proxies"]
    assert (finding["status"], finding["seen"]) == ("warn", "http_proxy set")
    assert "secret" not in done.stdout


def test_program_is_imported_first(run: Run, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import aiohttp, sys\n"
        "import wirespeed\n"
        "async def _request(self, *args, **kwargs): ...\n"
        "aiohttp.ClientSession._request = _request\n"
        "if 'installs' in sys.modules:\n"
        "    wirespeed.install()\n"
    )
    done = run("doctor", "--json", "--import", "app")
    found = findings_of(done)
    assert done.returncode == 1
    assert found["install"]["status"] == "warn"
    assert "aiohttp.client.ClientSession._request by app" in found["patched methods"]["seen"]
    (tmp_path / "installs.py").write_text("import app\n")
    found = findings_of(run("doctor", "--json", "--import", "installs"))
    assert found["install"]["status"] == "ok"


def test_program_that_sets_a_policy_is_seen(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("uvloop")
    (tmp_path / "app.py").write_text(
        "import asyncio, uvloop, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())\n"
    )
    found = findings_of(run("doctor", "--json", "--import", "app"))
    assert found["event loop"]["seen"].startswith("asyncio.run uses uvloop")


@pytest.mark.parametrize("text", ["1 / 0", "raise SystemExit(0)", "import no_such_module"])
def test_program_that_cannot_be_imported_is_exit_code_2(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "app.py").write_text(text)
    done = run("doctor", "--import", "app")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "wirespeed doctor: app cannot be imported"


def test_wirespeed_run_is_seen_to_work(run: Run) -> None:
    found = findings_of(run("run", "-m", "wirespeed", "doctor", "--json"))
    assert found["install"]["seen"] == "aiohttp's classes are wirespeed's in this process"
    if found["event loop"]["status"] == "ok":
        assert found["event loop"]["seen"].startswith("asyncio.run uses")


@pytest.mark.skipif(not wirespeed.NATIVE, reason="needs the extension to break")
def test_broken_extension_shows_its_error(run: Run) -> None:
    code = (
        "import sys; sys.modules['wirespeed._core.pool'] = None;"
        "sys.argv[0] = 'wirespeed'; from wirespeed.cli import main; main()"
    )
    done = run("doctor", "--json", before=("-c", code))
    assert done.returncode == 1
    assert "import of wirespeed._core.pool halted" in findings_of(done)["extension"]["seen"]
