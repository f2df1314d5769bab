"""aiohttp-socks: connectors derived from aiohttp's that dial through a SOCKS server."""

import asyncio
import gc
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from support.local import LocalServer, client_tls, server_tls

import wirespeed

from .scene import lane, need

aiohttp_socks = need("aiohttp_socks")

LANE_DIRECT = "foreign connector"  # derived from aiohttp's own TCPConnector
LANE_INSTALLED = "express"  # derived from ours, as long as install() holds


class SocksServer:
    """SOCKS5 (RFC 1928) with or without a password (RFC 1929), CONNECT only."""

    def __init__(self, password: tuple[str, str] | None = None) -> None:
        self._password = password
        self._tasks: set[asyncio.Task[None]] = set()
        self.connects: list[tuple[str, int]] = []

    async def __aenter__(self) -> "SocksServer":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test ended
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if self._password is None:
            writer.write(b"\x05\x00")
        elif 2 not in methods:
            writer.write(b"\x05\xff")
            return
        else:
            writer.write(b"\x05\x02")
            user = await reader.readexactly((await reader.readexactly(2))[1])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            right = (user.decode(), password.decode()) == self._password
            writer.write(b"\x01" + (b"\x00" if right else b"\x01"))
            if not right:
                return
        *_, kind = await reader.readexactly(4)
        if kind == 1:
            host = str(ipaddress.ip_address(await reader.readexactly(4)))
        else:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.connects.append((host, port))
        try:
            target_reader, target = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.write(b"\x05\x05\x00\x01" + bytes(6))
            return
        writer.write(b"\x05\x00\x00\x01" + bytes(6))
        await asyncio.gather(_relay(reader, target), _relay(target_reader, writer))


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


@contextmanager
def plain() -> Iterator[tuple[Any, str]]:
    yield aiohttp.ClientSession, ""


@contextmanager
def direct() -> Iterator[tuple[Any, str]]:
    yield wirespeed.ClientSession, LANE_DIRECT


@contextmanager
def installed() -> Iterator[tuple[Any, str]]:
    with wirespeed.installed():
        yield aiohttp.ClientSession, LANE_INSTALLED


ways = pytest.mark.parametrize("way", [plain, direct, installed])


def connector(socks: SocksServer, **options: Any) -> aiohttp.TCPConnector:
    made: aiohttp.TCPConnector = aiohttp_socks.ProxyConnector.from_url(
        f"socks5://127.0.0.1:{socks.port}", **options
    )
    return made


@ways
async def test_requests_go_through_the_proxy_and_the_connection_is_kept(way: Any) -> None:
    async with LocalServer() as server, SocksServer() as socks:
        with way() as (new_session, expected):
            async with new_session(connector=connector(socks)) as session:
                with lane(session, expected):
                    for n in range(3):
                        async with session.post(server.url("/echo"), json={"n": n}) as resp:
                            assert (await resp.json())["body"] == f'{{"n": {n}}}'
                        gc.collect()  # an idle connection does not hang on what its dialling left behind
                        await asyncio.sleep(0)
                    async with session.get(server.url("/bytes?n=300000")) as resp:
                        assert len(await resp.read()) == 300000
        assert socks.connects == [("127.0.0.1", server.port)]
        assert len(server.connections) == 1


@ways
async def test_name_is_resolved_by_the_proxy(way: Any) -> None:
    async with LocalServer() as server, SocksServer() as socks:
        with way() as (new_session, _):
            url = server.url("/ok", host="only-the-proxy-knows.invalid")
            made = connector(socks, rdns=True)
            async with new_session(connector=made) as session, session.get(url) as resp:
                assert await resp.read() == b"ok"
        assert socks.connects == [("only-the-proxy-knows.invalid", server.port)]


@ways
async def test_tls_inside_the_tunnel(way: Any) -> None:
    async with LocalServer(ssl_context=server_tls()) as server, SocksServer() as socks:
        with way() as (new_session, expected):
            async with new_session(connector=connector(socks)) as session:
                with lane(session, expected):
                    for _ in range(2):
                        async with session.get(server.url("/ok", host="localhost"), ssl=client_tls()) as resp:
                            assert await resp.read() == b"ok"
                            gc.collect()


@ways
async def test_password_is_asked_for(way: Any) -> None:
    async with LocalServer() as server, SocksServer(("me", "secret")) as socks:
        with way() as (new_session, _):
            made = aiohttp_socks.ProxyConnector.from_url(f"socks5://me:secret@127.0.0.1:{socks.port}")
            async with new_session(connector=made) as session:
                await (await session.get(server.url("/ok"))).read()
            async with new_session(connector=connector(socks)) as session:
                with pytest.raises(aiohttp_socks.ProxyError):
                    await session.get(server.url("/ok"))
        assert len(server.exchanges) == 1


@ways
async def test_failures_are_the_package_s_own_and_slots_come_back(way: Any) -> None:
    async with SocksServer() as socks:
        async with LocalServer() as server:
            pass
        with way() as (new_session, _):
            async with new_session(connector=connector(socks, limit=1)) as session:
                for _ in range(3):
                    with pytest.raises(aiohttp_socks.ProxyError):
                        await session.get(server.url("/ok"))
        gone = socks.port
    with way() as (new_session, _):
        made = aiohttp_socks.ProxyConnector.from_url(f"socks5://127.0.0.1:{gone}", limit=1)
        async with new_session(connector=made) as session:
            for _ in range(3):
                with pytest.raises(aiohttp_socks.ProxyConnectionError):
                    await session.get(server.url("/ok"))


@ways
async def test_chain_of_proxies(way: Any) -> None:
    async with LocalServer() as server, SocksServer() as first, SocksServer() as second:
        urls = [f"socks5://127.0.0.1:{socks.port}" for socks in (first, second)]
        with way() as (new_session, expected):
            async with new_session(connector=aiohttp_socks.ChainProxyConnector.from_urls(urls)) as session:
                with lane(session, expected):
                    async with session.get(server.url("/ok")) as resp:
                        assert await resp.read() == b"ok"
        assert first.connects == [("127.0.0.1", second.port)]
        assert second.connects == [("127.0.0.1", server.port)]
