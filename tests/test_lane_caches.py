"""What is kept of a session between requests: whatever changes, the next request is as aiohttp makes it."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from support.local import LocalServer
from yarl import URL

import wirespeed

Change = Callable[["Side"], Any]


class Side:
    """One of the clients, before and after a change."""

    def __init__(self, api: Any, server: LocalServer) -> None:
        self.api, self.server = api, server
        self.middlewares: list[Any] = []
        with mock.patch("warnings.warn"):
            self.Session = type("Session", (api.ClientSession,), {})
        self.Connector = type("Connector", (api.TCPConnector,), {})
        self.session: Any = None

    def start(self) -> None:
        self.session = self.Session(
            middlewares=self.middlewares,
            connector=self.Connector(),
            cookie_jar=self.api.CookieJar(unsafe=True),
            headers={"X-Old": "1"},
        )

    async def ask(self) -> list[Any]:
        """Requests of every kind that is kept, and what comes of them."""
        url = self.server.url("/echo?q=1")
        kinds: list[dict[str, Any]] = [
            {}, {"params": {"a": "1"}}, {"headers": {"X-Mine": "2"}}, {"data": b"x"}, {"data": "x"},
            {"json": [1]},
        ]  # fmt: skip
        return [await self._ask(url, kind) for kind in kinds] + [await self._ask("/echo", {})]

    async def _ask(self, url: str, options: dict[str, Any]) -> Any:
        before = len(self.server.exchanges)
        try:
            async with self.session.post(url, **options) as resp:
                await resp.read()
                got: Any = (resp.status, str(resp.url), sorted(resp.request_info.headers.items()))
        except Exception as exc:
            got = type(exc).__name__, str(exc)
        seen = [(x.target, x.headers, bytes(x.body)) for x in self.server.exchanges[before:]]
        return got, seen


class FixedJar(aiohttp.DummyCookieJar):
    """A jar of somebody's own, which returns what `cookies=` takes."""

    def filter_cookies(self, request_url: URL) -> Any:
        return {"fixed": "1"}


async def add_header(req: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
    req.headers["Authorization"] = "secret"
    return await handler(req)


async def refuse(*args: Any, **options: Any) -> Any:
    raise OSError("refused")


def set_to(name: str, value: Any) -> Change:
    return lambda side: setattr(side.session, name, value)


def append_trace(side: Side) -> None:
    async def fail(*args: Any) -> None:
        raise ValueError("traced")

    config = side.api.TraceConfig()
    config.on_request_start.append(fail)
    config.freeze()
    side.session._trace_configs.append(config)


CHANGES: dict[str, Change] = {
    "a header added": lambda side: side.session.headers.add("X-New", "1"),
    "a header replaced": lambda side: side.session.headers.update({"x-old": "2"}),
    "a header taken": lambda side: side.session.headers.clear(),
    "other headers": set_to("_default_headers", CIMultiDict({"X-Other": "1"})),
    "auth": lambda side: setattr(side.session, "_default_auth", aiohttp.BasicAuth("user", "password")),
    "headers left out": set_to("_skip_auto_headers", frozenset({"Accept", "User-Agent"})),
    "version": set_to("_version", aiohttp.HttpVersion10),
    "base": lambda side: side.session.__dict__.update(_base_url=URL(side.server.url("/"))),
    "json_serialize": set_to("_json_serialize", lambda value: '"other"'),
    "json_serialize_bytes": set_to("_json_serialize_bytes", lambda value: b'"bytes"'),
    "json_serialize_bytes, a bytearray": set_to("_json_serialize_bytes", lambda value: bytearray(b"array")),
    "json_serialize_bytes, no bytes": set_to("_json_serialize_bytes", lambda value: 5),
    "json_serialize, no str": set_to("_json_serialize", lambda value: b""),
    "raise_for_status": lambda side: (
        side.server.routes.update({"/echo": lambda x: x.respond(404)}),
        setattr(side.session, "_raise_for_status", True),
    ),
    "cookies": lambda side: side.session.cookie_jar.update_cookies({"a": "1"}),
    "another jar": lambda side: setattr(side.session, "_cookie_jar", side.api.DummyCookieJar()),
    "a jar of one's own": lambda side: setattr(side.session, "_cookie_jar", FixedJar()),
    "a jar that is patched": lambda side: setattr(
        side.session.cookie_jar, "filter_cookies", lambda url: {"patched": "1"}
    ),
    "a jar's class that is patched": lambda side: setattr(
        type(side.session.cookie_jar), "filter_cookies", lambda self, url: {"patched": "1"}
    ),
    "middleware": lambda side: side.middlewares.append(add_header),
    "trace": append_trace,
    "session's class": lambda side: setattr(
        side.Session, "_build_url", lambda self, url: URL(side.server.url("/status?n=404"))
    ),
    "session's headers": lambda side: setattr(
        side.Session, "_prepare_headers", lambda self, headers: CIMultiDict({"X-Prepared": "1"})
    ),
    "connector's class": lambda side: setattr(side.Connector, "connect", refuse),
    "connector": lambda side: setattr(side.session._connector, "connect", refuse),
    "request's class": lambda side: setattr(
        aiohttp.ClientRequest, "update_headers", lambda self, headers: setattr(self, "headers", CIMultiDict())
    ),
}


@pytest.mark.filterwarnings("ignore:BasicAuth is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*of ClientSession.*:DeprecationWarning")
@pytest.mark.parametrize("name", CHANGES)
async def test_next_request_is_aiohttps_after_a_change(name: str) -> None:
    sides = []
    for api in (aiohttp, wirespeed):
        async with LocalServer() as server:
            side = Side(api, server)
            side.start()
            kept = aiohttp.CookieJar.filter_cookies
            update_headers = aiohttp.ClientRequest.update_headers
            try:
                before = [await side.ask(), await side.ask()]
                CHANGES[name](side)
                after = [await side.ask(), await side.ask()]
            finally:
                aiohttp.CookieJar.filter_cookies = kept  # type: ignore[method-assign]
                aiohttp.ClientRequest.update_headers = update_headers  # type: ignore[method-assign]
                await side.session.close()
            sides.append(repr([*before, *after]).replace(str(server.port), "PORT"))
    theirs, ours = sides
    assert ours == theirs


async def test_dummy_jar_is_not_asked_until_it_is_patched() -> None:
    async with LocalServer() as server:
        side = Side(wirespeed, server)
        side.start()
        try:
            side.session._cookie_jar = jar = aiohttp.DummyCookieJar()
            await side.ask()
            assert server.exchanges[-1].header("Cookie") is None
            jar.filter_cookies = lambda url: {"patched": "1"}  # type: ignore[method-assign,return-value]
            await side.ask()
            assert all(exchange.header("Cookie") == "patched=1" for exchange in server.exchanges[-2:])
        finally:
            await side.session.close()


# Params behind a query


TARGETS = st.sampled_from(
    ["/", "/p", "/?a", "/?a=1", "/?a=1&", "/?&", "/?a=%20b+c", "/p&", "/p&?x=&", "/?a=1#f", "/#f"]
)
WORDS = (
    st.text("aZ9-._~", max_size=4)
    | st.text(max_size=4)
    | st.sampled_from(["a b", "+", "%2f", "&", "=", "ä", "é"])
)
PARAMS = st.dictionaries(
    WORDS, WORDS | st.integers(-5, 10**20) | st.floats(allow_nan=True) | st.booleans(), max_size=3
)


class Text(str):
    pass


async def sent(api: Any, server: LocalServer, asked: list[Any]) -> list[Any]:
    got: list[Any] = []
    async with api.ClientSession() as session:
        for target, params in asked:
            url = URL(server.url(target), encoded=True)
            try:
                async with session.get(url, params=params) as resp:
                    got.append((server.exchanges[-1].target, str(resp.url), str(resp.real_url)))
                    got.append((str(resp.request_info.url), str(resp.request_info.real_url)))
            except Exception as exc:
                got.append((type(exc), str(exc)))
    return got


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=st.lists(st.tuples(TARGETS, PARAMS), min_size=1, max_size=3))
def test_params_are_aiohttps(loop: asyncio.AbstractEventLoop, asked: list[Any]) -> None:
    async def compare() -> None:
        async with LocalServer() as server:
            theirs = await sent(aiohttp, server, [*asked, *asked])
            assert await sent(wirespeed, server, [*asked, *asked]) == theirs

    loop.run_until_complete(compare())


ODD_PARAMS: list[Any] = [
    None, {}, [], "", "a=1", "&a=1", "a=1&", [("a", "1"), ("a", "2")], {"a": ["1", "2"]}, {"a": None},
    {"a": b"x"},
    {1: "a"}, {"": "x"}, {"a": ""}, {"a": True}, {"a": 1.5}, {"a": float("inf")}, {Text("a"): Text("b")}, 5,
    b"a=1",
    {"a": "x" * 1000}, {"a": "x" * 1030},
    {"a" * 500: "b" * 500, "c": "d" * 30}, {"a": "\ud800"}, {"a": 10**20},
    {str(i): i for i in range(300)},
    CIMultiDict({"a": "1"}),
]  # fmt: skip


@pytest.mark.parametrize("params", ODD_PARAMS, ids=lambda params: repr(params)[:30])
async def test_odd_params_are_aiohttps(params: Any) -> None:
    asked = [*itertools.product(["/p", "/p?q=1", "/p?q=1&"], [params, {"k": "v"}, params])]
    async with LocalServer() as server:
        assert await sent(wirespeed, server, asked) == await sent(aiohttp, server, asked)


# Responses that somebody assigns to


async def assigned(api: Any, server: LocalServer) -> list[Any]:
    got: list[Any] = []

    async def mine() -> bytes:
        resp._body = b'{"mine": 1}'
        return b'{"mine": 1}'

    changes: list[dict[str, Any]] = [
        {}, {"read": mine}, {"get_encoding": lambda: "utf-16"}, {"_body": b"[1]"},
        {"_body": bytearray(b"[2]")},
        {"status": 500, "method": "PUT", "reason": "Mine"},
    ]  # fmt: skip
    async with api.ClientSession() as session:
        for change in changes:
            async with session.get(server.url("/ok")) as resp:
                await resp.read()
            async with session.post(server.url("/echo"), data=b"x") as resp:
                for name, value in change.items():
                    setattr(resp, name, value)
                try:
                    got.append(await resp.json())
                except ValueError as exc:
                    got.append(type(exc))
                got.append((await resp.read() == resp._body, type(resp._body)))
                got.append((resp.status, resp.method, resp.reason, resp.ok))
    return [repr(value).replace(str(server.port), "PORT") for value in got]


async def test_what_is_assigned_to_a_response_is_taken() -> None:
    async with LocalServer() as server:
        theirs = await assigned(aiohttp, server)
    async with LocalServer() as server:
        assert await assigned(wirespeed, server) == theirs
