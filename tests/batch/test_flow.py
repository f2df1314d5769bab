"""How much is under way, how far ahead the input is read, and in which order results come."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.checks import eventually

import wirespeed

from .scene import KINDS, answer_held, collected, connector, endless, scene

CONCURRENCY = 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [False, True])
async def test_concurrency_is_reached_and_not_exceeded(kind: str, ordered: bool) -> None:
    async with scene(kind) as at:
        task = asyncio.ensure_future(
            at.results(at.urls(40, "/hold"), concurrency=CONCURRENCY, ordered=ordered)
        )
        answered = 0
        while answered < 40:
            count = min(CONCURRENCY, 40 - answered)
            await eventually(lambda count=count: len(at.server.held) == count, "all places taken")
            await asyncio.sleep(0.001)
            assert len(at.server.held) <= CONCURRENCY
            # Not the eldest: in an ordered batch the others wait for it, but the places do not.
            exchange = at.server.held.pop(random.randrange(len(at.server.held)) if not ordered else 0)
            exchange.respond(200, b"x")
            answered += 1
        assert len(await task) == 40
        assert at.server.max_active == CONCURRENCY


@pytest.mark.parametrize("kind", KINDS)
async def test_connections_are_no_more_than_concurrency(kind: str) -> None:
    async with scene(kind) as at:
        results = await at.results(at.urls(200), concurrency=CONCURRENCY)
        assert len(results) == 200
        assert at.server.max_active <= CONCURRENCY
        assert len(at.server.connections) <= CONCURRENCY


@pytest.mark.parametrize("kind", KINDS)
async def test_fewer_requests_than_concurrency(kind: str) -> None:
    async with scene(kind) as at:
        task = asyncio.ensure_future(at.results(at.urls(3, "/hold"), concurrency=50))
        await eventually(lambda: len(at.server.held) == 3, "all sent")
        answer_held(at.server)
        assert [result.body for result in await task] == [b"held"] * 3


@pytest.mark.parametrize("kind", KINDS)
async def test_one_at_a_time(kind: str) -> None:
    async with scene(kind) as at:
        targets = [
            result.json()["target"] async for result in at.session.batch(at.urls(30, "/echo"), concurrency=1)
        ]
        assert targets == [f"/echo?i={i}" for i in range(30)]
        assert at.server.max_active == 1
        assert len(at.server.connections) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 2, 7])
async def test_slow_consumer_holds_back_the_input(kind: str, ordered: bool, concurrency: int) -> None:
    # What was taken and not handed over is at most twice the concurrency, at any time.
    taken: list[int] = []
    handed = 0

    async with (
        scene(kind) as at,
        at.session.batch(endless(at.url(), taken), concurrency=concurrency, ordered=ordered) as batch,
    ):
        async for _ in batch:
            handed += 1
            await eventually(
                lambda count=handed + 2 * concurrency - 1: len(at.server.exchanges) >= count, "all sent"
            )
            await asyncio.sleep(0.002)
            assert len(taken) <= handed + 2 * concurrency
            assert len(at.server.exchanges) <= handed + 2 * concurrency
            if handed == 20:
                break


@pytest.mark.parametrize("kind", KINDS)
async def test_consumer_that_stops_stops_the_intake(kind: str) -> None:
    taken: list[int] = []
    async with scene(kind) as at, at.session.batch(endless(at.url(), taken), concurrency=4) as batch:
        await anext(batch)
        await eventually(lambda: len(at.server.exchanges) >= 8, "the window is used")
        await asyncio.sleep(0.05)
        assert len(taken) <= 1 + 8
        assert len(at.server.exchanges) == len(taken)
        progress = batch.progress()
        assert progress.taken == len(taken)
        assert progress.done == progress.taken


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concurrency", [2, 100])
async def test_async_sources_are_read_at_most_64_ahead(kind: str, concurrency: int) -> None:
    taken = 0

    async def source() -> AsyncIterator[str]:
        nonlocal taken
        for url in endless(at.url("/hold")):
            taken += 1
            yield url

    async with scene(kind) as at, at.session.batch(source(), concurrency=concurrency) as batch:
        waiting = asyncio.ensure_future(anext(batch))
        await eventually(lambda: len(at.server.held) == concurrency, "all places taken")
        await asyncio.sleep(0.02)
        # One more is in the generator's hand, on its way.
        assert taken <= concurrency + 64 + 1
        handed = 0
        answer_held(at.server)
        await waiting
        handed += 1
        for _ in range(3 * concurrency):
            if not at.server.held:
                await eventually(
                    lambda count=handed: at.server.held or batch.progress().done > count, "something done"
                )
            answer_held(at.server)
            await anext(batch)
            handed += 1
            assert taken <= handed + 2 * concurrency + 64 + 1


@pytest.mark.parametrize("kind", KINDS)
async def test_one_slow_answer_does_not_hold_up_the_others(kind: str) -> None:
    async with scene(kind) as at:
        given = [at.url("/hold"), *at.urls(50)]
        indices = []
        async for result in at.session.batch(given, concurrency=2):
            indices.append(result.index)
            if len(indices) == 50:
                assert answer_held(at.server) == 1
        assert indices == [*range(1, 51), 0]


@pytest.mark.parametrize("kind", KINDS)
async def test_one_slow_answer_holds_up_an_ordered_batch_at_its_window(kind: str) -> None:
    taken: list[int] = []

    async with scene(kind) as at:
        at.server.routes["/first"] = lambda x: (
            x.connection.server.held.append(x) if x.query["i"] == "0" else x.respond()
        )
        async with at.session.batch(endless(at.url("/first"), taken), concurrency=4, ordered=True) as batch:
            waiting = asyncio.ensure_future(anext(batch))
            await eventually(lambda: len(at.server.exchanges) == 8, "the window is used")
            await asyncio.sleep(0.02)
            assert not waiting.done()
            assert len(taken) == 8
            answer_held(at.server)
            assert (await waiting).index == 0
            assert [(await anext(batch)).index for _ in range(20)] == list(range(1, 21))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concurrency", [1, 4, 50])
async def test_ordered_results(kind: str, concurrency: int) -> None:
    # Whatever the order of the answers, and of failures among them.
    chance = random.Random(7)
    async with scene(kind) as at:
        loop = asyncio.get_running_loop()
        at.server.routes["/late"] = lambda x: loop.call_later(chance.random() / 100, x.respond, 200, b"x")
        given = [
            (at.url("/late"), at.url(), "bad:", at.url("/drop"))[chance.randrange(4)] for _ in range(100)
        ]
        results = await collected(at.session.batch(given, concurrency=concurrency, ordered=True))
        assert [result.index for result in results] == list(range(100))
        assert [result.request.url for result in results] == given
        if concurrency > 1:
            unordered = await collected(at.session.batch(given, concurrency=50))
            assert sorted(result.index for result in unordered) == list(range(100))
            assert [result.index for result in unordered] != list(range(100))


@pytest.mark.parametrize("ordered", [False, True])
async def test_large_bodies_that_nobody_takes_stop_the_intake(ordered: bool) -> None:
    # Counting requests is not enough: 2 * 100 bodies of 8 MB each would be too many.
    body = b"x" * (8 * 2**20)
    async with scene() as at:
        at.server.routes["/large"] = lambda x: x.respond(200, body)
        async with at.session.batch(endless(at.url("/large")), concurrency=20, ordered=ordered) as batch:
            await anext(batch)
            await eventually(lambda: batch.progress().taken == batch.progress().done, "nothing under way")
            await asyncio.sleep(0.02)
            # 64 MB that wait, and those that were under way when it came to that.
            assert 8 <= batch.progress().taken <= 1 + 8 + 20
            before = batch.progress().taken
            for _ in range(before + 5):
                await asyncio.wait_for(anext(batch), 5)


async def test_results_that_wait_are_handed_over_without_a_turn_of_the_loop() -> None:
    async with scene() as at, at.session.batch(at.urls(8), concurrency=8) as batch:
        await anext(batch)
        await eventually(lambda: batch.progress().done == 8, "all done")
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        asyncio.get_running_loop().call_soon(turn)
        assert len([await anext(batch) for _ in range(7)]) == 7
        assert turns == 0


@pytest.mark.skipif(not wirespeed.NATIVE, reason="the core's driver")
async def test_requests_have_no_tasks(driver: str) -> None:
    loop = asyncio.get_running_loop()
    made = 0

    def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    async with scene() as at:
        await at.results(at.urls(4), concurrency=4)
        await at.is_idle()
        loop.set_task_factory(factory)
        try:
            results = await at.results(at.urls(100), concurrency=4)
        finally:
            loop.set_task_factory(None)
        assert all(result.ok for result in results)
        assert made == (0 if driver == "native" else 100)


@pytest.mark.parametrize("kind", KINDS)
async def test_two_batches_at_once_on_one_session(kind: str) -> None:
    async with scene(kind, limit=6) as at:
        loop = asyncio.get_running_loop()
        at.server.routes["/late"] = lambda x: loop.call_later(0.001, x.respond, 200, x.query["i"].encode())
        batches = [
            at.results(at.urls(60, "/late"), concurrency=5, ordered=ordered) for ordered in (False, True)
        ]
        single = [at.session.get(at.url("/ok")) for _ in range(10)]
        both, responses = await asyncio.gather(asyncio.gather(*batches), asyncio.gather(*single))
        for resp in responses:
            await resp.read()
        for results in both:
            assert [result.body for result in results] == [b"%d" % i for i in range(60)]
        assert at.server.max_active <= 6


@pytest.mark.parametrize("kind", KINDS)
async def test_batch_within_a_batch(kind: str) -> None:
    async with scene(kind, limit=4) as at:
        inner = []
        async for outer in at.session.batch(at.urls(5), concurrency=4):
            assert outer.ok
            inner += [result.body async for result in at.session.batch(at.urls(5), concurrency=4)]
        assert inner == [b"ok"] * 25


@pytest.mark.parametrize("kind", KINDS)
async def test_limit_of_the_connector_below_concurrency(kind: str) -> None:
    async with scene(kind, limit=3) as at:
        loop = asyncio.get_running_loop()
        at.server.routes["/late"] = lambda x: loop.call_later(0.002, x.respond, 200, b"late")
        results = await at.results(at.urls(40, "/late"), concurrency=20)
        assert all(result.body == b"late" for result in results)
        assert at.server.max_active == 3
        assert len(at.server.connections) == 3


@pytest.mark.parametrize("kind", KINDS)
async def test_limit_per_host(kind: str) -> None:
    async with scene(kind) as other, scene(connector=connector(kind, limit=0, limit_per_host=2)) as at:
        loop = asyncio.get_running_loop()
        for server in (at.server, other.server):
            server.routes["/late"] = lambda x: loop.call_later(0.002, x.respond, 200, b"late")
        given = [scene.url("/late") for _ in range(20) for scene in (at, other)]
        results = await at.results(given, concurrency=20)
        assert all(result.body == b"late" for result in results)
        assert at.server.max_active == other.server.max_active == 2
        assert len(at.server.exchanges) == len(other.server.exchanges) == 20


@pytest.mark.parametrize("kind", KINDS)
async def test_host_that_hangs_leaves_the_others_their_places(kind: str) -> None:
    async with scene(kind) as other, scene(connector=connector(kind, limit=0, limit_per_host=2)) as at:
        given = [at.url("/hold")] * 2 + [other.url() for _ in range(20)]
        async with at.session.batch(given, concurrency=5) as batch:
            done = [await asyncio.wait_for(anext(batch), 5) for _ in range(20)]
            assert all(result.body == b"ok" for result in done)
            assert answer_held(at.server) == 2
            assert len(await collected(batch)) == 2
