"""What the tests of policies over real sockets share: a time that passes by itself while somebody sleeps, a
server that answers by a list, and what must hold of a session afterwards.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from support.checks import eventually
from support.local import Exchange, LocalServer
from support.scripted import reset

import wirespeed
from wirespeed.policy import Policies

Session = aiohttp.ClientSession
Sessions = type[aiohttp.ClientSession]
Action = Callable[[Exchange], None]

SESSIONS: dict[str, Sessions] = {"aiohttp": aiohttp.ClientSession, "wirespeed": wirespeed.ClientSession}


class Time:
    """The machine's clock, and a sleep that only moves it on.

    Args:
        during: called in each sleep, with its seconds.
    """

    def __init__(self, during: Callable[[float], object] | None = None) -> None:
        self.slept: list[float] = []
        self.offset = 0.0
        self.during = during

    def __call__(self) -> float:
        return time.monotonic() + self.offset

    async def sleep(self, seconds: float) -> None:
        if seconds:
            self.slept.append(seconds)
        if self.during is not None:
            self.during(seconds)
        self.offset += seconds
        await asyncio.sleep(0)


# What a server does with a request


def ok(exchange: Exchange) -> None:
    exchange.respond(200, b"ok")


def status(number: int, *headers: tuple[str, str], body: bytes = b"no") -> Action:
    return lambda x: x.respond(number, body, headers)


def reset_now(exchange: Exchange) -> None:
    """A reset instead of an answer."""
    if not exchange.connection.transport.is_closing():
        reset(exchange.connection.transport)
    exchange.finish()


def close_now(exchange: Exchange) -> None:
    """An orderly end of the connection instead of an answer."""
    exchange.connection.transport.close()
    exchange.finish()


def bytes_then(data: bytes, then: Action) -> Action:
    """Send something, and a moment later do something else."""

    def act(exchange: Exchange) -> None:
        exchange.send(data)
        asyncio.get_running_loop().call_later(0.01, then, exchange)

    return act


def not_http(exchange: Exchange) -> None:
    exchange.send(b"SMTP ready, what is it?\r\n\r\n")
    close_now(exchange)


def stall(exchange: Exchange) -> None:
    """Say nothing; the exchange is among the server's `held`."""
    exchange.connection.server.held.append(exchange)


def after(seconds: float, action: Action) -> Action:
    """Do something later, unless the connection is gone."""

    def act(exchange: Exchange) -> None:
        def now() -> None:
            if not exchange.connection.lost:
                action(exchange)

        asyncio.get_running_loop().call_later(seconds, now)

    return act


class Acts:
    """A route that does the one thing after the other, and then the last for ever."""

    def __init__(self, *actions: Action, then: Action = ok) -> None:
        self.actions = list(actions)
        self.then = then

    def __call__(self, exchange: Exchange) -> None:
        (self.actions.pop(0) if self.actions else self.then)(exchange)


@asynccontextmanager
async def acting(*actions: Action, then: Action = ok, early: bool = False) -> AsyncIterator[LocalServer]:
    """A server whose `/` does those things; `early` before it has read the body."""
    async with LocalServer() as server:
        (server.early_routes if early else server.routes)["/"] = Acts(*actions, then=then)
        yield server


# What must hold afterwards


def in_use(session: Session) -> int:
    """How many connections of a session are somebody's."""
    return 0 if session.connector is None else len(session.connector._acquired)


@asynccontextmanager
async def clean(
    kind: Sessions, *middlewares: Any, policies: Policies | None = None, **kwargs: Any
) -> AsyncIterator[Session]:
    """A session with middlewares that leaves nothing behind: no task, no connection in use, no slot held."""
    before = asyncio.all_tasks()
    middlewares = (*middlewares, policies) if policies is not None else middlewares
    errors: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    try:
        async with kind(middlewares=middlewares, **kwargs) as session:
            yield session
            await eventually(lambda: not in_use(session), "no connection in use")
            await eventually(lambda: asyncio.all_tasks() <= before, "no task left")
            for middleware in middlewares:
                assert_free(middleware)
        gc.collect()
        await asyncio.sleep(0)
        assert not errors, errors
    finally:
        loop.set_exception_handler(None)


def assert_free(policies: Any) -> None:
    """No slot of a bulkhead is held, and nobody waits for one."""
    for gate in getattr(policies, "parts", ()):
        if gate.name == "bulkhead":
            for figures in gate.stats().by_key.values():
                assert (figures.in_use, figures.waiting) == (0, 0), figures


async def get(session: Session, url: str, **kwargs: Any) -> bytes:
    async with session.get(url, **kwargs) as resp:
        return await resp.read()


def statuses(told: Any) -> list[int | None]:
    """The statuses of the attempts before a response, or an exception."""
    return [record.status for record in told.retry_history]
