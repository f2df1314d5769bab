"""A slot of the bulkhead over real sockets: held until the response's connection is free, in whatever way."""

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from support.checks import eventually
from support.local import Exchange, LocalServer

import wirespeed
from wirespeed.policy import Bulkhead, BulkheadFull, Outcome, Policies, Retry

from .sockets import Action, Session, Sessions, Time, acting, after, clean, get, in_use, ok, stall, status

Finish = Callable[[aiohttp.ClientResponse], Awaitable[object]]


def held(bulkhead: Bulkhead) -> tuple[float, int]:
    (figures,) = bulkhead.stats().by_key.values()
    return figures.in_use, figures.waiting


def at_once(exchange: Exchange) -> None:
    exchange.respond(200, b'"body"', [("Content-Type", "application/json")])


def body_later(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n")

    def rest() -> None:
        exchange.send(b'"body"')
        exchange.finish()

    asyncio.get_running_loop().call_later(0.05, rest)


def in_chunks(exchange: Exchange) -> None:
    exchange.send(
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"\r\n'
    )

    def rest() -> None:
        exchange.send(b'5\r\nbody"\r\n0\r\n\r\n')
        exchange.finish()

    asyncio.get_running_loop().call_later(0.05, rest)


def until_the_end(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")

    def rest() -> None:
        exchange.send(b'"body"')
        exchange.connection.transport.close()

    asyncio.get_running_loop().call_later(0.05, rest)


def empty(exchange: Exchange) -> None:
    exchange.respond(204)


ANSWERS: dict[str, Action] = {
    "at once": at_once,
    "body later": body_later,
    "in chunks": in_chunks,
    "until the end": until_the_end,
}


async def read(resp: aiohttp.ClientResponse) -> None:
    assert await resp.read() == b'"body"'


async def text(resp: aiohttp.ClientResponse) -> None:
    assert await resp.text() == '"body"'


async def json(resp: aiohttp.ClientResponse) -> None:
    assert await resp.json() == "body"


async def iterate(resp: aiohttp.ClientResponse) -> None:
    assert b"".join([piece async for piece in resp.content.iter_any()]) == b'"body"'


async def read_bytewise(resp: aiohttp.ClientResponse) -> None:
    while await resp.content.read(1):
        pass


async def close(resp: aiohttp.ClientResponse) -> None:
    resp.close()


async def release(resp: aiohttp.ClientResponse) -> None:
    resp.release()


async def leave(resp: aiohttp.ClientResponse) -> None:
    async with resp:
        pass


async def fail_inside(resp: aiohttp.ClientResponse) -> None:
    with pytest.raises(KeyError):
        async with resp:
            raise KeyError


async def cancelled_while_reading(resp: aiohttp.ClientResponse) -> None:
    task = asyncio.ensure_future(resp.read())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    resp.close()


FINISHES: list[Finish] = [
    read, text, json, iterate, read_bytewise, close, release, leave, fail_inside, cancelled_while_reading,
]  # fmt: skip


@pytest.mark.parametrize("finish", FINISHES, ids=lambda finish: finish.__name__)
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_a_slot_is_held_until_the_response_is_done_with(
    kind: Sessions, answer: Action, finish: Finish
) -> None:
    bulkhead = Bulkhead(1)
    async with acting(then=answer) as server, clean(kind, bulkhead) as session:
        for _ in range(2):  # on a new connection, and on one that was used
            resp = await session.get(server.url())
            if answer is not at_once:
                assert held(bulkhead) == (1, 0)
            await finish(resp)
            await eventually(lambda: held(bulkhead) == (0, 0), "slot free")
            resp.close()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_a_slot_of_a_response_that_was_dropped_comes_back(kind: Sessions, answer: Action) -> None:
    bulkhead = Bulkhead(1)
    async with acting(then=answer) as server, clean(kind, bulkhead) as session:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            await session.get(server.url())
            gc.collect()
            await asyncio.sleep(0)
            # aiohttp's own wait for their body all the same, and keep their connection for so long.
            assert held(bulkhead) == (in_use(session), 0)
            assert kind is aiohttp.ClientSession or not wirespeed.NATIVE or not in_use(session)
            await eventually(lambda: held(bulkhead) == (0, 0), "slot free")


async def test_an_empty_answer_holds_no_slot(kind: Sessions) -> None:
    bulkhead = Bulkhead(1)
    async with acting(then=empty) as server, clean(kind, bulkhead) as session:
        resp = await session.get(server.url())
        assert held(bulkhead) == (0, 0)
        resp.close()
        async with session.head(server.url()):
            pass
        assert held(bulkhead) == (0, 0)


async def test_no_more_than_the_limit_are_at_the_server(kind: Sessions) -> None:
    bulkhead = Bulkhead(3)
    async with acting(then=after(0.005, ok)) as server, clean(kind, bulkhead) as session:
        answers = await asyncio.gather(*(get(session, server.url()) for _ in range(40)))
        assert answers == [b"ok"] * 40
        assert server.max_active == 3


async def test_slots_are_given_in_the_order_of_asking(kind: Sessions) -> None:
    bulkhead = Bulkhead(1)
    async with acting(then=after(0.002, ok)) as server, clean(kind, bulkhead) as session:
        await asyncio.gather(*(get(session, f"{server.url()}?n={n}") for n in range(20)))
        assert [exchange.query["n"] for exchange in server.exchanges] == [str(n) for n in range(20)]


async def test_an_origin_that_stalls_does_not_hold_up_another(kind: Sessions) -> None:
    bulkhead = Bulkhead(1)
    async with acting(then=stall) as slow, acting() as quick, clean(kind, bulkhead) as session:
        tasks = [asyncio.ensure_future(session.get(slow.url())) for _ in range(2)]
        await eventually(lambda: slow.held, "request at the slow server")
        for _ in range(3):
            assert await get(session, quick.url()) == b"ok"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_is_refused_was_not_sent_and_is_not_retried(kind: Sessions) -> None:
    time = Time()
    policies = Policies(retry=Retry(5), bulkhead=Bulkhead(1, max_waiting=0), clock=time, sleep=time.sleep)
    async with acting(then=stall) as server, clean(kind, policies=policies) as session:
        task = asyncio.ensure_future(session.get(server.url()))
        await eventually(lambda: server.held, "request at the server")
        with pytest.raises(BulkheadFull) as caught:
            await session.get(server.url())
        assert isinstance(caught.value, aiohttp.ClientError)
        assert caught.value.retry_history == ()  # type: ignore[attr-defined]
        assert len(server.exchanges) == 1
        assert time.slept == []
        (attempts,) = policies.stats().attempts.values()
        assert dict(attempts) == {Outcome.LOCAL: 1}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_held_while_a_retry_waits(kind: Sessions) -> None:
    bulkhead = Bulkhead(1)
    seen: list[tuple[float, int]] = []
    time = Time(lambda _: seen.append(held(bulkhead)))
    policies = Policies(retry=Retry(), bulkhead=bulkhead, clock=time, sleep=time.sleep)
    big = status(503, body=b"x" * 1_000_000)
    async with acting(status(503), big) as server, clean(kind, policies=policies) as session:
        assert await get(session, server.url()) == b"ok"
        assert seen == [(0, 0)] * 2


@pytest.mark.parametrize("total", [0.05, 0.1])
async def test_total_time_passes_while_a_request_waits_for_a_slot(kind: Sessions, total: float) -> None:
    bulkhead = Bulkhead(1)
    async with acting(then=stall) as server, clean(kind, bulkhead) as session:
        task = asyncio.ensure_future(session.get(server.url()))
        await eventually(lambda: server.held, "request at the server")
        with pytest.raises(asyncio.TimeoutError):
            await session.get(server.url(), timeout=aiohttp.ClientTimeout(total=total))
        assert held(bulkhead) == (1, 0)
        assert len(server.exchanges) == 1
        server.held[0].respond(200, b"ok")
        (await task).close()
        assert held(bulkhead) == (0, 0)


async def test_a_slot_that_is_given_in_the_moment_of_a_cancel_goes_on_to_the_next(kind: Sessions) -> None:
    bulkhead = Bulkhead(1)
    async with acting(stall, ok) as server, clean(kind, bulkhead) as session:
        first = asyncio.ensure_future(session.get(server.url()))
        await eventually(lambda: server.held, "request at the server")
        second, third = (asyncio.ensure_future(get(session, server.url())) for _ in range(2))
        await asyncio.sleep(0.01)
        assert held(bulkhead) == (1, 2)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert await asyncio.wait_for(third, 5) == b"ok"


async def test_each_hop_of_a_redirect_takes_and_frees_its_slot(kind: Sessions) -> None:
    bulkhead = Bulkhead(1)
    async with LocalServer() as server, clean(kind, bulkhead) as session:
        async with session.get(server.url("/redirect?to=/redirect%3Fto=/ok")) as resp:
            assert await resp.read() == b"ok"
        (figures,) = bulkhead.stats().by_key.values()
        assert figures.passed == 3


async def test_sessions_share_a_bulkhead(kind: Sessions) -> None:
    bulkhead = Bulkhead(2)
    async with acting(then=after(0.005, ok)) as server:
        async with clean(kind, bulkhead) as one, clean(kind, bulkhead) as other:
            sessions: list[Session] = [one, other] * 10
            await asyncio.gather(*(get(session, server.url()) for session in sessions))
        assert server.max_active == 2


async def test_an_upload_that_goes_on_after_the_answer_holds_its_slot_till_it_is_let_go(
    kind: Sessions,
) -> None:
    go_on = asyncio.Event()

    async def body() -> Any:
        yield b"first"
        await go_on.wait()
        yield b"second"

    bulkhead = Bulkhead(1)
    async with acting(then=status(413), early=True) as server, clean(kind, bulkhead) as session:
        async with session.post(server.url(), data=body()) as resp:
            assert resp.status == 413
            go_on.set()
        await eventually(lambda: held(bulkhead) == (0, 0), "slot free")
