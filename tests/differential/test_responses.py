"""What comes back: framing, fields, compression and every way to read it."""

import gzip
import zlib
from typing import Any

import aiohttp
import brotli
import pytest
from support.outcome import Case, compare, observe, request
from support.scripted import Close, Expect, Reset, Send, SendEof, answer

TEXT = b"The quick brown fox jumps over the lazy dog.\n" * 40


def with_length(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(*chunks: bytes, fields: tuple[bytes, ...] = (), trailer: bytes = b"") -> bytes:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *fields]) + b"\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n" + trailer + b"\r\n"


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def zstd(data: bytes) -> bytes:
    try:
        from compression import zstd as module
    except ImportError:
        from backports import zstd as module  # type: ignore[no-redef]
    return module.compress(data)


ENCODED = {
    "gzip": (b"gzip", gzip.compress(TEXT)),
    "GZip in capitals": (b"GZip", gzip.compress(TEXT)),
    "deflate": (b"deflate", zlib.compress(TEXT)),
    "raw deflate": (b"deflate", raw_deflate(TEXT)),
    "br": (b"br", brotli.compress(TEXT)),
    "zstd": (b"zstd", zstd(TEXT)),
    "unknown": (b"rot13", TEXT),
    "identity": (b"identity", TEXT),
    "empty gzip": (b"gzip", gzip.compress(b"")),
    "no bytes at all": (b"gzip", b""),
    "gzip in two members": (b"gzip", gzip.compress(TEXT) + gzip.compress(TEXT)),
    "gzip that is not": (b"gzip", b"this is not gzip"),
    "gzip cut short": (b"gzip", gzip.compress(TEXT)[:-12]),
    "br that is not": (b"br", b"\xff\xff\xff this is not brotli"),
    "zstd that is not": (b"zstd", b"this is not zstd"),
}

ANSWERS: dict[str, bytes] = {
    "length": with_length(b"hello"),
    "length zero": with_length(b""),
    "chunked": chunked(b"hello", b" ", b"world"),
    "chunked empty": chunked(),
    "chunked with trailers": chunked(b"hello", trailer=b"X-T: 1\r\nX-U: 2\r\n"),
    "chunked with extensions": chunked(b"hello").replace(b"5\r\n", b"5;a=b;c\r\n", 1),
    "chunked with leading zeros": chunked(b"hello").replace(b"5\r\n", b"0005\r\n", 1),
    "chunked in capitals": chunked(b"a" * 10).replace(b"\r\na\r\n", b"\r\nA\r\n", 1),
    "chunked with spaces after the size": chunked(b"hello").replace(b"5\r\n", b"5  \r\n", 1),
    "transfer encoding in capitals": chunked(b"hello").replace(b"chunked", b"Chunked"),
    "no reason": with_length(b"hello", status=b"200 "),
    "no space after the status": with_length(b"hello", status=b"200"),
    "long reason": with_length(b"hello", status=b"200 " + b"very " * 20 + b"OK"),
    "reason in utf-8": with_length(b"hello", status="200 Gut gemacht ü".encode()),
    "reason in latin-1": with_length(b"hello", status="200 ü".encode("latin-1")),
    "status 204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "status 204 with a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "status 304": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
    "status 304 with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    "status 404": with_length(b"no", status=b"404 Not Found"),
    "status 500": with_length(b"no", status=b"500 Oops"),
    "status 299": with_length(b"x", status=b"299 X"),
    "status 999": with_length(b"x", status=b"999 X"),
    "status 101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "status 101 with upgrade": b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n",
    "100 first": b"HTTP/1.1 100 Continue\r\n\r\n" + with_length(b"hello"),
    "102 and 103 first": b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + with_length(b"hello"),
    "connection close": with_length(b"hello", b"Connection: close"),
    "connection close among others": with_length(b"hello", b"Connection: foo, Close"),
    "connection keep-alive": with_length(b"hello", b"Connection: keep-alive"),
    "http 1.0": with_length(b"hello").replace(b"1.1", b"1.0"),
    "http 1.0 keep-alive": with_length(b"hello", b"Connection: keep-alive").replace(b"1.1", b"1.0"),
    "trailing space in values": with_length(b"hello", b"X-A:  a b \t "),
    "no space before values": with_length(b"hello", b"X-A:a"),
    "empty values": with_length(b"hello", b"X-A:", b"X-B: "),
    "names twice": with_length(b"hello", b"X-A: 1", b"x-a: 2", b"X-A: 1"),
    "names in lower case": with_length(b"hello", b"x-a: 1", b"server: s"),
    "a long name": with_length(b"hello", b"x-" + b"n" * 200 + b": 1"),
    "values in utf-8": with_length(b"hello", "X-A: ü".encode()),
    "values in latin-1": with_length(b"hello", "X-A: ü".encode("latin-1")),
    "odd token characters": with_length(b"hello", b"X!#$%&'*+-.^_`|~9: 1"),
    "folded value": with_length(b"hello", b"X-A: a\r\n  b\r\n\tc"),
    "control characters in values": with_length(b"hello", b"X-A: a\x01b\x7f"),
    "bare LF between fields": b"HTTP/1.1 200 OK\nContent-Length: 5\nX-A: 1\n\nhello",
    "CRLF before the status line": b"\r\n\r\n" + with_length(b"hello"),
    "two content types": with_length(b"hello", b"Content-Type: a/b", b"Content-Type: c/d"),
    "charset": with_length("grüße".encode("latin-1"), b"Content-Type: text/plain; charset=latin-1"),
    "unknown charset": with_length(b"hello", b"Content-Type: text/plain; charset=nope"),
    "json": with_length(b'{"a": 1}', b"Content-Type: application/json"),
    "json with a suffix": with_length(b'{"a": 1}', b"Content-Type: application/x+json; charset=utf-8"),
    "json of nothing": with_length(b"  ", b"Content-Type: application/json"),
    "json that is not": with_length(b"{", b"Content-Type: application/json"),
    "links": with_length(b"", b'Link: <http://a/b>; rel="next", </c>; rel=prev; title=x'),
    "disposition": with_length(b"", b'Content-Disposition: attachment; filename="a b.txt"'),
    "cookies": with_length(b"", b"Set-Cookie: a=1; Path=/", b"Set-Cookie: b=2; HttpOnly", b"set-cookie: bad cookie"),
    "keep-alive field": with_length(b"hello", b"Keep-Alive: timeout=5, max=10"),
    "transfer encoding gzip, chunked": chunked(b"hello").replace(b"chunked", b"gzip, chunked"),
    "many fields": with_length(b"hello", *(b"X-%d: %d" % (i, i) for i in range(100))),
    "surplus response": with_length(b"hello") + with_length(b"poison"),
    "surplus bytes": with_length(b"hello") + b"surplus",
    "surplus crlf": with_length(b"hello") + b"\r\n",
}

# Ended by the connection: what is sent, then how it ends.
ENDED: dict[str, list[Any]] = {
    "no framing": [Send(b"HTTP/1.1 200 OK\r\n\r\nhello"), Close()],
    "no framing, half-closed": [Send(b"HTTP/1.1 200 OK\r\n\r\nhello"), SendEof()],
    "no framing, nothing": [Send(b"HTTP/1.1 200 OK\r\n\r\n"), Close()],
    "no framing, http 1.0": [Send(b"HTTP/1.0 200 OK\r\n\r\nhello"), Close()],
    "no framing, gzip": [Send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(TEXT)), Close()],
    "transfer encoding identity": [Send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello"), Close()],
    "length short by some": [Send(with_length(b"hello")[:-2]), Close()],
    "length short by all": [Send(with_length(b"hello")[:-5]), Close()],
    "chunked cut in a chunk": [Send(chunked(b"hello")[:-10]), Close()],
    "chunked cut before the last chunk": [Send(chunked(b"hello")[:-5]), Close()],
    "chunked cut in the last chunk": [Send(chunked(b"hello")[:-2]), Close()],
    "head cut": [Send(b"HTTP/1.1 200 OK\r\nContent-Le"), Close()],
    "head cut after the fields": [Send(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n"), Close()],
    "status line cut": [Send(b"HTTP/1.1 20"), Close()],
    "nothing": [Close()],
    "nothing, reset": [Reset()],
    "interim, then nothing": [Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Close()],
    "complete, then closed": [Send(with_length(b"hello")), Close()],
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_answer(name: str, method: str) -> None:
    await compare(Case(request(method), [answer(ANSWERS[name])]))


@pytest.mark.parametrize("name", sorted(set(ANSWERS) - {"surplus bytes", "surplus response", "status 101 with upgrade"}))
async def test_answer_byte_by_byte(name: str) -> None:
    data = ANSWERS[name]
    await compare(Case(request("GET"), [answer(data, piece=1 if len(data) < 200 else 53)]))


HEADS = [name for name in ANSWERS if not name.startswith("surplus") and "101" not in name]


@pytest.mark.parametrize("name", HEADS)
async def test_answer_to_head(name: str) -> None:
    head = ANSWERS[name].replace(b"\n\nhello", b"\n\n")
    final = head.rindex(b"HTTP/1.")
    end = head.find(b"\r\n\r\n", final)
    await compare(Case(request("HEAD"), [answer(head if end < 0 else head[: end + 4])]))


@pytest.mark.parametrize("name", ENDED)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_ended_by_the_connection(name: str, method: str) -> None:
    script = [Expect(), *ENDED[name]]
    await compare(Case(request(method), [script, script]))


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("framing", ["length", "chunked", "chunked in pieces"])
@pytest.mark.parametrize("read", ["read", "any"])
async def test_content_encoding(name: str, framing: str, read: str) -> None:
    encoding, body = ENCODED[name]
    field = b"Content-Encoding: " + encoding
    if framing == "length":
        data = with_length(body, field)
    else:
        pieces = [body[i : i + 20] for i in range(0, len(body), 20)] if "pieces" in framing else [body][: len(body)]
        data = chunked(*pieces, fields=(field,))
    await compare(Case(request("GET", read=read), [answer(data)]))
    await compare(Case(request("GET", read=read, auto_decompress=False), [answer(data)]))


@pytest.mark.parametrize("read", ["read", "text", "json", "chunks", "any", "chunked", "lines", "none"])
@pytest.mark.parametrize("name", ["length", "length zero", "chunked", "json", "charset", "status 204", "status 404"])
@pytest.mark.parametrize("piece", [0, 3])
async def test_ways_to_read(read: str, name: str, piece: int) -> None:
    await compare(Case(request("GET", read=read), [answer(ANSWERS[name], piece=piece)]))


def test_split_positions_are_worth_trying() -> None:
    assert len(SPLIT) > 100


SPLIT = b"HTTP/1.1 100 C\r\n\r\n" + chunked(b"hello", b"world!", fields=(b"Set-Cookie: a=b", b"X-A: \t1 "), trailer=b"X-T: 1\r\n")


@pytest.mark.parametrize("position", range(1, len(SPLIT), 3))
async def test_answer_split_at_every_position(position: int) -> None:
    script = [Expect(), Send(SPLIT[:position]), *answer(SPLIT[position:])[1:]]
    await compare(Case(request("GET", read="chunks"), [script]))


READS: dict[str, Any] = {
    "read twice": lambda r: [r.read, r.read],
    "text, json, read": lambda r: [r.text, lambda: r.json(content_type=None), r.read],
    "read after release": lambda r: [r.release, r.read],
    "read after close": lambda r: [r.close, r.read],
    "content after read": lambda r: [r.read, r.content.read],
    "read after content": lambda r: [lambda: r.content.read(3), r.read],
    "content in pieces": lambda r: [lambda: r.content.read(2), r.content.readany, r.content.read],
    "exactly": lambda r: [lambda: r.content.readexactly(4), lambda: r.content.readexactly(4)],
    "until": lambda r: [lambda: r.content.readuntil(b"l"), r.content.readline, r.content.readchunk],
    "nowait": lambda r: [r.content.read_nowait],
    "json of a wrong type": lambda r: [r.json, lambda: r.json(content_type="text/plain")],
    "raise for status": lambda r: [r.raise_for_status, r.read],
    "wait for close": lambda r: [r.read, r.wait_for_close, lambda: r.closed],
    "closed": lambda r: [lambda: r.closed, r.read, lambda: r.closed, lambda: r.connection],
    "at eof": lambda r: [r.content.at_eof, r.read, r.content.at_eof, r.content.is_eof],
    "totals": lambda r: [r.read, lambda: r.content.total_bytes, lambda: r.content.total_raw_bytes],
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("answer_name", ["length", "json", "length zero", "chunked", "status 404"])
async def test_reads(name: str, answer_name: str) -> None:
    import inspect

    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        seen: list[Any] = []
        resp = await session.get(base)
        for step in READS[name](resp):
            try:
                value = step()
                seen.append(await value if inspect.isawaitable(value) else value)
            except Exception as exc:
                seen.append((type(exc).__name__, str(exc)))
        resp.release()
        try:
            seen.append(await resp.read())
        except Exception as exc:
            seen.append((type(exc).__name__, str(exc)))
        return seen

    await compare(Case(call, [answer(ANSWERS[answer_name])]))


@pytest.mark.parametrize("where", ["session", "request"])
@pytest.mark.parametrize("kind", ["true", "coroutine"])
@pytest.mark.parametrize("name", ["length", "status 404", "status 500"])
async def test_raise_for_status(where: str, kind: str, name: str) -> None:
    async def check(resp: aiohttp.ClientResponse) -> None:
        if not resp.ok:
            raise LookupError(await resp.text())

    value = True if kind == "true" else check
    options = {"raise_for_status": value} if where == "request" else {}
    session = {"raise_for_status": value} if where == "session" else {}
    await compare(Case(request("GET", **options), [answer(ANSWERS[name])], session=lambda m: session))
    await compare(Case(request("GET", raise_for_status=False), [answer(ANSWERS[name])], session=lambda m: session))


async def test_response_observed_after_the_session_was_closed() -> None:
    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        resp = await session.get(base)
        await resp.read()
        await session.close()
        return await observe(resp)

    await compare(Case(call, [answer(ANSWERS["json"])], follow_up=False))
