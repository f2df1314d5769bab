"""What a route asks of a request. It answers with the differences, which name what to correct."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypedDict

from multidict import MultiDict, MultiMapping
from yarl import URL

from .request import Request

ANYTHING: Final[Any] = type("_Anything", (), {"__repr__": lambda self: "..."})()
"""The default of `json`, where None is the body `null`."""

UrlLike = str | URL | re.Pattern[str]
Pairs = Mapping[str, Any] | Iterable[tuple[str, Any]]
_ANOTHER_URL: Final = 2
"""What a URL that is not the route's counts, against one for any other difference."""
_SCHEMES: Final = {"ws": "http", "wss": "https"}


class Asked(TypedDict, total=False):
    """The keyword arguments of `Criteria`, for the methods that hand them on."""

    params: Pairs | str | None
    headers: Pairs | None
    json: Any
    data: Any
    match: Callable[[Request], object] | None


class Criteria:
    """The criteria of one route; all that are given must hold.

    Args:
        method: in any case; None for every method.
        url: an absolute URL, whose query counts as `params`; a compiled pattern, matched from the
            start of the whole URL; None for every URL.
        params: query parameters that must be there with these values; others may be there, too,
            unless it is empty: then there must be none.
        headers: headers that must be there with these values; others may be there, too.
        json: what the body must be as JSON.
        data: the whole body: bytes, str or a pattern; or the fields of a form, in any order.
        match: called with the Request; what it returns is taken as a truth value.

    Values of parameters, headers and fields are text, numbers, compiled patterns (of the
    whole value), lists of these, or any object with an `__eq__` of its own, such as
    `unittest.mock.ANY`.
    """

    def __init__(
        self,
        method: str | None = None,
        url: UrlLike | None = None,
        *,
        params: Pairs | str | None = None,
        headers: Pairs | None = None,
        json: Any = ANYTHING,
        data: Any = None,
        match: Callable[[Request], object] | None = None,
    ) -> None:
        self.method = method.upper() if method is not None else None
        self.url: URL | re.Pattern[str] | None = URL(url) if isinstance(url, str) else url
        if isinstance(self.url, URL):
            if not self.url.host:
                raise ValueError(f"a route needs an absolute URL, or the mock a base_url: {url!s}")
            if self.url.query:
                params = [*self.url.query.items(), *(_pairs(params) if params else ())]
        self.params = None if params is None else _multidict(params)
        self.headers = None if headers is None else _multidict(headers)
        self.json = json
        self.data = data if data is None or isinstance(data, bytes | str | re.Pattern) else _multidict(data)
        self.match = match

    def __str__(self) -> str:
        url = self.url.pattern if isinstance(self.url, re.Pattern) else self.url or "any URL"
        text = f"{self.method or 'any method'} {url.with_query(None) if isinstance(url, URL) else url}"
        for name in ("params", "headers", "data"):
            if (value := getattr(self, name)) is not None:
                text += f" {name}={dict(value) if isinstance(value, MultiDict) else value!r}"
        if self.json is not ANYTHING:
            text += f" json={self.json!r}"
        return text if self.match is None else f"{text} match={self.match!r}"

    def differences(self, request: Request) -> list[str]:
        """Say what keeps a request from matching; nothing when it matches."""
        found = [self._of_url(request.url)] if self.url is not None else []
        if self.method is not None and self.method != request.method:
            found.append(f"the method is {request.method}")
        if self.params is not None:
            found += _of_values("params", self.params, request.query, exactly=not self.params)
        if self.headers is not None:
            found += _of_values("headers", self.headers, request.headers)
        if self.json is not ANYTHING:
            found.append(self._of_json(request))
        if self.data is not None:
            found += self._of_data(request)
        found = [text for text in found if text]
        if not found and self.match is not None and not self.match(request):
            found.append("match() says no")
        return found

    def distance(self, request: Request) -> float:
        """How far a request is from matching, to find the route that was meant."""
        differences = len(self.differences(request))
        if self.url is None or not self._of_url(request.url):
            return differences
        mine = self.url.pattern if isinstance(self.url, re.Pattern) else str(self.url.with_query(None))
        likeness = difflib.SequenceMatcher(None, mine, str(request.url.with_query(None))).ratio()
        return differences + _ANOTHER_URL * (2 - likeness)

    def _of_url(self, url: URL) -> str:
        if isinstance(self.url, re.Pattern):
            return "" if self.url.match(str(url)) else "the URL does not match"
        assert self.url is not None
        return "" if _place(self.url) == _place(url) else "the URL is another"

    def _of_json(self, request: Request) -> str:
        try:
            found = request.json()
        except ValueError:
            return "the body is not JSON"
        return "" if self.json == found else f"json is {found!r}"

    def _of_data(self, request: Request) -> list[str]:
        if isinstance(self.data, MultiDict):
            return _of_values("form field", self.data, request.form(), exactly=True)
        if isinstance(self.data, bytes) or (
            isinstance(self.data, re.Pattern) and isinstance(self.data.pattern, bytes)
        ):
            found: Any = request.body
        else:
            found = request.body.decode(errors="replace")
        return [] if _agrees(self.data, found) else [f"the body is {found!r}"]


def _place(url: URL) -> tuple[str, str | None, int | None, str]:
    """What of a URL says where to, apart from its query."""
    return _SCHEMES.get(url.scheme, url.scheme), url.host, url.port, url.raw_path


def _pairs(values: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(values, Mapping | MultiMapping):
        return values.items()
    return values if not isinstance(values, str) else URL.build(query_string=values).query.items()


def _multidict(values: Any) -> MultiDict[Any]:
    found: MultiDict[Any] = MultiDict()
    for name, value in _pairs(values):
        for one in value if isinstance(value, list | tuple) else (value,):
            found.add(name, one)
    return found


def _of_values(
    what: str, expected: MultiMapping[Any], found: MultiMapping[Any], *, exactly: bool = False
) -> list[str]:
    differences = []
    for name in dict.fromkeys(expected.keys()):
        values = found.getall(name, [])
        if not _all_agree(expected.getall(name), values):
            differences.append(f"{what} {name!r} is {_shown(values)}, not {_shown(expected.getall(name))}")
    if exactly:
        names = [name for name in dict.fromkeys(found.keys()) if name not in expected]
        differences += [f"{what} {name!r} is {_shown(found.getall(name))}, not expected" for name in names]
    return differences


def _shown(values: list[Any]) -> str:
    if not values:
        return "missing"
    return repr(values[0]) if len(values) == 1 else repr(values)


def _all_agree(expected: list[Any], found: list[Any]) -> bool:
    """Whether each expected value has a found one of its own, in any order, and none is left."""
    left = list(found)
    for value in expected:
        index = next((i for i, other in enumerate(left) if _agrees(value, other)), None)
        if index is None:
            return False
        del left[index]
    return not left


def _agrees(expected: Any, found: str | bytes) -> bool:
    if isinstance(expected, re.Pattern):
        return expected.fullmatch(found) is not None
    if isinstance(expected, int | float):
        expected = str(expected)
    return bool(expected == found)
