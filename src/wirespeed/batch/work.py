"""One request of a batch by the session's own methods, up to its result. Called by both drivers.

What policies of the batch decide is around the whole request: neither the instant it waits for nor the pause
before another attempt counts against its timeout, and a body that broke off is an attempt that has failed.
"""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import ClientResponse, hdrs
from multidict import CIMultiDict
from yarl import URL

from .request import arguments
from .result import BodyTooLarge, Result

if TYPE_CHECKING:
    from ..policy import Policies


class _Timer:
    """What policies ask of a request's timer: there is none around the attempts."""

    has_passed = False


class _Seen:
    """What policies see of a request of a batch: each attempt is a request of its own."""

    __slots__ = ("_given", "headers", "method", "url")

    body = b""
    _timer = _Timer()
    _upload_tracker = None
    _continue = None

    def __init__(self, session: aiohttp.ClientSession, method: str, url: Any, headers: Any) -> None:
        self.method = method.upper()
        self.url: URL = session._build_url(url)
        self.headers: CIMultiDict[str] = session._prepare_headers(headers)


class Work:
    """Makes requests of a session, and results of what they come to.

    Args:
        session: the session.
        options: of all requests, as `session.request` takes them.
        policies: around each request, or None.
        max_body: bytes of a body; None for any number.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        options: dict[str, Any],
        policies: "Policies | None",
        max_body: int | None,
    ) -> None:
        self.session = session
        self.options = options
        self.policies = policies
        self.max_body = max_body

    async def perform(self, given: Any, index: int) -> Result:
        """Send a request and read its response. Raises nothing but what ends the task."""
        loop = self.session._loop
        begun_at = loop.time()
        try:
            method, url, options = arguments(given)
            resp, body = await self._send(method, url, {**self.options, **options})
        except Exception as exc:
            return failed(given, index, exc, loop.time() - begun_at)
        return answered(given, index, resp, body, loop.time() - begun_at)

    async def _send(self, method: str, url: Any, options: dict[str, Any]) -> tuple[ClientResponse, bytes]:
        if self.policies is None:
            return await self.collect(self.session.request(method, url, **options))
        body = b""

        async def send(_: Any) -> ClientResponse:
            nonlocal body
            resp, body = await self.collect(self.session.request(method, url, **options))
            return resp

        seen: Any = _Seen(self.session, method, url, options.get("headers"))
        resp = await self.policies._perform(seen, send)
        return resp, body

    async def collect(self, asking: Awaitable[ClientResponse]) -> tuple[ClientResponse, bytes]:
        """Wait for a response and read its body.

        Raises:
            BodyTooLarge: it is longer than `max_body`.
        """
        resp = await asking
        try:
            return resp, await self._read(resp)
        except BaseException:
            resp.close()
            raise

    async def _read(self, resp: ClientResponse) -> bytes:
        limit = self.max_body
        length = resp.content_length
        if limit is None or resp.method == hdrs.METH_HEAD:
            return await resp.read()
        if length is not None:
            if length > limit:
                raise BodyTooLarge(limit)
            if hdrs.CONTENT_ENCODING not in resp.headers:
                return await resp.read()
        parts = []
        size = 0
        async for part in resp.content.iter_any():
            size += len(part)
            if size > limit:
                raise BodyTooLarge(limit)
            parts.append(part)
        resp.release()
        return b"".join(parts)


def answered(given: Any, index: int, resp: ClientResponse, body: bytes, elapsed: float) -> Result:
    """The result of a request that has a response."""
    attempts = 1 + len(getattr(resp, "retry_history", ()))
    return Result(
        given, index, status=resp.status, headers=resp.headers, body=body, attempts=attempts, elapsed=elapsed,
        url=resp.real_url,
    )  # fmt: skip


def failed(given: Any, index: int, exc: BaseException, elapsed: float) -> Result:
    """The result of a request that has failed."""
    attempts = 1 + len(getattr(exc, "retry_history", ()))
    status = getattr(exc, "status", None)
    if not (isinstance(exc, aiohttp.ClientResponseError) and status):
        status = None
    # Its traceback would keep the frames of the whole request.
    return Result(
        given, index, status=status, error=exc.with_traceback(None), attempts=attempts, elapsed=elapsed
    )


def result_of(given: Any, index: int, done: "asyncio.Task[Result]") -> Result:
    """The result of a request whose task has ended, which somebody else may have cancelled."""
    if done.cancelled():
        return failed(given, index, asyncio.CancelledError(), 0.0)
    exc = done.exception()
    return done.result() if exc is None else failed(given, index, exc, 0.0)
