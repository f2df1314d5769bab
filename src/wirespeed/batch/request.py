"""A request of a batch, as the user describes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yarl import URL

OPTIONS = ("params", "headers", "json", "data")
"""What a request may have beside method and URL; all of them are aiohttp's."""


@dataclass(slots=True)
class Request:
    """A request of a batch. Nothing is checked before it is its turn: what is wrong with it is its result.

    Args:
        method: such as "GET".
        url: absolute, or relative to the session's `base_url`.
        params: of the query, as aiohttp takes them.
        headers: on top of the session's.
        json: the body, to be serialized by the session's `json_serialize`; None for no such body.
        data: the body, as aiohttp takes it. A file or a generator cannot be sent again.
        id: whatever tells the caller which request this is; it is not sent.
    """

    method: str
    url: str | URL
    params: Any = None
    headers: Mapping[str, str] | None = None
    json: Any = None
    data: Any = None
    id: Any = None

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `session.request` that it has."""
        return {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}


Given = str | URL | Request
"""What a batch takes."""


def described(given: Any) -> Request:
    """What was given, as a Request; also what turned out to be none."""
    return given if isinstance(given, Request) else Request("GET", given)


def arguments(given: Any) -> tuple[str, Any, dict[str, Any]]:
    """Method, URL and options of what was given.

    Raises:
        TypeError: it is no request.
    """
    if isinstance(given, Request):
        return given.method, given.url, given.options()
    if isinstance(given, str | URL):
        return "GET", given, {}
    raise TypeError(f"a batch takes URLs and wirespeed.Request, not {type(given).__name__}: {given!r:.100}")
