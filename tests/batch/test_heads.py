"""Heads of results: fields as they came, and what they say of the body."""

import pytest
from support.local import Exchange

from .scene import KINDS, scene

FIELDS = b"X-A: b\r\nSet-Cookie: c=1\r\nset-cookie: d=2\r\nX-Bytes: caf\xe9 \xc3\xa9\r\n"
HEADS = {
    "plain": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    "old": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n",
    "without a reason": b"HTTP/1.1 200 \r\nContent-Length: 2\r\n",
}


def pairs(block: bytes) -> list[tuple[str, str]]:
    assert block.endswith(b"\r\n")
    lines = block.decode("utf-8", "surrogateescape").split("\r\n")[:-1]
    return [(name.lower(), value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HEADS)
async def test_the_block_of_fields_is_the_headers(kind: str, name: str) -> None:
    async with scene(kind) as at:

        def answer(exchange: Exchange) -> None:
            exchange.send(HEADS[name] + FIELDS + b"\r\nok")
            exchange.finish()

        at.server.routes["/"] = answer
        result = await at.result(at.url("/"))
        before = result.header_block
        assert pairs(before) == [(name.lower(), value) for name, value in result.headers.items()]
        assert result.headers.getall("Set-Cookie") == ["c=1", "d=2"]  # type: ignore[attr-defined]
        assert result.headers["X-Bytes"] == "caf\udce9 é"
        # Made of the headers now.
        assert pairs(result.header_block) == pairs(before)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_failure_has_no_fields(kind: str) -> None:
    async with scene(kind) as at:
        assert (await at.result(at.url("/drop"))).header_block == b""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("charset", "text"), [("no-such", "é"), ("hex", "é"), ("latin-1", "Ã©"), ("UTF-16LE", "꧃")]
)
async def test_a_charset_that_nobody_knows_is_utf_8(kind: str, charset: str, text: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/"] = lambda exchange: exchange.respond(
            200, "é".encode(), [("Content-Type", f"text/plain; charset={charset}")]
        )
        assert (await at.result(at.url("/"))).text() == text
