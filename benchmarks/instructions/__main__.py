"""`python -m benchmarks.instructions`: count, check, store, profile.

Run it at the root of the tree. Exit codes: 0 when all is well or there was nothing to compare with, 1 when
a figure is above the stored one by more than the tolerance, 2 when counting failed.
"""

import argparse
import sys
from collections.abc import Mapping

import wirespeed

from . import stored
from .counting import CannotCount, Count, CountingFailed, count
from .exchanges import FLOOR, SCENARIOS
from .stored import Comparison, Verdict

_MISSING = "INSTRUCTIONS WERE NOT CHECKED: {}"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if not wirespeed.NATIVE:
        print("wirespeed runs without its core here: there is no express lane to count")
        return 2
    names = list(dict.fromkeys([FLOOR, *options.scenario])) if options.scenario else list(SCENARIOS)
    try:
        if options.profile:
            from .profile import profile

            print(profile(options.profile, options.top))
            return 0
        counted = count(names)
    except CannotCount as exc:
        print(_MISSING.format(exc))
        return 0 if options.check else 2
    except CountingFailed as exc:
        print(exc)
        return 2
    if options.update:
        stored.update({name: value.own for name, value in counted.items()})
        print(f"stored in {stored.FILE.name} for {stored.key()}")
    return report(counted, options.tolerance, is_check=options.check)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description="Count the instructions of fixed exchanges of the express lane.",
    )
    parser.add_argument("scenario", nargs="*", help=f"of {', '.join(SCENARIOS)}; all by default")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="fail when a figure is above the stored one")
    action.add_argument("--update", action="store_true", help="store the figures")
    action.add_argument("--profile", metavar="SCENARIO", help="show where its instructions go")
    parser.add_argument("--tolerance", type=float, default=stored.TOLERANCE, help="percent")
    parser.add_argument("--top", type=int, default=30, help="rows of each table of a profile")
    return parser


def report(counted: Mapping[str, Count], tolerance: float, *, is_check: bool) -> int:
    """Print the figures beside the stored ones.

    Returns:
        The exit code.
    """
    known = stored.load().get(stored.key(), {})
    own = {name: value.own for name, value in counted.items()}
    comparisons = stored.compare(own, known.get("instructions", {}), tolerance)
    print(
        f"Instructions per exchange, {stored.key()}; missed: lookups that CPython's type cache lost, on top"
    )
    for comparison in comparisons:
        print(_line(comparison, counted[comparison.scenario].missed))
    if not is_check:
        return 0
    if not known:
        print(_MISSING.format(f"there are no stored figures for {stored.key()}; --update makes them"))
        return 0
    moved = _moved(known.get("versions", {}))
    if not stored.is_comparable(comparisons):
        print(_MISSING.format("the floor, which is none of our code, has moved; look, then --update"))
        print(moved)
        return 0
    worse = [comparison.scenario for comparison in comparisons if comparison.verdict is Verdict.MORE]
    if worse:
        print(f"\nFAILED: more than {tolerance:g} % above the stored figure: {', '.join(worse)}")
        print(moved)
        print(f"python -m benchmarks.instructions --profile {worse[0]} shows where they go")
    return int(bool(worse))


def _line(comparison: Comparison, missed: float) -> str:
    line = f"{comparison.scenario:<12}{comparison.counted:>10,.0f}  missed {max(missed, 0):>6,.0f}"
    if comparison.stored is not None:
        line += f"  stored {comparison.stored:>9,.0f}  {comparison.change:+6.1f} %"
    if comparison.verdict is not Verdict.SAME:
        line += f"  {comparison.verdict.value}"
    return line


def _moved(before: Mapping[str, str]) -> str:
    """Say what is not as it was when the figures were stored."""
    now = stored.versions()
    moved = [
        f"{name} {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value
    ]
    return "since they were stored: " + (", ".join(moved) or "the same interpreter and packages")


if __name__ == "__main__":
    sys.exit(main())
