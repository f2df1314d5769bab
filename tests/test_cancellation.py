"""Cancelling a request anywhere gives everything back: slots, descriptors, tasks, no stray errors."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import functools
import gc
import io
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from support.checks import assert_express, eventually, nothing_left, open_fds
from support.local import BLOCK, Exchange, LocalServer, client_tls, port_that_never_accepts, server_tls

import wirespeed

LIMIT = 2
trusting = functools.cache(client_tls)  # one context: connections of two are not shared
Request = Callable[[wirespeed.ClientSession, LocalServer], Awaitable[Any]]

# The TLS transport of CPython 3.10's asyncio says "unclosed" when the peer closed it.
pytestmark = (
    [pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")]
    if sys.version_info < (3, 11)
    else []
)

needs_uncancel = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="tasks count their cancellations since CPython 3.11"
)


@asynccontextmanager
async def _checked_session(server: LocalServer) -> AsyncIterator[wirespeed.ClientSession]:
    """A session of `LIMIT` slots that must all be free at the end, and leave nothing behind."""
    async with nothing_left() as watch:
        async with wirespeed.ClientSession(connector=wirespeed.TCPConnector(limit=LIMIT)) as session:
            yield session
            await _assert_all_slots_free(session, server)
            await eventually(lambda: not watch.new_tasks() - {asyncio.current_task()}, "tasks ended")
            assert_express(session)


async def _assert_all_slots_free(session: wirespeed.ClientSession, server: LocalServer) -> None:
    """`LIMIT` requests run at the same time, at once."""
    before = len(server.held)
    ssl = trusting() if server.ssl_context else True
    tasks = [asyncio.ensure_future(session.get(server.url("/hold"), ssl=ssl)) for _ in range(LIMIT)]
    await eventually(lambda: len(server.held) == before + LIMIT, "every slot serves a request")
    for exchange in server.held[before:]:
        exchange.respond(200, exchange.target.encode())
    for task in tasks:
        async with await task as resp:
            assert await resp.read() == b"/hold"


async def _cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)


async def test_while_the_connection_is_being_accepted() -> None:
    with port_that_never_accepts() as port:
        async with LocalServer() as server, _checked_session(server) as session:
            task = asyncio.ensure_future(session.get(f"http://127.0.0.1:{port}/"))
            await asyncio.sleep(0.05)
            assert not task.done()
            await _cancel(task)


async def test_during_the_tls_handshake() -> None:
    async with LocalServer(raw=True) as silent, LocalServer() as server, _checked_session(server) as session:
        task = asyncio.ensure_future(session.get(silent.url("/", scheme="https")))
        await eventually(lambda: silent.connections and silent.connections[0].received, "client hello")
        await _cancel(task)
        await eventually(lambda: not silent.open, "connection closed")


async def test_before_the_head_arrives() -> None:
    async with LocalServer() as server, _checked_session(server) as session:
        task = asyncio.ensure_future(session.get(server.url("/hold")))
        await eventually(lambda: server.held, "request at the server")
        await _cancel(task)
        await eventually(lambda: not server.open, "connection closed")


async def test_after_half_a_head() -> None:
    async with LocalServer() as server, _checked_session(server) as session:
        server.routes["/halfhead"] = lambda x: x.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        task = asyncio.ensure_future(session.get(server.url("/halfhead")))
        await eventually(lambda: server.exchanges, "request at the server")
        await asyncio.sleep(0.01)
        await _cancel(task)
        await eventually(lambda: not server.open, "connection closed")


async def test_after_half_a_body_inside_async_with() -> None:
    async def read(session: wirespeed.ClientSession) -> None:
        async with session.get(server.url("/half")) as resp:
            await resp.read()

    async with LocalServer() as server, _checked_session(server) as session:
        task = asyncio.ensure_future(read(session))
        await eventually(lambda: server.held, "half the body sent")
        await asyncio.sleep(0.01)
        await _cancel(task)
        await eventually(lambda: not server.open, "connection closed")


async def test_after_half_an_upload_closes_the_body_generator() -> None:
    closed = []

    async def body() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async with LocalServer() as server, _checked_session(server) as session:
        task = asyncio.ensure_future(session.post(server.url("/ok"), data=body()))
        await eventually(lambda: server.exchanges and server.exchanges[0].body_size, "half the upload sent")
        await _cancel(task)
        await eventually(lambda: closed, "generator closed")
        await eventually(lambda: not server.open, "connection closed")


async def test_while_an_upload_waits_for_a_server_that_does_not_read() -> None:
    def stop_reading(exchange: Exchange) -> None:
        exchange.connection.transport.pause_reading()
        server.held.append(exchange)

    async with LocalServer() as server, _checked_session(server) as session:
        server.early_routes["/stuck"] = stop_reading
        task = asyncio.ensure_future(session.post(server.url("/stuck"), data=io.BytesIO(BLOCK * 400)))
        await eventually(lambda: server.held, "upload begun")
        await asyncio.sleep(0.02)
        await _cancel(task)
        server.held.pop().connection.transport.resume_reading()
        await eventually(lambda: not server.open, "connection closed")


async def test_in_the_second_hop_of_a_redirect() -> None:
    async with LocalServer() as server, _checked_session(server) as session:
        task = asyncio.ensure_future(session.get(server.url("/redirect"), params={"to": "/hold"}))
        await eventually(lambda: server.held, "second hop at the server")
        await _cancel(task)
        await eventually(lambda: not server.open, "connection of the hop closed")


async def test_while_waiting_for_a_slot() -> None:
    async with LocalServer() as server, _checked_session(server) as session:
        running = [asyncio.ensure_future(session.get(server.url("/hold"))) for _ in range(LIMIT)]
        await eventually(lambda: len(server.held) == LIMIT, "slots taken")
        waiting = [asyncio.ensure_future(session.get(server.url(f"/ok?n={n}"))) for n in range(4)]
        await asyncio.sleep(0)
        await _cancel(waiting[0])
        await _cancel(waiting[2])
        for exchange in server.held:
            exchange.respond()
        for task in (*running, waiting[1], waiting[3]):
            async with await task as resp:
                assert resp.status == 200
        assert [x.target for x in server.exchanges if x.path == "/ok"] == ["/ok?n=1", "/ok?n=3"]


async def test_a_waiter_cancelled_in_the_moment_it_gets_the_slot_passes_it_on() -> None:
    async with LocalServer() as server, nothing_left():
        async with wirespeed.ClientSession(connector=wirespeed.TCPConnector(limit=1)) as session:
            first = await session.get(server.url("/half"))
            waiting = [asyncio.ensure_future(session.get(server.url(f"/ok?n={n}"))) for n in range(3)]
            for _ in range(5):
                await asyncio.sleep(0)
            first.close()
            waiting[0].cancel()
            if not wirespeed.NATIVE:
                # aiohttp loses this wake-up: the slot stays free, and those who wait go on
                # waiting until somebody else's request comes and goes.
                await _small(session, server)
            for task in waiting[1:]:
                async with await asyncio.wait_for(task, 5) as resp:
                    assert await resp.read() == b"ok"
            assert waiting[0].cancelled()
            assert_express(session, 3)


async def _small(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/ok")) as resp:
        await resp.read()


async def _big(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/bytes?n=3000000")) as resp:
        await resp.read()


async def _chunked(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/chunked?n=500000")) as resp:
        async for _ in resp.content.iter_any():
            pass


async def _upload(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.post(server.url("/ok"), data=BLOCK * 15) as resp:
        await resp.read()


async def _upload_stream(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield BLOCK
            await asyncio.sleep(0)

    async with session.post(server.url("/ok"), data=body()) as resp:
        await resp.read()


async def _redirect(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/redirect?to=/redirect%3Fto=/ok")) as resp:
        await resp.read()


async def _tls(session: wirespeed.ClientSession, server: LocalServer) -> None:
    async with session.get(server.url("/bytes?n=100000"), ssl=trusting()) as resp:
        await resp.read()


async def _with_total_timeout(session: wirespeed.ClientSession, server: LocalServer) -> None:
    timeout = aiohttp.ClientTimeout(total=30, connect=20, sock_connect=10, sock_read=5)
    async with session.get(server.url("/chunked?n=200000"), timeout=timeout) as resp:
        await resp.read()


async def _pool_limited(session: wirespeed.ClientSession, server: LocalServer) -> None:
    await asyncio.gather(*(_small(session, server) for _ in range(2 * LIMIT + 1)))


SWEPT: list[Request] = [
    *(_small, _big, _chunked, _upload, _upload_stream),
    *(_redirect, _tls, _with_total_timeout, _pool_limited),
]


@pytest.mark.parametrize("request_kind", SWEPT, ids=lambda kind: kind.__name__.lstrip("_"))
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_after_any_number_of_loop_iterations(request_kind: Request, warm: bool) -> None:
    tls = server_tls() if request_kind is _tls else None
    async with LocalServer(ssl_context=tls) as server, _checked_session(server) as session:
        fds = len(open_fds())
        cancelled = 0
        for iterations in range(61):
            if warm:
                await request_kind(session, server)
            else:
                await _drop_idle(server)
            task = asyncio.ensure_future(request_kind(session, server))
            for _ in range(iterations):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await asyncio.wait_for(task, 5)
            except asyncio.CancelledError:
                cancelled += 1
            await _assert_all_slots_free(session, server)
            await eventually(lambda: len(open_fds()) <= fds + 2 * LIMIT, "descriptors closed")
        assert cancelled > 1
        await request_kind(session, server)


async def _drop_idle(server: LocalServer) -> None:
    """Make the next request dial: the server ends every connection."""
    for connection in server.open:
        connection.transport.abort()
    await eventually(lambda: not server.open, "connections ended")
    await asyncio.sleep(0)


async def test_wait_for_around_a_request() -> None:
    async with LocalServer() as server, _checked_session(server) as session:
        for _ in range(2 * LIMIT):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(session.get(server.url("/hold")), 0.02)
        await eventually(lambda: not server.open, "connections closed")


@needs_uncancel
async def test_asyncio_timeout_around_a_body_leaves_the_task_uncancelled() -> None:
    async with LocalServer() as server, _checked_session(server) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02), session.get(server.url("/half")) as resp:
                await resp.read()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def _read(session: wirespeed.ClientSession, url: str, total: float) -> None:
    async with session.get(url, timeout=aiohttp.ClientTimeout(total=total)) as resp:
        await resp.read()


@needs_uncancel
async def test_total_timeout_leaves_the_task_uncancelled() -> None:
    async with LocalServer() as server, _checked_session(server) as session:
        task = asyncio.current_task()
        assert task is not None
        for path in ("/hold", "/half"):
            with pytest.raises(asyncio.TimeoutError):
                await _read(session, server.url(path), total=0.02)
            assert task.cancelling() == 0
        await asyncio.sleep(0)  # a cancellation left pending would arrive here


@needs_uncancel
@pytest.mark.parametrize("path", ["/hold", "/half"])
async def test_cancel_before_at_and_after_the_total_timeout(path: str) -> None:
    loop = asyncio.get_running_loop()

    async with LocalServer() as server, _checked_session(server) as session:
        outcomes = []
        for lead in (-0.03, 0.0, 0.03):
            task = asyncio.ensure_future(_read(session, server.url(path), total=0.05))
            timer = loop.call_later(0.05 + lead, task.cancel)
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(result, (asyncio.CancelledError, asyncio.TimeoutError))
            if isinstance(result, asyncio.CancelledError):
                assert task.cancelling() == 1
            outcomes.append(type(result))
            timer.cancel()
        assert outcomes[0] is asyncio.CancelledError
        assert issubclass(outcomes[2], asyncio.TimeoutError)


@needs_uncancel
@pytest.mark.parametrize("path", ["/hold", "/half"])
async def test_cancel_due_together_with_the_total_timeout_is_not_swallowed(path: str) -> None:
    loop = asyncio.get_running_loop()

    async with LocalServer() as server, _checked_session(server) as session:
        task = asyncio.ensure_future(_read(session, server.url(path), total=0.05))
        await eventually(lambda: server.held, "request at the server")
        # When the loop comes back from `sleep`, the cancellation and the timeout are both due.
        loop.call_later(0.009, time.sleep, 0.08)
        loop.call_later(0.01, task.cancel)
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if wirespeed.NATIVE:
            # aiohttp enters its timer twice, so it takes the caller's cancellation back as well.
            assert isinstance(result, asyncio.CancelledError)
            assert task.cancelling() == 1
        assert isinstance(result, (asyncio.CancelledError, asyncio.TimeoutError))


async def test_gather_cancelled_as_a_whole() -> None:
    async with LocalServer() as server, _checked_session(server) as session:
        gathered = asyncio.gather(*(session.get(server.url("/hold")) for _ in range(5 * LIMIT)))
        await eventually(lambda: len(server.held) == LIMIT, "slots taken")
        gathered.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gathered
        await eventually(lambda: not server.open, "connections closed")


async def test_unread_response_that_is_dropped_frees_its_slot() -> None:
    async with LocalServer() as server, nothing_left():
        async with wirespeed.ClientSession(connector=wirespeed.TCPConnector(limit=1)) as session:
            server.routes["/full"] = lambda x: x.respond(200, b"x" * 100)
            resp = await session.get(server.url("/full"))
            del resp
            gc.collect()
            await asyncio.wait_for(_small(session, server), 5)
            resp = await session.get(server.url("/half"))
            if not wirespeed.NATIVE:
                # In aiohttp the connection refers to the response: dropping it frees nothing.
                resp.close()
            del resp
            gc.collect()
            await asyncio.wait_for(_small(session, server), 5)


async def test_answer_to_a_cancelled_request_never_reaches_the_next_one() -> None:
    async with LocalServer() as server, nothing_left():
        async with wirespeed.ClientSession(connector=wirespeed.TCPConnector(limit=1)) as session:
            for n in range(5):
                task = asyncio.ensure_future(session.get(server.url("/hold")))
                await eventually(lambda n=n: len(server.held) == n + 1, "request at the server")
                task.cancel()
                server.held[-1].respond(200, b"stale")
                async with session.get(server.url("/ok")) as resp:
                    assert await resp.read() == b"ok"
            assert_express(session)
