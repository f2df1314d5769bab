"""Counting: the same process runs a scenario for a while and then for longer, under callgrind.

Instructions per exchange are the difference of the two runs by the difference of their exchanges. What
could make two countings differ is held still: hashes, the environment, the loop's clock, what the
garbage collector has to look at. Each scenario has a process of its own, so its figure does not
depend on which others are counted.

One thing cannot be held still. CPython caches attribute lookups of types in a table by the address of the
name, where two or three of the hundred that an exchange makes often fall on one place, and which, any
change of any module decides. What those cost, up to 2 %, is counted apart.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import switch
from .exchanges import IN_FLIGHT

ROOT: Final = Path(__file__).resolve().parents[2]
SHORT: Final = 5
LONG: Final = 45
"""Rounds of the two runs; twice as many change the figures by less than 0.5 %."""
AT_ONCE: Final = 2
TIMEOUT: Final = 300
"""Seconds for one scenario; it takes five to ten on a machine of today."""

_KEPT_VARIABLES: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "TMPDIR", "HOME")
_TOTAL: Final = re.compile(rb"^totals: (\d+)", re.MULTILINE)
_LOOKUP: Final = rb"find_name_in_mro"
"""What CPython calls when its cache of lookups does not have the name; without symbols it is not found."""


@dataclass(frozen=True)
class Count:
    """Instructions: of a run, or per exchange.

    Attributes:
        own: all but `missed`.
        missed: of lookups that CPython's cache of type attributes did not have.
    """

    own: float
    missed: float = 0.0


class CannotCount(RuntimeError):
    """Something that counting needs is missing on this machine; the message says what, and how to get it."""


class CountingFailed(RuntimeError):
    """A scenario did not run to its end under valgrind."""


def count(scenarios: Iterable[str]) -> dict[str, Count]:
    """Count scenarios, two at a time.

    Returns:
        Instructions per exchange, by scenario.

    Raises:
        CannotCount: valgrind, its headers or a C compiler is missing.
        CountingFailed: a scenario did not run.
    """
    with _library() as library, ThreadPoolExecutor(AT_ONCE) as threads:
        names = list(scenarios)
        return dict(zip(names, threads.map(lambda name: _count_one(name, library), names), strict=True))


def _count_one(scenario: str, library: Path) -> Count:
    with tempfile.TemporaryDirectory(prefix="wirespeed-instructions-") as folder:
        short, long = run_callgrind(scenario, library, Path(folder))
        return per_exchange(read_count(short.read_bytes()), read_count(long.read_bytes()))


def per_exchange(short: Count, long: Count) -> Count:
    """Instructions of one exchange, from those of the short run and of the long one."""
    exchanges = (LONG - SHORT) * IN_FLIGHT
    return Count((long.own - short.own) / exchanges, (long.missed - short.missed) / exchanges)


def read_count(dump: bytes) -> Count:
    """Read a file of callgrind's.

    Raises:
        CountingFailed: it has no total.
    """
    total = _TOTAL.search(dump)
    if total is None:
        raise CountingFailed("a file of callgrind's has no total")
    # A name is written once, with a number; then the number stands for it.
    numbers = set(re.findall(rb"^c?fn=\((\d+)\) %b(?:'\d+)?$" % _LOOKUP, dump, re.MULTILINE))
    calls = (
        found
        for number in numbers
        for found in re.findall(rb"^cfn=\(%b\).*\ncalls=.*\n\S+ (\d+)$" % number, dump, re.MULTILINE)
    )
    missed = sum(map(int, calls))
    return Count(int(total[1]) - missed, missed)


def run_callgrind(
    scenario: str, library: Path, folder: Path, *options: str, python: tuple[str, ...] = ()
) -> tuple[Path, Path]:
    """Run a scenario under callgrind.

    Args:
        scenario: its name.
        library: from `compiled_library`.
        folder: where callgrind's files go.
        *options: more of callgrind's options.
        python: options of the interpreter.

    Returns:
        Callgrind's files of the short run and of the long one.

    Raises:
        CountingFailed: it did not run to its end.
    """
    out = folder / "callgrind.out"
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", *options]
    command += [sys.executable, *python, "-m", switch.__name__, scenario, str(library), str(SHORT), str(LONG)]
    environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise CountingFailed(f"{scenario} under valgrind took more than {TIMEOUT} s") from exc
    files = (out.with_name("callgrind.out.1"), out.with_name("callgrind.out.2"))
    if done.returncode or not all(file.is_file() for file in files):
        raise CountingFailed(f"{scenario} under valgrind: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return files


@contextmanager
def _library() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="wirespeed-instructions-") as folder:
        yield compiled_library(Path(folder))


def compiled_library(folder: Path) -> Path:
    """Compile what tells callgrind to begin, to write and to end.

    Raises:
        CannotCount: valgrind, its headers or a C compiler is missing.
    """
    if shutil.which("valgrind") is None:
        raise CannotCount("valgrind is not installed (apt-get install valgrind)")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CannotCount("there is no C compiler (apt-get install gcc)")
    source, library = folder / "switch.c", folder / "switch.so"
    source.write_text(switch.SOURCE)
    command = [*compiler.split(), "-O1", "-shared", "-fPIC", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotCount(f"valgrind's headers are missing, or the compiler fails:\n{done.stderr[-2000:]}")
    return library
