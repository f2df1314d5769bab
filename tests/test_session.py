"""The session as a drop-in: signatures, life cycle, warnings, limits and keep-alive."""
# ruff: noqa: SIM117 (nested blocks show what outlives what)

import asyncio
import gc
import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_exceptions import UnixClientConnectorError
from support.checks import assert_express, eventually, express_session, nothing_left
from support.local import Exchange, LocalServer

import wirespeed
from wirespeed.pooling import PoolOptions

SIGNATURES = [
    "ClientSession",
    *(f"ClientSession.{name}" for name in ("request", "get", "options", "head", "post", "put", "patch")),
    *(f"ClientSession.{name}" for name in ("delete", "ws_connect", "close", "detach")),
    "TCPConnector",
    "TCPConnector.close",
    "TCPConnector.connect",
    "UnixConnector",
    "UnixConnector.close",
    "ClientResponse.read",
    "ClientResponse.text",
    "ClientResponse.json",
    "ClientResponse.release",
    "ClientResponse.close",
    "ClientResponse.raise_for_status",
    "request",
]


def _resolve(module: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        module = getattr(module, name)
    return module


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_is_aiohttps(name: str) -> None:
    ours = inspect.signature(_resolve(wirespeed, name))
    if name.endswith("Connector"):
        # Behind aiohttp's parameters come those of the pool.
        theirs = [p for p in ours.parameters.values() if p.name not in PoolOptions.__dataclass_fields__]
        ours = ours.replace(parameters=theirs)
    assert ours == inspect.signature(_resolve(aiohttp, name))


def test_public_attributes_of_aiohttps_classes_are_all_there() -> None:
    for name in ("ClientSession", "TCPConnector", "UnixConnector", "ClientResponse"):
        public = {member for member in dir(getattr(aiohttp, name)) if not member.startswith("_")}
        assert public <= set(dir(getattr(wirespeed, name))), name


def test_classes_are_subclasses_of_aiohttps() -> None:
    assert issubclass(wirespeed.ClientSession, aiohttp.ClientSession)
    assert issubclass(wirespeed.TCPConnector, aiohttp.TCPConnector)
    assert issubclass(wirespeed.UnixConnector, aiohttp.UnixConnector)
    assert issubclass(wirespeed.ClientResponse, aiohttp.ClientResponse)


async def test_objects_in_use_are_instances_of_both_packages_classes() -> None:
    async with LocalServer() as server, express_session() as session:
        assert isinstance(session, aiohttp.ClientSession)
        assert isinstance(session.connector, aiohttp.TCPConnector)
        assert isinstance(session.connector, wirespeed.TCPConnector)
        async with session.get(server.url("/ok")) as resp:
            assert isinstance(resp, aiohttp.ClientResponse)
            assert isinstance(resp, wirespeed.ClientResponse)
            assert isinstance(resp.content, aiohttp.StreamReader)


def test_whole_program_runs_with_wirespeed_imported_as_aiohttp() -> None:
    program = """
        import asyncio
        import wirespeed as aiohttp

        async def hello(request: aiohttp.web.Request) -> aiohttp.web.Response:
            body = await request.json()
            return aiohttp.web.json_response({"hello": body["name"]}, headers={"X-Server": "web"})

        async def main() -> None:
            app = aiohttp.web.Application()
            app.router.add_post("/hello", hello)
            runner = aiohttp.web.AppRunner(app)
            await runner.setup()
            site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            timeout = aiohttp.ClientTimeout(total=10)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}/", timeout=timeout) as session:
                async with session.post("hello", json={"name": "you"}) as resp:
                    resp.raise_for_status()
                    print(await resp.json(), resp.headers["X-Server"])
                try:
                    async with session.get("missing", raise_for_status=True):
                        pass
                except aiohttp.ClientResponseError as exc:
                    print(exc.status)
            await runner.cleanup()

        aiohttp.run(main())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "{'hello': 'you'} web\n404\n"


async def test_subclass_warns_as_aiohttps_and_works() -> None:
    with pytest.warns(DeprecationWarning, match="Inheritance class Mine from ClientSession is discouraged"):

        class Mine(wirespeed.ClientSession):
            async def _request(self, *args: Any, **kwargs: Any) -> aiohttp.ClientResponse:
                kwargs["headers"] = {"X-Mine": "1"}
                return await super()._request(*args, **kwargs)

    async with LocalServer() as server, Mine() as session:
        async with session.get(server.url("/echo")) as resp:
            assert ["X-Mine", "1"] in (await resp.json())["headers"]


def test_session_outside_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        wirespeed.ClientSession()
    with pytest.raises(RuntimeError, match="no running event loop"):
        wirespeed.TCPConnector()


async def test_module_level_request_closes_everything_it_opened() -> None:
    async with LocalServer() as server:
        async with wirespeed.request("POST", server.url("/echo"), json=[1], cookies={"a": "b"}) as resp:
            seen = await resp.json()
        assert (seen["method"], seen["body"]) == ("POST", "[1]")
        assert ["Cookie", "a=b"] in seen["headers"]
        await eventually(lambda: not server.open, "connection closed")


def _collect_errors(loop: asyncio.AbstractEventLoop) -> list[str]:
    messages: list[str] = []
    loop.set_exception_handler(lambda _, context: messages.append(context["message"]))
    return messages


def _drop(holder: list[Any]) -> None:
    """Let go of what only `holder` refers to."""
    holder.clear()
    gc.collect()


async def test_unclosed_session_warns_and_tells_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    messages = _collect_errors(loop)
    holder = [wirespeed.ClientSession()]
    with pytest.warns(ResourceWarning, match="Unclosed client session"):
        _drop(holder)
    assert messages == ["Unclosed client session"]


async def test_unclosed_connector_with_an_idle_connection_warns(loop: asyncio.AbstractEventLoop) -> None:
    messages = _collect_errors(loop)
    async with LocalServer() as server:
        holder = [wirespeed.TCPConnector()]
        async with wirespeed.ClientSession(connector=holder[0], connector_owner=False) as session:
            assert await _get(session, server.url("/ok")) == b"ok"
        del session
        with pytest.warns(ResourceWarning, match="Unclosed connector"):
            _drop(holder)
        assert messages == ["Unclosed connector"]
        await eventually(lambda: not server.open, "idle connection closed with its connector")


async def test_unused_connector_may_be_dropped_silently(loop: asyncio.AbstractEventLoop) -> None:
    messages = _collect_errors(loop)
    _drop([wirespeed.TCPConnector()])
    assert messages == []


async def test_response_dropped_unread_warns_in_debug_mode_alone(loop: asyncio.AbstractEventLoop) -> None:
    messages = _collect_errors(loop)
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        _drop([await session.get(server.url("/half"))])
        assert messages == []
        if wirespeed.NATIVE:
            # aiohttp's own connection refers to the unread response through its stream's
            # end-of-body callbacks: it is never collected there, so it cannot warn.
            await eventually(lambda: not server.open, "connection of the unread response closed")
            loop.set_debug(True)
            holder = [await session.get(server.url("/half"))]
            with pytest.warns(ResourceWarning, match="Unclosed response"):
                _drop(holder)
            loop.set_debug(False)
            assert "Unclosed response" in messages


async def test_closing_twice_is_harmless_and_requests_are_refused_after() -> None:
    async with LocalServer() as server:
        session = wirespeed.ClientSession()
        async with session.get(server.url("/ok")):
            pass
        await session.close()
        await session.close()
        assert session.closed
        with pytest.raises(RuntimeError, match="Session is closed"):
            await session.get(server.url("/ok"))
        assert len(server.exchanges) == 1


async def test_close_ends_running_and_waiting_requests() -> None:
    async with LocalServer() as server, nothing_left():
        session = wirespeed.ClientSession(connector=wirespeed.TCPConnector(limit=2))
        tasks = [asyncio.ensure_future(session.get(server.url("/hold"))) for _ in range(5)]
        await eventually(lambda: len(server.held) == 2, "two requests running")
        await session.close()
        done, pending = await asyncio.wait(tasks, timeout=5)
        assert not pending
        for task in done:
            if not task.cancelled():
                assert isinstance(task.exception(), aiohttp.ClientConnectionError)
        assert len(server.exchanges) == 2


async def test_close_while_a_body_is_read_ends_the_reader() -> None:
    async with LocalServer() as server, nothing_left():
        session = wirespeed.ClientSession()
        resp = await session.get(server.url("/half"))
        reader = asyncio.ensure_future(resp.read())
        await asyncio.sleep(0)
        await session.close()
        if not wirespeed.NATIVE:
            # aiohttp forgets the reader: it hangs until its own timeout (300 s by default).
            reader.cancel()
        with pytest.raises((RuntimeError, asyncio.CancelledError)):
            await asyncio.wait_for(reader, 5)
        resp.close()


async def test_reading_after_the_session_was_closed_says_so() -> None:
    async with LocalServer() as server, nothing_left():
        async with wirespeed.ClientSession() as session:
            resp = await session.get(server.url("/half"))
        with pytest.raises(RuntimeError, match=r"^Connection closed\.$"):
            await resp.read()


async def test_connector_shared_by_two_sessions_outlives_them() -> None:
    async with LocalServer() as server, wirespeed.TCPConnector() as connector:
        for _ in range(2):
            async with express_session(connector=connector, connector_owner=False) as session:
                async with session.get(server.url("/ok")) as resp:
                    assert await resp.read() == b"ok"
            assert not connector.closed
        assert len(server.connections) == 1


async def test_detached_session_leaves_its_connector_open() -> None:
    async with LocalServer() as server:
        session = wirespeed.ClientSession()
        connector = session.connector
        assert connector is not None
        session.detach()
        assert session.closed
        assert session.connector is None
        async with express_session(connector=connector) as other:
            async with other.get(server.url("/ok")) as resp:
                assert resp.status == 200
        assert connector.closed


async def test_default_headers_changed_later_are_used() -> None:
    async with LocalServer() as server, express_session(headers={"X-One": "1"}) as session:
        session.headers["X-Two"] = "2"
        async with session.get(server.url("/echo")) as resp:
            seen = dict((await resp.json())["headers"])
        assert (seen["X-One"], seen["X-Two"]) == ("1", "2")
        session._default_headers = type(session.headers)({"X-Three": "3"})
        async with session.get(server.url("/echo")) as resp:
            seen = dict((await resp.json())["headers"])
        assert seen["X-Three"] == "3"
        assert "X-One" not in seen


async def test_connector_assigned_later_is_used() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        first = session.connector
        assert first is not None
        session._connector = wirespeed.TCPConnector(force_close=True)
        for _ in range(2):
            async with session.get(server.url("/ok")) as resp:
                await resp.read()
        assert len(server.connections) == 2
        await first.close()
        assert_express(session)


async def test_json_text_params_cookies_and_base_url() -> None:
    async with LocalServer() as server:
        server.routes["/set"] = lambda x: x.respond(200, b"", [("Set-Cookie", "jar=full; Path=/")])
        jar = aiohttp.CookieJar(unsafe=True)
        async with express_session(base_url=server.url("/"), cookie_jar=jar, at_least=4) as session:
            async with session.get("set") as resp:
                assert resp.cookies["jar"].value == "full"
            async with session.post("echo", params={"q": "a b"}, json={"k": [1]}) as resp:
                seen = await resp.json()
            assert (seen["target"], json.loads(seen["body"])) == ("/echo?q=a+b", {"k": [1]})
            assert ["Cookie", "jar=full"] in seen["headers"]
            async with session.put("echo", data="grüße") as resp:
                assert "gr\u00c3\u00bc\u00c3\u009fe" in json.loads(await resp.text())["body"]
            async with session.head("ok") as resp:
                assert (resp.status, resp.headers["Content-Length"], await resp.read()) == (200, "2", b"")


async def test_requests_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with LocalServer(path=path) as server:
        async with express_session(connector=wirespeed.UnixConnector(path)) as session:
            for _ in range(2):
                async with session.get("http://anything/ok") as resp:
                    assert await resp.read() == b"ok"
        assert len(server.connections) == 1
    async with wirespeed.ClientSession(connector=wirespeed.UnixConnector(path + "none")) as session:
        with pytest.raises(UnixClientConnectorError, match="Cannot connect to unix socket"):
            await session.get("http://anything/ok")


def _answer_later(exchange: Exchange) -> None:
    asyncio.get_running_loop().call_later(0.005, exchange.respond, 200, b"late")


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as resp:
        assert resp.status == 200
        return await resp.read()


async def test_limit_bounds_the_concurrency_the_server_sees() -> None:
    async with LocalServer() as server:
        server.routes["/late"] = _answer_later
        async with express_session(connector=wirespeed.TCPConnector(limit=10), at_least=200) as session:
            bodies = await asyncio.gather(*(_get(session, server.url("/late")) for _ in range(200)))
        assert bodies == [b"late"] * 200
        assert server.max_active == 10
        assert len(server.connections) == 10


async def test_waiting_requests_are_served_first_come_first_served() -> None:
    async with LocalServer() as server:
        async with express_session(connector=wirespeed.TCPConnector(limit=1), at_least=50) as session:
            await asyncio.gather(*(_get(session, server.url(f"/ok?n={n}")) for n in range(50)))
        assert [exchange.query["n"] for exchange in server.exchanges] == [str(n) for n in range(50)]


async def test_limit_per_host_holds_for_each_host_by_itself() -> None:
    async with LocalServer() as one, LocalServer() as two:
        one.routes["/late"] = two.routes["/late"] = _answer_later
        connector = wirespeed.TCPConnector(limit=20, limit_per_host=3)
        async with express_session(connector=connector, at_least=60) as session:
            urls = [server.url("/late") for server in (one, two) for _ in range(30)]
            await asyncio.gather(*(_get(session, url) for url in urls))
        assert (one.max_active, two.max_active) == (3, 3)


async def test_limit_zero_means_no_limit() -> None:
    async with LocalServer() as server:
        async with express_session(connector=wirespeed.TCPConnector(limit=0), at_least=150) as session:
            tasks = [asyncio.ensure_future(_get(session, server.url("/hold"))) for _ in range(150)]
            await eventually(lambda: len(server.held) == 150, "all requests at the server")
            for exchange in server.held:
                exchange.respond(200, b"now")
            assert set(await asyncio.gather(*tasks)) == {b"now"}


async def test_force_close_uses_a_connection_once() -> None:
    async with LocalServer() as server:
        async with express_session(connector=wirespeed.TCPConnector(force_close=True)) as session:
            for n in range(3):
                await _get(session, server.url("/ok"))
                await eventually(lambda: not server.open, "connection closed after use")
                assert len(server.connections) == n + 1


async def test_idle_connection_is_closed_when_its_keepalive_timeout_ends() -> None:
    async with LocalServer() as server, nothing_left():
        connector = wirespeed.TCPConnector(keepalive_timeout=0.2)
        async with express_session(connector=connector) as session:
            await _get(session, server.url("/ok"))
            await asyncio.sleep(0.05)
            assert len(server.open) == 1
            await eventually(lambda: not server.open, "idle connection closed", within=2)
            assert server.connections[0].eof


async def test_idle_connection_closed_by_server_is_not_reused() -> None:
    async with LocalServer() as server, express_session(at_least=2) as session:
        await _get(session, server.url("/ok"))
        server.connections[0].transport.close()
        await asyncio.sleep(0.02)  # the FIN arrives at the client
        await _get(session, server.url("/ok"))
        assert [connection.total_received > 0 for connection in server.connections] == [True, True]
        assert len(server.exchanges) == 2


async def test_connection_close_header_ends_the_connection() -> None:
    async with LocalServer() as server, express_session(at_least=2) as session:
        server.routes["/last"] = lambda x: x.respond(200, b"bye", [("Connection", "close")])
        assert await _get(session, server.url("/last")) == b"bye"
        await eventually(lambda: not server.open, "connection closed by the client")
        assert await _get(session, server.url("/last")) == b"bye"
