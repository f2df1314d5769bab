"""Bodies of results: framing, decoding, what is cut off, and what is too long."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from support.checks import eventually
from support.local import BLOCK, Exchange
from support.streamer import streamer

import wirespeed
from wirespeed.batch import BodyTooLarge

from .scene import KINDS, collected, scene

MB = 2**20
PLAIN = b"a body that can be compressed; " * 40


def raw(data: bytes, *, close: bool = False) -> Callable[[Exchange], None]:
    """A route that sends these bytes."""

    def answer(exchange: Exchange) -> None:
        exchange.send(data)
        exchange.finish()
        if close:
            exchange.connection.transport.close()

    return answer


def encoders() -> dict[str, Callable[[bytes], bytes]]:
    found: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    try:
        import brotli

        found["br"] = brotli.compress
    except ImportError:
        pass
    try:
        from compression import zstd
    except ImportError:
        try:
            from backports import zstd
        except ImportError:
            return found
    found["zstd"] = zstd.compress
    return found


ENCODERS = encoders()

FRAMINGS: dict[str, tuple[bytes, bool, bytes]] = {
    "by length": (b"Content-Length: 5\r\n\r\nhello", False, b"hello"),
    "of length zero": (b"Content-Length: 0\r\n\r\n", False, b""),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", False, b"hello"),
    "chunked, empty": (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False, b""),
    "chunked with trailers": (
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
        False,
        b"hello",
    ),
    "until the end": (b"\r\nhello", True, b"hello"),
    "until the end, empty": (b"\r\n", True, b""),
    "by length, closing": (b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", True, b"hello"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_body", [None, 5, 1000])
async def test_framings(kind: str, max_body: int | None) -> None:
    async with scene(kind) as at:
        for name, (rest, closes, _) in FRAMINGS.items():
            at.server.routes[f"/{name}"] = raw(b"HTTP/1.1 200 OK\r\n" + rest, close=closes)
        urls = [at.url(f"/{name}".replace(" ", "%20")) for name in FRAMINGS]
        at.server.routes |= {name.replace(" ", "%20"): route for name, route in at.server.routes.items()}
        for _ in range(3):
            results = await at.results(urls, concurrency=3, max_body=max_body)
            for result, (name, (_, _, body)) in zip(results, FRAMINGS.items(), strict=True):
                assert (result.error, result.status, result.body) == (None, 200, body), name
                assert result.ok


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_that_have_no_body(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/204"] = raw(b"HTTP/1.1 204 No Content\r\n\r\n")
        at.server.routes["/304"] = raw(
            b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 99\r\n\r\n'
        )
        at.server.routes["/head"] = raw(
            b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nContent-Encoding: gzip\r\n\r\n"
        )
        at.server.routes["/chunked"] = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        given = [
            at.url("/204"),
            at.url("/304"),
            wirespeed.Request("HEAD", at.url("/head")),
            wirespeed.Request("head", at.url("/chunked")),
            wirespeed.Request("HEAD", at.url("/ok")),
        ] * 3
        # Longer ones than allowed, if they were there.
        results = await at.results(given, concurrency=1, max_body=10)
        assert [result.status for result in results] == [204, 304, 200, 200, 200] * 3
        assert all(result.error is None and result.ok and result.body == b"" for result in results)
        assert results[1].headers["etag"] == '"x"'
        assert results[2].headers["Content-Length"] == "99"
        assert len(at.server.connections) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("max_body", [None, len(PLAIN)])
async def test_compressed_bodies_are_decoded(encoding: str, kind: str, max_body: int | None) -> None:
    packed = ENCODERS[encoding](PLAIN)
    async with scene(kind) as at:
        fields = [("Content-Encoding", encoding.upper())]
        at.server.routes["/length"] = lambda x: x.respond(200, packed, fields)
        at.server.routes["/chunked"] = raw(
            f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            + b"".join(b"1\r\n%c\r\n" % byte for byte in packed)
            + b"0\r\n\r\n"
        )
        at.server.routes["/end"] = raw(
            f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\n".encode() + packed, close=True
        )
        at.server.routes["/empty"] = lambda x: x.respond(200, b"", fields)
        results = await at.results(
            [at.url("/length"), at.url("/chunked"), at.url("/end"), at.url("/empty")], max_body=max_body
        )
        assert [(result.error, result.body) for result in results] == [(None, PLAIN)] * 3 + [(None, b"")]
        assert results[0].headers["Content-Encoding"] == encoding.upper()


@pytest.mark.parametrize("kind", KINDS)
async def test_bodies_in_unknown_encodings_are_left(kind: str) -> None:
    async with scene(kind) as at:
        for encoding in ("identity", "x-own", "gzip, br"):
            at.server.routes["/"] = lambda x, e=encoding: x.respond(
                200, b"as it is", [("Content-Encoding", e)]
            )
            result = await at.result(at.url("/"))
            assert (result.error, result.body) == (None, b"as it is"), encoding


@pytest.mark.parametrize("kind", KINDS)
async def test_session_that_does_not_decode(kind: str) -> None:
    packed = gzip.compress(PLAIN)
    async with scene(kind, auto_decompress=False) as at:
        at.server.routes["/"] = lambda x: x.respond(200, packed, [("Content-Encoding", "gzip")])
        at.server.routes["/to"] = lambda x: x.respond(
            302, packed, [("Content-Encoding", "gzip"), ("Location", "/")]
        )
        assert (await at.result(at.url("/"))).body == packed
        assert (await at.result(at.url("/to"))).body == packed
        assert (await at.result(at.url("/"), max_body=len(packed))).body == packed
        assert isinstance((await at.result(at.url("/"), max_body=len(packed) - 1)).error, BodyTooLarge)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", ENCODERS)
async def test_broken_encodings_are_errors(encoding: str, kind: str) -> None:
    async with scene(kind) as at:
        fields = [("Content-Encoding", encoding)]
        at.server.routes["/text"] = lambda x: x.respond(200, b"not compressed at all", fields)
        results = await at.results([at.url("/text"), at.url("/ok")] * 3, concurrency=1)
        for bad, good in zip(results[::2], results[1::2], strict=True):
            assert isinstance(bad.error, aiohttp.ClientPayloadError), bad
            assert not isinstance(bad.error, BodyTooLarge)
            assert (bad.body, bad.ok) == (b"", False)
            with pytest.raises(aiohttp.ClientPayloadError):
                bad.text()
            with pytest.raises(aiohttp.ClientPayloadError):
                bad.json()
            assert good.body == b"ok"


CUT: dict[str, bytes] = {
    "shorter than its length": b"Content-Length: 10\r\n\r\nhalf",
    "chunked, in a chunk": b"Transfer-Encoding: chunked\r\n\r\n10\r\nhalf",
    "chunked, between chunks": b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "chunked, before its end": b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    "no byte of it": b"Content-Length: 10\r\n\r\n",
    "a large one": b"Content-Length: 3000000\r\n\r\n" + b"x" * 200_000,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("max_body", [None, 10 * MB])
async def test_bodies_that_break_off_are_errors(name: str, kind: str, max_body: int | None) -> None:
    async with scene(kind) as at:
        at.server.routes["/cut"] = raw(b"HTTP/1.1 200 OK\r\n" + CUT[name], close=True)
        results = await at.results(
            [at.url("/cut"), at.url(), at.url("/cut")], concurrency=1, max_body=max_body
        )
        assert isinstance(results[0].error, aiohttp.ClientPayloadError)
        assert results[1].body == b"ok"
        assert isinstance(results[2].error, aiohttp.ClientPayloadError)
        # A body that has begun is not asked for again.
        assert len(at.server.exchanges) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_after_a_body_do_not_reach_the_next_result(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/more"] = raw(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        )
        results = await at.results([at.url("/more"), at.url()] * 5, concurrency=1)
        assert [result.body for result in results] == [b"ok"] * 10


# Too long


def plain(size: int) -> Callable[[Exchange], None]:
    return lambda x: x.respond(200, b"x" * size)


def chunked(size: int) -> Callable[[Exchange], None]:
    return raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
    )


def until_end(size: int) -> Callable[[Exchange], None]:
    return raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * size, close=True)


def packed(size: int) -> Callable[[Exchange], None]:
    body = gzip.compress(b"x" * size)
    return lambda x: x.respond(200, body, [("Content-Encoding", "gzip")])


LONG = {"by length": plain, "chunked": chunked, "until the end": until_end, "compressed": packed}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("limit", [100, 100_000])
async def test_the_limit_is_exact(name: str, limit: int, kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/fits"] = LONG[name](limit)
        at.server.routes["/long"] = LONG[name](limit + 1)
        at.server.routes["/longer"] = LONG[name](10 * limit)
        results = await at.results(
            [at.url("/fits"), at.url("/long"), at.url("/longer"), at.url("/ok")],
            max_body=limit,
            concurrency=1,
        )
        assert (results[0].error, results[0].body) == (None, b"x" * limit)
        for result in results[1:3]:
            assert isinstance(result.error, BodyTooLarge), result
            assert result.error.limit == limit
            assert str(limit) in str(result.error)
            assert (result.body, result.ok, result.attempts) == (b"", False, 1)
        assert results[3].body == b"ok"


@pytest.mark.parametrize("kind", KINDS)
async def test_no_byte_is_allowed(kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/empty"] = lambda x: x.respond(200)
        results = await at.results(
            [at.url("/empty"), at.url(), wirespeed.Request("HEAD", at.url())], max_body=0
        )
        assert [result.ok for result in results] == [True, False, True]
        assert isinstance(results[1].error, BodyTooLarge)


@pytest.mark.parametrize("kind", KINDS)
async def test_compressed_bytes_count_too(kind: str) -> None:
    # What comes may be longer than what it decodes to.
    body = gzip.compress(b"", mtime=0) * 20 + gzip.compress(b"short")
    async with scene(kind) as at:
        at.server.routes["/"] = lambda x: x.respond(200, body, [("Content-Encoding", "gzip")])
        result = await at.result(at.url("/"), max_body=50)
        assert isinstance(result.error, BodyTooLarge)
        assert (await at.result(at.url("/"), max_body=len(body))).body == b"short"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_long_body_is_refused_by_its_length(kind: str) -> None:
    # Nothing of it is waited for.
    async with scene(kind) as at:
        at.server.routes["/"] = lambda x: x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        result = await at.result(at.url("/"), max_body=999, timeout=5)
        assert isinstance(result.error, BodyTooLarge)
        await eventually(lambda: not at.server.open, "the connection closed")


@pytest.mark.parametrize("kind", KINDS)
async def test_endless_bodies_are_cut_off(kind: str) -> None:
    async with scene(kind) as at:
        results = await at.results([at.url("/endless")] * 4, max_body=MB)
        assert all(isinstance(result.error, BodyTooLarge) for result in results)
        await eventually(lambda: not at.server.open, "the connections closed")
        # What was on its way when they closed.
        assert all(connection.total_sent < 32 * MB for connection in at.server.connections)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoding", ENCODERS)
async def test_bombs_stay_small(encoding: str, kind: str) -> None:
    limit = 2 * MB
    with streamer() as base:
        async with scene(kind) as at:
            url = f"{base}/bomb/{encoding}/{50 * MB}"
            first = await at.result(url, max_body=limit, timeout=20)
            assert isinstance(first.error, BodyTooLarge), first
            tracemalloc.start()
            try:
                results = await at.results([url] * 3, max_body=limit, concurrency=1, timeout=20)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert all(isinstance(result.error, BodyTooLarge) for result in results)
            assert peak < 6 * limit


@pytest.mark.parametrize("kind", KINDS)
async def test_large_bodies_are_whole(kind: str) -> None:
    size = 3 * MB + 7
    expected = (BLOCK * (size // len(BLOCK) + 1))[:size]
    async with scene(kind) as at:
        urls = [at.url(f"/{path}?n={size}") for path in ("bytes", "chunked")] * 3
        results: list[Any] = await collected(at.session.batch(urls, concurrency=3))
        assert len(results) == 6
        assert all(result.body == expected for result in results)
        limited = await at.results(urls, concurrency=3, max_body=size)
        assert all(result.body == expected for result in limited)
