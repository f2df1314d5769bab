"""pytest-aiohttp: its fixtures make an `aiohttp.test_utils.TestClient`, whose session the module imported."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import wirespeed

from .scene import need

need("pytest_aiohttp")

CONFTEST = """
import asyncio
import pytest
{prologue}

@pytest.fixture(scope="session")
def event_loop_policy():
    if {loop!r} == "uvloop":
        import uvloop
        return uvloop.EventLoopPolicy()
    return asyncio.DefaultEventLoopPolicy()
"""

# The tests of a program written for aiohttp; only the last one knows of wirespeed.
TESTS = """
import aiohttp, pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

async def hello(request):
    return web.json_response({"q": request.query.get("q"), "body": await request.text()})

async def chat(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str("echo " + message.data)
    return ws

@pytest.fixture
async def client(aiohttp_client):
    app = web.Application()
    app.router.add_route("*", "/", hello)
    app.router.add_get("/chat", chat)
    return await aiohttp_client(app, headers={"X-Session": "1"})

async def test_requests(client):
    for n in range(3):
        resp = await client.get("/", params={"q": n})
        assert isinstance(resp, aiohttp.ClientResponse)
        assert await resp.json() == {"q": str(n), "body": ""}
    async with client.post("/", json=[1]) as resp:
        assert (await resp.json())["body"] == "[1]"
    assert (await client.get("/nothing")).status == 404

async def test_websocket(client):
    async with client.ws_connect("/chat") as ws:
        await ws.send_str("hi")
        assert await ws.receive_str() == "echo hi"

async def test_server_fixture(aiohttp_server):
    app = web.Application()
    app.router.add_get("/", hello)
    server = await aiohttp_server(app)
    async with aiohttp.ClientSession() as session:
        assert (await session.get(server.make_url("/"))).status == 200

async def test_raw_server_fixture(aiohttp_raw_server, aiohttp_client):
    async def handler(request):
        return web.Response(text=request.path)
    client = await aiohttp_client(await aiohttp_raw_server(handler))
    assert await (await client.get("/raw")).text() == "/raw"

class Own(TestClient):
    async def said(self):
        return (await (await self.get("/")).json())["q"]

class TestOwnClass:
    @pytest.fixture
    def aiohttp_client_cls(self):
        return Own

    async def test_it(self, client):
        assert await client.said() is None

async def test_lane(client):
    import wirespeed
    await (await client.get("/")).read()
    is_ours = isinstance(client.session, wirespeed.ClientSession)
    assert is_ours is {is_installed}
    if is_ours and wirespeed.NATIVE:
        assert client.session.native_stats() == {{"express": 1, "full": {{}}}}
"""


@pytest.mark.parametrize(
    ("prologue", "is_installed", "loop"),
    [
        ("import wirespeed", False, "asyncio"),
        ("import wirespeed; wirespeed.install()", True, "asyncio"),
        ("import wirespeed; wirespeed.install()", True, "uvloop"),
        ("import aiohttp.test_utils, wirespeed; wirespeed.install()", True, "uvloop"),
    ],
    ids=["imported-asyncio", "installed-asyncio", "installed-uvloop", "installed-late-uvloop"],
)
def test_fixtures_of_a_program_s_own_tests(
    prologue: str, is_installed: bool, loop: str, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text(textwrap.dedent(CONFTEST.format(prologue=prologue, loop=loop)))
    body, last = TESTS.split("async def test_lane")
    last = ("async def test_lane" + last).format(is_installed=is_installed)
    (tmp_path / "test_program.py").write_text(body + last)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings =\n    error\n    ignore:.*event_loop_policy.*\n    ignore:.*EventLoopPolicy.*\n"
    )
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:ddtrace", "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "WIRESPEED_NO_EXTENSIONS": "" if wirespeed.NATIVE else "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert "6 passed" in done.stdout
