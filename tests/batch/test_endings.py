"""Every way in which a batch ends, or is left: nothing is under way afterwards, nothing is lost before."""

import asyncio
import gc
import random
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.checks import eventually
from support.names import Names

import wirespeed
from wirespeed.batch import Batch

from .scene import KINDS, Scene, answer_held, collected, connector, endless, scene

PATHS = ["/ok", "/hold", "/half", "/endless", "/drop", "/late", "/redirect?to=/ok", "/redirect?to=/hold"]
"""Answers that are there, to come, half there, without end, and broken."""


def prepare(at: Scene) -> None:
    loop = asyncio.get_running_loop()
    at.server.routes["/late"] = lambda x: loop.call_later(0.003, x.respond, 200, b"late")


def mixed(at: Scene) -> Any:
    while True:
        for path in PATHS:
            yield at.url(path)
        yield "bad:"


async def settled(at: Scene) -> None:
    """Nothing of a batch is left: no slot, and no request comes any more."""
    await at.is_idle()
    await asyncio.sleep(0.01)  # what was on its way is at the server
    before = len(at.server.exchanges)
    await asyncio.sleep(0.01)
    assert len(at.server.exchanges) == before
    async with at.session.get(at.url()) as resp:
        assert await resp.read() == b"ok"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("count", [1, 2, 9])
async def test_break(kind: str, ordered: bool, count: int) -> None:
    async with scene(kind) as at:
        prepare(at)
        seen = 0
        paths = mixed(at) if not ordered else endless(at.url("/late"))
        async for _ in at.session.batch(paths, concurrency=20, ordered=ordered):
            seen += 1
            if seen == count:
                break
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_exception_in_the_body_of_the_loop(kind: str) -> None:
    async with scene(kind) as at:
        prepare(at)

        async def run() -> None:
            async for _ in at.session.batch(mixed(at), concurrency=10):
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await run()
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_async_with_ends_it(kind: str) -> None:
    async with scene(kind) as at:
        prepare(at)
        async with at.session.batch(mixed(at), concurrency=10) as batch:
            assert isinstance(batch, Batch)
            await anext(batch)
        with pytest.raises(StopAsyncIteration):
            await anext(batch)
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_aclose(kind: str) -> None:
    async with scene(kind) as at:
        prepare(at)
        batch = at.session.batch(mixed(at), concurrency=10)
        await anext(batch)
        await batch.aclose()
        # At once, not some time later.
        current = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not current]
        assert [task for task in others if "wirespeed" in repr(task.get_coro())] == []
        await batch.aclose()
        assert await collected(batch) == []
        await settled(at)


async def test_aclose_before_the_first_step() -> None:
    async with scene() as at:
        batch = at.session.batch(mixed(at))
        await batch.aclose()
        assert await collected(batch) == []
        assert at.server.exchanges == []
        batch = at.session.batch(mixed(at))
        async with batch:
            pass
        assert await collected(batch) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_aclose_after_the_end(kind: str) -> None:
    async with scene(kind) as at:
        async with at.session.batch(at.urls(3)) as batch:
            assert len(await collected(batch)) == 3
        await batch.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_aclose_while_somebody_waits(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch(endless(at.url("/hold")), concurrency=3)
        waiting = asyncio.ensure_future(collected(batch))
        await eventually(lambda: len(at.server.held) == 3, "all sent")
        await batch.aclose()
        assert await asyncio.wait_for(waiting, 5) == []
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_aclose_by_several_at_once(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch(mixed(at), concurrency=10)
        await anext(batch)
        await asyncio.gather(*(batch.aclose() for _ in range(3)))
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_aclose_that_is_cancelled(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch(mixed(at), concurrency=10)
        await anext(batch)
        closing = asyncio.ensure_future(batch.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await batch.aclose()
        await settled(at)


async def test_never_iterated() -> None:
    async def source() -> AsyncIterator[str]:
        yield at.url()

    async with scene() as at:
        at.session.batch(at.urls(3))
        at.session.batch(source(), on_progress=print, rate=5, retry=3)
        step = anext(at.session.batch(at.urls(3)))
        step.close()  # type: ignore[attr-defined]
        gc.collect()
        await asyncio.sleep(0)
        assert at.server.connections == []


@pytest.mark.parametrize("kind", KINDS)
async def test_dropped_while_its_source_waits(kind: str) -> None:
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            yield at.url()
            await asyncio.get_running_loop().create_future()
        finally:
            closed.append(True)

    async with scene(kind) as at:
        async for _ in at.session.batch(source()):
            break
        await eventually(lambda: closed, "the source closed")
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_dropped_while_its_source_has_too_much(kind: str) -> None:
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            for url in endless(at.url("/hold")):
                yield url
        finally:
            closed.append(True)

    async with scene(kind) as at:
        batch = at.session.batch(source(), concurrency=2)
        waiting = asyncio.ensure_future(anext(batch))
        await eventually(lambda: len(at.server.held) == 2, "all sent")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        del batch, waiting
        await eventually(lambda: closed, "the source closed")
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_dropped_without_a_collection(kind: str) -> None:
    async with scene(kind) as at:
        gc.collect()
        gc.disable()
        try:
            async for _ in at.session.batch(endless(at.url("/echo")), concurrency=4):
                break
            await at.is_idle()
            await asyncio.sleep(0.01)
            before = len(at.server.exchanges)
            await asyncio.sleep(0.01)
            assert len(at.server.exchanges) == before
        finally:
            gc.enable()


@pytest.mark.parametrize("kind", KINDS)
async def test_dropped_on_another_thread(kind: str) -> None:
    async with scene(kind) as at:
        held = [at.session.batch(endless(at.url("/hold")), concurrency=3)]
        step = asyncio.ensure_future(anext(held[0]))
        await eventually(lambda: len(at.server.held) == 3, "all sent")
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        del step
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_consumer_is_cancelled(kind: str) -> None:
    # At every point that it waits at: what comes of the batch is the same.
    async with scene(kind) as at:
        prepare(at)
        chance = random.Random(3)
        for _ in range(25):
            running = asyncio.ensure_future(collected(at.session.batch(mixed(at), concurrency=7)))
            for _ in range(chance.randrange(30)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                await asyncio.sleep(0.004)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            del running
            at.server.held.clear()
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
async def test_closed_at_every_point(kind: str, is_async: bool) -> None:
    async with scene(kind) as at:
        prepare(at)

        async def source() -> AsyncIterator[str]:
            for url in mixed(at):
                yield url
                await asyncio.sleep(0)

        for turns in range(30):
            batch = at.session.batch(source() if is_async else mixed(at), concurrency=4)
            step = asyncio.ensure_future(anext(batch))
            for _ in range(turns):
                await asyncio.sleep(0)
            await batch.aclose()
            await asyncio.gather(step, return_exceptions=True)
            assert await collected(batch) == []
            at.server.held.clear()
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("delay", [0.0, 0.0005])
async def test_closed_at_every_point_of_dialling(kind: str, delay: float) -> None:
    # By names, which are asked for in Python; more requests than the pool has places for.
    options = {"resolver": Names(delay=delay), "limit": 2, "use_dns_cache": False}
    async with scene(connector=connector(kind, **options)) as at:
        url = f"http://name.test:{at.server.port}"
        gone = await refused_port()

        def source() -> Any:
            while True:
                yield f"{url}/echo"
                yield f"http://name.test:{gone}/"
                yield f"{url}/drop"

        for turns in range(60):
            batch = at.session.batch(source(), concurrency=6)
            step = asyncio.ensure_future(anext(batch))
            for _ in range(turns % 30):
                await asyncio.sleep(0)
            if turns >= 30:
                await step
            await batch.aclose()
            await asyncio.gather(step, return_exceptions=True)
            await at.is_idle()
        await settled(at)


async def refused_port() -> int:
    """A port where nobody listens."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_step_loses_no_result(kind: str) -> None:
    async with scene(kind) as at:
        loop = asyncio.get_running_loop()
        at.server.routes["/late"] = lambda x: loop.call_later(0.001, x.respond, 200, x.query["i"].encode())
        batch = at.session.batch(at.urls(60, "/late"), concurrency=3)
        bodies = []
        chance = random.Random(5)
        while True:
            try:
                result = await asyncio.wait_for(anext(batch), chance.choice([0, 0.0005, 0.001, 0.002]))
            except asyncio.TimeoutError:
                continue
            except StopAsyncIteration:
                break
            bodies.append(int(result.body))
        assert sorted(bodies) == list(range(60))


@pytest.mark.parametrize("kind", KINDS)
async def test_step_cancelled_in_the_turn_of_its_result(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch(at.urls(10, "/hold"), concurrency=1)
        indices = []
        while len(indices) < 10:
            step = asyncio.ensure_future(anext(batch))
            await eventually(lambda: at.server.held, "sent")
            answer_held(at.server)
            done = batch.progress().done
            for _ in range(1000):
                if batch.progress().done > done or step.done():
                    break
                await asyncio.sleep(0)
            # The result is there, and its waiter is woken.
            step.cancel()
            (got,) = await asyncio.gather(step, return_exceptions=True)
            if isinstance(got, BaseException):
                got = await anext(batch)
            indices.append(got.index)
        assert indices == list(range(10))
        assert await collected(batch) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_several_consumers_at_once_are_refused(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch(at.urls(3, "/hold"), concurrency=3)
        first = asyncio.ensure_future(anext(batch))
        await eventually(lambda: len(at.server.held) == 3, "all sent")
        with pytest.raises(RuntimeError, match="another coroutine"):
            await anext(batch)
        assert not first.done()
        answer_held(at.server)
        indices = {(await first).index} | {result.index for result in await collected(batch)}
        assert indices == {0, 1, 2}


@pytest.mark.parametrize("kind", KINDS)
async def test_consumers_in_turn_share_the_results(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch(at.urls(20), concurrency=4)
        lock = asyncio.Lock()
        indices: list[int] = []

        async def consume() -> None:
            while True:
                async with lock:
                    try:
                        result = await anext(batch)
                    except StopAsyncIteration:
                        return
                indices.append(result.index)
                await asyncio.sleep(0)

        await asyncio.gather(*(consume() for _ in range(3)))
        assert sorted(indices) == list(range(20))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/hold", "/half", "/ok", "/late"])
async def test_session_closed_in_the_middle(kind: str, path: str) -> None:
    # Those under way fail; then the batch says why there are no more.
    if path == "/half" and (kind == "full" or not wirespeed.NATIVE):
        pytest.skip("aiohttp's connector leaves who reads a body waiting")
    async with scene(kind) as at:
        prepare(at)
        batch = at.session.batch(endless(at.url(path)), concurrency=3)
        if path in ("/hold", "/half"):
            step = asyncio.ensure_future(anext(batch))
            await eventually(lambda: len(at.server.held) == 3, "all sent")
            await asyncio.sleep(0.005)
        else:
            await anext(batch)
            step = asyncio.ensure_future(anext(batch))
        await at.session.close()
        taken = batch.progress().taken
        results = []

        async def rest() -> None:
            results.append(await step)
            async for result in batch:
                results.append(result)

        with pytest.raises(RuntimeError, match="Session is closed"):
            await asyncio.wait_for(rest(), 5)
        if path in ("/hold", "/half"):
            assert 3 <= len(results) <= 6  # some were begun while it was closing
            assert all(result.error is not None for result in results)
        assert batch.progress().taken <= taken + 3
        with pytest.raises(StopAsyncIteration):
            await anext(batch)


async def test_session_closed_before_the_first_step() -> None:
    async with scene() as at:
        batch = at.session.batch(endless(at.url()), concurrency=5)
        await at.session.close()
        results = []

        async def consume() -> None:
            async for result in batch:
                results.append(result)

        with pytest.raises(RuntimeError, match="Session is closed"):
            await asyncio.wait_for(consume(), 5)
        # The one that found it closed.
        assert ["Session is closed"] * len(results) == [str(result.error) for result in results]
        assert len(results) <= 1
        assert at.server.connections == []


@pytest.mark.parametrize("kind", KINDS)
async def test_session_closed_after_the_last_request(kind: str) -> None:
    # Nothing more was to be sent: all results are there.
    async with scene(kind) as at:
        batch = at.session.batch(at.urls(4), concurrency=4)
        first = await anext(batch)
        await eventually(lambda: batch.progress().done == 4, "all done")
        await at.session.close()
        results = [first, *await asyncio.wait_for(collected(batch), 5)]
        assert [result.ok for result in results] == [True] * 4


@pytest.mark.parametrize("kind", KINDS)
async def test_session_closed_by_its_own_consumer(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch(at.urls(50), concurrency=2)

        async def consume() -> None:
            async for _ in batch:
                await at.session.close()

        with pytest.raises(RuntimeError, match="Session is closed"):
            await asyncio.wait_for(consume(), 5)


async def test_source_that_closes_the_batch() -> None:
    async def source() -> AsyncIterator[str]:
        yield at.url()
        await holder[0].aclose()
        yield at.url()

    async with scene() as at:
        holder = [at.session.batch(source())]
        ended = await asyncio.wait_for(asyncio.gather(collected(holder[0]), return_exceptions=True), 5)
        assert isinstance(ended[0], (list, RuntimeError))
        holder.clear()
        await settled(at)


async def test_source_that_ends_the_batch_in_its_step() -> None:
    # Synchronously, in the middle of the intake.
    def source() -> Any:
        yield at.url("/hold")
        yield at.url("/hold")
        closing.append(asyncio.ensure_future(holder[0].aclose()))
        closing[0].get_loop()
        yield at.url("/hold")

    async with scene() as at:
        closing: list[Any] = []
        holder = [at.session.batch(source(), concurrency=5)]
        assert await asyncio.wait_for(collected(holder[0]), 5) == []
        await closing[0]
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_loop_ends_with_a_batch_in_its_middle(kind: str) -> None:
    # As in a program that forgets about it. In a thread: a loop of its own.
    async with scene(kind) as at:
        url = at.url("/late")
        prepare(at)
        kept: list[Any] = []
        reported: list[Any] = []

        async def program() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            async with wirespeed.ClientSession() as session:
                batch = session.batch(endless(url), concurrency=3)
                assert (await anext(batch)).ok
                kept.append(batch)

        await asyncio.get_running_loop().run_in_executor(None, asyncio.run, program())
        # Its loop is closed.
        kept.clear()
        gc.collect()
        assert reported == []


async def test_not_of_this_loop() -> None:
    """A batch that is dropped outside of any loop, whose own is still to be used."""
    async with scene() as at:
        batch: list[Any] = [at.session.batch(endless(at.url("/hold")), concurrency=2)]
        step = asyncio.ensure_future(anext(batch[0]))
        await eventually(lambda: len(at.server.held) == 2, "all sent")
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
        del step
        await asyncio.get_running_loop().run_in_executor(None, batch.clear)
        await settled(at)


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelled_request_of_a_batch_is_a_result(kind: str) -> None:
    # Somebody else cancels: a middleware that gives up. The batch goes on.
    async def give_up(req: Any, handler: Any) -> Any:
        if req.url.path == "/given-up":
            raise asyncio.CancelledError
        return await handler(req)

    async with scene(kind, middlewares=(give_up,)) as at:
        results = await at.results([at.url(), at.url("/given-up"), at.url()], concurrency=1)
        assert [result.ok for result in results] == [True, False, True]
        assert isinstance(results[1].error, asyncio.CancelledError)
