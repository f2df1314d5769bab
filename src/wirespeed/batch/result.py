"""What became of one request of a batch."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import ClientPayloadError, ClientResponseError, RequestInfo, hdrs
from aiohttp.helpers import parse_mimetype
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from .._switch import NATIVE
from .request import Request, described

if TYPE_CHECKING or NATIVE:
    from ..response import headers_of

if TYPE_CHECKING:
    from ..policy import Outcome

if TYPE_CHECKING or not NATIVE:

    class _Fields:
        """What a result is made of; `_given`, and `_headers` and `_url` where they are made already."""

        __slots__ = (
            "_given", "_head", "_headers", "_url", "attempts", "body", "elapsed", "error", "index", "status",
        )  # fmt: skip

        _given: Any
        _head: Any
        _headers: CIMultiDictProxy[str] | None
        _url: Any
        index: int
        status: int | None
        body: bytes
        error: BaseException | None
        attempts: int
        elapsed: float

else:
    from .._core.drive import ResultFields as _Fields

_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())


class BodyTooLarge(ClientPayloadError):
    """A body is longer than `max_body`, as it came or decoded; the rest of it was not received.

    Attributes:
        limit: bytes that it may have.
        outcome: for policies: it would be as long another time.
    """

    @property
    def outcome(self) -> "Outcome":
        from ..policy import Outcome

        return Outcome.CLIENT_FAULT

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the body is longer than max_body ({self.limit} bytes)"


class Result(_Fields):
    """What became of one request of a batch; made by the batch.

    Attributes:
        index: the number of the request in the input, from 0.
        status: of the response; None where there is none.
        body: of the response, decoded as its Content-Encoding says; b"" where there is none.
        error: why there is no such response, or only its head; None when all went well. An HTTP status is an
            error only where the session has `raise_for_status`.
        attempts: how often the request was sent, or was to be sent.
        elapsed: seconds from its first attempt, with the waiting between, to the end of the body or the
            failure.
    """

    __slots__ = ()

    def __init__(
        self,
        given: Any,
        index: int,
        *,
        status: int | None = None,
        headers: CIMultiDictProxy[str] | None = None,
        body: bytes = b"",
        error: BaseException | None = None,
        attempts: int = 1,
        elapsed: float = 0.0,
        url: URL | None = None,
    ) -> None:
        self._given = given
        self._head = None  # the core's, which headers are made of when they are asked for
        self._headers = headers
        self._url = url  # or what has it
        self.index = index
        self.status = status
        self.body = body
        self.error = error
        self.attempts = attempts
        self.elapsed = elapsed

    @property
    def request(self) -> Request:
        """The request; one that was given as a URL is described."""
        return described(self._given)

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the response, case-insensitive; empty where there is none. A CIMultiDictProxy, as aiohttp's."""
        if self._headers is None:
            if self._head is None:
                return _NO_HEADERS
            self._headers, self._head = headers_of(self._head.fields), None
        return self._headers

    @property
    def header_block(self) -> bytes:
        """The lines of `headers`: far less to make than those are."""
        if self._head is not None:
            block: bytes = self._head.block
            return block
        lines = [f"{name}: {value}\r\n" for name, value in self.headers.items()]
        return "".join(lines).encode("utf-8", "surrogateescape")

    @property
    def url(self) -> URL | None:
        """Of the response, after redirects; without one, that of the request; None where that is no URL."""
        if self._url is None:
            try:
                self._url = URL(self.request.url)
            except (TypeError, ValueError):
                return None
        elif not isinstance(self._url, URL):
            self._url = self._url.real_url
        return self._url

    @property
    def ok(self) -> bool:
        """Whether there is a whole response, and its status is below 400."""
        return self.error is None and self.status is not None and self.status < 400

    def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        """Decode the body.

        Args:
            encoding: None for the charset that the Content-Type says, or else UTF-8.
            errors: as in `bytes.decode`.

        Raises:
            UnicodeDecodeError: it is no such text.
            BaseException: `error`, where there is one.
        """
        if self.error is not None:
            raise self.error
        return self.body.decode(encoding or self._charset(), errors)

    def json(self, *, encoding: str | None = None, loads: Callable[[str], Any] = json.loads) -> Any:
        """Decode the body as JSON, whatever its Content-Type; None where it is empty, as in aiohttp.

        Args:
            encoding: as in `text`.
            loads: decodes a str.

        Raises:
            ValueError: it is no JSON, or no such text.
            BaseException: `error`, where there is one.
        """
        text = self.text(encoding).strip()
        return loads(text) if text else None

    def _charset(self) -> str:
        charset = parse_mimetype(self.headers.get(hdrs.CONTENT_TYPE, "")).parameters.get("charset")
        if charset:
            try:
                b" ".decode(charset, "ignore")  # without a byte to decode it is not looked up
            except (LookupError, ValueError):
                pass
            else:
                return charset
        return "utf-8"

    def __repr__(self) -> str:
        what = f"{self.status}, {len(self.body)} bytes" if self.error is None else repr(self.error)
        return f"<Result {self.index} {self.url}: {what}>"

    def __reduce__(self) -> Any:
        facts = {
            "status": self.status,
            "body": self.body,
            "error": _packed(self.error),
            "attempts": self.attempts,
            "elapsed": self.elapsed,
            "url": self.url,
        }
        return _restored, (self._given, self.index, CIMultiDict(self.headers), facts)


def _packed(error: BaseException | None) -> Any:
    """An error that can be pickled: aiohttp's of a response have proxies, and the responses redirected."""
    if not isinstance(error, ClientResponseError):
        return error
    facts = dict(vars(error))
    info = facts.pop("request_info", None)
    if isinstance(info, RequestInfo):
        facts["info"] = (info.url, info.method, CIMultiDict(info.headers), info.real_url)
    if facts.get("headers") is not None:
        facts["headers"] = CIMultiDict(facts["headers"])
    return _PackedError(type(error), {**facts, "history": ()})


class _PackedError(NamedTuple):
    kind: type[ClientResponseError]
    facts: dict[str, Any]

    def error(self) -> ClientResponseError:
        facts = self.facts
        url, method, headers, real_url = facts.pop("info", (None, "", CIMultiDict(), None))
        info = RequestInfo(url, method, CIMultiDictProxy(headers), real_url)
        if facts.get("headers") is not None:
            facts["headers"] = CIMultiDictProxy(facts["headers"])
        error = self.kind.__new__(self.kind, info, ())
        vars(error).update(facts, request_info=info)
        return error


def _restored(given: Any, index: int, headers: CIMultiDict[str], facts: dict[str, Any]) -> Result:
    if isinstance(facts["error"], _PackedError):
        facts["error"] = facts["error"].error()
    return Result(given, index, headers=CIMultiDictProxy(headers), **facts)
