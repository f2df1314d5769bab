"""What the comparison shows: a table and every difference, and a JUnit report for CI."""

from pathlib import Path
from xml.etree import ElementTree

from conformance.results import Comparison

TEXT_LINES = 30  # of a failure that is not explained


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
    reasons = ", ".join(f"{number} {reason}" for reason, number in ours.full.most_common())
    print(
        f"\nrequests on wirespeed: {ours.express} on the express lane, {sum(ours.full.values())} on the full"
    )
    if reasons:
        print(f"    on the full lane because of: {reasons}")


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
