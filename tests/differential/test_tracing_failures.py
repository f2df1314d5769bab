"""Trace signals of requests that fail, time out, or are cancelled."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import BasicAuth
from support.outcome import ANY, Case, Do, Run, Script
from support.scripted import Close, ExpectHead, Reset, Send, Stall, StopReading
from support.tracing import sleeping

from .tables import agen, answer, check, get, post, request, serve, table
from .test_tracing import ANSWER, OK_LINE, Known, at_name, case, redirecting, traced

SHORT = 0.06
PART = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart"
ONE = {"limit": 1}


def limited(do: Callable[..., Do] = get, **limits: Any) -> Do:
    data = {"data": b"x"} if do is post else {}
    return do("/t", lambda run: {"timeout": run.api.ClientTimeout(**limits), **data})


async def refused(run: Run) -> Any:
    run.server.stop_listening()
    return await get("/t")(run)


class Unknown:
    """A resolver that knows nothing, by one error or another."""

    def __init__(self, make: Callable[[], Exception]) -> None:
        self._make = make

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> Any:
        await asyncio.sleep(0)
        raise self._make()

    async def close(self) -> None:
        pass


class Hanging(Known):
    """A resolver that does not answer."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> Any:
        await asyncio.sleep(30)


def unknown(make: Callable[[], Exception]) -> Callable[[Run], dict[str, Any]]:
    return traced(connector={"resolver": lambda: Unknown(make)})


# Where a request fails

FAILING: dict[str, tuple[Do, Script]] = {
    "a close before the head": (post("/t"), serve(Close())),
    "a reset before the head": (post("/t", data=b"x"), serve(Reset())),
    "two closes": (get("/t"), (*serve(Close()), *serve(Close()))),
    "a close within the head": (post("/t"), serve(b"HTTP/1.1 200 OK\r\nX: ", Close())),
    "rubbish": (get("/t"), serve(b"rubbish\r\n\r\n", Close())),
    "a bad header": (get("/t"), serve(b"HTTP/1.1 200 OK\r\n bad\r\n\r\n", Close())),
    "a close within the body": (get("/t"), serve(PART, Close())),
    "a bad chunk": (get("/t"), serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n", Close())),
    "bad gzip": (get("/t"), serve(answer(OK_LINE, "Content-Encoding: gzip", body=b"no gzip"))),
    "too many redirects": (get("/t", max_redirects=1), redirecting("302 F", "Location: /u")),
    "a redirect to another scheme": (get("/t"), redirecting("302 F", "Location: ftp://x/")),
    "a redirect to no host": (get("/t"), redirecting("302 F", "Location: http:///x")),
    "a redirect to no URL": (get("/t"), redirecting("302 F", "Location: http://[::x/")),
    "a redirect of a generator": (
        post("/t", lambda run: {"data": agen(b"x")}),
        redirecting("307 T", "Location: /u"),
    ),
    "raise_for_status": (get("/t", raise_for_status=True), serve(answer("HTTP/1.1 404 No", body=b"gone"))),
    "raise_for_status within a body": (
        get("/t", raise_for_status=True),
        serve(PART.replace(b"200", b"500"), Stall()),
    ),
    "a generator that raises": (post("/t", lambda run: {"data": broken()}), serve(ANSWER)),
    "a header of two lines": (get("/t", headers={"X-A": "a\r\nb"}), serve(ANSWER)),
    "a bad Content-Length": (post("/t", data=b"x", headers={"Content-Length": "x"}), serve(ANSWER)),
    "chunked and Content-Length": (
        post("/t", data=b"x", chunked=True, headers={"Content-Length": "1"}),
        serve(ANSWER),
    ),
    "a header that is no str": (get("/t", headers={"X-A": 1}), serve(ANSWER)),
    "data of a bad type": (post("/t", data=5), serve(ANSWER)),
    "a bad method": (request("A B", "/t"), serve(ANSWER)),
    "auth twice": (
        get("/t", lambda run: {"auth": BasicAuth("a", "b"), "headers": {"Authorization": "x"}}),
        serve(ANSWER),
    ),
}
NOT_STARTED: dict[str, Do] = {
    "data and json": post("/t", data=b"x", json=1),
    "no URL": lambda run: run.session.get("http://[::x/"),
    "no host": lambda run: run.session.get("http:///path"),
    "another scheme": lambda run: run.session.get("ftp://x/"),
    "a bad ssl": get("/t", ssl="x"),
    "an unknown argument": get("/t", unknown=1),
}


async def broken() -> Any:
    yield b"first"
    raise LookupError("the source broke")


async def on_a_closed_session(run: Run) -> Any:
    await run.session.close()
    return await run.session.get(run.url())


async def payload_error_while_streaming(run: Run) -> Any:
    async with run.session.get(run.url()) as resp:
        run.see(resp.status)
        return [chunk async for chunk in resp.content.iter_any()]


async def checking(resp: Any) -> None:
    await resp.read()
    raise LookupError(f"status {resp.status}")


FAILURE_CASES = (
    [
        case(f"trace failure by {name}", do, script, session=traced(connector=ONE))
        for name, (do, script) in FAILING.items()
    ]
    + [
        case(
            f"trace failure by {name}, signals wait",
            do,
            script,
            session=traced({"*": sleeping()}, connector=ONE),
        )
        for name, (do, script) in FAILING.items()
        if name != "a generator that raises"
    ]
    + [case(f"trace refusal of {name}", do, lane=ANY) for name, do in NOT_STARTED.items()]
    + [
        case("trace refused connection", refused, expect="ClientConnectorError", probe=False),
        case("trace closed session", on_a_closed_session, lane=ANY, expect="RuntimeError"),
        case("trace payload error of a stream", payload_error_while_streaming, serve(PART, Close())),
        case(
            "trace raise_for_status of the caller", get("/t", raise_for_status=checking), expect="LookupError"
        ),
        case("trace unverified TLS", get("/t"), scheme="https", expect="ClientConnectorCertificateError"),
        case(
            "trace TLS to a plain server",
            lambda run: run.session.get(f"https://127.0.0.1:{run.server.port}/"),
            ((Send(b"no TLS"), Close()),),
            wire=False,
        ),
    ]
    + [
        case(f"trace unknown name {name}", at_name(), session=unknown(make))
        for name, make in {
            "OSError": lambda: OSError(None, "unknown name"),
            "timeout": lambda: asyncio.TimeoutError(),
            "another error": lambda: LookupError("unknown name"),
        }.items()
    ]
)

TIMEOUT_CASES = [
    case(
        f"trace {limit} {where} to {name}",
        limited(do, **{limit: SHORT}),
        script,
        session=traced(connector=ONE),
    )
    for limit in ("total", "sock_read")
    for name, do in (("GET", get), ("POST", post))
    for where, script in (("before the head", serve(Stall())), ("within the body", serve(PART, Stall())))
] + [
    case(
        f"trace {limit} in the resolver",
        at_name(timeout=aiohttp.ClientTimeout(**{limit: SHORT})),
        session=traced(connector={"resolver": Hanging}),
        probe=False,
    )
    for limit in ("total", "connect")
]


@table(FAILURE_CASES)
async def test_failures(case: Case) -> None:
    await check(case)


@table(TIMEOUT_CASES)
async def test_timeouts(case: Case) -> None:
    await check(case)


CANCELLED: dict[str, Script] = {
    "before the head": serve(Stall()),
    "within the head": serve(b"HTTP/1.1 200 OK\r\nX: ", Stall()),
    "within the body": serve(PART, Stall()),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("where", sorted(CANCELLED))
async def test_cancelled_request(where: str, method: str) -> None:
    async def do(run: Run) -> Any:
        task = asyncio.ensure_future(request(method, "/t")(run))
        await asyncio.sleep(0.03)
        task.cancel()
        return [type(result) for result in await asyncio.gather(task, return_exceptions=True)]

    id = f"trace cancelled {where} {method}"
    outcome = await check(case(id, do, CANCELLED[where], session=traced(connector=ONE)))
    assert outcome["result"] == ["asyncio.exceptions.CancelledError"]


async def test_cancelled_in_the_resolver() -> None:
    async def do(run: Run) -> Any:
        task = asyncio.ensure_future(at_name()(run))
        await asyncio.sleep(0.03)
        task.cancel()
        return [type(result) for result in await asyncio.gather(task, return_exceptions=True)]

    session = traced(connector={"resolver": Hanging, **ONE})
    await check(case("trace cancelled in the resolver", do, session=session))


async def test_cancelled_upload() -> None:
    async def do(run: Run) -> Any:
        task = asyncio.ensure_future(post("/t", data=b"x" * 16_000_000)(run))
        await asyncio.sleep(0.1)
        task.cancel()
        return [type(result) for result in await asyncio.gather(task, return_exceptions=True)]

    script = ((ExpectHead(), StopReading()),)
    await check(case("trace cancelled upload", do, script, wire=False, probe=False))
