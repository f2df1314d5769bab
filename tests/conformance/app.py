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
import sys
import tempfile
import time
from pathlib import Path

from conformance.environment import ROOT, set_up
from conformance.known import KNOWN
from conformance.report import show, write_junit
from conformance.results import RunBroken
from conformance.runs import Runner
from conformance.suite import GROUPS, LOOPS, PINNED


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--select", action="append", default=[], metavar="NAME", help="a group, a file or the id of a test")
    add("-k", dest="expression", default="", help="pytest's -k, on both sides")
    add("--aiohttp", metavar="VERSION", help="`pinned`, or a version; else the one that this Python has")
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
        env = set_up(
            args.python, PINNED if args.aiohttp == "pinned" else args.aiohttp, args.cache.resolve(), work
        )
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
