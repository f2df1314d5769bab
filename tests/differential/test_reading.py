"""Reading a response: every way of taking its body, its accessors, and raise_for_status."""

import asyncio
import gc
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.outcome import Case, Do, Run, Script
from support.scripted import Close, Pieces, Send, Stall

from .tables import answer, check, chunked, get, serve, table

OK_LINE = "HTTP/1.1 200 OK"
LINES = b"first line\nsecond\r\n\nlast without end"
TEXT = answer(OK_LINE, "Content-Type: text/plain; charset=utf-8", body="текст".encode())
CHUNKS = answer(OK_LINE, "Transfer-Encoding: chunked", body=chunked(b"abc", b"defgh", b"i"), length=False)
LONG = answer(OK_LINE, body=bytes(range(256)) * 1200)

Use = Callable[[Any, Run], Awaitable[Any]]


def using(use: Use, script: Script, name: str, **more: Any) -> Case:
    """A case that opens a response and lets `use` take it."""

    async def do(run: Run) -> Any:
        resp = await run.session.get(run.url())
        try:
            return [await use(resp, run), resp.closed, resp.content.at_eof()]
        finally:
            run.see(resp.status, resp.closed)
            resp.release()

    return Case(name, do, script, **more)


async def read(resp: Any, run: Run) -> Any:
    return await resp.read()


async def read_twice(resp: Any, run: Run) -> Any:
    return [await resp.read(), await resp.read()]


async def text(resp: Any, run: Run) -> Any:
    return await resp.text()


async def read_sizes(resp: Any, run: Run) -> Any:
    return [await resp.content.read(n) for n in (0, 1, 2, 3, 1000, 5)]


async def read_minus_one(resp: Any, run: Run) -> Any:
    return [await resp.content.read(-1), await resp.content.read(), await resp.content.read(3)]


async def readline(resp: Any, run: Run) -> Any:
    return [await resp.content.readline() for _ in range(6)]


async def readuntil(resp: Any, run: Run) -> Any:
    return [await resp.content.readuntil(separator) for separator in (b"line", b"\r\n", b"zzz", b"x")]


async def iterate_lines(resp: Any, run: Run) -> Any:
    return [line async for line in resp.content]


async def iter_chunked(resp: Any, run: Run) -> Any:
    return [piece async for piece in resp.content.iter_chunked(7)]


async def iter_any_joined(resp: Any, run: Run) -> Any:
    return b"".join([piece async for piece in resp.content.iter_any()])


async def iter_chunks(resp: Any, run: Run) -> Any:
    return [pair async for pair in resp.content.iter_chunks()]


async def readchunk(resp: Any, run: Run) -> Any:
    return [await resp.content.readchunk() for _ in range(5)]


async def readexactly(resp: Any, run: Run) -> Any:
    run.see(await resp.content.readexactly(5))
    return await resp.content.readexactly(1_000_000)


async def readany(resp: Any, run: Run) -> Any:
    return [await resp.content.readany(), await resp.content.readany()]


async def read_nowait(resp: Any, run: Run) -> Any:
    await resp.content.wait_eof()
    return [resp.content.read_nowait(4), resp.content.read_nowait(), resp.content.is_eof()]


async def unread(resp: Any, run: Run) -> Any:
    await resp.content.read(3)
    return resp.content.total_bytes > 0


async def read_then_rest(resp: Any, run: Run) -> Any:
    return [await resp.content.read(3), await resp.read()]


async def read_body_then_content(resp: Any, run: Run) -> Any:
    return [await resp.read(), await resp.content.read()]


async def release_then_read(resp: Any, run: Run) -> Any:
    resp.release()
    return await resp.read()


async def close_then_read(resp: Any, run: Run) -> Any:
    resp.close()
    return await resp.read()


async def close_then_content(resp: Any, run: Run) -> Any:
    resp.close()
    return await resp.content.read()


async def read_release_read(resp: Any, run: Run) -> Any:
    run.see(await resp.read())
    resp.release()
    return await resp.read()


async def read_close_text(resp: Any, run: Run) -> Any:
    run.see(await resp.read())
    resp.close()
    return [await resp.text(), await resp.read()]


async def release_twice(resp: Any, run: Run) -> Any:
    return [resp.release() is None, resp.release() is None, resp.closed, resp.connection is None]


async def awaited_release(resp: Any, run: Run) -> Any:
    await resp.release()
    return resp.closed


async def wait_for_close(resp: Any, run: Run) -> Any:
    await resp.wait_for_close()
    return resp.closed


WAYS: list[Use] = [
    read,
    read_twice,
    text,
    read_sizes,
    read_minus_one,
    readline,
    iterate_lines,
    iter_chunked,
    iter_any_joined,
    readexactly,
    readany,
    read_nowait,
    unread,
    read_then_rest,
    read_body_then_content,
    release_then_read,
    close_then_read,
    close_then_content,
    read_release_read,
    read_close_text,
    release_twice,
    awaited_release,
    wait_for_close,
]

BODIES: dict[str, Script] = {
    "of lines": serve(answer(OK_LINE, "Content-Type: text/plain", body=LINES)),
    "that is empty": serve(answer(OK_LINE)),
    "of chunks": serve(CHUNKS),
    "until the close": serve(answer(OK_LINE, body=LINES, length=False), Close()),
    "that breaks off": serve(answer(OK_LINE, "Content-Length: 99", body=b"short", length=False), Close()),
}

WAY_CASES = [
    using(use, script, f"{use.__name__} of a body {name}")
    for use in WAYS
    for name, script in BODIES.items()
    if not (use is read_nowait and "breaks" in name)
] + [
    using(readuntil, BODIES["of lines"], "readuntil"),
    using(iter_chunks, serve(CHUNKS), "iter_chunks in one piece"),
    using(iter_chunks, serve(Pieces((CHUNKS[:60], CHUNKS[60:]), 0.01)), "iter_chunks in two pieces"),
    using(iter_chunks, serve(answer(OK_LINE, body=b"abc")), "iter_chunks of a body with length"),
    using(readchunk, serve(CHUNKS), "readchunk"),
    using(readany, serve(Pieces((TEXT[:-3], TEXT[-3:]), 0.02)), "readany of two pieces"),
    using(read, serve(LONG), "read of 300 kB"),
    using(release_twice, serve(LONG), "release of 300 kB unread", probe=False),
    using(release_twice, serve(LONG[:5000], Stall()), "release of a body still coming"),
    using(unread, serve(LONG[:5000], Stall()), "a part of a body still coming"),
]


def after_context(use: Use) -> Do:
    async def do(run: Run) -> Any:
        async with run.session.get(run.url()) as resp:
            run.see(resp.closed)
        return await use(resp, run)

    return do


AFTER_CASES = [
    Case(f"{use.__name__} after the context manager", after_context(use), serve(TEXT))
    for use in (read, text, readany, readline, release_twice)
]

TEXTS: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "utf-8": ("text/plain; charset=utf-8", "ü€".encode(), {}),
    "latin-1": ("text/plain; charset=latin-1", b"caf\xe9", {}),
    "cp1251 by name": ("text/plain; charset=windows-1251", "текст".encode("cp1251"), {}),
    "no charset": ("text/plain", "ü".encode(), {}),
    "an unknown charset": ("text/plain; charset=nope", b"abc", {}),
    "a charset that is no text": ("text/plain; charset=base64", b"YWJj", {}),
    "a charset with quotes": ('text/html; charset="UTF-16"', "ab".encode("utf-16"), {}),
    "an empty charset": ("text/html; charset=", b"abc", {}),
    "undecodable": ("text/plain; charset=utf-8", b"\xff\xfe", {}),
    "undecodable replaced": ("text/plain; charset=utf-8", b"a\xff", {"errors": "replace"}),
    "encoding given": ("text/plain; charset=utf-8", b"\xe9", {"encoding": "latin-1"}),
    "a BOM": ("text/plain; charset=utf-8", b"\xef\xbb\xbfabc", {}),
    "no content type": ("", b"abc", {}),
}


def decoded(method: str, **more: Any) -> Do:
    async def do(run: Run) -> Any:
        async with run.session.get(run.url()) as resp:
            run.see(resp.content_type, resp.charset)
            return await getattr(resp, method)(**more)

    return do


def typed(content_type: str, body: bytes) -> Script:
    lines = [f"Content-Type: {content_type}"] if content_type else []
    return serve(answer(OK_LINE, *lines, body=body))


JSONS: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "plain": ("application/json", b'{"a": [1, null]}', {}),
    "with charset": ("application/json; charset=utf-16", '{"a": 1}'.encode("utf-16"), {}),
    "suffix +json": ("application/problem+json", b"{}", {}),
    "upper case": ("Application/JSON", b"[]", {}),
    "wrong type": ("text/html", b"{}", {}),
    "no type": ("", b"{}", {}),
    "another type": ("application/jsonp", b"{}", {}),
    "any type": ("text/html", b'{"a": 1}', {"content_type": None}),
    "type given": ("text/x-json", b"{}", {"content_type": "text/x-json"}),
    "empty": ("application/json", b"", {}),
    "spaces": ("application/json", b" \r\n ", {}),
    "broken": ("application/json", b'{"a": ', {}),
    "undecodable": ("application/json", b'"\xff"', {}),
    "loads given": ("application/json", b"1.5", {"loads": repr}),
    "encoding given": ("application/json", b'"\xe9"', {"encoding": "latin-1"}),
}

DECODED_CASES = [
    Case(f"{method} {name}", decoded(method, **more), typed(kind, body))
    for method, rows in (("text", TEXTS), ("json", JSONS))
    for name, (kind, body, more) in rows.items()
]

ACCESSED = (
    "links",
    "content_disposition",
    "content_type",
    "charset",
    "content_length",
    "host",
    "ok",
    "method",
    "url_obj",
    "get_encoding",
    "output_size",
    "upload_complete",
    "cookies",
)

ACCESSOR_LINES = (
    'Link: </next?page=2>; rel="next"; title="a, b", <http://x.example/>; rel=prev',
    "Link: <no-rel>",
    "Content-Disposition: attachment; filename=\"a b.txt\"; filename*=UTF-8''%e2%82%ac.txt",
    "Content-Type: text/html; charset=latin-1; a=b",
    "Set-Cookie: a=1; Path=/x; HttpOnly",
    "Set-Cookie: b=2",
)


async def accessors(run: Run) -> Any:
    async with run.session.get(run.url("/a/b?c=d#e")) as resp:
        await resp.read()
        seen = {}
        for name in ACCESSED:
            value = getattr(resp, name)
            seen[name] = value() if name == "get_encoding" else value
        seen["upload_complete"] = await seen["upload_complete"]
        disposition = seen.pop("content_disposition")
        seen["disposition"] = [disposition.type, disposition.filename, dict(disposition.parameters)]
        return seen


async def raising(resp: Any) -> None:
    raise LookupError(f"refused {resp.status}")


async def passing(resp: Any) -> None:
    await resp.read()


def raise_later(status: str) -> Case:
    async def do(run: Run) -> Any:
        resp = await run.session.get(run.url())
        run.see(resp.ok)
        resp.raise_for_status()
        return await resp.read()

    return Case(
        f"raise_for_status() of {status}",
        do,
        serve(answer(f"HTTP/1.1 {status}", body=b"why" if status[0] != "3" else b"")),
    )


NOT_FOUND = serve(answer("HTTP/1.1 404 Not Here", "X-Why: because", body=b"detail"))

RAISE_CASES = [raise_later(status) for status in ("200 OK", "304 Not", "399 Odd", "400 Bad", "503 ")] + [
    Case("raise for the request", get(raise_for_status=True), NOT_FOUND, expect="ClientResponseError"),
    Case("raise not", get(raise_for_status=False), NOT_FOUND, session={"raise_for_status": True}, expect=404),
    Case("raise for the session", get(), NOT_FOUND, session={"raise_for_status": True}),
    Case("raise by a coroutine", get(raise_for_status=raising), NOT_FOUND, expect="LookupError"),
    Case("raise by a coroutine that passes", get(raise_for_status=passing), NOT_FOUND, expect=404),
    Case(
        "raise by the session's coroutine",
        get(),
        NOT_FOUND,
        session={"raise_for_status": raising},
        expect="LookupError",
    ),
    Case(
        "raise with 300 kB to come",
        get(raise_for_status=True),
        serve(answer("HTTP/1.1 500 E", body=b"x" * 300_000)),
        probe=False,
        expect="ClientResponseError",
    ),
]


@table(WAY_CASES + AFTER_CASES)
async def test_way_of_reading(case: Case) -> None:
    await check(case)


@table(DECODED_CASES)
async def test_text_and_json(case: Case) -> None:
    await check(case)


@table(RAISE_CASES)
async def test_raise_for_status(case: Case) -> None:
    await check(case)


async def test_accessors() -> None:
    script = serve(answer(OK_LINE, *ACCESSOR_LINES, body=b"abc"))
    outcome = await check(Case("accessors", accessors, script))
    assert outcome["result"]["ok"] is True


async def test_slow_reader_gets_every_byte_in_order() -> None:
    async def do(run: Run) -> Any:
        total, digest = 0, hashlib.sha256()
        async with run.session.get(run.url(), read_bufsize=1024) as resp:
            async for piece in resp.content.iter_chunked(50_000):
                total += len(piece)
                digest.update(piece)
                if total % 7 == 0:
                    await asyncio.sleep(0)
        return [total, digest.hexdigest()]

    body = bytes(range(251)) * 8000
    outcome = await check(Case("slow reader", do, serve(answer(OK_LINE, body=body))))
    assert outcome["result"][0] == len(body)


@pytest.mark.parametrize("end", ["abandoned", "cancelled"])
async def test_response_that_is_not_read_to_its_end(end: str) -> None:
    async def do(run: Run) -> Any:
        resp = await run.session.get(run.url())
        if end == "cancelled":
            task = asyncio.ensure_future(resp.read())
            await asyncio.sleep(0.01)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                run.see("cancelled")
            run.see(resp.closed)
        else:
            run.see(await resp.content.read(2))
        del resp
        gc.collect()
        return end

    script = serve(answer(OK_LINE, "Content-Length: 9", body=b"part", length=False), Stall())
    outcome = await check(Case(f"left {end}", do, script))
    assert outcome["probe"]["reused"] is False


async def test_closed_session_while_a_body_is_read() -> None:
    async def do(run: Run) -> Any:
        async with run.session.get(run.url()) as resp:
            await run.session.close()
            return await resp.read()

    script = serve(answer(OK_LINE, "Content-Length: 9", body=b"part", length=False), Stall())
    await check(Case("session closed", do, script, hang_after=0.3))


async def test_requests_in_parallel_do_not_mix() -> None:
    async def do(run: Run) -> Any:
        async def one(number: int) -> Any:
            async with run.session.get(run.url("/same")) as resp:
                return resp.status, await resp.read()

        return await asyncio.gather(*(one(number) for number in range(20)))

    # Who dials here takes a connection that is freed first, so there may be fewer.
    script = tuple((Send(b""),) for _ in range(20))
    await check(Case("parallel", do, script, ignore=("connections", "probe", "wire")))
