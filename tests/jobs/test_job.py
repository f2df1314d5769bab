"""Jobs against a real server: from a file of lines to an output, in one go or several."""

import asyncio
import importlib.util
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from support.local import Exchange, LocalServer
from support.threaded import serving
from yarl import URL

from wirespeed.batch import Progress, Request
from wirespeed.jobs import Job, JobError, Line, Report, Settings, run, run_part
from wirespeed.jobs import sending as sending_module
from wirespeed.jobs.inputs import Source

needs_pyarrow = pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")


class Place:
    """A server, and a place for files."""

    def __init__(self, server: LocalServer, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.output = folder / "out.ndjson"
        self.state = folder / "out.ndjson.partial"

    def write(self, *lines: str) -> Path:
        path = self.folder / "in"
        path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return path

    def numbered(self, count: int, path: str = "/ok") -> Path:
        return self.write(*(f"{self.server.url(path)}?n={number}" for number in range(1, count + 1)))

    def run(self, given: Any, output: Any = None, settings: Settings | None = None, **options: Any) -> Report:
        hooks = {name: options.pop(name) for name in ("on_progress", "stop") if name in options}
        return run(Job(given, output or self.output, settings or Settings(), **options), **hooks)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_bytes().splitlines()]

    def asked(self) -> Counter[str]:
        return Counter(exchange.target for exchange in self.server.exchanges)


@pytest.fixture
def place(tmp_path: Path) -> Any:
    with serving() as server:
        yield Place(server, tmp_path)


def test_every_line_has_a_record(place: Place) -> None:
    url = place.server.url
    path = place.write(
        url("/ok"),
        "",
        "# a comment",
        url("/status?n=404"),
        "ftp://bad",
        json.dumps(
            {"url": url("/echo"), "method": "post", "json": {"a": 1}, "headers": {"X-A": "b"}, "id": 7}
        ),
        url("/drop"),
        json.dumps({"url": url("/echo"), "params": {"q": "ä"}}),
        url("/bytes?n=2000"),
    )
    report = place.run(path, settings=Settings(headers={"X-All": "c"}, max_body=1000))
    found = {record["line"]: record for record in place.records()}
    assert sorted(found) == [1, 4, 5, 6, 7, 8, 9]
    assert (found[1]["status"], found[1]["body"], found[1]["size"]) == (200, "ok", 2)
    assert found[4]["status"] == 404
    assert found[5]["error"] == {"type": "BadLine", "message": "unsupported scheme 'ftp': 'ftp://bad'"}
    echoed = json.loads(found[6]["body"])
    headers = {name.lower(): value for name, value in echoed["headers"]}
    assert (echoed["method"], echoed["body"], found[6]["id"]) == ("POST", '{"a": 1}', 7)
    assert (headers["x-a"], headers["x-all"]) == ("b", "c")
    assert found[7]["error"]["type"] == "ServerDisconnectedError"
    assert found[8]["final_url"].endswith("/echo?q=%C3%A4")
    assert found[9]["error"]["type"] == "BodyTooLarge"
    assert (report.is_complete, report.hint, report.output) == (True, "", str(place.output))
    summary = report.summary
    assert (summary.done, summary.failed, summary.bad) == (7, 4, 1)
    assert summary.bad_lines == [(5, "unsupported scheme 'ftp': 'ftp://bad'")]
    assert summary.errors == {"BadLine": 1, "ServerDisconnectedError": 1, "BodyTooLarge": 1}
    assert summary.seconds > 0
    assert not place.state.exists()


def test_no_lines_at_all_are_an_empty_output(place: Place) -> None:
    report = place.run(place.write("# nothing"))
    assert (report.is_complete, report.summary.done, place.output.read_bytes()) == (True, 0, b"")


def test_requests_of_a_program_are_lines_too(place: Place) -> None:
    url = place.server.url("/ok")
    given = [url, URL(url), Request("HEAD", url, id="head"), Line(10, None, "no good"), 5, url]
    report = place.run(given, dedup=True)
    found = {record["line"]: record for record in place.records()}
    assert {number: record["method"] for number, record in found.items()} == {
        1: "GET", 3: "HEAD", 5: None, 10: None
    }  # fmt: skip
    assert "no URL and no wirespeed.Request, but int: 5" in found[5]["error"]["message"]
    assert report.summary.done == 4


def test_ordered_records_are_in_the_order_of_the_lines(place: Place) -> None:
    def answer(exchange: Exchange) -> None:
        delay = 0.05 if int(exchange.query["n"]) % 5 == 1 else 0.0
        asyncio.get_running_loop().call_later(delay, exchange.respond, 200, b"ok")

    place.server.routes["/some"] = answer
    path = place.numbered(40, "/some")
    path.write_text(path.read_text() + "bad\n" + path.read_text())
    place.run(path, ordered=True, settings=Settings(concurrency=7))
    assert [record["line"] for record in place.records()] == list(range(1, 82))


def test_no_more_than_asked_for_are_under_way(place: Place) -> None:
    place.server.routes["/some"] = lambda exchange: asyncio.get_running_loop().call_later(
        0.002, exchange.respond, 200, b"ok"
    )
    place.run(place.numbered(60, "/some"), settings=Settings(concurrency=5))
    assert 1 < place.server.max_active <= 5
    place.server.max_active = 0
    place.run(place.numbered(60, "/some"), settings=Settings(concurrency=20, per_host=3))
    assert 1 < place.server.max_active <= 3


def test_what_fails_is_sent_again_as_often_as_asked(place: Place) -> None:
    place.server.routes["/flaky"] = lambda exchange: exchange.respond(
        200 if sum(each.path == "/flaky" for each in place.server.exchanges) > 2 else 503,
        b"",
        [("Retry-After", "0")],
    )
    report = place.run(place.write(place.server.url("/flaky")), settings=Settings(retries=3))
    (record,) = place.records()
    assert (record["status"], record["attempts"], report.summary.attempts) == (200, 3, 3)


def test_the_rate_holds(place: Place) -> None:
    begun_at = time.monotonic()
    place.run(place.numbered(12), settings=Settings(rate=40, concurrency=12))
    assert time.monotonic() - begun_at >= 0.2


def test_a_request_that_takes_too_long_is_a_failure(place: Place) -> None:
    report = place.run(place.write(place.server.url("/hold")), settings=Settings(timeout=0.1))
    assert [record["error"]["type"] for record in place.records()] == ["TimeoutError"]
    assert report.summary.failed == 1


def test_connections_to_hosts_that_are_done_with_are_closed_for_others(place: Place) -> None:
    most = 0
    with serving() as second, serving() as third, serving() as fourth:
        servers = [place.server, second, third, fourth]

        def count(exchange: Exchange) -> None:
            nonlocal most
            most = max(most, sum(len(server.open) for server in servers))
            exchange.respond(200, b"ok")

        for server in servers:
            # The other servers have seen by then that a connection was closed.
            server.routes["/count"] = lambda x: asyncio.get_running_loop().call_later(0.1, count, x)
        report = place.run([server.url("/count") for server in servers * 3], settings=Settings(concurrency=1))
    assert report.summary.failed == 0
    assert most == 2


def test_cookies_of_one_answer_are_not_sent_with_another_request(place: Place) -> None:
    place.server.routes["/set"] = lambda exchange: exchange.respond(200, b"", [("Set-Cookie", "a=b; Path=/")])
    url = place.server.url
    place.run(place.write(url("/set"), url("/echo"), url("/echo")), settings=Settings(concurrency=1))
    assert not any(exchange.header("cookie") for exchange in place.server.exchanges)


# Progress and stop


def test_progress_is_told_and_its_last_word_is_the_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending_module, "PROGRESS_INTERVAL", 0.0)
    monkeypatch.setattr(sending_module, "STOP_INTERVAL", 0.01)
    place.server.routes["/slow"] = lambda exchange: asyncio.get_running_loop().call_later(
        0.1, exchange.respond, 404, b"slow"
    )
    path = place.write(*[place.server.url("/slow")] * 3, "", "bad")
    told: list[Progress] = []
    place.run(path, on_progress=told.append)
    assert len(told) > 2
    last = told[-1]
    assert (last.total, last.taken, last.done, last.failed, last.bytes) == (4, 4, 4, 4, 12)
    assert last.elapsed > 0


def test_a_stop_finishes_what_is_under_way_and_resume_does_the_rest(place: Place) -> None:
    stop = threading.Event()

    def answer(exchange: Exchange) -> None:
        if len(place.server.exchanges) == 10:
            stop.set()
        asyncio.get_running_loop().call_later(0.02, exchange.respond, 200, b"ok")

    place.server.routes["/some"] = answer
    path = place.numbered(200, "/some")
    report = place.run(path, settings=Settings(concurrency=4), stop=stop)
    sent = len(place.server.exchanges)
    assert (report.is_complete, report.summary.done) == (False, sent)
    assert 10 <= sent < 150
    assert "--resume" in report.hint
    assert not place.output.exists()
    told: list[Progress] = []
    report = place.run(path, resume=True, stop=lambda: False, on_progress=told.append)
    assert (report.is_complete, report.summary.done, report.summary.recovered) == (True, 200, sent)
    assert (told[-1].total, told[-1].taken, told[-1].done) == (200, 200, 200)
    assert set(place.asked().values()) == {1}
    assert sorted(record["line"] for record in place.records()) == list(range(1, 201))


def test_a_stop_does_not_wait_for_those_whose_turn_has_not_come(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending_module, "RATE_DRAIN", 0.2)
    begun_at = time.monotonic()
    report = place.run(
        place.numbered(50),
        settings=Settings(rate=1, concurrency=50),
        stop=lambda: time.monotonic() - begun_at > 0.3,
    )
    assert time.monotonic() - begun_at < 5
    assert not report.is_complete
    assert report.summary.done == len(place.server.exchanges) < 10


@pytest.mark.skipif(sys.platform == "win32", reason="of pipes")
def test_an_input_that_may_wait_does_not_hold_up_what_is_under_way(place: Place) -> None:
    fifo = place.folder / "fifo"
    os.mkfifo(fifo)
    url = place.server.url("/ok")

    def feed() -> None:
        with fifo.open("w") as file:
            for number in range(1, 4):
                file.write(f"{url}?n={number}\n")
                file.flush()
                # Not before it has come through.
                deadline = time.monotonic() + 10
                while len(place.server.exchanges) < number and time.monotonic() < deadline:
                    time.sleep(0.01)

    thread = threading.Thread(target=feed)
    thread.start()
    report = place.run(fifo)
    thread.join(10)
    assert (report.is_complete, report.summary.done) == (True, 3)


# What cannot run


def test_jobs_are_imported_without_the_packages_of_extras() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['hdrh', 'pyarrow', 'distributed', 'rich', 'typer']))\n"
        "import wirespeed.jobs"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_a_missing_input_is_named_and_nothing_is_left(place: Place) -> None:
    with pytest.raises(JobError, match=r"cannot read .*missing: No such file"):
        place.run(place.folder / "missing")
    with pytest.raises(JobError, match="it is a directory"):
        place.run(place.folder)
    assert list(place.folder.iterdir()) == []


def test_an_output_that_cannot_be_is_refused_before_anything_is_sent(place: Place) -> None:
    with pytest.raises(JobError, match="there is no directory"):
        place.run(place.numbered(3), place.folder / "missing" / "out")
    assert place.server.exchanges == []


def test_the_standard_output_cannot_be_resumed(place: Place) -> None:
    with pytest.raises(JobError, match="cannot be resumed"):
        place.run(place.numbered(3), "-", resume=True)


def test_a_changed_input_is_refused(place: Place) -> None:
    path = place.numbered(30)
    place.run(path, stop=lambda: True, settings=Settings(concurrency=1))
    with pytest.raises(JobError, match="of a job that was interrupted"):
        place.run(path)
    text = path.read_text()
    path.write_text(text.replace("n=7\n", "n=8\n"))
    with pytest.raises(JobError, match="its input is another"):
        place.run(path, resume=True)
    path.write_text(text)
    assert place.run(path, resume=True).is_complete


def test_a_missing_histogram_is_told_before_anything_is_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hdrh.histogram", None)
    with pytest.raises(JobError, match="hdrhistogram"):
        place.run(place.numbered(3))
    assert place.server.exchanges == []


def test_resume_of_what_is_complete_does_nothing(place: Place) -> None:
    path = place.numbered(5)
    first = place.run(path)
    report = place.run(path, resume=True)
    assert (report.is_complete, report.summary.done, report.summary.recovered) == (True, 5, 5)
    assert report.summary.as_dict()["latency"] == first.summary.as_dict()["latency"]
    assert len(place.server.exchanges) == 5


# What happens on the way


class Full:
    """A file that has room for so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def write(self, data: Any, /) -> int:
        if not self._room:
            raise OSError(28, "No space left on device")
        data = data[: self._room]
        self._room -= len(data)
        return int(self._file.write(data))

    def fileno(self) -> int:
        return int(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def test_a_full_disk_stops_the_job_and_nothing_written_is_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wirespeed.jobs import parts

    class Narrow(parts.PartWriter):
        def __init__(self, file: Any, **options: Any) -> None:
            super().__init__(Full(file, 2000), **options)

    path = place.numbered(300)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "FLUSH_SIZE", 500)
        patch.setattr(sending_module, "PartWriter", Narrow)
        with pytest.raises(JobError, match=r"cannot write .*part-00001.ndjson: No space left") as caught:
            place.run(path, settings=Settings(concurrency=2))
    assert "--resume" in caught.value.hint
    assert len(place.server.exchanges) < 300
    (part,) = place.state.glob("part-*")
    assert part.stat().st_size == 2000
    written = [json.loads(line)["line"] for line in part.read_bytes().splitlines()[:-1]]
    report = place.run(path, resume=True)
    assert report.summary.recovered == len(written)
    assert sorted(record["line"] for record in place.records()) == list(range(1, 301))
    asked = place.asked()
    assert all(asked[f"/ok?n={number}"] == 1 for number in written)


def test_a_full_disk_is_noticed_though_nothing_comes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from wirespeed.jobs import parts

    class Narrow(parts.PartWriter):
        def __init__(self, file: Any, **options: Any) -> None:
            super().__init__(Full(file, 0), **options)

    monkeypatch.setattr(sending_module, "PartWriter", Narrow)
    path = place.write(place.server.url("/ok"), place.server.url("/hold"))
    begun_at = time.monotonic()
    with pytest.raises(JobError, match="No space left"):
        place.run(path)
    assert time.monotonic() - begun_at < 10


def test_an_input_that_breaks_off_stops_the_job(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Source.lines

    def broken(source: Source) -> Any:
        for count, line in enumerate(lines(source)):
            if count == 3:
                raise JobError("cannot read in: Input/output error")
            yield line

    path = place.numbered(9)
    with monkeypatch.context() as patch:
        patch.setattr(Source, "lines", broken)
        with pytest.raises(JobError, match="Input/output error: go on with --resume"):
            place.run(path)
    report = place.run(path, resume=True)
    assert (report.is_complete, report.summary.done, report.summary.recovered) == (True, 9, 3)
    assert len(place.server.exchanges) == 9


@pytest.mark.parametrize("cut", range(0, 400, 23))
def test_a_job_that_was_killed_anywhere_goes_on_where_it_was(place: Place, cut: int) -> None:
    path = place.numbered(12)
    place.run(path, settings=Settings(concurrency=3))
    whole = place.output.read_bytes()
    place.output.unlink()
    place.run(path, stop=lambda: True, settings=Settings(concurrency=1))
    for part in place.state.glob("part-*"):
        part.unlink()
    size = len(whole) * cut // 400
    (place.state / "part-00001.ndjson").write_bytes(whole[:size])
    place.server.exchanges.clear()
    report = place.run(path, resume=True)
    assert sorted(record["line"] for record in place.records()) == list(range(1, 13))
    assert report.summary.done == 12
    assert len(place.server.exchanges) == 12 - whole[:size].count(b"\n")


# Outputs


def test_a_directory_of_bodies(place: Place) -> None:
    url = place.server.url
    place.server.routes["/page"] = lambda exchange: exchange.respond(
        200, b"<html>", [("Content-Type", "text/html")]
    )
    place.output = place.folder / "bodies" / "index.ndjson"
    report = place.run(place.write(url("/page"), url("/drop"), url("/ok"), "bad"), f"{place.folder}/bodies/")
    found = {record["line"]: record.get("body_file") for record in place.records()}
    assert found == {1: "000000001.html", 2: None, 3: "000000003.bin", 4: None}
    assert sorted(path.name for path in (place.folder / "bodies").iterdir()) == [
        "000000001.html", "000000003.bin", "index.ndjson"
    ]  # fmt: skip
    assert (place.folder / "bodies" / "000000001.html").read_bytes() == b"<html>"
    assert report.summary.bytes == 8


@needs_pyarrow
def test_a_parquet_file(place: Place) -> None:
    import pyarrow.parquet

    place.run(place.numbered(20), place.folder / "out.parquet")
    with pyarrow.parquet.ParquetFile(place.folder / "out.parquet") as file:
        rows = file.read().to_pylist()
    assert sorted(row["line"] for row in rows) == list(range(1, 21))
    assert {row["body"] for row in rows} == {"ok"}
    assert sorted(path.name for path in place.folder.iterdir()) == ["in", "out.parquet"]


def test_the_standard_output_has_the_records(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    report = place.run(place.numbered(5), "-")
    out = capfd.readouterr().out
    assert sorted(json.loads(line)["line"] for line in io.StringIO(out)) == [1, 2, 3, 4, 5]
    assert report.is_complete
    assert [path.name for path in place.folder.iterdir()] == ["in"]


# Parts of a job


def test_a_part_is_run_for_itself(place: Place) -> None:
    lines = [Line(7, Request("GET", place.server.url("/ok"))), Line(9, None, "no host")]
    part = place.folder / "part"
    summary = run_part(lines, Settings(), part)
    assert sorted(json.loads(line)["line"] for line in part.read_bytes().splitlines()) == [7, 9]
    assert (summary.done, summary.failed, summary.bad) == (2, 1, 1)


def test_a_part_that_cannot_be_written_is_named(place: Place) -> None:
    with pytest.raises(JobError, match=r"cannot write .*missing"):
        run_part([], Settings(), place.folder / "missing" / "part")
