"""What tests of the batch share: a session with a server, of which nothing may be left at the end."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from support.checks import eventually, nothing_left
from support.local import Exchange, LocalServer

import wirespeed
from wirespeed.batch import Batch, Result

KINDS = ("express", "full")
"""Sessions with a connector of their own, and with one of aiohttp's: these are on the full lane."""


class Scene:
    """A server, and a session that may send to it.

    Args:
        server: the server.
        session: the session.
    """

    def __init__(self, server: LocalServer, session: wirespeed.ClientSession) -> None:
        self.server = server
        self.session = session

    def url(self, path: str = "/ok") -> str:
        return self.server.url(path)

    def urls(self, count: int, path: str = "/ok") -> list[str]:
        """So many URLs that can be told apart by `i`."""
        return [self.server.url(f"{path}?i={i}") for i in range(count)]

    async def results(self, requests: Any, **options: Any) -> list[Result]:
        """All results, in the order of the requests."""
        return in_order(await collected(self.session.batch(requests, **options)))

    async def result(self, request: Any, **options: Any) -> Result:
        """The result of a batch of one."""
        (result,) = await self.results([request], **options)
        return result

    async def is_idle(self) -> None:
        """Wait until no connection is in use."""
        await eventually(lambda: not slots(self.session.connector), "all slots of the pool free")


@asynccontextmanager
async def scene(
    kind: str = "express", *, base: bool = False, limit: int = 0, **options: Any
) -> AsyncIterator[Scene]:
    """A scene at whose end no slot is taken; then no task, timer or descriptor is left.

    Args:
        kind: of the session.
        base: whether the server is the session's `base_url`.
        limit: of the connector.
        options: of the session.
    """
    async with nothing_left() as watch, LocalServer() as server:
        if base:
            options["base_url"] = server.url("/")
        if "connector" not in options:
            options["connector"] = connector(kind, limit=limit)
        async with wirespeed.ClientSession(**options) as session:
            made = Scene(server, session)
            yield made
            if not session.closed:
                await made.is_idle()
            await eventually(lambda: not watch.new_tasks() - {asyncio.current_task()}, "tasks ended")


def connector(kind: str, **options: Any) -> aiohttp.TCPConnector:
    """A connector for a session of that kind."""
    return (wirespeed if kind == "express" else aiohttp).TCPConnector(**options)


def slots(connector: Any) -> int:
    """How many slots of a connector are taken or waited for."""
    if isinstance(connector, wirespeed.TCPConnector):
        stats = connector.stats()
        return stats.in_use + stats.dialling + stats.waiting
    return len(connector._acquired) + sum(map(len, connector._waiters.values()))


async def collected(batch: Batch) -> list[Result]:
    """All results, as they come."""
    return [result async for result in batch]


def in_order(results: Iterable[Result]) -> list[Result]:
    return sorted(results, key=lambda result: result.index)


def endless(url: str, taken: list[int] | None = None) -> Iterator[str]:
    """The same URL again and again; `taken` tells how often."""
    count = 0
    while True:
        if taken is not None:
            taken.append(count)
        yield f"{url}?i={count}"
        count += 1


def answer_held(server: LocalServer, body: bytes = b"held") -> int:
    """Answer all requests that wait; how many."""
    held, server.held = server.held, []
    for exchange in held:
        exchange.respond(200, body)
    return len(held)


def late(seconds: float) -> Any:
    """A route that answers after so long, if the connection is still there."""

    def answer(exchange: Exchange) -> None:
        asyncio.get_running_loop().call_later(seconds, exchange.respond, 200, b"late")

    return answer
