"""`wirespeed doctor`: look for what makes requests slow, in this environment and on this machine.

Collects the facts, hands them to checks.py, and shows the findings. It changes nothing: what
it installs to see whether that works, it takes away again.
"""

import asyncio
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import sys
import sysconfig
import time
import traceback
import tracemalloc
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import aiohttp
import aiohttp.helpers
import aiohttp.http_parser
import aiohttp.http_writer
import aiohttp.resolver
import frozenlist
import multidict
import propcache.api
import typer
import yarl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import lanes, patching
from .._switch import NATIVE
from .._version import __version__
from ..testing.machine import usable_cores
from . import checks
from .checks import Finding, Status
from .run import COULD_NOT_RUN

SCHEMA: Final = 1
"""Version of the JSON document; raised when a field changes its meaning or goes."""
_CONNECTIONS: Final = 100
"""What a connector of aiohttp opens at most, unless told otherwise."""
_PLAIN_WIDTH: Final = 160
"""Columns of the table where there is no terminal to ask."""
_FAST_LOOP: Final = "winloop" if sys.platform == "win32" else "uvloop"
_CORE: Final = (
    "address", "clock", "connection", "cookies", "coroutine", "deadlines", "dial", "drive", "exchange",
    "figures", "flow", "guard", "head", "hooked", "hop", "hosts", "lane", "learning", "message", "parser",
    "policed", "pool", "request", "response", "rethrow",
)  # fmt: skip
_LOOKUPS: Final = 3
"""Times that a name is looked up; the fastest counts, since the first may load libraries."""


def doctor(
    program: Annotated[
        str | None,
        typer.Option(
            "--import",
            metavar="MODULE",
            help="Import a module first, and look at aiohttp as it leaves it.",
        ),
    ] = None,
    connections: Annotated[
        int, typer.Option(min=1, help="Connections that the program wants open at a time.")
    ] = _CONNECTIONS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what makes requests slow. The exit code is 1 when something does, and 0 when nothing does."""
    if program is not None:
        _import(program)
    findings = list(examine(program, connections))
    if as_json:
        print(json.dumps(document(findings), indent=2))
    else:
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = max(console.width, _PLAIN_WIDTH)
        console.print(table(findings))
        console.print(summary(findings), markup=False, soft_wrap=True)
    raise typer.Exit(1 if is_slow(findings) else 0)


def _import(program: str) -> None:
    """Import a program's module, as `python -m` finds it.

    Raises:
        typer.Exit: it cannot be imported; its traceback was shown.
    """
    sys.path.insert(0, str(Path.cwd()))
    try:
        importlib.import_module(program)
    except (Exception, SystemExit):
        traceback.print_exc()
        print(f"wirespeed doctor: {program} cannot be imported", file=sys.stderr)
        raise typer.Exit(COULD_NOT_RUN) from None


def is_slow(findings: list[Finding]) -> bool:
    """Tell whether a finding costs speed."""
    return any(finding.status is Status.SLOW for finding in findings)


def document(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as JSON-able values.

    Returns:
        Keys `schema`, `wirespeed`, `slow`, and `findings` with their fields.
    """
    return {
        "schema": SCHEMA,
        "wirespeed": {"version": __version__, "native": NATIVE},
        "slow": is_slow(findings),
        "findings": [{**vars(finding), "status": finding.status.value} for finding in findings],
    }


_STYLES: Final = {Status.OK: "green", Status.WARN: "yellow", Status.SLOW: "bold red"}


def table(findings: list[Finding]) -> Table:
    """Return the table of the terminal."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("what", no_wrap=True)
    shown.add_column("", no_wrap=True)
    shown.add_column("found", overflow="fold")
    shown.add_column("what to do", overflow="fold")
    for finding in findings:
        status = Text(finding.status.value, _STYLES[finding.status])
        # Not as markup: messages of other packages may hold square brackets.
        shown.add_row(finding.name, status, Text(finding.seen), Text(finding.remedy))
    return shown


def summary(findings: list[Finding]) -> str:
    """Return the last line."""
    slow = [finding.name for finding in findings if finding.status is Status.SLOW]
    if slow:
        return f"wirespeed {__version__}: slowed down by {', '.join(slow)}."
    return f"wirespeed {__version__}: nothing here makes it slow."


# The facts


def examine(program: str | None = None, connections: int = _CONNECTIONS) -> Iterator[Finding]:
    """Look at this process and this machine.

    Args:
        program: the module that was imported before, if any.
        connections: how many the program wants open at a time.

    Yields:
        The findings, those about wirespeed itself first; none about what the platform does not tell.
    """
    yield checks.check_extension(NATIVE, _is_set("WIRESPEED_NO_EXTENSIONS"), _failures_of_core())
    yield _find_installation(program)
    yield checks.check_patches(lanes.patches())
    yield _find_loop()
    yield checks.check_debug(_debug_modes())
    yield _find_python()
    for package, is_compiled in _COMPILED.items():
        version = importlib.metadata.version(package)
        yield checks.check_package(
            package, version, is_compiled(), _is_set(f"{package.upper()}_NO_EXTENSIONS")
        )
    yield checks.check_resolver(aiohttp.resolver.DefaultResolver.__name__, _lookup_ms())
    yield from _find_limits(connections)
    yield checks.check_cores(os.cpu_count() or 1, len(usable_cores()) or os.cpu_count() or 1, _cpu_quota())
    names = urllib.request.getproxies_environment()
    yield checks.check_proxies([f"{name}_proxy" for name in sorted(names) if name != "no"])


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


# Each compares what the package offers with what its extension module holds.
_COMPILED: Final[dict[str, Callable[[], bool]]] = {
    "aiohttp": lambda: (
        _home(aiohttp.http_parser.HttpResponseParser) == "aiohttp._http_parser"
        and _home(aiohttp.http_writer._serialize_headers) == "aiohttp._http_writer"
    ),
    "yarl": lambda: _home(type(yarl._quoters.QUOTER)) == "yarl._quoting_c",
    "multidict": lambda: _home(multidict.CIMultiDict) == "multidict._multidict",
    "frozenlist": lambda: frozenlist.FrozenList is not frozenlist.PyFrozenList,
    "propcache": lambda: _home(propcache.api.under_cached_property) == "propcache._helpers_c",
}


def _home(member: Any) -> str | None:
    return getattr(member, "__module__", None)


def _failures_of_core() -> dict[str, str]:
    """Import each module of the core; return the last line of the traceback of each that fails."""
    failures = {}
    for name in _CORE if not NATIVE else ():
        try:
            importlib.import_module(f"wirespeed._core.{name}")
        except ImportError as exc:
            failures[name] = traceback.format_exception_only(exc)[-1].strip()
    return failures


def _find_installation(program: str | None) -> Finding:
    was_installed = patching.is_installed()
    with patching.installed() as installation:
        unreached = installation.unreached
    return checks.check_install(was_installed, unreached, program)


def _find_loop() -> Finding:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a program's policy may be deprecated; that is not our subject
        loop = asyncio.new_event_loop()
    used = f"{type(loop).__module__}.{type(loop).__qualname__}"
    loop.close()
    try:
        version = importlib.metadata.version(_FAST_LOOP)
    except importlib.metadata.PackageNotFoundError:
        return checks.check_loop(_FAST_LOOP, None, used)
    try:
        importlib.import_module(_FAST_LOOP)
    except ImportError as exc:
        return checks.check_loop(_FAST_LOOP, version, used, str(exc))
    return checks.check_loop(_FAST_LOOP, version, used)


def _debug_modes() -> dict[str, str]:
    """Return the modes that are on, each with how to turn it off."""
    asyncios = "unset PYTHONASYNCIODEBUG" if os.environ.get("PYTHONASYNCIODEBUG") else ""
    dev = "start Python without -X dev, and unset PYTHONDEVMODE" if sys.flags.dev_mode else ""
    memory = os.environ.get("PYTHONMALLOC", "")
    found = {
        "Python's development mode": dev,
        "asyncio's debug mode": asyncios,
        "aiohttp's debug mode": (dev or asyncios or "unset PYTHONASYNCIODEBUG") * aiohttp.helpers.DEBUG,
        "tracemalloc": "unset PYTHONTRACEMALLOC, and call no tracemalloc.start()" * tracemalloc.is_tracing(),
        "a debugging allocator": "unset PYTHONMALLOC" * ("debug" in memory),
        "a trace or profile function": "run without the debugger, profiler or coverage"
        * (sys.gettrace() is not None or sys.getprofile() is not None),
    }
    return {mode: remedy for mode, remedy in found.items() if remedy}


def _find_python() -> Finding:
    has_gil: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return checks.check_python(
        f"{platform.python_implementation()} {platform.python_version()}",
        hasattr(sys, "gettotalrefcount"),
        bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        has_gil(),
    )


def _lookup_ms() -> float | None:
    """Return the milliseconds that the system takes to resolve "localhost"; None where it cannot."""
    times = []
    for _ in range(_LOOKUPS):
        start = time.perf_counter()
        try:
            socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        except OSError:
            return None
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def _find_limits(connections: int) -> Iterator[Finding]:
    if sys.platform != "win32":
        import resource

        soft, hard = (
            float("inf") if limit == resource.RLIM_INFINITY else limit
            for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
        )
        yield checks.check_open_files(soft, hard, connections)
    ports, reuse = _kernel("ipv4/ip_local_port_range"), _kernel("ipv4/tcp_tw_reuse")
    if ports and reuse:
        yield checks.check_ports(ports[0], ports[1], reuse[0], connections)
    backlog = _kernel("core/somaxconn")
    if backlog:
        yield checks.check_backlog(backlog[0])


def _kernel(setting: str) -> list[int]:
    """Return the numbers of a setting below net; none where the kernel does not show it."""
    try:
        return [int(number) for number in Path("/proc/sys/net", setting).read_text("ascii").split()]
    except (OSError, ValueError):
        return []


def _cpu_quota() -> float | None:
    """Return how many cores' time the control group (version 2) grants; None without a limit."""
    try:
        granted, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        return int(granted) / int(period)
    except (OSError, ValueError):  # "max" is no number
        return None
