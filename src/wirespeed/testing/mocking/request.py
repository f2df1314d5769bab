"""A request as the mock received it, and what tests ask of it. It must not know routes."""

import email.message
import email.parser
import email.policy
import json
import zlib
from collections.abc import Iterable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import ClientRequest, hdrs, payload
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict, MultiDictProxy
from yarl import URL

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_CODINGS = frozenset({"gzip", "deflate"})


class Request:
    """A request that reached the mock.

    Attributes:
        method: in capitals.
        url: absolute, as the client asked for it; a yarl.URL.
        headers: all that were sent, as a case-insensitive multidict.
        body: bytes of the body, without transfer coding, and without gzip or deflate.
        version: "1.1" or "1.0".
    """

    __slots__ = ("body", "headers", "method", "url", "version")

    def __init__(
        self,
        method: str,
        url: URL,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        version: str = "1.1",
    ) -> None:
        self.method = method
        self.url = url
        self.headers = CIMultiDictProxy(CIMultiDict(headers))
        self.body = _decoded(body, self.headers.get(hdrs.CONTENT_ENCODING, ""))
        self.version = version

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.url}>"

    @property
    def query(self) -> MultiDictProxy[str]:
        """The parameters of the URL."""
        return self.url.query

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that were sent."""
        jar: SimpleCookie = SimpleCookie(self.headers.get(hdrs.COOKIE, ""))
        return {name: morsel.value for name, morsel in jar.items()}

    @property
    def content_type(self) -> str:
        """The media type of the body, without parameters."""
        return self._mime().get_content_type() if hdrs.CONTENT_TYPE in self.headers else ""

    def text(self) -> str:
        """Decode the body with the charset of its Content-Type, else UTF-8.

        Raises:
            UnicodeDecodeError: the body is not text in that charset.
        """
        return self.body.decode(self._mime().get_content_charset("utf-8"))

    def json(self) -> Any:
        """Parse the body as JSON.

        Raises:
            ValueError: the body is not JSON.
        """
        return json.loads(self.text())

    def form(self) -> MultiDict[Any]:
        """Parse the body as a form.

        Returns:
            The fields: text for text, bytes for files. Empty when the body is no form.
        """
        content_type = self.content_type
        if content_type == "application/x-www-form-urlencoded":
            return MultiDict(parse_qsl(self.text(), keep_blank_values=True))
        fields: MultiDict[Any] = MultiDict()
        if content_type == "multipart/form-data":
            for part in self._mime(self.body).iter_parts():
                assert isinstance(part, email.message.EmailMessage)
                name = part.get_param("name", header=hdrs.CONTENT_DISPOSITION)
                content = part.get_payload(decode=True)
                if isinstance(name, str) and isinstance(content, bytes):
                    fields.add(name, content if part.get_filename() else content.decode())
        return fields

    def _mime(self, body: bytes = b"") -> email.message.EmailMessage:
        head = f"Content-Type: {self.headers.get(hdrs.CONTENT_TYPE, '')}\r\n\r\n"
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head.encode() + body)
        assert isinstance(message, email.message.EmailMessage)
        return message


def _decoded(body: bytes, coding: str) -> bytes:
    """Undo the content coding that aiohttp's `compress` applies; what is damaged stays as it is."""
    if not body or coding.strip().lower() not in _CODINGS:
        return body
    try:
        return zlib.decompress(body, _GZIP_OR_ZLIB)
    except zlib.error:
        return body


def foresee(req: ClientRequest) -> Request:
    """Make the request that is going to be sent, of what is known while the connection is made.

    The body is empty where it cannot be had without sending it: files, generators, multipart.
    """
    headers = req.headers.copy()
    # The express lane dials for a plain request with less than all it will send.
    session = getattr(req, "_session", None)
    for name, value in session.headers.items() if session is not None else ():
        if name not in req.headers:
            headers.add(name, value)
    body = getattr(req, "_body", None)
    content = bytes(body._value) if isinstance(body, payload.BytesPayload) else b""
    return Request(req.method, req.url, headers.items(), content)
