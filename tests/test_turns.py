"""Files that several uploads read, the one after the other."""

import asyncio
import gc
import io
import os
import weakref
from pathlib import Path
from typing import IO, Any

import aiohttp
import pytest
from aiohttp import payload
from support.late import LateFile, once_late
from support.local import Exchange, LocalServer
from support.scripted import reset

import wirespeed
from wirespeed.turns import take_turns

# 2 MiB of which no piece is like another.
DATA = b"".join(number.to_bytes(4, "big") for number in range(524_288))


class Wire:
    """A writer that keeps what is written.

    Args:
        limit: bytes after which it waits for ever.
    """

    def __init__(self, limit: int = 2**30) -> None:
        self.data = bytearray()
        self.limit = limit
        self.is_full = asyncio.Event()

    async def write(self, chunk: bytes) -> None:
        self.data += chunk
        if len(self.data) >= self.limit:
            self.is_full.set()
            await asyncio.get_running_loop().create_future()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(DATA)
    return path


def opened(path: Path | int, mode: str = "rb") -> IO[Any]:
    return open(path, mode, encoding="utf-8" if mode == "r" else None)


async def write(body: payload.Payload, wire: Wire, length: int | None = None) -> bytes:
    await body.write_with_length(wire, length)  # type: ignore[arg-type]
    return bytes(wire.data)


# Over sockets


def redirect(exchange: Exchange) -> None:
    exchange.respond(307, b"", [("Location", "/next")])


def lose(exchange: Exchange) -> None:
    reset(exchange.connection.transport)


@pytest.mark.skipif(not wirespeed.NATIVE, reason="without the core, aiohttp sends again by itself")
@pytest.mark.parametrize(
    ("operation", "number", "is_form"), [("seek", 1, True), ("read", 1, True), ("read", 2, False)]
)
@pytest.mark.parametrize("act", [redirect, lose])
async def test_what_a_session_sends_again_is_whole(
    act: Any, operation: str, number: int, is_form: bool, path: Path
) -> None:
    file = LateFile(path, operation, number)
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        first = once_late(file, act)

        def early(exchange: Exchange) -> None:
            if len(server.exchanges) == 1:
                first(exchange)
            else:
                server.early_routes.clear()

        server.early_routes["/"] = early
        server.routes["/"] = server.routes["/next"] = server.routes["/ok"]
        async with session.put(server.url(), data={"file": file} if is_form else file) as resp:
            assert resp.status == 200
        _, second = server.exchanges
        assert DATA in second.body


# One after the other


@pytest.mark.parametrize("length", [None, 5, 300_000, len(DATA)])
async def test_a_file_is_written_as_aiohttp_writes_it(path: Path, length: int | None) -> None:
    with opened(path) as file:
        file.seek(7)
        body = payload.get_payload(file)
        expected = await write(body, Wire(), length)
        take_turns(body)
        assert await write(body, Wire(), length) == expected == DATA[7:][:length]
        assert not body.consumed


async def test_a_file_that_does_not_say_whether_it_can_seek_is_written() -> None:
    # What tarfile gives of a stream has no answer before CPython 3.13.
    class Mute(io.BytesIO):
        def seekable(self) -> bool:
            raise AttributeError("seekable")

    body = payload.get_payload(Mute(DATA))
    take_turns(body)
    assert await write(body, Wire()) == DATA


async def test_text_is_written_as_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("grün " * 100_000, "utf-8")
    with opened(tmp_path / "text", "r") as file:
        body = payload.get_payload(file, encoding="latin-1")
        take_turns(body)
        for _ in range(2):
            assert await write(body, Wire()) == b"gr\xfcn " * 100_000


async def test_another_upload_ends_the_one_that_is_under_way(path: Path) -> None:
    with opened(path) as file:
        body = payload.get_payload(file)
        take_turns(body)
        wire = Wire()
        go = asyncio.Event()

        async def wait(chunk: bytes) -> None:
            wire.data += chunk
            wire.is_full.set()
            await go.wait()

        wire.write = wait  # type: ignore[method-assign]
        first = asyncio.ensure_future(write(body, wire))
        await wire.is_full.wait()
        assert await write(body, Wire()) == DATA
        go.set()
        with pytest.raises(RuntimeError, match="Another upload of the same file has begun"):
            await first
        assert DATA.startswith(wire.data)


async def test_parts_of_a_form_take_turns(path: Path) -> None:
    with opened(path) as file:
        inner = aiohttp.MultipartWriter()
        part = inner.append(file)
        outer = aiohttp.MultipartWriter()
        outer.append("text")
        outer.append(inner)
        take_turns(outer)
        assert type(part) is not payload.BufferedReaderPayload
        wire = Wire(500_000)
        broken_off = asyncio.ensure_future(outer.write(wire))  # type: ignore[arg-type]
        await wire.is_full.wait()
        broken_off.cancel()
        again = Wire()
        await outer.write(again)  # type: ignore[arg-type]
        assert DATA in again.data


async def test_what_cannot_be_read_twice_is_consumed_as_soon_as_an_upload_begins() -> None:
    end, other_end = os.pipe()
    try:
        with opened(end) as file:
            body = payload.get_payload(file)
            take_turns(body)
            assert not body.consumed
            upload = asyncio.ensure_future(write(body, Wire()))
            await asyncio.sleep(0)
            assert body.consumed
            os.write(other_end, b"data")
            os.close(other_end)
            other_end = -1
            assert await upload == b"data"
    finally:
        if other_end >= 0:
            os.close(other_end)


# What becomes of the payload


async def test_a_payload_remains_what_it_is(path: Path) -> None:
    with opened(path) as file:
        body = payload.get_payload(file, filename="name")
        take_turns(body)
        changed = type(body)
        take_turns(body)
        assert type(body) is changed
        assert changed.__name__ == "BufferedReaderPayload"
        assert isinstance(body, payload.BufferedReaderPayload)
        assert (body.size, body.filename, body.autoclose) == (len(DATA), "name", False)


async def test_what_is_not_read_in_threads_is_left_alone() -> None:
    class Own(payload.BufferedReaderPayload):
        async def write_with_length(self, writer: Any, content_length: int | None) -> None:
            await writer.write(b"own")

    bodies = [
        payload.get_payload(b"bytes"),
        payload.get_payload(io.BytesIO(b"bytes")),
        Own(io.BytesIO(b"bytes")),
    ]
    classes = [type(body) for body in bodies]
    for body in [*bodies, None, b""]:
        take_turns(body)
    assert [type(body) for body in bodies] == classes


async def test_a_file_is_closed_as_soon_as_nobody_has_it(path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        body = payload.get_payload(LateFile(path, "none"))
        take_turns(body)
        await write(body, Wire())
        ref = weakref.ref(body._value)
        body._value.close()
        del body
        await asyncio.sleep(0.01)  # the executor's thread lets go of its last job
        assert ref() is None
    finally:
        gc.enable()
