"""`--wirespeed-leaks`: which tests of a run of their own fail, and what the report says."""

import re
from pathlib import Path

import pytest
from support.inner_pytest import run_pytest

import wirespeed

# A server that begins a body and does not end it; a loop that lives as long as the run.
CONFTEST = """
import asyncio
import socket
import threading

import pytest

def serve(listener):
    open_ones = []
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        open_ones.append(sock)
        threading.Thread(target=answer, args=(sock,), daemon=True).start()

def answer(sock):
    while True:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            try:
                piece = sock.recv(4096)
            except OSError:
                return
            if not piece:
                return
            head += piece
        size = b"100000" if head.startswith(b"GET /half ") else b"2"
        sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: " + size + b"\\r\\n\\r\\nok")

@pytest.fixture(scope="session")
def url():
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    yield "http://127.0.0.1:%d/" % listener.getsockname()[1]
    listener.close()

@pytest.fixture(scope="session")
def shared_loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()
"""
INSTALLED = "import wirespeed\nwirespeed.install()\n"

TESTS = """
import asyncio
import gc

import pytest

from NAMES import ClientSession

kept = []

@pytest.fixture(scope="session")
def shared(shared_loop):
    async def make():
        return ClientSession()
    session = shared_loop.run_until_complete(make())
    yield session
    shared_loop.run_until_complete(session.close())

@pytest.fixture
def session():
    loop = asyncio.new_event_loop()
    async def make():
        return ClientSession()
    session = loop.run_until_complete(make())
    session.run = loop.run_until_complete
    yield session
    loop.run_until_complete(session.close())
    loop.close()

@pytest.fixture(scope="session")
def stream(shared, shared_loop, url):
    async def begin():
        return await shared.get(url + "half")
    resp = shared_loop.run_until_complete(begin())
    yield resp
    resp.close()

async def get(session, url):
    async with session.get(url) as resp:
        return resp.status

async def keep(session, url):
    kept.append(await session.get(url + "half"))  # acquires

def test_clean(url):
    async def main():
        async with ClientSession() as session:
            assert await get(session, url) == 200
    asyncio.run(main())

def test_unread_at_close(url):
    async def main():
        async with ClientSession() as session:
            resp = await session.get(url + "half")  # unread
            assert resp.status == 200
    asyncio.run(main())

def test_dropped(url):
    async def main():
        async with ClientSession() as session:
            assert (await session.get(url + "half")).status == 200  # dropped
    asyncio.run(main())

def test_session_per_request(url):
    async def fetch():
        async with ClientSession() as session:  # per request
            return await get(session, url)
    async def main():
        return [await fetch() for _ in range(5)]
    asyncio.run(main())

@pytest.mark.parametrize("number", range(6))
def test_session_of_a_fixture(session, url, number):
    session.run(get(session, url))

def test_shared_session(shared, shared_loop, url):
    shared_loop.run_until_complete(get(shared, url))

def test_stream_of_a_fixture(stream):
    assert stream.status == 200

def test_leak_over_the_shared_session(shared, shared_loop, url):
    shared_loop.run_until_complete(keep(shared, url))

def test_after_the_leak(shared, shared_loop, url):
    shared_loop.run_until_complete(get(shared, url))

def test_leak_over_a_fixtures_session(session, url):
    session.run(keep(session, url))

def test_released_by_a_finalizer(session, url, request):
    async def ask():
        resp = await session.get(url + "half")
        request.addfinalizer(lambda: resp.close())
    session.run(ask())

@pytest.fixture
def resps():
    resps = []
    yield resps
    for resp in resps:
        resp.close()

def test_released_by_a_fixture(session, resps, url):
    async def ask():
        resps.append(await session.get(url + "half"))
    session.run(ask())

class Client:
    pass

@pytest.fixture
def client():
    return Client()

def test_kept_by_a_fixture_that_ends(shared, shared_loop, client, url):
    async def ask():
        client.resp = await shared.get(url + "half")
    shared_loop.run_until_complete(ask())

def test_read_by_a_task_that_goes_on(shared, shared_loop, url, request):
    async def begin():
        return asyncio.create_task(read(await shared.get(url + "half")))
    async def read(resp):
        async with resp:
            await resp.read()
    async def end(task):
        task.cancel()
        await asyncio.wait([task])
    task = shared_loop.run_until_complete(begin())
    shared_loop.run_until_complete(asyncio.sleep(0.01))
    request.getfixturevalue("later")(lambda: shared_loop.run_until_complete(end(task)))

@pytest.fixture(scope="session")
def later(shared):
    calls = []
    yield calls.append
    for call in calls:
        call()

def test_open_session(url):
    async def main():
        session = ClientSession()  # never closed
        kept.append(session)
        await get(session, url)
    asyncio.run(main())

@pytest.fixture
def careless(url):
    loop = asyncio.new_event_loop()
    async def make():
        return ClientSession()  # by a fixture
    kept.append(loop.run_until_complete(make()))
    yield
    loop.close()

def test_careless_fixture(careless):
    pass

@pytest.mark.wirespeed_leaks(allow=True)
def test_allowed(url):
    test_unread_at_close(url)

def test_fails_anyhow(url):
    test_unread_at_close(url)
    assert not "reached"

def test_last(url):
    test_clean(url)
"""
UNCLOSED = ["test_open_session"]
PER_REQUEST = ["test_session_per_request"]
RESPONSES = [
    "test_unread_at_close",
    "test_dropped",
    "test_leak_over_the_shared_session",
    "test_leak_over_a_fixtures_session",
]


def write(folder: Path, conftest: str = CONFTEST, tests: str = TESTS, names: str = "wirespeed") -> None:
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_program.py").write_text(tests.replace("NAMES", names))
    (folder / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers -rA -W ignore::ResourceWarning\n"
    )


def outcomes(output: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word, name in re.findall(r"^(PASSED|FAILED|ERROR) test_program\.py::(\S+)", output, re.MULTILINE):
        found.setdefault(word, []).append(name)
    return found


@pytest.mark.parametrize("names", ["wirespeed", "aiohttp"])
def test_which_tests_fail_and_why(tmp_path: Path, names: str) -> None:
    write(tmp_path, (INSTALLED if names == "aiohttp" else "") + CONFTEST, TESTS, names)
    output = run_pytest(tmp_path, "--wirespeed-leaks")
    found = outcomes(output)
    leaky = RESPONSES if wirespeed.NATIVE else []
    assert sorted(found["FAILED"]) == sorted([*leaky, *PER_REQUEST, *UNCLOSED, "test_fails_anyhow"]), output
    # What only the ends of the fixtures show.
    ends = ["test_kept_by_a_fixture_that_ends"] if wirespeed.NATIVE else []
    assert found["ERROR"] == [*ends, "test_careless_fixture"], output
    assert "ERROR at teardown of test_careless_fixture" in output
    per_request = "session per request: acquired at"
    assert per_request in output
    for comment in ["per request", "never closed", "by a fixture"]:
        assert f"# {comment}\n" in output, output
    if wirespeed.NATIVE:
        assert len(re.findall(r"never released: acquired at \S*test_program\.py:\d+ in", output)) >= 3
        assert "collected unread: acquired at" in output
        assert 'kept.append(await session.get(url + "half"))  # acquires' in output
        assert "Use `async with session.get(...) as resp:`" in output
        # The test that fails for another reason says both.
        assert 'assert not "reached"' in output
        assert "wirespeed leaks" in output.partition("test_fails_anyhow")[2]


def test_off_by_default(tmp_path: Path) -> None:
    write(tmp_path)
    output = run_pytest(tmp_path)
    assert outcomes(output)["FAILED"] == ["test_fails_anyhow"], output
    assert "ERROR" not in outcomes(output)


def test_ini_file_turns_it_on(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "pytest.ini").open("a") as ini:
        ini.write("wirespeed_leaks = true\n")
    assert "test_session_per_request" in outcomes(run_pytest(tmp_path))["FAILED"]


@pytest.mark.skipif(not wirespeed.NATIVE, reason="without the extension there is no pool to look at")
def test_sessions_that_a_conftest_makes_are_tracked(tmp_path: Path) -> None:
    early = (
        "import asyncio\nimport wirespeed\nasync def make():\n    return wirespeed.ClientSession()\n"
        "loop = asyncio.new_event_loop()\nsession = loop.run_until_complete(make())\n"
        "def pytest_unconfigure():\n    loop.run_until_complete(session.close())\n    loop.close()\n"
    )
    tests = (
        "import conftest\nkept = []\n"
        "def test_leaks(url):\n    conftest.loop.run_until_complete(ask(url))\n"
        "async def ask(url):\n    kept.append(await conftest.session.get(url + 'half'))\n"
        "def test_is_innocent():\n    pass\n"
    )
    write(tmp_path, early + CONFTEST, tests)
    output = run_pytest(tmp_path, "--wirespeed-leaks")
    assert outcomes(output) == {"FAILED": ["test_leaks"], "PASSED": ["test_is_innocent"]}, output


def test_run_without_wirespeed_does_not_import_it(tmp_path: Path) -> None:
    tests = "import sys\ndef test_empty():\n    assert not {'aiohttp', 'wirespeed'} & set(sys.modules)\n"
    write(tmp_path, "", tests)
    assert "1 passed" in run_pytest(tmp_path, "--wirespeed-leaks")
