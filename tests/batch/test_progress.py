"""How far a batch says it is, and whom it tells."""

import asyncio
import dataclasses
from typing import Any

import pytest
from support.checks import eventually

from wirespeed.batch import Progress, api

from .scene import KINDS, answer_held, collected, endless, scene


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls come after 10 ms instead of 250."""
    monkeypatch.setattr(api, "PROGRESS_INTERVAL", 0.01)


def without_time(progress: Progress) -> tuple[Any, ...]:
    return dataclasses.astuple(progress)[:-1]


@pytest.mark.parametrize("kind", KINDS)
async def test_progress_of_a_batch(kind: str) -> None:
    async with scene(kind) as at:
        batch = at.session.batch([*at.urls(3), at.url("/drop"), at.url("/status?n=500")], concurrency=2)
        assert batch.progress() == Progress(total=5, taken=0, done=0, failed=0, bytes=0, elapsed=0.0)
        await collected(batch)
        progress = batch.progress()
        # A status is no failure.
        assert without_time(progress) == (5, 5, 5, 1, 3 * len(b"ok") + len(b"status"))
        assert 0 < progress.elapsed < 5


async def test_total_is_known_where_the_input_knows_it() -> None:
    async def source() -> Any:
        yield at.url()

    class Sized:
        def __len__(self) -> int:
            return 2

        def __aiter__(self) -> Any:
            return source()

    async with scene() as at:
        for given, total in (
            (at.urls(3), 3),
            (iter(at.urls(3)), None),
            (source(), None),
            (Sized(), 2),
            (set(), 0),
        ):
            batch = at.session.batch(given)
            assert batch.progress().total == total
            await collected(batch)


async def test_progress_in_the_middle() -> None:
    async with scene() as at:
        batch = at.session.batch(at.urls(10, "/hold"), concurrency=4)
        step = asyncio.ensure_future(anext(batch))
        await eventually(lambda: len(at.server.held) == 4, "all places taken")
        assert without_time(batch.progress()) == (10, 4, 0, 0, 0)
        at.server.held.pop().respond(200, b"12345")
        await step
        await eventually(lambda: len(at.server.held) == 4, "the next one sent")
        assert without_time(batch.progress()) == (10, 5, 1, 0, 5)
        await batch.aclose()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ordered", [False, True])
async def test_callback(kind: str, ordered: bool) -> None:
    told: list[Progress] = []
    async with scene(kind) as at:
        loop = asyncio.get_running_loop()
        at.server.routes["/late"] = lambda x: loop.call_later(0.01, x.respond, 200, b"late")
        batch = at.session.batch(
            at.urls(20, "/late"), concurrency=2, ordered=ordered, on_progress=told.append
        )
        await asyncio.sleep(0.03)
        assert told == []
        assert len(await collected(batch)) == 20
        assert len(told) > 4
        # The last says that all is done, and comes before the loop ends; nothing comes after it.
        assert without_time(told[-1]) == (20, 20, 20, 0, 80)
        assert [progress.done for progress in told] == sorted(progress.done for progress in told)
        assert [progress.elapsed for progress in told] == sorted(progress.elapsed for progress in told)
        assert [progress.done for progress in told].count(20) <= 2
        count = len(told)
        await asyncio.sleep(0.03)
        assert len(told) == count


async def test_callback_of_a_batch_that_is_quick() -> None:
    told: list[Progress] = []
    async with scene() as at:
        await collected(at.session.batch(at.urls(3), on_progress=told.append))
        assert [without_time(progress) for progress in told] == [(3, 3, 3, 0, 6)]
        told.clear()
        await collected(at.session.batch([], on_progress=told.append))
        assert [without_time(progress) for progress in told] == [(0, 0, 0, 0, 0)]


async def test_callback_while_nobody_asks() -> None:
    # It goes by time, not by results.
    told: list[Progress] = []
    async with scene() as at:
        batch = at.session.batch(at.urls(3, "/hold"), on_progress=told.append)
        step = asyncio.ensure_future(anext(batch))
        await eventually(lambda: len(told) >= 3, "told")
        assert told[-1].done == 0
        answer_held(at.server)
        await step
        await asyncio.sleep(0.03)
        assert told[-1].done == 3
        # Two results are still to be handed over: it is not over.
        count = len(told)
        await eventually(lambda: len(told) > count, "told again")
        await batch.aclose()


@pytest.mark.parametrize("kind", KINDS)
async def test_callback_that_raises(kind: str) -> None:
    calls = 0

    def broken(progress: Progress) -> None:
        nonlocal calls
        calls += 1
        raise KeyError("mine")

    async with scene(kind) as at:
        reported: list[Any] = []
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        at.server.routes["/late"] = lambda x: loop.call_later(0.01, x.respond, 200, b"late")
        try:
            results = await at.results(at.urls(6, "/late"), concurrency=1, on_progress=broken)
        finally:
            loop.set_exception_handler(before)
        assert [result.body for result in results] == [b"late"] * 6
        assert calls > 2
        assert len(reported) == calls
        assert all(isinstance(exc, KeyError) for exc in reported)


@pytest.mark.parametrize("how", ["break", "aclose", "raise"])
async def test_no_calls_after_the_batch_was_left(how: str) -> None:
    told: list[Progress] = []
    async with scene() as at:
        batch = at.session.batch(endless(at.url()), concurrency=2, on_progress=told.append)
        if how == "aclose":
            await anext(batch)
            await batch.aclose()
        elif how == "break":
            async for _ in batch:
                break
            del batch
        else:
            with pytest.raises(KeyError):
                await fail_in(batch)
            del batch
        await asyncio.sleep(0)
        count = len(told)
        await asyncio.sleep(0.03)
        assert len(told) == count


async def fail_in(batch: Any) -> None:
    async for _ in batch:
        raise KeyError


async def test_callback_that_ends_the_batch() -> None:
    async with scene() as at:
        closing: list[Any] = []

        def end(progress: Progress) -> None:
            if not closing:
                closing.append(asyncio.ensure_future(holder[0].aclose()))

        holder = [at.session.batch(endless(at.url("/hold")), concurrency=2, on_progress=end)]
        assert await asyncio.wait_for(collected(holder[0]), 5) == []
        await closing[0]
        holder.clear()


@pytest.mark.parametrize("error", [ValueError, None])
async def test_last_call_of_a_source_that_raises(error: Any) -> None:
    told: list[Progress] = []

    def source() -> Any:
        yield from at.urls(3)
        if error:
            raise error

    async with scene() as at:
        batch = at.session.batch(source(), concurrency=2, on_progress=told.append)
        if error:
            with pytest.raises(error):
                await collected(batch)
        else:
            await collected(batch)
        assert without_time(told[-1]) == (None, 3, 3, 0, 6)
        await asyncio.sleep(0.02)


async def test_ticks_without_the_callback() -> None:
    # `wait_for` around steps, with the callback: no result is lost there either.
    told: list[Progress] = []
    async with scene() as at:
        loop = asyncio.get_running_loop()
        at.server.routes["/late"] = lambda x: loop.call_later(0.003, x.respond, 200, x.query["i"].encode())
        batch = at.session.batch(at.urls(20, "/late"), concurrency=2, on_progress=told.append)
        seen = []
        while True:
            try:
                seen.append(int((await asyncio.wait_for(anext(batch), 0.001)).body))
            except asyncio.TimeoutError:
                continue
            except StopAsyncIteration:
                break
        assert sorted(seen) == list(range(20))
        assert told[-1].done == 20
