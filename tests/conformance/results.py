"""How two runs of the same tests ended, and what differs. Pure: the runs are made by `runs.py`."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The worst phase of a test is its outcome.
_RANK = {"passed": 0, "xfailed": 1, "skipped": 2, "xpassed": 3, "failed": 4}


class RunBroken(Exception):
    """A run did not come to its end, so that there is nothing to compare."""


@dataclass
class Outcome:
    """How one test ended."""

    result: str
    text: str = ""
    node_id: str = ""


@dataclass
class Results:
    """What one run wrote down."""

    tests: dict[str, Outcome] = field(default_factory=dict)
    express: int = 0
    full: Counter[str] = field(default_factory=Counter)
    unreached: tuple[str, ...] = ()

    @classmethod
    def load(cls, report: Path, loop: str) -> "Results":
        """Read the report of the plugin.

        Args:
            report: lines of JSON.
            loop: the loop's name, which is dropped from the ids.

        Raises:
            RunBroken: the report has no end.
        """
        results = cls()
        has_ended = False
        for line in report.read_text("utf-8").splitlines() if report.is_file() else ():
            record = json.loads(line)
            if record["kind"] == "test":
                results.add(record["id"], record["outcome"], record["text"], loop)
            elif record["kind"] == "install":
                results.unreached = tuple(record["unreached"])
            else:
                has_ended = True
                results.express += record["express"]
                results.full.update(record["full"])
        if not has_ended:
            last = next(reversed(results.tests), "the collection")
            raise RunBroken(f"the run was cut short after {last}")
        return results

    def add(self, node_id: str, result: str, text: str, loop: str) -> None:
        """Take in how a phase of a test ended."""
        name = plain_id(node_id, loop)
        known = self.tests.get(name)
        if known is None or _RANK[result] > _RANK[known.result]:
            self.tests[name] = Outcome(result, text, node_id)

    def passed(self, name: str) -> bool:
        return name in self.tests and self.tests[name].result == "passed"


def plain_id(node_id: str, loop: str) -> str:
    """Name a test without its directory and without the loop it ran on."""
    name = node_id.removeprefix("tests/")
    return name.replace(f"[{loop}]", "").replace(f"[{loop}-", "[")


@dataclass
class Comparison:
    """What differs between a run on aiohttp and one on wirespeed."""

    aiohttp: Results
    wirespeed: Results
    known: Mapping[str, str]
    rerun: frozenset[str] = frozenset()
    """Tests that failed on wirespeed, and passed when they were run again, alone."""

    @property
    def differences(self) -> list[str]:
        """Tests that pass on aiohttp and do not pass on wirespeed."""
        ours = self.wirespeed
        return [
            name
            for name in self.aiohttp.tests
            if self.aiohttp.passed(name) and not ours.passed(name) and name not in self.rerun
        ]

    @property
    def unexplained(self) -> list[str]:
        return [name for name in self.differences if name not in self.known]

    @property
    def stale(self) -> list[str]:
        """Known differences that do not show any more; those of tests that were not run do not count."""
        return [
            name
            for name in self.known
            if self.aiohttp.passed(name) and (self.wirespeed.passed(name) or name in self.rerun)
        ]

    @property
    def others(self) -> list[str]:
        """Tests that end differently, but do not pass on aiohttp: worth a look, no difference of ours."""
        return [
            name
            for name in dict.fromkeys((*self.aiohttp.tests, *self.wirespeed.tests))
            if not self.aiohttp.passed(name)
            and self._result(self.aiohttp, name) != self._result(self.wirespeed, name)
        ]

    @staticmethod
    def _result(results: Results, name: str) -> str:
        return results.tests[name].result if name in results.tests else "not run"

    def counts(self, names: Iterable[str]) -> tuple[int, int, int, int]:
        """Count tests: passed on aiohttp, passed on wirespeed, known differences, unexplained ones."""
        names = set(names)
        different = names & set(self.differences)
        return (
            sum(self.aiohttp.passed(name) for name in names),
            sum(self.wirespeed.passed(name) or name in self.rerun for name in names),
            sum(name in self.known for name in different),
            sum(name not in self.known for name in different),
        )

    def files(self) -> dict[str, list[str]]:
        """The tests of each file, in the order of the run."""
        files: dict[str, list[str]] = {}
        for name in dict.fromkeys((*self.aiohttp.tests, *self.wirespeed.tests)):
            files.setdefault(name.partition("::")[0], []).append(name)
        return files

    @property
    def is_good(self) -> bool:
        return not self.unexplained and not self.stale
