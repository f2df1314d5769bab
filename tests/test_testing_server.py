"""The embedded server: each route, the order of answers, flow control, and its end as a process."""

import asyncio
import contextlib
import gzip
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from wirespeed.testing import EmbeddedServer, ServerProcess
from wirespeed.testing.answers import JSON_BODY, Answer, Request, answer, pattern
from wirespeed.testing.certificates import make_certificates

WAIT = 10.0
"""Seconds that a step may take before the test fails."""
LARGE = 10_000_000


def get(path: str, method: str = "GET", extra: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: test\r\n{extra}\r\n".encode()


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[EmbeddedServer, aiohttp.ClientSession]]:
    """A server and a session, with the session's settings."""
    async with EmbeddedServer() as server, aiohttp.ClientSession(**settings) as session:
        yield server, session


async def exchange(server: EmbeddedServer, sent: bytes) -> bytes:
    """Send bytes, then read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    received = await asyncio.wait_for(reader.read(), WAIT)
    writer.close()
    await writer.wait_closed()
    return received


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one answer that has a Content-Length."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT)
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head, await asyncio.wait_for(reader.readexactly(length), WAIT)


def decide(target: str, method: str = "GET") -> Answer:
    return answer(Request(method, target, [], b"", 0, True))


def test_json_body_is_68_bytes_of_json() -> None:
    assert len(JSON_BODY) == 68
    assert json.loads(JSON_BODY)["name"] == "wirespeed"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/", 404),
        ("/nope", 404),
        ("/bytes", 400),
        ("/bytes/", 400),
        ("/bytes/x", 400),
        ("/bytes/-1", 400),
        ("/bytes/1.5", 400),
        ("/bytes/99999999999", 400),
        ("/gzip/99999999999", 400),
        ("/status/99", 400),
        ("/status/600", 400),
        ("/delay/61", 400),
        ("/delay/nan", 400),
        ("/redirect/1001", 400),
        ("/cookies/set?a=b%0D%0AX: y", 400),
        ("/cookies/set?a=b;c", 400),
    ],
)
def test_bad_target_gets_an_error_with_a_message(target: str, status: int) -> None:
    reply = decide(target)
    assert reply.status == status
    assert json.loads(reply.body)["error"]


async def test_json_carries_the_eight_headers_of_a_typical_server() -> None:
    async with serving() as (server, session), session.get(server.url("/json?page=2")) as resp:
        assert await resp.read() == JSON_BODY
        assert resp.content_type == "application/json"
        assert len(resp.headers) == 8
        assert {"Server", "Date", "Content-Type", "Content-Length", "Connection"} <= set(resp.headers)


@pytest.mark.parametrize("length", [0, 1, 1000, 262_144, 262_145, LARGE])
async def test_bytes_sends_a_known_length(length: int) -> None:
    async with serving() as (server, session), session.get(server.url(f"/bytes/{length}")) as resp:
        assert resp.content_length == length
        assert await resp.read() == pattern(length)


@pytest.mark.parametrize("length", [0, 1, 16_384, 100_000])
async def test_chunked_sends_no_length(length: int) -> None:
    async with serving() as (server, session), session.get(server.url(f"/chunked/{length}")) as resp:
        assert resp.headers["Transfer-Encoding"] == "chunked"
        assert "Content-Length" not in resp.headers
        assert await resp.read() == pattern(length)


async def test_gzip_compresses_the_body() -> None:
    async with serving(auto_decompress=False) as (server, session):
        resp = await session.get(server.url("/gzip/5000"))
        assert resp.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(await resp.read()) == pattern(5000)


async def test_echo_answers_the_body_and_its_type() -> None:
    body = os.urandom(1_000_000)
    async with serving() as (server, session):
        headers = {"Content-Type": "image/png"}
        async with session.post(server.url("/echo"), data=body, headers=headers) as resp:
            assert await resp.read() == body
            assert resp.content_type == "image/png"


async def test_post_reads_the_body_after_100_continue() -> None:
    async with serving() as (server, session):
        for expect100 in (False, True):
            async with session.post(server.url("/post"), data=b"x" * 300, expect100=expect100) as resp:
                assert await resp.json() == {"received": 300}


async def test_redirect_counts_down() -> None:
    async with serving() as (server, session), session.get(server.url("/redirect/3")) as resp:
        assert await resp.read() == JSON_BODY
        assert [hop.url.path for hop in resp.history] == ["/redirect/3", "/redirect/2", "/redirect/1"]


@pytest.mark.parametrize("status", [200, 204, 304, 404, 500, 599])
async def test_status_keeps_the_connection_usable(status: int) -> None:
    async with serving() as (server, session):
        for _ in range(2):
            async with session.get(server.url(f"/status/{status}")) as resp:
                assert resp.status == status
                assert bool(await resp.read()) is (status not in (204, 304))
        assert server.connections == 1


async def test_headers_answers_what_was_sent() -> None:
    async with EmbeddedServer() as server:
        sent = get("/headers", extra="X-A: 1\r\nx-b: two\r\nX-A: 3\r\nConnection: close\r\n")
        received = await exchange(server, sent)
    assert json.loads(received.partition(b"\r\n\r\n")[2]) == {
        "Host": "test",
        "X-A": "1, 3",
        "x-b": "two",
        "Connection": "close",
    }


async def test_cookies_are_set() -> None:
    jar = aiohttp.CookieJar(unsafe=True)  # the server is an IP address
    async with serving(cookie_jar=jar) as (server, session):
        async with session.get(server.url("/cookies/set?a=1&b=two%20words")) as resp:
            assert await resp.json() == {"a": "1", "b": "two words"}
        assert {cookie.key for cookie in jar} == {"a", "b"}


async def test_delay_waits_and_does_not_hold_other_connections() -> None:
    async with serving() as (server, session):
        start = time.monotonic()

        async def fetch(path: str) -> float:
            async with session.get(server.url(path)) as resp:
                assert await resp.read() == JSON_BODY
            return time.monotonic() - start

        slow, fast = await asyncio.gather(fetch("/delay/0.3"), fetch("/json"))
        assert slow >= 0.29
        assert fast < slow


async def test_head_has_the_length_and_no_body() -> None:
    async with EmbeddedServer() as server:
        received = await exchange(server, get("/bytes/50", "HEAD", "Connection: close\r\n"))
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"Content-Length: 50" in head
    assert body == b""


@pytest.mark.parametrize("path", ["/close", "/json", "/bytes/1000000"])
async def test_connection_is_closed_when_either_side_says_so(path: str) -> None:
    async with EmbeddedServer() as server:
        received = await exchange(
            server, get(path, extra="" if path == "/close" else "Connection: close\r\n")
        )
    assert b"\r\nConnection: close\r\n" in received


async def test_requests_share_a_kept_connection() -> None:
    async with serving() as (server, session):
        for path in ("/json", "/json", "/bytes/600000", "/json", "/delay/0.01", "/nope", "/json"):
            async with session.get(server.url(path)) as resp:
                await resp.read()
        assert server.connections == 1
        assert server.requests == 7


async def test_repeated_request_gets_a_fresh_date() -> None:
    async with serving() as (server, session):
        dates = []
        for _ in range(2):
            async with session.get(server.url("/json")) as resp:
                dates.append(resp.headers["Date"])
            await asyncio.sleep(1.1)
        assert dates[0] != dates[1]


async def test_pipelined_requests_are_answered_in_order() -> None:
    paths = ["/delay/0.05", "/json", "/bytes/2000000", "/post", "/bytes/7", "/nope"]
    async with EmbeddedServer() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"".join(get(path) for path in paths))
        bodies = [(await read_answer(reader))[1] for _ in paths]
        writer.close()
        await writer.wait_closed()
    assert bodies[:2] == [JSON_BODY, JSON_BODY]
    assert bodies[2] == pattern(2_000_000)
    assert bodies[3:5] == [b'{"received":0}', pattern(7)]
    assert json.loads(bodies[5]) == {"error": "no route /nope"}


async def test_many_pipelined_requests_behind_a_slow_one() -> None:
    async with EmbeddedServer() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(get("/delay/0.05") + get("/json") * 500)
        for _ in range(501):
            assert (await read_answer(reader))[1] == JSON_BODY
        writer.close()
        await writer.wait_closed()


async def test_request_split_anywhere_gets_the_same_answer() -> None:
    sent = get("/headers?" + "q" * 40, extra="X-Long: " + "v" * 60 + "\r\n")
    async with EmbeddedServer() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        answers = set()
        writer.write(sent)
        answers.add((await read_answer(reader))[1])
        for cut in range(1, len(sent), 9):
            writer.write(sent[:cut])
            await asyncio.sleep(0.002)
            writer.write(sent[cut:])
            answers.add((await read_answer(reader))[1])
        writer.close()
        await writer.wait_closed()
    assert len(answers) == 1


async def test_malformed_request_gets_400_and_the_end() -> None:
    async with EmbeddedServer() as server:
        received = await exchange(server, get("/json") + b"nonsense\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 400 Bad Request" in received


async def test_server_stops_writing_while_the_client_does_not_read() -> None:
    async with EmbeddedServer() as server:
        _reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 16)
        writer.write(get("/bytes/500000000") + get("/json"))
        await asyncio.sleep(0.3)
        (connection,) = server._running().connections
        # What the transport holds is bounded by its limit and one write, not by the body.
        assert connection._transport.get_write_buffer_size() < 4 << 20
        writer.transport.abort()
        await asyncio.sleep(0.05)
        assert server.open_connections == 0


async def test_client_that_leaves_early_leaves_nothing_behind() -> None:
    async with EmbeddedServer() as server:
        for sent in (get("/delay/30"), get("/bytes/50000000"), b"GET /js"):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            await asyncio.sleep(0.02)
            writer.transport.abort()
        await asyncio.sleep(0.05)
        assert server.open_connections == 0


async def test_stop_ends_open_connections() -> None:
    server = EmbeddedServer()
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(get("/json"))
    await read_answer(reader)
    await asyncio.wait_for(server.stop(), WAIT)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asyncio.wait_for(reader.readexactly(1), WAIT)
    writer.close()
    with pytest.raises(RuntimeError, match="not started"):
        EmbeddedServer().requests  # noqa: B018


async def test_starting_twice_is_refused() -> None:
    async with EmbeddedServer() as server:
        with pytest.raises(RuntimeError, match="already started"):
            await server.start()


async def test_tls_serves_the_same(tmp_path: Path) -> None:
    made = make_certificates(tmp_path)
    context = ssl.create_default_context(cafile=made.cafile)
    async with EmbeddedServer(certfile=made.certfile, keyfile=made.keyfile) as server:
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(connector=connector) as session:
            for path, body in (("/json", JSON_BODY), (f"/bytes/{LARGE}", pattern(LARGE))):
                async with session.get(server.url(path)) as resp:
                    assert await resp.read() == body
        await asyncio.sleep(0.1)  # TLS closes in several steps


def fetch(url: str) -> bytes:
    async def go() -> bytes:
        async with aiohttp.ClientSession() as session, session.get(url) as resp:
            return await resp.read()

    return asyncio.run(go())


def test_process_serves_and_ends() -> None:
    with ServerProcess() as server:
        assert server.pid != os.getpid()
        assert fetch(f"{server.url}/json") == JSON_BODY
        process = server._process
    assert process is not None
    assert process.returncode == 0


def test_process_ends_when_its_input_is_closed() -> None:
    command = [sys.executable, "-m", "wirespeed.testing.server", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())
        assert address["pid"] == process.pid
        assert fetch(f"{address['url']}/json") == JSON_BODY
        process.stdin.close()
        assert process.wait(WAIT) == 0


def test_process_that_cannot_start_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(RuntimeError, match="ended before it listened"):
        ServerProcess(tls=(missing, missing)).start()
    assert "FileNotFoundError" in capfd.readouterr().err


def test_process_that_does_not_listen_in_time_is_killed() -> None:
    server = ServerProcess(start_timeout=0.001)
    with pytest.raises(RuntimeError, match=r"did not listen within 0\.001 s"):
        server.start()
    assert server._process is None
