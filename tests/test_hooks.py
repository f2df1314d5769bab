"""Middlewares and traces on the core: that it needs no Call for what is usual, and what its clock does."""

import asyncio
from typing import Any

import aiohttp
import pytest
from support.checks import assert_express, express_session
from support.local import LocalServer

import wirespeed

pytestmark = pytest.mark.skipif(not wirespeed.NATIVE, reason="the core's own ways")


async def pass_on(req: Any, handler: Any) -> Any:
    return await handler(req)


async def listen(session: Any, context: Any, params: Any) -> None:
    context.params = params


def traces(*more: str) -> list[aiohttp.TraceConfig]:
    config = aiohttp.TraceConfig()
    for name in ("request_start", "request_end", "request_exception", *more):
        getattr(config, f"on_{name}").append(listen)
    return [config]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The attempts that Calls make, and the Calls that go on with something."""
    from wirespeed.call import Call

    made: list[str] = []

    def noting(name: str, original: Any) -> Any:
        def noted(*args: Any, **more: Any) -> Any:
            made.append(name)
            return original(*args, **more)

        return noted

    for name in ("handle", "run", "give_up"):
        monkeypatch.setattr(Call, name, noting(name, getattr(Call, name)))
    return made


HOOKS: dict[str, Any] = {
    "a middleware": lambda: {"middlewares": (pass_on,)},
    "two middlewares": lambda: {"middlewares": [pass_on, pass_on]},
    "traces": lambda: {"trace_configs": traces()},
    "both": lambda: {"middlewares": (pass_on,), "trace_configs": traces()},
}
REQUESTS: dict[str, Any] = {
    "nothing": {},
    "params, headers and json": {"params": {"a": "1"}, "headers": {"X-Own": "1"}, "json": {"a": 1}},
    "bytes": {"data": b"x"},
    "a timeout": {"timeout": aiohttp.ClientTimeout(total=5)},
    "a context": {"trace_request_ctx": "mine"},
}


@pytest.mark.parametrize("hooks", sorted(HOOKS))
@pytest.mark.parametrize("options", sorted(REQUESTS))
async def test_usual_request_needs_no_call(calls: list[str], hooks: str, options: str) -> None:
    async with LocalServer() as server:
        cookies = {"c": "1"} if options != "nothing" else None
        async with express_session(cookies=cookies, **HOOKS[hooks]()) as session:
            for _ in range(3):
                async with session.post(server.url("/echo"), **REQUESTS[options]) as resp:
                    assert resp.status == 200
                    await resp.read()
            assert_express(session)
    assert calls == []


async def test_middleware_of_the_request_needs_no_call(calls: list[str]) -> None:
    async with LocalServer() as server, express_session() as session:
        async with session.get(server.url("/ok"), middlewares=(pass_on,)) as resp:
            assert await resp.read() == b"ok"
        assert_express(session)
    assert calls == []


async def test_changed_request_is_sent_by_a_call(calls: list[str]) -> None:
    async def change(req: Any, handler: Any) -> Any:
        req.headers["X-Changed"] = "1"
        return await handler(req)

    async with LocalServer() as server, express_session(middlewares=(change,)) as session:
        resp = await session.get(server.url("/ok"))
        assert await resp.read() == b"ok"
        assert resp.request_info.headers["X-Changed"] == "1"
    assert calls == ["handle"]


async def test_more_signals_than_the_core_sends_are_sent_by_a_call(calls: list[str]) -> None:
    configs = traces("connection_reuseconn")
    async with LocalServer() as server, express_session(trace_configs=configs) as session:
        await (await session.get(server.url("/ok"))).read()
    assert calls == ["run", "handle"]


async def test_list_of_middlewares_may_grow() -> None:
    seen: list[str] = []

    async def note(req: Any, handler: Any) -> Any:
        seen.append(req.url.path)
        return await handler(req)

    middlewares: list[Any] = []
    async with LocalServer() as server, express_session(middlewares=middlewares) as session:
        await (await session.get(server.url("/ok"))).read()
        middlewares.append(note)
        await (await session.get(server.url("/ok"))).read()
    assert seen == ["/ok"]


async def test_each_request_has_headers_of_its_own() -> None:
    seen: list[Any] = []

    async def keep(req: Any, handler: Any) -> Any:
        assert type(req) is aiohttp.ClientRequest
        resp = await handler(req)
        req.headers["X-After"] = "1"
        seen.append(req)
        return resp

    async with LocalServer() as server, express_session(middlewares=(keep,)) as session:
        for _ in range(2):
            await (await session.get(server.url("/ok"))).read()
            assert server.exchanges[-1].header("X-After") is None
    assert seen[0] is not seen[1]
    assert seen[0].headers is not seen[1].headers
    assert seen[0].session is session


async def test_handler_looks_like_a_coroutine_function() -> None:
    async def look(req: Any, handler: Any) -> Any:
        assert asyncio.iscoroutinefunction(handler)
        return await asyncio.wait_for(asyncio.create_task(handler(req)), 2)

    async with LocalServer() as server, express_session(middlewares=(look,)) as session:
        assert await (await session.get(server.url("/ok"))).read() == b"ok"


async def test_handler_that_is_not_awaited_warns() -> None:
    async def forget(req: Any, handler: Any) -> Any:
        with pytest.warns(RuntimeWarning, match="never awaited"):
            handler(req)
        return await handler(req)

    async with LocalServer() as server, express_session(middlewares=(forget,)) as session:
        async with session.get(server.url("/ok")) as resp:
            assert await resp.read() == b"ok"
        assert len(server.exchanges) == 1


async def test_total_time_passes_in_a_middleware_after_the_session_was_closed() -> None:
    async def outlast(req: Any, handler: Any) -> Any:
        await session.close()
        await asyncio.sleep(5)

    session = wirespeed.ClientSession(middlewares=(outlast,))
    with pytest.raises(asyncio.TimeoutError):
        await session.get("http://127.0.0.1:1/", timeout=aiohttp.ClientTimeout(total=0.05))


async def test_clock_cancels_every_task_inside_once() -> None:
    async def wait(req: Any, handler: Any) -> Any:
        return await asyncio.gather(handler(req), handler(req))

    async with LocalServer(raw=True) as server, express_session(middlewares=(wait,)) as session:
        server.on_data = lambda connection, data: None
        with pytest.raises(asyncio.TimeoutError):
            await session.get(server.url(), timeout=aiohttp.ClientTimeout(total=0.1))
        task = asyncio.current_task()
        assert task is not None
        assert not hasattr(task, "cancelling") or task.cancelling() == 0
