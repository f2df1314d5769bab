"""Answers as they come: framing, interim answers, keep-alive, header oddities, delivery."""

import pytest
from support.outcome import FULL, Case, Run
from support.scripted import Close, Expect, Pause, Pieces, Reset, Send, SendEof, Stall, by_byte, split_at

from .tables import answer, check, chunked, get, post, request, serve, table

OK_LINE = "HTTP/1.1 200 OK"
CHUNKED = "Transfer-Encoding: chunked"


def chunked_answer(*lines: str, body: bytes) -> bytes:
    return answer(OK_LINE, CHUNKED, *lines, body=body, length=False)


FRAMINGS: dict[str, tuple[object, ...]] = {
    "content-length": (answer(OK_LINE, body=b"hello"),),
    "content-length of zero": (answer(OK_LINE),),
    "content-length with spaces": (b"HTTP/1.1 200 OK\r\nContent-Length:   5  \r\n\r\nhello",),
    "content-length with leading zeros": (b"HTTP/1.1 200 OK\r\nContent-Length: 0005\r\n\r\nhello",),
    "one chunk": (chunked_answer(body=chunked(b"hello")),),
    "many chunks": (chunked_answer(body=chunked(*(b"%d;" % n for n in range(300)))),),
    "no chunks": (chunked_answer(body=chunked()),),
    "a large chunk": (chunked_answer(body=chunked(b"x" * 200_000)),),
    "upper case chunk sizes": (chunked_answer(body=b"A\r\n0123456789\r\n0\r\n\r\n"),),
    "zero padded chunk sizes": (chunked_answer(body=b"0005\r\nhello\r\n000\r\n\r\n"),),
    "chunk extensions": (chunked_answer(body=b'5;a=b;c="d"\r\nhello\r\n0;last\r\n\r\n'),),
    "space after the chunk size": (chunked_answer(body=b"5 \r\nhello\r\n0\r\n\r\n"),),
    "trailers": (chunked_answer("Trailer: X-T", body=b"5\r\nhello\r\n0\r\nX-T: 1\r\nX-U: 2\r\n\r\n"),),
    "chunked in mixed case": (
        b"HTTP/1.1 200 OK\r\nTRANSFER-encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    "closed by the server": (answer(OK_LINE, body=b"hello", length=False), Close()),
    "closed by the server, no body": (answer(OK_LINE, length=False), Close()),
    "half-closed by the server": (answer(OK_LINE, body=b"hello", length=False), SendEof()),
    "HTTP/1.0 closed": (answer("HTTP/1.0 200 OK", body=b"hello", length=False), Close()),
    "body in pieces": (answer(OK_LINE, "Content-Length: 9", length=False), Pieces((b"abc", b"def", b"ghi"))),
    "a large body": (answer(OK_LINE, body=bytes(range(256)) * 4096),),
    "a large body closed": (answer(OK_LINE, body=b"y" * 500_000, length=False), Close()),
}

FRAMING_CASES = [
    Case(f"framing {name}", get(), serve(*steps), expect=200) for name, steps in FRAMINGS.items()
]

NO_BODY_CASES = [
    Case(
        "HEAD with Content-Length",
        request("HEAD"),
        serve(answer(OK_LINE, "Content-Length: 99", length=False)),
    ),
    Case("HEAD without Content-Length", request("HEAD"), serve(answer(OK_LINE, length=False))),
    Case("HEAD of a chunked answer", request("HEAD"), serve(answer(OK_LINE, CHUNKED, length=False))),
    Case("HEAD with gzip", request("HEAD"), serve(answer(OK_LINE, "Content-Encoding: gzip"))),
    Case("HEAD answered with a body", request("HEAD"), serve(answer(OK_LINE, body=b"hello"))),
    Case("204", get(), serve(answer("HTTP/1.1 204 No Content", length=False)), expect=204),
    Case("204 with Content-Length", get(), serve(answer("HTTP/1.1 204 No Content", body=b"")), expect=204),
    Case("204 with a body", get(), serve(answer("HTTP/1.1 204 No Content", body=b"hello"))),
    Case("204 chunked", get(), serve(answer("HTTP/1.1 204 No", CHUNKED, body=chunked(b"x"), length=False))),
    Case("205 without length", get(), serve(answer("HTTP/1.1 205 Reset", length=False), Close())),
    Case("304", get(), serve(answer("HTTP/1.1 304 Not Modified", length=False)), expect=304),
    Case(
        "304 with Content-Length", get(), serve(answer("HTTP/1.1 304 N", "Content-Length: 9", length=False))
    ),
    Case("304 with ETag", get(), serve(answer("HTTP/1.1 304 N", 'ETag: "x"', length=False)), expect=304),
    Case("no length and kept open", get(), serve(answer(OK_LINE, length=False), Stall()), hang_after=0.15),
    Case(
        "read_until_eof off",
        get(read_until_eof=False),
        serve(answer(OK_LINE, length=False)),
        expect=200,
        lane=FULL,
    ),
    Case(
        "read_until_eof off with a body",
        get(read_until_eof=False),
        serve(answer(OK_LINE, body=b"tail", length=False), Close()),
        lane=FULL,
    ),
]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
FINAL = answer(OK_LINE, "X-Final: 1", body=b"done")

INTERIM: dict[str, tuple[object, ...]] = {
    "100": (CONTINUE + FINAL,),
    "100 apart": (Pieces((CONTINUE, FINAL)),),
    "102": (PROCESSING + FINAL,),
    "103": (HINTS + FINAL,),
    "103 apart": (Pieces((HINTS, FINAL)),),
    "several": (CONTINUE + PROCESSING + HINTS + HINTS + FINAL,),
    "several apart": (Pieces((CONTINUE, PROCESSING, HINTS, FINAL)),),
    "byte by byte": (by_byte(CONTINUE + HINTS + FINAL),),
    "then chunked": (CONTINUE + chunked_answer(body=chunked(b"a", b"b")),),
    "then a close": (CONTINUE, Close()),
    "an unknown one": (b"HTTP/1.1 199 Odd\r\n\r\n" + FINAL,),
    "with Content-Length": (b"HTTP/1.1 103 Hints\r\nContent-Length: 0\r\n\r\n" + FINAL,),
    "101 not asked for": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Close()),
}

INTERIM_CASES = [
    Case(f"interim {name} to {method}", request(method), serve(*steps))
    for name, steps in INTERIM.items()
    for method in ("GET", "POST")
]

KEEP_ALIVE: dict[str, tuple[str, ...]] = {
    "HTTP/1.1": (OK_LINE,),
    "HTTP/1.1 close": (OK_LINE, "Connection: close"),
    "HTTP/1.1 CLOSE": (OK_LINE, "connection: CLOSE"),
    "HTTP/1.1 keep-alive": (OK_LINE, "Connection: keep-alive", "Keep-Alive: timeout=5, max=100"),
    "HTTP/1.1 close among others": (OK_LINE, "Connection: foo, close"),
    "HTTP/1.1 close twice": (OK_LINE, "Connection: keep-alive", "Connection: close"),
    "HTTP/1.1 unknown token": (OK_LINE, "Connection: foo"),
    "HTTP/1.1 proxy-connection close": (OK_LINE, "Proxy-Connection: close"),
    "HTTP/1.1 upgrade offered": (OK_LINE, "Connection: upgrade", "Upgrade: h2c"),
    "HTTP/1.0": ("HTTP/1.0 200 OK",),
    "HTTP/1.0 keep-alive": ("HTTP/1.0 200 OK", "Connection: keep-alive"),
    "HTTP/1.0 Keep-Alive": ("HTTP/1.0 200 OK", "Connection: Keep-Alive"),
    "HTTP/1.0 close": ("HTTP/1.0 200 OK", "Connection: close"),
    "HTTP/2.0": ("HTTP/2.0 200 OK",),
    "HTTP/0.9": ("HTTP/0.9 200 OK",),
    "keep-alive timeout of zero": (OK_LINE, "Connection: keep-alive", "Keep-Alive: timeout=0"),
}

KEEP_ALIVE_CASES = [
    Case(f"keep-alive {name}", get(), serve(answer(*lines, body=b"ka"))) for name, lines in KEEP_ALIVE.items()
] + [
    Case(
        f"keep-alive error status {status}", post(data=b"x"), serve(answer(f"HTTP/1.1 {status} E", body=b"e"))
    )
    for status in (400, 404, 413, 500, 503)
]

STATUS_LINES: dict[str, bytes] = {
    "no reason": b"HTTP/1.1 200 ",
    "no reason, no space": b"HTTP/1.1 200",
    "long reason": b"HTTP/1.1 200 " + b"r" * 4000,
    "reason with spaces": b"HTTP/1.1 200  All   is well ",
    "utf-8 reason": "HTTP/1.1 200 Gefällt".encode(),
    "latin-1 reason": "HTTP/1.1 200 Gefällt".encode("latin-1"),
    "status 299": b"HTTP/1.1 299 Odd",
    "status 600": b"HTTP/1.1 600 High",
    "status 999": b"HTTP/1.1 999 Denied",
    "a tab before the reason": b"HTTP/1.1 200\tOK",
}

STATUS_CASES = [
    Case(f"status line {name}", get(), serve(answer(line))) for name, line in STATUS_LINES.items()
]

HEADERS: dict[str, tuple[bytes, ...]] = {
    "no space after the colon": (b"X-A:1",),
    "trailing whitespace": (b"X-A: 1 \t ",),
    "leading whitespace": (b"X-A: \t  1",),
    "empty value": (b"X-A:", b"X-B: "),
    "duplicates": (b"X-A: 1", b"x-a: 2", b"X-A: 3"),
    "lower case": (b"content-type: text/plain", b"server: x"),
    "odd case": (b"cOnTeNt-TyPe: text/plain; charset=utf-8",),
    "utf-8 value": ("X-U: ü€".encode(),),
    "latin-1 value": (b"X-L: caf\xe9",),
    "all high bytes": (b"X-H: " + bytes(range(128, 256)),),
    "control bytes in a value": (b"X-C: a\x01b\x1fc",),
    "delete byte in a value": (b"X-C: a\x7fb",),
    "tab in a value": (b"X-T: a\tb",),
    "token names": (b"!#$%&'*+-.^_`|~09az: 1",),
    "a long name": (b"X-" + b"n" * 4000 + b": 1",),
    "a long value": (b"X-V: " + b"v" * 8000,),
    "a folded value": (b"X-F: one\r\n two\r\n\tthree",),
    "a folded empty value": (b"X-F:\r\n value",),
    "a fold that is empty": (b"X-F: one\r\n \r\n two",),
    "hundred headers": tuple(b"X-%d: %d" % (n, n) for n in range(100)),
    "colons in a value": (b"X-A: b: c: d",),
    "date and server": (b"Date: Tue, 15 Nov 1994 08:12:31 GMT", b"Server: a/1 (b)"),
    "two content types": (b"Content-Type: a/b", b"Content-Type: c/d"),
    "content type with a quoted charset": (b'Content-Type: text/html; charset="latin-1"',),
    "a bad content type": (b"Content-Type: ;;/",),
    "bad content disposition": (b"Content-Disposition: attachment; filename=\xff",),
}

HEADER_CASES = [
    Case(f"header {name}", get(), serve(answer(OK_LINE, *lines, body=b"hd")))
    for name, lines in HEADERS.items()
]

RACE = ("answer", "error", "wire")
"""A close right after the accept is seen as a reset or as an end, as the request is sooner or later."""

BROKEN: dict[str, tuple[object, ...]] = {
    "nothing, closed": (Close(),),
    "nothing, reset": (Reset(),),
    "half a status line": (b"HTTP/1.1 20", Close()),
    "a status line alone": (b"HTTP/1.1 200 OK\r\n", Close()),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", Close()),
    "a head without its end": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Close()),
    "half a head, reset": (b"HTTP/1.1 200 OK\r\nContent-Le", Pause(0.01), Reset()),
    "half a body": (answer(OK_LINE, "Content-Length: 9", body=b"abc", length=False), Close()),
    "half a body, reset": (
        answer(OK_LINE, "Content-Length: 9", body=b"abc", length=False),
        Pause(0.01),
        Reset(),
    ),
    "no byte of a body": (answer(OK_LINE, "Content-Length: 9", length=False), Close()),
    "half a chunk": (chunked_answer(body=b"5\r\nhel"), Close()),
    "half a chunk, reset": (chunked_answer(body=b"5\r\nhel"), Pause(0.01), Reset()),
    "half a chunk size": (chunked_answer(body=b"5\r\nhello\r\n1"), Close()),
    "no last chunk": (chunked_answer(body=b"5\r\nhello\r\n"), Close()),
    "no end of trailers": (chunked_answer(body=b"5\r\nhello\r\n0\r\nX-T: 1"), Close()),
    "no last line end": (chunked_answer(body=b"5\r\nhello\r\n0\r\n"), Close()),
    "a body until close, reset": (answer(OK_LINE, body=b"abc", length=False), Pause(0.01), Reset()),
    "a complete answer, closed": (answer(OK_LINE, body=b"abc"), Close()),
    "a complete chunked answer, closed": (chunked_answer(body=chunked(b"abc")), Close()),
    "a complete answer, reset": (answer(OK_LINE, body=b"abc"), Pause(0.01), Reset()),
}

BROKEN_CASES = [
    Case(f"broken {name} to {method}", request(method), serve(*steps))
    for name, steps in BROKEN.items()
    for method in ("GET", "POST")
] + [
    Case("broken twice", get(), (*serve(Close()), *serve(Close())), expect="ServerDisconnectedError"),
    Case("broken reset twice", get(), (*serve(Reset()), *serve(Reset())), expect="ClientOSError"),
    Case("broken after accept", get(), ((Close(),), (Close(),)), ignore=RACE),
    Case("broken after accept to POST", post(data=b"x"), ((Close(),),), ignore=RACE),
    Case(
        "broken over TLS", post(ssl=False), serve(Close()), scheme="https", expect="ServerDisconnectedError"
    ),
    Case(
        "broken half a body over TLS",
        get(ssl=False),
        serve(answer(OK_LINE, "Content-Length: 9", body=b"abc", length=False), Close()),
        scheme="https",
        expect="ClientPayloadError",
    ),
    Case(
        "broken half a body aborted over TLS",
        get(ssl=False),
        serve(answer(OK_LINE, body=b"abc", length=False), Pause(0.01), Reset()),
        scheme="https",
    ),
]

SMALL = answer(OK_LINE, "X-A: b", body=b"small")
SMALL_CHUNKED = chunked_answer("X-A: b", body=b"3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: 1\r\n\r\n")


@table(FRAMING_CASES + NO_BODY_CASES)
async def test_framing(case: Case) -> None:
    await check(case)


@table(INTERIM_CASES)
async def test_interim_answers(case: Case) -> None:
    await check(case)


@table(KEEP_ALIVE_CASES)
async def test_keep_alive_decision(case: Case) -> None:
    await check(case)


@table(STATUS_CASES + HEADER_CASES)
async def test_status_line_and_headers(case: Case) -> None:
    await check(case)


@table(BROKEN_CASES)
async def test_answer_that_breaks_off(case: Case) -> None:
    await check(case)


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_answer_split_at_each_offset(framing: str) -> None:
    data = SMALL if framing == "content-length" else SMALL_CHUNKED
    everything = tuple((Expect(), split_at(data, offset)) for offset in range(1, len(data)))

    async def do(run: Run) -> object:
        bodies = []
        for _ in everything:
            async with run.session.get(run.url()) as resp:
                bodies.append((resp.status, list(resp.headers.items()), resp.raw_headers, await resp.read()))
        return bodies

    script = (tuple(step for steps in everything for step in steps),)
    outcome = await check(Case(f"split {framing}", do, script))
    assert len(outcome["result"]) == len(data) - 1
    assert len({str(body) for body in outcome["result"]}) == 1


@pytest.mark.parametrize("framing", ["content-length", "chunked", "closed"])
async def test_answer_byte_by_byte(framing: str) -> None:
    script = {
        "content-length": serve(by_byte(SMALL)),
        "chunked": serve(by_byte(SMALL_CHUNKED)),
        "closed": serve(by_byte(answer(OK_LINE, body=b"small", length=False)), Close()),
    }[framing]
    outcome = await check(Case(f"byte by byte {framing}", get(), script, expect=200))
    assert outcome["result"]["body"] in (b"small", b"abcde")


async def test_answer_split_into_three_at_random_looking_offsets() -> None:
    offsets = [(n * 7 % 20 + 1, n * 13 % 60 + 22) for n in range(40)]
    steps = [(Expect(), split_at(SMALL_CHUNKED, *pair)) for pair in offsets]

    async def do(run: Run) -> object:
        return [(await get()(run)).status for _ in steps]

    await check(Case("split in three", do, (tuple(step for pair in steps for step in pair),)))


async def test_answer_sent_before_the_request_is_taken_for_its_answer() -> None:
    early = ((Send(answer(OK_LINE, body=b"early")), Expect()),)
    outcome = await check(Case("answer before the request", get(), early, expect=200))
    assert outcome["result"]["body"] == b"early"
