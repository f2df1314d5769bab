"""One request of a batch by the session's own methods, up to its result. Called by both drivers.

What policies of the batch decide is around the whole request: neither the instant it waits for nor the pause
before another attempt counts against its timeout, and a body that broke off is an attempt that has failed.
"""

from collections.abc import Awaitable, Iterable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import ClientResponse, FormData, InvalidUrlClientError, hdrs
from aiohttp.helpers import must_be_empty_body
from multidict import CIMultiDict
from yarl import URL

from .._switch import NATIVE
from .decoding import decode
from .request import Request, arguments
from .result import BodyTooLarge, Result

if TYPE_CHECKING or NATIVE:
    from .._core.exchange import ExchangeSettings, Failure
    from ..response import headers_of

if TYPE_CHECKING:
    from ..policy import Policies
    from .retrying import Retrying


def _retrying(policies: "Policies") -> "Retrying | None":
    """What the core's driver asks of a retry policy, where there is no other."""
    from .retrying import Retrying

    return Retrying(policies) if Retrying.fits(policies) else None


class _Timer:
    """What policies ask of a request's timer: there is none around the attempts."""

    has_passed = False


class _UsedUp:
    """What policies see of a body that is there for one attempt."""

    consumed = True


class _Seen:
    """What policies see of a request of a batch: each attempt is a request of its own."""

    __slots__ = ("body", "headers", "method", "url")

    _timer = _Timer()
    _upload_tracker = None
    _continue = None

    def __init__(
        self, session: aiohttp.ClientSession, method: str, url: Any, options: Mapping[str, Any]
    ) -> None:
        self.method = method.upper()
        self.body = None if _is_repeatable(options.get("data")) else _UsedUp()
        try:
            self.url: URL = session._build_url(url)
        except ValueError as exc:
            raise InvalidUrlClientError(url) from exc
        self.headers: CIMultiDict[str] = session._prepare_headers(options.get("headers"))


def _is_repeatable(data: Any) -> bool:
    """Whether the data of a request can be sent again; files and what is generated can not."""
    if isinstance(data, FormData):
        return not data.is_multipart
    if isinstance(data, Mapping):
        return all(isinstance(value, _TEXTS) for value in data.values())
    if isinstance(data, list | tuple):
        return all(_is_repeatable(item) for item in data)
    return data is None or isinstance(data, _TEXTS)


_TEXTS = (str, bytes, bytearray, memoryview, int, float)


class _Attempts:
    """Makes attempts at one request, and keeps the body of the last."""

    def __init__(self, work: "Work", method: str, url: Any, options: dict[str, Any]) -> None:
        self._work = work
        self._request = method, url, options
        self.body = b""

    def seen(self) -> Any:
        method, url, options = self._request
        return _Seen(self._work.session, method, url, options)

    async def __call__(self, _: Any) -> ClientResponse:
        method, url, options = self._request
        resp, self.body = await self._work.collect(self._work.session.request(method, url, **options))
        return resp


class Work:
    """Makes requests of a session, and results of what they come to.

    Args:
        session: the session.
        options: of all requests, as `session.request` takes them.
        policies: around each request, or None.
        max_body: bytes of a body; None for any number.
    """

    request_class = Request
    result_class = Result
    url_class = URL
    arguments = staticmethod(arguments)

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
        self.retrying = None if policies is None or not NATIVE else _retrying(policies)

    async def perform(self, given: Any, index: int) -> Result:
        """Send a request and read its response. Raises nothing but what ends the task."""
        begun_at = perf_counter()
        try:
            method, url, options = arguments(given)
            resp, body = await self.send(method, url, {**self.options, **options})
        except Exception as exc:
            return self.failed(given, index, exc, perf_counter() - begun_at)
        return self.answered(given, index, resp, body, perf_counter() - begun_at)

    async def send(self, method: str, url: Any, options: dict[str, Any]) -> tuple[ClientResponse, bytes]:
        """Send a request by the session's own method, and again where the policies have it so.

        Returns:
            The response, which is over, and its body.
        """
        if self.policies is None:
            return await self.collect(self.session.request(method, url, **options))
        attempts = _Attempts(self, method, url, options)
        resp = await self.policies._perform(attempts.seen(), attempts)
        return resp, attempts.body

    async def send_again(
        self,
        asked: Any,
        elapsed: float,
        resp: ClientResponse | None,
        body: bytes,
        error: BaseException | None,
    ) -> tuple[ClientResponse, bytes]:
        """Decide about what the first attempt has come to, and send again while the retry policy has it so.

        Args:
            asked: the request of the core.
            elapsed: seconds that the attempt took.
            resp: its response, which is over, or None.
            body: of the response.
            error: why there is none.
        """
        try:
            assert self.retrying is not None
            attempts = _Attempts(self, asked.method, asked.str_or_url, asked.options)
            attempts.body = body
            resp = await self.retrying.go_on(attempts.seen(), elapsed, resp, error, attempts)
            return resp, attempts.body
        finally:
            del error  # its traceback holds this frame

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
        if limit is None or must_be_empty_body(resp.method, resp.status):
            # Their Content-Length, if any, is that of another answer (RFC 9110 section 8.6).
            return await resp.read()
        if length is not None:
            if length > limit:
                raise self.too_large()
            if hdrs.CONTENT_ENCODING not in resp.headers:
                return await resp.read()
        parts = []
        size = 0
        async for part in resp.content.iter_any():
            size += len(part)
            if size > limit:
                raise self.too_large()
            parts.append(part)
        resp.release()
        return b"".join(parts)

    # Results

    @staticmethod
    def answered(given: Any, index: int, resp: ClientResponse, body: bytes, elapsed: float) -> Result:
        """The result of a request that has a response."""
        attempts = 1 + len(getattr(resp, "retry_history", ()))
        return Result(
            given,
            index,
            status=resp.status,
            headers=resp.headers,
            body=body,
            attempts=attempts,
            elapsed=elapsed,
            url=resp.real_url,
        )

    @staticmethod
    def failed(given: Any, index: int, exc: BaseException, elapsed: float) -> Result:
        """The result of a request that has failed."""
        attempts = 1 + len(getattr(exc, "retry_history", ()))
        status = exc.status if isinstance(exc, aiohttp.ClientResponseError) else 0
        # Its traceback would keep the frames of the whole request.
        error = exc.with_traceback(None)
        return Result(given, index, status=status or None, error=error, attempts=attempts, elapsed=elapsed)

    def too_large(self) -> BodyTooLarge:
        """The error of a body that is longer than `max_body`."""
        assert self.max_body is not None
        return BodyTooLarge(self.max_body)

    # For the driver of the core

    def keep_cookies(self, fields: Iterable[tuple[bytes, bytes]], url: URL) -> None:
        """Keep the cookies that a response sets."""
        cookies = headers_of(fields).getall(hdrs.SET_COOKIE, ())
        self.session._cookie_jar.update_cookies_from_headers(cookies, url.with_fragment(None))

    def settings(self, of_lane: "ExchangeSettings") -> "ExchangeSettings":
        """The settings of exchanges whose bodies come whole, are left encoded, and are not too long."""
        translate = of_lane.translate

        def translated(exchange: Any, failure: Any, exc: Any, raw: Any) -> BaseException:
            if failure is Failure.BODY_TOO_LARGE:
                return self.too_large()
            return translate(exchange, failure, exc, raw)

        return ExchangeSettings(
            max_line_size=of_lane.max_line_size,
            max_field_size=of_lane.max_field_size,
            max_headers=of_lane.max_headers,
            high_water=of_lane.high_water,
            make_sink=None,
            translate=translated,
            max_body=self.max_body,
        )

    def decoded(self, body: bytes, encoding: bytes) -> bytes:
        """Decode a whole body.

        Args:
            body: as it came.
            encoding: of the field Content-Encoding.

        Raises:
            BodyTooLarge: it becomes longer than `max_body`.
            ClientPayloadError: it cannot be decoded.
        """
        return decode(body, encoding, self.max_body)

    def decoded_of(self, resp: ClientResponse, body: bytes) -> bytes:
        """The same, of a response of such settings that Python has looked at."""
        encoding = resp.headers.get(hdrs.CONTENT_ENCODING)
        return body if encoding is None else decode(body, encoding.encode(), self.max_body)
