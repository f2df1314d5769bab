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

_NOT_CHECKED = "INSTRUCTIONS WERE NOT CHECKED: {}"


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
        print(_NOT_CHECKED.format(exc))
        return 0 if options.check else 2
    except CountingFailed as exc:
        print(exc)
        return 2
    if options.update:
        stored.update({name: value.own for name, value in counted.items()})
        print(f"stored in {stored.FILE.name} for {stored.key()}")
    return report(counted, options.tolerance, is_check=options.check)


def _scenario(name: str) -> str:
    if name not in SCENARIOS:
        raise argparse.ArgumentTypeError(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description="Count the instructions of fixed exchanges of the express lane.",
    )
    parser.add_argument(
        "scenario", nargs="*", type=_scenario, help=f"of {', '.join(SCENARIOS)}; all by default"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="fail when a figure is above the stored one")
    action.add_argument("--update", action="store_true", help="store the figures")
    action.add_argument(
        "--profile", metavar="SCENARIO", type=_scenario, help="show where its instructions go"
    )
    parser.add_argument("--tolerance", type=float, default=stored.TOLERANCE, help="percent")
    parser.add_argument("--top", type=int, default=30, help="rows of each table of a profile")
    return parser


def report(counted: Mapping[str, Count], tolerance: float, *, is_check: bool) -> int:
    """Print the figures beside the stored ones, and with `is_check` what follows from them.

    Returns:
        The exit code.
    """
    known = stored.load().get(stored.key(), {})
    own = {name: value.own for name, value in counted.items()}
    comparisons = stored.compare(own, known.get("instructions", {}), tolerance)
    print(f"Instructions per exchange on {stored.key()} + those of lookups that missed CPython's type cache")
    for comparison in comparisons:
        print(_line(comparison, counted[comparison.scenario].missed))
    if not is_check:
        return 0
    if not known:
        print(_NOT_CHECKED.format(f"no figures are stored for {stored.key()}; --update stores them"))
        return 0
    print(_moved(known["versions"]))
    if not stored.is_comparable(comparisons):
        print(_NOT_CHECKED.format("the floor has moved, which is none of our code; look, then --update"))
        return 0
    return _conclude(comparisons, tolerance)


def _conclude(comparisons: list[Comparison], tolerance: float) -> int:
    worse = _names(comparisons, Verdict.MORE)
    if below := _names(comparisons, Verdict.LESS):
        print(
            f"more than {tolerance:g} % below the stored figure: {', '.join(below)}: --update, to keep it so"
        )
    if new := _names(comparisons, Verdict.NEW):
        print(f"without a stored figure: {', '.join(new)}: --update stores it")
    if not worse:
        print(f"checked: nothing is more than {tolerance:g} % above its stored figure")
        return 0
    print(f"FAILED: more than {tolerance:g} % above the stored figure: {', '.join(worse)}")
    print(f"`python -m benchmarks.instructions --profile {worse[0]}` shows where they go")
    print("If it has to be, --update stores the new figures, and the commit says why")
    return 1


def _names(comparisons: list[Comparison], verdict: Verdict) -> list[str]:
    return [comparison.scenario for comparison in comparisons if comparison.verdict is verdict]


def _line(comparison: Comparison, missed: float) -> str:
    line = f"{comparison.scenario:<12}{comparison.counted:>9,.0f} + {max(missed, 0):>5,.0f}"
    if comparison.stored is not None:
        line += f"   stored {comparison.stored:>9,.0f}  {comparison.change:+6.1f} %"
    return line if comparison.verdict is Verdict.SAME else f"{line}  {comparison.verdict.value}"


def _moved(before: Mapping[str, str]) -> str:
    """Say what is not as it was when the figures were stored."""
    now = stored.versions()
    moved = [
        f"{name} {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value
    ]
    return "changed since they were stored: " + (", ".join(moved) or "neither interpreter nor packages")


if __name__ == "__main__":
    sys.exit(main())
