"""Where the instructions of a scenario go: by Python function, by C function, and by library.

Python functions are seen through CPython's perf trampolines (3.12 and later): each then has machine
code of its own that callgrind can tell apart. That costs some 10 % more than without, and is why the
sums of a profile are above the figures of a count.
"""

import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .counting import LONG, compiled_library, run_callgrind
from .exchanges import IN_FLIGHT

HAS_TRAMPOLINES: Final = sys.version_info >= (3, 12)

_NAMED: Final = re.compile(r"\((\d+)\)(?: (.*))?")
_RECURSION: Final = re.compile(r"'\d+$")
# How calls get from one place to another, with all of the program below each.
_PLUMBING: Final = re.compile(
    r"__Pyx_|_?PyObject_(Make|Call|Fast|Vector)|_?PyVectorcall|_PyEval_|_PyFunction_Vec|cfunction_|method_vec|"
    r"vectorcall_|slot_tp_call|py_trampoline|PyIter_Send|PyGen_|gen_send|0x|__pyx_\w+6uvloop|uv_"
)
_CYTHON: Final = re.compile(r"__pyx_(?:pw|pf|f|fuse_\d+\w*|getprop|setprop|tp_(\w+?))_(?=\d)(\w+)")


@dataclass
class Costs:
    """What a file of callgrind's says.

    Attributes:
        process: the process that it is from.
        own: instructions of each function's own code.
        all: those, and what it called; of the outermost call where a function calls itself.
        calls: how often each function was called.
        libraries: own instructions by file of machine code.
    """

    process: int = 0
    own: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    all: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    libraries: dict[str, int] = field(default_factory=lambda: defaultdict(int))


class _Names:
    """Callgrind writes a name once, with a number, and then the number."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def read(self, text: str) -> str:
        found = _NAMED.match(text)
        if found is None:
            return text
        if found[2] is not None:
            self._known[found[1]] = found[2]
        return self._known[found[1]]


def read_costs(text: str) -> Costs:
    """Read a file of callgrind's."""
    costs = Costs()
    functions, objects = _Names(), _Names()
    function = library = called = ""
    calls: int | None = None
    for line in text.splitlines():
        if line.startswith("fn="):
            function = functions.read(line[3:])
        elif line.startswith("cfn="):
            called = functions.read(line[4:])
        elif line.startswith("ob="):
            library = objects.read(line[3:])
        elif line.startswith("cob="):
            objects.read(line[4:])
        elif line.startswith("calls="):
            calls = int(line[6:].split()[0])
        elif line[:1] in "0123456789+-*" and len(parts := line.split()) == 2:
            cost = int(parts[1])
            if calls is None:
                costs.own[_RECURSION.sub("", function)] += cost
                costs.libraries[library] += cost
            else:
                costs.calls[_RECURSION.sub("", called)] += calls
                # The outermost call has what the inner ones cost.
                if not _RECURSION.search(called):
                    costs.all[called] += cost
                calls = None
        elif line.startswith("pid:"):
            costs.process = int(line[4:])
    return costs


def profile(scenario: str, top: int) -> str:
    """Count a scenario and say where its instructions go.

    Args:
        scenario: its name.
        top: rows of each table.

    Returns:
        The tables, per exchange.

    Raises:
        CannotCount: valgrind, its headers or a C compiler is missing.
        CountingFailed: the scenario did not run.
    """
    python = ("-X", "perf") if HAS_TRAMPOLINES else ()
    with tempfile.TemporaryDirectory(prefix="wirespeed-instructions-") as folder:
        library = compiled_library(Path(folder))
        _, long = run_callgrind(scenario, library, Path(folder), python=python)
        costs = read_costs(long.read_text("utf-8", "replace"))
    return "\n".join(_tables(scenario, costs, _take_trampolines(costs.process), top))


def _take_trampolines(process: int) -> dict[int, str]:
    """Read which machine code is which Python function, from the file that CPython leaves behind."""
    file = Path(f"/tmp/perf-{process}.map")
    if not file.is_file():
        return {}
    lines = file.read_text("utf-8", "replace").splitlines()
    file.unlink()
    found = {}
    for line in lines:
        start, _, name = line.split(" ", 2)
        found[int(start, 16)] = name.removeprefix("py::")
    return found


def _tables(scenario: str, costs: Costs, trampolines: dict[int, str], top: int) -> list[str]:
    """Lay a profile out. Calls of a coroutine are the times that it was resumed."""
    exchanges = LONG * IN_FLIGHT
    total = sum(costs.own.values())
    lines = [f"{scenario}: {total / exchanges:,.0f} instructions per exchange, profiled"]

    def table(title: str, rows: Iterable[_Row]) -> None:
        lines.extend(["", f"{'Ir':>9} {'%':>6} {'calls':>7}  {title}"])
        for row in sorted(rows, key=lambda row: -row.cost)[:top]:
            cost, calls = row.cost / exchanges, row.calls / exchanges
            lines.append(f"{cost:>9,.0f} {row.cost / total:>6.1%} {calls:>7.2f}  {row.name}")

    known = {name: readable(name, trampolines) for name in {*costs.own, *costs.all}}
    pythons = {name for name in known if _address(name) in trampolines}
    ours = {name for name in known if name.startswith("__pyx_") and "wirespeed" in name}
    others = {name for name in known if not _PLUMBING.match(name)} - pythons - ours
    table("Python functions, with all that they call", _merge(costs.all, costs.calls, known, pythons))
    table("functions of the core, with all that they call", _merge(costs.all, costs.calls, known, ours))
    table("other functions, with all that they call", _merge(costs.all, costs.calls, known, others))
    table("functions without what they call", _merge(costs.own, costs.calls, known, known))
    libraries = {name: "/".join(Path(name).parts[-2:]) for name in costs.libraries}
    table("libraries", _merge(costs.libraries, {}, libraries, libraries))
    return lines


@dataclass
class _Row:
    name: str
    cost: int
    calls: int


def _merge(
    costs: Mapping[str, int], calls: Mapping[str, int], known: Mapping[str, str], chosen: Iterable[str]
) -> Iterable[_Row]:
    """Make one row of a Cython function and its wrapper, which have one name and call one another."""
    rows: dict[str, _Row] = {}
    for name in chosen:
        row = rows.setdefault(known[name], _Row(known[name], 0, 0))
        row.cost = max(row.cost, costs.get(name, 0))
        row.calls = max(row.calls, calls.get(name, 0))
    return rows.values()


def _address(name: str) -> int:
    return int(name, 16) if name.startswith("0x") else -1


def readable(name: str, trampolines: dict[int, str]) -> str:
    """Name a function as its source does.

    Args:
        name: as in its library: a path, Cython's mangled name, or the address of a trampoline.
        trampolines: Python functions by address.
    """
    if (function := trampolines.get(_address(name))) is not None:
        what, _, file = function.partition(":")
        return f"{what} ({'/'.join(Path(file).parts[-2:])})"
    found = _CYTHON.match(name)
    if found is None:
        return name
    parts, rest = [], found[2]
    while piece := re.match(r"(\d+)", rest):
        length = int(piece[1])
        after = rest[len(piece[1]) :]
        # A length and a name; the last is a number of the method, and its name.
        if len(after) <= length or after[length] != "_":
            rest = after
            break
        parts.append(after[:length])
        rest = after[length + 1 :]
    parts.append(rest.lstrip("_") or rest)
    return ".".join(parts) + (f" [{found[1]}]" if found[1] else "")
