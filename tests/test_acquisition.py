"""How the native connectors get connections: prewarming, what failed dials leave behind, who is told what."""

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.checks import eventually, nothing_left
from support.local import Connection, LocalServer, port_that_never_accepts
from yarl import URL

import wirespeed

pytestmark = pytest.mark.skipif(
    not wirespeed.NATIVE, reason="the fallback's connectors have a file of their own"
)

Timeout = aiohttp.ClientTimeout
SHORT = 0.05


# Prewarming


async def test_prewarming_does_not_dial_on_when_dials_fail_at_once(tmp_path: Path) -> None:
    """On Unix sockets a refusal needs no round of the loop: the slot is free again before the next look."""
    connector = wirespeed.UnixConnector(str(tmp_path / "nobody"))
    async with wirespeed.ClientSession(connector=connector) as session:
        dial, dials = connector._create_connection, 0

        async def count(*args: Any) -> Any:
            nonlocal dials
            dials += 1
            if dials > 10:
                # Not to the end of memory.
                raise KeyboardInterrupt
            return await dial(*args)

        connector._create_connection = count  # type: ignore[method-assign]
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.prewarm("http://localhost/", 3)
        assert dials == 3
        assert connector.stats().dial_failures == 3


async def test_prewarming_again_keeps_the_limit_of_the_host() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(limit_per_host=2)
        async with wirespeed.ClientSession(connector=connector) as session:
            for _ in range(3):
                assert await session.prewarm(server.url(), 5) == 2
            assert connector.stats().created == 2


async def test_prewarming_does_not_replace_what_is_open() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(max_open=2)
        async with wirespeed.ClientSession(connector=connector) as session:
            for _ in range(3):
                assert await session.prewarm(server.url(), 5) == 2
            stats = connector.stats()
            assert (stats.created, stats.closed) == (2, {})


async def test_prewarming_that_takes_too_long_is_an_error() -> None:
    with port_that_never_accepts() as port:
        async with wirespeed.TCPConnector() as connector:
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await connector.prewarm(f"http://127.0.0.1:{port}", 2, timeout=Timeout(connect=SHORT))


async def test_prewarming_does_not_count_what_is_not_open_in_time() -> None:
    async with LocalServer() as server, wirespeed.TCPConnector() as connector:
        dial, dials = connector._create_connection, 0

        async def hang_from_the_second(*args: Any) -> Any:
            nonlocal dials
            dials += 1
            return await (dial(*args) if dials == 1 else asyncio.sleep(60))

        connector._create_connection = hang_from_the_second  # type: ignore[method-assign]
        assert await connector.prewarm(server.url(), 3, timeout=Timeout(connect=SHORT)) == 1


async def test_prewarming_says_that_the_connector_was_closed_meanwhile() -> None:
    with port_that_never_accepts() as port:
        connector = wirespeed.TCPConnector()
        task = asyncio.create_task(connector.prewarm(f"http://127.0.0.1:{port}", 2))
        await asyncio.sleep(SHORT)
        await connector.close()
        with pytest.raises(aiohttp.ClientConnectionError, match="closed"):
            await task


async def test_host_that_there_was_no_room_to_prewarm_is_forgotten() -> None:
    async with LocalServer() as server:
        connector = wirespeed.TCPConnector(limit=1)
        async with (
            wirespeed.ClientSession(connector=connector) as session,
            session.get(server.url("/half")),
        ):
            for i in range(10):
                assert await session.prewarm(f"http://host{i}.test") == 0
            assert len(connector.pool.hosts) == 1


async def test_prewarming_a_server_that_hangs_up_is_no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """It greets with a 408 and closes: the connections are made, and gone before anybody could use them."""

    def hang_up(connection: Connection) -> None:
        connection.transport.write(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        connection.transport.close()

    async with LocalServer() as server, wirespeed.TCPConnector() as connector:
        server.on_connect = hang_up
        tell = asyncio.wait

        async def wait_on(*args: Any, **kwargs: Any) -> Any:
            found = await tell(*args, **kwargs)
            await eventually(lambda: connector.stats().idle == 0, "hung up")
            return found

        monkeypatch.setattr(asyncio, "wait", wait_on)
        with pytest.raises(aiohttp.ClientConnectionError) as caught:
            await connector.prewarm(server.url())
        assert not isinstance(caught.value, asyncio.TimeoutError)


# The server's Keep-Alive field


@pytest.mark.parametrize("fields", [("max=0", "timeout=60"), ("timeout=60", "max=0")], ids=str)
@pytest.mark.parametrize("lane", ["express", "full"])
async def test_lines_of_the_field_are_one_list(lane: str, fields: tuple[str, str]) -> None:
    class Request(aiohttp.ClientRequest):
        """Makes aiohttp's own code send it."""

    connector = wirespeed.TCPConnector()
    options: Any = {"request_class": Request} if lane == "full" else {}
    async with LocalServer() as server, wirespeed.ClientSession(connector=connector, **options) as session:
        server.routes["/told"] = lambda x: x.respond(200, b"", [("Keep-Alive", field) for field in fields])
        await _read(session, server.url("/told"))
        await eventually(lambda: connector.stats().closed, "closed")
        assert connector.stats().closed == {wirespeed.CloseReason.SERVER_TIMEOUT: 1}


# What failures leave behind


class Unreachable(aiohttp.ClientConnectionError):
    """What the dials of a Failing raise."""


class Failing(wirespeed.TCPConnector):
    """Dials fail: in their first step, or later."""

    is_late = False

    async def _create_connection(self, *args: Any) -> Any:
        if self.is_late:
            await asyncio.sleep(0)
        raise Unreachable


async def _garbage_of(attempt: Callable[[], Awaitable[object]], error: type[Exception]) -> list[object]:
    """The exceptions that only the garbage collector finds after attempts that fail."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            with contextlib.suppress(error):
                await attempt()
        await asyncio.sleep(0.01)
        gc.collect()
        return [thing for thing in gc.garbage if isinstance(thing, BaseException)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        if was_enabled:
            gc.enable()


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("how", ["get", "prewarm"])
async def test_failed_dial_leaves_no_cycle(how: str, is_late: bool) -> None:
    async with wirespeed.ClientSession(connector=Failing()) as session:
        session._connector.is_late = is_late  # type: ignore[union-attr]
        ask: Any = getattr(session, how)
        assert await _garbage_of(lambda: ask("http://127.0.0.1/"), Unreachable) == []


@pytest.mark.parametrize("is_traced", [False, True], ids=["express", "traced"])
async def test_timeout_of_the_pool_leaves_no_cycle(is_traced: bool) -> None:
    traces = [aiohttp.TraceConfig()] if is_traced else []
    for trace in traces:
        trace.on_connection_queued_start.append(_nothing)
    connector = wirespeed.TCPConnector(limit=1, pool_timeout=0.01)
    async with (
        LocalServer() as server,
        wirespeed.ClientSession(connector=connector, trace_configs=traces) as session,
        session.get(server.url("/half")),
    ):
        assert await _garbage_of(lambda: session.get(server.url("/ok")), wirespeed.PoolTimeout) == []


async def _nothing(*args: object) -> None:
    """A trace."""


# What others' code does meanwhile


async def test_connection_error_of_a_traces_own_gives_the_slot_back() -> None:
    async def reset(*args: object) -> None:
        raise ConnectionResetError("not ours")

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(reset)
    connector = wirespeed.TCPConnector(limit=1)
    async with (
        LocalServer() as server,
        wirespeed.ClientSession(connector=connector, trace_configs=[trace]) as session,
    ):
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectionError, match="not ours"):
                await asyncio.wait_for(session.post(server.url("/ok")), 1)
        assert connector.stats().in_use == 0


async def test_timeout_of_the_pool_gets_through_a_patch_of_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Instrumentation wraps aiohttp's method, and everything then runs on aiohttp's code."""
    original = aiohttp.ClientSession._request

    async def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await original(self, *args, **kwargs)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", wrapper)
    connector = wirespeed.TCPConnector(limit=1, pool_timeout=SHORT)
    async with (
        LocalServer() as server,
        wirespeed.ClientSession(connector=connector) as session,
        session.get(server.url("/half")),
    ):
        with pytest.raises(wirespeed.PoolTimeout, match="limit=1 reached"):
            await session.get(server.url("/ok"))


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_connector_closed_between_the_dial_and_its_caller_is_what_the_caller_hears_of(
    method: str,
) -> None:
    connector = wirespeed.TCPConnector()
    dial = connector._create_connection

    async def dial_and_close(*args: Any) -> Any:
        protocol = await dial(*args)
        asyncio.get_running_loop().call_soon(connector._close)
        return protocol

    connector._create_connection = dial_and_close  # type: ignore[method-assign]
    async with LocalServer() as server, wirespeed.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectionError, match="Connector is closed"):
            await session.request(method, server.url("/ok"))


class Closing:
    """An observer that closes the connector when it hears of the end of a connection."""

    def __init__(self, connector: wirespeed.TCPConnector) -> None:
        self.connector = connector
        connector.add_observer(self)

    def request_ended(self, *args: object) -> None:
        """Not of interest."""

    def connection_closed(self, *args: object) -> None:
        # What close() does at once: a Unix socket's connector always, others in an eager task.
        self.connector._close()


async def test_connector_may_be_closed_by_an_observer_of_its_being_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with LocalServer() as server:
        connector = wirespeed.TCPConnector()
        Closing(connector)
        async with wirespeed.ClientSession(connector=connector) as session:
            await connector.prewarm(server.url(), 2)
            resp = await session.get(server.url("/half"))
            await connector.close()
            resp.close()
        assert not caplog.records
        assert connector.closed


async def test_connector_may_be_closed_by_an_observer_of_what_made_room() -> None:
    async with LocalServer() as server, LocalServer() as other:
        connector = wirespeed.TCPConnector(max_open=1)
        await connector.prewarm(server.url())
        Closing(connector)
        with pytest.raises(aiohttp.ClientConnectionError, match="closed"):
            await connector.prewarm(other.url())
        assert (connector.pool.in_use, connector.pool.dialling) == (0, 0)
        await connector.close()


# Dials whose caller was served otherwise


@pytest.mark.parametrize("max_waiters", [None, 0])
async def test_dials_that_nobody_waits_for_make_way(max_waiters: int | None) -> None:
    """A server takes no more connections; who waits for it is served by the one that it has."""
    connector = wirespeed.TCPConnector(limit=4, max_waiters=max_waiters)
    dial, dials = connector._create_connection, 0

    async def hang_from_the_second(req: Any, *args: Any) -> Any:
        nonlocal dials
        dials += req.url.port == port
        return await (asyncio.sleep(60) if req.url.port == port and dials > 1 else dial(req, *args))

    connector._create_connection = hang_from_the_second  # type: ignore[method-assign]
    async with (
        LocalServer() as server,
        LocalServer() as other,
        wirespeed.ClientSession(connector=connector) as session,
    ):
        port = URL(server.url()).port
        for _ in range(3):
            # Two at a time, on the one connection: the second begins to dial each time.
            await asyncio.gather(*[_read(session, server.url("/ok")) for _ in range(2)])
        assert connector.stats().dialling == 3
        async with session.get(server.url("/half")):
            with pytest.raises(wirespeed.PoolFull) if max_waiters == 0 else contextlib.nullcontext():
                await asyncio.wait_for(_read(session, other.url("/ok")), 5)
            await asyncio.sleep(1.1 if max_waiters == 0 else 0)
            await asyncio.wait_for(_read(session, other.url("/ok")), 5)


async def _read(session: wirespeed.ClientSession, url: str) -> bytes:
    async with session.get(url) as resp:
        return await resp.read()
