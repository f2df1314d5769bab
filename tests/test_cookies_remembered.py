"""The field Cookie, which is remembered: after anything that happens to a jar it is what aiohttp sends."""

import asyncio
import itertools
import time
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.local import LocalServer
from support.names import Names
from yarl import URL

import wirespeed

pytestmark = pytest.mark.skipif(not wirespeed.NATIVE, reason="aiohttp writes the field itself")

HOSTS = ["a.test", "sub.a.test", "b.test", "safe.test", "127.0.0.1"]
CHECKED_HOSTS = ["a.test", "sub.a.test", "safe.test"]
PATHS = ["/", "/x", "/x/", "/x/y"]
NAMES = ["n", "m"]
VALUES = ["1", "2", "a b", '"q"', ""]


class Side:
    """What one of the clients does: two sessions that share a jar."""

    def __init__(self, api: Any, server: LocalServer, unsafe: bool, file: Path) -> None:
        self.server, self.file = server, file
        self.jar = api.CookieJar(unsafe=unsafe, treat_as_secure_origin=f"http://safe.test:{server.port}")
        self.sessions = [
            api.ClientSession(
                cookie_jar=self.jar, connector=api.TCPConnector(resolver=Names()), connector_owner=True
            )
            for _ in range(2)
        ]

    def url(self, host: str, path: str) -> str:
        return f"http://{host}:{self.server.port}{path}"

    async def close(self) -> None:
        for session in self.sessions:
            await session.close()

    # What happens to a jar

    async def ask(self, which: int, host: str, path: str) -> Any:
        async with self.sessions[which].get(self.url(host, path)) as resp:
            await resp.read()
        return self.server.exchanges[-1].header("Cookie"), resp.request_info.headers.get("Cookie")

    async def receive(self, which: int, host: str, path: str, field: str) -> Any:
        self.server.routes[path] = lambda x: x.respond(200, b"", [("Set-Cookie", field)])
        got = await self.ask(which, host, path)
        self.server.routes[path] = lambda x: x.respond(200, b"")
        return got

    async def update(self, host: str | None, path: str, cookies: Any) -> None:
        self.jar.update_cookies(cookies, URL() if host is None else URL(self.url(host, path)))

    async def mutate(self, attribute: str, value: Any) -> None:
        for morsel in self.jar:
            morsel[attribute] = value
            return

    async def set_value(self, value: str) -> None:
        for morsel in self.jar:
            morsel.set(morsel.key, value, value)
            return

    async def clear(self) -> None:
        self.jar.clear()

    async def clear_name(self, name: str) -> None:
        self.jar.clear(lambda morsel: morsel.key == name)

    async def clear_domain(self, host: str) -> None:
        self.jar.clear_domain(host)

    async def filter(self, host: str, path: str) -> str:
        return str(self.jar.filter_cookies(URL(self.url(host, path))))

    async def save(self) -> None:
        self.jar.save(self.file)

    async def load(self) -> None:
        if self.file.exists():
            self.jar.load(self.file)

    async def look(self) -> list[str]:
        return [morsel.OutputString() for morsel in self.jar]

    def order(self) -> list[Any]:
        """The cookies by their last use, which decides what the jar drops."""
        return sorted(self.jar._access_generations, key=self.jar._access_generations.__getitem__)


def morsel(name: str, value: str, **attributes: Any) -> "Morsel[str]":
    made: SimpleCookie = SimpleCookie()
    made[name] = value
    for attribute, to in attributes.items():
        made[name][attribute.replace("_", "-")] = to
    return made[name]


hosts, paths, names, values = map(st.sampled_from, (HOSTS, PATHS, NAMES, VALUES))
MORSELS = st.builds(
    morsel,
    names,
    st.sampled_from(["1", "2", "a b"]),
    domain=st.sampled_from(["", "a.test", ".a.test", "sub.a.test", "b.test", "test"]),
    path=st.sampled_from(["", "/", "/x", "/x/", "/x/y"]),
    secure=st.sampled_from(["", True]),
    max_age=st.sampled_from(["", "5", "0", "1000"]),
)
FIELDS = st.builds(
    "{}={}{}".format,
    names,
    st.sampled_from(["1", "2", '"a b"']),
    st.sampled_from(
        [
            "", "; Secure", "; Path=/", "; Path=/x", "; Domain=a.test", "; Domain=b.test", "; Max-Age=5",
            "; Max-Age=0", "; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "; Domain=a.test; Path=/x; HttpOnly",
        ]
    ),
)  # fmt: skip
sessions = st.sampled_from([0, 1])
ASK = st.tuples(st.just("ask"), sessions, hosts, paths)
STEPS = st.one_of(
    ASK,
    ASK,
    st.tuples(st.just("receive"), sessions, hosts, st.sampled_from(PATHS), FIELDS),
    st.tuples(st.just("update"), hosts | st.none(), paths, st.dictionaries(names, values, max_size=2)),
    st.tuples(st.just("update"), hosts | st.none(), paths, MORSELS.map(lambda made: {made.key: made})),
    st.tuples(st.just("mutate"), st.just("secure"), st.sampled_from(["", True])),
    st.tuples(st.just("mutate"), st.just("path"), st.sampled_from(["/", "/x"])),
    st.tuples(st.just("mutate"), st.just("domain"), st.sampled_from(["a.test", "b.test"])),
    st.tuples(st.just("set_value"), st.sampled_from(["7", "8"])),
    st.tuples(st.just("clear")),
    st.tuples(st.just("clear_name"), names),
    st.tuples(st.just("clear_domain"), hosts),
    st.tuples(st.just("filter"), hosts, paths),
    st.tuples(st.just("save")),
    st.tuples(st.just("load")),
    st.tuples(st.just("look")),
    st.tuples(st.just("wait"), st.sampled_from([1, 4, 6])),
)


async def compare(steps: list[Any], unsafe: bool, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    now = [time.time()]
    for path in (directory / "aiohttp", directory / "wirespeed"):
        path.unlink(missing_ok=True)
    async with LocalServer() as server:
        for path in PATHS:
            server.routes[path] = lambda x: x.respond(200, b"")
        sides = [Side(api, server, unsafe, directory / api.__name__) for api in (aiohttp, wirespeed)]
        try:
            with monkeypatch.context() as patched:
                patched.setattr(time, "time", lambda: now[0])
                await assert_same(sides, "ask", [0, "a.test", "/x"], [])
                for i, (name, *arguments) in enumerate(steps):
                    if name == "wait":
                        now[0] += arguments[0]
                    else:
                        await assert_same(sides, name, arguments, steps[: i + 1])
                    # What is remembered of these is then there for the next step to be wrong about.
                    for which, host, path in itertools.product((0, 1), CHECKED_HOSTS, PATHS):
                        await assert_same(sides, "ask", [which, host, path], steps[: i + 1])
        finally:
            for side in sides:
                await side.close()


async def assert_same(sides: list[Side], name: str, arguments: list[Any], after: list[Any]) -> None:
    theirs, ours = [await outcome(side, name, arguments) for side in sides]
    assert ours == theirs, (after, name, arguments)
    theirs, ours = [side.order() for side in sides]
    assert ours == theirs, (after, name, arguments)


async def outcome(side: Side, name: str, arguments: Any) -> Any:
    try:
        return await getattr(side, name)(*arguments)
    except (ValueError, TypeError, KeyError) as exc:
        return type(exc), str(exc)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=1, max_size=8), unsafe=st.booleans())
def test_cookies_are_aiohttps_after_anything_that_happens_to_the_jar(
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    steps: list[Any],
    unsafe: bool,
) -> None:
    loop.run_until_complete(compare(steps, unsafe, monkeypatch, tmp_path))


CASES: dict[str, list[Any]] = {
    "expired, by a clock that somebody else has set": [
        ("receive", 0, "a.test", "/", "n=1; Max-Age=5"), ("wait", 4), ("wait", 6), ("wait", 1000),
    ],
    "replaced by one that does not expire": [
        ("receive", 0, "a.test", "/", "n=1; Max-Age=5"), ("receive", 0, "a.test", "/", "n=1"), ("wait", 6),
    ],
    "expires now": [
        ("receive", 0, "a.test", "/", "n=1"),
        ("receive", 1, "a.test", "/x", "n=1; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
    ],
    "another value, from the other session": [
        ("receive", 0, "a.test", "/", "n=1"), ("receive", 1, "a.test", "/", "n=2"),
    ],
    "one taken, one added": [
        ("update", "a.test", "/", {"n": "1"}), ("clear_name", "n"), ("update", "a.test", "/", {"m": "1"}),
    ],
    "for all hosts": [("update", None, "/", {"n": "1"}), ("update", "a.test", "/", {"n": "2"})],
    "cleared": [("update", "a.test", "/", {"n": "1"}), ("clear",), ("update", "a.test", "/", {"n": "1"})],
    "loaded": [
        ("update", "a.test", "/", {"n": "1"}), ("save",), ("update", "a.test", "/", {"n": "2"}), ("load",),
    ],
    "for subdomains, then not": [
        ("receive", 0, "a.test", "/", "n=1; Domain=a.test"), ("receive", 0, "a.test", "/", "n=1"),
    ],
    "secure, then not": [
        ("receive", 0, "safe.test", "/", "n=1; Secure"), ("mutate", "secure", ""), ("mutate", "secure", True),
    ],
    "secure, and changed where it lies": [
        ("update", "a.test", "/", {"n": morsel("n", "1", secure=True)}), ("mutate", "secure", ""),
        ("mutate", "secure", True),
    ],
    "given a longer path where it lies": [
        ("update", "a.test", "/", {"n": "1"}), ("mutate", "path", "/xxxx"), ("mutate", "path", "/"),
    ],
    "given another domain where it lies": [
        ("update", "a.test", "/", {"n": "1"}), ("mutate", "domain", "b.test"), ("mutate", "domain", "a.test"),
    ],
    "replaced by a secure one": [
        ("update", "a.test", "/", {"n": morsel("n", "1", path="/")}),
        ("update", "a.test", "/", {"n": morsel("n", "1", path="/", secure=True)}),
        ("update", "a.test", "/", {"n": morsel("n", "1", path="/")}),
    ],
    "more specific": [
        ("receive", 0, "a.test", "/", "n=1; Path=/"), ("receive", 0, "a.test", "/x", "n=2; Path=/x"),
    ],
    "of another host": [("receive", 0, "b.test", "/", "n=1"), ("receive", 0, "sub.a.test", "/", "m=1")],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_cookies_are_aiohttps_when(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await compare(CASES[name], True, monkeypatch, tmp_path)
