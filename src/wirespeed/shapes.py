"""Requests with params, headers, cookies or a short body, put together without a ClientRequest.

Most requests of a program have one of a few shapes: to this origin, with this method, with headers of
these names, with or without cookies, with this kind of body. aiohttp's ClientRequest is built once for
a shape, with marks in the place of values; where the marks are found in its headers is where the
values of each request go. So names, order and what aiohttp adds are aiohttp's, and the values are checked
as ever. What is out of the ordinary has no shape and takes the way of a Call. The core looks shapes up and
fills them (`_core/request.pyx`); here they are made. It must not send anything.
"""

import itertools
from collections.abc import Mapping
from http.cookies import BaseCookie, Morsel, SimpleCookie
from typing import Any

from aiohttp import ClientSession, hdrs, payload
from aiohttp._cookie_helpers import preserve_morsel_with_coded_value
from aiohttp.client_reqrep import ClientRequest
from multidict import istr
from yarl import URL

from ._core.address import Address
from ._core.cookies import CookieHeader, remember
from ._core.lane import Lane, Shape
from .prepare import add_connection_headers, build_url, connection_key

# Headers whose value, not only whose presence, decides what else is in the head.
_MEANINGFUL = frozenset(
    {
        "connection", "content-encoding", "content-length", "cookie", "expect", "host", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# What a name of a header may be: aiohttp's own constants are istr.
_NAMES = (str, istr)
# As in _core/lane.pyx.
_NO_BODY = 0
# By kind of body: one for aiohttp to make a payload of, and the payload that it has to make.
_PROBES: tuple[Any, ...] = (None, payload.JsonPayload(None), b"", "")
_PAYLOADS = (type(None), payload.JsonPayload, payload.BytesPayload, payload.StringPayload)
_MARK = "wirespeed's mark"
# Pairs of domain and path beyond which cookies are not remembered.
_PAIRS_MAX = 48


def locate(lane: Lane, session: ClientSession, str_or_url: Any) -> Address | None:
    """Find out where a request goes; None when its head is not made of shapes.

    Raises:
        InvalidUrlClientError: not a URL, or one without a host.
        NonHttpUrlClientError: a scheme that the connector does not know.
    """
    url = build_url(session, str_or_url)
    if not url.raw_host or url.raw_user is not None or url.raw_password is not None:
        return None
    origin = lane.origin(f"{url.scheme}://{url.raw_authority}", lambda: connection_key(url))
    return Address(url, origin, url.raw_path_qs, bool(url.raw_query_string))


def remember_cookies(session: ClientSession, url: URL) -> CookieHeader | None:
    """Ask the jar for the cookies of a URL; None where its answer cannot be remembered."""
    jar: Any = session._cookie_jar
    cookies: BaseCookie[str] = jar.filter_cookies(url)
    # As aiohttp's jar goes through them, and a few more.
    names = (url.raw_host or "").split(".")
    domains = [".".join(names[i:]) for i in range(len(names))]
    paths = list(itertools.accumulate(url.path.split("/"), lambda before, part: f"{before}/{part}"))
    pairs = dict.fromkeys([("", ""), *itertools.product(domains, paths)])
    if len(pairs) > _PAIRS_MAX:
        return None
    return remember(jar, pairs, _cookie_header(cookies) if cookies else None)


def ask_jar(session: ClientSession, url: URL) -> str | None:
    """The value of the field Cookie of a request, or None."""
    cookies = session._cookie_jar.filter_cookies(url)
    return _cookie_header(cookies) if cookies else None


def as_data(options: Any, body: Any) -> dict[str, Any]:
    """The options of a request whose JSON was serialized already."""
    return {**options, "json": None, "data": payload.JsonBytesPayload(None, dumps=lambda _: body)}


def _cookie_header(cookies: Any) -> str:
    """The value of the field Cookie, as ClientRequest.update_cookies makes it."""
    made: Any = SimpleCookie()
    # A jar of somebody's own may return what `cookies=` takes.
    for name, value in cookies.items() if isinstance(cookies, Mapping) else cookies:
        made[name] = preserve_morsel_with_coded_value(value) if isinstance(value, Morsel) else value
    field: str = made.output(header="", sep=";").strip()
    return field


def new_shape(
    session: ClientSession, method: str, url: URL, headers: Any, kind: int, has_cookies: bool
) -> Shape | None:
    """Let aiohttp build a request of the shape, and see where the values have gone; None for no shape.

    Args:
        session: the session.
        method: the method, upper-case.
        url: the URL.
        headers: a dict, or None.
        kind: of body.
        has_cookies: whether there are cookies.
    """
    if headers and any(type(name) not in _NAMES or name.lower() in _MEANINGFUL for name in headers):
        return None
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
        return None
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
        return None
    return Shape(fields)
