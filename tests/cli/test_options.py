"""The small parts of `wirespeed fetch`: values of options, figures of the bar, the command to go on."""

import io
import sys
from typing import Any

import pytest
import typer
from rich.console import Console

from wirespeed.batch import Progress
from wirespeed.cli import bar, fetch, options, summary


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("12345", 12345), ("10MB", 10_000_000), ("10 mb", 10_000_000), ("1KiB", 1024), ("1k", 1024),
        ("1.5GiB", 3 * 2**29), ("7B", 7), ("any", None), ("ANY", None),
    ],
)  # fmt: skip
def test_sizes_are_read_as_the_core_utilities_do(text: str, size: int | None) -> None:
    assert options.size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "1e6", "ten", "10 MB/s", "1,000", "\u0661\u0660", "10TB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no size"):
        options.size(text)


def test_headers_are_fields_as_they_stand_in_a_request() -> None:
    assert options.headers(["A:1", "B: x: y ", "C:"]) == {"A": "1", "B": "x: y", "C": ""}


@pytest.mark.parametrize("field", ["", "none", ": x", "a b: c", "a: b\r\nc: d", "a: \0", "é: x"])
def test_what_is_no_header_field_is_refused(field: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.headers([field])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_speed_is_that_of_the_last_moments_wherever_the_count_begins() -> None:
    clock = Clock()
    speed = bar.Speed(clock)
    assert speed.per_second is None
    speed.note(1_000_000)  # a job that was resumed
    assert speed.per_second is None
    for _ in range(100):
        clock.now += 1
        speed.note(1_000_000 + 50 * int(clock.now))
    assert speed.per_second == pytest.approx(50)
    for _ in range(20):
        clock.now += 1
        speed.note(1_005_000)
    assert speed.per_second == 0
    assert speed.seconds_for(10) is None
    assert len(speed._samples) < 20


def test_figures_of_the_bar() -> None:
    clock = Clock()
    speed = bar.Speed(clock)
    speed.note(0)
    clock.now = 2.0
    speed.note(2000)
    shown = bar.figures(Progress(10_000, 2100, 2000, 3, 4_200_000, 2.0), speed)
    assert shown == "2,000/10,000  1,000/s  3 failed  4.2 MB  8.0 s left"
    assert bar.figures(Progress(None, 2100, 2000, 0, 0, 2.0), speed) == "2,000  1,000/s  0 failed  0 bytes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10.0 s"),
        (12.3, "12 s"),
        (59.4, "59 s"),
        (3661, "1:01:01"),
        (90_000, "1 day, 1:00:00"),
    ],
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert bar.duration(seconds) == text


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/wirespeed", "fetch", "a b", "-o", "c"], "wirespeed fetch --resume 'a b' -o c"),
        (["x/__main__.py", "fetch", "a", "--resume", "-o", "c"], "python -m wirespeed fetch --resume a -o c"),
        (["wirespeed", "fetch", "-o", "c", "--", "-a"], "wirespeed fetch --resume -o c -- -a"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="another shell")
def test_command_to_go_on_is_this_one(
    monkeypatch: pytest.MonkeyPatch, argv: "list[str]", command: str
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert fetch.go_on() == command


def shown(document: "dict[str, Any]") -> str:
    out = Console(file=io.StringIO(), width=100)
    summary.show(document, out)
    return out.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_summary_of_nothing_is_one_line() -> None:
    document = {
        "done": 0, "failed": 0, "bytes": 0, "statuses": {}, "errors": {}, "latency": {"max": 0.0},
        "seconds": 0.0, "requests_per_second": 0.0,
    }  # fmt: skip
    assert shown(document) == "0 done, 0 failed, 0 bytes in 0.0 s\n"


def test_summary_has_the_most_frequent_error_first_and_statuses_in_order() -> None:
    document = {
        "done": 1400, "failed": 1300, "bytes": 2_000_000, "seconds": 2.0, "requests_per_second": 700.0,
        "statuses": {"999": 1, "200": 100, "404": 300}, "errors": {"A": 1, "B": 999},
        "latency": {"p50": 0.00123, "p90": 0.0456, "p99": 0.789, "p99.9": 1.5, "max": 2.0},
    }  # fmt: skip
    text = shown(document)
    assert text.index("200") < text.index("404") < text.index("999")
    assert text.index("B ") < text.index("A ")
    for part in ("Not Found", "74.8%", "1.23", "45.6", "789", "1,500", "2,000"):
        assert part in text
    assert text.endswith("1,400 done, 1,300 failed, 2.0 MB in 2.0 s, 700.0 requests/s, 1.0 MB/s\n")
