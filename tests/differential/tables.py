"""What the tables share: ways of making one request, and common answers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest
from support.outcome import Case, Do, Run, assert_same
from support.scripted import Expect, Script, Send, Step

from .known import KNOWN

Arguments = Mapping[str, Any] | Callable[[Run], Mapping[str, Any]]


class Asked:
    """One request, read whole; `arguments` may be a function of the run, for what is used up."""

    def __init__(self, method: str, path: str, arguments: Arguments | None, more: Mapping[str, Any]) -> None:
        self.method, self.path = method, path
        self._arguments, self._more = arguments or {}, more

    def options(self, run: Run) -> dict[str, Any]:
        """The keyword arguments of the request."""
        made = self._arguments(run) if callable(self._arguments) else self._arguments
        return {**made, **self._more}

    async def __call__(self, run: Run) -> Any:
        async with run.session.request(self.method, run.url(self.path), **self.options(run)) as resp:
            await resp.read()
        return resp


def request(method: str, path: str = "/", arguments: Arguments | None = None, **more: Any) -> Do:
    return Asked(method, path, arguments, more)


def get(path: str = "/", arguments: Arguments | None = None, **more: Any) -> Do:
    return request("GET", path, arguments, **more)


def post(path: str = "/", arguments: Arguments | None = None, **more: Any) -> Do:
    return request("POST", path, arguments, **more)


def answer(*lines: str | bytes, body: bytes = b"", length: bool = True) -> bytes:
    """Bytes of an answer: status line and headers, and Content-Length unless told not to."""
    head = [line.encode() if isinstance(line, str) else line for line in lines]
    if length:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*head, b"", body])


def serve(*steps: bytes | Step) -> Script:
    """One connection: reads a request, then goes through the steps (bytes are sent)."""
    return ((Expect(), *(Send(step) if isinstance(step, bytes) else step for step in steps)),)


def chunked(*chunks: bytes) -> bytes:
    """A chunked body, ended."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


async def agen(*pieces: Any) -> AsyncIterator[Any]:
    """A body that is generated."""
    for piece in pieces:
        yield piece


async def slow_agen(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        await asyncio.sleep(0.002)
        yield piece


def table(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Parametrise a test with cases; their ids must be unique."""
    names = [case.id for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return pytest.mark.parametrize("case", cases, ids=names)


async def check(case: Case) -> dict[str, Any]:
    """Compare both clients on a case, less the accepted differences."""
    return await assert_same(case, KNOWN)
