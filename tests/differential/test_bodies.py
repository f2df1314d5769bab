"""Request bodies: every kind that aiohttp takes, framed and sent as aiohttp does."""

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.outcome import Case, Fresh, compare, request
from support.scripted import Close, Expect, ExpectHead, Pause, Reset, Send

BIG = bytes(range(256)) * 8192  # 2 MiB


async def generator(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def form(multipart: bool = False) -> aiohttp.FormData:
    data = aiohttp.FormData(default_to_multipart=multipart)
    data.add_field("a", "1")
    data.add_field("b", "ü")
    return data


def multipart_form() -> aiohttp.FormData:
    data = form()
    data.add_field("file", io.BytesIO(b"content" * 1000), filename="x.bin", content_type="image/png")
    return data


BODIES: dict[str, dict[str, Any]] = {
    "bytes": {"data": b"abc"},
    "bytes empty": {"data": b""},
    "bytes of 64 KiB": {"data": b"x" * 65536},
    "bytes of 64 KiB and one": {"data": b"x" * 65537},
    "bytearray": {"data": bytearray(b"abc")},
    "memoryview": {"data": memoryview(b"abc")},
    "str": {"data": "grüße"},
    "str empty": {"data": ""},
    "dict": {"data": {"a": "1", "b": "x y", "c": "ü"}},
    "dict empty": {"data": {}},
    "pairs": {"data": [("a", "1"), ("a", "2")]},
    "form": {"data": Fresh(form)},
    "form as multipart": {"data": Fresh(lambda: form(True))},
    "form with a file": {"data": Fresh(multipart_form)},
    "bytes io": {"data": Fresh(lambda: io.BytesIO(b"abc" * 100))},
    "bytes io empty": {"data": Fresh(io.BytesIO)},
    "bytes io from the middle": {"data": Fresh(lambda: _from_middle())},
    "string io": {"data": Fresh(lambda: io.StringIO("grüße"))},
    "big bytes io": {"data": Fresh(lambda: io.BytesIO(BIG))},
    "generator": {"data": Fresh(lambda: generator(b"ab", b"", b"cd", b"e" * 70000))},
    "generator empty": {"data": Fresh(generator)},
    "json dict": {"json": {"a": [1, None, "ü"]}},
    "json list": {"json": []},
    "json false": {"json": False},
    "json str": {"json": "x"},
    "chunked bytes": {"data": b"abc", "chunked": True},
    "chunked empty bytes": {"data": b"", "chunked": True},
    "chunked file": {"data": Fresh(lambda: io.BytesIO(b"abc")), "chunked": True},
    "not chunked bytes": {"data": b"abc", "chunked": False},
    "deflated": {"data": b"abc" * 1000, "compress": True},
    "gzipped": {"data": b"abc" * 1000, "compress": "gzip"},
    "deflated json": {"json": {"a": "b" * 100}, "compress": "deflate"},
    "compressed empty": {"data": b"", "compress": True},
    "content type given": {"data": b"abc", "headers": {"Content-Type": "x/y"}},
    "json with a content type given": {"json": {}, "headers": {"content-type": "application/x+json"}},
    "form with a content type given": {"data": {"a": "b"}, "headers": {"Content-Type": "x/y"}},
    "file with a length given": {
        "data": Fresh(lambda: io.BytesIO(b"abcdef")), "headers": {"Content-Length": "4"},
    },
    "transfer encoding given": {"data": b"abc", "headers": {"Transfer-Encoding": "chunked"}},
    "content encoding given": {"data": b"abc", "headers": {"Content-Encoding": "x"}},
}  # fmt: skip


def _from_middle() -> io.BytesIO:
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    return file


# What aiohttp puts on the wire for these is not a message that a server could find the end of.
UNFRAMED = {"transfer encoding given"}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE"])
async def test_body(name: str, method: str) -> None:
    scripts = [[ExpectHead(), Pause(0.05), Send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Close()]]
    await compare(Case(request(method, **BODIES[name]), scripts if name in UNFRAMED else ()))


async def test_file(tmp_path: Path) -> None:
    path = tmp_path / "upload.bin"
    path.write_bytes(BIG)

    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        with path.open("rb") as file:
            async with session.put(base + "/x", data=file) as resp:
                return (await resp.read(), file.closed)

    await compare(Case(call))


async def test_body_of_an_iterable() -> None:
    def lines() -> Iterator[bytes]:
        yield b"a"

    await compare(Case(request("POST", data=Fresh(lines)), follow_up=False))


async def test_generator_that_fails() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ValueError("broken generator")

    await compare(Case(request("POST", data=Fresh(failing)), [[ExpectHead(), Pause(0.2), Close()]]))


async def test_generator_is_sent_again_after_a_redirect_only_when_it_can_be() -> None:
    redirect = b"HTTP/1.1 307 X\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"
    for data in (Fresh(lambda: generator(b"abc")), Fresh(lambda: io.BytesIO(b"abc")), b"abc", Fresh(multipart_form)):
        await compare(Case(request("POST", data=data), [[Expect(), Send(redirect)]]))


@pytest.mark.parametrize("kind", ["bytes io", "bytes", "form with a file"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_body_over_a_stale_connection(kind: str, method: str) -> None:
    """The first connection answers once and closes at the second request: idempotent ones are sent again."""

    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        async with session.get(base + "/first") as resp:
            await resp.read()
        options = {k: v.make() if isinstance(v, Fresh) else v for k, v in BODIES[kind].items()}
        async with session.request(method, base + "/second", **options) as resp:
            return (resp.status, await resp.read())

    first = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    await compare(Case(call, [[Expect(), Send(first), ExpectHead(), Reset()]], differs=frozenset({"wire"})))


async def test_answer_before_the_upload_has_ended() -> None:
    async def slow() -> AsyncIterator[bytes]:
        import asyncio

        yield b"first"
        await asyncio.sleep(0.2)
        yield b"second"

    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
    case = Case(request("POST", data=Fresh(slow)), [[ExpectHead(), Send(early), Pause(0.3)]], differs=frozenset({"wire"}))
    await compare(case)
