"""Coroutines in C do what Python's do: a coroutine of Python that waits for a future is the model."""

import asyncio
import collections.abc
import gc
import inspect
import itertools
import sys
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.checks import eventually
from support.local import LocalServer
from support.loops import LOOPS

import wirespeed
from wirespeed._core.coroutine import NOTHING, NativeCoroutine

KINDS = {
    "native": {},
    # Python does all of such a request, in place of the native coroutine.
    "delegated": {"trace_configs": [wirespeed.TraceConfig()]},
}
kinds = pytest.mark.parametrize("kind", KINDS)


@asynccontextmanager
async def scene(kind: str = "native", limit: int = 100) -> AsyncIterator[tuple[Any, Any]]:
    """A server, and a session that has a connection to it."""
    connector = wirespeed.TCPConnector(limit=limit)
    async with (
        LocalServer() as server,
        wirespeed.ClientSession(connector=connector, **KINDS[kind]) as session,
    ):
        async with session.get(server.url("/ok")) as resp:
            await resp.read()
        yield server, session
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Coroutines that nobody awaits are meant here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
        gc.collect()


# One step after the other


async def waiting(future: "asyncio.Future[None]") -> None:
    await future


def unmark(coroutine: Any) -> None:
    """What tasks do with a future that they get."""
    future = coroutine.cr_await
    while future is not None and not asyncio.isfuture(future):
        # An iterator of a future shows none.
        future = getattr(future, "cr_await", None)
    if future is not None:
        future._asyncio_future_blocking = False


STEPS: dict[str, Callable[[Any], Any]] = {
    "send": lambda coroutine: coroutine.send(None),
    "next": lambda coroutine: next(coroutine.__await__()),
    "send 5": lambda coroutine: coroutine.send(5),
    "throw class": lambda coroutine: coroutine.throw(KeyError),
    "throw instance": lambda coroutine: coroutine.throw(KeyError("key")),
    "throw cancelled": lambda coroutine: coroutine.throw(asyncio.CancelledError()),
    "throw exit": lambda coroutine: coroutine.throw(GeneratorExit),
    "close": lambda coroutine: coroutine.close(),
}


def outcome(step: Callable[[Any], Any], coroutine: Any) -> Any:
    """What a step comes to, and what the coroutine says of itself after it."""
    got: Any
    try:
        got = "future" if asyncio.isfuture(step(coroutine)) else None
    except RuntimeError as exc:
        got = str(exc)
    except BaseException as exc:
        got = type(exc), exc.args if isinstance(exc, KeyError) else None
    return got, coroutine.cr_running, coroutine.cr_await is not None


@pytest.mark.usefixtures("quiet")
@kinds
async def test_steps_are_those_of_a_coroutine_of_python(kind: str) -> None:
    loop = asyncio.get_running_loop()
    async with scene(kind) as (server, session):
        for names in itertools.chain.from_iterable(itertools.product(STEPS, repeat=n) for n in (1, 2, 3)):
            async with session.get(server.url("/ok")) as resp:
                await resp.read()
            native, model = session.get(server.url("/hold")), waiting(loop.create_future())
            for name in names:
                got, expected = outcome(STEPS[name], native), outcome(STEPS[name], model)
                if kind == "delegated":
                    # As deep as Python's code goes.
                    got, expected = got[0], expected[0]
                assert got == expected, (names, name, got, expected)
            native.close()
            model.close()
            await asyncio.sleep(0)
            assert session.connector.pool.in_use == 0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((KeyError(), 5), TypeError),
        ((KeyError, 5), KeyError),
        ((KeyError, (1, 2)), KeyError),
        ((KeyError, ValueError(1)), KeyError),
        ((Exception, ValueError(1)), ValueError),
        ((KeyError, KeyError(1), 5), TypeError),
    ],
)
@pytest.mark.filterwarnings("ignore:the .type, exc, tb. signature:DeprecationWarning")
async def test_exception_is_thrown_in_the_three_forms(arguments: Any, error: type[Exception]) -> None:
    async with scene() as (server, session):
        native = session.get(server.url("/hold"))
        model = waiting(asyncio.get_running_loop().create_future())
        raised = []
        for coroutine in (native, model):
            coroutine.send(None)
            with pytest.raises(error) as caught:
                coroutine.throw(*arguments)
            raised.append((type(caught.value), error is not TypeError and caught.value.args))
            coroutine.close()
        assert raised[0] == raised[1]


# Results


class Chain:
    """An awaitable in Python that goes on in a coroutine, as `yield from` does."""

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Any:
        return (yield from self._coroutine.__await__())


async def awaited(coroutine: Any) -> Any:
    return await coroutine


def driven(coroutine: Any) -> Any:
    with pytest.raises(StopIteration) as caught:
        coroutine.send(None)
    return caught.value.value


# What StopIteration and PyErr_SetObject take for something else than a value.
ODD_RESULTS = [
    None, (), (1, 2), 0, KeyError, KeyError("k"), StopIteration(3), asyncio.CancelledError(), GeneratorExit()
]  # fmt: skip


@pytest.mark.parametrize("value", ODD_RESULTS, ids=repr)
async def test_any_value_is_returned_as_it_is(value: Any) -> None:
    async with scene() as (server, session), session.post(server.url("/echo"), json=1) as resp:
        await resp.read()

        def read() -> Any:
            return resp.json(loads=lambda _: value)

        assert await read() is value
        assert driven(read()) is value
        assert await Chain(read()) is value
        assert await asyncio.create_task(awaited(read())) is value
        assert await asyncio.create_task(read()) is value
        assert (await asyncio.gather(read(), read()))[1] is value


async def test_error_of_a_step_is_raised_once_and_ends_the_coroutine() -> None:
    async with scene() as (server, session), session.post(server.url("/echo"), json=1) as resp:
        reading = resp.json(loads=lambda _: 1 // 0)
        with pytest.raises(ZeroDivisionError) as caught:
            await reading
        assert caught.value.__context__ is None
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await reading


# Two that await the same


@kinds
@pytest.mark.parametrize("limit", [1, 2], ids=["queued", "sent"])
async def test_second_awaiter_takes_nothing_from_the_first(kind: str, limit: int) -> None:
    async with scene(kind, limit) as (server, session):
        first = asyncio.create_task(session.get(server.url("/hold")))
        await eventually(lambda: len(server.held) == 1, "the request came")
        asked = session.get(server.url("/hold"))
        tasks = [asyncio.create_task(awaited(asked)) for _ in range(2)]
        await asyncio.sleep(0.01)
        server.held[0].respond(200, b"first")
        assert await (await first).read() == b"first"
        await eventually(lambda: len(server.held) == 2, "the second request came")
        server.held[1].respond(200, b"second")
        done = await asyncio.gather(*tasks, return_exceptions=True)
        responses = [resp for resp in done if isinstance(resp, wirespeed.ClientResponse)]
        errors = [str(exc) for exc in done if isinstance(exc, RuntimeError)]
        assert [await resp.read() for resp in responses] == [b"second"]
        assert errors == ["cannot reuse already awaited coroutine"]
        assert (session.connector.pool.in_use, session.connector.pool.waiting) == (0, 0)


@pytest.mark.parametrize("limit", [1, 2], ids=["queued", "sent"])
async def test_driver_that_does_not_wait_gets_an_error_and_keeps_no_slot(limit: int) -> None:
    async with scene(limit=limit) as (server, session):
        held = asyncio.create_task(session.get(server.url("/hold")))
        await eventually(lambda: len(server.held) == 1, "the request came")
        asked = session.get(server.url("/ok"))
        assert asyncio.isfuture(asked.send(None)) or limit == 2
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            asked.send(None)
        server.held[0].respond(200, b"")
        await (await held).read()
        assert (session.connector.pool.in_use, session.connector.pool.waiting) == (0, 0)
        assert (await session.get(server.url("/ok"))).status == 200


# Not awaited, closed, dropped


@pytest.mark.parametrize("method", ["get", "post", "head", "options", "put", "patch", "delete"])
async def test_request_that_nobody_awaits_is_told_of(method: str) -> None:
    async with scene() as (server, session):
        with pytest.warns(RuntimeWarning, match=r"^coroutine 'ClientSession\._request' was never awaited$"):
            getattr(session, method)(server.url("/ok"))
        assert len(server.exchanges) == 1


async def test_body_that_nobody_awaits_is_told_of() -> None:
    async with scene() as (server, session), session.get(server.url("/ok")) as resp:
        with pytest.warns(RuntimeWarning, match=r"^coroutine 'ClientResponse\.read' was never awaited$"):
            resp.read()
        with pytest.warns(RuntimeWarning, match=r"^coroutine 'ClientResponse\.json' was never awaited$"):
            resp.json()


@kinds
async def test_closed_coroutine_is_not_told_of(kind: str) -> None:
    async with scene(kind) as (server, session):
        session.get(server.url("/ok")).close()
        gc.collect()


@kinds
@pytest.mark.parametrize("end", ["close", "drop", "drop in a cycle"])
@pytest.mark.parametrize("stage", ["queued", "dialling", "sent"])
async def test_coroutine_that_ends_while_it_waits_gives_back_what_it_has(
    kind: str, end: str, stage: str
) -> None:
    async with scene(kind, 1 if stage == "queued" else 2) as (server, session):
        pool = session.connector.pool
        held = []
        if stage != "sent":
            held.append(asyncio.create_task(session.get(server.url("/hold"))))
            await eventually(lambda: len(server.held) == 1, "the first request came")
        asked = session.get(server.url("/hold"))
        asked.send(None)
        assert (pool.waiting, pool.in_use) == {"queued": (1, 1), "dialling": (0, 2), "sent": (0, 1)}[stage]
        if end == "close":
            asked.close()
        elif end == "drop in a cycle":
            cycle = [asked]
            cycle.append(cycle)
            del cycle
        del asked
        gc.collect()
        await eventually(lambda: (pool.waiting, pool.in_use) == (0, len(held)), "nothing was kept")
        for exchange in server.held:
            exchange.respond(200, b"")
        for task in held:
            await (await task).read()
        async with session.get(server.url("/ok")) as resp:
            assert await resp.read() == b"ok"
        await eventually(lambda: pool.in_use == 0, "all was given back")


@pytest.mark.parametrize("kind", sorted(LOOPS))
def test_coroutine_that_outlives_its_loop_is_collected_in_silence(kind: str) -> None:
    loop = LOOPS[kind]()
    kept = []

    async def leave_one() -> None:
        async with LocalServer() as server, wirespeed.ClientSession() as session:
            async with session.get(server.url("/ok")):
                pass
            kept.append(session.get(server.url("/hold")))
            kept[0].send(None)

    loop.run_until_complete(leave_one())
    loop.close()
    kept.clear()
    gc.collect()


@kinds
async def test_coroutine_that_ended_holds_nothing(kind: str) -> None:
    class Data(dict):  # type: ignore[type-arg]
        pass

    async with scene(kind) as (server, session):
        params = Data(a="1")
        ref = weakref.ref(params)
        asked = session.get(server.url("/ok"), params=params)
        del params
        resp = await asked
        assert ref() is None
        reading = resp.read()
        await reading
        seen = weakref.ref(resp)
        del resp
        gc.collect()
        assert seen() is None


# Cancelled


@kinds
@pytest.mark.parametrize("path", ["/ok", "/bytes?n=300000"])
async def test_request_cancelled_after_any_number_of_steps_keeps_nothing(kind: str, path: str) -> None:
    async def ask() -> bytes:
        async with session.get(server.url(path)) as resp:
            body: bytes = await resp.read()
            return body

    async with scene(kind, 2) as (server, session):
        pool = session.connector.pool
        for turns in range(40):
            tasks = [asyncio.create_task(ask()) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[turns % 3 :: 2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.exception() is None for task in tasks if not task.cancelled())
            await eventually(lambda: (pool.in_use, pool.waiting) == (0, 0), f"nothing was kept ({turns})")


@kinds
async def test_waiter_cancelled_in_the_step_in_which_it_is_granted_passes_it_on(kind: str) -> None:
    async with scene(kind, 1) as (server, session):
        pool = session.connector.pool
        resp = await session.get(server.url("/half"))
        tasks = [asyncio.create_task(session.get(server.url("/ok"))) for _ in range(3)]
        await eventually(lambda: pool.waiting == 3, "all wait")
        # The slot is granted in this step, and the one who has it is cancelled in it.
        resp.close()
        tasks[0].cancel()
        assert (await tasks[1]).status == 200
        assert (await tasks[2]).status == 200
        assert tasks[0].cancelled()
        await eventually(lambda: (pool.in_use, pool.waiting) == (0, 0), "nothing was kept")


# Whoever drives


@kinds
async def test_drivers_of_asyncio_take_it_for_a_coroutine(kind: str) -> None:
    async with scene(kind) as (server, session):
        url = server.url("/ok")

        async def status(asked: Any) -> Any:
            return (await asked).status

        assert (await asyncio.wait_for(session.get(url), 5)).status == 200
        assert (await asyncio.shield(session.get(url))).status == 200
        assert (await asyncio.ensure_future(session.get(url))).status == 200
        assert [resp.status for resp in await asyncio.gather(*[session.get(url) for _ in range(5)])] == [
            200
        ] * 5
        for finished in asyncio.as_completed([session.get(url), session.get(url)]):
            assert (await finished).status == 200
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.get(server.url("/hold")), 0.01)
        if sys.version_info >= (3, 11):
            async with asyncio.TaskGroup() as group:
                grouped = [group.create_task(session.get(url)) for _ in range(3)]
            assert [task.result().status for task in grouped] == [200] * 3
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await session.get(server.url("/hold"))
        if sys.version_info >= (3, 12):
            loop = asyncio.get_running_loop()
            eager = asyncio.eager_task_factory(loop, session.get(url))
            assert (await eager).status == 200
            eager = asyncio.eager_task_factory(loop, status(session.get(url)))
            assert await eager == 200
        await eventually(lambda: session.connector.pool.in_use == 0, "nothing was kept")


@kinds
async def test_it_is_seen_as_a_coroutine(kind: str) -> None:
    async with scene(kind) as (server, session):
        asked = session.get(server.url("/hold"))
        assert isinstance(asked, collections.abc.Coroutine)
        assert isinstance(asked, NativeCoroutine)
        assert asyncio.iscoroutine(asked)
        assert inspect.isawaitable(asked)
        assert (asked.__qualname__, asked.__name__) == ("ClientSession._request", "_request")
        assert (asked.cr_running, asked.cr_suspended, asked.cr_await) == (False, False, None)
        assert "ClientSession._request" in repr(asked)
        task = asyncio.create_task(asked)
        assert "ClientSession._request" in repr(task)
        await eventually(lambda: len(server.held) == 1, "the request came")
        assert asked.cr_suspended
        assert asked.cr_await is not None
        assert task.get_stack() == []
        server.held[0].respond(200, b"")
        await task
        assert (asked.cr_running, asked.cr_suspended, asked.cr_await) == (False, False, None)
        assert "ClientSession._request" in repr(task)


@kinds
async def test_its_attributes_may_be_looked_at_at_any_time(kind: str) -> None:
    async with scene(kind) as (server, session):

        def look(coroutine: Any) -> None:
            for name in dir(coroutine):
                getattr(coroutine, name, None)

        asked = session.get(server.url("/ok"))
        look(asked)
        task = asyncio.create_task(asked)
        await asyncio.sleep(0)
        look(asked)
        resp = await task
        look(asked)
        reading = resp.read()
        look(reading)
        await reading
        look(reading)


async def test_nothing_is_a_coroutine_that_is_done() -> None:
    assert await NOTHING is None
    assert await NOTHING is None
    assert await asyncio.create_task(awaited(NOTHING)) is None
    assert isinstance(NOTHING, collections.abc.Coroutine)
    NOTHING.close()
    for arguments in ((KeyError,), (KeyError("k"),), (KeyError, KeyError("k"))):
        with pytest.raises(KeyError):
            NOTHING.throw(*arguments)
