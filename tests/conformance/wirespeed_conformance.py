"""pytest plugin: install wirespeed before aiohttp's tests are imported, and write down how they end.

Works in both runs, so that they differ in one thing only: `WIRESPEED_CONFORMANCE_INSTALL`
says whether aiohttp's classes are replaced, `WIRESPEED_CONFORMANCE_REPORT` where the lines
of JSON go. It is copied beside aiohttp's tests and must not import anything of this package.
"""

import gc
import json
import os
import sys
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

REPORT = Path(os.environ["WIRESPEED_CONFORMANCE_REPORT"])
INSTALL = os.environ["WIRESPEED_CONFORMANCE_INSTALL"] == "1"
# What every session has for the lanes, also those that are gone in the end.
_express: list[Any] = []
_full: list[Any] = []


def _write(**record: Any) -> None:
    # Opened anew each time: what ran before a crash is on disk, and no test sees an open file.
    with REPORT.open("a", encoding="utf-8") as report:
        report.write(json.dumps(record) + "\n")


def _remember(cls: type, made: list[Any]) -> None:
    make: Any = cls.__init__  # type: ignore[misc]

    def remember(self: Any, *args: Any) -> None:
        make(self, *args)
        made.append(self)

    cls.__init__ = remember  # type: ignore[misc]


def _install() -> None:
    """Replace aiohttp's classes and have every session counted, also those that are gone in the end."""
    import wirespeed
    from wirespeed.express import ExpressLane
    from wirespeed.lanes import LaneStats

    if not wirespeed.NATIVE:
        raise pytest.UsageError(f"{wirespeed.__file__} runs without its extensions")
    _remember(ExpressLane, _express)
    _remember(LaneStats, _full)
    done = wirespeed.install()
    _write(kind="install", replaced=list(done.replaced), unreached=list(done.unreached))


if INSTALL:
    _install()


def pytest_configure(config: pytest.Config) -> None:
    # aiohttp's pytest.ini ignores this warning by the words of its message, the class's name among them.
    config.addinivalue_line(
        "filterwarnings",
        "ignore:Unclosed client session <wirespeed.client.ClientSession object:ResourceWarning",
    )


def pytest_collection_finish() -> None:
    # aiohttp's loop fixture collects garbage after each test: let it not look at all modules each time.
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report: Any) -> None:
    if report.when != "call" and report.passed:
        return
    outcome = report.outcome
    if hasattr(report, "wasxfail"):
        # An expected failure is an outcome like a pass: it has to be the same on both sides.
        outcome = "xpassed" if report.passed else "xfailed"
    text = report.longreprtext[-6000:] if report.failed else ""
    _write(kind="test", id=report.nodeid, outcome=outcome, text=text)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Clean up after a failed test, so that what it left open is not the next one's failure."""
    failed_before = item.session.testsfailed
    done = yield
    if item.session.testsfailed > failed_before:
        for name in ("last_exc", "last_type", "last_value", "last_traceback"):
            sys.__dict__.pop(name, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return done


def pytest_sessionfinish() -> None:
    full: dict[str, int] = {}
    for stats in _full:
        for reason, number in stats.snapshot(0)["full"].items():
            full[reason] = full.get(reason, 0) + number
    _write(kind="end", express=sum(lane.express for lane in _express), full=full)
