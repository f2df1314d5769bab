"""`wirespeed fetch`, killed and interrupted: nothing is lost, nothing twice, nothing written asked again."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.counting import CountingServer

from .command import SECONDS, Fetch, interrupt

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

COUNT = 400
ROUNDS = 4
SEEDS = range(12 if os.environ.get("WIRESPEED_LONG", "") not in ("", "0") else 1)


def written(fetch: Fetch) -> "set[int]":
    """The lines that have a whole record in the state directory, of workers that were killed, too."""
    found = set()
    for kind in ("part-*.ndjson", "shard-*"):
        for part in fetch.folder.glob(f"*.partial/{kind}"):
            for line in part.read_bytes().split(b"\n")[:-1]:
                found.add(json.loads(line)["line"])
    return found


def results(fetch: Fetch, output: str) -> "dict[int, tuple[int, bytes]]":
    """Line, status and body of what is in an output of any kind."""
    path = fetch.folder / output
    if output.endswith(".parquet"):
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(path).to_pylist()
    else:
        rows = fetch.records(output + "index.ndjson" if output.endswith("/") else output)
    found = {row["line"]: (row["status"], body_in(path, row)) for row in rows}
    assert len(found) == len(rows), "a line came twice"
    return found


def body_in(path: Path, row: "dict[str, Any]") -> bytes:
    if row.get("body_file"):
        return (path / row["body_file"]).read_bytes()
    body = row["body"]
    return body if isinstance(body, bytes) else body.encode()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("output", ["out.ndjson", "out.parquet", "bodies/"])
def test_killed_at_random_and_resumed_has_every_line_once(
    fetch: Fetch, server: CountingServer, output: str, seed: int
) -> None:
    if output.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    chance = random.Random(f"{seed} {output}")
    # Bodies of very different lengths: records end in the middle of what is written at once.
    paths = [f"/size/{chance.choice([0, 10, 300, 20_000])}/{n}" for n in range(COUNT)]
    fetch.write("urls.txt", [server.url + path for path in paths])
    server.delay = 0.02
    options = ("urls.txt", "-o", output, "--concurrency", 16, "--json", "--resume")
    for round_ in range(ROUNDS):
        process = fetch.start(*options)
        # The last one while the output is made, or thereabouts.
        more = COUNT - len(written(fetch)) if round_ == ROUNDS - 1 else chance.randint(1, COUNT // ROUNDS)
        before, have = len(server.log), written(fetch)
        server.wait_for(before + more)
        time.sleep(chance.uniform(0, 0.1))
        process.kill()
        process.communicate(timeout=SECONDS)
        again = {asked.path for asked in server.log[before:]}
        assert not again & {paths[line - 1] for line in have}, "what was written was asked for again"
        assert have <= written(fetch) or (fetch.folder / output).exists(), "what was written is lost"
    have = written(fetch)
    done = fetch(*options)
    assert done.returncode == 0, done.stderr
    expected = {line: (200, b"x" * int(path.split("/")[2])) for line, path in enumerate(paths, 1)}
    assert results(fetch, output) == expected
    document = json.loads(done.stdout)
    assert (document["done"], document["failed"], document["statuses"]) == (COUNT, 0, {"200": COUNT})
    assert document["bytes"] == sum(len(body) for _, body in expected.values())
    assert fetch.left() == {"urls.txt", output.strip("/")}
    if output.endswith("/"):
        # Bodies of before a crash are not left beside those that are in the index.
        assert len(list((fetch.folder / output).iterdir())) == COUNT + 1
    # At most what was under way, or not yet flushed, at each kill was asked twice.
    assert sum(server.paths().values()) < COUNT + ROUNDS * 100


def command_to_go_on(err: str) -> "list[str]":
    match = re.search(r"(\S+ fetch .*--resume.*)$", err, re.MULTILINE)
    assert match is not None, err
    return shlex.split(match[1])


def test_interrupt_finishes_what_is_under_way_and_says_how_to_go_on(
    fetch: Fetch, server: CountingServer
) -> None:
    paths = [f"/ok/{n}" for n in range(300)]
    fetch.write("my urls.txt", [server.url + path for path in paths])
    server.delay = 0.05
    process = fetch.start("my urls.txt", "-o", "out.ndjson", "--concurrency", 10, "--header", "X-A: b c")
    server.wait_for(50)
    interrupt(process)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "Ctrl-C" in err
    asked = len(server.log)
    assert 50 <= asked < 150
    # Each that was asked is written, and the summary is there.
    assert {paths[line - 1] for line in written(fetch)} == set(server.paths())
    assert f"{asked} done, 0 failed" in out
    assert not (fetch.folder / "out.ndjson").exists()
    arguments = command_to_go_on(err)
    assert arguments[arguments.index("fetch") :] == [
        "fetch", "--resume", "my urls.txt", "-o", "out.ndjson", "--concurrency", "10", "--header", "X-A: b c",
    ]  # fmt: skip
    done = fetch(*arguments[arguments.index("fetch") + 1 :])
    assert done.returncode == 0, done.stderr
    assert set(server.paths().values()) == {1}
    assert set(results(fetch, "out.ndjson")) == set(range(1, 301))
    assert "300 done, 0 failed" in done.stdout


def test_second_interrupt_ends_it_at_once(fetch: Fetch, server: CountingServer) -> None:
    paths = [f"/ok/{n}" for n in range(100)]
    fetch.write("urls.txt", [server.url + path for path in paths])
    process = fetch.start("urls.txt", "-o", "out.ndjson", "--concurrency", 10, "--json")
    server.wait_for(20)
    server.is_holding = True
    time.sleep(0.3)
    asked = len(server.log)
    interrupt(process)
    time.sleep(0.5)
    assert process.poll() is None, "what is under way was not waited for"
    assert len(server.log) <= asked + 10
    interrupt(process)
    begun = time.monotonic()
    _, err = process.communicate(timeout=SECONDS)
    assert time.monotonic() - begun < 2
    assert process.returncode == 1
    assert "Traceback" not in err
    assert command_to_go_on(err)
    have = written(fetch)
    server.clear()
    found = fetch.document("urls.txt", "-o", "out.ndjson", "--resume")
    assert found["done"] == 100
    assert len(have) + len(server.log) == 100
    assert set(results(fetch, "out.ndjson")) == set(range(1, 101))


def test_interrupt_of_a_job_that_waits_for_its_input_ends_it(fetch: Fetch, server: CountingServer) -> None:
    process = fetch.start("-", "-o", "out.ndjson", "--json", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(f"{server.url}/ok/1\n")
    process.stdin.flush()
    server.wait_for(1)
    time.sleep(0.2)
    interrupt(process)
    process.wait(5)
    assert process.returncode == 1
    assert process.stdout is not None
    found = json.loads(process.stdout.read())
    assert (found["done"], found["complete"]) == (1, False)
    process.stdin.close()
    process.stdin = None


def test_sigterm_is_as_good_as_an_interrupt(fetch: Fetch, server: CountingServer) -> None:
    server.delay = 0.05
    fetch.write("urls.txt", [f"{server.url}/ok/{n}" for n in range(200)])
    process = fetch.start("urls.txt", "-o", "out.ndjson", "--concurrency", 10, "--json")
    server.wait_for(30)
    process.terminate()
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    found = json.loads(out)
    assert (found["done"], found["complete"]) == (len(server.log), False)
    assert (
        shlex.split(found["resume"])[-5:] == ["--concurrency", "10", "--json"][-5:]
        or "--resume" in found["resume"]
    )


def test_frozen_process_keeps_others_off(fetch: Fetch, server: CountingServer) -> None:
    """One process at a time works at an output, whatever state it is in."""
    fetch.write("urls.txt", [f"{server.url}/ok/{n}" for n in range(100)])
    server.is_holding = True
    process = fetch.start("urls.txt", "-o", "out.ndjson", "--concurrency", 5)
    server.wait_for(5)
    process.send_signal(signal.SIGSTOP)
    try:
        done = fetch("urls.txt", "-o", "out.ndjson", "--resume")
        assert (done.returncode, len(server.log)) == (2, 5), done.stderr
        assert "another process" in done.stderr
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()


def test_resume_is_refused_where_it_would_mix(fetch: Fetch, server: CountingServer) -> None:
    server.delay = 0.05
    fetch.write("urls.txt", [f"{server.url}/ok/{n}" for n in range(200)])
    process = fetch.start("urls.txt", "-o", "out.ndjson", "--concurrency", 10)
    server.wait_for(30)
    process.kill()
    process.communicate(timeout=SECONDS)
    asked = len(server.log)
    # Without --resume.
    done = fetch("urls.txt", "-o", "out.ndjson")
    assert done.returncode == 2
    assert "--resume" in done.stderr
    # With another input.
    fetch.write("others.txt", [f"{server.url}/other/{n}" for n in range(200)])
    done = fetch("others.txt", "-o", "out.ndjson", "--resume")
    assert done.returncode == 2
    assert "others.txt" in done.stderr
    assert len(server.log) == asked
    assert written(fetch)
