"""What `wirespeed bench` makes of measurements: figures, goals, failures, tables, JSON and the chart."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from wirespeed.cli import bench
from wirespeed.cli.chart import chart
from wirespeed.cli.report import notes, tables
from wirespeed.testing.load import rounds
from wirespeed.testing.load.clients import BASE, CLIENTS, ClientSpec
from wirespeed.testing.load.results import Outcome, Results, Row, collect, summarise
from wirespeed.testing.load.workloads import WORKLOADS, Workload
from wirespeed.testing.process import ServerProcess

JSON64, GATHER = WORKLOADS["json64"], WORKLOADS["gather100k"]


def record(cpu: float, *, peak: float | None = 40.0, lanes: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "cpu_us_per_request": cpu,
        "requests_per_second": 1e6 / cpu,
        "p50_ms": None,
        "p99_ms": None,
        "peak_memory_mb": peak,
        "loop": "uvloop",
        "lanes": lanes,
    }


def outcome(*cpu: float, **fields: Any) -> Outcome:
    return Outcome([record(each, **fields) for each in cpu])


def results(*rows: Row, quick: bool = False) -> Results:
    return collect(rows, rounds=3, cores=(0, 1), quick=quick)


@pytest.fixture
def whole() -> Results:
    """Every workload and every client, two of which have failed."""
    made = []
    for workload in WORKLOADS.values():
        outcomes = {}
        for number, (name, spec) in enumerate(CLIENTS.items()):
            declined = spec.declines(workload)
            cpu = 90.0 / (number + 1)
            outcomes[name] = outcome(cpu, cpu * 1.1, cpu) if declined is None else Outcome(declined=declined)
        if workload.name == "gather1m":
            outcomes[BASE] = Outcome(failed="ConnectionTimeoutError: waited <long> & in vain")
        if workload.name == "tls64":
            outcomes["httpx"].failed = "ended by SIGSEGV"
        made.append(summarise(workload, workload.requests, outcomes))
    return results(*made)


def test_summary_takes_medians_and_pairs_the_rounds() -> None:
    lanes = {"express": 3, "full": {"proxy": 1}}
    row = summarise(
        JSON64, 100, {"aiohttp": outcome(80, 160, 90), "wirespeed": outcome(20, 40, 15, lanes=lanes)}
    )
    base, ours = row.clients
    assert (base.cpu_us_per_request, base.ratio, base.express_share) == (90, 1.0, None)
    assert base.cpu_spread_percent == pytest.approx(88.9)
    assert (base.ratio_spread_percent, ours.ratio_spread_percent) == (0.0, 50.0)
    assert (ours.cpu_us_per_request, ours.ratio) == (20, 4.0)
    assert ours.express_share == 0.75
    assert ours.full_lane_reasons() == {"proxy": 3}
    assert ours.p50_ms is None


def test_one_round_has_no_spread() -> None:
    row = summarise(JSON64, 100, {"aiohttp": outcome(80), "wirespeed": outcome(20)})
    for cell in row.clients:
        assert (cell.cpu_spread_percent, cell.ratio_spread_percent) == (None, None)
    assert text(results(row)).count(" - ") >= 2 * 2  # no spread, no latencies


def test_failed_client_has_no_figures_and_takes_none_from_the_others() -> None:
    failing = dataclasses.replace(outcome(30), failed="it hung")
    row = summarise(JSON64, 100, {"aiohttp": outcome(80, 80), "wirespeed": outcome(20, 20), "floor": failing})
    _, ours, floor = row.clients
    assert ours.ratio == 4.0
    assert (floor.failed, floor.cpu_us_per_request, floor.ratio) == ("it hung", None, None)
    assert len(floor.rounds) == 1


@pytest.mark.parametrize(
    ("workload", "base", "ours", "met"),
    [
        (JSON64, outcome(100), outcome(20), True),
        (JSON64, outcome(100), outcome(20.1), False),
        (JSON64, Outcome(failed="it crashed"), outcome(20), None),
        (JSON64, outcome(100), Outcome(failed="it crashed"), False),
        (GATHER, outcome(100), outcome(20, peak=219.9), True),
        (GATHER, outcome(100), outcome(20, peak=220.0), False),
        (GATHER, outcome(100), outcome(20, peak=None), None),
        (GATHER, Outcome(failed="it crashed"), outcome(20, peak=500.0), False),
        (WORKLOADS["gather1m"], Outcome(failed="it crashed"), outcome(20, peak=500.0), True),
        (WORKLOADS["hosts1"], outcome(100), outcome(20), None),
    ],
)
def test_goal_is_met_by_ratio_and_memory(
    workload: Workload, base: Outcome, ours: Outcome, met: bool | None
) -> None:
    outcomes = {"aiohttp": base, "wirespeed": ours}
    assert summarise(workload, 100, outcomes).goal_met is met
    assert summarise(workload, 100, outcomes, quick=True).goal_met is None


def test_json_says_what_was_measured(whole: Results) -> None:
    assert Results.from_json(whole.to_json()) == whole


@pytest.mark.parametrize("document", ["{", "[]", '{"schema": 1}', '{"schema": 2, "workloads": 1}'])
def test_json_of_something_else_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match=r"schema|line 1"):
        Results.from_json(document)


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "reason"),
    [
        (1, '{"error": "WrongAnswer: got 0,\\n x"}\n', "Traceback", "WrongAnswer: got 0, x"),
        (2, "", "usage: x\nx: error: no client\n", "exit code 2: x: error: no client"),
        (-11, "", "", "ended by SIGSEGV"),
        (0, "not JSON", "", "exit code 0"),
        (0, "", "", "exit code 0"),
        (3, "", "x" * 1000, "exit code 3: xxx"),
    ],
)
def test_process_without_figures_says_why(code: int, stdout: str, stderr: str, reason: str) -> None:
    with pytest.raises(rounds.Failed) as caught:
        rounds.read_record(code, stdout, stderr)
    assert str(caught.value).startswith(reason)
    assert len(str(caught.value)) <= 300


def test_record_is_the_last_line() -> None:
    assert rounds.read_record(0, 'a peer says hello\n{"requests": 1}\n', "") == {"requests": 1}


def test_crash_after_the_record_is_told_with_the_figures() -> None:
    found = rounds.read_record(-11, '{"requests": 1}\n', "finalizing\n")
    assert found == {"requests": 1, "ending": "ended by SIGSEGV: finalizing"}
    row = summarise(JSON64, 100, {"aiohttp": Outcome([{**record(80), **found}])})
    assert row.clients[0].cpu_us_per_request == 80
    assert "json64: aiohttp had its figures, and then: ended by SIGSEGV: finalizing." in notes(results(row))


class Watcher:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []

    def round_starts(self, workload: Workload, client: ClientSpec, number: int) -> None:
        self.started.append(f"{number} {client.name}")

    def round_ends(self, workload: Workload, client: ClientSpec, number: int, outcome: str) -> None:
        self.ended.append(outcome)


def plan(*clients: str, workload: Workload = JSON64, count: int = 2) -> rounds.Plan:
    return rounds.Plan((workload,), clients, count, None, None, requests=8)


def test_clients_take_turns_and_a_failed_one_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def serve(workload: Workload, core: int | None) -> Iterator[tuple[str, str | None]]:
        yield "http://127.0.0.1:1", None

    def work(plan: rounds.Plan, workload: Workload, spec: ClientSpec, url: str, cafile: str | None) -> Any:
        if spec.name == "floor":
            raise rounds.Failed("wrong answers")
        return record(80 if spec.name == "aiohttp" else 20)

    monkeypatch.setattr(rounds, "_serve", serve)
    monkeypatch.setattr(rounds, "_run_worker", work)
    watcher = Watcher()
    (row,) = rounds.run(plan("aiohttp", "floor", "wirespeed"), watcher)
    assert watcher.started == ["1 aiohttp", "1 floor", "1 wirespeed", "2 aiohttp", "2 wirespeed"]
    assert watcher.ended[1] == "failed: wrong answers"
    assert [cell.failed for cell in row.clients] == [None, "wrong answers", None]
    assert [cell.ratio for cell in row.clients] == [1.0, None, 4.0]


def test_client_that_declines_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()
    (row,) = rounds.run(plan("floor", workload=GATHER), watcher)
    assert watcher.started == []
    assert [cell.declined for cell in row.clients] == ["no queue behind its pool"]


def test_client_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "_TIME_LIMIT", 0.01)
    (row,) = rounds.run(plan("floor"), Watcher())
    assert [cell.failed for cell in row.clients] == ["no end within 0.01 s"]


def test_server_that_does_not_start_is_told_for_every_client(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(server: ServerProcess) -> None:
        raise RuntimeError("the server did not listen")

    monkeypatch.setattr(ServerProcess, "start", fail)
    (row,) = rounds.run(plan("aiohttp", "floor"), Watcher())
    assert [cell.failed for cell in row.clients] == ["the server did not listen"] * 2


def test_rounds_are_shorter_for_costly_clients_and_quick_runs() -> None:
    httpx = CLIENTS["httpx"]
    assert rounds.requests_of(JSON64) == 20_000
    assert rounds.requests_of(JSON64, httpx) == 500
    assert rounds.requests_of(JSON64, quick=True) == 400
    assert rounds.requests_of(JSON64, httpx, quick=True) == 64  # each in flight has one to send
    assert rounds.requests_of(GATHER, CLIENTS["niquests"]) == 100_000


def test_all_workloads_are_those_that_do_not_take_minutes() -> None:
    names = [workload.name for workload in bench._workloads(["all"], None)]
    assert names == [name for name, workload in WORKLOADS.items() if not workload.is_long]
    more = bench._workloads(["all", "gather1m", "json"], 7)
    assert [workload.name for workload in more] == [*names, "gather1m"]
    assert {workload.concurrency for workload in more} == {7}


def test_all_peers_come_after_the_two_that_are_always_there() -> None:
    assert bench._clients([]) == ("aiohttp", "wirespeed")
    assert bench._clients(["floor", "wirespeed"]) == ("aiohttp", "wirespeed", "floor")
    assert bench._clients(["all", "floor"]) == tuple(CLIENTS)


def text(shown: Results, width: int = 240) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        for table in tables(shown, width):
            console.print(table)
    return capture.get()


@pytest.mark.parametrize("width", [80, 120, 240])
def test_overview_has_every_row_and_client_at_any_width(whole: Results, width: int) -> None:
    shown = text(whole, width)
    assert max(map(len, shown.splitlines())) <= width
    words = " ".join(shown.split())
    for spec in CLIENTS.values():
        assert spec.title.rpartition(" ")[2] in words
    for row in whole.workloads:
        assert row.title.partition(",")[0].split()[0] in words
    for figure in ("90.0", "2.00x ±0%", "10.00x ±0%", "5.0x", "missed", "failed", "40 MB", "< 3,000 MB"):
        assert figure in shown


def test_notes_say_what_failed_and_what_was_left_out(whole: Results) -> None:
    lines = notes(whole)
    assert "gather1m: aiohttp failed: ConnectionTimeoutError: waited <long> & in vain." in lines
    assert "tls64: httpx failed: ended by SIGSEGV." in lines
    assert "Not measured, no queue behind its pool: wreq, bare floor (gather100k, gather1m)." in lines
    assert any(line.startswith("wirespeed ") and "CPython" in line for line in lines)
    assert not any("quick" in line for line in lines)
    assert "quick" in notes(dataclasses.replace(whole, quick=True))[-1]


def texts(svg: str) -> list[str]:
    elements = ElementTree.fromstring(svg).iter()
    return ["".join(element.itertext()) for element in elements if "text" in element.tag]


def test_chart_shows_every_workload_with_its_goal_and_the_versions(whole: Results) -> None:
    svg = chart(whole)
    shown = texts(svg)
    for row in whole.workloads:
        assert any(each.startswith(row.title) for each in shown)
    assert f"{JSON64.title}goal 5.0x: missed" in shown
    for spec in CLIENTS.values():
        assert spec.title in shown
    assert "failed: ConnectionTimeoutError" in shown
    assert "failed: ended by SIGSEGV" in shown
    assert "times less CPU than aiohttp" in shown
    assert "CPython" in " ".join(shown)
    assert "prefers-color-scheme: dark" in svg


def test_chart_stays_inside_its_frame(whole: Results) -> None:
    root = ElementTree.fromstring(chart(whole))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter():
        for name, value in element.attrib.items():
            if name in ("x", "x1", "x2", "y", "y1", "y2"):
                assert 0 <= float(value) <= (width if name[0] == "x" else height)


def test_bars_are_as_long_as_their_ratios() -> None:
    outcomes = {"aiohttp": outcome(80), "wirespeed": outcome(20), "httpx": outcome(160), "floor": outcome(1)}
    row = summarise(JSON64, 100, outcomes)
    bars = [
        element
        for element in ElementTree.fromstring(chart(results(row))).iter()
        if element.tag.endswith("rect") and element.attrib["class"] != "back"
    ]
    legend, (ours, httpx, floor) = bars[:3], bars[3:]
    assert [bar.attrib["class"] for bar in legend] == ["ours", "theirs", "floor"]
    lengths = [float(bar.attrib["width"]) for bar in (ours, httpx, floor)]
    assert lengths[0] / lengths[1] == pytest.approx(8, rel=0.01)
    # To the end of the scale, which is at the goal; not 80 times as long.
    assert lengths[2] / lengths[0] == pytest.approx(5 / 4, rel=0.01)


@pytest.mark.parametrize("rows", [0, 1])
def test_chart_of_hardly_anything_is_a_chart(rows: int) -> None:
    row = summarise(JSON64, 100, {"aiohttp": Outcome(failed="a"), "wirespeed": Outcome(failed="b")})
    assert "bare floor" in " ".join(texts(chart(results(*[row] * rows))))
