"""A server in a process of its own, so that its memory is not taken for the client's.

`python streamer.py` prints the port and serves until its standard input ends. Paths:

- `/bytes/<n>`, `/chunked/<n>`, `/eof/<n>`: a repeated 64 KiB block, framed by length, chunks, close.
- `/sent`: how many bytes the last `/bytes` request could write so far.
- `/bomb/<coding>/<n>`: n zeros, compressed by gzip, deflate, br or zstd.
- `/sink?rate=<bytes per second>`: reads a body slowly; `/taken`: how much of it was read so far.
"""

import asyncio
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

BLOCK = bytes(range(256)) * 256


class Streamer:
    """State that `/sent` and `/taken` report."""

    def __init__(self) -> None:
        self.sent = self.taken = 0
        self.bombs: dict[tuple[str, int], bytes] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()
        finally:
            # Not abort(): drain() returns while the transport holds up to 64 KiB, which abort() throws
            # away; the end that the client then sees makes a body without a length look whole.
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        _, target, _ = head.split(" ", 2)
        path, _, query = target.partition("?")
        _, kind, *parts = path.split("/")
        if kind in ("sent", "taken"):
            self._answer(writer, str(getattr(self, kind)).encode())
        elif kind == "bomb":
            self._answer(writer, self._bomb(parts[0], int(parts[1])), f"Content-Encoding: {parts[0]}\r\n")
        elif kind == "sink":
            await self._sink(reader, head, float(query.partition("=")[2] or 0))
            self._answer(writer, b"%d" % self.taken)
        else:
            await self._stream(writer, kind, int(parts[0]))
        await writer.drain()
        return kind != "eof"

    @staticmethod
    def _answer(writer: asyncio.StreamWriter, body: bytes, headers: str = "") -> None:
        writer.write(f"HTTP/1.1 200 OK\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    async def _stream(self, writer: asyncio.StreamWriter, kind: str, size: int) -> None:
        framing = {
            "bytes": f"Content-Length: {size}\r\n",
            "chunked": "Transfer-Encoding: chunked\r\n",
            "eof": "Connection: close\r\n",
        }[kind]
        writer.write(f"HTTP/1.1 200 OK\r\n{framing}\r\n".encode())
        self.sent = 0
        while self.sent < size:
            piece = BLOCK[: size - self.sent]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if kind == "chunked" else piece)
            await writer.drain()
            self.sent += len(piece)
        if kind == "chunked":
            writer.write(b"0\r\n\r\n")
        elif kind == "eof":
            writer.write_eof()
            await writer.drain()

    async def _sink(self, reader: asyncio.StreamReader, head: str, rate: float) -> None:
        self.taken = 0
        ahead = 0.0
        async for size in self._pieces(reader, head):
            self.taken += size
            if rate and (ahead := ahead + size / rate) > 0.01:
                await asyncio.sleep(ahead)
                ahead = 0.0

    @staticmethod
    async def _pieces(reader: asyncio.StreamReader, head: str) -> AsyncIterator[int]:
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        if "content-length" in fields:
            left = int(fields["content-length"])
            while left:
                piece = await reader.read(min(left, len(BLOCK)))
                if not piece:
                    return
                left -= len(piece)
                yield len(piece)
            return
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
            yield size
        await reader.readuntil(b"\r\n")

    def _bomb(self, coding: str, size: int) -> bytes:
        if (coding, size) not in self.bombs:
            self.bombs[coding, size] = b"".join(_compress_zeros(coding, size))
        return self.bombs[coding, size]


def _compress_zeros(coding: str, size: int) -> Iterator[bytes]:
    zeros = bytes(1_000_000)
    if coding == "br":
        import brotli

        brotli_compressor = brotli.Compressor(quality=5)
        for _ in range(size // len(zeros)):
            yield brotli_compressor.process(zeros)
        yield brotli_compressor.finish()
    elif coding == "zstd":
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdCompressor
        else:
            from backports.zstd import ZstdCompressor
        zstd_compressor = ZstdCompressor()
        for _ in range(size // len(zeros)):
            yield zstd_compressor.compress(zeros)
        yield zstd_compressor.flush()
    else:
        zlib_compressor = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        for _ in range(size // len(zeros)):
            yield zlib_compressor.compress(zeros)
        yield zlib_compressor.flush()


@contextmanager
def streamer() -> Iterator[str]:
    """Run this file as a process; gives the url of its root, without the last slash."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(10)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(Streamer().serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(main())
