"""`retry`, `rate` and `timeout` of a batch: what is sent again, when, and what counts against whose time."""

import asyncio
import io
import itertools
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from support.checks import eventually
from support.local import Exchange, port_that_never_accepts

import wirespeed
from wirespeed.policy import RateLimit, Retry

from .scene import KINDS, Scene, collected, late, scene

FAST = {"backoff_factor": 0.0}


def flaky(at: Scene, path: str, failures: int, fail: Callable[[Exchange], object]) -> str:
    """A route that fails so often, then answers."""
    left = itertools.count()
    at.server.routes[path] = lambda x: fail(x) if next(left) < failures else x.respond(200, b"at last")  # type: ignore[func-returns-value]
    return at.url(path)


FAILURES: dict[str, Callable[[Exchange], object]] = {
    "dropped": lambda x: x.connection.transport.abort(),
    "503": lambda x: x.respond(503, b"busy"),
    "429": lambda x: x.respond(429, b"busy", [("Retry-After", "0")]),
    "body that breaks off": lambda x: (
        x.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        x.connection.transport.close(),
    ),
    "nonsense": lambda x: x.send(b"HTTQ nonsense\r\n\r\n"),
    "bad encoding": lambda x: x.respond(200, b"no gzip", [("Content-Encoding", "gzip")]),
}


# Sent again


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FAILURES)
async def test_retry(name: str, kind: str) -> None:
    async with scene(kind) as at:
        # The session has a second try of its own.
        at.session._retry_connection = False
        url = flaky(at, "/flaky", 2, FAILURES[name])
        result = await at.result(url, retry=Retry(3, **FAST))
        assert (result.body, result.error) == (b"at last", None)
        assert result.attempts == 3
        assert len(at.server.exchanges) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_retry_by_a_number(kind: str) -> None:
    async with scene(kind) as at:
        url = flaky(at, "/flaky", 1, FAILURES["503"])
        result = await at.result(url, retry=1, timeout=5)
        assert (result.body, result.attempts) == (b"at last", 2)


@pytest.mark.parametrize("kind", KINDS)
async def test_retries_have_an_end(kind: str) -> None:
    async with scene(kind) as at:
        given = [at.url("/status?n=503"), wirespeed.Request("GET", at.url("/drop")), "http://127.0.0.1:1/"]
        results = await at.results(given, retry=Retry(2, **FAST))
        assert [result.attempts for result in results] == [3, 3, 3]
        assert (results[0].status, results[0].body, results[0].error) == (503, b"status", None)
        assert isinstance(results[1].error, aiohttp.ServerDisconnectedError)
        assert isinstance(results[2].error, aiohttp.ClientConnectorError)
        assert all(not result.ok for result in results)
        again = await at.results([at.url("/status?n=503")], retry=0)
        assert again[0].attempts == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_not_sent_again(kind: str) -> None:
    async with scene(kind) as at:
        given = [
            wirespeed.Request("POST", at.url("/status?n=503"), data=b"x"),
            wirespeed.Request("POST", at.url("/drop"), data=b"x"),
            at.url("/status?n=404"),
            at.url("/ok"),
            "nonsense",
            at.url("/bytes?n=5000"),
        ]
        results = await at.results(given, retry=Retry(3, **FAST), max_body=4000)
        assert [result.attempts for result in results] == [1] * 6
        assert [result.status for result in results] == [503, None, 404, 200, None, None]
        assert len(at.server.exchanges) == 5


@pytest.mark.parametrize("kind", KINDS)
async def test_body_that_can_be_sent_again(kind: str) -> None:
    async with scene(kind) as at:
        answers = itertools.count()
        at.server.routes["/"] = lambda x: (
            x.respond(503) if next(answers) < 2 else x.respond(200, bytes(x.body))
        )
        given = wirespeed.Request("PUT", at.url("/"), data=b"the same")
        result = await at.result(given, retry=Retry(3, **FAST))
        assert (result.body, result.attempts) == (b"the same", 3)
        assert [bytes(exchange.body) for exchange in at.server.exchanges] == [b"the same"] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["generated", "file", "payload", "form", "field"])
async def test_body_that_cannot_be_sent_again(name: str, kind: str) -> None:
    async def generated() -> Any:
        yield b"once"

    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(b"once"), filename="f")
    bodies = {
        "generated": generated(),
        "file": io.BytesIO(b"once"),
        "payload": aiohttp.BytesIOPayload(io.BytesIO(b"once")),
        "form": form,
        "field": {"file": io.BytesIO(b"once")},
    }
    async with scene(kind) as at:
        at.server.routes["/"] = lambda x: x.respond(503)
        given = wirespeed.Request("PUT", at.url("/"), data=bodies[name])
        result = await at.result(given, retry=Retry(3, **FAST))
        # Not with another body, and not without.
        assert (result.status, result.attempts) == (503, 1)
        assert [b"once" in exchange.body for exchange in at.server.exchanges] == [True]


@pytest.mark.parametrize("kind", KINDS)
async def test_raise_for_status_and_retry(kind: str) -> None:
    async with scene(kind, raise_for_status=True) as at:
        url = flaky(at, "/flaky", 2, FAILURES["503"])
        results = await at.results(
            [url, at.url("/status?n=503"), at.url("/status?n=404")], retry=Retry(2, **FAST)
        )
        assert [(result.body, result.attempts) for result in results] == [(b"at last", 3), (b"", 3), (b"", 1)]
        assert [result.status for result in results] == [200, 503, 404]


@pytest.mark.parametrize("kind", KINDS)
async def test_retries_do_not_keep_others_waiting(kind: str) -> None:
    async with scene(kind) as at:
        results = await collected(
            at.session.batch(
                [at.url("/status?n=503"), *at.urls(5)],
                concurrency=2,
                retry=Retry(1, backoff_factor=0.1, random=lambda: 0.9),
            )
        )
        assert [result.index for result in results] == [1, 2, 3, 4, 5, 0]
        assert results[-1].attempts == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_one_retry_policy_for_several_batches(kind: str) -> None:
    async with scene(kind) as at:
        retry = Retry(2, **FAST)
        for _ in range(2):
            result = await at.result(at.url("/status?n=503"), retry=retry)
            assert result.attempts == 3
        figures = retry.stats()
        assert sum(figure.retries for figure in figures.by_key.values()) == 4


@pytest.mark.parametrize("kind", KINDS)
async def test_left_in_the_pause_before_a_retry(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch([at.url("/status?n=503")], retry=Retry(2, backoff_factor=30))
        step = asyncio.ensure_future(anext(batch))
        await eventually(lambda: at.server.exchanges, "sent once")
        await asyncio.sleep(0.01)
        await batch.aclose()
        with pytest.raises(StopAsyncIteration):
            await step


# Rate


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [100, RateLimit(100)])
async def test_rate(kind: str, rate: Any) -> None:
    async with scene(kind) as at:
        begun = time.perf_counter()
        results = await at.results(at.urls(21), rate=RateLimit(100) if isinstance(rate, RateLimit) else rate)
        took = time.perf_counter() - begun
        assert all(result.ok for result in results)
        # The first goes at once.
        assert 0.19 <= took < 1


@pytest.mark.parametrize("kind", KINDS)
async def test_rate_by_a_number_is_that_of_the_whole_batch(kind: str) -> None:
    async with scene(kind) as other, scene(kind) as at:
        begun = time.perf_counter()
        await at.results([*at.urls(8), *other.urls(8)], rate=100)
        assert time.perf_counter() - begun >= 0.14
        begun = time.perf_counter()
        await at.results([*at.urls(8), *other.urls(8)], rate=RateLimit(100))
        # By origin, as everywhere.
        assert 0.06 <= time.perf_counter() - begun < 0.14


@pytest.mark.parametrize("kind", KINDS)
async def test_waiting_for_the_rate_is_not_in_the_timeout(kind: str) -> None:
    async with scene(kind) as at:
        results = await at.results(at.urls(8), rate=20, timeout=0.1)
        assert [result.error for result in results] == [None] * 8


@pytest.mark.parametrize("kind", KINDS)
async def test_rate_of_every_attempt(kind: str) -> None:
    async with scene(kind) as at:
        begun = time.perf_counter()
        results = await at.results([at.url("/status?n=503")] * 3, rate=100, retry=Retry(2, **FAST))
        assert [result.attempts for result in results] == [3] * 3
        assert time.perf_counter() - begun >= 0.075


@pytest.mark.parametrize("kind", KINDS)
async def test_left_while_waiting_for_the_rate(kind: str) -> None:
    async with scene(kind) as at:
        async for result in at.session.batch(at.urls(50), rate=0.1):
            assert result.ok
            break
        await at.is_idle()
        await asyncio.sleep(0.02)
        assert len(at.server.exchanges) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_rate_refuses_what_would_wait_for_too_long(kind: str) -> None:
    async with scene(kind) as at:
        results = await at.results(at.urls(5), rate=RateLimit(1, max_delay=0.5), concurrency=1)
        assert results[0].ok
        assert all(type(result.error).__name__ == "RateExceeded" for result in results[1:])
        assert len(at.server.exchanges) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_bad_requests_with_policies(kind: str) -> None:
    async with scene(kind, base=True) as at:
        given: list[Any] = [
            "/ok",
            None,
            "ftp://x/",
            wirespeed.Request("GET", None),
            wirespeed.Request(None, "/ok"),
        ]  # type: ignore[arg-type]
        results = await at.results(given, rate=1000, retry=2)
        assert [result.ok for result in results] == [True] + [False] * 4
        assert [result.attempts for result in results] == [1] * 5


# Time


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "timeout",
    [0.1, aiohttp.ClientTimeout(total=0.1), aiohttp.ClientTimeout(sock_read=0.1)],
    ids=["number", "total", "sock_read"],
)
@pytest.mark.parametrize("path", ["/hold", "/half", "/halfhead"])
async def test_server_that_never_answers(path: str, timeout: Any, kind: str) -> None:
    async with scene(kind) as at:
        at.server.routes["/halfhead"] = lambda x: x.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        given = [at.url(path)] * 4 + [at.url()] * 4
        results = await asyncio.wait_for(at.results(given, concurrency=4, timeout=timeout), 5)
        for result in results[:4]:
            assert isinstance(result.error, asyncio.TimeoutError), result
            assert 0.08 < result.elapsed < 2
            assert not result.ok
        assert [result.body for result in results[4:]] == [b"ok"] * 4
        await eventually(lambda: len(at.server.open) <= 4, "their connections closed")


@pytest.mark.parametrize("kind", KINDS)
async def test_timeout_of_the_session(kind: str) -> None:
    async with scene(kind, timeout=aiohttp.ClientTimeout(total=0.1)) as at:
        assert isinstance((await at.result(at.url("/hold"))).error, asyncio.TimeoutError)
        at.server.routes["/late"] = late(0.15)
        assert (await at.result(at.url("/late"), timeout=5)).body == b"late"
        assert (await at.result(at.url("/late"), timeout=None)).body == b"late"


@pytest.mark.parametrize("kind", KINDS)
async def test_timeout_of_each_attempt(kind: str) -> None:
    async with scene(kind) as at:
        answers = itertools.count()
        at.server.routes["/"] = lambda x: None if next(answers) < 2 else x.respond(200, b"third")
        result = await at.result(at.url("/"), timeout=0.1, retry=Retry(3, **FAST))
        assert (result.body, result.attempts) == (b"third", 3)
        assert result.elapsed >= 0.18


@pytest.mark.parametrize("kind", KINDS)
async def test_pause_before_a_retry_is_not_in_the_timeout(kind: str) -> None:
    async with scene(kind) as at:
        url = flaky(at, "/flaky", 1, FAILURES["503"])
        result = await at.result(url, timeout=0.1, retry=Retry(1, backoff_factor=0.15, random=lambda: 0.999))
        assert (result.body, result.attempts) == (b"at last", 2)
        assert result.elapsed >= 0.14


@pytest.mark.parametrize("kind", KINDS)
async def test_waiting_for_a_turn_is_not_in_the_timeout(kind: str) -> None:
    # Of the batch: a place among `concurrency` is no part of a request.
    async with scene(kind) as at:
        at.server.routes["/late"] = late(0.03)
        results = await at.results(at.urls(10, "/late"), concurrency=1, timeout=0.15)
        assert [result.error for result in results] == [None] * 10


@pytest.mark.parametrize("kind", KINDS)
async def test_waiting_for_the_pool_is_in_the_timeout(kind: str) -> None:
    # As for single requests.
    async with scene(kind, limit=1) as at:
        results = await at.results([at.url("/hold"), *at.urls(3)], concurrency=4, timeout=0.15)
        assert isinstance(results[0].error, asyncio.TimeoutError)


@pytest.mark.parametrize("kind", KINDS)
async def test_server_that_does_not_accept(kind: str) -> None:
    async with scene(kind) as at:
        with port_that_never_accepts() as port:
            results = await at.results([f"http://127.0.0.1:{port}/"] * 3, timeout=0.1)
        for result in results:
            assert isinstance(result.error, asyncio.TimeoutError)


@pytest.mark.parametrize("kind", KINDS)
async def test_slow_consumer_costs_no_request_its_time(kind: str) -> None:
    async with scene(kind) as at:
        results = []
        async for result in at.session.batch(at.urls(6), concurrency=2, timeout=0.05):
            results.append(result)
            await asyncio.sleep(0.06)
        assert [result.error for result in results] == [None] * 6


@pytest.mark.parametrize("kind", KINDS)
async def test_large_body_that_waits_for_nobody(kind: str) -> None:
    # It is read to its end whether or not the consumer is there.
    async with (
        scene(kind) as at,
        at.session.batch([at.url("/ok"), at.url("/bytes?n=5000000")], concurrency=2, timeout=1) as batch,
    ):
        await anext(batch)
        await eventually(lambda: batch.progress().done == 2, "read")
        assert batch.progress().bytes in (5_000_002,)
