"""Run aiohttp's own tests on aiohttp and on wirespeed, and compare.

    python tests/conformance                       all of them, on asyncio's loop
    python tests/conformance --select client       one group: client, web or classes
    python tests/conformance --select test_tracing.py -k context
    python tests/conformance --loop uvloop --aiohttp 3.14.5

Runs with the wirespeed that this Python imports, if it is compiled, else with one built from
the checkout. The tests come from the source archive of aiohttp, in the version that this
Python has. Fails when a test passes on aiohttp only and `known.py` does not say why, and
when a difference that it lists is gone.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from conformance.environment import ROOT, Environment, set_up
from conformance.known import KNOWN
from conformance.results import Comparison, RunBroken
from conformance.runs import Runner
from conformance.suite import GROUPS, LOOPS

TEXT_LINES = 30  # of a failure that is not explained


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--select", action="append", default=[], metavar="NAME", help="a group, a file or the id of a test")
    add("-k", dest="expression", default="", help="pytest's -k, on both sides")
    add("--aiohttp", metavar="VERSION", help="instead of the version that this Python has")
    add("--python", default=sys.executable, metavar="EXECUTABLE", help="run the tests with this Python")
    add("--loop", choices=LOOPS, default=LOOPS[0])
    add("--cache", type=Path, default=ROOT / "build" / "conformance", metavar="DIRECTORY")
    add("--junitxml", type=Path, metavar="FILE", help="write the comparison as a JUnit report")
    add("--verbose", action="store_true", help="print the failures of known differences too")
    return parser.parse_args(arguments)


def selected(names: list[str]) -> list[str]:
    """The files of the groups that are named, and what else is named."""
    if not names:
        names = list(GROUPS)
    return [item for name in names for item in GROUPS.get(name, (name,))]


def main() -> int:
    args = parse()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wirespeed-conformance-") as directory:
        work = Path(directory)
        env = set_up(args.python, args.aiohttp, args.cache.resolve(), work)
        options = ["-k", args.expression] if args.expression else []
        try:
            comparison = Runner(env, work, args.loop, options).compare(selected(args.select), KNOWN)
        except RunBroken as exc:
            print(f"There is nothing to compare: {exc}")
            return 2
    show(comparison, args.verbose)
    print(f"\naiohttp {env.aiohttp}, {args.loop}, wirespeed {env.origin}, {time.monotonic() - start:.0f} s")
    if args.junitxml:
        write_junit(comparison, args.junitxml, time.monotonic() - start)
    return 0 if comparison.is_good else 1


def show(comparison: Comparison, verbose: bool) -> None:
    """Print the table, every difference with its reason, and the lanes."""
    print(f"{'file':<40} {'aiohttp':>8} {'wirespeed':>10} {'known':>6} {'unknown':>8}")
    files = comparison.files()
    everything = [name for names in files.values() for name in names]
    for file, names in [*files.items(), ("passed", everything)]:
        theirs, ours, known, unknown = comparison.counts(names)
        print(f"{file:<40} {theirs:>8} {ours:>10} {known:>6} {unknown:>8}")
    for name in comparison.differences:
        if name in comparison.known:
            print(f"\nknown: {name}\n    {comparison.known[name]}")
            if verbose:
                print(failure(comparison, name))
    for name in comparison.others:
        theirs, ours = (side.tests.get(name) for side in (comparison.aiohttp, comparison.wirespeed))
        print(f"\nnote: {name}: {theirs and theirs.result} on aiohttp, {ours and ours.result} on wirespeed")
    for name in sorted(comparison.rerun):
        print(f"\nunsteady: {name} failed on wirespeed, and passed alone\n{failure(comparison, name)}")
    for name in comparison.unexplained:
        print(f"\nUNKNOWN: {name} passes on aiohttp only\n{failure(comparison, name)}")
    for name in comparison.stale:
        print(f"\nGONE: {name} passes on wirespeed; take it out of known.py")
    ours = comparison.wirespeed
    for place in ours.unreached:
        print(f"\nnot reached by install(): {place}")
    lanes = ", ".join(f"{number} {reason}" for reason, number in ours.full.most_common())
    print(f"\nrequests on wirespeed: {ours.express} on the express lane, {ours.full.total()} on the full lane ({lanes})")


def failure(comparison: Comparison, name: str) -> str:
    outcome = comparison.wirespeed.tests.get(name)
    if outcome is None:
        return "    was not run"
    lines = outcome.text.splitlines()[-TEXT_LINES:]
    return "\n".join([f"    {outcome.result}", *(f"    {line}" for line in lines)])


def write_junit(comparison: Comparison, path: Path, seconds: float) -> None:
    """Write a test for each one that passes on aiohttp; known differences count as skipped."""
    names = [name for name in comparison.aiohttp.tests if comparison.aiohttp.passed(name)]
    unexplained, stale = set(comparison.unexplained), set(comparison.stale)
    known = set(comparison.differences) - unexplained
    suite = ElementTree.Element(
        "testsuite", name="conformance", tests=str(len(names)), errors="0", time=f"{seconds:.1f}",
        failures=str(len(unexplained | stale)), skipped=str(len(known)),
    )  # fmt: skip
    for name in names:
        file, _, test = name.partition("::")
        case = ElementTree.SubElement(suite, "testcase", classname=file, name=test)
        if name in unexplained | stale:
            ElementTree.SubElement(case, "failure", message="unknown" if name in unexplained else "gone")
        elif name in known:
            ElementTree.SubElement(case, "skipped", message=comparison.known[name])
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
