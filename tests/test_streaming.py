"""Bodies in both directions: bounded memory, backpressure, prompt delivery."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.http_exceptions import LineTooLong
from support.checks import eventually, express_session, nothing_left, resident_bytes
from support.local import BLOCK, Exchange, LocalServer, client_tls, server_tls
from support.streamer import Streamer, streamer

import wirespeed

MEGABYTE = 1024 * 1024
GROWTH = 16 * MEGABYTE  # of this process, whatever the size of the body
IN_FLIGHT = 24 * MEGABYTE  # the buffers of the client, of both kernels' ends, and of the server


@pytest.fixture(scope="module")
def far() -> Iterator[str]:
    """The root of a server in another process."""
    with streamer() as url:
        yield url


class Memory:
    """How far the memory of this process rose since the start."""

    def __init__(self) -> None:
        self.start = resident_bytes()
        self.growth = 0

    def look(self) -> None:
        self.growth = max(self.growth, resident_bytes() - self.start)


async def _get(session: wirespeed.ClientSession, url: str) -> bytes:
    async with session.get(url) as resp:
        return await resp.read()


def _digest(size: int) -> bytes:
    """The hash of `size` bytes of the repeated block."""
    digest = hashlib.sha256()
    for _ in range(size // len(BLOCK)):
        digest.update(BLOCK)
    digest.update(BLOCK[: size % len(BLOCK)])
    return digest.digest()


@pytest.mark.parametrize("kind", ["bytes", "chunked", "eof"])
async def test_slow_reader_of_a_large_body_needs_little_memory(far: str, kind: str, loop_kind: str) -> None:
    gigabyte = kind == "bytes" and loop_kind == "uvloop"
    size = (1000 if gigabyte else 200) * 1_000_000
    async with express_session(at_least=2) as session:
        assert len(await _get(session, f"{far}/bytes/1000000")) == 1_000_000
        memory, got, looked = Memory(), 0, 0
        async with session.get(f"{far}/{kind}/{size}") as resp:
            async for piece in resp.content.iter_chunked(65536):
                got += len(piece)
                assert len(piece) <= 65536
                if got - looked > size // 50:
                    looked = got
                    await asyncio.sleep(0.005)
                    memory.look()
        assert got == size
        assert memory.growth < GROWTH


async def test_streamer_sends_the_last_bytes_of_a_body_before_it_closes() -> None:
    """Else the test above would take bytes that this server threw away for bytes the client lost."""
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    size = 60_000  # more than the socket takes at once, less than what drain() waits for
    reader, writer = await asyncio.open_connection(sock=ours)
    serving = asyncio.ensure_future(Streamer().serve(*await asyncio.open_connection(sock=theirs)))
    writer.write(b"GET /eof/%d HTTP/1.1\r\n\r\n" % size)
    _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    await serving
    writer.close()
    await writer.wait_closed()
    assert len(body) == size


async def test_server_is_blocked_while_the_reader_sleeps(far: str) -> None:
    async with express_session(at_least=1) as session, express_session(at_least=2) as other:
        async with session.get(f"{far}/bytes/{200 * MEGABYTE}") as resp:
            memory = Memory()
            await resp.content.readexactly(100_000)
            sent, before = 0, -1
            for _ in range(25):
                # A busy machine takes its time to fill what is between the two.
                await asyncio.sleep(0.2)
                sent, before = int(await _get(other, f"{far}/sent")), sent
                if sent == before:
                    break
            memory.look()
            assert before == sent < IN_FLIGHT
            assert memory.growth < GROWTH
            await resp.content.readexactly(50 * MEGABYTE)
            assert int(await _get(other, f"{far}/sent")) > 50 * MEGABYTE


async def test_server_is_blocked_over_tls_while_the_reader_sleeps() -> None:
    async with LocalServer(ssl_context=server_tls()) as server, nothing_left():
        async with wirespeed.ClientSession(connector=wirespeed.TCPConnector(ssl=client_tls())) as session:
            resp = await session.get(server.url("/endless"))
            memory = Memory()
            await resp.content.readexactly(100_000)
            await asyncio.sleep(0.2)
            pump = server.connections[0].pump
            assert pump is not None
            sent = pump.sent
            await asyncio.sleep(0.2)
            memory.look()
            assert sent == pump.sent < IN_FLIGHT
            await resp.content.readexactly(10 * MEGABYTE)
            assert pump.sent > sent
            server.connections[0].transport.abort()
            resp.close()


async def test_streamed_upload_goes_at_the_pace_of_the_server(far: str) -> None:
    produced = 0
    lead = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal produced, lead
        for number in range(200 * MEGABYTE // len(BLOCK)):
            yield BLOCK
            produced += len(BLOCK)
            if number % 256 == 255:
                lead = max(lead, produced - int(await _get(other, f"{far}/taken")))
                memory.look()

    async with express_session() as session, express_session() as other:
        await _get(session, f"{far}/bytes/1000000")
        memory = Memory()
        async with session.post(f"{far}/sink?rate=200000000", data=body()) as resp:
            assert int(await resp.read()) == produced == 200 * MEGABYTE
    assert lead < IN_FLIGHT
    assert memory.growth < GROWTH


async def test_large_file_is_uploaded_in_pieces(far: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        for _ in range(100 * MEGABYTE // len(BLOCK)):
            file.write(BLOCK)
    running = True

    async def watch() -> None:
        while running:
            memory.look()
            await asyncio.sleep(0.005)

    async with express_session() as session:
        await _get(session, f"{far}/bytes/1000000")
        memory = Memory()
        watcher = asyncio.ensure_future(watch())
        with path.open("rb") as file:
            async with session.post(f"{far}/sink?rate=400000000", data=file) as resp:
                assert int(await resp.read()) == 100 * MEGABYTE
        running = False
        await watcher
    assert memory.growth < GROWTH


async def test_uploaded_file_and_generator_arrive_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(BLOCK * 30 + b"end")

    async def body() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d," % number * (number + 1)
            if number % 10 == 0:
                await asyncio.sleep(0.001)

    async with LocalServer() as server, express_session(at_least=2) as session:
        with path.open("rb") as file:
            async with session.put(server.url("/ok"), data=file) as resp:
                assert resp.status == 200
        async with session.put(server.url("/ok"), data=body()) as resp:
            assert resp.status == 200
        first, second = server.exchanges
        assert first.body == BLOCK * 30 + b"end"
        assert first.header("Content-Length") == str(30 * len(BLOCK) + 3)
        assert second.body == b"".join(b"%d," % n * (n + 1) for n in range(100))
        assert second.header("Transfer-Encoding") == "chunked"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_decompression_bomb_is_read_in_bounded_memory(far: str, coding: str) -> None:
    size = 100_000_000
    async with express_session(at_least=2) as session:
        assert len(await _get(session, f"{far}/bomb/{coding}/1000000")) == 1_000_000
        memory, got = Memory(), 0
        async with session.get(f"{far}/bomb/{coding}/{size}") as resp:
            async for piece in resp.content.iter_chunked(65536):
                assert len(piece) <= 65536
                assert piece.count(0) == len(piece)
                memory.look()
                got += len(piece)
        assert got == size
        assert memory.growth < GROWTH


async def test_paused_reader_of_a_bomb_does_not_have_it_decompressed_ahead(far: str) -> None:
    async with express_session() as session:
        memory = Memory()
        async with session.get(f"{far}/bomb/gzip/100000000") as resp:
            assert await resp.content.readexactly(1000) == bytes(1000)
            await asyncio.sleep(0.2)
            memory.look()
            assert memory.growth < GROWTH


async def test_read_of_fifty_megabytes_is_exact(far: str) -> None:
    size = 50_000_000
    async with express_session(at_least=3) as session:
        for kind in ("bytes", "chunked", "eof"):
            body = await _get(session, f"{far}/{kind}/{size}")
            assert len(body) == size
            assert hashlib.sha256(body).digest() == _digest(size)


async def test_concurrent_streams_do_not_mix(far: str) -> None:
    async def stream(number: int) -> None:
        size, digest = 3_000_000 + number, hashlib.sha256()
        kind = ("bytes", "chunked", "eof")[number % 3]
        async with session.get(f"{far}/{kind}/{size}") as resp:
            async for piece in resp.content.iter_chunked(10_000 + number):
                digest.update(piece)
                if number % 4 == 0 and piece[0] % 16 == 0:
                    await asyncio.sleep(0)
        assert digest.digest() == _digest(size)

    async with express_session(at_least=24) as session:
        await asyncio.gather(*(stream(number) for number in range(24)))


async def test_pausing_goes_on_working_on_a_reused_connection() -> None:
    size = 3_000_000
    async with LocalServer() as server, express_session(connector=wirespeed.TCPConnector(limit=1)) as session:
        for round_ in range(6):
            async with session.get(server.url(f"/{'chunked' if round_ % 2 else 'bytes'}?n={size}")) as resp:
                body = await resp.content.readexactly(1000)
                await asyncio.sleep(0.03)
                pump = server.connections[0].pump
                assert pump is None or pump.sent <= size
                body += await resp.read()
            assert hashlib.sha256(body).digest() == _digest(size)
            assert await _get(session, server.url("/ok")) == b"ok"
        assert len(server.connections) == 1


async def test_lines_arrive_as_they_are_sent() -> None:
    async with LocalServer() as server, express_session() as session:
        task = asyncio.ensure_future(session.get(server.url("/hold")))
        await eventually(lambda: server.held, "request at the server")
        (exchange,) = server.held
        exchange.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        async with await asyncio.wait_for(task, 5) as resp:
            for number in range(50):
                line = b"data: %d\n" % number
                exchange.send(b"%x\r\n%b\r\n" % (len(line), line))
                assert await asyncio.wait_for(resp.content.readline(), 5) == line
            exchange.send(b"5\r\nda")
            waiting = asyncio.ensure_future(resp.content.readline())
            await asyncio.sleep(0.01)
            assert not waiting.done()
            exchange.send(b"ta\n\r\n0\r\n\r\n")
            assert await asyncio.wait_for(waiting, 5) == b"data\n"
            assert await asyncio.wait_for(resp.content.readline(), 5) == b""
            assert resp.content.at_eof()


async def test_every_way_of_reading_gives_the_same_bytes() -> None:
    text = b"".join(b"line %d\n" % n * (n % 7) for n in range(5000)) + b"no newline"
    async with LocalServer() as server, express_session(at_least=7) as session:
        server.routes["/text"] = lambda exchange: exchange.respond(200, text)

        async with session.get(server.url("/text")) as resp:
            assert b"".join([line async for line in resp.content]) == text
        async with session.get(server.url("/text")) as resp:
            assert b"".join([piece async for piece in resp.content.iter_any()]) == text
        async with session.get(server.url("/text")) as resp:
            assert b"".join([piece async for piece, _ in resp.content.iter_chunks()]) == text
        async with session.get(server.url("/text")) as resp:
            pieces = []
            while piece := await resp.content.readuntil(b"e 4"):
                pieces.append(piece)
            assert b"".join(pieces) == text
            assert all(piece.endswith(b"e 4") for piece in pieces[:-1])
        async with session.get(server.url("/text")) as resp:
            start = await resp.content.readexactly(10)
            assert start + await resp.content.read(7) + await resp.content.read(-1) == text
        async with session.get(server.url("/text")) as resp:
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await resp.content.readexactly(len(text) + 1)
            assert caught.value.partial == text
        async with session.get(server.url("/text")) as resp:
            assert (await resp.text()).encode() == text


async def test_lines_have_a_limit() -> None:
    async with LocalServer() as server, express_session(at_least=3) as session:
        server.routes["/long"] = lambda exchange: exchange.respond(200, b"x" * 2_000_000 + b"\nend")
        async with session.get(server.url("/long")) as resp:
            with pytest.raises(LineTooLong):
                await resp.content.readline()
        async with session.get(server.url("/long")) as resp:
            with pytest.raises(LineTooLong):
                await resp.content.readuntil(b"end")
        async with session.get(server.url("/long"), read_bufsize=2_000_000) as resp:
            assert len(await resp.content.readline()) == 2_000_001
            assert await resp.content.readline() == b"end"


async def test_body_ended_by_close_is_complete_and_its_connection_gone() -> None:
    def until_close(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n\r\nall of ")
        exchange.send(b"it")
        exchange.connection.transport.close()

    async with LocalServer() as server, express_session(at_least=2) as session:
        server.routes["/close"] = until_close
        assert await _get(session, server.url("/close")) == b"all of it"
        assert await _get(session, server.url("/ok")) == b"ok"
        assert len(server.connections) == 2


@pytest.mark.parametrize("framing", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_truncated_body_is_a_payload_error_after_what_came(framing: str) -> None:
    def cut(exchange: Exchange) -> None:
        exchange.send(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n".encode())
        exchange.connection.transport.close()

    async with LocalServer() as server, nothing_left():
        async with express_session(at_least=2) as session:
            server.routes["/cut"] = cut
            async with session.get(server.url("/cut")) as resp:
                with pytest.raises(aiohttp.ClientPayloadError, match="Response payload is not completed"):
                    await resp.read()
            assert await _get(session, server.url("/ok")) == b"ok"


@pytest.mark.parametrize("read_first", [False, True])
async def test_leaving_a_response_early_stops_the_download(read_first: bool) -> None:
    async with LocalServer() as server, nothing_left():
        async with express_session(at_least=2) as session:
            async with session.get(server.url("/endless")) as resp:
                if read_first:
                    await resp.content.readexactly(1_000_000)
            await eventually(lambda: not server.open, "connection closed")
            assert await _get(session, server.url("/ok")) == b"ok"
