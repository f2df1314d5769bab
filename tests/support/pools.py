"""What tests of the pool need: dials and names that wait for a word, and every way into the pool."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

import wirespeed

from .checks import eventually
from .local import Exchange, LocalServer

needs_pool = pytest.mark.skipif(not wirespeed.NATIVE, reason="the pool is part of the native core")


async def read(session: wirespeed.ClientSession, url: str, **kwargs: Any) -> bytes:
    """A request, read whole."""
    async with session.get(url, **kwargs) as resp:
        return await resp.read()


def start(request: Awaitable[Any], name: str | None = None) -> "asyncio.Task[Any]":
    """A request in a task of its own."""

    async def run() -> Any:
        return await request

    return asyncio.get_running_loop().create_task(run(), name=name)


async def end(task: "asyncio.Task[Any]") -> BaseException | None:
    """Cancel a task and wait for its end; its exception, if it had one."""
    task.cancel()
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return result if isinstance(result, BaseException) else None


async def held(server: LocalServer, count: int) -> None:
    """Wait until `count` requests were ever held."""
    await eventually(lambda: len(server.held) >= count, f"{count} requests held at the server")


async def hold(session: aiohttp.ClientSession, server: LocalServer) -> "asyncio.Task[Any]":
    """Start a request that has a connection, and keeps it until the server is told to answer."""
    count = len(server.held)
    holder = start(read(session, server.url("/hold")))
    await held(server, count + 1)
    return holder


async def figures(connector: wirespeed.TCPConnector, **expected: Any) -> None:
    """Wait until the connector's figures are those, and fail with the ones that they are."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 5
    while True:
        stats = connector.stats()
        found = {name: getattr(stats, name) for name in expected}
        if found == expected:
            return
        assert loop.time() < deadline, f"{found} instead of {expected}"
        await asyncio.sleep(0.002)


if wirespeed.NATIVE:

    class GatedConnector(wirespeed.TCPConnector):
        """While `is_gated`, dials wait: each in `gates`, for a result (go on) or an exception (fail)."""

        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.is_gated = False
            self.gates: list[asyncio.Future[None]] = []
            self.begun = self.ended = 0

        async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
            self.begun += 1
            try:
                if self.is_gated:
                    gate = asyncio.get_running_loop().create_future()
                    self.gates.append(gate)
                    await gate
                return await super()._create_connection(req, traces, timeout)
            finally:
                self.ended += 1

        async def dials_waiting(self, count: int) -> None:
            """Wait until that many dials ever came to a gate, and none is on its way there."""
            await eventually(lambda: len(self.gates) == count, f"{count} dials at the gates")


# Every way into the pool


@dataclass(frozen=True)
class Way:
    """A way in which a request comes to the pool.

    Attributes:
        options: makes the keyword arguments of the session.
        send: sends a GET for a path of the server and reads what comes.
        is_express: whether the express lane sends it.
        is_traced: it has trace configs, and dials in its own task.
    """

    name: str
    send: Callable[[wirespeed.ClientSession, LocalServer, str], Awaitable[object]]
    options: Callable[[], dict[str, Any]] = dict
    is_express: bool = True
    is_traced: bool = False

    def __str__(self) -> str:
        return self.name


async def _plain(session: wirespeed.ClientSession, server: LocalServer, path: str) -> bytes:
    return await read(session, server.url(path))


async def _call(session: wirespeed.ClientSession, server: LocalServer, path: str) -> bytes:
    """Not plain: goes by `Call`."""
    return await read(session, server.url(path), headers={"X-More": "1"}, params={"a": "b"})


async def _upload(session: wirespeed.ClientSession, server: LocalServer, path: str) -> bytes:
    async def body() -> Any:
        yield b"part"

    async with session.post(server.url(path), data=body()) as resp:
        return await resp.read()


async def _websocket(session: wirespeed.ClientSession, server: LocalServer, path: str) -> int:
    """The server answers as to a GET: not what a websocket wants, which is none of the pool's business."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await session.ws_connect(server.url(path))
    return caught.value.status


async def _proxy(session: wirespeed.ClientSession, server: LocalServer, path: str) -> bytes:
    return await read(session, server.url(path, host="localhost"), proxy=server.url())


async def _pass_on(req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    return await handler(req)


async def _make_full(
    req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Make of a request one that the core cannot send: it goes on by aiohttp's code."""
    req.headers["Upgrade"] = "something"
    return await handler(req)


PLAIN = Way("plain", _plain)
WAYS = [
    PLAIN,
    Way("call", _call),
    Way("upload", _upload),
    Way("middleware", _plain, lambda: {"middlewares": (_pass_on,)}),
    Way("traced", _plain, lambda: {"trace_configs": [aiohttp.TraceConfig()]}, is_traced=True),
    Way("websocket", _websocket, is_express=False),
    Way("proxy", _proxy, is_express=False),
    Way("traced proxy", _proxy, lambda: {"trace_configs": [aiohttp.TraceConfig()]}, False, True),
    Way("middleware to full", _plain, lambda: {"middlewares": (_make_full,)}, is_express=True),
]
every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def respond_after(seconds: float, body: bytes = b"ok") -> Callable[[Exchange], None]:
    """A route that answers after some seconds."""

    def answer(exchange: Exchange) -> None:
        asyncio.get_running_loop().call_later(seconds, exchange.respond, 200, body)

    return answer
