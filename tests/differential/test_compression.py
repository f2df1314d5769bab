"""Compressed answers: each coding, broken and cut off, in pieces, and left as they are."""

import gzip
import sys
import zlib
from typing import Any

import pytest
from support.outcome import Case, Run, Script
from support.scripted import Close, Pieces, by_byte

from .tables import answer, check, chunked, get, request, serve, table

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    zstd = pytest.importorskip("backports.zstd", reason="zstd is optional before CPython 3.14")
brotli = pytest.importorskip("brotli", reason="Brotli is an optional dependency of aiohttp")

OK_LINE = "HTTP/1.1 200 OK"
PLAIN = b"plain text, " * 200


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


CODINGS: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzipped(PLAIN)),
    "deflate": ("deflate", zlib.compress(PLAIN)),
    "raw deflate": ("deflate", raw_deflate(PLAIN)),
    "br": ("br", brotli.compress(PLAIN)),
    "zstd": ("zstd", zstd.compress(PLAIN)),
}


def compressed(coding: str, body: bytes, framing: str = "length") -> bytes:
    lines = (OK_LINE, f"Content-Encoding: {coding}", "Content-Type: text/plain")
    if framing == "chunked":
        pieces = [body[i : i + 50] for i in range(0, len(body), 50)]
        return answer(*lines, "Transfer-Encoding: chunked", body=chunked(*pieces), length=False)
    return answer(*lines, body=body, length=framing == "length")


WHOLE_CASES = [
    Case(
        f"{name} by {framing}",
        get(),
        serve(compressed(coding, body, framing), *([Close()] if framing == "close" else [])),
        expect=200,
    )
    for name, (coding, body) in CODINGS.items()
    for framing in ("length", "chunked", "close")
] + [
    Case(f"{name} byte by byte", get(), serve(by_byte(compressed(coding, body))), expect=200)
    for name, (coding, body) in CODINGS.items()
]

BOMB = b"\0" * 3_000_000

MEMBERS: dict[str, tuple[str, bytes]] = {
    "empty gzip": ("gzip", gzipped(b"")),
    "empty deflate": ("deflate", zlib.compress(b"")),
    "empty br": ("br", brotli.compress(b"")),
    "empty zstd": ("zstd", zstd.compress(b"")),
    "no byte of gzip": ("gzip", b""),
    "no byte of zstd": ("zstd", b""),
    "two gzip members": ("gzip", gzipped(b"first ") + gzipped(b"second")),
    "two zstd frames": ("zstd", zstd.compress(b"first ") + zstd.compress(b"second")),
    "two deflate streams": ("deflate", zlib.compress(b"first") + zlib.compress(b"second")),
    "bytes after gzip": ("gzip", gzipped(b"data") + b"trailing"),
    "zeros after gzip": ("gzip", gzipped(b"data") + b"\0" * 20),
    "bytes after deflate": ("deflate", zlib.compress(b"data") + b"trailing"),
    "bytes after br": ("br", brotli.compress(b"data") + b"trailing"),
    "bytes after zstd": ("zstd", zstd.compress(b"data") + b"trailing"),
    "gzip said upper case": ("GZIP", gzipped(b"data")),
    "x-gzip": ("x-gzip", gzipped(b"data")),
    "identity": ("identity", b"data"),
    "an unknown coding": ("compress", b"data"),
    "gzip twice": ("gzip, gzip", gzipped(gzipped(b"data"))),
    "deflate and gzip": ("deflate, gzip", gzipped(zlib.compress(b"data"))),
    "gzip of 3 MB of zeros": ("gzip", gzipped(BOMB)),
    "br of 3 MB of zeros": ("br", brotli.compress(BOMB)),
    "zstd of 3 MB of zeros": ("zstd", zstd.compress(BOMB)),
}

MEMBER_CASES = [
    Case(f"members {name}", get(), serve(compressed(coding, body)))
    for name, (coding, body) in MEMBERS.items()
]

BROKEN: dict[str, tuple[str, bytes]] = {
    "plain text as gzip": ("gzip", b"not compressed at all"),
    "plain text as deflate": ("deflate", b"not compressed at all"),
    "plain text as br": ("br", b"not compressed at all"),
    "plain text as zstd": ("zstd", b"not compressed at all"),
    "gzip as deflate": ("deflate", gzipped(PLAIN)),
    "deflate as gzip": ("gzip", zlib.compress(PLAIN)),
    "gzip with a wrong checksum": ("gzip", gzipped(PLAIN)[:-8] + b"\0" * 8),
    "gzip with a changed byte": ("gzip", gzipped(PLAIN)[:15] + b"\xff" + gzipped(PLAIN)[16:]),
}

for _name, (_coding, _body) in CODINGS.items():
    BROKEN[f"{_name} cut in the middle"] = (_coding, _body[: len(_body) // 2])
    BROKEN[f"{_name} less its last byte"] = (_coding, _body[:-1])

BROKEN_CASES = [
    Case(f"broken {name} by {framing}", get(), serve(compressed(coding, body, framing)), hang_after=0.3)
    for name, (coding, body) in BROKEN.items()
    for framing in ("length", "chunked")
]


def cut(coding: str, body: bytes) -> Script:
    data = compressed(coding, body)
    return serve(data[: -len(body) // 2], Close())


AS_IT_IS = {"auto_decompress": False}
OTHER_CASES = (
    [Case(f"{name} cut off by a close", get(), cut(coding, body)) for name, (coding, body) in CODINGS.items()]
    + [
        Case(f"{name} left as it is", get(**AS_IT_IS), serve(compressed(coding, body)), expect=200)
        for name, (coding, body) in CODINGS.items()
    ]
    + [
        Case("left as it is by the session", get(), serve(compressed(*CODINGS["gzip"])), session=AS_IT_IS),
        Case(
            "decompressed by the request",
            get(auto_decompress=True),
            serve(compressed(*CODINGS["gzip"])),
            session=AS_IT_IS,
            expect=200,
        ),
        Case("HEAD of gzip", request("HEAD"), serve(compressed("gzip", b"")), expect=200),
        Case("204 of gzip", get(), serve(answer("HTTP/1.1 204 N", "Content-Encoding: gzip", length=False))),
        Case("304 of gzip", get(), serve(answer("HTTP/1.1 304 N", "Content-Encoding: gzip", length=False))),
        Case(
            "two Content-Encoding headers",
            get(),
            serve(
                answer(OK_LINE, "Content-Encoding: identity", "Content-Encoding: gzip", body=gzipped(b"x"))
            ),
        ),
    ]
)


@table(WHOLE_CASES + MEMBER_CASES)
async def test_compressed(case: Case) -> None:
    await check(case)


@table(BROKEN_CASES)
async def test_broken_compression(case: Case) -> None:
    await check(case)


@table(OTHER_CASES)
async def test_compression_cut_off_or_left(case: Case) -> None:
    await check(case)


@pytest.mark.parametrize("name", sorted(CODINGS))
async def test_decompressed_in_pieces_as_it_arrives(name: str) -> None:
    coding, body = CODINGS[name]

    async def do(run: Run) -> Any:
        async with run.session.get(run.url()) as resp:
            return [await resp.content.readexactly(100), await resp.content.read(), resp.content.total_bytes]

    data = compressed(coding, body)
    middle = len(data) - len(body) // 2
    await check(Case(f"pieces of {name}", do, serve(Pieces((data[:middle], data[middle:]), 0.005))))


@pytest.mark.parametrize("name", ["gzip", "br", "zstd"])
async def test_bomb_is_read_by_a_slow_reader(name: str) -> None:
    coding, body = MEMBERS[f"{name} of 3 MB of zeros"]

    async def do(run: Run) -> Any:
        total = 0
        async with run.session.get(run.url()) as resp:
            async for piece in resp.content.iter_chunked(1 << 16):
                total += len(piece)
        return total

    outcome = await check(Case(f"bomb {name}", do, serve(compressed(coding, body))))
    assert outcome["result"] == len(BOMB)
