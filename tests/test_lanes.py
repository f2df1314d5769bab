"""Which lane a request takes: patched aiohttp, foreign parts, and what is looked at each time.

A request that goes past a mock reaches the real network, so every test here that patches
something also checks that the server was, or was not, asked.
"""

import asyncio
import contextlib
import functools
import itertools
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import aiohttp
import pytest
from support.checks import assert_express, assert_full
from support.local import LocalServer
from yarl import URL

import wirespeed
from wirespeed import lanes

native_only = pytest.mark.skipif(not wirespeed.NATIVE, reason="without the core every request is aiohttp's")


class Mocked(Exception):
    """What a patched method raises: the request reached the patch."""


async def _raise(*args: Any, **kwargs: Any) -> Any:
    raise Mocked


PATCHES = [
    (aiohttp.ClientSession, "_request"),
    (aiohttp.ClientRequest, "send"),
    (aiohttp.TCPConnector, "connect"),
    (aiohttp.TCPConnector, "_create_connection"),
    (aiohttp.TCPConnector, "_resolve_host"),
    (aiohttp.BaseConnector, "connect"),
    (wirespeed.TCPConnector, "connect"),
]


@pytest.mark.parametrize(
    ("owner", "name"), PATCHES, ids=[f"{o.__module__}.{o.__name__}.{n}" for o, n in PATCHES]
)
async def test_patched_method_is_called_and_the_server_is_not(owner: type, name: str) -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        with mock.patch.object(owner, name, _raise, create=True), pytest.raises(Mocked):
            await session.get(server.url("/ok"))
        assert not server.exchanges
        async with session.get(server.url("/ok")) as resp:
            assert await resp.read() == b"ok"
        assert len(server.exchanges) == 1


async def test_patch_after_a_first_request_is_seen() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        async with session.get(server.url("/ok")) as resp:
            await resp.read()
        for owner, name in PATCHES[:1] + PATCHES[2:3] + PATCHES[5:]:
            with mock.patch.object(owner, name, _raise, create=True), pytest.raises(Mocked):
                await session.get(server.url("/ok"))
        assert len(server.exchanges) == 1


async def test_connect_mocked_on_the_connector_itself_is_called() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        with mock.patch.object(session.connector, "connect", _raise), pytest.raises(Mocked):
            await session.get(server.url("/ok"))
        assert not server.exchanges


@native_only
def test_patch_made_before_the_import_is_seen() -> None:
    code = """
import asyncio, aiohttp
async def fake(self, *args, **kwargs): raise LookupError("patched")
aiohttp.ClientSession._request = fake
import wirespeed
from wirespeed import lanes
async def main():
    async with wirespeed.ClientSession() as session:
        try:
            await session.get("http://127.0.0.1:9/")
        except LookupError:
            print(session.native_stats())
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'express': 0, 'full': {'aiohttp is patched': 1}}\n"


@native_only
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"headers": [("upgrade", "x")]}, "protocol upgrade"),
        ({"read_until_eof": False}, "an option only aiohttp implements"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
async def test_option_of_the_full_lane_is_counted_with_its_reason(
    options: dict[str, Any], reason: str
) -> None:
    # The server sends no 100 Continue: with Expect the body is never asked for.
    timeout = aiohttp.ClientTimeout(total=0.2)
    async with LocalServer() as server, wirespeed.ClientSession(timeout=timeout) as session:
        with contextlib.suppress(asyncio.TimeoutError):
            await (await session.post(server.url("/echo"), data=b"x", **options)).read()
        assert session.native_stats() == {"express": 0, "full": {reason: 1}}


@native_only
async def test_neutral_values_of_the_full_lane_s_options_stay_on_the_express_lane() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        await (await session.get(server.url(), proxy=None, expect100=False, read_until_eof=True)).read()
        assert_express(session)


async def test_session_header_that_waits_before_the_body_is_noticed_beside_request_headers() -> None:
    async with LocalServer() as server, wirespeed.ClientSession(headers={"Upgrade": "x"}) as session:
        await (await session.get(server.url(), headers={"X-A": "1"})).read()
        assert_full(session)


async def test_headers_from_an_iterator_are_sent() -> None:
    def headers() -> Iterator[tuple[str, str]]:
        yield "Authorization", "secret"
        yield "X-A", "1"

    async with LocalServer() as server, wirespeed.ClientSession() as session:
        await (await session.get(server.url(), headers=headers())).read()
        assert server.exchanges[0].header("authorization") == "secret"
        assert server.exchanges[0].header("x-a") == "1"


async def test_cookie_jar_with_its_own_filter_is_asked() -> None:
    class Jar(aiohttp.CookieJar):
        def filter_cookies(self, request_url: URL = URL()) -> Any:  # noqa: B008 - aiohttp's signature
            cookies = super().filter_cookies(request_url)
            cookies["injected"] = "1"
            return cookies

    async with LocalServer() as server, wirespeed.ClientSession(cookie_jar=Jar()) as session:
        await (await session.get(server.url("/ok"))).read()
        assert server.exchanges[0].header("cookie") == "injected=1"
        assert_express(session)


async def test_base_url_assigned_later_is_used() -> None:
    async with LocalServer() as server, wirespeed.ClientSession(URL(server.url("/old/"))) as session:
        await (await session.get("x")).read()
        session._base_url = URL(server.url("/new/"))
        await (await session.get("x")).read()
        assert [exchange.target for exchange in server.exchanges] == ["/old/x", "/new/x"]


async def test_overridden_steps_of_a_session_are_taken_each_time() -> None:
    calls: list[str] = []
    with pytest.warns(DeprecationWarning, match="Inheritance"):

        class Signing(wirespeed.ClientSession):
            def _build_url(self, str_or_url: Any) -> URL:
                calls.append("url")
                return super()._build_url(str_or_url)

            def _prepare_headers(self, headers: Any) -> Any:
                calls.append("headers")
                return super()._prepare_headers(headers)

    async with LocalServer() as server, Signing() as session:
        for _ in range(2):
            await (await session.get(server.url("/ok"))).read()
        assert calls == ["url", "headers"] * 2 or calls == ["headers", "url"] * 2
        with mock.patch.object(session, "_build_url", side_effect=Mocked), pytest.raises(Mocked):
            await session.get(server.url("/ok"))
        assert len(server.exchanges) == 2


def test_explanation_names_the_patch_and_its_origin() -> None:
    original = aiohttp.ClientSession._request

    @functools.wraps(original)
    async def traced(*args: Any, **kwargs: Any) -> Any:
        return await original(*args, **kwargs)

    with mock.patch.object(aiohttp.ClientSession, "_request", traced):
        (patch,) = lanes.patches()
    assert patch.method == "aiohttp.client.ClientSession._request"
    assert patch.by.startswith(f"{__name__}.")
    assert "traced" in patch.by
    assert lanes.patches() == []


@native_only
async def test_explain_tells_the_lane_without_sending() -> None:
    async with wirespeed.ClientSession() as session:
        url = "http://127.0.0.1:1/"
        assert str(session.explain("GET", url, params={"a": "1"})) == "express lane"
        assert session.explain("GET", url).reason is None
        full = session.explain("GET", url, proxy="http://127.0.0.1:2/")
        assert (full.lane, full.reason) == ("full", wirespeed.LaneReason.PROXY)
        assert full.remedy in str(full)
        with mock.patch.object(aiohttp.ClientRequest, "send", _raise):
            full = session.explain("GET", url)
            assert full.reason is wirespeed.LaneReason.PATCHED
            assert "aiohttp.client_reqrep.ClientRequest.send" in full.detail
        assert session.explain("GET", url, made_up=1).detail == "made_up"
        assert session.native_stats() == {"express": 0, "full": {}}
    for settings, reason in (
        ({"trust_env": True}, "TRUST_ENV"),
        ({"proxy": "http://127.0.0.1:2/"}, "PROXY"),
        ({"headers": {"Upgrade": "x"}}, "UPGRADE"),
        ({"request_class": _Request}, "CUSTOM_CLASS"),
        ({"connector": aiohttp.TCPConnector()}, "FOREIGN_CONNECTOR"),
    ):
        async with wirespeed.ClientSession(**settings) as session:
            assert session.explain("GET", url).reason is wirespeed.LaneReason[reason]


class _Request(aiohttp.ClientRequest):
    """Somebody's own."""


@pytest.mark.parametrize("reason", list(wirespeed.LaneReason))
def test_every_reason_has_a_remedy(reason: wirespeed.LaneReason) -> None:
    assert reason.remedy


async def test_strict_session_refuses_the_full_lane_before_anything_is_sent() -> None:
    async with LocalServer() as server, wirespeed.ClientSession(strict_native=True) as session:
        with pytest.raises(wirespeed.FullLaneError) as info:
            await session.get(
                URL(server.url("/ok")).with_user("me").with_password("secret"),
                proxy=server.url("/"),
                params="q=1",
            )
        expected = wirespeed.LaneReason.PROXY if wirespeed.NATIVE else wirespeed.LaneReason.NO_EXTENSION
        assert info.value.reason is expected
        assert expected.value in str(info.value)
        assert "secret" not in str(info.value)
        assert not server.connections
        with pytest.raises(wirespeed.FullLaneError) as info:
            await session.ws_connect(server.url("/ok"))
        if wirespeed.NATIVE:
            assert info.value.reason is wirespeed.LaneReason.UPGRADE
        if wirespeed.NATIVE:
            async with session.get(server.url("/ok")) as resp:
                assert resp.status == 200
            assert session.native_stats() == {"express": 1, "full": {}}


async def test_full_lane_request_is_logged_for_debugging(caplog: pytest.LogCaptureFixture) -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        with caplog.at_level(logging.INFO, "wirespeed"):
            await (await session.get(server.url("/ok?key=secret"), read_until_eof=False)).read()
        assert not caplog.records
        with caplog.at_level(logging.DEBUG, "wirespeed"):
            await (await session.get(server.url("/ok?key=secret"), read_until_eof=False)).read()
    (record,) = caplog.records
    assert "full lane" in record.getMessage()
    assert "/ok" in record.getMessage()
    assert "secret" not in record.getMessage()


async def test_headers_made_by_a_patched_method_are_not_kept() -> None:
    update, count = aiohttp.ClientRequest.update_headers, itertools.count()

    def numbered(self: Any, headers: Any) -> None:
        update(self, headers)
        self.headers["X-Number"] = str(next(count))

    async with LocalServer() as server, wirespeed.ClientSession() as session:
        with mock.patch.object(aiohttp.ClientRequest, "update_headers", numbered):
            for _ in range(2):
                await (await session.get(server.url("/ok"))).read()
        await (await session.get(server.url("/ok"))).read()
        sent = [exchange.header("X-Number") for exchange in server.exchanges]
        assert sent == ["0", "1", None]


async def test_task_that_a_patched_request_started_does_not_go_past_later_mocks() -> None:
    original = aiohttp.ClientSession._request
    mocked, pollers = asyncio.Event(), []

    async with LocalServer() as server, wirespeed.ClientSession() as session:
        url = server.url("/ok")

        async def poll() -> None:
            await mocked.wait()
            await session.get(url)

        async def starting(*args: Any, **kwargs: Any) -> Any:
            pollers.append(asyncio.create_task(poll()))
            return await original(*args, **kwargs)

        with mock.patch.object(aiohttp.ClientSession, "_request", starting):
            await (await session.get(url)).read()
        with mock.patch.object(aiohttp.ClientSession, "_request", _raise):
            mocked.set()
            with pytest.raises(Mocked):
                await pollers[0]
        assert len(server.exchanges) == 1


async def test_mock_that_passes_for_a_connector_serves_the_request() -> None:
    connector = mock.create_autospec(wirespeed.TCPConnector, instance=True)
    connector._loop = asyncio.get_running_loop()
    connector.closed = False
    connector.allowed_protocol_schema_set = frozenset({"http"})
    connector.connect.side_effect = Mocked
    session = wirespeed.ClientSession(connector=connector, connector_owner=False)
    with pytest.raises(Mocked):
        await session.get("http://127.0.0.1:1/")
    session._connector = None


@native_only
async def test_derived_classes_may_be_patched_after_their_first_request(monkeypatch: Any) -> None:
    class Connector(wirespeed.TCPConnector):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # aiohttp discourages it

        class Session(wirespeed.ClientSession):
            pass

    seen: list[str] = []

    async def connect(self: Any, req: Any, traces: Any, timeout: Any) -> Any:
        seen.append("connect")
        return await super(Connector, self).connect(req, traces, timeout)

    def build_url(self: Any, url: Any) -> Any:
        seen.append("build")
        return super(Session, self)._build_url(url)

    async with LocalServer() as server, Session(connector=Connector()) as session:

        async def ask() -> None:
            async with session.get(server.url("/ok")) as resp:
                assert await resp.read() == b"ok"

        await ask()
        assert session.native_stats()["express"] == 1
        with monkeypatch.context() as patch:
            patch.setattr(Connector, "connect", connect)
            await ask()
        await ask()
        with monkeypatch.context() as patch:
            patch.setattr(Session, "_build_url", build_url)
            await ask()
        await ask()
    assert seen == ["connect", "build"]
