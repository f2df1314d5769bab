"""Run aiohttp's tests on aiohttp and on wirespeed, both at once, one process each.

Each process runs the files in the same order, so that a test meets the same past on both
sides. Called by `__main__`.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from conformance.environment import Environment
from conformance.results import Comparison, Results, RunBroken
from conformance.suite import MARKERS

PLUGIN = Path(__file__).with_name("wirespeed_conformance.py")
RUN_TIMEOUT = 1800  # seconds for all tests
TEST_TIMEOUT = 60  # seconds for one; aiohttp's own is 120
RERUN_MAX = 10  # more failures than that are no accident
_SIDES = ("aiohttp", "wirespeed")
_OWN = ("PYTEST", "WIRESPEED")  # settings of whoever runs this are not for the tests


class Runner:
    """The two runs, each in a directory of its own with a copy of aiohttp's tests."""

    def __init__(self, env: Environment, work: Path, loop: str, options: Sequence[str] = ()) -> None:
        self._env = env
        self._work = work
        self._loop = loop
        self._options = options
        # aiohttp's package must not be beside its tests: the one to test is the one installed.
        for side in _SIDES:
            shutil.copytree(env.tests / "tests", work / side / "tests")
            shutil.copy(env.tests / "pytest.ini", work / side)
        shutil.copy(PLUGIN, env.library)

    def compare(self, names: Sequence[str], known: Mapping[str, str]) -> Comparison:
        """Run tests on both sides; an unknown failure on wirespeed gets a second chance, alone.

        Args:
            names: files, or ids of tests, below aiohttp's `tests`.
            known: the known differences.

        Raises:
            RunBroken: a run crashed, hung, or found no tests.
        """
        theirs, ours = self._run([f"tests/{name}" for name in names], _SIDES)
        comparison = Comparison(theirs, ours, known)
        again = comparison.unexplained
        if len(again) <= RERUN_MAX:
            # A busy machine's timing, or what an earlier test left behind.
            comparison.rerun = frozenset(name for name in again if self._passes_alone(name, theirs))
        return comparison

    def _passes_alone(self, name: str, theirs: Results) -> bool:
        try:
            (results,) = self._run([theirs.tests[name].node_id], _SIDES[1:])
        except RunBroken:
            return False
        return results.passed(name)

    def _run(self, names: Sequence[str], sides: Sequence[str]) -> list[Results]:
        started = [(side, self._start(side, names)) for side in sides]
        end = time.monotonic() + RUN_TIMEOUT
        try:
            for _, process in started:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(1.0, end - time.monotonic()))
        finally:
            for _, process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        return [self._load(side) for side, _ in started]

    def _load(self, side: str) -> Results:
        log = (self._work / side / "log.txt").read_text("utf-8", errors="replace")
        try:
            results = Results.load(self._report(side), self._loop)
            if not results.tests:
                raise RunBroken("no test was run")
        except RunBroken as exc:
            raise RunBroken(f"{side}: {exc}\n{log[-4000:]}") from None
        return results

    def _report(self, side: str) -> Path:
        return self._work / f"{side}.jsonl"

    def _start(self, side: str, names: Sequence[str]) -> "subprocess.Popen[bytes]":
        report = self._report(side)
        report.unlink(missing_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        env = {
            **inherited,
            "PYTHONPATH": str(self._env.library),
            "PYTHONDONTWRITEBYTECODE": "1",
            "WIRESPEED_CONFORMANCE_REPORT": str(report),
            "WIRESPEED_CONFORMANCE_INSTALL": str(int(side == "wirespeed")),
        }
        command = [
            str(self._env.python), "-m", "pytest", "-q", "--tb=short",
            "-p", PLUGIN.stem, "-p", "no:cacheprovider", "-m", MARKERS,
            "-o", "addopts=", "-o", f"timeout={TEST_TIMEOUT}",
            f"--aiohttp-loop={self._loop}", *self._options, *names,
        ]  # fmt: skip
        with (self._work / side / "log.txt").open("wb") as log:
            return subprocess.Popen(
                command, cwd=self._work / side, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
