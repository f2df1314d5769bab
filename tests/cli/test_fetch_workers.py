"""`wirespeed fetch --workers` and `--dask`: what one process does, many do."""

import json
import os
import random
import re
import signal
import sys
import time

import pytest
from support.counting import CountingServer

from .command import MAIN, SECONDS, Fetch
from .test_fetch_kills import SEEDS, command_to_go_on, results, written

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def test_workers_make_what_one_process_makes(fetch: Fetch, server: CountingServer) -> None:
    paths = [f"/ok/{n}" for n in range(300)] + ["/status/404/1", "/drop/2"]
    lines = [server.url + path for path in paths]
    lines[100:100] = ["nonsense"]
    fetch.write("urls.txt", lines)
    options = ("urls.txt", "-o", "out.ndjson", "--workers", 2, "--concurrency", 5, "--header", "X-A: 1")
    done = fetch(*options)
    assert done.returncode == 1, done.stderr
    assert {record["line"] for record in fetch.records("out.ndjson")} == set(range(1, 304))
    assert len(fetch.records("out.ndjson")) == 303
    assert "303 done, 3 failed" in done.stdout
    assert "line 101: " in done.stderr
    # What was dropped on a connection in use is tried once more on a new one, as aiohttp does.
    assert {count for path, count in server.paths().items() if path != "/drop/2"} == {1}
    assert {asked.headers["x-a"] for asked in server.log} == {"1"}
    assert server.peak[""] <= 10
    assert fetch.left() == {"urls.txt", "out.ndjson"}


@posix
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_with_its_workers_and_resumed_has_every_line_once(
    fetch: Fetch, server: CountingServer, seed: int
) -> None:
    chance = random.Random(seed)
    paths = [f"/size/{chance.choice([0, 10, 300, 20_000])}/{n}" for n in range(450)]
    fetch.write("urls.txt", [server.url + path for path in paths])
    options = ("urls.txt", "-o", "out.ndjson", "--workers", 2, "--concurrency", 8, "--json", "--resume")
    server.delay = 0.02
    for _ in range(2):
        process = fetch.start(*options)
        before, have = len(server.log), written(fetch)
        server.wait_for(before + chance.randint(50, 150))
        process.kill()
        process.communicate(timeout=SECONDS)
        settle(server)
        again = {asked.path for asked in server.log[before:]}
        assert not again & {paths[line - 1] for line in have}, "what was written was asked for again"
        assert have <= written(fetch), "what was written is lost"
    have, before = written(fetch), len(server.log)
    done = fetch(*options)
    assert done.returncode == 0, done.stderr
    assert not {asked.path for asked in server.log[before:]} & {paths[line - 1] for line in have}
    expected = {line: (200, b"x" * int(path.split("/")[2])) for line, path in enumerate(paths, 1)}
    assert results(fetch, "out.ndjson") == expected
    found = json.loads(done.stdout)
    assert (found["done"], found["failed"]) == (450, 0)
    assert fetch.left() == {"urls.txt", "out.ndjson"}


def settle(server: CountingServer) -> None:
    """Wait for the end of workers whose parent was killed."""
    until = time.monotonic() + 10
    while server.peers:
        assert time.monotonic() < until, "workers have outlived their parent"
        time.sleep(0.01)


@posix
def test_interrupt_of_the_whole_group_finishes_and_says_how_to_go_on(
    fetch: Fetch, server: CountingServer
) -> None:
    """As Ctrl-C in a terminal, which goes to the workers, too."""
    paths = [f"/ok/{n}" for n in range(250)]
    fetch.write("urls.txt", [server.url + path for path in paths])
    server.delay = 0.05
    process = fetch.start(
        "urls.txt", "-o", "out.ndjson", "--workers", 2, "--concurrency", 5, start_new_session=True
    )
    server.wait_for(60)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    asked = len(server.log)
    assert asked < 250
    assert f"{asked} done, 0 failed" in out
    assert len(written(fetch)) == asked
    arguments = command_to_go_on(err)
    done = fetch(*arguments[arguments.index("fetch") + 1 :])
    assert done.returncode == 0, done.stderr
    assert set(server.paths().values()) == {1}
    assert set(results(fetch, "out.ndjson")) == set(range(1, 251))


@posix
def test_second_interrupt_ends_the_workers_too(fetch: Fetch, server: CountingServer) -> None:
    fetch.write("urls.txt", [f"{server.url}/ok/{n}" for n in range(100)])
    server.is_holding = True
    process = fetch.start(
        "urls.txt", "-o", "out.ndjson", "--workers", 2, "--concurrency", 5, start_new_session=True
    )
    server.wait_for(5)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    begun = time.monotonic()
    _, err = process.communicate(timeout=SECONDS)
    assert time.monotonic() - begun < 3
    assert (process.returncode, "Traceback" in err) == (1, False), err
    settle(server)


def test_missing_distributed_is_said_before_anything_is_sent(fetch: Fetch, server: CountingServer) -> None:
    fetch.write("urls.txt", [f"{server.url}/ok/1"])
    code = f"import sys; sys.modules['distributed'] = None; {MAIN}"
    done = fetch("urls.txt", "-o", "out.ndjson", "--dask", "tcp://127.0.0.1:9", code=code)
    assert done.returncode == 2
    assert "pip install 'wirespeed[dask]'" in done.stderr
    assert not server.log


def test_scheduler_that_is_not_there_is_said(fetch: Fetch, server: CountingServer) -> None:
    pytest.importorskip("distributed")
    fetch.write("urls.txt", [f"{server.url}/ok/1"])
    code = f"import wirespeed.cluster.dask as dask; dask.CONNECT_TIMEOUT = 0.5; {MAIN}"
    done = fetch("urls.txt", "-o", "out.ndjson", "--dask", f"tcp://127.0.0.1:{unused_port()}", code=code)
    assert done.returncode == 2
    assert re.search(r"tcp://127\.0\.0\.1:\d+", done.stderr)
    assert not server.log


def unused_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
