"""aioresponses: a mock that replaces `ClientSession._request`.

Version 0.7.9 cannot build a response on aiohttp 3.14, whoever makes the session; what does
not need its own responses works, and is tested with it. The rest is tested with a response
class that fills the gap, and through the hook that the mock uses.
"""

from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import aiohttp
import pytest
from support.local import LocalServer

from .scene import Scene, every_order, lane, native_only, need, run_script

aioresponses = need("aioresponses").aioresponses


class Response(aiohttp.ClientResponse):
    """What the mock builds, with the argument that it does not know of yet."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream_writer=SimpleNamespace(output_size=0), **kwargs)


def passing(url: str) -> Any:
    return aioresponses(passthrough=[url])


def hook() -> AbstractContextManager[mock.MagicMock]:
    """Patch aiohttp as the mock does."""

    async def answer(session: aiohttp.ClientSession, method: str, url: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(status=299, close=lambda: None, release=lambda: None)

    return mock.patch("aiohttp.client.ClientSession._request", side_effect=answer, autospec=True)


@pytest.mark.xfail(
    raises=TypeError,
    reason="aioresponses 0.7.9 gives ClientResponse no stream_writer, which aiohttp 3.14 needs",
)
async def test_responses_of_the_mock_on_plain_aiohttp() -> None:
    async with aiohttp.ClientSession() as session:
        with aioresponses() as mocked:
            mocked.get("http://mocked.invalid/", payload={"a": 1})
            assert await (await session.get("http://mocked.invalid/")).json() == {"a": 1}


@every_order
async def test_hook_answers_and_the_server_is_not_asked(order: str) -> None:
    async with LocalServer() as server, Scene(order, hook) as scene:
        resp = await scene.session.get(server.url("/ok"))
        assert resp.status == 299
        assert scene.tool.call_count == 1
        assert not server.connections
        await again_on_the_network(scene, server)


@every_order
async def test_mocked_response_and_the_server_is_not_asked(order: str) -> None:
    async with LocalServer() as server, Scene(order, aioresponses) as scene:
        scene.tool.post(server.url("/ok"), payload={"mocked": True}, response_class=Response)
        async with scene.session.post(server.url("/ok"), json={"a": 1}) as resp:
            assert await resp.json() == {"mocked": True}
        scene.tool.assert_called_once_with(server.url("/ok"), method="POST", json={"a": 1})
        assert not server.connections
        await again_on_the_network(scene, server)


@every_order
async def test_mocked_failure_is_raised_and_the_server_is_not_asked(order: str) -> None:
    async with LocalServer() as server, Scene(order, aioresponses) as scene:
        scene.tool.get(server.url("/ok"), exception=LookupError("mocked"))
        with pytest.raises(LookupError, match="mocked"):
            await scene.session.get(server.url("/ok"))
        assert not server.connections
        await again_on_the_network(scene, server)


@every_order
async def test_request_that_nobody_mocked_is_refused(order: str) -> None:
    async with LocalServer() as server, Scene(order, aioresponses) as scene:
        with pytest.raises(aiohttp.ClientConnectionError, match="Connection refused"):
            await scene.session.get(server.url("/ok"))
        assert not server.connections


@every_order
async def test_request_that_is_let_through_reaches_the_server(order: str) -> None:
    async with LocalServer() as server, Scene(order, lambda: passing(server.url("/ok"))) as scene:
        for _ in range(2):
            async with scene.session.get(server.url("/ok"), params={"a": "b"}) as resp:
                assert await resp.read() == b"ok"
        with pytest.raises(aiohttp.ClientConnectionError):
            await scene.session.get(server.url("/echo"))
        assert [x.target for x in server.exchanges] == ["/ok?a=b"] * 2


@every_order
async def test_sessions_made_while_the_mock_is_on_are_mocked_too(order: str) -> None:
    async with LocalServer() as server, Scene(order, aioresponses) as scene:
        async with scene.new_session() as session:
            with pytest.raises(aiohttp.ClientConnectionError, match="Connection refused"):
                await session.get(server.url("/ok"))
        with pytest.raises(aiohttp.ClientConnectionError, match="Connection refused"):
            async with aiohttp.request("GET", server.url("/ok")):
                pass
        assert not server.connections


async def again_on_the_network(scene: Scene, server: LocalServer) -> None:
    """Without the tool the requests are real, and fast."""
    scene.deactivate()
    with lane(scene.session, scene.lane()):
        async with scene.session.get(server.url("/ok")) as resp:
            assert await resp.read() == b"ok"
    async with scene.new_session() as session:
        with lane(session, "express"):
            async with session.get(server.url("/ok")) as resp:
                assert await resp.read() == b"ok"
    assert [x.path for x in server.exchanges] == ["/ok", "/ok"]


IMPORTED_WHILE_MOCKED = """
import asyncio, sys
import aiohttp
from aioresponses import aioresponses

async def main():
    with aioresponses() as mocked:
        import wirespeed
        if sys.argv[1] == "install":
            wirespeed.install()
        Session = aiohttp.ClientSession if sys.argv[1] == "install" else wirespeed.ClientSession
        async with Session() as session:
            try:
                await session.get("http://127.0.0.1:9/")
            except aiohttp.ClientConnectionError as exc:
                print(exc, "|", session.native_stats()["express"])
    async with Session() as session:
        try:
            await session.get("http://127.0.0.1:9/")
        except aiohttp.ClientConnectorError as exc:
            print(type(exc).__name__, "|", session.native_stats()["express"])

asyncio.run(main())
"""


@native_only
@pytest.mark.parametrize("how", ["direct", "install"])
def test_mock_that_is_on_when_wirespeed_is_imported(how: str) -> None:
    printed = run_script(IMPORTED_WHILE_MOCKED, how).splitlines()
    assert printed == ["Connection refused: GET http://127.0.0.1:9/ | 0", "ClientConnectorError | 1"]
