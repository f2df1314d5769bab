"""Dialling to an address: what it raises, in which words, and what is left of it."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from support.local import port_that_never_accepts
from support.names import Names
from support.outcome import ANY, Case, Run
from support.scripted import Close

from .tables import answer, check, serve, table

Timeout = aiohttp.ClientTimeout
SHORT = 0.1


class NoNames(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        raise OSError(None, "DNS lookup failed")

    async def close(self) -> None:
        pass


def on(**options: Any) -> Callable[[Run], dict[str, Any]]:
    """A session on a connector with these options; a callable is called for each."""

    def arguments(run: Run) -> dict[str, Any]:
        made = {name: value() if callable(value) else value for name, value in options.items()}
        return {"connector": run.api.TCPConnector(**made)}

    return arguments


async def attempt(run: Run, url: str, **options: Any) -> Any:
    """A request whose error is looked at in detail, beyond what outcomes compare."""
    try:
        async with run.session.get(url, **options) as resp:
            await resp.read()
        return resp
    except aiohttp.ClientConnectorError as exc:
        run.see(exc.errno, exc.strerror, exc.host, exc.port, exc.ssl, str(exc), type(exc.os_error))
        run.see(exc.os_error.args, exc.os_error.errno, str(exc.os_error), exc.__cause__ is exc.os_error)
        raise
    except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
        cause: BaseException | None = exc
        while cause is not None:
            run.see(type(cause), str(cause))
            cause = cause.__cause__
        raise


def unused_port(host: str, family: int = socket.AF_INET) -> int:
    with socket.socket(family) as unused:
        unused.bind((host, 0))
        return unused.getsockname()[1]  # type: ignore[no-any-return]


def to(url: str, **options: Any) -> Any:
    return lambda run: attempt(run, url, **options)


def has_ipv6() -> bool:
    try:
        unused_port("::1", socket.AF_INET6)
    except OSError:
        return False
    return True


FAILURES = [
    # Kernels may listen on port 1, but not on loopback.
    Case("refused", to("http://127.0.0.1:1/"), expect="ClientConnectorError"),
    Case("refused with a fragment", to("http://127.0.0.1:1/a?b#c"), expect="ClientConnectorError"),
    Case("refused, options", to("http://127.0.0.1:1/", params={"a": "b"}), expect="ClientConnectorError"),
    Case("refused POST", lambda run: posted(run, "http://127.0.0.1:1/"), expect="ClientConnectorError"),
    Case("no route", to("http://255.255.255.255:9/"), expect="ClientConnectorError"),
    Case("not canonical", to("http://127.1:1/"), lane=ANY, expect="InvalidUrlClientError"),
    Case("a number", to("http://2130706433:1/"), lane=ANY, expect="InvalidUrlClientError"),
    Case(
        "refused by name",
        to("http://one.test:1/"),
        session=on(resolver=lambda: Names("127.0.0.1")),
        expect="ClientConnectorError",
    ),
    Case(
        "refused by both addresses of a name",
        to("http://two.test:1/"),
        session=on(resolver=lambda: Names("127.0.0.1", "127.0.0.2")),
        expect="ClientConnectorError",
    ),
    Case(
        "no such name",
        to("http://none.test:1/"),
        session=on(resolver=NoNames),
        expect="ClientConnectorDNSError",
    ),
    Case(
        "other family",
        to("http://127.0.0.1:1/"),
        session=on(family=socket.AF_INET6),
        expect="AssertionError",
    ),
    Case(
        "refused with force_close",
        to("http://127.0.0.1:1/"),
        session=on(force_close=True),
        expect="ClientConnectorError",
    ),
]


async def posted(run: Run, url: str) -> Any:
    async with run.session.post(url, json={"a": 1}) as resp:
        return resp


@table(FAILURES)
async def test_failures(case: Case) -> None:
    await check(case)


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_refused_by_an_address_of_version_6() -> None:
    await check(Case("refused v6", to("http://[::1]:1/"), expect="ClientConnectorError"))


@pytest.mark.parametrize("tries", [2, 3])
async def test_name_that_is_known_and_refused_again(tries: int) -> None:
    async def do(run: Run) -> Any:
        for _ in range(tries - 1):
            with pytest.raises(aiohttp.ClientConnectorError):
                await attempt(run, "http://one.test:1/")
        return await attempt(run, "http://one.test:1/")

    names = on(resolver=lambda: Names("127.0.0.1"))
    await check(Case("refused again", do, session=names, expect="ClientConnectorError"))


@pytest.mark.parametrize(
    ("timeout", "expect"),
    [
        (Timeout(sock_connect=SHORT), "ConnectionTimeoutError"),
        (Timeout(connect=SHORT), "ConnectionTimeoutError"),
        (Timeout(total=SHORT), "TimeoutError"),
        (Timeout(connect=SHORT, sock_connect=9), "ConnectionTimeoutError"),
        (Timeout(connect=9, sock_connect=SHORT), "ConnectionTimeoutError"),
        (Timeout(total=9, sock_connect=SHORT), "ConnectionTimeoutError"),
        (Timeout(total=SHORT, connect=9, sock_connect=9), "TimeoutError"),
    ],
    ids=str,
)
async def test_time_passes(timeout: Timeout, expect: str) -> None:
    with port_that_never_accepts() as port:
        url = f"http://127.0.0.1:{port}/a#b"
        await check(Case("time passes", to(url, timeout=timeout), probe=False, expect=expect))


async def test_time_of_the_session_passes() -> None:
    with port_that_never_accepts() as port:
        session = {"timeout": Timeout(sock_connect=SHORT)}
        case = Case(
            "session's time",
            to(f"http://127.0.0.1:{port}/"),
            session=session,
            expect="ConnectionTimeoutError",
        )
        await check(case)


async def test_cancelled_while_dialling() -> None:
    with port_that_never_accepts() as port:

        async def do(run: Run) -> Any:
            task = asyncio.ensure_future(attempt(run, f"http://127.0.0.1:{port}/"))
            await asyncio.sleep(0.05)
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            return type(result)

        await check(Case("cancelled", do))


WAYS_IN = {
    "address": on(),
    "force_close": on(force_close=True),
    "limit": on(limit=1),
    "limit_per_host": on(limit_per_host=1),
    "family": on(family=socket.AF_INET),
    "local_addr": on(local_addr=("127.0.0.1", 0)),
    "no cache": on(use_dns_cache=False),
    "no happy eyeballs": on(happy_eyeballs_delay=None),
}


@pytest.mark.parametrize("way", WAYS_IN, ids=str)
async def test_requests_one_after_the_other_and_together(way: str) -> None:
    async def do(run: Run) -> Any:
        for number in range(3):
            run.see(await attempt(run, run.url(f"/{number}")))
        await asyncio.gather(*(attempt(run, run.url("/together")) for _ in range(4)))
        return "done"

    ok = serve(answer("HTTP/1.1 200 OK", body=b"ok")) * 10
    ignore = ("wire", "connections", "probe")
    await check(Case(f"way {way}", do, ok, session=WAYS_IN[way], ignore=ignore))


NAMED = {
    "one address": ("127.0.0.1",),
    "two addresses": ("127.0.0.1", "127.0.0.1"),
    "first is refused": ("127.0.0.2", "127.0.0.1"),
    "two families": ("::1", "127.0.0.1"),
}


@pytest.mark.parametrize("name", NAMED, ids=str)
async def test_names(name: str) -> None:
    async def do(run: Run) -> Any:
        url = run.url("/").replace("127.0.0.1", "name.test")
        for _ in range(3):
            run.see(await attempt(run, url))
        return "done"

    ok = serve(answer("HTTP/1.1 200 OK", "Connection: close", body=b"ok"), Close()) * 4
    session = on(resolver=lambda: Names(*NAMED[name]), force_close=True)
    await check(Case(f"name {name}", do, ok, session=session))
