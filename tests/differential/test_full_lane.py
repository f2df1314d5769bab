"""What runs on aiohttp's own code: proxies, websockets, traces, middlewares, own classes, and the seam."""

from collections.abc import Callable
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import BasicAuth, web
from support.outcome import ANY, EXPRESS, FULL, Case, Do, Run, assert_same
from support.scripted import Close, Expect, ExpectBytes, ExpectHead, Reset, Send, Stall

from .known import KNOWN
from .tables import answer, check, get, post, request, serve, table

OK_LINE = "HTTP/1.1 200 OK"
ANSWER = answer(OK_LINE, body=b"full")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def proxied(target: str = "http://target.example/path?q=1", **more: Any) -> Do:
    """A request through the scripted server as a proxy."""

    async def do(run: Run) -> Any:
        arguments = {name: value() if callable(value) else value for name, value in more.items()}
        async with run.session.get(target, proxy=run.server.base, **arguments) as resp:
            await resp.read()
        return resp

    return do


PROXY_CASES = [
    Case("proxy plain", proxied(), serve(ANSWER), lane=FULL, expect=200),
    Case("proxy with auth", proxied(proxy_auth=lambda: BasicAuth("u", "p")), serve(ANSWER), lane=FULL),
    Case("proxy with headers", proxied(proxy_headers={"X-P": "1"}), serve(ANSWER), lane=FULL, expect=200),
    Case("proxy with cookies", proxied(cookies={"a": "1"}), serve(ANSWER), lane=FULL, expect=200),
    Case("proxy that refuses", proxied(), serve(answer("HTTP/1.1 407 Auth")), lane=FULL, expect=407),
    Case("proxy that closes", proxied(), (*serve(Close()), *serve(Close())), lane=FULL),
    Case(
        "tunnel refused",
        proxied("https://target.example/"),
        serve(answer("HTTP/1.1 403 No", "X-Why: y")),
        lane=FULL,
        expect="ClientHttpProxyError",
    ),
    Case(
        "proxy of the session",
        get("/direct"),
        serve(ANSWER),
        session=lambda run: {"proxy": run.other.base},
        lane=FULL,
        expect=200,
        probe=False,
    ),
]


def traced(run: Run) -> dict[str, Any]:
    """A session that notes every signal and its parameters' kind."""
    config = aiohttp.TraceConfig()
    for name in dir(config):
        if not name.startswith("on_"):
            continue

        async def note(session: Any, context: SimpleNamespace, params: Any, name: str = name) -> None:
            details = [getattr(params, field, None) for field in ("method", "url", "chunk", "host")]
            run.see([name, type(params).__name__, details, hasattr(params, "exception")])

        getattr(config, name).append(note)
    return {"trace_configs": [config]}


TRACE_CASES = [
    Case("trace GET", get("/t"), serve(ANSWER), session=traced, lane=EXPRESS, expect=200, probe=False),
    Case(
        "trace POST",
        post("/t", data=b"x"),
        serve(ANSWER),
        session=traced,
        lane=EXPRESS,
        expect=200,
        probe=False,
    ),
    Case(
        "trace a redirect",
        get("/t"),
        ((Expect(), Send(answer("HTTP/1.1 302 F", "Location: /u")), Expect(), Send(ANSWER)),),
        session=traced,
        lane=EXPRESS,
        expect=200,
        probe=False,
    ),
    Case("trace a failure", post("/t"), serve(Reset()), session=traced, lane=EXPRESS, probe=False),
    Case(
        "trace context",
        get("/t", trace_request_ctx={"a": 1}),
        serve(ANSWER),
        session=traced,
        lane=EXPRESS,
        expect=200,
        probe=False,
    ),
]


async def tagging(req: Any, handler: Any) -> Any:
    req.headers["X-Middleware"] = "1"
    resp = await handler(req)
    resp.headers.get("X-A")
    return resp


async def retrying(req: Any, handler: Any) -> Any:
    for _ in range(3):
        resp = await handler(req)
        if resp.status != 503:
            return resp
        resp.release()
    return resp


async def answering_nothing(req: Any, handler: Any) -> Any:
    raise LookupError("the middleware refuses")


BUSY = (Expect(), Send(answer("HTTP/1.1 503 Busy")))
MIDDLEWARE_CASES = [
    Case(
        "middleware of the session",
        get(),
        serve(ANSWER),
        session={"middlewares": (tagging,)},
        lane=EXPRESS,
        expect=200,
    ),
    Case("middleware of the request", get(middlewares=(tagging,)), serve(ANSWER), lane=EXPRESS, expect=200),
    Case(
        "middlewares off for the request",
        get(middlewares=()),
        serve(ANSWER),
        session={"middlewares": (tagging,)},
        lane=ANY,
        expect=200,
    ),
    Case(
        "middleware that retries",
        get(middlewares=(retrying,)),
        ((*BUSY, *BUSY, Expect(), Send(ANSWER)),),
        lane=EXPRESS,
        expect=200,
    ),
    Case(
        "middleware that raises",
        get(middlewares=(answering_nothing,)),
        serve(ANSWER),
        lane=EXPRESS,
        expect="LookupError",
    ),
    Case(
        "digest middleware",
        get(middlewares=(aiohttp.DigestAuthMiddleware("u", "p"),)),
        serve(ANSWER),
        lane=EXPRESS,
        expect=200,
    ),
]

CONTINUE_CASES = [
    Case(
        "expect100 granted",
        post(data=b"body", expect100=True),
        ((ExpectHead(), Send(CONTINUE), ExpectBytes(4), Send(ANSWER)),),
        lane=EXPRESS,
        expect=200,
    ),
    Case(
        "expect100 granted and answered",
        post(data=b"0123", expect100=True),
        ((ExpectHead(), Send(CONTINUE + ANSWER)),),
        lane=EXPRESS,
        probe=False,
        expect=200,
    ),
    Case(
        "expect100 refused",
        post(data=b"body", expect100=True),
        ((ExpectHead(), Send(answer("HTTP/1.1 417 No")), Stall()),),
        lane=EXPRESS,
        expect=417,
    ),
    Case(
        "expect100 without a body",
        get(expect100=True),
        ((ExpectHead(), Send(CONTINUE + ANSWER)),),
        lane=EXPRESS,
    ),
    Case(
        "Expect header by hand",
        post(data=b"body", headers={"Expect": "100-Continue"}),
        ((ExpectHead(), Send(CONTINUE + ANSWER), Stall()),),
        lane=EXPRESS,
        expect=200,
        probe=False,
    ),
]


class OwnResponse(aiohttp.ClientResponse):
    """A response class of the caller."""

    @property
    def shouted(self) -> str:
        return (self.reason or "").upper()


class OwnRequest(aiohttp.ClientRequest):
    """A request class of the caller, which adds a header."""

    def update_auto_headers(self, skip_auto_headers: Any) -> None:
        super().update_auto_headers(skip_auto_headers)
        self.headers["X-Own"] = "1"


class OwnJar(aiohttp.CookieJar):
    """A cookie jar of the caller, which sends one cookie to every host."""

    def filter_cookies(self, request_url: Any = None) -> Any:
        return SimpleCookie("own=1")


CLASS_CASES = [
    Case("own response class", get(), serve(ANSWER), session={"response_class": OwnResponse}, lane=FULL),
    Case("own request class", get(), serve(ANSWER), session={"request_class": OwnRequest}, lane=FULL),
    Case("own cookie jar", get(), serve(ANSWER), session=lambda _: {"cookie_jar": OwnJar()}, lane=ANY),
    Case(
        "aiohttp's connector",
        get(),
        serve(ANSWER),
        session=lambda run: {"connector": aiohttp.TCPConnector()},
        lane=FULL,
        expect=200,
    ),
    Case(
        "a connector shared with aiohttp's pool settings",
        get(),
        serve(ANSWER),
        session=lambda run: {"connector": aiohttp.TCPConnector(limit=1, force_close=True)},
        lane=FULL,
        expect=200,
    ),
]


@table(PROXY_CASES)
async def test_proxy(case: Case) -> None:
    await check(case)


@table(TRACE_CASES)
async def test_traces(case: Case) -> None:
    await check(case)


@table(MIDDLEWARE_CASES)
async def test_middlewares(case: Case) -> None:
    await check(case)


@table(CONTINUE_CASES)
async def test_expect_100_continue(case: Case) -> None:
    await check(case)


@table(CLASS_CASES)
async def test_classes_of_the_caller(case: Case) -> None:
    await check(case)


async def test_upload_tracker() -> None:
    async def do(run: Run) -> Any:
        tracker = aiohttp.UploadTracker()
        async with run.session.post(run.url(), data=b"x" * 50_000, upload_tracker=tracker) as resp:
            await resp.read()
        await tracker.upload_complete
        return [resp.status, tracker.bytes_written, tracker.attempts]

    outcome = await check(Case("upload tracker", do, serve(ANSWER), lane=EXPRESS))
    assert outcome["result"] == [200, 50_000, 1]


async def test_trust_env(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "nothing.example")
    monkeypatch.setenv("NETRC", "/dev/null")
    await check(Case("trust_env", get(), serve(ANSWER), session={"trust_env": True}, lane=ANY, expect=200))


Seam = Callable[[Run], dict[str, Any]]
SEAM: dict[str, Seam] = {
    "middleware": lambda run: {"middlewares": (tagging,)},
    "upload tracker": lambda run: {"upload_tracker": aiohttp.UploadTracker()},
    "trace context": lambda run: {"trace_request_ctx": {"x": 1}},
}


@pytest.mark.parametrize("order", ["express first", "full first"])
@pytest.mark.parametrize("kind", sorted(SEAM))
async def test_one_connection_serves_both_lanes(kind: str, order: str) -> None:
    async def do(run: Run) -> Any:
        plain = request("GET", "/plain")
        full = request("GET", "/full", SEAM[kind])
        turns = (plain, full, plain) if order == "express first" else (full, plain, full)
        return [await turn(run) for turn in turns]

    outcome = await check(Case(f"seam {kind} {order}", do, (), lane=ANY))
    assert outcome["connections"] == 1
    assert outcome["probe"]["reused"] is True


async def test_limit_holds_over_both_lanes() -> None:
    async def do(run: Run) -> Any:
        async with run.session.get(run.url("/held")) as held:
            timeout = run.api.ClientTimeout(connect=0.1)
            run.see(held.status)
            try:
                await run.session.get(run.url("/waits"), middlewares=(tagging,), timeout=timeout)
            finally:
                held.close()

    script = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", Stall())
    session = lambda run: {"connector": run.api.TCPConnector(limit=1)}  # noqa: E731
    await check(Case("limit", do, script, session=session, lane=ANY, expect="ConnectionTimeoutError"))


async def test_malformed_answer_on_a_connection_of_the_other_lane() -> None:
    async def do(run: Run) -> Any:
        run.see(await get("/1")(run))
        return await post("/2", data=b"x", middlewares=(tagging,))(run)

    script = ((Expect(), Send(ANSWER), Expect(), Send(b"rubbish\r\n\r\n")),)
    await check(Case("malformed", do, script, lane=ANY, expect="ClientResponseError"))


# Websockets, against aiohttp's own server


async def echo(request: web.Request) -> web.StreamResponse:
    ws = web.WebSocketResponse(protocols=("chat",))
    await ws.prepare(request)
    async for message in ws:
        if message.data == "close":
            await ws.close(code=4000, message=b"asked")
        elif message.type is aiohttp.WSMsgType.TEXT:
            await ws.send_str(f"{message.data} back")
        else:
            await ws.send_bytes(message.data)
    return ws


async def plain(request: web.Request) -> web.Response:
    return web.Response(text="plain")


async def talk(run: Run, base: str) -> Any:
    run.see(await (await run.session.get(base + "/plain")).text())
    async with run.session.ws_connect(base + "/ws", protocols=("chat",), heartbeat=None) as ws:
        await ws.send_str("hello")
        run.see((await ws.receive()).data, ws.protocol, ws.closed)
        await ws.send_bytes(b"\0" * 70_000)
        run.see(len((await ws.receive()).data))
        await ws.send_str("close")
        message = await ws.receive()
        run.see(message.type.name, ws.close_code, ws.closed)
    async with run.session.get(base + "/plain") as resp:
        return [resp.status, await resp.text()]


async def test_websocket_against_a_real_server() -> None:
    app = web.Application()
    app.router.add_get("/ws", echo)
    app.router.add_get("/plain", plain)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    async def do(run: Run) -> Any:
        return await talk(run, f"http://127.0.0.1:{port}")

    try:
        outcome = await assert_same(Case("websocket", do, lane=ANY), KNOWN)
    finally:
        await runner.cleanup()
    assert outcome["seen"][1] == "hello back"


REFUSALS = {
    "a plain answer": answer(OK_LINE, body=b"no"),
    "a wrong accept": answer(
        "HTTP/1.1 101 S", "Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Accept: x", length=False
    ),
    "no upgrade": answer("HTTP/1.1 101 S", "Connection: upgrade", length=False),
    "an error": answer("HTTP/1.1 403 No", body=b"no"),
}


@pytest.mark.parametrize("what", sorted(REFUSALS))
async def test_websocket_refused_with(what: str) -> None:
    async def do(run: Run) -> Any:
        async with run.session.ws_connect(run.url("/ws")):
            return "connected"

    case = Case(
        f"ws {what}", do, serve(REFUSALS[what]), lane=ANY, wire=False, expect="WSServerHandshakeError"
    )
    await check(case)
