"""The guard that counts instructions: its arithmetic, what it reads, and that its exchanges are right.

valgrind is not needed here; `.ci/run instructions` is where it counts.
"""

import json
import sys
from pathlib import Path

import pytest

import wirespeed

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / "benchmarks" / "instructions").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)
sys.path.insert(0, str(ROOT))
try:
    from benchmarks.instructions import __main__ as app
    from benchmarks.instructions import counting, stored
    from benchmarks.instructions.counting import CannotCount, Count, CountingFailed, per_exchange, read_count
    from benchmarks.instructions.exchanges import FLOOR, IN_FLIGHT, SCENARIOS, Exchanges
    from benchmarks.instructions.profile import read_costs, readable
    from benchmarks.instructions.stored import Comparison, Verdict, compare, is_comparable, key_of
finally:
    sys.path.remove(str(ROOT))

# Names are written once; `find_name_in_mro` is what the type cache did not have; f calls itself.
DUMP = """\
# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 4711
cmd:  python -m something
part: 2

positions: line
events: Ir

ob=(1) /usr/lib/libpython3.13.so
fl=(1) typeobject.c
fn=(1) _PyType_LookupRef
10 100
cfn=(2) find_name_in_mro
calls=2 20
11 70
+3 30

fn=(2)
20 60
cfi=(2) dictobject.c
cfn=(3) lookup
calls=4 30
20 10

fn=(3)
30 10

ob=(2) /lib/core.so
fl=(3) ???
fn=(4) __pyx_f_9wirespeed_5_core_6parser_14ResponseParser__classify
0 5
cob=(1)
cfn=(1)
calls=1 10
0 200
cfn=(5) f
calls=1 40
* 90

fn=(5)
0 40
cfn=(6) f'2
calls=3 0
0 50

fn=(6)
0 50
totals: 295
"""


# What callgrind wrote


def test_lookups_that_missed_the_type_cache_are_counted_apart() -> None:
    assert read_count(DUMP.encode()) == Count(own=225, missed=70)


def test_without_symbols_everything_is_counted_as_one() -> None:
    assert read_count(b"fn=(1) main\n0 12\ntotals: 12\n") == Count(own=12, missed=0)


def test_a_file_without_a_total_is_an_error() -> None:
    with pytest.raises(CountingFailed):
        read_count(b"# callgrind format\n")


def test_an_exchange_is_the_difference_of_two_runs() -> None:
    more = (counting.LONG - counting.SHORT) * IN_FLIGHT
    assert per_exchange(Count(1000, 10), Count(1000 + 7 * more, 10 + more / 2)) == Count(7, 0.5)


def test_costs_are_read_by_function_and_by_library() -> None:
    costs = read_costs(DUMP)
    assert costs.process == 4711
    assert costs.own == {
        "_PyType_LookupRef": 130,
        "find_name_in_mro": 60,
        "lookup": 10,
        "__pyx_f_9wirespeed_5_core_6parser_14ResponseParser__classify": 5,
        "f": 90,
    }
    assert costs.libraries == {"/usr/lib/libpython3.13.so": 200, "/lib/core.so": 95}
    # Recursion is in the outermost call already.
    assert costs.all == {"find_name_in_mro": 70, "lookup": 10, "_PyType_LookupRef": 200, "f": 90}
    assert costs.calls == {"find_name_in_mro": 2, "lookup": 4, "_PyType_LookupRef": 1, "f": 4}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "__pyx_pw_9wirespeed_5_core_10connection_10Connection_17buffer_updated",
            "wirespeed._core.connection.Connection.buffer_updated",
        ),
        ("__pyx_f_9wirespeed_5_core_4pool_4Pool__pop_idle", "wirespeed._core.pool.Pool.pop_idle"),
        (
            "__pyx_tp_dealloc_9wirespeed_5_core_6parser_ResponseHead",
            "wirespeed._core.parser.ResponseHead [dealloc]",
        ),
        ("0x00000000053a7010", "perform (wirespeed/express.py)"),
        ("0x0000000000000010", "0x0000000000000010"),
        ("_PyEval_EvalFrameDefault", "_PyEval_EvalFrameDefault"),
    ],
)
def test_functions_have_the_names_of_their_source(name: str, expected: str) -> None:
    trampolines = {0x53A7010: "perform:/somewhere/src/wirespeed/express.py"}
    assert readable(name, trampolines) == expected


# The comparison


@pytest.mark.parametrize(
    ("counted", "before", "verdict"),
    [
        (1000, 1000, Verdict.SAME),
        (1050, 1000, Verdict.SAME),
        (1051, 1000, Verdict.MORE),
        (950, 1000, Verdict.SAME),
        (949, 1000, Verdict.LESS),
        (1000, None, Verdict.NEW),
    ],
)
def test_verdict(counted: float, before: float | None, verdict: Verdict) -> None:
    assert Comparison("json", counted, before, tolerance=5).verdict is verdict


def test_change_is_in_percent_of_what_was_stored() -> None:
    assert Comparison("json", 1200, 1000).change == pytest.approx(20)
    assert Comparison("json", 1200, None).change is None


@pytest.mark.parametrize(("floor", "expected"), [(100, True), (104, True), (106, False), (94, False)])
def test_nothing_can_be_compared_when_the_floor_has_moved(floor: float, expected: bool) -> None:
    assert is_comparable(compare({FLOOR: floor, "json": 500}, {FLOOR: 100, "json": 500}, 5)) is expected


@pytest.mark.parametrize(
    ("compiler", "config", "expected"),
    [
        ("GCC 12.2.0", {"Py_ENABLE_SHARED": 1, "CONFIG_ARGS": "'--enable-shared'"}, "gcc12-shared"),
        ("GCC 13.3.0", {"CONFIG_ARGS": "'--enable-optimizations' '--with-lto'"}, "gcc13-pgo-lto"),
        ("Clang 17.0.6 ", {"Py_GIL_DISABLED": 1, "CONFIG_ARGS": None}, "clang17-freethreaded"),
        ("MSC v.1941 64 bit (AMD64)", {"CONFIG_ARGS": "--with-lto=no"}, "msc1941"),
        ("", {}, "unknown"),
    ],
)
def test_key_names_what_figures_hold_for(compiler: str, config: dict[str, object], expected: str) -> None:
    assert key_of("cpython-3.13", "x86_64", compiler, config) == f"cpython-3.13-x86_64-{expected}"


# The command


@pytest.fixture
def figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file for figures, and a counter that finds 100 for the floor and 1,000 for json."""
    monkeypatch.setattr(stored, "FILE", tmp_path / "instructions.json")
    monkeypatch.setattr(wirespeed, "NATIVE", True)
    set_count(monkeypatch, json=1000)
    return stored.FILE


def set_count(monkeypatch: pytest.MonkeyPatch, **counts: float) -> None:
    found = {FLOOR: Count(100), **{name: Count(value) for name, value in counts.items()}}
    monkeypatch.setattr(app, "count", lambda names: found)


def test_without_stored_figures_the_check_passes_and_says_so(
    figures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["--check"]) == 0
    assert "NOT CHECKED: no figures are stored" in capsys.readouterr().out


def test_what_is_stored_is_what_is_compared_with(
    figures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["--update"]) == 0
    entry = json.loads(figures.read_text())[stored.key()]
    assert entry["instructions"] == {FLOOR: 100, "json": 1000}
    assert entry["versions"]["python"] == sys.version.split()[0]
    assert app.main(["--check"]) == 0
    assert "checked" in capsys.readouterr().out
    set_count(monkeypatch, json=1031)
    assert app.main(["--check"]) == 1
    assert "FAILED: more than 3 % above the stored figure: json" in capsys.readouterr().out
    assert app.main(["--check", "--tolerance", "4"]) == 0
    set_count(monkeypatch, json=900)
    assert app.main(["--check"]) == 0
    assert "more than 3 % below the stored figure: json" in capsys.readouterr().out


def test_an_update_keeps_the_figures_of_others(figures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"instructions": {"json": 7}, "versions": {}}
    figures.write_text(json.dumps({"cpython-2.7-vax-pcc1": other}))
    assert app.main(["--update"]) == 0
    set_count(monkeypatch, post=2000)
    assert app.main(["--update", "post"]) == 0
    found = stored.load(figures)
    assert found["cpython-2.7-vax-pcc1"] == other
    assert found[stored.key()]["instructions"] == {FLOOR: 100, "json": 1000, "post": 2000}


def test_a_floor_that_has_moved_is_no_regression(
    figures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.main(["--update"]) == 0
    monkeypatch.setattr(app, "count", lambda names: {FLOOR: Count(120), "json": Count(1200)})
    assert app.main(["--check"]) == 0
    assert "NOT CHECKED: the floor has moved" in capsys.readouterr().out


def test_where_nothing_can_be_counted_the_check_passes_and_says_so(
    figures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def count(names: object) -> None:
        raise CannotCount("valgrind is not installed")

    monkeypatch.setattr(app, "count", count)
    assert app.main(["--check"]) == 0
    assert capsys.readouterr().out == "INSTRUCTIONS WERE NOT CHECKED: valgrind is not installed\n"
    assert app.main([]) == 2
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotCount, match="valgrind"):
        counting.compiled_library(tmp_path)


def test_a_scenario_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["nonsense"], ["--profile", "nonsense"]):
        with pytest.raises(SystemExit) as caught:
            app.main(arguments)
        assert caught.value.code == 2
        assert "nonsense" in capsys.readouterr().err


# The exchanges


@pytest.mark.skipif(not wirespeed.NATIVE, reason="without the core there is no express lane")
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_answer_is_right_and_every_request_express(name: str) -> None:
    with Exchanges(SCENARIOS[name]) as exchanges:
        # It looks at every answer, at the lanes and at the connections, and raises.
        assert exchanges.run(2) == exchanges.run(2) == 2 * IN_FLIGHT


@pytest.mark.skipif(not wirespeed.NATIVE, reason="without the core there is no express lane")
def test_a_wrong_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(SCENARIOS["json"]), "answer", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
    with Exchanges(SCENARIOS["json"]) as exchanges, pytest.raises(RuntimeError, match="expected 68, got 2"):
        exchanges.run(1)


@pytest.mark.skipif(not wirespeed.NATIVE, reason="without the core there is no express lane")
def test_a_connection_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SCENARIOS["json"].answer.replace(b"keep-alive", b"close")
    monkeypatch.setattr(type(SCENARIOS["json"]), "answer", answer)
    with (
        Exchanges(SCENARIOS["json"]) as exchanges,
        pytest.raises(RuntimeError, match="16 connections, got 32"),
    ):
        exchanges.run(2)
