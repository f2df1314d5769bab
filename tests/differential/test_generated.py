"""Requests and answers that hypothesis makes up, whole, in pieces, and damaged."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.outcome import Case, Do, Run
from support.scripted import Close, Pieces, Step, split_at

from .conftest import LONG
from .tables import agen, answer, check, chunked, serve

pytestmark = pytest.mark.timeout(0 if LONG else 60)
searched = settings(settings.get_profile("differential"))

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=12)
VISIBLE = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=20
)
ANYTHING = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)

METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "CUSTOM"])
PATHS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20).map(lambda text: "/" + text)
NAMES = TOKEN.filter(
    lambda name: (
        name.lower() not in ("content-length", "transfer-encoding", "expect", "connection", "upgrade")
    )
)
HEADERS = st.lists(st.tuples(NAMES, VISIBLE), max_size=5)
PARAMS = st.one_of(
    st.none(),
    st.dictionaries(ANYTHING, st.one_of(ANYTHING, st.integers()), max_size=3),
    st.lists(st.tuples(ANYTHING, ANYTHING), max_size=3),
    ANYTHING,
)
COOKIES = st.one_of(st.none(), st.dictionaries(TOKEN, VISIBLE, max_size=3))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANYTHING,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANYTHING, inner, max_size=3),
    max_leaves=5,
)


def fixed(name: str) -> Callable[[Any], tuple[str, Callable[[], Any]]]:
    return lambda value: (name, lambda: value)


BODIES: st.SearchStrategy[tuple[str, Callable[[], Any]]] = st.one_of(
    st.none().map(fixed("data")),
    st.binary(max_size=60).map(fixed("data")),
    ANYTHING.map(fixed("data")),
    st.dictionaries(VISIBLE, ANYTHING, max_size=3).map(fixed("data")),
    st.lists(st.tuples(VISIBLE, ANYTHING), max_size=3).map(fixed("data")),
    JSON.map(fixed("json")),
    st.lists(st.binary(max_size=20), max_size=4).map(lambda made: ("data", lambda: agen(*made))),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "compress": st.sampled_from([True, "gzip", "deflate"]),
        "chunked": st.just(True),
        "skip_auto_headers": st.lists(st.sampled_from(["Accept", "User-Agent", "Content-Type"]), max_size=2),
        "allow_redirects": st.booleans(),
        "raise_for_status": st.booleans(),
    },
)


@st.composite
def requests(draw: st.DrawFn) -> Do:
    method, path, params, headers = draw(METHODS), draw(PATHS), draw(PARAMS), draw(HEADERS)
    (kind, make), options, cookies = draw(BODIES), draw(OPTIONS), draw(COOKIES)

    async def do(run: Run) -> Any:
        body = make()
        given_body = {} if body is None else {kind: body}
        async with run.session.request(
            method, run.url(path), params=params, headers=headers, cookies=cookies, **given_body, **options
        ) as resp:
            await resp.read()
        return resp

    return do


STATUSES = st.one_of(st.sampled_from([200, 204, 304, 404, 500]), st.integers(200, 599)).filter(
    lambda status: status not in (301, 302, 303, 307, 308)
)
ANSWER_NAMES = TOKEN.filter(
    lambda name: name.lower() not in ("content-length", "transfer-encoding", "connection", "upgrade")
)
ANSWER_HEADERS = st.lists(st.tuples(ANSWER_NAMES, VISIBLE.map(str.strip)), max_size=6)
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
}


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A valid answer; one that is framed by the close says so."""
    status, headers = draw(STATUSES), draw(ANSWER_HEADERS)
    reason = draw(st.text("abcXYZ 0129!-", max_size=12))
    coding = draw(st.sampled_from(sorted(CODINGS)))
    pieces = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    lines = [f"HTTP/1.{draw(st.sampled_from('1110'))} {status} {reason}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += [f"Content-Encoding: {coding}"] if coding else []
    body = CODINGS[coding](b"".join(pieces))
    if status in (204, 304):
        return answer(*lines, length=False)
    if framing == "chunked":
        cut = draw(st.integers(0, len(body)))
        chunks = [chunk for chunk in (body[:cut], body[cut:]) if chunk]
        return answer(*lines, "Transfer-Encoding: chunked", body=chunked(*chunks), length=False)
    if framing == "close":
        return answer(*lines, "Connection: close", body=body, length=False)
    return answer(*lines, body=body)


DAMAGE = st.sampled_from(
    [b"", b"\0", b"\r", b"\n", b"\r\n", b" ", b":", b"0", b"-", b"\xff", b"a", b"\t", b"1", b",", b"HTTP/1.1"]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid answer of which a few bytes were deleted, replaced, or inserted.

    Not a compressed one: which of two errors is told, of the coding or of what follows the body, is a race.
    """
    data = draw(answers().filter(lambda data: b"\r\nContent-Encoding: " not in data))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(DAMAGE) + data[at + draw(st.integers(0, 3)) :]
    return data


def pieced(data: bytes, offsets: list[int]) -> Pieces:
    return split_at(data, *sorted({min(offset, len(data)) for offset in offsets}))


def run_on(loop: asyncio.AbstractEventLoop, case: Case) -> None:
    loop.run_until_complete(check(case))


def plain_request(method: str = "POST", **more: Any) -> Do:
    """A request that is not tried again, and ends when the answer does not."""

    async def do(run: Run) -> Any:
        timeout = run.api.ClientTimeout(total=0.15)
        async with run.session.request(method, run.url("/g"), timeout=timeout, **more) as resp:
            await resp.read()
        return resp

    return do


@searched
@given(do=requests())
def test_request_is_sent_alike(loop: asyncio.AbstractEventLoop, do: Do) -> None:
    script = serve(answer("HTTP/1.1 204 No Content", length=False))
    run_on(loop, Case("generated request", do, script, lane=None))


@searched
@given(data=answers(), offsets=st.lists(st.integers(1, 200), max_size=4))
def test_answer_is_understood_alike(loop: asyncio.AbstractEventLoop, data: bytes, offsets: list[int]) -> None:
    last: list[Step] = [Close()] if b"\r\nConnection: close\r\n" in data else []
    run_on(loop, Case("generated answer", plain_request(), serve(pieced(data, offsets), *last)))


@searched
@given(data=damaged())
def test_damaged_answer_is_refused_alike(loop: asyncio.AbstractEventLoop, data: bytes) -> None:
    run_on(loop, Case("generated damage, then a close", plain_request(), serve(data, Close())))


@searched
@given(data=damaged())
def test_damaged_answer_spoils_its_connection_alike(loop: asyncio.AbstractEventLoop, data: bytes) -> None:
    case = Case("generated damage, kept open", plain_request(), serve(data))
    run_on(loop, replace(case, wire=False))


@searched
@given(data=damaged(), offsets=st.lists(st.integers(1, 120), min_size=1, max_size=3))
def test_damaged_answer_in_pieces_is_refused_alike(
    loop: asyncio.AbstractEventLoop, data: bytes, offsets: list[int]
) -> None:
    """A damaged body may be told to nobody by aiohttp: the timeout of the request ends the wait."""
    run_on(loop, Case("generated damage in pieces", plain_request(), serve(pieced(data, offsets), Close())))
