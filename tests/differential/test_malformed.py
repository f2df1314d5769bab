"""Answers that break the grammar, and the limits: same error, and the connection is not reused."""

import pytest
from support.outcome import Case, Run
from support.scripted import Close, Expect, Pieces, Script, Send, Stall, by_byte

from .tables import answer, check, chunked, get, post, serve, table

OK_LINE = "HTTP/1.1 200 OK"
REST = b"Content-Length: 2\r\n\r\nok"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

STATUS_LINES: dict[str, bytes] = {
    "garbage": b"garbage\r\n",
    "binary": b"\x00\x01\x02\xff\xfe\r\n",
    "HTML": b"<html><body>502</body></html>\r\n",
    "an empty line first": b"\r\nHTTP/1.1 200 OK\r\n",
    "several empty lines first": b"\r\n\r\n\r\nHTTP/1.1 200 OK\r\n",
    "a space first": b" HTTP/1.1 200 OK\r\n",
    "a lower case protocol": b"http/1.1 200 OK\r\n",
    "another protocol": b"ICY 200 OK\r\n",
    "RTSP": b"RTSP/1.0 200 OK\r\n",
    "no version": b"HTTP 200 OK\r\n",
    "no minor version": b"HTTP/1 200 OK\r\n",
    "version 1.2": b"HTTP/1.2 200 OK\r\n",
    "version 2": b"HTTP/2 200 OK\r\n",
    "version 3.0": b"HTTP/3.0 200 OK\r\n",
    "version 11.1": b"HTTP/11.1 200 OK\r\n",
    "version of letters": b"HTTP/a.b 200 OK\r\n",
    "two spaces before the status": b"HTTP/1.1  200 OK\r\n",
    "no status": b"HTTP/1.1 OK\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n",
    "a negative status": b"HTTP/1.1 -20 OK\r\n",
    "a status of zero": b"HTTP/1.1 000 OK\r\n",
    "a status of 099": b"HTTP/1.1 099 OK\r\n",
    "a status of letters": b"HTTP/1.1 2xx OK\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\n",
    "a control byte in the reason": b"HTTP/1.1 200 O\x01K\r\n",
    "CR in the reason": b"HTTP/1.1 200 O\rK\r\n",
    "LF alone": b"HTTP/1.1 200 OK\n",
    "CR alone": b"HTTP/1.1 200 OK\r",
    "a request": b"GET / HTTP/1.1\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}

HEADERS: dict[str, bytes] = {
    "no colon": b"X-A\r\n",
    "no name": b": value\r\n",
    "space before the colon": b"X-A : 1\r\n",
    "tab before the colon": b"X-A\t: 1\r\n",
    "space within the name": b"X A: 1\r\n",
    "NUL in the name": b"X\x00A: 1\r\n",
    "NUL in the value": b"X-A: a\x00b\r\n",
    "high byte in the name": b"X-\xe9: 1\r\n",
    "parenthesis in the name": b"X(A): 1\r\n",
    "LF alone": b"X-A: 1\nX-B: 2\r\n",
    "CR within the value": b"X-A: a\rb\r\n",
    "CR CR LF": b"X-A: a\r\r\n",
    "LF CR": b"X-A: a\n\r",
    "a fold before any header": b" folded\r\n",
    "a folded Content-Length": b"X-A: 1\r\nContent-Length:\r\n 2\r\n",
    "a folded Transfer-Encoding": b"Transfer-Encoding:\r\n chunked\r\n",
    "Sec-WebSocket-Key1": b"Sec-WebSocket-Key1: x\r\n",
    "two Content-Lengths alike": b"Content-Length: 2\r\n",
    "two Content-Lengths that differ": b"Content-Length: 3\r\n",
    "a list of Content-Lengths": b"X-A: 1\r\nContent-Length: 2, 2\r\n",
    "Transfer-Encoding chunked too": b"Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding gzip too": b"Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding identity too": b"Transfer-Encoding: identity\r\n",
    "Transfer-Encoding empty too": b"Transfer-Encoding:\r\n",
}

LENGTHS = (
    "-1",
    "+2",
    "2.0",
    "0x2",
    "two",
    "",
    " ",
    "2 2",
    "2,2",
    "2;",
    '"2"',
    "1" * 30,
    "9" * 19,
    "2_0",
    "1e1",
)

ENCODINGS = (
    "chunked, chunked",
    "gzip, chunked",
    "chunked, gzip",
    "gzip",
    "identity",
    "xchunked",
    "chunked;x=y",
    " chunked ",
    "chunked,",
    "",
)

CHUNKS: dict[str, bytes] = {
    "a size of letters": b"xyz\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a plus before the size": b"+5\r\nhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a size that overflows": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a size near the limit": b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "a size of underscores": b"5_0\r\nhello\r\n0\r\n\r\n",
    "LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "nothing after the chunk": b"5\r\nhello0\r\n\r\n",
    "LF after the chunk": b"5\r\nhello\n0\r\n\r\n",
    "CR after the chunk": b"5\r\nhello\r0\r\n\r\n",
    "a longer chunk": b"5\r\nhello!\r\n0\r\n\r\n",
    "LF after the last chunk": b"5\r\nhello\r\n0\n\n",
    "a bad extension": b"5;\x00\r\nhello\r\n0\r\n\r\n",
    "LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "an unended quoted extension": b'5;a="b\r\nhello\r\n0\r\n\r\n',
    "a long extension": b"5;" + b"e" * 20_000 + b"\r\nhello\r\n0\r\n\r\n",
    "many extensions": b"5" + b";a=b" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    "a bad trailer": b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    "a long trailer": b"5\r\nhello\r\n0\r\nX-T: " + b"t" * 20_000 + b"\r\n\r\n",
    "many trailers": b"5\r\nhello\r\n0\r\n" + b"X-T: t\r\n" * 500 + b"\r\n",
    "Content-Length in a trailer": b"5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
    "bytes after the end": chunked(b"hello") + b"more",
    "a second answer after the end": chunked(b"hello") + answer(OK_LINE, body=b"second"),
}


def in_ways(name: str, data: bytes) -> list[Case]:
    """The same bytes at once, and one by one; the server closes afterwards."""
    return [
        Case(f"{name}", post(data=b"x"), serve(data, Close())),
        Case(f"{name} byte by byte", post(data=b"x"), serve(by_byte(data), Close())),
    ]


def flat(groups: object) -> list[Case]:
    return [case for group in groups for case in group]  # type: ignore[attr-defined]


STATUS_CASES = flat(in_ways(f"status line {name}", line + REST) for name, line in STATUS_LINES.items())
HEADER_CASES = flat(
    in_ways(f"header {name}", b"HTTP/1.1 200 OK\r\n" + line + REST) for name, line in HEADERS.items()
)
LENGTH_CASES = [
    Case(
        f"Content-Length {value!r:.8}",
        post(data=b"x"),
        serve(f"HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\nok".encode(), Close()),
    )
    for value in LENGTHS
]
ENCODING_CASES = [
    Case(
        f"Transfer-Encoding {value!r}",
        post(data=b"x"),
        serve(answer(OK_LINE, f"Transfer-Encoding: {value}", body=chunked(b"hi"), length=False), Close()),
    )
    for value in ENCODINGS
]
CHUNK_CASES = [
    Case(f"chunk with {name}", post(data=b"x"), serve(CHUNKED_HEAD + body, Close()))
    for name, body in CHUNKS.items()
]

LATE = {
    "a size of letters": "hang",
    "nothing after the chunk": "hang",
    "a bad trailer": "hang",
    "LF after the chunk": 200,
    "LF after the last chunk": "ClientPayloadError",
    "bytes after the end": 200,
    "a second answer after the end": 200,
}
"""What arrives after the answer was handed over. aiohttp closes the connection on a bad chunk
and tells the error to whoever reads the next head, but not to the reader of this body, who
waits for ever when there is no timeout."""

LATE_CASES = [
    Case(
        f"late chunk with {name}",
        post(data=b"x"),
        serve(Pieces((CHUNKED_HEAD, CHUNKS[name]), 0.005), Close()),
        expect=expected,
        hang_after=0.15 if expected == "hang" else 2,
    )
    for name, expected in LATE.items()
]

SECOND = answer(OK_LINE, "X-Second: 1", body=b"second")
EXTRA_CASES = [
    Case("bytes after the body", get(), serve(answer(OK_LINE, body=b"ok") + b"extra")),
    Case("a line end after the body", get(), serve(answer(OK_LINE, body=b"ok") + b"\r\n")),
    Case("two answers at once", get(), serve(answer(OK_LINE, body=b"first") + SECOND)),
    Case("half a head after the body", get(), serve(answer(OK_LINE, body=b"ok") + b"HTTP/1.1 200 OK\r\n")),
    Case("two answers apart", get(), serve(Pieces((answer(OK_LINE, body=b"first"), SECOND), 0.005))),
    Case("bytes after a 204", get(), serve(answer("HTTP/1.1 204 N", length=False) + b"x")),
    Case("bytes after an empty answer", get(), serve(answer(OK_LINE) + b"extra")),
    Case("no answer at all, then garbage to POST", post(data=b"x"), serve(b"\r\n\r\n", Close())),
    Case("garbage without an end", post(data=b"x"), serve(b"garbage", Stall()), hang_after=0.2),
    Case(
        "a head without an end", post(data=b"x"), serve(b"HTTP/1.1 200 OK\r\nX: y", Stall()), hang_after=0.2
    ),
]


def limit_script(kind: str, size: int) -> Script:
    line, header = OK_LINE.encode(), b"X-A: b"
    if kind == "reason":
        line = b"HTTP/1.1 200 " + b"r" * size
    elif kind == "value":
        header = b"X-A: " + b"v" * (size - 3)
    elif kind == "name":
        header = b"n" * (size - 1) + b": v"
    elif kind == "folded":
        header = b"X-A: " + b"\r\n ".join([b"v" * 1000] * (size // 1000))
    else:
        header = b"\r\n".join(b"X-%d: v" % number for number in range(size - 1))
    lines = (line, header) if kind == "name" else (line, "Content-Length: 2", header)
    return ((Expect(), Send(answer(*lines, body=b"ok", length=False)), Close()),)


LIMITS = [("reason", 8190), ("value", 8190), ("name", 8190), ("headers", 128)]
CUSTOM = {"max_line_size": 100, "max_field_size": 200, "max_headers": 10}
CUSTOM_LIMITS = [("reason", 100), ("value", 200), ("name", 200), ("headers", 10)]

LIMIT_CASES = [
    Case(f"limit {kind} {size + step:+d}", post(data=b"x"), limit_script(kind, size + step))
    for kind, size in LIMITS
    for step in (-1, 0, 1, 2)
]
LIMIT_CASES += [
    Case(f"{where} limit {kind} {size + step:+d}", do, limit_script(kind, size + step), session=session)
    for where, do, session in (
        ("request", post(data=b"x", **CUSTOM), {}),
        ("session", post(data=b"x"), CUSTOM),
    )
    for kind, size in CUSTOM_LIMITS
    for step in (-1, 0, 1)
]
LIMIT_CASES += [
    Case(
        "limit of a name counts the name before it",
        post(data=b"x"),
        serve(answer(OK_LINE, b"n" * 8180 + b": v", b"Second-Name: v", body=b"ok"), Close()),
        expect="ClientResponseError",
    ),
    Case("limit far above", post(data=b"x"), limit_script("value", 200_000)),
    Case("limit raised", post(data=b"x", max_field_size=300_000), limit_script("value", 200_000), expect=200),
    Case(
        "limit of headers raised",
        post(data=b"x", max_headers=2000),
        limit_script("headers", 1500),
        expect=200,
    ),
    Case("limit of a folded value", post(data=b"x"), limit_script("folded", 20_000)),
    Case(
        "limit of interim answers", post(data=b"x"), serve(b"HTTP/1.1 100 C\r\n\r\n" * 300, SECOND, Close())
    ),
]


@table(STATUS_CASES)
async def test_malformed_status_line(case: Case) -> None:
    await check(case)


@table(HEADER_CASES + LENGTH_CASES + ENCODING_CASES)
async def test_malformed_header(case: Case) -> None:
    await check(case)


@table(CHUNK_CASES + LATE_CASES)
async def test_malformed_chunk(case: Case) -> None:
    await check(case)


@table(EXTRA_CASES)
async def test_more_than_the_answer_or_less(case: Case) -> None:
    await check(case)


@table(LIMIT_CASES)
async def test_limit(case: Case) -> None:
    await check(case)


MALFORMED = {
    "status line": b"HTTP/1.1 abc OK\r\n\r\n",
    "header": b"HTTP/1.1 200 OK\r\nX A: 1\r\nContent-Length: 2\r\n\r\nok",
    "chunk": CHUNKED_HEAD + b"zz\r\nhello\r\n0\r\n\r\n",
    "lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a second answer": answer(OK_LINE, body=b"ok") + SECOND,
}


@pytest.mark.parametrize("what", sorted(MALFORMED))
async def test_connection_is_not_reused_after(what: str) -> None:
    outcome = await check(Case(f"kept open after {what}", post(data=b"x"), serve(MALFORMED[what])))
    assert outcome["probe"]["reused"] is False


async def test_malformed_body_reaches_a_reader_that_streams() -> None:
    async def do(run: Run) -> object:
        async with run.session.get(run.url()) as resp:
            run.see(resp.status, await resp.content.readany())
            run.see(await resp.content.readany())
        return "read to the end"

    script = serve(Pieces((CHUNKED_HEAD + b"5\r\nhello\r\n", b"zz\r\n"), 0.01))
    outcome = await check(Case("malformed while streaming", do, script, expect="hang", hang_after=0.15))
    assert outcome["seen"][:2] == [200, b"hello"]
