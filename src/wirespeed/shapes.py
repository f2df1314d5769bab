"""Requests with params, headers, cookies or a short body, put together without a ClientRequest.

Most requests of a program have one of a few shapes: to this origin, with this method, with headers of
these names, with or without cookies, with this kind of body. aiohttp's ClientRequest is built once for
a shape, with marks in the place of values; where the marks are found in its headers is where the
values of each request go. So names, order and what aiohttp adds are aiohttp's, and the values are checked
as ever. What is out of the ordinary has no shape and takes the way of a Call. Called by the
express lane. It must not send anything.
"""

from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any

from aiohttp import ClientSession, hdrs, payload
from aiohttp._cookie_helpers import preserve_morsel_with_coded_value
from aiohttp.client_reqrep import ClientRequest, RequestInfo
from multidict import CIMultiDict
from yarl import URL

from ._core.head import field_lines, fill, request_line
from .prepare import (
    INLINE_BODY_MAX,
    PLAIN_METHODS,
    PLAIN_OPTIONS,
    PlainRequests,
    Prepared,
    add_connection_headers,
    build_url,
)

OPTIONS = PLAIN_OPTIONS | {"params", "headers", "json", "data"}
# Headers whose value, not only whose presence, decides what else is in the head.
_MEANINGFUL = frozenset(
    {
        "connection", "content-encoding", "content-length", "cookie", "expect", "host", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
_SHAPES_MAX = 1024
_NO_BODY, _JSON, _BYTES, _TEXT = range(4)
# By kind of body: a short one, what aiohttp must make of it, and the payload of bytes that were made already.
_PROBES: tuple[Any, ...] = (None, payload.JsonPayload(None), b"", "")
_PAYLOADS = (type(None), payload.JsonPayload, payload.BytesPayload, payload.StringPayload)
_AS_PAYLOAD: tuple[Any, ...] = (
    None,
    lambda body: payload.JsonBytesPayload(None, dumps=lambda _: body),
    lambda body: body,
    lambda body: body.decode(),
)
_MARK = "wirespeed's mark"
# In the table of shapes: requests of this kind take the long way.
_NO_SHAPE: Any = object()


class Shape:
    """What the requests of one shape have in common.

    Args:
        key: the connection key.
        fields: the header fields in order; instead of a value that is the request's own, its number.
    """

    __slots__ = ("fields", "host", "key", "order", "pieces")

    def __init__(self, key: Any, fields: list[tuple[str, str | int]]) -> None:
        self.key = key
        self.host: Any = None
        self.fields = fields
        self.pieces = [b""]
        self.order = [value for _, value in fields if isinstance(value, int)]
        for name, value in fields:
            if isinstance(value, int):
                self.pieces[-1] += field_lines([(name, "")])[:-2]
                self.pieces.append(b"\r\n")
            else:
                self.pieces[-1] += field_lines([(name, value)])
        self.pieces[-1] += b"\r\n"


class ShapedRequest(Prepared):
    """One request of a shape."""

    __slots__ = ("_body", "_shape", "_values")

    def __init__(
        self, method: str, real_url: URL, shape: Shape, values: list[str], head: bytes, body: bytes
    ) -> None:
        super().__init__(method, real_url, shape.key, head + body)
        self._shape = shape
        self._values = values
        self._body = body

    def info(self) -> RequestInfo:
        if self._headers is None:
            values = self._values
            self._headers = CIMultiDict(
                [
                    (name, values[value] if isinstance(value, int) else value)
                    for name, value in self._shape.fields
                ]
            )
        return super().info()

    def dial_request(self, session: ClientSession) -> ClientRequest:
        """The request as aiohttp's dialling wants it; mocks decide by it whether there is a connection."""
        headers = CIMultiDict(self.info().headers)
        url, loop = self.real_url, session._loop
        data = self._body or None
        return ClientRequest(self.method, url, headers=headers, data=data, loop=loop, session=session)


def find(
    session: ClientSession, plain: PlainRequests, method: str, str_or_url: Any, options: Mapping[str, Any]
) -> Prepared | Mapping[str, Any]:
    """Return a request ready to send, or when it has no shape, the options for a Call.

    Args:
        session: the session.
        plain: what the lane keeps of it.
        method: the method, upper-case.
        str_or_url: as in aiohttp.
        options: the keyword arguments, all of them among OPTIONS.

    Raises:
        InvalidUrlClientError: not a URL, or one without a host.
        NonHttpUrlClientError: a scheme that the connector does not know.
        ValueError: a control character in a header.
    """
    if method not in PLAIN_METHODS or not plain.is_usable(session):
        return options
    headers, params = options.get("headers"), options.get("params")
    if headers is not None and type(headers) is not dict:
        return options
    found = _body(session, options.get("data"), options.get("json"))
    if found is None:
        return options
    kind, body = found
    if len(body) > INLINE_BODY_MAX:
        # To be sent in pieces. It was made into bytes already: once is enough.
        return {**options, "json": None, "data": _AS_PAYLOAD[kind](body)}
    url = build_url(session, str_or_url)
    if not url.raw_host or url.raw_user is not None or url.raw_password is not None:
        return options
    if params:
        url = url.extend_query(params)
    cookies = session._cookie_jar.filter_cookies(url)
    at = (method, url.scheme, url.host_port_subcomponent, kind, bool(cookies), *(headers or ()))
    shape = plain.shapes.get(at)
    if shape is None:
        shape = _shape(session, method, url, headers, kind, bool(cookies))
        if len(plain.shapes) >= _SHAPES_MAX:
            plain.shapes.clear()
        plain.shapes[at] = shape
    if shape is _NO_SHAPE:
        return options
    values = list(headers.values()) if headers else []
    if kind != _NO_BODY:
        values.append(str(len(body)))
    if cookies:
        values.append(_cookie_header(cookies))
    fields = fill(shape.pieces, [values[number] for number in shape.order])
    head = request_line(method, url.raw_path_qs, 1) + fields
    request = ShapedRequest(method, url, shape, values, head, body)
    host = shape.host
    if host is None or host.is_evicted:
        host = shape.host = session._connector.pool.host(shape.key)  # type: ignore[union-attr]
    request.host = host
    return request


def _body(session: ClientSession, data: Any, json: Any) -> tuple[int, bytes] | None:
    """The kind of a body and its bytes; None for other bodies, and for one too many."""
    if json is not None:
        if data is not None:
            return None
        dump = session._json_serialize_bytes
        return _JSON, session._json_serialize(json).encode() if dump is None else dump(json)
    if data is None:
        return _NO_BODY, b""
    if type(data) is bytes:
        return _BYTES, data
    if type(data) is str:
        return _TEXT, data.encode()
    return None


def _cookie_header(cookies: Any) -> str:
    """The value of the field Cookie, as ClientRequest.update_cookies makes it."""
    made: Any = SimpleCookie()
    for name, morsel in cookies.items():
        made[name] = preserve_morsel_with_coded_value(morsel)
    value: str = made.output(header="", sep=";").strip()
    return value


def _shape(session: ClientSession, method: str, url: URL, headers: Any, kind: int, has_cookies: bool) -> Any:
    """Let aiohttp build a request of the shape, and see where the values have gone."""
    if headers and any(type(name) is not str or name.lower() in _MEANINGFUL for name in headers):
        return _NO_SHAPE
    marks = {name: f"{_MARK} {i}" for i, name in enumerate(headers or ())}
    holes = {mark: i for i, mark in enumerate(marks.values())}
    req = ClientRequest(
        method,
        url,
        headers=session._prepare_headers(marks),
        skip_auto_headers=session._skip_auto_headers or None,
        data=_PROBES[kind],
        cookies={"a": "b"} if has_cookies else None,
        loop=session._loop,
        session=session,
    )
    if type(req._body) is not _PAYLOADS[kind]:
        # Somebody registered a payload of their own for it.
        return _NO_SHAPE
    connector: Any = session._connector
    add_connection_headers(req, connector)
    fields: list[tuple[str, str | int]] = []
    count = len(holes)
    for name, value in req.headers.items():
        if value in holes:
            fields.append((name, holes.pop(value)))
        elif kind != _NO_BODY and name == hdrs.CONTENT_LENGTH:
            fields.append((name, count))
        elif has_cookies and name == hdrs.COOKIE:
            fields.append((name, count + (kind != _NO_BODY)))
        else:
            fields.append((name, value))
    numbers = [value for _, value in fields if isinstance(value, int)]
    if holes or len(numbers) != count + (kind != _NO_BODY) + has_cookies:
        # A name that came twice in different cases, or one that aiohttp took away.
        return _NO_SHAPE
    return Shape(req.connection_key, fields)
