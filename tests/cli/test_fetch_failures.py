"""`wirespeed fetch` where it cannot write: said before anything is sent, or the rest kept and resumable."""

import os
import sys

import pytest
from support.counting import CountingServer

from .command import MAIN, Fetch
from .test_fetch_kills import command_to_go_on, results, written

LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
"""
FULL_AT_THE_END = """
import errno, os
replace = os.replace
def full(source, target, **options):
    if str(target).endswith(("out.ndjson", "out.parquet")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
    return replace(source, target, **options)
os.replace = full
"""


def test_unwritable_outputs_are_said_before_anything_is_sent(fetch: Fetch, server: CountingServer) -> None:
    fetch.write("urls.txt", [f"{server.url}/ok/1"])
    # A file is no folder; and the superuser, who may write everywhere, cannot in /proc.
    outputs = ["urls.txt/out.ndjson", "missing/out.ndjson", "missing/out.parquet", "urls.txt/"]
    outputs += ["/proc/out.ndjson", "/proc/bodies/"] if os.path.isdir("/proc") else []
    done = fetch.each([("urls.txt", "-o", output) for output in [*outputs, ""]])
    for output, (exit_code, said) in zip([*outputs, ""], done, strict=True):
        assert exit_code == 2, (output, said)
        assert (os.path.dirname(output) or "has no name") in said
        assert len(said.splitlines()) == 1, said
    assert not server.log
    assert fetch.left() == {"urls.txt"}


def test_unreadable_inputs_are_said(fetch: Fetch) -> None:
    fetch.write("urls.txt", [])
    given = {"missing.txt": "No such file", ".": "directory", "urls.txt/x": "", "": "No such file"}
    done = fetch.each([(source, "-o", "out.ndjson") for source in given])
    for (source, why), (exit_code, said) in zip(given.items(), done, strict=True):
        assert exit_code == 2, (source, said)
        assert source in said
        assert why in said
    assert fetch.left() == {"urls.txt"}


def test_empty_input_makes_an_empty_output(fetch: Fetch) -> None:
    found = fetch.document(fetch.write("urls.txt", ["# nothing", ""]), "-o", "out.ndjson")
    assert (found["done"], found["failed"], found["complete"]) == (0, 0, True)
    assert fetch.records("out.ndjson") == []


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("output", ["out.ndjson", "bodies/"])
def test_full_disk_keeps_what_is_written(fetch: Fetch, server: CountingServer, output: str) -> None:
    size = 3000 if output == "out.ndjson" else 300_000
    paths = [f"/size/{1000 if n < 20 else size}/{n}" for n in range(150)]
    fetch.write("urls.txt", [server.url + path for path in paths])
    server.delay = 0.005
    done = fetch("urls.txt", "-o", output, "--concurrency", 4, code=LIMITED + MAIN)
    assert done.returncode == 2, done.stderr
    assert "too large" in done.stderr
    assert command_to_go_on(done.stderr)[-2:] == ["--concurrency", "4"]
    have = written(fetch)
    assert 10 < len(have) < 120
    assert len(server.log) < 150
    server.clear()
    assert fetch("urls.txt", "-o", output, "--resume").returncode == 0
    assert {paths[line - 1] for line in have}.isdisjoint(server.paths())
    assert set(results(fetch, output)) == set(range(1, 151))


@pytest.mark.parametrize("output", ["out.ndjson", "out.parquet"])
def test_full_disk_at_the_very_end_keeps_what_is_written(
    fetch: Fetch, server: CountingServer, output: str
) -> None:
    if output.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    fetch.write("urls.txt", [f"{server.url}/ok/{n}" for n in range(100)])
    done = fetch("urls.txt", "-o", output, code=FULL_AT_THE_END + MAIN)
    assert done.returncode == 2, done.stderr
    assert "No space left" in done.stderr
    assert "--resume" in done.stderr
    assert not (fetch.folder / output).exists()
    assert len(written(fetch)) == 100
    server.clear()
    assert fetch("urls.txt", "-o", output, "--resume").returncode == 0
    assert not server.log
    assert set(results(fetch, output)) == set(range(1, 101))
    assert fetch.left() == {"urls.txt", output}
    # Once more, as a script may do it: the output is there, and stays.
    found = fetch("urls.txt", "-o", output, "--resume")
    assert (found.returncode, len(server.log)) == (0, 0)
    assert "100 done, 0 failed" in found.stdout
    assert "nothing was left to send" in found.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_full_standard_output_is_said(fetch: Fetch, server: CountingServer) -> None:
    fetch.write("urls.txt", [f"{server.url}/size/5000/{n}" for n in range(300)])
    with open("/dev/full", "w") as full:
        process = fetch.start("urls.txt", "-o", "-", stdout=full)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2, err
    assert "No space left" in err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_summary_that_cannot_be_printed_costs_the_exit_code_alone(
    fetch: Fetch, server: CountingServer
) -> None:
    fetch.write("urls.txt", [f"{server.url}/ok/1"])
    with open("/dev/full", "w") as full:
        process = fetch.start("urls.txt", "-o", "out.ndjson", "--json", stdout=full)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, len(err.splitlines())) == (1, 1), err
    assert "No space left" in err
    assert len(fetch.records("out.ndjson")) == 1


def test_old_output_stays_until_the_new_one_is_whole(fetch: Fetch, server: CountingServer) -> None:
    (fetch.folder / "out.ndjson").write_text("old\n")
    fetch.write("urls.txt", [f"{server.url}/ok/1"])
    server.is_holding = True
    process = fetch.start("urls.txt", "-o", "out.ndjson")
    server.wait_for(1)
    assert (fetch.folder / "out.ndjson").read_text() == "old\n"
    server.release()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(fetch.records("out.ndjson")) == 1
