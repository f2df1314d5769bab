"""Middlewares that write down the request they are given and the response they return."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp.payload import Payload

from .outcome import Run

Handler = Callable[[Any], Awaitable[Any]]
Middleware = Callable[[Any, Handler], Awaitable[Any]]
Maker = Callable[[Run], Middleware]
"""Middlewares may keep a state: each client gets one of its own."""

Change = Callable[[Run, Any], Awaitable[Any] | None]


def look(req: Any) -> list[Any]:
    """What a middleware can see of a request, as it is now."""
    body = req.body
    return [
        req.method,
        req.url,
        req.original_url,
        [list(item) for item in req.headers.items() if "boundary=" not in item[1]],
        [type(body).__name__, body.size, body.consumed] if isinstance(body, Payload) else body,
        [req.chunked, req.compress, req.version, req.is_ssl(), req.host, req.port, req.proxy],
        [list(item) for item in req.request_info.headers.items() if "boundary=" not in item[1]],
        req._continue is not None,
    ]


def look_at(resp: Any) -> list[Any]:
    """What it can see of a response before anybody has read it."""
    info = resp.request_info
    return [
        resp.status,
        resp.method,
        resp.url,
        resp.real_url,
        resp.headers,
        [info.method, info.url, info.real_url],
        [past.status for past in resp.history],
        resp.cookies,
    ]


def changing(change: Change | None = None) -> Maker:
    """Change the request, pass it on, and look at it before and after."""

    def make(run: Run) -> Middleware:
        async def middleware(req: Any, handler: Handler) -> Any:
            run.see(look(req), req.session is run.session)
            if change is not None and (awaitable := change(run, req)) is not None:
                await awaitable
            run.see(look(req))
            resp = await handler(req)
            run.see(look(req), look_at(resp))
            return resp

        return middleware

    return make


def in_session(*makers: Maker, **more: Any) -> Callable[[Run], dict[str, Any]]:
    """The arguments of a session with middlewares."""
    return lambda run: {"middlewares": tuple(make(run) for make in makers), **more}


def in_request(*makers: Maker, **more: Any) -> Callable[[Run], dict[str, Any]]:
    """The arguments of a request with middlewares; a value that is callable is made anew for each client."""
    return lambda run: {
        "middlewares": tuple(make(run) for make in makers),
        **{name: value() if callable(value) else value for name, value in more.items()},
    }
