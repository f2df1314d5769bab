"""Requests with params, headers, cookies or a short body, put together without a ClientRequest.

Most requests of a program have one of a few shapes: to this origin, with this method, with headers of
these names, with or without cookies, with this kind of body. aiohttp's ClientRequest is built once for
a shape, with marks in the place of values; where the marks are found in its headers is where the
values of each request go. So names, order and what aiohttp adds are aiohttp's, and the values are checked
as ever. What is out of the ordinary has no shape and takes the way of a Call. Called by the
express lane. It must not send anything.
"""

from collections.abc import Mapping
from http.cookies import BaseCookie, SimpleCookie
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
    filter_cookies,
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
# By kind of body: one for aiohttp to make a payload of, and the payload that it has to make.
_PROBES: tuple[Any, ...] = (None, payload.JsonPayload(None), b"", "")
_PAYLOADS = (type(None), payload.JsonPayload, payload.BytesPayload, payload.StringPayload)
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
    session: ClientSession,
    plain: PlainRequests,
    method: str,
    str_or_url: Any,
    options: Mapping[str, Any],
    cookies: "BaseCookie[str] | None" = None,
) -> Prepared | Mapping[str, Any]:
    """Return a request ready to send, or when it has no shape, the options for a Call.

    Args:
        session: the session.
        plain: what the lane keeps of it.
        method: the method, upper-case.
        str_or_url: as in aiohttp.
        options: the keyword arguments, all of them among OPTIONS.
        cookies: those of the request, where they are known.

    Raises:
        InvalidUrlClientError: not a URL, or one without a host.
        NonHttpUrlClientError: a scheme that the connector does not know.
        ValueError: a control character in a header.
    """
    headers, params = options.get("headers"), options.get("params")
    json, data = options.get("json"), options.get("data")
    kind = _kind(json, data)
    if (
        kind is None
        or method not in PLAIN_METHODS
        or not (headers is None or type(headers) is dict)
        or not plain.is_usable(session)
    ):
        return options
    url = build_url(session, str_or_url)
    if not url.raw_host or url.raw_user is not None or url.raw_password is not None:
        return options
    if params:
        url = url.extend_query(params)
    cookies = cookies or filter_cookies(session, url)
    shape = _shape_of(session, plain.shapes, method, url, headers, kind, bool(cookies))
    if shape is _NO_SHAPE:
        return options
    body = _bytes(session, kind, json, data)
    if len(body) > INLINE_BODY_MAX:
        # To be sent in pieces. JSON was made into bytes already: once is enough.
        done = payload.JsonBytesPayload(None, dumps=lambda _: body)
        return {**options, "json": None, "data": done} if kind == _JSON else options
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


def _kind(json: Any, data: Any) -> int | None:
    """The kind of a body; None for other bodies, and for one too many."""
    if json is not None:
        return None if data is not None else _JSON
    if data is None:
        return _NO_BODY
    if type(data) in (bytes, str) and len(data) <= INLINE_BODY_MAX:
        return _BYTES if type(data) is bytes else _TEXT
    return None


def _bytes(session: ClientSession, kind: int, json: Any, data: Any) -> bytes:
    if kind == _JSON:
        dump = session._json_serialize_bytes
        return session._json_serialize(json).encode() if dump is None else dump(json)
    if kind == _TEXT:
        return data.encode()  # type: ignore[no-any-return]
    return data or b""


def _cookie_header(cookies: Any) -> str:
    """The value of the field Cookie, as ClientRequest.update_cookies makes it."""
    made: Any = SimpleCookie()
    for name, morsel in cookies.items():
        made[name] = preserve_morsel_with_coded_value(morsel)
    value: str = made.output(header="", sep=";").strip()
    return value


def _shape_of(
    session: ClientSession,
    shapes: dict[Any, Any],
    method: str,
    url: URL,
    headers: Any,
    kind: int,
    has_cookies: bool,
) -> Any:
    """Look a shape up, or make it."""
    at = (method, url.scheme, url.host_port_subcomponent, kind, has_cookies, *(headers or ()))
    shape = shapes.get(at)
    if shape is None:
        shape = _new_shape(session, method, url, headers, kind, has_cookies)
        if len(shapes) >= _SHAPES_MAX:
            shapes.clear()
        shapes[at] = shape
    return shape


def _new_shape(
    session: ClientSession, method: str, url: URL, headers: Any, kind: int, has_cookies: bool
) -> Any:
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
