"""The connectors where somebody looks into them, or puts something else in a connection's place."""

import asyncio
from typing import Any
from unittest import mock

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from support.checks import eventually, express_session, nothing_left
from support.local import LocalServer
from yarl import URL

import wirespeed


def _request() -> ClientRequest:
    return ClientRequest("GET", URL("http://mocked.host/"), loop=asyncio.get_running_loop())


async def test_private_containers_show_the_connections_of_the_pool() -> None:
    async with LocalServer() as server, LocalServer() as other:
        connector: Any = wirespeed.TCPConnector()
        async with express_session(connector=connector, at_least=3) as session:
            assert (len(connector._conns), len(connector._acquired)) == (0, 0)
            resp = await session.get(server.url("/half"))
            (conn,) = connector._acquired
            assert conn.is_connected()
            assert conn in connector._acquired
            assert not connector._conns
            resp.close()
            assert not connector._acquired
            assert not conn.is_connected()
            for at in (server, other):
                await (await session.get(at.url("/ok"))).read()
            assert len(connector._conns) == 2
            ((conn, idle_since),) = next(iter(connector._conns.values()))
            assert conn.transport.get_extra_info("peername") is not None
            assert idle_since > 0
            assert list(connector._conns) == list(connector._conns.keys())
            assert all(key in connector._conns and len(kept) == 1 for key, kept in connector._conns.items())
            if wirespeed.NATIVE:
                assert repr(connector._conns).count("IDLE") == 2
        assert not connector._conns


async def test_private_containers_are_empty_once_the_server_closed() -> None:
    async with LocalServer() as server:
        connector: Any = wirespeed.TCPConnector()
        async with express_session(connector=connector) as session:
            await (await session.get(server.url("/ok"))).read()
            server.connections[0].transport.close()
            if wirespeed.NATIVE:
                await eventually(lambda: not connector._conns, "idle connection dropped")


async def test_what_a_test_puts_in_a_connections_place_is_handed_on() -> None:
    protocol = mock.create_autospec(ResponseHandler, instance=True)
    protocol.closed = None
    async with wirespeed.TCPConnector(limit=1) as connector:
        for _ in range(3):
            with mock.patch.object(connector, "_create_connection", mock.AsyncMock(return_value=protocol)):
                conn = await connector.connect(_request(), [], aiohttp.ClientTimeout())
            assert conn.protocol is protocol
            conn.close()
            assert protocol.close.called


async def test_kept_stand_ins_are_closed_with_the_connector() -> None:
    protocol = mock.create_autospec(ResponseHandler, instance=True, should_close=False, closed=None)
    connector = wirespeed.TCPConnector()
    with mock.patch.object(connector, "_create_connection", mock.AsyncMock(return_value=protocol)):
        (await connector.connect(_request(), [], aiohttp.ClientTimeout())).release()
    assert len(connector._conns) == 1
    connector._cleanup()
    assert len(connector._conns) == 1
    assert not protocol.abort.called
    await connector.close()
    assert protocol.abort.called
    assert not connector._conns


async def test_connect_takes_no_traces_for_none() -> None:
    async with wirespeed.TCPConnector() as connector:
        failing = mock.patch.object(connector, "_create_connection", side_effect=OSError("unreachable"))
        with failing, pytest.raises(OSError, match="unreachable"):
            await connector.connect(_request(), None, aiohttp.ClientTimeout())  # type: ignore[arg-type]


class _Losing(wirespeed.TCPConnector):
    """Every new connection is lost before its caller gets to it."""

    dials = 0

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        protocol = await super()._create_connection(req, traces, timeout)
        self.dials += 1
        # After what adopts it, before what the caller does.
        self._loop.call_soon(self._loop.call_soon, self._lose)
        return protocol

    def _lose(self) -> None:
        for conn in self.pool.connections():
            conn.close()


@pytest.mark.skipif(not wirespeed.NATIVE, reason="the fallback has no pool of ours")
async def test_new_connections_that_are_lost_at_once_are_not_dialled_for_ever() -> None:
    async with LocalServer() as server, nothing_left():
        connector = _Losing()
        async with wirespeed.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.get(server.url("/ok"))
        # Once, and once more since GET is idempotent.
        assert connector.dials == 2
        assert connector.stats().in_use == connector.stats().dialling == 0


# What a connector tells


async def test_one_line_names_the_limits() -> None:
    async with wirespeed.TCPConnector(limit=20, limit_per_host=3, max_open=10) as connector:
        line = repr(connector)
    assert line.startswith("<TCPConnector: 0 in use, 0 dialling, 0 idle, 0 waiting; limit ")
    assert line.endswith(", 3 per host, max_open 10; 0 created, 0 reused>")
    assert repr(connector).startswith("<TCPConnector closed: ")


async def test_an_address_takes_no_time_to_resolve() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        for host in ("127.0.0.1", "localhost"):
            async with session.get(server.url("/ok").replace("127.0.0.1", host)) as resp:
                assert resp.timings is not None
                assert (resp.timings.dns > 0) == (host == "localhost")


@pytest.mark.parametrize("origin", ["elsewhere", "ftp://elsewhere.example", URL("/path")])
async def test_prewarming_needs_an_origin(origin: Any) -> None:
    async with wirespeed.ClientSession() as session:
        for prewarm in (session.prewarm, session.connector.prewarm):  # type: ignore[union-attr]
            with pytest.raises(ValueError, match=f"an absolute http or https URL, not '{origin}'"):
                await prewarm(origin)
