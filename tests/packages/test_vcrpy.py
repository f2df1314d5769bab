"""vcrpy: a recorder that replaces `ClientSession._request`, and replays without a network."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.local import LocalServer

from .scene import Scene, every_order, lane, native_only, need, run_script, support_folder

vcr = need("vcr")


def recorder(folder: Path, mode: str = "once") -> Any:
    def activate() -> AbstractContextManager[Any]:
        cassette: AbstractContextManager[Any] = vcr.VCR(record_mode=mode).use_cassette(
            str(folder / "cassette.yaml")
        )
        return cassette

    return activate


async def ask(session: aiohttp.ClientSession, server: LocalServer) -> list[Any]:
    """Requests of several kinds, and what came of them."""
    told: list[Any] = []
    async with session.get(server.url("/ok"), params={"a": "b"}) as resp:
        told.append((resp.status, await resp.read(), resp.url.query["a"]))
    async with session.post(server.url("/echo"), json={"x": [1]}, headers={"X-Test": "yes"}) as resp:
        answer = await resp.json()
        told.append((resp.status, answer["method"], answer["body"], ["X-Test", "yes"] in answer["headers"]))
    async with session.get(server.url("/redirect?to=/bytes%3Fn=70000")) as resp:
        told.append((resp.status, [r.status for r in resp.history], len(await resp.read())))
    async with session.get(server.url("/status?n=404")) as resp:
        told.append((resp.status, await resp.text()))
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        await session.get(server.url("/status?n=500"), raise_for_status=True)
    told.append(caught.value.status)
    return told


REQUESTS = 6  # of one `ask`, the redirect included


@every_order
async def test_recorded_once_and_replayed_with_the_server_down(order: str, tmp_path: Path) -> None:
    async with LocalServer() as server, Scene(order, recorder(tmp_path)) as scene:
        recorded = await ask(scene.session, server)
        assert len(server.exchanges) == REQUESTS
        assert len(scene.tool) == REQUESTS
    async with Scene(order, recorder(tmp_path, "none")) as scene:
        # Nobody listens on the port any more.
        assert await ask(scene.session, server) == recorded
        assert scene.tool.play_count == REQUESTS
    assert len(server.exchanges) == REQUESTS


@every_order
async def test_replay_asks_nothing_of_a_server_that_is_up(order: str, tmp_path: Path) -> None:
    async with LocalServer() as server:
        async with Scene(order, recorder(tmp_path)) as scene:
            await (await scene.session.get(server.url("/ok"))).read()
        accepted = len(server.connections)
        async with Scene(order, recorder(tmp_path, "none")) as scene:
            async with scene.session.get(server.url("/ok")) as resp:
                assert await resp.read() == b"ok"
            with pytest.raises(vcr.errors.CannotOverwriteExistingCassetteException):
                await scene.session.get(server.url("/echo"))
        assert len(server.connections) == accepted
        assert len(server.exchanges) == 1


@every_order
async def test_express_again_when_the_cassette_is_out(order: str, tmp_path: Path) -> None:
    async with LocalServer() as server, Scene(order, recorder(tmp_path)) as scene:
        await (await scene.session.get(server.url("/ok"))).read()
        scene.deactivate()
        with lane(scene.session, scene.lane()):
            async with scene.session.get(server.url("/ok")) as resp:
                assert await resp.read() == b"ok"
        async with scene.new_session() as session:
            with lane(session, "express"):
                await (await session.get(server.url("/ok"))).read()
        assert len(server.exchanges) == 3


IMPORT_ORDERS = """
import asyncio, sys, tempfile
sys.path.insert(0, sys.argv[2])
steps = sys.argv[1].split()

async def ask(session, url):
    async with session.get(url) as resp:
        return await resp.text()

async def main():
    from support.local import LocalServer
    async with LocalServer() as server:
        with tempfile.TemporaryDirectory() as folder:
            for mode in ("once", "none"):
                if mode == "none":
                    server._server.close()
                done = False
                for step in steps:
                    if step == "aiohttp": import aiohttp
                    elif step == "vcr": import vcr
                    elif step == "wirespeed": import wirespeed
                    elif step == "install": wirespeed.install()
                    elif step == "uninstall": wirespeed.uninstall()
                    elif step == "use":
                        with vcr.VCR(record_mode=mode).use_cassette(folder + "/c.yaml") as cassette:
                            for cls in dict.fromkeys([aiohttp.ClientSession, wirespeed.ClientSession]):
                                async with cls() as session:
                                    assert await ask(session, server.url("/ok")) == "ok"
                        done = True
                assert done
        print(len(server.exchanges))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "steps",
    [
        "aiohttp vcr wirespeed use",
        "aiohttp wirespeed vcr use",
        "aiohttp vcr wirespeed install use",
        "aiohttp wirespeed install vcr use",
        "wirespeed install vcr aiohttp use uninstall",
        "aiohttp wirespeed install vcr uninstall use",
        "aiohttp wirespeed install vcr use uninstall",
    ],
    ids=lambda steps: steps.replace(" ", "-"),
)
def test_recorded_and_replayed_whatever_was_imported_first(steps: str) -> None:
    assert run_script(IMPORT_ORDERS, steps, support_folder()) in ("1\n", "2\n")


CASSETTE_AT_IMPORT = """
import asyncio, sys
import vcr, aiohttp

async def main():
    with vcr.VCR(record_mode="none").use_cassette("/nonexistent/c.yaml"):
        import wirespeed
        if sys.argv[1] == "install":
            wirespeed.install()
        Session = aiohttp.ClientSession if sys.argv[1] == "install" else wirespeed.ClientSession
        async with Session() as session:
            try:
                await session.get("http://127.0.0.1:9/")
            except vcr.errors.CannotOverwriteExistingCassetteException:
                print("refused")
    async with Session() as session:
        try:
            await session.get("http://127.0.0.1:9/")
        except aiohttp.ClientConnectorError as exc:
            print(type(exc).__name__, session.native_stats()["express"])

asyncio.run(main())
"""


@native_only
@pytest.mark.parametrize("how", ["direct", "install"])
def test_cassette_that_is_in_when_wirespeed_is_imported(how: str) -> None:
    assert run_script(CASSETTE_AT_IMPORT, how) == "refused\nClientConnectorError 1\n"
