"""One case through aiohttp and through wirespeed: the same bytes, the same outcome.

A case is a coroutine function that gets a session and a base URL. It runs twice against
fresh, identical scripted servers; what can be observed of both runs is compared.
"""

import asyncio
import pprint
import re
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import aiohttp

import wirespeed

from .scripted import Script, ScriptedServer

# A case that takes longer than this hangs; hanging is an outcome too.
HANG = 3.0

Call = Callable[[aiohttp.ClientSession, str], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """What to do, against what, and on which lane wirespeed is expected to do it."""

    call: Call
    scripts: Sequence[Script] = ()
    session: Callable[[ModuleType], dict[str, Any]] = field(default=lambda module: {})
    lane: str = "express"
    # A plain request afterwards on the same session: its connection shows what was reused.
    follow_up: bool = True
    differs: frozenset[str] = frozenset()


def request(method: str, path: str = "/", *, read: str = "read", **options: Any) -> Call:
    """Make the call of a case: send one request, read its body, observe everything."""

    async def call(session: aiohttp.ClientSession, base: str) -> Any:
        async with session.request(method, base + path, **fresh(options)) as resp:
            seen = await observe(resp, read)
        return seen

    return call


def fresh(options: dict[str, Any]) -> dict[str, Any]:
    """Make the options of one run: callables marked as factories are called."""
    return {
        name: value.make() if isinstance(value, Fresh) else value for name, value in options.items()
    }


@dataclass(frozen=True)
class Fresh:
    """An option that has to be made anew for each run: a file, a generator, a form."""

    make: Callable[[], Any]


async def observe(resp: aiohttp.ClientResponse, read: str = "read") -> dict[str, Any]:
    """Everything a caller can see of a response, in plain values."""
    seen: dict[str, Any] = {
        "status": resp.status,
        "reason": resp.reason,
        "version": resp.version,
        "headers": list(resp.headers.items()),
        "raw_headers": resp.raw_headers,
        "method": resp.method,
        "url": resp.url,
        "real_url": resp.real_url,
        "host": resp.host,
        "ok": resp.ok,
        "content_type": resp.content_type,
        "charset": resp.charset,
        "content_length": resp.content_length,
        "content_disposition": resp.content_disposition,
        "links": [(key, list(value.items())) for key, value in resp.links.items()],
        "repr": repr(resp),
        "history": [(item.status, item.url, item.method) for item in resp.history],
        "request_info": _info(resp.request_info),
        "cookies": resp.cookies.output(),
    }
    try:
        seen["body"] = await _read(resp, read)
    except Exception as exc:
        seen["body"] = _exception(exc)
    seen["closed"] = resp.closed
    return seen


async def _read(resp: aiohttp.ClientResponse, how: str) -> Any:
    if how == "chunks":
        return [item async for item in resp.content.iter_chunks()]
    if how == "any":
        return b"".join([item async for item in resp.content.iter_any()])
    if how == "chunked":
        return [item async for item in resp.content.iter_chunked(7)]
    if how == "lines":
        return [line async for line in resp.content]
    if how == "none":
        return None
    return await getattr(resp, how)()


def _info(info: aiohttp.RequestInfo) -> Any:
    return (info.url, info.method, list(info.headers.items()), info.real_url)


def _exception(exc: BaseException) -> dict[str, Any]:
    seen: dict[str, Any] = {"type": type(exc).__qualname__, "module": type(exc).__module__, "str": str(exc)}
    for name in ("status", "message", "errno", "code"):
        if hasattr(exc, name):
            seen[name] = str(getattr(exc, name))
    if isinstance(exc, aiohttp.ClientResponseError):
        seen["request_info"] = _info(exc.request_info)
        seen["history"] = [(item.status, item.url) for item in exc.history]
        seen["headers"] = None if exc.headers is None else list(exc.headers.items())
    seen["cause"] = type(exc.__cause__).__name__
    return seen


async def outcome(module: ModuleType, case: Case) -> dict[str, Any]:
    """Run a case with one package's classes and return all that was observed."""
    seen: dict[str, Any] = {}
    async with ScriptedServer(case.scripts) as server:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            async with module.ClientSession(**case.session(module)) as session:
                try:
                    seen["result"] = await asyncio.wait_for(case.call(session, server.url("")), HANG)
                except Exception as exc:
                    seen["exception"] = _exception(exc)
                if case.follow_up:
                    try:
                        async with session.get(server.url("/follow-up")) as resp:
                            seen["follow_up"] = (resp.status, await resp.read())
                    except Exception as exc:
                        seen["follow_up"] = _exception(exc)
                jar = session.cookie_jar
                seen["jar"] = sorted((c.key, c.value, c["domain"], c["path"]) for c in jar)
                if module is wirespeed:
                    seen["lanes"] = session.native_stats()
        seen["warnings"] = sorted({(w.category.__name__, str(w.message)) for w in caught})
        seen["wire"] = server.wire()
        return _portless(seen, server.port)


def _portless(value: Any, port: int) -> Any:
    """Make ports, addresses of objects and multipart boundaries equal in everything observed."""
    if isinstance(value, dict):
        return {key: _portless(item, port) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portless(item, port) for item in value]
    if isinstance(value, bytes):
        return value.replace(b":%d" % port, b":PORT")
    if isinstance(value, int | float | None):
        return value
    text = re.sub(r"boundary=[0-9a-f]{32}", "boundary=BOUNDARY", str(value))
    text = re.sub(r"0x[0-9a-f]{6,}", "0xADDRESS", text)
    for before in (":", " ", "port="):
        text = text.replace(f"{before}{port}", f"{before}PORT")
    return text


async def compare(case: Case) -> dict[str, Any]:
    """Run a case through both; fail with the fields that differ. Returns wirespeed's outcome."""
    theirs = await outcome(aiohttp, case)
    ours = await outcome(wirespeed, case)
    lanes = ours.pop("lanes", None)
    differences = [
        f"{name}:\n  aiohttp   {pprint.pformat(theirs.get(name), width=150)}\n"
        f"  wirespeed {pprint.pformat(ours.get(name), width=150)}"
        for name in sorted(theirs.keys() | ours.keys())
        if name not in case.differs and theirs.get(name) != ours.get(name)
    ]
    assert not differences, "\n".join(differences)
    if wirespeed.NATIVE and lanes is not None:
        if case.lane == "express":
            assert lanes["full"] == {}, lanes
        else:
            assert lanes["full"], lanes
    return ours
