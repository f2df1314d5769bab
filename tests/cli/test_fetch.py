"""`wirespeed fetch`: what its options put on the wire, what it writes, what it says, and its exit codes."""

import json
import os
import re
from itertools import pairwise
from typing import Any

import pytest
from support.counting import CountingServer, body_of

from .command import SECONDS, Fetch


def urls(server: CountingServer, paths: "list[str]") -> "list[str]":
    return [server.url + path for path in paths]


def by_line(records: "list[dict[str, Any]]") -> "dict[int, dict[str, Any]]":
    found = {record["line"]: record for record in records}
    assert len(found) == len(records)
    return found


# What is written, and what is said


def test_every_line_becomes_a_record_and_the_summary_says_so(fetch: Fetch, server: CountingServer) -> None:
    paths = ["/ok/1", "/json/2", "/binary/3", "/latin/4", "/redirect/5"]
    done = fetch(fetch.write("urls.txt", urls(server, paths)), "-o", "out.ndjson")
    assert (done.returncode, done.stderr) == (0, "")
    records = by_line(fetch.records("out.ndjson"))
    assert {line: record["url"] for line, record in records.items()} == dict(
        enumerate(urls(server, paths), 1)
    )
    assert all(record["status"] == 200 and record["method"] == "GET" for record in records.values())
    assert all(record["attempts"] == 1 and record["elapsed"] > 0 for record in records.values())
    assert not any("error" in record for record in records.values())
    assert records[1]["headers"]["Content-Length"] == "5"
    assert (records[1]["body"], records[2]["body"], records[4]["body"]) == ("/ok/1", '{"n": 2}', "é")
    assert "body" not in records[3]
    assert body_of(records[3]) == b"\xff\xfe\x003"
    assert records[5]["final_url"] == f"{server.url}/ok/5"
    # No trace of how it was made.
    assert fetch.left() == {"urls.txt", "out.ndjson"}
    assert re.search(r"^ *200 +OK +5 +100.0%", done.stdout, re.MULTILINE)
    assert re.search(r"latency +p50 +p90 +p99 +p99\.9 +max", done.stdout)
    assert re.search(r"^5 done, 0 failed, \d+ bytes in .* requests/s", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout


def test_failures_are_records_too_and_the_exit_code_is_1(fetch: Fetch, server: CountingServer) -> None:
    paths = ["/ok/1", "/status/404/2", "/status/500/3", "/drop/4"]
    done = fetch(fetch.write("urls.txt", urls(server, paths)), "-o", "out.ndjson")
    assert done.returncode == 1, done.stderr
    records = by_line(fetch.records("out.ndjson"))
    assert [records[line]["status"] for line in (1, 2, 3, 4)] == [200, 404, 500, None]
    assert "ServerDisconnectedError" in records[4]["error"]["type"]
    assert re.search(r"^ *404 +Not Found +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"ServerDisconnectedError +1", done.stdout)
    assert "4 done, 3 failed" in done.stdout


def test_json_is_one_object_for_machines(fetch: Fetch, server: CountingServer) -> None:
    lines = [*urls(server, ["/ok/1", "/ok/2", "/status/404/3", "/drop/4"]), "nonsense"]
    found = fetch.document(fetch.write("urls.txt", lines), "-o", "out.ndjson", code=1)
    assert (found["done"], found["failed"], found["complete"]) == (5, 3, True)
    assert found["statuses"] == {"200": 2, "404": 1}
    assert found["errors"]["ServerDisconnectedError"] == 1
    assert sum(found["errors"].values()) == 2
    assert set(found["latency"]) >= {"p50", "p90", "p99", "p99.9", "max", "mean"}
    assert 0 < found["latency"]["p50"] <= found["latency"]["p99.9"] <= found["latency"]["max"] < SECONDS
    assert found["seconds"] > 0
    assert found["requests_per_second"] > 0
    assert found["bytes"] == len("/ok/1/ok/2/status/404/3")
    assert found["output"] == "out.ndjson"


def test_standard_streams_are_input_and_output(fetch: Fetch, server: CountingServer) -> None:
    text = "\n".join(urls(server, [f"/ok/{n}" for n in range(50)]))  # the last line does not end
    done = fetch("-", "-o", "-", "--json", text=text)
    assert done.returncode == 0, done.stderr
    records = by_line([json.loads(line) for line in done.stdout.splitlines()])
    assert {record["body"] for record in records.values()} == {f"/ok/{n}" for n in range(50)}
    assert json.loads(done.stderr)["done"] == 50
    assert fetch.left() == set()


def test_reader_that_leaves_ends_it_without_a_traceback(fetch: Fetch, server: CountingServer) -> None:
    process = fetch.start(fetch.write("urls.txt", urls(server, ["/size/100000/1"] * 500)), "-o", "-")
    assert process.stdout is not None
    assert process.stdout.read(10)
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert len(server.log) < 500


def test_quiet_says_nothing_but_what_is_wrong(fetch: Fetch, server: CountingServer) -> None:
    done = fetch(fetch.write("urls.txt", urls(server, ["/ok/1"])), "-o", "out.ndjson", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = fetch("missing.txt", "-o", "out2.ndjson", "--quiet")
    assert (done.returncode, done.stdout) == (2, "")
    assert "missing.txt" in done.stderr


def test_bar_is_drawn_on_a_terminal_and_gone_at_the_end(fetch: Fetch, server: CountingServer) -> None:
    pty = pytest.importorskip("pty")
    fetch.write("urls.txt", urls(server, [f"/slow/0.3/{n}" for n in range(12)]))
    ours, theirs = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "150"}
    process = fetch.start("urls.txt", "-o", "out.ndjson", "--concurrency", 3, stderr=theirs, **env)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:
        pass  # how Linux says that nobody has the other end any more
    finally:
        os.close(ours)
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).decode()
    assert re.search(r"\b(3|6|9)/12 +[\d.]+/s +0 failed +\d+ bytes +[\d.]+ s left", text), text
    assert "12 done" in out
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h")


# What is sent


def test_lines_of_json_are_whole_requests(fetch: Fetch, server: CountingServer) -> None:
    lines = [
        "\ufeff# a comment behind a mark of the byte order",
        json.dumps({"url": f"{server.url}/a", "params": {"q": "1 2"}, "id": "first"}),
        json.dumps({"url": f"{server.url}/b", "method": "PUT", "json": {"k": [1, None]}, "id": 2}),
        "",
        json.dumps({"url": f"{server.url}/c", "data": "é", "headers": {"X-One": "line", "X-Own": "1"}}),
        f"  {server.url}/d  \r",
    ]
    options = ("--method", "post", "--header", "X-One: all", "--header", "User-Agent: tests: 1")
    done = fetch(fetch.write("in.ndjson", lines), "-o", "out.ndjson", *options)
    assert done.returncode == 0, done.stderr
    asked = {each.path: each for each in server.log}
    assert set(asked) in ({"/a?q=1+2", "/b", "/c", "/d"}, {"/a?q=1%202", "/b", "/c", "/d"})
    assert {path[:2]: each.method for path, each in asked.items()} == {
        "/a": "POST", "/b": "PUT", "/c": "POST", "/d": "POST",
    }  # fmt: skip
    assert {each.headers["x-one"] for each in asked.values()} == {"all", "line"}
    assert (asked["/c"].headers["x-one"], asked["/c"].headers["x-own"]) == ("line", "1")
    assert {each.headers["user-agent"] for each in asked.values()} == {"tests: 1"}
    assert json.loads(asked["/b"].body) == {"k": [1, None]}
    assert asked["/c"].body == "é".encode()
    records = by_line(fetch.records("out.ndjson"))
    assert {line: record.get("id") for line, record in records.items()} == {
        2: "first",
        3: 2,
        5: None,
        6: None,
    }


def test_concurrency_and_per_host_bound_what_is_under_way(fetch: Fetch, server: CountingServer) -> None:
    paths = [f"/slow/0.05/{n}" for n in range(40)]
    here = fetch.write("urls.txt", urls(server, paths))
    assert fetch(here, "-o", "a.ndjson", "--concurrency", 7).returncode == 0
    assert server.peak[""] == 7
    server.clear()
    there = [f"http://localhost:{server.port}{path}" for path in paths]
    both = fetch.write(
        "both.txt", [url for pair in zip(urls(server, paths), there, strict=True) for url in pair]
    )
    assert fetch(both, "-o", "b.ndjson", "--concurrency", 20, "--per-host", 3).returncode == 0
    assert server.peak[f"127.0.0.1:{server.port}"] == server.peak[f"localhost:{server.port}"] == 3


def test_rate_spreads_requests_over_time(fetch: Fetch, server: CountingServer) -> None:
    count, rate = 40, 40
    paths = [f"/ok/{n}" for n in range(count)]
    done = fetch(fetch.write("urls.txt", urls(server, paths)), "-o", "out.ndjson", "--rate", rate)
    assert done.returncode == 0, done.stderr
    times = [each.at for each in server.log]
    assert len(times) == count
    assert times[-1] - times[0] > 0.6 * count / rate
    # Not all in one go at the end.
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.5 * count / rate


def test_retries_timeout_and_max_body(fetch: Fetch, server: CountingServer) -> None:
    paths = ["/flaky/1/1", "/flaky/9/2", "/slow/20/3", "/size/1000/4", "/size/1001/5"]
    here = fetch.write("urls.txt", urls(server, paths))
    options = ("--retries", 1, "--timeout", 1, "--max-body", "1kB")
    assert fetch(here, "-o", "out.ndjson", *options).returncode == 1
    records = by_line(fetch.records("out.ndjson"))
    assert (records[1]["status"], records[1]["attempts"], records[1]["body"]) == (200, 2, "at last")
    assert (records[2]["status"], records[2]["attempts"]) == (503, 2)
    assert "Timeout" in records[3]["error"]["type"]
    assert len(records[4]["body"]) == 1000
    assert records[5]["error"]["type"] == "BodyTooLarge"
    asked = server.paths()
    assert (asked["/flaky/1/1"], asked["/flaky/9/2"], asked["/size/1001/5"]) == (2, 2, 1)


def test_dedup_and_ordered(fetch: Fetch, server: CountingServer) -> None:
    paths = [f"/slow/{0.2 if n % 5 == 0 else 0.01}/{n % 20}" for n in range(60)]
    here = fetch.write("urls.txt", urls(server, paths))
    assert fetch(here, "-o", "out.ndjson", "--dedup", "--ordered").returncode == 0
    assert sorted(server.paths()) == sorted(set(paths))
    assert set(server.paths().values()) == {1}
    assert [record["line"] for record in fetch.records("out.ndjson")] == list(range(1, 21))


def test_directory_of_bodies_has_an_index(fetch: Fetch, server: CountingServer) -> None:
    lines = [
        json.dumps({"url": f"{server.url}/json/1", "id": "../../escape"}),
        json.dumps({"url": f"{server.url}/binary/2", "id": "a/b\0c" + "x" * 500}),
        f"{server.url}/ok/%2e%2e%2fthird",
        f"{server.url}/status/404/4",
    ]
    done = fetch(fetch.write("in.ndjson", lines), "-o", "bodies/")
    assert done.returncode == 1, done.stderr
    folder = fetch.folder / "bodies"
    with (folder / "index.ndjson").open() as index:
        records = by_line([json.loads(line) for line in index])
    bodies = {line: (folder / record["body_file"]).read_bytes() for line, record in records.items()}
    assert bodies[1] == b'{"n": 1}'
    assert bodies[2] == b"\xff\xfe\x002"
    assert bodies[4] == b"/status/404/4"
    assert records[1]["body_file"].endswith(".json")
    names = {record["body_file"] for record in records.values()}
    assert names | {"index.ndjson"} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
    assert fetch.left() == {"in.ndjson", "bodies"}
    assert records[1]["id"] == "../../escape"


def test_parquet_has_the_same_records(fetch: Fetch, server: CountingServer) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = ["/ok/1", "/json/2", "/binary/3", "/status/404/4", "/drop/5"]
    done = fetch(fetch.write("urls.txt", urls(server, paths)), "-o", "out.parquet")
    assert done.returncode == 1, done.stderr
    rows = by_line(parquet.read_table(fetch.folder / "out.parquet").to_pylist())
    assert [rows[line]["status"] for line in range(1, 6)] == [200, 200, 200, 404, None]
    assert rows[1]["url"] == f"{server.url}/ok/1"
    assert fetch.left() == {"urls.txt", "out.parquet"}


# What cannot be run

BAD_OPTIONS = [
    (("--concurrency", "0"), "--concurrency"),
    (("--concurrency", "many"), "--concurrency"),
    (("--rate", "0"), "--rate"),
    (("--rate", "nan"), "--rate"),
    (("--retries", "-1"), "--retries"),
    (("--timeout", "-3"), "--timeout"),
    (("--max-body", "10 parsecs"), "--max-body"),
    (("--per-host", "-1"), "--per-host"),
    (("--header", "no colon"), "--header"),
    (("--header", "Bad Name: 1"), "--header"),
    (("--header", "X: a\r\nY: b"), "--header"),
    (("--header", "X: a", "--header", "x: b"), "--header"),
    (("--method", "GET /"), "--method"),
    (("--workers", "0"), "--workers"),
    (("--no-such-option",), "--no-such-option"),
    (("-o", "out.parquet/../other.ndjson", "more"), "more"),
]


def test_url_of_storage_is_an_output_too(fetch: Fetch, server: CountingServer) -> None:
    pytest.importorskip("fsspec")
    where = (fetch.folder / "out.ndjson").as_uri()
    lines = urls(server, [f"/ok/{n}" for n in range(20)])
    done = fetch(fetch.write("urls.txt", lines), "-o", where)
    assert done.returncode == 0, done.stderr
    assert sorted(by_line(fetch.records("out.ndjson"))) == list(range(1, 21))


def test_bad_options_are_named_and_the_exit_code_is_2(fetch: Fetch, server: CountingServer) -> None:
    fetch.write("urls.txt", urls(server, ["/ok/1"]))
    done = fetch.each([("urls.txt", "-o", "out.ndjson", *arguments) for arguments, _ in BAD_OPTIONS])
    for (arguments, name), (exit_code, output) in zip(BAD_OPTIONS, done, strict=True):
        assert exit_code == 2, (arguments, output)
        assert name in output, (arguments, output)
    assert fetch.left() == {"urls.txt"}
    assert not server.log


def test_bad_lines_are_named_and_the_rest_goes_on(fetch: Fetch, server: CountingServer) -> None:
    good = [f"{server.url}/ok/{n}" for n in range(3)]
    lines = [
        good[0], "ftp://host/file", "no url at all", '{"url": "http://h", "methd": "GET"}', '{"url": ',
        good[1], "http://", '{"url": 5}', "[1, 2]",
    ]  # fmt: skip
    here = fetch.folder / "in.txt"
    here.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n" + good[2].encode())
    done = fetch("in.txt", "-o", "out.ndjson")
    assert done.returncode == 1
    bad = [2, 3, 4, 5, 7, 8, 9, 10]
    for number in bad:
        assert re.search(rf"\bline {number}\b", done.stderr), (number, done.stderr)
    records = by_line(fetch.records("out.ndjson"))
    assert sorted(records) == list(range(1, 12))
    assert {line for line, record in records.items() if "error" in record} == set(bad)
    assert "ftp" in records[2]["error"]["message"]
    assert "methd" in records[4]["error"]["message"]
    assert server.paths() == {f"/ok/{n}": 1 for n in range(3)}


def test_a_flood_of_bad_lines_does_not_flood_the_terminal(fetch: Fetch) -> None:
    done = fetch(fetch.write("in.txt", ["nonsense"] * 1000), "-o", "out.ndjson")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) < 30
    assert "line 1:" in done.stderr
    assert re.search(r"\b9\d\d more\b", done.stderr)
    assert len(fetch.records("out.ndjson")) == 1000


@pytest.mark.parametrize("module", ["hdrh", "hdrh.histogram"])
def test_missing_package_is_one_line_that_says_what_to_install(fetch: Fetch, module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from wirespeed.cli import main; main()"
    done = fetch("-", "-o", "out.ndjson", code=code)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "wirespeed fetch: the package hdrhistogram is missing: pip install 'wirespeed[cli]'\n"
    )


def test_missing_pyarrow_is_said_before_anything_is_sent(fetch: Fetch, server: CountingServer) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from wirespeed.cli import main; main()"
    done = fetch(fetch.write("urls.txt", urls(server, ["/ok/1"])), "-o", "out.parquet", code=code)
    assert done.returncode == 2
    assert "pip install 'wirespeed[parquet]'" in done.stderr
    assert not server.log


def test_help_names_every_option(fetch: Fetch) -> None:
    done = fetch("--help")
    assert done.returncode == 0
    for option in (
        "--output", "--concurrency", "--rate", "--retries", "--timeout", "--max-body", "--per-host",
        "--header", "--method", "--dedup", "--ordered", "--resume", "--json", "--quiet",
        "--workers", "--dask",
    ):  # fmt: skip
        assert option in done.stdout
    assert "Exit code" in done.stdout
