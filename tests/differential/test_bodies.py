"""Request bodies: every kind of `data` and `json`, their headers, framing and compression."""

import asyncio
import io
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import FormData, MultipartWriter, hdrs
from multidict import MultiDict
from support.outcome import ANY, Case, Run
from support.scripted import Close, Expect, ExpectHead, Pause, Send, Stall, StopReading

from .tables import agen, answer, check, post, request, serve, slow_agen, table

BIG = bytes(range(256)) * 8192
OK_ANSWER = answer("HTTP/1.1 200 OK", body=b"ok")


async def broken_agen() -> AsyncIterator[bytes]:
    yield b"first"
    raise LookupError("the source broke")


class AsyncIterable:
    """An asynchronous iterable that is not a generator."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return agen(b"one", b"two")


class Unseekable(io.RawIOBase):
    """A readable object without a length and without seeking."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


def advanced(data: bytes, offset: int) -> io.BytesIO:
    stream = io.BytesIO(data)
    stream.seek(offset)
    return stream


def form(*fields: tuple[Any, ...], **more: Any) -> Callable[[], FormData]:
    """Make a maker of a form; a value that is callable is made anew for each client."""

    def make() -> FormData:
        made = FormData(**more)
        for name, value, *rest in fields:
            made.add_field(name, value() if callable(value) else value, **(rest[0] if rest else {}))
        return made

    return make


def file_of_text() -> Any:
    return Path(__file__).with_name("__init__.py").open("rb")


def text_file() -> Any:
    return Path(__file__).with_name("__init__.py").open("r", encoding="utf-8")


def writer(kind: str, *parts: tuple[Any, dict[str, str]]) -> Callable[[], MultipartWriter]:
    def make() -> MultipartWriter:
        made = MultipartWriter(kind, boundary="fixed-boundary")
        for value, headers in parts:
            made.append(value, headers)
        return made

    return make


DATA: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"payload",
    "empty bytes": lambda: b"",
    "bytes with line ends": lambda: b"a\r\n\r\nb\0c",
    "str": lambda: "text",
    "empty str": lambda: "",
    "unicode str": lambda: "текст ü",
    "bytearray": lambda: bytearray(b"array"),
    "empty bytearray": lambda: bytearray(),
    "memoryview": lambda: memoryview(b"a view of bytes")[2:8],
    "memoryview of words": lambda: memoryview(b"12345678").cast("I"),
    "bytes of 2 MB": lambda: BIG,
    "str of 200 kB": lambda: "é" * 100_000,
    "dict": lambda: {"a": "1", "b": "two words"},
    "empty dict": lambda: {},
    "dict of numbers": lambda: {"n": 1},
    "dict with unicode": lambda: {"ключ": "знач=ение&"},
    "dict of lists": lambda: {"a": ["1", "2"]},
    "dict with None": lambda: {"a": None},
    "dict of bytes": lambda: {"a": b"raw"},
    "list of tuples": lambda: [("a", "1"), ("a", "2")],
    "tuple of tuples": lambda: (("a", "1"), ("b", "2")),
    "empty list": lambda: [],
    "multidict": lambda: MultiDict([("k", "1"), ("k", "2")]),
    "dict with a file": lambda: {"f": io.BytesIO(b"file content"), "a": "1"},
    "dict with a real file": lambda: {"f": file_of_text()},
    "form": form(("a", "1"), ("b", "2")),
    "empty form": form(),
    "form in latin-1": form(("a", "é"), charset="latin-1"),
    "form not quoting": form(("a b", lambda: io.BytesIO(b"x"), {"filename": "ä b.txt"}), quote_fields=False),
    "form with a file": form(
        ("f", lambda: io.BytesIO(b"data"), {"filename": "n.bin", "content_type": "a/b"})
    ),
    "form with a content type": form(("f", "text", {"content_type": "text/plain"})),
    "form multipart by default": form(("a", "1"), default_to_multipart=True),
    "form with a text file": form(("f", lambda: io.StringIO("text ü"), {"filename": "t.txt"})),
    "form with an unseekable file": form(("f", lambda: Unseekable(b"unknown length"), {"filename": "u"})),
    "form with a generator": form(("f", lambda: agen(b"g1", b"g2"), {"filename": "g"})),
    "form of many fields": form(*((f"f{n}", str(n)) for n in range(100))),
    "multipart writer": writer("mixed", (b"bytes", {}), ("text", {"X-Part": "1"})),
    "multipart related": writer("related", ("a", {hdrs.CONTENT_ID: "<1>"})),
    "multipart empty": writer("mixed"),
    "BytesIO": lambda: io.BytesIO(b"stream of bytes"),
    "empty BytesIO": lambda: io.BytesIO(),
    "BytesIO of 2 MB": lambda: io.BytesIO(BIG),
    "BytesIO read from the middle": lambda: advanced(b"0123456789", 4),
    "StringIO": lambda: io.StringIO("stream of text ü"),
    "a file": file_of_text,
    "a text file": text_file,
    "a buffered reader": lambda: io.BufferedReader(io.BytesIO(b"buffered")),
    "an unseekable reader": lambda: io.BufferedReader(Unseekable(b"no length")),
    "an asynchronous generator": lambda: agen(b"one", b"two", b"three"),
    "a slow generator": lambda: slow_agen(b"one", b"two", b"three"),
    "a generator of nothing": lambda: agen(),
    "a generator of empty pieces": lambda: agen(b"", b"x", b"", b"y"),
    "a generator of 2 MB": lambda: agen(*(BIG[:65536] for _ in range(32))),
    "a generator of str": lambda: agen("text"),
    "a generator of bytearrays": lambda: agen(bytearray(b"ba"), memoryview(b"mv")),
    "a generator that raises": broken_agen,
    "an asynchronous iterable": AsyncIterable,
    "BytesPayload": lambda: aiohttp.BytesPayload(b"payload", headers={"X-P": "1"}, content_type="a/b"),
    "JsonPayload": lambda: aiohttp.JsonPayload({"a": 1}),
}

FAILING = {
    "a generator of str": "ClientConnectionError",
    "a generator that raises": "ClientConnectionError",
}

DATA_CASES = [
    Case(
        f"data {name}",
        post("/d", lambda _, make=make: {"data": make()}),
        expect=FAILING.get(name),
        wire=name not in FAILING,
    )
    for name, make in DATA.items()
]

BAD_DATA: dict[str, Callable[[], Any]] = {
    "an object": object,
    "a number": lambda: 5,
    "a bool": lambda: True,
    "a set": lambda: {"a"},
    "a plain generator": lambda: (piece for piece in (b"a", b"b")),
    "an iterator": lambda: iter([b"a"]),
    "a list of bytes": lambda: [b"a", b"b"],
    "a list of numbers": lambda: [1, 2],
    "a dict with an object": lambda: {"a": object()},
    "a closed file": lambda: closed(io.BytesIO(b"x")),
}


def closed(stream: io.BytesIO) -> io.BytesIO:
    stream.close()
    return stream


BAD_DATA_CASES = [
    Case(f"data refused {name}", post("/d", lambda _, make=make: {"data": make()}), lane=ANY, wire=False)
    for name, make in BAD_DATA.items()
]

JSON: dict[str, Any] = {
    "dict": {"a": 1, "b": [True, None, 2.5]},
    "list": [1, 2, 3],
    "None": None,
    "str": "text ü \u2028",
    "number": 7,
    "zero": 0,
    "false": False,
    "empty dict": {},
    "nan": float("nan"),
    "nested": {"a": {"b": {"c": ["d"] * 100}}},
    "large": ["x" * 1000] * 300,
}


def dumps_sorted(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def dumps_bytes(value: Any) -> bytes:
    return b"<bytes>" + json.dumps(value).encode()


JSON_CASES = [Case(f"json {name}", post("/j", json=value), expect=200) for name, value in JSON.items()] + [
    Case("json on a GET", request("GET", json={"a": 1}), expect=200),
    Case("json that cannot be serialised", post(json=object()), expect="TypeError", lane=ANY),
    Case("json and data", post(json={}, data=b""), expect="ValueError", lane=ANY),
    Case("json with a content type", post(json={}, headers={"Content-Type": "application/x"}), expect=200),
    Case("json serialised otherwise", post(json={"b": 1, "a": 2}), session={"json_serialize": dumps_sorted}),
    Case("json serialised to bytes", post(json={"b": 1}), session={"json_serialize_bytes": dumps_bytes}),
    Case("json compressed", post(json={"a": "b" * 100}, compress=True), expect=200),
    Case("json chunked", post(json={"a": 1}, chunked=True), expect=200),
]

EACH_METHOD_CASES = [
    Case(
        f"{method} with {name}",
        request(method, "/", lambda _, make=make: {"data": make()}),
        serve(answer("HTTP/1.1 204 No Content")),
        expect=204,
    )
    for method in ("GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH", "TRACE", "CUSTOM")
    for name, make in (
        ("bytes", lambda: b"body"),
        ("no bytes", lambda: b""),
        ("a generator", lambda: agen(b"a", b"b")),
    )
]

HTTP10 = {"version": aiohttp.HttpVersion10}
ZIPPED = zlib.compress(b"already")

OPTIONS: dict[str, dict[str, Any]] = {
    "chunked": {"data": b"body", "chunked": True},
    "chunked False": {"data": b"body", "chunked": False},
    "chunked without data": {"chunked": True},
    "chunked empty": {"data": b"", "chunked": True},
    "chunked by size": {"data": b"body", "chunked": 1024},
    "chunked with Content-Length": {"data": b"body", "chunked": True, "headers": {"Content-Length": "4"}},
    "chunked with Transfer-Encoding": {
        "data": b"body",
        "chunked": True,
        "headers": {"Transfer-Encoding": "chunked"},
    },
    "Transfer-Encoding by hand": {"data": b"body", "headers": {"Transfer-Encoding": "chunked"}},
    "Transfer-Encoding gzip by hand": {"data": b"body", "headers": {"Transfer-Encoding": "gzip"}},
    "Content-Length by hand": {"data": b"body", "headers": {"Content-Length": "4"}},
    "Content-Length too small": {"data": b"body", "headers": {"Content-Length": "2"}},
    "Content-Length of a word": {"data": b"body", "headers": {"Content-Length": "four"}},
    "Content-Length negative": {"data": b"body", "headers": {"Content-Length": "-4"}},
    "Content-Length with a plus": {"data": b"body", "headers": {"Content-Length": "+4"}},
    "Content-Length without data": {"headers": {"Content-Length": "0"}},
    "Content-Type by hand": {"data": b"body", "headers": {"Content-Type": "text/x-mine"}},
    "Content-Type of a form by hand": {"data": {"a": "1"}, "headers": {"Content-Type": "text/x-form"}},
    "Content-Type of a str by hand": {
        "data": "é",
        "headers": {"Content-Type": "text/plain; charset=latin-1"},
    },
    "Content-Type skipped": {"data": b"body", "skip_auto_headers": ["Content-Type"]},
    "Content-Length skipped": {"data": b"body", "skip_auto_headers": ["Content-Length"]},
    "compress": {"data": b"body" * 100, "compress": True},
    "compress gzip": {"data": b"body" * 100, "compress": "gzip"},
    "compress deflate": {"data": b"body" * 100, "compress": "deflate"},
    "compress of another kind": {"data": b"body" * 100, "compress": "br"},
    "compress an empty body": {"data": b"", "compress": True},
    "compress without data": {"compress": True},
    "compress and chunked": {"data": b"body" * 100, "compress": True, "chunked": True},
    "compress and encoded already": {
        "data": ZIPPED,
        "compress": True,
        "headers": {"Content-Encoding": "deflate"},
    },
    "encoded already": {"data": ZIPPED, "headers": {"Content-Encoding": "deflate"}},
    "Expect by hand is lower case": {"data": b"body", "headers": {"Connection": "close"}},
}

# Nothing of these may reach the server.
REFUSED = {"Content-Length of a word", "Content-Length negative", "Content-Length with a plus"}

UNFRAMED = ("Transfer-Encoding by hand", "Transfer-Encoding gzip by hand", "chunked False")
"""aiohttp frames these otherwise than the head says: the server must not wait for their end."""

OPTION_CASES = [
    Case(
        f"option {name}",
        post("/o", lambda _, row=row: dict(row)),
        ((ExpectHead(), Send(OK_ANSWER), Stall()),) if name in UNFRAMED else serve(OK_ANSWER),
        lane=ANY,
        probe=name not in UNFRAMED,
        silent=name in REFUSED,
    )
    for name, row in OPTIONS.items()
] + [
    Case("option compress 2 MB", post(data=BIG, compress="deflate"), expect=200),
    Case("option HTTP/1.0 chunked", post(data=b"a", chunked=True), session=HTTP10),
    Case("option HTTP/1.0 generator", post("/", lambda _: {"data": agen(b"a")}), session=HTTP10, lane=ANY),
    Case(
        "option compress a generator",
        post("/", lambda _: {"data": agen(b"a" * 999, b"b"), "compress": "gzip"}),
        expect=200,
    ),
    Case(
        "option generator with length",
        post("/", lambda _: {"data": agen(b"abcd"), "headers": {"Content-Length": "4"}}),
        expect=200,
    ),
    Case(
        "option generator beyond its length",
        post("/", lambda _: {"data": agen(b"abc", b"defg"), "headers": {"Content-Length": "5"}}),
        expect=200,
    ),
]


def with_body(make: Callable[[], Any], **more: Any) -> Any:
    return post("/e", lambda _: {"data": make(), **more})


GATED = (ExpectHead(), Send(OK_ANSWER), Stall())


async def early_answer(run: Run) -> Any:
    """The answer arrives while the generator still has bytes to give."""
    gate = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await gate.wait()
        yield b"second"

    async with run.session.post(run.url(), data=body()) as resp:
        content = await resp.read() if gate.is_set() else await resp.content.read()
        run.see(content, resp.status)
        gate.set()
    return resp.status


EARLY_CASES = [
    Case("early answer to a generator", early_answer, ((*GATED,),), wire=False, expect=None),
    Case(
        "early answer and close to 2 MB",
        with_body(lambda: BIG),
        ((ExpectHead(), Send(answer("HTTP/1.1 413 Too Large", "Connection: close")), Pause(0.05), Close()),),
        wire=False,
        ignore=("answer", "error", "result", "probe"),
    ),
    Case(
        "close during the upload",
        with_body(lambda: slow_agen(*(b"x" * 1000 for _ in range(50)))),
        ((ExpectHead(), Close()),),
        wire=False,
        ignore=("error.str", "error.args", "error.errno", "error.strerror", "answer", "error"),
    ),
    Case(
        "a server that does not read",
        with_body(lambda: BIG * 8, timeout=aiohttp.ClientTimeout(total=0.2)),
        ((ExpectHead(), StopReading()),),
        wire=False,
        expect="TimeoutError",
    ),
]


@table(DATA_CASES + BAD_DATA_CASES)
async def test_data(case: Case) -> None:
    await check(case)


@table(JSON_CASES)
async def test_json(case: Case) -> None:
    await check(case)


@table(EACH_METHOD_CASES)
async def test_data_with_each_method(case: Case) -> None:
    await check(case)


@table(OPTION_CASES)
async def test_framing_of_the_request_body(case: Case) -> None:
    await check(case)


@table(EARLY_CASES)
async def test_answer_or_end_before_the_upload_is_done(case: Case) -> None:
    await check(case)


@pytest.mark.parametrize("kind", ["bytes", "BytesIO", "str", "form", "generator"])
@pytest.mark.parametrize("end", ["closed", "kept"])
async def test_body_is_resent_only_by_an_idempotent_method(kind: str, end: str) -> None:
    makes: dict[str, Callable[[], Any]] = {
        "bytes": lambda: b"again",
        "BytesIO": lambda: advanced(b"__again", 2),
        "str": lambda: "again",
        "form": form(("f", lambda: io.BytesIO(b"x"), {"filename": "f"})),
        "generator": lambda: agen(b"again"),
    }
    first = (Expect(), Close()) if end == "closed" else (Expect(), Send(OK_ANSWER))
    for method in ("PUT", "POST"):
        do = request(method, "/", lambda _: {"data": makes[kind]()})
        outcome = await check(Case(f"resend {kind} {method} {end}", do, (first,)))
        assert outcome["connections"] == (1 if end == "kept" else 2)


async def test_file_object_is_left_as_aiohttp_leaves_it() -> None:
    streams: list[io.BytesIO] = []

    async def do(run: Run) -> Any:
        streams.append(io.BytesIO(b"content"))
        async with run.session.post(run.url(), data=streams[-1]) as resp:
            await resp.read()
        return [streams[-1].closed, None if streams[-1].closed else streams[-1].tell()]

    await check(Case("file afterwards", do, serve(OK_ANSWER)))


async def test_iterator_is_not_read_after_the_answer_was_closed() -> None:
    def pieces() -> Iterator[int]:
        yield from range(1000)

    async def do(run: Run) -> Any:
        seen = []

        async def body() -> AsyncIterator[bytes]:
            for number in pieces():
                seen.append(number)
                await asyncio.sleep(0.001)
                yield b"%d" % number

        resp = await run.session.post(run.url(), data=body())
        resp.close()
        await asyncio.sleep(0.01)
        before = len(seen)
        await asyncio.sleep(0.02)
        return [resp.status, len(seen) == before, len(seen) < 1000]

    await check(Case("closed upload", do, ((ExpectHead(), Send(OK_ANSWER), Stall()),), wire=False))
