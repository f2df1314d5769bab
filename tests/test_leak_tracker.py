"""Verdicts on leaks, each with what looks like it and is none; against a real server."""

import asyncio
import contextlib
import gc
import re
import subprocess
import sys
import traceback
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.checks import eventually
from support.local import LocalServer

import wirespeed
from wirespeed.observe import frames, leaks, tracking
from wirespeed.observe.leaks import Leak, LeakKind, LeakTracker
from wirespeed.observe.sessions import SessionLog
from wirespeed.observe.verdicts import Verdicts

HERE = __file__
native = pytest.mark.skipif(not wirespeed.NATIVE, reason="without the extension there is no pool to look at")
# What makes a request take aiohttp's own code.
LANES = {"express": {}, "full": {"read_until_eof": False}}
on_both_lanes = [native, pytest.mark.parametrize("options", LANES.values(), ids=LANES.keys())]


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of what other tests leaked, nor of these."""
    verdicts = Verdicts()
    monkeypatch.setattr(leaks, "_verdicts", verdicts)
    monkeypatch.setattr(tracking, "sessions", SessionLog(verdicts))


@contextlib.asynccontextmanager
async def tracked(**kwargs: Any) -> AsyncIterator[tuple[wirespeed.ClientSession, LocalServer]]:
    connector = wirespeed.TCPConnector(track_leaks=True, **kwargs)
    async with LocalServer() as server, wirespeed.ClientSession(connector=connector) as session:
        yield session, server


def found(session: wirespeed.ClientSession, *, final: bool = False) -> list[Leak]:
    connector: Any = session.connector
    gc.collect()
    return connector._tracker.look(final=final) if final else connector.leaks()


def line_of(marker: str) -> int:
    """The line of this file that ends with a comment."""
    with open(HERE, encoding="utf-8") as source:
        return next(n for n, text in enumerate(source, 1) if text.rstrip().endswith(f"# {marker}"))


def assert_one(
    listed: list[Leak], kind: LeakKind, marker: str, function: str, path: str | None = "/endless"
) -> Leak:
    assert [leak.kind for leak in listed] == [kind], listed
    (leak,) = listed
    name = function if sys.version_info >= (3, 11) else function.rpartition(".")[2]
    assert leak.where == f"{HERE}:{line_of(marker)} in {name}"
    assert leak.stack[-1].lineno == line_of(marker)
    assert not any(re.search(r"/(aiohttp|wirespeed)/", frame.filename) for frame in leak.stack)
    assert path is None if leak.url is None else leak.url.endswith(str(path))
    assert leak.age >= 0
    return leak


# Never released

kept_by_nobody: list[Any] = []  # what only a global keeps


@pytest.fixture(autouse=True)
def _nobody() -> Iterator[None]:
    yield
    kept_by_nobody.clear()


class TestNeverReleased:
    pytestmark = on_both_lanes

    async def test_task_ended_and_only_a_global_has_the_response(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):

            async def ask() -> None:
                resp = await session.get(server.url("/endless"), **options)  # never-released
                kept_by_nobody.append(resp)

            await asyncio.create_task(ask(), name="asker")
            leak = assert_one(
                found(session),
                LeakKind.NEVER_RELEASED,
                "never-released",
                "TestNeverReleased.test_task_ended_and_only_a_global_has_the_response.<locals>.ask",
            )
            assert leak.task == "asker"
            assert "async with session.get" in leak.message
            assert "GET http://127.0.0.1" in leak.message
            assert found(session)[0].serial == leak.serial
            kept_by_nobody.pop().release()
            assert found(session) == []

    async def test_tasks_that_hand_their_responses_on(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):
            url = server.url("/endless")
            resps = await asyncio.gather(*[session.get(url, **options) for _ in range(3)])
            assert found(session) == []
            for resp in resps:
                await resp.content.read(10)
                assert found(session) == []
                resp.close()

    async def test_gather_that_still_waits(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):
            paths = ["/endless", "/hold"]
            together = asyncio.gather(*[session.get(server.url(path), **options) for path in paths])
            await eventually(lambda: server.held, "the second is waited for")
            await asyncio.sleep(0.05)

            async def wait(together: Any) -> list[aiohttp.ClientResponse]:
                resps: list[aiohttp.ClientResponse] = await together
                return resps

            waiter = asyncio.create_task(wait(together))
            del together
            await asyncio.sleep(0)
            assert found(session) == []
            server.held[0].respond()
            for resp in await waiter:
                resp.close()

    @pytest.mark.parametrize("way", ["argument", "stream", "queue", "attribute", "closure", "later"])
    async def test_another_task_reads(self, options: dict[str, Any], way: str) -> None:
        async with tracked() as (session, server):
            resp = await asyncio.create_task(_get(session, server.url("/endless"), options))
            readers: list[asyncio.Task[None]] = []
            later: asyncio.TimerHandle | None = None
            if way == "later":
                later = asyncio.get_running_loop().call_later(30, resp.release)
            else:
                readers.append(asyncio.create_task(_READERS[way](resp)))
                await asyncio.sleep(0.05)
            close = resp.close
            del resp
            assert await _look_from_elsewhere(session) == []
            close()
            for reader in readers:
                reader.cancel()
            if later is not None:
                later.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def test_generator_that_is_being_read(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):

            async def lines() -> AsyncIterator[bytes]:
                async with session.get(server.url("/endless"), **options) as resp:
                    async for piece in resp.content.iter_chunked(100):
                        yield piece

            reader = lines()
            # As a fixture does: each step is another task's.
            await asyncio.create_task(anext_of(reader))
            assert found(session, final=True) == []
            await asyncio.create_task(anext_of(reader))
            await reader.aclose()
            assert found(session, final=True) == []

    async def test_closing_the_connector_over_an_unread_response(self, options: dict[str, Any]) -> None:
        async with LocalServer() as server:
            connector = wirespeed.TCPConnector(track_leaks=True)
            async with wirespeed.ClientSession(connector=connector) as session:
                resp = await session.get(server.url("/endless"), **options)  # unread-at-close
                assert found(session) == []
            function = "TestNeverReleased.test_closing_the_connector_over_an_unread_response"
            leak = assert_one(connector.leaks(), LeakKind.NEVER_RELEASED, "unread-at-close", function)
            assert "when its connector was closed" in leak.message
            del session, connector, resp
            gc.collect()
            assert [kept.serial for kept in leaks.all_leaks()] == [leak.serial]

    async def test_closing_the_connector_cuts_what_others_read(self, options: dict[str, Any]) -> None:
        async with LocalServer() as server:
            connector = wirespeed.TCPConnector(track_leaks=True)
            async with wirespeed.ClientSession(connector=connector) as session:
                reader = asyncio.create_task(_read_all(session, server.url("/endless"), options))
                hold = asyncio.create_task(_read_all(session, server.url("/hold"), options))
                async with session.get(server.url("/endless"), **options):
                    await eventually(lambda: server.held, "all are sent")
                    await session.close()
            assert connector.leaks() == []
            done = await asyncio.gather(reader, hold, return_exceptions=True)
            assert all(isinstance(result, (aiohttp.ClientError, RuntimeError)) for result in done), done

    async def test_closing_the_connector_because_something_failed(self, options: dict[str, Any]) -> None:
        async with LocalServer() as server:
            connector = wirespeed.TCPConnector(track_leaks=True)
            resps = []

            async def fail() -> None:
                async with wirespeed.ClientSession(connector=connector) as session:
                    resps.append(await session.get(server.url("/endless"), **options))
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fail()
            assert connector.leaks() == []
            resps[0].close()

    async def test_body_that_arrived_unasked_is_no_leak(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):
            kept_by_nobody.append(await asyncio.create_task(_get(session, server.url("/ok"), options)))
            connector: Any = session.connector
            await eventually(lambda: connector.stats().in_use == 0, "the body arrived")
            assert found(session, final=True) == []
        kept_by_nobody.clear()

    async def test_websocket_is_held_on_purpose(self, options: dict[str, Any]) -> None:
        del options
        async with (
            _websockets() as url,
            wirespeed.ClientSession(connector=wirespeed.TCPConnector(track_leaks=True)) as session,
        ):

            async def connect() -> None:
                kept_by_nobody.append(await session.ws_connect(url))

            await asyncio.create_task(connect())
            assert found(session, final=True) == []
            await kept_by_nobody.pop().close()

    async def test_task_that_goes_on_excuses_until_the_end(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):
            go_on = asyncio.Event()

            async def work() -> None:
                kept_by_nobody.append(await session.get(server.url("/endless"), **options))
                await go_on.wait()

            worker = asyncio.create_task(work())
            await eventually(lambda: kept_by_nobody, "the response came")
            assert found(session) == []
            assert [leak.kind for leak in found(session, final=True)] == [LeakKind.NEVER_RELEASED]
            kept_by_nobody.pop().close()
            go_on.set()
            await worker


async def _get(session: Any, url: str, options: dict[str, Any]) -> aiohttp.ClientResponse:
    resp: aiohttp.ClientResponse = await session.get(url, **options)
    return resp


async def _read_all(session: Any, url: str, options: dict[str, Any]) -> None:
    async with session.get(url, **options) as resp:
        async for _ in resp.content.iter_any():
            pass


async def anext_of(generator: AsyncIterator[bytes]) -> bytes:
    return await generator.__anext__()


async def _look_from_elsewhere(session: wirespeed.ClientSession) -> list[Leak]:
    """In a task of its own, the variables of the test are not those of the running task."""

    async def look() -> list[Leak]:
        return found(session)

    return await asyncio.create_task(look())


async def _reads_argument(resp: aiohttp.ClientResponse) -> None:
    await resp.content.read(10)
    await asyncio.sleep(60)
    resp.release()


async def _reads_stream(resp: aiohttp.ClientResponse) -> None:
    kept_by_nobody.append(resp)
    stream = resp.content
    del resp
    try:
        await asyncio.sleep(60)
        await stream.read(10)
    finally:
        kept_by_nobody.clear()


async def _reads_queue(resp: aiohttp.ClientResponse) -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    queue.put_nowait({"resp": [resp]})
    del resp
    await asyncio.sleep(60)
    queue.get_nowait()


async def _reads_attribute(resp: aiohttp.ClientResponse) -> None:
    holder = types.SimpleNamespace(inner=types.SimpleNamespace(resp=resp))
    del resp
    await asyncio.sleep(60)
    holder.inner.resp.release()


async def _reads_closure(resp: aiohttp.ClientResponse) -> None:
    def finish() -> None:
        resp.release()

    await _sleep_then(finish)


async def _sleep_then(finish: Callable[[], None]) -> None:
    await asyncio.sleep(60)
    finish()


_READERS: dict[str, Callable[[aiohttp.ClientResponse], Awaitable[None]]] = {
    "argument": _reads_argument,
    "stream": _reads_stream,
    "queue": _reads_queue,
    "attribute": _reads_attribute,
    "closure": _reads_closure,
}


@contextlib.asynccontextmanager
async def _websockets() -> AsyncIterator[str]:
    """A server of websockets; gives its URL."""

    async def serve(request: web.BaseRequest) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


# Held while others wait


class TestHeld:
    pytestmark = on_both_lanes

    async def test_over_the_threshold_while_others_wait(self, options: dict[str, Any]) -> None:
        async with tracked(limit=1) as (session, server):
            tracker: Any = session.connector._tracker
            tracker.held_after = 0.02
            async with session.get(server.url("/endless"), **options) as resp:  # held
                await asyncio.sleep(0.05)
                assert found(session) == []  # nobody waits
                other = asyncio.create_task(_get(session, server.url("/ok"), options))
                await eventually(lambda: session.connector.stats().waiting == 1, "the other waits")
                function = "TestHeld.test_over_the_threshold_while_others_wait"
                leak = assert_one(found(session), LeakKind.HELD, "held", function)
                assert "while a caller waits" in leak.message
                assert "Read the body before doing anything slow" in leak.message
                assert leak.age > 0.02
                tracker.held_after = 30.0
                assert found(session) == []  # not for long
                resp.close()
            (await other).release()

    async def test_a_server_that_is_slow_to_answer_is_told_from_a_client_that_is_slow_to_read(
        self, options: dict[str, Any]
    ) -> None:
        async with tracked(limit=1) as (session, server):
            session.connector._tracker.held_after = 0.02
            tasks = [asyncio.create_task(_get(session, server.url("/hold"), options)) for _ in range(2)]
            await eventually(lambda: server.held, "the first is sent")
            await asyncio.sleep(0.05)
            (leak,) = found(session)
            assert leak.kind is LeakKind.HELD
            assert "has not answered yet" in leak.message
            server.held[0].respond()
            (await tasks[0]).release()
            await eventually(lambda: len(server.held) == 2, "the second is sent")
            server.held[1].respond()
            (await tasks[1]).release()

    async def test_others_that_wait_for_another_host(self, options: dict[str, Any]) -> None:
        async with tracked(limit_per_host=1) as (session, server):
            session.connector._tracker.held_after = 0.02
            elsewhere = server.url("/hold", host="localhost")
            tasks = [asyncio.create_task(_get(session, elsewhere, options)) for _ in range(2)]
            async with session.get(server.url("/endless"), **options) as resp:
                await eventually(lambda: session.connector.stats().waiting == 1, "one waits")
                await eventually(lambda: server.held, "the other is sent")
                await asyncio.sleep(0.03)
                assert [str(leak.url) for leak in found(session)] == [elsewhere]
                resp.close()
            server.held[0].respond()
            (await tasks[0]).release()
            await eventually(lambda: len(server.held) == 2, "the second is sent")
            server.held[1].respond()
            (await tasks[1]).release()

    async def test_websocket_in_the_way_of_others(self, options: dict[str, Any]) -> None:
        connector = wirespeed.TCPConnector(track_leaks=True, limit=1)
        async with _websockets() as url, wirespeed.ClientSession(connector=connector) as session:
            connector._tracker.held_after = 0.02
            async with session.ws_connect(url):
                other = asyncio.create_task(_get(session, url, options))
                await asyncio.sleep(0.05)
                (leak,) = found(session)
                assert leak.kind is LeakKind.HELD
                assert "Give websockets a connector of their own" in leak.message
                other.cancel()
            await asyncio.gather(other, return_exceptions=True)


# Cancelled


class TestCancelled:
    pytestmark = on_both_lanes

    async def test_task_cancelled_while_it_holds(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):

            async def work() -> None:
                resp = await session.get(server.url("/endless"), **options)  # cancelled
                kept_by_nobody.append(resp)
                del resp
                await asyncio.sleep(60)

            await _cancel_when(asyncio.create_task(work()), lambda: kept_by_nobody)
            leak = assert_one(
                found(session),
                LeakKind.CANCELLED,
                "cancelled",
                "TestCancelled.test_task_cancelled_while_it_holds.<locals>.work",
            )
            assert "was cancelled" in leak.message
            kept_by_nobody.pop().close()

    async def test_cancelled_on_its_way_gives_back(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):
            for path in ("/endless", "/hold"):
                task = asyncio.create_task(_read_all(session, server.url(path), options))
                await _cancel_when(task, lambda: session.connector.stats().in_use)
            assert found(session, final=True) == []

    async def test_cancelled_after_it_handed_on(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):
            queue: asyncio.Queue[aiohttp.ClientResponse] = asyncio.Queue()

            async def ask() -> None:
                queue.put_nowait(await session.get(server.url("/endless"), **options))
                await asyncio.sleep(60)

            await _cancel_when(asyncio.create_task(ask()), queue.qsize)
            assert found(session) == []
            queue.get_nowait().close()


async def _cancel_when(task: "asyncio.Task[None]", condition: Callable[[], object]) -> None:
    await eventually(condition, "the task has come that far")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Collected unread


class TestCollectedUnread:
    pytestmark = on_both_lanes

    async def test_dropped_response(self, options: dict[str, Any]) -> None:
        """On aiohttp's own code the connection keeps the response, so there it is never released."""
        async with tracked() as (session, server):

            async def look() -> int:
                return (await session.get(server.url("/endless"), **options)).status  # dropped

            assert await asyncio.create_task(look()) == 200
            function = "TestCollectedUnread.test_dropped_response.<locals>.look"
            kind = LeakKind.NEVER_RELEASED if options else LeakKind.COLLECTED_UNREAD
            leak = assert_one(found(session), kind, "dropped", function)
            assert [kept.serial for kept in found(session)] == [leak.serial]  # once
            assert session.connector.stats().in_use == len(options)

    async def test_read_released_closed_and_whole(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):
            (await session.get(server.url("/endless"), **options)).release()
            (await session.get(server.url("/endless"), **options)).close()
            async with session.get(server.url("/bytes?n=100000"), **options):
                pass
            assert len(await (await session.get(server.url("/bytes?n=100000"), **options)).read()) == 100_000
            resp = await session.get(server.url("/ok"), **options)
            await eventually(lambda: session.connector.stats().in_use == 0, "the body arrived")
            del resp
            assert found(session, final=True) == []

    async def test_connection_that_was_lost_before(self, options: dict[str, Any]) -> None:
        async with tracked() as (session, server):
            resp = await session.get(server.url("/half"), **options)
            server.held[0].connection.transport.abort()
            content = resp.content
            await eventually(lambda: content.exception() is not None, "the server is gone")
            del resp
            # aiohttp's own code holds the slot nevertheless.
            assert len(found(session)) == len(options)


# Sessions


async def _fetch(server: LocalServer, requests: int = 1, path: str = "/ok", **kwargs: Any) -> None:
    async with wirespeed.ClientSession(**kwargs) as session:  # per-request
        for _ in range(requests):
            await (await session.get(server.url(path))).read()


def _sessions() -> list[Leak]:
    gc.collect()
    return leaks.all_leaks()


class TestSessionPerRequest:
    async def test_five_in_a_row_at_one_line(self) -> None:
        async with LocalServer() as server:
            for _ in range(4):
                await _fetch(server)
            assert _sessions() == []
            await _fetch(server, requests=0)
            leak = assert_one(_sessions(), LeakKind.SESSION_PER_REQUEST, "per-request", "_fetch", None)
            assert leak.message.startswith("5 sessions in a row")
            await _fetch(server)
            assert [again.serial for again in _sessions()] == [leak.serial]
            assert tracking.sessions is not None
            tracking.sessions.start_over()
            assert _sessions() == []

    async def test_one_that_is_used_again_ends_the_row(self) -> None:
        async with LocalServer() as server:
            for requests in (1, 1, 1, 1, 2, 1, 1, 1, 1):
                await _fetch(server, requests)
            assert _sessions() == []

    async def test_sessions_of_different_lines(self) -> None:
        async with LocalServer() as server:
            for _ in range(3):
                await _fetch(server)
            for _ in range(3):
                async with wirespeed.ClientSession() as session:
                    await (await session.get(server.url("/ok"))).read()
            assert _sessions() == []

    async def test_sessions_over_one_connector_are_cheap(self) -> None:
        connector = wirespeed.TCPConnector()
        async with LocalServer() as server:
            for _ in range(6):
                await _fetch(server, connector=connector, connector_owner=False)
            await connector.close()
        assert _sessions() == []

    async def test_sessions_of_websockets(self) -> None:
        async with _websockets() as url:
            for _ in range(6):
                async with wirespeed.ClientSession() as session, session.ws_connect(url):
                    pass
        assert _sessions() == []

    async def test_sessions_that_are_open(self) -> None:
        async with LocalServer() as server, contextlib.AsyncExitStack() as stack:
            for _ in range(6):
                session = await stack.enter_async_context(wirespeed.ClientSession())
                await (await session.get(server.url("/ok"))).read()
            assert _sessions() == []

    async def test_line_is_the_one_that_calls_a_subclass(self) -> None:
        with pytest.warns(DeprecationWarning, match="Inheritance"):

            class Client(wirespeed.ClientSession):
                def __init__(self) -> None:
                    super().__init__()

        for _ in range(5):
            await Client().close()  # subclass
        function = "TestSessionPerRequest.test_line_is_the_one_that_calls_a_subclass"
        assert_one(_sessions(), LeakKind.SESSION_PER_REQUEST, "subclass", function, None)

    async def test_aiohttp_names_while_installed(self) -> None:
        async with LocalServer() as server:
            with wirespeed.installed():
                for _ in range(5):
                    async with aiohttp.request("GET", server.url("/ok")) as resp:  # request
                        await resp.read()
        function = "TestSessionPerRequest.test_aiohttp_names_while_installed"
        assert_one(_sessions(), LeakKind.SESSION_PER_REQUEST, "request", function, None)


class TestUnclosed:
    @pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
    async def test_dropped_session(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(lambda *_: None)
        wirespeed.ClientSession()  # dropped-session
        function = "TestUnclosed.test_dropped_session"
        leak = assert_one(_sessions(), LeakKind.UNCLOSED, "dropped-session", function, None)
        assert "was dropped" in leak.message

    def test_session_that_outlives_its_loop(self) -> None:
        async def make() -> wirespeed.ClientSession:
            return wirespeed.ClientSession()  # outlives

        session = asyncio.run(make())
        function = "TestUnclosed.test_session_that_outlives_its_loop.<locals>.make"
        leak = assert_one(_sessions(), LeakKind.UNCLOSED, "outlives", function, None)
        assert "when its event loop was closed" in leak.message
        asyncio.run(session.close())
        assert _sessions() == []

    async def test_closed_by_its_connector(self) -> None:
        session = wirespeed.ClientSession()
        await session.connector.close()
        del session
        assert _sessions() == []

    @native
    @pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
    async def test_dropped_connector(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(lambda *_: None)
        async with LocalServer() as server:
            connector = wirespeed.TCPConnector(track_leaks=True)  # dropped-connector
            async with wirespeed.ClientSession(connector=connector, connector_owner=False) as session:
                await (await session.get(server.url("/ok"))).read()
            del session, connector
            function = "TestUnclosed.test_dropped_connector"
            assert_one(_sessions(), LeakKind.UNCLOSED, "dropped-connector", function, None)

    @native
    async def test_closed_and_unused_connectors(self) -> None:
        async with tracked() as (session, server):
            await (await session.get(server.url("/ok"))).read()
        wirespeed.TCPConnector(track_leaks=True)
        assert _sessions() == []


# What is told


@native
async def test_line_of_a_request_whose_coroutine_runs_in_another_task() -> None:
    async with tracked() as (session, server):
        (resp,) = await asyncio.gather(
            *[session.get(server.url("/endless")) for _ in range(1)]  # gathered
        )
        kept_by_nobody.append(resp)
        del resp
        leak = await _look_from_nowhere(session)
        kept_by_nobody.pop().close()
    assert f":{line_of('gathered')} in " in leak.where


async def _look_from_nowhere(session: Any) -> Leak:
    loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    loop.call_soon(lambda: done.set_result(found(session)))
    (leak,) = await done
    return leak


@native
async def test_report_names_line_task_and_remedy_and_no_password() -> None:
    async with tracked() as (session, server):
        url = server.url("/endless").replace("http://", "http://user:secret@")

        async def ask() -> None:
            kept_by_nobody.append(await session.get(url))  # reported

        await asyncio.create_task(ask(), name="the asker")
        (leak,) = found(session)
        text = leak.report()
        assert f"never released: acquired at {HERE}:{line_of('reported')} in " in text
        assert "task 'the asker'" in text
        assert "kept_by_nobody.append(await session.get(url))  # reported" in text
        assert "resp.release()" in text
        assert "secret" not in text + repr(leak) + str(leak)
        assert isinstance(leak.stack, traceback.StackSummary)
        kept_by_nobody.pop().close()


@native
async def test_asking_and_waiting_change_nothing(loop: asyncio.AbstractEventLoop) -> None:
    """Redirects, errors, retries and middlewares with tracking on."""

    async def middleware(
        req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        async with session.get(server.url("/echo")) as inner:  # a request within a request
            await inner.read()
        return await handler(req)

    async with tracked() as (session, server):
        async with session.get(server.url("/redirect?to=/ok"), middlewares=(middleware,)) as resp:
            assert await resp.text() == "ok"
        with pytest.raises(aiohttp.ClientResponseError):
            await session.get(server.url("/status?n=500"), raise_for_status=True)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(server.url("/drop"))
        with pytest.raises(TypeError):
            await session.get(server.url("/ok"), no_such_option=1)
        assert session.native_stats()["express"] == 5
        assert found(session, final=True) == []


@native
async def test_foreign_session_over_a_tracking_connector() -> None:
    """aiohttp's own session does not tell where it was asked; the pool does."""
    connector = wirespeed.TCPConnector(track_leaks=True)
    async with LocalServer() as server, aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> None:
            kept_by_nobody.append(await session.get(server.url("/endless")))  # foreign

        await asyncio.create_task(ask())
        function = "test_foreign_session_over_a_tracking_connector.<locals>.ask"
        assert_one(connector.leaks(), LeakKind.NEVER_RELEASED, "foreign", function)
        kept_by_nobody.pop().close()


CALLS = "def call(f):\n    return f()\ndef capture(Stack):\n    return Stack.capture(None)\n"


def test_user_line_is_preferred_to_a_librarys() -> None:
    library = compile(CALLS, f"{frames._LIBRARY_FOLDERS[-1]}lib/__init__.py", "exec")
    names: dict[str, Any] = {}
    exec(library, names)
    stack = names["call"](lambda: names["capture"](frames.Stack))
    assert stack.summary()[-1].name == "capture"
    assert stack.line[0] == HERE
    assert stack.where.endswith("test_user_line_is_preferred_to_a_librarys.<locals>.<lambda>") or (
        sys.version_info < (3, 11)
    )


# Judged from figures alone


class _Resp:
    closed = False
    status = 200

    def __init__(self, loop: Any = None) -> None:
        self._loop = loop


async def test_holders_of_others_and_reserved_connections_are_not_judged() -> None:
    tracker = LeakTracker()
    reserved = tracker.acquiring()
    assert tracker.leaks([(reserved, 99.0, 0), (None, 99.0, 0), (object(), 99.0, 0)], final=True) == []
    (leak,) = tracker.leaks([(reserved, 99.0, 1)])
    assert leak.kind is LeakKind.HELD
    assert reserved.task is asyncio.current_task()


async def test_nobodys_hands_are_any_good_when_the_loop_is_closed() -> None:
    tracker = LeakTracker()
    acquisition = tracker.acquiring()
    closed = asyncio.new_event_loop()
    closed.close()
    resp = _Resp(asyncio.get_running_loop())
    acquisition.answered(resp)
    assert tracker.leaks([(acquisition, 1.0, 0)], final=True) == []
    resp._loop = closed
    (leak,) = tracker.leaks([(acquisition, 1.0, 0)], final=True)
    assert leak.kind is LeakKind.NEVER_RELEASED


async def test_what_counts_as_alive_may_be_named() -> None:
    tracker = LeakTracker()

    async def ask() -> Any:
        acquisition = tracker.acquiring()
        kept_by_nobody.append(_Resp())
        acquisition.answered(kept_by_nobody[0])
        return acquisition

    holder = await asyncio.create_task(ask())
    fixture = {"client": types.SimpleNamespace(last=kept_by_nobody[0])}

    async def look(*alive: object) -> list[Leak]:
        return tracker.leaks([(holder, 1.0, 0)], also_alive=alive)

    wrapped = asyncio.create_task(look(fixture))
    del fixture
    assert await wrapped == []
    assert len(await asyncio.create_task(look())) == 1


def test_verdicts_are_bounded() -> None:
    verdicts = Verdicts()
    for _ in range(3_000):
        verdicts.add(Leak(LeakKind.UNCLOSED, "", "", None, None, 0.0, traceback.StackSummary()))
    assert len(verdicts.as_list()) == 1_000


async def test_task_is_not_kept_alive_and_is_known_by_one_callback() -> None:
    trackers = [LeakTracker() for _ in range(3)]

    async def work() -> list[Any]:
        held = [tracker.acquiring() for tracker in trackers]
        assert len({id(holder._asker) for holder in held}) == 1
        return held

    task = asyncio.create_task(work())
    held = await task
    assert held[0].task_name == task.get_name()
    del task
    await asyncio.sleep(0)
    gc.collect()
    assert held[0].task is None
    assert held[0].has_ended
    assert not held[0].is_cancelled


# Off


@native
async def test_nothing_is_captured_while_nothing_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WIRESPEED_TRACK_LEAKS", raising=False)
    monkeypatch.setattr(tracking, "sessions", None)
    monkeypatch.setattr(frames.Stack, "capture", None)  # cannot be called
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        for options in LANES.values():
            async with session.get(server.url("/ok"), **options) as resp:
                await resp.read()
        connector: Any = session.connector
        assert connector.leaks() == []
        assert connector.pool.who is None


@native
async def test_a_session_beside_a_tracking_one_is_not_asked_for_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connector = wirespeed.TCPConnector(track_leaks=False)
    async with LocalServer() as server, wirespeed.ClientSession(connector=connector) as session:
        monkeypatch.setattr(frames.Stack, "capture", None)
        await (await session.get(server.url("/ok"))).read()


def test_environment_turns_it_on() -> None:
    program = (
        "import asyncio, sys, wirespeed\n"
        "from wirespeed.observe import tracking\n"
        "async def main():\n"
        "    async with wirespeed.ClientSession() as session:\n"
        "        return getattr(session.connector, '_tracker', None) is not None\n"
        "print('wirespeed.observe.leaks' in sys.modules, tracking.sessions is not None)\n"
        "print(asyncio.run(main()) == wirespeed.NATIVE)\n"
    )
    for value, expected in (("1", [True, True, True]), ("0", [False, False, not wirespeed.NATIVE])):
        env = {**__import__("os").environ, "WIRESPEED_TRACK_LEAKS": value}
        done = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.split() == [str(value) for value in expected], done
