"""What a batch takes: iterables of every kind, what is in them, and what goes wrong with them."""

import asyncio
import collections
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from support.checks import eventually
from yarl import URL

import wirespeed

from .scene import KINDS, Scene, collected, endless, scene

COUNT = 7


class AsyncIterable:
    """Of the kind that is no generator: it has no `aclose`."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __aiter__(self) -> AsyncIterator[Any]:
        return AsyncItems(iter(self.items))


class AsyncItems:
    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items

    def __aiter__(self) -> "AsyncItems":
        return self

    async def __anext__(self) -> Any:
        await asyncio.sleep(0)
        for item in self.items:
            return item
        raise StopAsyncIteration


class Sequence:
    """Of the old kind: indexed until it raises."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


async def agen(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def slow_agen(items: list[Any]) -> AsyncIterator[Any]:
    for item in items:
        await asyncio.sleep(0.001)
        yield item


SOURCES: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "deque": collections.deque,
    "iterator": iter,
    "generator": lambda items: (item for item in items),
    "map": lambda items: map(str, items),
    "keys of a dict": dict.fromkeys,
    "iterable": Sequence,
    "async generator": agen,
    "slow async generator": slow_agen,
    "async iterable": AsyncIterable,
    "async iterator": lambda items: AsyncItems(iter(items)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("concurrency", [1, 3, 100])
async def test_every_kind_of_source(source: str, kind: str, concurrency: int) -> None:
    async with scene(kind) as at:
        at.server.routes["/i"] = lambda x: x.respond(200, x.query["i"].encode())
        results = await collected(
            at.session.batch(SOURCES[source](at.urls(COUNT, "/i")), concurrency=concurrency)
        )
        assert sorted((result.index, result.body) for result in results) == [
            (i, b"%d" % i) for i in range(COUNT)
        ]
        assert len(at.server.exchanges) == COUNT


@pytest.mark.parametrize("source", SOURCES)
async def test_empty_source(source: str) -> None:
    async with scene() as at:
        batch = at.session.batch(SOURCES[source]([]))
        assert await collected(batch) == []
        assert await collected(batch) == []
        assert at.server.connections == []


async def test_urls_and_requests_mixed() -> None:
    async with scene() as at:
        url = at.url("/echo")
        given = [
            url,
            URL(url),
            wirespeed.Request("GET", url, id="third"),
            wirespeed.Request(
                "post", URL(url), params={"a": "b c"}, headers={"X-One": "1"}, json={"n": 1}, id=4
            ),
            wirespeed.Request("PUT", url, data=b"body"),
            wirespeed.Request("DELETE", url, params=[("k", "1"), ("k", "2")]),
            wirespeed.Request("POST", url, data={"field": "value"}),
        ]
        results = await at.results(given)
        seen = [result.json() for result in results]
        methods = [entry["method"] for entry in seen]
        assert methods == ["GET", "GET", "GET", "POST", "PUT", "DELETE", "POST"]
        assert seen[3]["target"] == "/echo?a=b+c"
        assert seen[3]["body"] == '{"n": 1}'
        assert ["X-One", "1"] in seen[3]["headers"]
        assert ["Content-Type", "application/json"] in seen[3]["headers"]
        assert seen[4]["body"] == "body"
        assert seen[5]["target"] == "/echo?k=1&k=2"
        assert seen[6]["body"] == "field=value"
        for result, item in zip(results, given, strict=True):
            if isinstance(item, wirespeed.Request):
                assert result.request is item
            else:
                assert result.request == wirespeed.Request("GET", item)
        assert [result.request.id for result in results] == [None, None, "third", 4, None, None, None]


@pytest.mark.parametrize("kind", KINDS)
async def test_relative_urls(kind: str) -> None:
    async with scene(kind, base=True) as at:
        results = await at.results(["/ok", URL("ok"), wirespeed.Request("GET", "/ok?x=1"), at.url("/ok")])
        assert [result.body for result in results] == [b"ok"] * 4
        assert [exchange.target for exchange in at.server.exchanges].count("/ok") == 3
        assert results[2].url == URL(at.url("/ok?x=1"))


BAD: dict[str, tuple[Any, Any]] = {
    "None": (None, TypeError),
    "a number": (5, TypeError),
    "bytes": (b"http://127.0.0.1/", TypeError),
    "a dict": ({"method": "GET", "url": "http://127.0.0.1/"}, TypeError),
    "a tuple": (("GET", "http://127.0.0.1/"), TypeError),
    "no URL": ("", aiohttp.InvalidURL),
    "relative without base": ("/path", aiohttp.InvalidURL),
    "no host": ("http:///path", aiohttp.InvalidURL),
    "bad port": ("http://127.0.0.1:99999/", aiohttp.InvalidURL),
    "unknown scheme": ("ftp://127.0.0.1/", aiohttp.NonHttpUrlClientError),
    "mailto": ("mailto:a@b.c", aiohttp.NonHttpUrlClientError),
    "a method that is none": (wirespeed.Request("GE T", "http://127.0.0.1:1/"), ValueError),
    "a method that is no text": (wirespeed.Request(None, "http://127.0.0.1:1/"), AttributeError),  # type: ignore[arg-type]
    "a URL that is none": (wirespeed.Request("GET", None), Exception),  # type: ignore[arg-type]
    "json and data": (wirespeed.Request("POST", "http://127.0.0.1:1/", json=1, data=b"1"), ValueError),
    "json that is none": (wirespeed.Request("POST", "http://127.0.0.1:1/", json=object()), TypeError),
    "headers with a line end": (
        wirespeed.Request("GET", "http://127.0.0.1:1/", headers={"A": "b\r\nC: d"}),
        # aiohttp connects first.
        (ValueError, aiohttp.ClientConnectorError),
    ),
    "params that are none": (wirespeed.Request("GET", "http://127.0.0.1:1/", params={"a": None}), TypeError),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_no_request_is_an_error_of_its_own(kind: str) -> None:
    async with scene(kind) as at:
        given: list[Any] = []
        for item, _ in BAD.values():
            given += [at.url(), item]
        results = await at.results([*given, at.url()], concurrency=3)
        assert len(results) == len(given) + 1
        assert all(result.body == b"ok" for result in results[::2])
        for result, (name, (item, error)) in zip(results[1::2], BAD.items(), strict=True):
            assert isinstance(result.error, error), (name, result)
            assert (result.status, result.body, dict(result.headers)) == (None, b"", {}), name
            assert not result.ok
            assert result.attempts == 1
            if isinstance(item, wirespeed.Request):
                assert result.request is item
            else:
                assert result.request.url is item
            assert str(result.index) in repr(result), name
        assert len(at.server.exchanges) == len(BAD) + 1


async def test_a_million_errors_do_not_nest() -> None:
    # Each ends where it begins: nothing may recurse, or keep the loop from everything else.
    async with scene() as at:
        ticks = 0

        def tick() -> None:
            nonlocal ticks
            ticks += 1
            handle[0] = asyncio.get_running_loop().call_soon(tick)

        handle = [asyncio.get_running_loop().call_soon(tick)]
        count = 0
        async for result in at.session.batch((None for _ in range(5000)), concurrency=10):  # type: ignore[misc]
            assert isinstance(result.error, TypeError)
            count += 1
        handle[0].cancel()
        assert count == 5000
        assert ticks > 50


NOT_ITERABLE: dict[str, Any] = {
    "str": "http://127.0.0.1/",
    "bytes": b"http://127.0.0.1/",
    "a URL": URL("http://127.0.0.1/"),
    "a request": wirespeed.Request("GET", "http://127.0.0.1/"),
    "None": None,
    "a number": 5,
    "a function": lambda: [],
    "an async function": agen,
}


@pytest.mark.parametrize("name", NOT_ITERABLE)
async def test_what_is_no_source_is_refused_at_once(name: str) -> None:
    async with scene() as at:
        with pytest.raises(TypeError, match="a batch takes an iterable"):
            at.session.batch(NOT_ITERABLE[name])


BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"concurrency": 0}, ValueError),
    ({"concurrency": -1}, ValueError),
    ({"concurrency": True}, TypeError),
    ({"concurrency": 2.0}, TypeError),
    ({"concurrency": None}, TypeError),
    ({"max_body": -1}, ValueError),
    ({"retry": -1}, ValueError),
    ({"rate": 0}, ValueError),
    ({"rate": -1.0}, ValueError),
    ({"retries": 1}, TypeError),
]


@pytest.mark.parametrize(("arguments", "error"), BAD_ARGUMENTS, ids=lambda value: str(value)[:30])
async def test_bad_arguments_are_refused_at_once(arguments: dict[str, Any], error: type[Exception]) -> None:
    async with scene() as at:
        with pytest.raises(error):
            at.session.batch([at.url()], **arguments)


async def test_closed_session_is_refused_at_once() -> None:
    async with scene() as at:
        await at.session.close()
        with pytest.raises(RuntimeError, match="Session is closed"):
            at.session.batch([at.url()])


class Broken(Exception):
    pass


def breaking(items: list[Any], exc: BaseException) -> Iterator[Any]:
    yield from items
    raise exc


async def async_breaking(items: list[Any], exc: BaseException) -> AsyncIterator[Any]:
    for item in items:
        yield item
    raise exc


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [breaking, async_breaking])
@pytest.mark.parametrize("before", [0, 1, 10])
@pytest.mark.parametrize("ordered", [False, True])
async def test_source_that_raises(make: Any, before: int, ordered: bool, kind: str) -> None:
    # What came before has its results; then the error, once.
    async with scene(kind) as at:
        batch = at.session.batch(make(at.urls(before), Broken("no more")), concurrency=4, ordered=ordered)
        results = []

        async def consume() -> None:
            async for result in batch:
                results.append(result)

        with pytest.raises(Broken, match="no more"):
            await consume()
        assert sorted(result.index for result in results) == list(range(before))
        assert all(result.body == b"ok" for result in results)
        with pytest.raises(StopAsyncIteration):
            await anext(batch)
        assert len(at.server.exchanges) == before


async def test_async_source_that_raises_at_once_on_every_step() -> None:
    class Bad:
        def __aiter__(self) -> "Bad":
            return self

        async def __anext__(self) -> str:
            raise Broken("at once")

    async with scene() as at:
        with pytest.raises(Broken, match="at once"):
            await collected(at.session.batch(Bad()))


async def test_cancelled_error_of_a_source_is_not_taken_for_its_end() -> None:
    # Such as that of a task it waits for, which somebody has cancelled.
    async def source() -> AsyncIterator[str]:
        yield at.url()
        waited = asyncio.get_running_loop().create_future()
        waited.cancel()
        await waited

    async with scene() as at:
        batch = at.session.batch(source())
        assert (await anext(batch)).ok
        with pytest.raises((asyncio.CancelledError, RuntimeError)):
            await anext(batch)


async def test_results_come_while_the_source_waits() -> None:
    more = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield at.url()
        await more.wait()
        yield at.url()

    async with scene() as at:
        batch = at.session.batch(source())
        assert (await asyncio.wait_for(anext(batch), 5)).index == 0
        waiting = asyncio.ensure_future(anext(batch))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        assert len(at.server.exchanges) == 1
        more.set()
        assert (await asyncio.wait_for(waiting, 5)).index == 1
        assert await collected(batch) == []


async def test_slow_source_ends_after_its_last_result() -> None:
    # The end comes when nothing is under way, and nobody has anything to hand over.
    async def source() -> AsyncIterator[str]:
        yield at.url()
        await asyncio.sleep(0.03)

    async with scene() as at:
        results = await asyncio.wait_for(collected(at.session.batch(source())), 5)
        assert [result.index for result in results] == [0]


@pytest.mark.parametrize("kind", KINDS)
async def test_infinite_sources(kind: str) -> None:
    async def endless_async() -> AsyncIterator[str]:
        # It never lets go of the loop by itself.
        for url in endless(at.url()):
            yield url

    async with scene(kind) as at:
        sources: list[Any] = [endless(at.url()), endless_async()]
        for source in sources:
            seen = 0
            async with at.session.batch(source, concurrency=5) as batch:
                async for result in batch:
                    assert result.ok
                    seen += 1
                    if seen == 200:
                        break


async def test_async_generator_is_closed_at_the_end() -> None:
    closed = []

    async def source() -> AsyncIterator[str]:
        try:
            for url in endless(at.url()):
                yield url
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async with scene() as at:
        async with at.session.batch(source(), concurrency=3) as batch:
            assert (await anext(batch)).ok
        assert closed == [True]


async def test_source_that_does_not_want_to_end() -> None:
    # It takes its cancellation for something else, and goes on.
    steps: list[str] = []

    class Stubborn:
        def __aiter__(self) -> "Stubborn":
            return self

        async def __anext__(self) -> str:
            steps.append("asked")
            if len(steps) > 1:
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    steps.append("cancelled")
            return at.url()

    async with scene() as at:
        batch = at.session.batch(Stubborn(), concurrency=3)
        assert (await anext(batch)).ok
        await asyncio.wait_for(batch.aclose(), 5)
        assert steps == ["asked", "asked", "cancelled"]


async def test_error_in_closing_a_source_is_reported_once() -> None:
    async def source() -> AsyncIterator[str]:
        try:
            for url in endless(at.url()):
                yield url
        finally:
            raise Broken("in closing")

    async with scene() as at:
        reported: list[Any] = []
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        batch = at.session.batch(source(), concurrency=3)
        assert (await anext(batch)).ok
        try:
            await batch.aclose()
        except Broken as exc:
            reported.append({"exception": exc})
        del batch
        await asyncio.sleep(0)
        await eventually(lambda: reported, "the error told")
        loop.set_exception_handler(before)
        assert [str(context["exception"]) for context in reported] == ["in closing"]
        assert "never retrieved" not in str(reported)


async def test_source_that_uses_the_session() -> None:
    async def source() -> AsyncIterator[str]:
        for _ in range(5):
            async with at.session.get(at.url("/ok")) as resp:
                yield at.url("/" + await resp.text())

    async with scene(limit=1) as at:
        results = await asyncio.wait_for(at.results(source(), concurrency=2), 5)
        assert [result.body for result in results] == [b"ok"] * 5


async def test_results_feed_the_source() -> None:
    # A crawler: what comes out decides what goes in.
    async with scene() as at:
        todo: asyncio.Queue[str | None] = asyncio.Queue()
        todo.put_nowait(at.url("/echo?depth=0"))

        async def source() -> AsyncIterator[str]:
            while (url := await todo.get()) is not None:
                yield url

        targets = []
        async for result in at.session.batch(source(), concurrency=4):
            targets.append(result.json()["target"])
            depth = len(targets)
            todo.put_nowait(at.url(f"/echo?depth={depth}") if depth < 20 else None)
        assert targets == [f"/echo?depth={i}" for i in range(20)]


async def test_nothing_is_sent_or_taken_before_it_is_iterated() -> None:
    async with scene() as at:
        taken: list[int] = []
        batch = at.session.batch(endless(at.url(), taken))
        await asyncio.sleep(0.01)
        assert taken == []
        assert at.server.connections == []
        assert batch.progress().taken == 0
        await batch.aclose()
        assert taken == []


def refilled(at: Scene, asked: list[int]) -> Iterator[str]:
    for i in range(6):
        asked.append(i)
        yield at.url()


async def test_source_is_asked_in_order_and_once() -> None:
    async with scene() as at:
        asked: list[int] = []
        results = await at.results(refilled(at, asked), concurrency=2)
        assert len(results) == 6
        assert asked == list(range(6))
