"""What the express lane owes its callers at the edges: time, sharing, and ends in the middle."""

import asyncio
import contextlib
import gc
import io
import sys
import time
import weakref
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.checks import assert_express, eventually, express_session
from support.local import LocalServer

import wirespeed

native_only = pytest.mark.skipif(
    not wirespeed.NATIVE, reason="aiohttp's own readers hang, or are cancelled, here"
)
NO_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"


@pytest.mark.parametrize(
    "timeout",
    [
        aiohttp.ClientTimeout(total=sys.maxsize),
        aiohttp.ClientTimeout(total=1e17),
        aiohttp.ClientTimeout(sock_read=float("inf")),
        aiohttp.ClientTimeout(sock_read=sys.maxsize),
    ],
    ids=["total of maxsize", "total of 1e17", "sock_read infinite", "sock_read of maxsize"],
)
async def test_timeout_of_ages_is_no_timeout(timeout: aiohttp.ClientTimeout) -> None:
    async with LocalServer() as server, express_session(timeout=timeout) as session:
        async with session.get(server.url("/ok")) as resp:
            assert await resp.read() == b"ok"
        await asyncio.sleep(0.01)


async def test_keepalive_timeout_of_ages_keeps_connections() -> None:
    async with LocalServer() as server:
        connector = wirespeed.TCPConnector(keepalive_timeout=sys.maxsize)
        async with express_session(connector=connector) as session:
            for _ in range(2):
                await (await session.get(server.url("/ok"))).read()
            assert len(server.connections) == 1


@native_only
async def test_closing_the_session_ends_a_body_without_a_length() -> None:
    async with LocalServer(raw=True) as server:
        server.on_data = lambda connection, _: connection.transport.write(NO_LENGTH)
        async with express_session() as session:
            resp = await session.get(server.url())
            other = await session.get(server.url())
            reader = asyncio.ensure_future(resp.content.readexactly(100))
            await asyncio.sleep(0.01)
            await session.close()
            with pytest.raises((aiohttp.ClientError, RuntimeError)):
                await asyncio.wait_for(reader, 2)
            await eventually(lambda: not server.open, "connections closed")
            other.close()


@pytest.mark.parametrize("end", ["close", "release"])
async def test_ending_a_response_wakes_the_task_that_reads_it(end: str) -> None:
    async with LocalServer() as server, express_session() as session:
        resp = await session.get(server.url("/half"))
        reader = asyncio.ensure_future(resp.read())
        await asyncio.sleep(0.01)
        getattr(resp, end)()
        with pytest.raises(aiohttp.ClientConnectionError, match="Connection closed"):
            await asyncio.wait_for(reader, 2)


async def test_looking_at_the_stream_does_not_stop_a_read() -> None:
    size = 3_000_000
    async with LocalServer() as server, express_session() as session:
        resp = await session.get(server.url(f"/bytes?n={size}"))
        reader = asyncio.ensure_future(resp.read())
        while not reader.done():
            assert 0 <= resp.content.total_bytes <= size
            await asyncio.sleep(0)
        assert len(await reader) == size


async def test_connection_that_expired_while_the_loop_was_held_up_is_not_reused() -> None:
    async with LocalServer() as server:
        connector = wirespeed.TCPConnector(keepalive_timeout=0.05)
        async with express_session(connector=connector) as session:
            await (await session.get(server.url("/ok"))).read()
            time.sleep(0.1)  # noqa: ASYNC251 - holding up the loop is the point
            await (await session.post(server.url("/ok"))).read()
            assert len(server.connections) == 2


async def test_upload_shorter_than_its_length_spoils_the_connection() -> None:
    async def short() -> AsyncIterator[bytes]:
        yield b"12345"

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with LocalServer(raw=True) as server:
        server.on_data = lambda connection, _: connection.transport.write(answer)
        async with wirespeed.ClientSession() as session:
            headers = {"Content-Length": "10"}
            await (await session.post(server.url(), data=short(), headers=headers)).read()
            await (await session.get(server.url())).read()
            if wirespeed.NATIVE:
                assert_express(session)
                # aiohttp sends the second request where the server still reads the first one's body.
                assert len(server.connections) == 2


@native_only
async def test_cancelled_producer_of_an_upload_ends_the_request() -> None:
    async def cancelled() -> AsyncIterator[bytes]:
        yield b"first"
        raise asyncio.CancelledError

    async with LocalServer() as server, wirespeed.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(session.post(server.url("/echo"), data=cancelled()), 2)
        async with session.get(server.url("/ok")) as resp:
            assert await resp.read() == b"ok"


async def test_failing_to_send_gives_the_slot_back() -> None:
    connector = wirespeed.TCPConnector(limit=1)
    async with LocalServer() as server, wirespeed.ClientSession(connector=connector) as session:
        bad: Any = aiohttp.ClientTimeout(sock_read="5")  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(TypeError):
                await session.get(server.url("/ok"), timeout=bad)
        resp = await session.get(server.url("/ok"), timeout=aiohttp.ClientTimeout(total=2))
        assert await resp.read() == b"ok"


async def test_late_bytes_on_a_granted_connection_do_not_fail_the_request() -> None:
    """Bytes arrive on an idle connection in the poll in which it was granted to a waiter."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

    def serve(connection: Any, _: bytes) -> None:
        connection.transport.write(answer)
        asyncio.get_running_loop().call_soon(connection.transport.write, b"late")

    async with LocalServer(raw=True) as server:
        server.on_data = serve
        async with wirespeed.ClientSession(connector=wirespeed.TCPConnector(limit=2)) as session:

            async def ask() -> int:
                async with session.get(server.url()) as resp:
                    return resp.status

            results = await asyncio.gather(*(ask() for _ in range(60)), return_exceptions=True)
            unexpected = [r for r in results if r != 200 and not isinstance(r, aiohttp.ClientError)]
            assert not unexpected


async def test_output_size_counts_head_and_body() -> None:
    async with LocalServer() as server, express_session() as session:
        for data in (None, b"x" * 100, io.BytesIO(b"y" * 200_000)):
            async with session.post(server.url("/echo"), data=data) as resp:
                await resp.read()
                with pytest.warns(DeprecationWarning, match="output_size"):
                    sent = resp.output_size
            exchange = server.exchanges[-1]
            assert sent == len(exchange.head) + len(b"\r\n") + exchange.body_size


class _Lazy(asyncio.Transport):
    """Somebody's transport: it cannot be given another protocol."""

    def __init__(self, inner: Any, says: bool) -> None:
        super().__init__()
        self._inner, self._says = inner, says

    def __getattribute__(self, name: str) -> Any:
        if name in ("set_protocol", "get_protocol", "__class__", "_inner", "_says"):
            return super().__getattribute__(name)
        return getattr(super().__getattribute__("_inner"), name)

    def set_protocol(self, protocol: Any) -> None:
        if self._says:
            raise NotImplementedError

    def get_protocol(self) -> Any:
        return self._inner.get_protocol()


@pytest.mark.parametrize("says", [True, False], ids=["says so", "pretends"])
async def test_transport_that_cannot_change_hands_is_served_by_aiohttp(says: bool) -> None:
    class Connector(wirespeed.TCPConnector):
        async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
            protocol = await super()._create_connection(req, traces, timeout)
            protocol.transport = _Lazy(protocol.transport, says)
            return protocol

    async with LocalServer() as server, wirespeed.ClientSession(connector=Connector(limit=2)) as session:
        for _ in range(4):
            async with session.get(server.url("/ok")) as resp:
                assert await resp.read() == b"ok"
        if wirespeed.NATIVE:
            assert session.connector.pool.in_use == 0
            assert session.native_stats()["full"]["foreign connector"] >= 3


@native_only
async def test_hosts_of_requests_that_are_refused_are_forgotten() -> None:
    async with wirespeed.ClientSession() as session:
        for number in range(5):
            with pytest.raises(ValueError, match=r"header|control"):
                await session.get(f"http://127.0.0.{number}:1/", headers={"X-A": "a\r\nb"})
        assert not session.connector.pool.hosts


async def test_failed_request_leaves_no_cycle() -> None:
    class Payload:
        """Something large of the caller's."""

    async def fail(session: Any, url: str) -> Any:
        payload = Payload()
        with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
            await session.get(url, timeout=aiohttp.ClientTimeout(total=0.05))
        return weakref.ref(payload)

    async with LocalServer() as server, wirespeed.ClientSession() as session:
        gc.collect()
        gc.disable()
        try:
            reference = await fail(session, server.url("/hang"))
            await asyncio.sleep(0)
            assert reference() is None
        finally:
            gc.enable()


@pytest.mark.skipif(not wirespeed.NATIVE, reason="the fallback queues in aiohttp")
@pytest.mark.parametrize("limits", [{"total": 0.05}, {"connect": 0.05}], ids=repr)
async def test_observers_are_told_once_of_a_request_that_timed_out_in_the_queue(
    limits: dict[str, float],
) -> None:
    told: list[Any] = []

    class Observer:
        def request_ended(self, *arguments: Any) -> None:
            told.append(arguments)

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: None

    connector = wirespeed.TCPConnector(limit=1)
    async with (
        LocalServer() as server,
        wirespeed.ClientSession(connector=connector) as session,
        session.get(server.url("/half")),
    ):
        connector.add_observer(Observer())  # type: ignore[arg-type]
        with pytest.raises(asyncio.TimeoutError):
            await session.get(server.url("/ok"), timeout=wirespeed.ClientTimeout(**limits))
        assert [(arguments[1], arguments[2]) for arguments in told] == [("GET", None)]
