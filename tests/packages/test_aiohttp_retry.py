"""aiohttp-retry: a client around a session; every attempt carries a `trace_request_ctx`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
from support.local import Exchange, LocalServer

import wirespeed

from .scene import lane, need

aiohttp_retry = need("aiohttp_retry")

# The package passes an option of tracing, whether the session traces or not.
LANE = "express"


@contextmanager
def plain() -> Iterator[Any]:
    yield aiohttp_retry.RetryClient


@contextmanager
def direct() -> Iterator[Any]:
    yield lambda **options: aiohttp_retry.RetryClient(wirespeed.ClientSession(), **options)


@contextmanager
def installed() -> Iterator[Any]:
    with wirespeed.installed():
        yield aiohttp_retry.RetryClient


@contextmanager
def installed_around_a_session() -> Iterator[Any]:
    with wirespeed.installed():
        yield lambda **options: aiohttp_retry.RetryClient(aiohttp.ClientSession(), **options)


ways = pytest.mark.parametrize("way", [plain, direct, installed, installed_around_a_session])


def failing(times: int, status: int = 503) -> Any:
    """A handler that fails `times` times, then answers what it was asked."""
    left = [times]

    def handler(exchange: Exchange) -> None:
        left[0] -= 1
        if left[0] >= 0:
            exchange.respond(status, b"not yet")
        else:
            exchange.respond_json(
                {"body": exchange.body.decode(), "n": len(exchange.connection.server.exchanges)}
            )

    return handler


def options(attempts: int = 4, **more: Any) -> Any:
    return aiohttp_retry.ListRetry([0.0] * attempts, **more)


@ways
async def test_attempts_until_success_on_one_connection(way: Any) -> None:
    async with LocalServer() as server:
        server.routes["/flaky"] = failing(2)
        with way() as new_client:
            async with new_client(retry_options=options()) as client:
                with lane(client._client, LANE):
                    async with client.post(server.url("/flaky"), json={"a": 1}) as resp:
                        assert await resp.json() == {"body": '{"a": 1}', "n": 3}
        assert len(server.exchanges) == 3


@ways
async def test_attempts_are_bounded(way: Any) -> None:
    async with LocalServer() as server:
        with way() as new_client:
            async with new_client(retry_options=options(3)) as client:
                async with client.get(server.url("/status?n=500")) as resp:
                    assert resp.status == 500
                with pytest.raises(aiohttp.ClientResponseError):
                    await client.get(server.url("/status?n=500"), raise_for_status=True)
        assert len(server.exchanges) == 6


@ways
async def test_failures_are_of_the_classes_that_are_retried(way: Any) -> None:
    async with LocalServer() as server:
        dropped = {"exceptions": {aiohttp.ServerDisconnectedError}}
        with way() as new_client:
            async with new_client(retry_options=options(3, **dropped)) as client:
                with pytest.raises(aiohttp.ServerDisconnectedError):
                    await client.post(server.url("/drop"))
                assert len(server.exchanges) == 3
                with pytest.raises(aiohttp.InvalidURL):
                    await client.get("http:///")
        assert len(server.exchanges) == 3


@ways
async def test_condition_on_the_body_can_read_it_first(way: Any) -> None:
    async def is_not_ready(resp: aiohttp.ClientResponse) -> bool:
        return (await resp.json())["n"] >= 3

    async with LocalServer() as server:
        server.routes["/slow"] = failing(0)
        with way() as new_client:
            retry = options(5, evaluate_response_callback=is_not_ready)
            async with new_client(retry_options=retry) as client, client.get(server.url("/slow")) as resp:
                assert (await resp.json())["n"] == 3


@ways
async def test_each_attempt_is_told_to_the_trace(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    attempts = []

    async def on_request_start(session: Any, context: Any, params: Any) -> None:
        attempts.append(context.trace_request_ctx["current_attempt"])

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(on_request_start)
    async with LocalServer() as server:
        server.routes["/flaky"] = failing(2)
        with way(), caplog.at_level(logging.DEBUG, "aiohttp_retry"):
            make = wirespeed.ClientSession if way is direct else aiohttp.ClientSession
            async with (
                aiohttp_retry.RetryClient(make(trace_configs=[trace]), retry_options=options()) as client,
                client.get(server.url("/flaky")) as resp,
            ):
                assert resp.status == 200
    assert attempts == [1, 2, 3]
    assert "Retrying after response code: 503" in caplog.text
