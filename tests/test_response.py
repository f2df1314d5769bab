"""What a response of the express lane offers besides its body: its connection, its upload."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest import mock

import aiohttp
import pytest
from support.checks import eventually, express_session
from support.local import LocalServer

import wirespeed

native_only = pytest.mark.skipif(not wirespeed.NATIVE, reason="aiohttp's own response does it otherwise")

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"


def output_size(resp: aiohttp.ClientResponse) -> int:
    with pytest.warns(DeprecationWarning, match="output_size"):
        return resp.output_size


def upload_complete(resp: aiohttp.ClientResponse) -> "asyncio.Future[None]":
    with pytest.warns(DeprecationWarning, match="upload_complete"):
        return resp.upload_complete


async def test_upload_attributes_follow_an_upload_that_outlasts_the_head() -> None:
    go_on = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 512
        await go_on.wait()
        yield b"y" * 512

    def serve(connection: Any, data: bytes) -> None:
        if b"POST" in data:
            connection.transport.write(HEAD)
        if data.endswith(b"0\r\n\r\n"):
            connection.transport.write(b"!")

    async with LocalServer(raw=True) as server, express_session() as session:
        server.on_data = serve
        async with session.post(server.url(), data=body()) as resp:
            before, is_sent = output_size(resp), upload_complete(resp)
            assert not is_sent.done()
            go_on.set()
            await asyncio.wait_for(is_sent, 2)
            assert await resp.read() == b"!"
            assert upload_complete(resp) is is_sent
            assert output_size(resp) >= before + 512


@native_only
async def test_closing_a_response_closes_the_connection_that_was_handed_out() -> None:
    async with LocalServer() as server, express_session() as session:
        resp = await session.get(server.url("/half"))
        protocol = resp.connection.protocol
        with mock.patch.object(protocol, "close", wraps=protocol.close) as close:
            resp.close()
        close.assert_called_once_with()
        assert resp.connection is None
        await eventually(lambda: not server.open, "connection closed")


_JSON_CASES = {
    "usual": (b"application/json", b'{"a": "\xc3\xa4"}'),
    "with a charset": (b"application/json; charset=utf-8", b'{"a": "\xc3\xa4"}'),
    "another charset": (b"application/json; charset=latin-1", b'{"a": "\xe4"}'),
    "upper case": (b"Application/JSON;Charset=UTF-8", b'{"a": "\xc3\xa4"}'),
    "more parameters": (b"application/json; profile=x; charset=latin-1", b'{"a": "\xe4"}'),
    "a subtype": (b"application/problem+json", b'{"a": "\xc3\xa4"}'),
    "nothing": (b"application/json", b""),
    "blanks": (b"application/json", b" \r\n "),
    "two types": (b"application/json\r\nContent-Type: text/plain", b"[1]"),
    "another type": (b"text/plain", b"[1]"),
    "no type": (b"", b"[1]"),
    "not JSON": (b"application/json", b"[1"),
    "not in its charset": (b"application/json", b'"\xff"'),
}


@pytest.mark.parametrize("case", _JSON_CASES)
async def test_json_is_decoded_as_aiohttp_does(case: str) -> None:
    content_type, body = _JSON_CASES[case]
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b"

    async def outcome(api: Any, url: str) -> Any:
        async with api.ClientSession() as session, session.get(url) as resp:
            try:
                return await resp.json()
            except Exception as exc:
                return type(exc), str(exc)

    def serve(connection: Any, data: bytes) -> None:
        connection.transport.write(answer % (content_type, len(body), body))

    async with LocalServer(raw=True) as server:
        server.on_data = serve
        theirs = await outcome(aiohttp, server.url("/"))
        assert await outcome(wirespeed, server.url("/")) == theirs


async def test_json_that_somebody_patched_is_the_patch() -> None:
    def serve(connection: Any, data: bytes) -> None:
        connection.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]"
        )

    async with LocalServer(raw=True) as server, wirespeed.ClientSession() as session:
        server.on_data = serve
        async with session.get(server.url("/")) as resp:
            with mock.patch.object(aiohttp.ClientResponse, "json", mock.AsyncMock(return_value="patched")):
                assert await resp.json() == "patched"
            patch = mock.patch.object(aiohttp.ClientResponse, "get_encoding", return_value="no such")
            with patch, pytest.raises(LookupError):
                await resp.json()
