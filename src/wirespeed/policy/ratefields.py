"""What servers say about their rate limits in header fields, whatever its dialect.

- `RateLimit: "default";r=50;t=30` with `RateLimit-Policy: "default";q=100;w=60`: the draft
  draft-ietf-httpapi-ratelimit-headers from its revision 08 on; `RateLimit: limit=100, remaining=50, reset=30`
  is its revision 07.
- `RateLimit-Limit`, `-Remaining`, `-Reset`: its revisions 00 to 06; the reset is in seconds from now.
- `X-RateLimit-*` and `X-Rate-Limit-*`: no standard; the reset is an instant since 1970 at some (GitHub,
  Twitter), in some places in milliseconds, and seconds from now at others. The size tells.

Nothing here raises. Fields that are broken, or longer than a kilobyte, say nothing.
"""

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from .fields import number
from .gates import Clock

MAX_LENGTH = 1024
"""Characters of a field; GitHub's and Cloudflare's have fewer than 100."""

_EPOCH = 1e8
"""A reset beyond is an instant: as seconds from now, it would be three years away."""

_EPOCH_MILLISECONDS = 1e11

_TRIPLES = tuple(
    (prefix + "-Remaining", prefix + "-Reset", prefix + "-Limit")
    for prefix in ("RateLimit", "X-RateLimit", "X-Rate-Limit")
)

# Quoted strings, separators, and all else; any text is a sequence of these, and each character is tried once.
_TOKENS = re.compile(r'"((?:[^"\\]|\\.)*)"|([;,=])|([^";,=]+)|"')


class Quota(NamedTuple):
    """What is left of a quota.

    Attributes:
        remaining: how many more the server takes before the reset.
        reset: seconds from now until it takes more; may be negative.
        limit: how many it takes in a window; 0 where it does not say.
        window: its length in seconds; 0 where it does not say.
    """

    remaining: float
    reset: float
    limit: float
    window: float


# What nearly all servers of the draft send: one member, the remaining units, then the time.
_SINGLE = re.compile(
    r' ?(?:"([^"\\]{1,64})"|([A-Za-z*][-\w.*:/]{0,63})); ?r=([0-9]{1,15}); ?t=([0-9]{1,15}) ?',
    re.ASCII,
)

Items = list[tuple[str, dict[str, str]]]


def parse_items(text: str) -> Items:
    """Split a list or a dictionary of structured fields (RFC 9651) into names and parameters.

    A member of a dictionary, `name=value`, has its value under the empty parameter. Whatever is not
    understood is left out.
    """
    items: Items = []
    if len(text) > MAX_LENGTH:
        return items
    for member in _members(text):
        name = member[0][0]
        parameters: dict[str, str] = {}
        for index, part in enumerate(member):
            if len(part) > 1:
                parameters.setdefault(part[0] if index else "", part[1])
        items.append((name, parameters))
    return items


def _members(text: str) -> list[list[list[str]]]:
    """Members of a list, of parts between semicolons, of texts around the equals sign."""
    members = [[[""]]]
    for match in _TOKENS.finditer(text):
        quoted, separator, plain = match.groups()
        if separator == ",":
            members.append([[""]])
        elif separator == ";":
            members[-1].append([""])
        elif separator == "=":
            members[-1][-1].append("")
        else:
            members[-1][-1][-1] += quoted if quoted is not None else (plain or "").strip(" \t")
    return members


def quota(headers: Mapping[str, str], wall: Clock) -> Quota | None:
    """Return what a response says about its quota; of several, about the one of which the least remains.

    Args:
        headers: of the response, case-insensitive.
        wall: seconds since 1970; resets that are instants are seen from there.

    Returns:
        None where nothing is said, or nothing that can be read.
    """
    text = headers.get("RateLimit")
    if text is not None:
        found = _of_structured(text, headers.get("RateLimit-Policy"))
        if found is not None:
            return found
    for remaining_name, reset_name, limit_name in _TRIPLES:
        remaining = headers.get(remaining_name)
        if remaining is not None:
            found = _of_triple(remaining, headers.get(reset_name), headers.get(limit_name), wall)
            if found is not None:
                return found
    return None


def _of_structured(text: str, policy: str | None) -> Quota | None:
    single = _SINGLE.fullmatch(text)
    if single is not None:
        quoted, token, left, until = single.groups()
        limit, window = _window_of(quoted or token, policy)
        return Quota(float(left), float(until), limit, window)
    items = parse_items(text)
    if items and items[0][1].keys() == {""}:
        return _of_dictionary(items)
    found: Quota | None = None
    for name, parameters in items:
        remaining = number(parameters.get("r"))
        reset = number(parameters.get("t"))
        if remaining is None or reset is None:
            continue
        if found is not None and (remaining, -reset) >= (found.remaining, -found.reset):
            continue
        found = Quota(remaining, reset, *_window_of(name, policy))
    return found


def _window_of(name: str, policy: str | None) -> tuple[float, float]:
    if policy is None or len(policy) > MAX_LENGTH:
        return 0.0, 0.0
    return _policies(policy).get(name, (0.0, 0.0))


@functools.lru_cache(maxsize=256)
def _policies(text: str) -> dict[str, tuple[float, float]]:
    """Limits and windows by name; cached, as a server sends the same with each response."""
    return {
        name: (number(parameters.get("q")) or 0.0, number(parameters.get("w")) or 0.0)
        for name, parameters in parse_items(text)
    }


def _of_dictionary(items: Items) -> Quota | None:
    members = {name: parameters.get("") for name, parameters in items}
    remaining = number(members.get("remaining"))
    reset = number(members.get("reset"))
    if remaining is None or reset is None:
        return None
    return Quota(remaining, reset, number(members.get("limit")) or 0.0, 0.0)


def _of_triple(left: str, until: str | None, most: str | None, wall: Clock) -> Quota | None:
    remaining = number(left)
    reset = number(until)
    if remaining is None or reset is None:
        return None
    if reset >= _EPOCH_MILLISECONDS:
        reset = reset / 1000.0 - wall()
    elif reset >= _EPOCH:
        reset -= wall()
    limit, window = _of_limit(most)
    return Quota(remaining, reset, limit, window)


def _of_limit(text: str | None) -> tuple[float, float]:
    """Read `100`, and `100, 100;w=60, 5000;w=3600`: the limit that holds, then all there are."""
    if text is None:
        return 0.0, 0.0
    plain = number(text)
    if plain is not None:
        return plain, 0.0
    items = parse_items(text)
    if not items:
        return 0.0, 0.0
    first = items[0][0]
    for name, parameters in items:
        window = number(parameters.get("w"))
        if name == first and window is not None:
            return number(first) or 0.0, window
    return number(first) or 0.0, 0.0
