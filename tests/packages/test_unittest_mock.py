"""The mocks that tests write by hand, with nothing but `unittest.mock`, against aiohttp's names."""

import contextlib
from typing import Any
from unittest import mock

import aiohttp
import pytest
from support.local import LocalServer

import wirespeed

from .scene import Scene, every_order, lane


@every_order
async def test_request_patched_without_a_word_about_its_kind(order: str) -> None:
    """mock finds out by itself that `_request` is a coroutine function."""
    answer = mock.MagicMock(status=299)
    answer.__aenter__.return_value = answer
    async with LocalServer() as server:
        async with Scene(order, lambda: mock.patch("aiohttp.ClientSession._request")) as scene:
            scene.tool.return_value = answer
            assert await scene.session.get(server.url("/ok")) is answer
            async with scene.new_session() as session, session.post(server.url("/ok")) as resp:
                assert resp is answer
            assert [call.args[0] for call in scene.tool.await_args_list] == ["GET", "POST"]
        assert not server.connections


@every_order
async def test_method_patched_with_a_context_manager(order: str) -> None:
    async with (
        LocalServer() as server,
        Scene(order, lambda: mock.patch("aiohttp.ClientSession.get")) as scene,
    ):
        scene.tool.return_value.__aenter__.return_value.json = mock.AsyncMock(return_value={"a": 1})
        async with scene.session.get(server.url("/ok")) as resp:
            assert await resp.json() == {"a": 1}
        assert not server.connections
        scene.deactivate()
        with lane(scene.session, scene.lane()):
            async with scene.session.get(server.url("/ok")) as resp:
                assert await resp.text() == "ok"


@every_order
@pytest.mark.parametrize("name", ["read", "json", "text"])
async def test_method_of_the_response_patched(order: str, name: str) -> None:
    def activate() -> Any:
        return mock.patch(f"aiohttp.ClientResponse.{name}")

    async with LocalServer() as server, Scene(order, activate) as scene:
        scene.tool.return_value = "mocked"
        async with scene.session.get(server.url("/ok")) as resp:
            assert await getattr(resp, name)() == "mocked"
        scene.deactivate()
        async with scene.session.get(server.url("/ok")) as resp:
            assert await resp.read() == b"ok"


@every_order
async def test_connect_patched(order: str) -> None:
    refused = aiohttp.ClientConnectionError("mocked")
    async with LocalServer() as server:
        for name in ("BaseConnector.connect", "TCPConnector.connect", "TCPConnector._create_connection"):
            patch = mock.patch(f"aiohttp.{name}", side_effect=refused, create=True)
            async with Scene(order, lambda patch=patch: patch) as scene:
                with pytest.raises(aiohttp.ClientConnectionError, match="mocked"):
                    await scene.session.get(server.url("/ok"))
                assert not server.exchanges
                scene.deactivate()
                with lane(scene.session, scene.lane()):
                    await (await scene.session.get(server.url("/ok"))).read()
                server.exchanges.clear()


@every_order
async def test_session_s_own_attributes_replaced(order: str) -> None:
    """Tools, and tests, assign to a session: what is there at the request counts."""
    async with LocalServer() as server, Scene(order, mock.MagicMock) as scene:
        session: Any = scene.session
        with mock.patch.object(session, "_request", mock.AsyncMock(return_value=mock.Mock(status=299))):
            assert (await session.get(server.url("/ok"))).status == 299
        connect = mock.patch.object(session._connector, "connect", side_effect=LookupError("mocked"))
        with connect, pytest.raises(LookupError, match="mocked"):
            await session.get(server.url("/ok"))
        assert not server.connections
        async with session.get(server.url("/ok")) as resp:
            assert await resp.text() == "ok"


@pytest.mark.parametrize("is_installed", [False, True])
async def test_class_replaced_as_a_whole(is_installed: bool) -> None:
    with wirespeed.installed() if is_installed else contextlib.nullcontext():
        with mock.patch("aiohttp.ClientSession") as made:
            made.return_value.get.return_value.__aenter__.return_value.status = 299
            async with aiohttp.ClientSession().get("http://mocked.invalid/") as resp:
                assert resp.status == 299
        assert isinstance(mock.create_autospec(aiohttp.ClientSession, instance=True), aiohttp.ClientSession)
        assert isinstance(mock.AsyncMock(spec=aiohttp.ClientResponse), aiohttp.ClientResponse)
        async with aiohttp.ClientSession() as session:
            assert isinstance(session, aiohttp.ClientSession)
