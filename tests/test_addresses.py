"""URLs that are not parsed: where they go, and what is told of them, is as if yarl had."""

import asyncio
import gc
import itertools
from typing import Any
from unittest import mock

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checks import assert_express
from support.local import LocalServer
from support.names import Names
from yarl import URL

import wirespeed

pytestmark = pytest.mark.skipif(not wirespeed.NATIVE, reason="aiohttp parses every URL")
if wirespeed.NATIVE:
    from wirespeed import shapes
    from wirespeed._core.address import Origin, plain_address
    from wirespeed._core.lane import Kept, Prepared

NAMES = (
    "http://h",
    "http://h:8080",
    "https://a.b-c.example",
    "http://127.0.0.1:1",
    "http://[::1]:80",
    "ws://h",
)
ASCII = "".join(map(chr, range(128)))


class Text(str):
    pass


def origins() -> dict[str, Any]:
    return {name: Origin(name) for name in NAMES}


def assert_exact(text: str) -> bool:
    """Whether a URL is plain; then all that is known of it is what yarl says."""
    found = plain_address(text, origins())
    if found is None:
        return False
    url = URL(text)
    assert found.target == url.raw_path_qs
    assert found.origin.key == f"{url.scheme}://{url.raw_authority}"
    assert (url.raw_user, url.raw_password, url.raw_fragment) == (None, None, "")
    assert (found.url, str(found.url)) == (url, str(url))
    return True


# What is plain


@pytest.mark.parametrize(
    "rest",
    ["", "/", "/json?i=1", "?i=1", "/a/b.c/~d_e-f", "//", "//a//b", "/a?b=c&d=&&e", "/a./b..c",
     "/?/", "/a?b/../c", "/a:b@c=d,e", "/" + "a" * 100_000, "/?" + "a=1&" * 50_000],
)  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_plain_urls_go_where_yarl_says(name: str, rest: str) -> None:
    assert assert_exact(name + rest)


@pytest.mark.parametrize(
    "text",
    ["", "h", "/json", "http:", "http://", "http:///", "http://other/", "http://h2/", "http://h:80/", "http://h:/",
     "http://h:8080x/", "HTTP://h/", "Http://h/", "http://H/", "http://h.", "http://h./", "http://user@h/",
     "http://user:pw@h/", "http://:@h/", "http://h@/", "http://ä/", "http://xn--4ca/", "http://[::1]/",
     "http://[::1%25lo]:80/", "http://h/.", "http://h/..", "http://h/./a", "http://h/../a", "http://h/.a",
     "http://h/a/..", "http://h/a/../b", "http://h/%61", "http://h/a%2Fb", "http://h/a b", "http://h/ä",
     "http://h/?", "http://h?", "http://h/a?", "http://h/a?b?c", "http://h/a?b=%20", "http://h/a?b+c",
     "http://h/#", "http://h/#f", "http://h#f", "http://h/a?b#f", " http://h/", "http://h/ ", "http://h/\n",
     "ht\ttp://h/", "http:/h/", "http//h/", "http:\\\\h\\", "http://h\\a", "http://h/a\\b", "http://h;a/",
     "//h/", "http://h/a?b=\x00", "http://h/a?b=\ud800", "http://h/a?b=ä"],
)  # fmt: skip
def test_all_else_is_for_yarl(text: str) -> None:
    assert not assert_exact(text)


@pytest.mark.parametrize(
    "around", ["/{}", "/a{}b", "/{}a", "/a/{}/", "?{}", "/?{}", "/?a{}b", "/a?b={}", "{}", "/a{}{}b?{}{}"]
)
def test_no_character_is_plain_that_yarl_changes(around: str) -> None:
    for character in ASCII:
        assert_exact("http://h" + around.replace("{}", character))


PARTS = st.sampled_from(
    ["/", "?", "&", "=", ".", "..", "/.", "./", "a", "Z9", "-._~", ":", "@", ",", "%", "%41", "%2f", "#", "+",
     ";", "!", "$", "'", "(", "*", "[", "]", "|", "ä", " ", "\t", "\\", "\x7f", "\ud800"]
)  # fmt: skip
RESTS = st.lists(PARTS | st.text(ASCII, max_size=3), max_size=8).map("".join)
STARTED = st.builds(str.__add__, st.sampled_from(["/", "?", "/?", "//"]), RESTS)
PREFIXES = st.sampled_from(
    [*NAMES, "http://H", "http://h:80", "http://u@h", "http://ä", "HTTP://h", "http://h.", ""]
)


@settings(max_examples=1500, deadline=None)
@given(prefix=PREFIXES, rest=RESTS)
def test_whatever_is_plain_is_as_yarl_has_it(prefix: str, rest: str) -> None:
    assert_exact(prefix + rest)


# What is sent and told


async def add_nothing(req: Any, handler: Any) -> Any:
    return await handler(req)


async def told(api: Any, server: LocalServer, asked: list[Any], **options: Any) -> list[Any]:
    """What the requests of one session put on the wire, and what is told of them."""
    got: list[Any] = []

    async def on_start(session: Any, context: Any, params: Any) -> None:
        got.append(params.url)

    if options.pop("is_traced", False):
        config = api.TraceConfig()
        config.on_request_start.append(on_start)
        options["trace_configs"] = [config]
    async with api.ClientSession(cookie_jar=api.CookieJar(unsafe=True), **options) as session:
        # One that yarl parses, after which the origin is known.
        await (await session.get(server.url("/"))).read()
        for rest, kind in asked:
            before = len(server.exchanges)
            try:
                async with session.get(rest, **kind) as resp:
                    await resp.read()
                    got.append((resp.url, resp.real_url, resp.request_info.url, resp.request_info.real_url))
                    got.append([(each.status, each.url) for each in resp.history])
                    assert resp.url is resp.url
            except Exception as exc:
                got.append((type(exc), str(exc)))
            got += [(each.target, each.headers) for each in server.exchanges[before:]]
    return got


def texts(server: LocalServer) -> list[str]:
    return [
        server.url(rest)
        for rest in (
            "", "?a=1", "/", "//", "//a//b?c", "/p?i=1", "/p?i=2", "/p?i=2&", "/a/../b", "/p?", "/p?a?b",
            "/p#f", "/p?i=%20", "/p?ä", "/status?n=302", "/redirect?to=/p", "/p/q.r?s=t,u@v:w/x-y_z~",
        )
    ]  # fmt: skip


KINDS: list[dict[str, Any]] = [
    {}, {"params": {"a": "1"}}, {"params": {"a": "b c"}}, {"params": {"a": None}}, {"headers": {"X-A": "1"}},
]  # fmt: skip
SESSIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cookies": {"cookies": {"a": "1"}},
    "middleware": {"middlewares": (add_nothing,)},
    "traced": {"is_traced": True},
    "traced, cookies": {"is_traced": True, "cookies": {"a": "1"}},
}


@pytest.mark.parametrize("name", SESSIONS)
async def test_requests_are_aiohttps(name: str) -> None:
    async with LocalServer() as server:
        asked: list[Any] = [*itertools.product(texts(server), KINDS)]
        asked += [(Text(text), {}) for text in texts(server)] + [(URL(text), {}) for text in texts(server)]
        asked += [(f"http://user:pw@127.0.0.1:{server.port}/p?i=3", {})]
        theirs = await told(aiohttp, server, asked, **SESSIONS[name])
        assert await told(wirespeed, server, asked, **SESSIONS[name]) == theirs


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rests=st.lists(
        st.sampled_from(["/", "?", "/?", "//"]).flatmap(lambda start: RESTS.map(start.__add__)),
        min_size=1,
        max_size=6,
    ),
    params=st.sampled_from([None, {"a": "1"}]),
)
def test_any_request_is_aiohttps(loop: asyncio.AbstractEventLoop, rests: list[str], params: Any) -> None:
    async def compare() -> None:
        async with LocalServer() as server:
            asked = [(server.url("") + rest, {"params": params}) for rest in [*rests, *rests]]
            assert await told(wirespeed, server, asked) == await told(aiohttp, server, asked)

    loop.run_until_complete(compare())


async def test_base_url_is_joined() -> None:
    async with LocalServer() as server:
        asked = [(rest, {}) for rest in ("p?i=1", "/p?i=1", "?i=1", "", "//a", "../a", *texts(server))]
        base = {"base_url": server.url("/base/")}
        assert await told(wirespeed, server, asked, **base) == await told(aiohttp, server, asked, **base)


async def test_cookies_are_those_of_the_path() -> None:
    """They are remembered by path, whatever the query."""

    async def run(api: Any) -> list[Any]:
        async with LocalServer() as server:
            async with api.ClientSession(cookie_jar=api.CookieJar(unsafe=True)) as session:
                for i, path in itertools.product(range(3), ("/", "/a", "/a/b", "/b")):
                    if i == 1:
                        session.cookie_jar.update_cookies(
                            {f"c{path.count('/')}": "1"}, URL(server.url("/a/x"))
                        )
                    if i == 2:
                        session.cookie_jar.update_cookies({"d": "2"}, URL(server.url("/")))
                    await (await session.get(server.url(f"{path}?i={i}"))).read()
            return [(each.target, dict(each.headers).get("Cookie")) for each in server.exchanges]

    theirs = await run(aiohttp)
    assert len({cookie for _, cookie in theirs}) > 2
    assert await run(wirespeed) == theirs


async def test_listeners_who_see_the_url_cost_no_memory_of_cookies() -> None:
    async def ignore(session: Any, context: Any, params: Any) -> None:
        params.url.human_repr()

    config = wirespeed.TraceConfig()
    config.on_request_start.append(ignore)
    async with LocalServer() as server:
        options: Any = {"cookie_jar": wirespeed.CookieJar(unsafe=True), "cookies": {"a": "1"}}
        async with wirespeed.ClientSession(trace_configs=[config], **options) as session:
            with mock.patch.object(type(session._lane), "_remember_cookies") as remember:
                remember.side_effect = shapes.remember_cookies
                for i in range(10):
                    await (await session.get(server.url(f"/ok?i={i}"))).read()
            assert remember.call_count <= 2
        assert all(("Cookie", "a=1") in each.headers for each in server.exchanges)


async def test_results_of_a_batch_have_their_urls() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        urls = [server.url(f"/ok?i={i}") for i in range(100)]
        results = [result async for result in session.batch(urls, concurrency=4)]
        assert sorted(str(result.url) for result in results) == sorted(urls)
        assert {each.target for each in server.exchanges} == {f"/ok?i={i}" for i in range(100)}
        assert_express(session, 100)


async def test_hosts_that_differ_by_a_dot_share_no_connection() -> None:
    """Only the name without it goes through the search domains of the system."""
    async with LocalServer() as server:
        for api in (aiohttp, wirespeed):
            names = Names()
            async with api.ClientSession(connector=api.TCPConnector(resolver=names)) as session:
                for name in ("host.test", "host.test.", "host.test"):
                    await (await session.get(f"http://{name}:{server.port}/ok")).read()
            assert names.asked == ["host.test", "host.test."]


# What is kept


def test_a_bounded_number_is_kept_and_what_comes_again_is_kept_in_the_end() -> None:
    kept = Kept()
    for i in range(4096):
        kept.put(i, i)
    assert [kept.get(i) for i in (0, 4095, 4096)] == [0, 4095, None]
    most = 0
    for i in range(100_000):
        kept.put(-1 - i, i)
        most = max(most, len(kept.things))
    assert most == 4096
    for i in range(20_000):
        if kept.get("again") is None:
            kept.put("again", i)
    assert kept.get("again") is not None


async def test_different_urls_do_not_pile_up() -> None:
    async with LocalServer() as server, wirespeed.ClientSession() as session:
        urls = (server.url(f"/ok?i={i}") for i in range(5000))
        async for result in session.batch(urls, concurrency=8):
            assert result.ok
        gc.collect()
        assert sum(isinstance(thing, Prepared) for thing in gc.get_objects()) < 4200
