"""What is sent: a table of workloads, each a fixed request with the answer it must get, and its goal."""

import enum
from dataclasses import dataclass
from typing import Final

from ..answers import JSON_BODY


class Kind(enum.Enum):
    """How the request is made and what is done with its answer."""

    READ = "GET, read()"
    DECODE = "GET, json()"
    POST = "POST of a JSON body, read()"
    TRACED = "GET, read(), with a TraceConfig for start, end and exception"
    MIDDLEWARE = "GET, read(), through one middleware that passes on"
    POLICIES = "GET, read(), through all policies of wirespeed; other clients without any"
    BATCH = "GET, body read, by wirespeed's session.batch; other clients by tasks that take turns"
    RETRYING_BATCH = "the same, with wirespeed's retry policy"
    RICH = "GET with params, 2 headers, cookies, timeouts, raise_for_status, json()"


_PLAIN: Final = (Kind.POLICIES, Kind.BATCH, Kind.RETRYING_BATCH)
"""What is a plain request for clients that have nothing of the kind."""


@dataclass(frozen=True)
class Workload:
    """One row of the benchmark tables.

    Attributes:
        name: how it is chosen on a command line.
        title: how it is shown.
        kind: how the request is made.
        path: path on the server, without the query.
        concurrency: requests in flight at once; each is sent when the last one's body was read.
        requests: requests of one round.
        expected: what a request must give: the body's length, or the `id` of the decoded JSON.
        is_tls: over TLS.
        is_fresh: a new connection for every request.
        is_gather: all requests at once in one `asyncio.gather`, behind a pool of `concurrency`.
        limit: of the pool; 0 for as many as are in flight, and at least 100.
        hosts: names of the server that the requests take turns at; each has connections of its own.
        is_unique: each request has a URL of its own, `?i=` and a number.
        on_asyncio: every client runs on asyncio's own loop, aiohttp too.
        is_long: takes minutes, and runs only when asked for by its name.
        goal: how many times less CPU than aiohttp's wirespeed's must be; None for no such goal.
        memory_goal_mb: what wirespeed's process must stay below, 10^6 bytes; None for no such goal.
    """

    name: str
    title: str
    kind: Kind = Kind.READ
    path: str = "/json"
    concurrency: int = 64
    requests: int = 20_000
    expected: int = len(JSON_BODY)
    is_tls: bool = False
    is_fresh: bool = False
    is_gather: bool = False
    limit: int = 0
    hosts: int = 1
    is_unique: bool = False
    on_asyncio: bool = False
    is_long: bool = False
    goal: float | None = None
    memory_goal_mb: float | None = None

    @property
    def plain_kind(self) -> Kind:
        """How it is done by a client that has neither policies nor batches."""
        return Kind.READ if self.kind in _PLAIN else self.kind

    @property
    def is_timed(self) -> bool:
        """Whether each request can be timed alone."""
        return not self.is_gather and self.kind not in (Kind.BATCH, Kind.RETRYING_BATCH)

    @property
    def pool_size(self) -> int:
        """Connections that a client's pool has room for."""
        return max(100, self.concurrency)


JSON_ID: Final = 10425
"""The `id` in the body of `/json`."""

PARAMS: Final = {"page": "2", "sort": "name", "limit": "50"}
HEADERS: Final = {"X-Request-ID": "5f2b7c3e9a", "Authorization": "Bearer 0123456789abcdef"}
COOKIES: Final = {"session": "c0ffee00c0ffee00", "theme": "dark"}
TIMEOUT: Final = 30.0
"""Seconds for the whole of a rich request."""
CONNECT_TIMEOUT: Final = 10.0
"""Seconds for a rich request's connection, waiting for it included."""
READ_TIMEOUT: Final = 20.0
"""Seconds between two reads of a rich request."""
WIDE: Final = 1_000_000
"""A limit that no measurement reaches: of attempts at once, or per second."""

POST_PAYLOAD: Final = {
    "id": 10425,
    "name": "wirespeed",
    "active": True,
    "score": 12.5,
    "tags": ["http", "client", "fast"],
    "owner": {"id": 7, "email": "someone@example.com"},
}
POST_ANSWER: Final = b'{"received":NNN}'
"""Shape of the answer to a post: every client's encoding of the payload has three digits of bytes."""

_ALL: Final = (
    Workload("json1", "GET json, 1 at a time", concurrency=1, requests=8_000, goal=2.6),
    Workload("json64", "GET json, 64 concurrent", goal=5.0),
    Workload("urls64", "GET json, a URL of its own each, 64", is_unique=True, goal=5.0),
    Workload("json1000", "GET json, 1000 concurrent", concurrency=1_000, goal=5.0),
    Workload("tls64", "GET json over TLS, 64", is_tls=True, goal=4.5),
    Workload("post64", "POST json body, 64", Kind.POST, "/post", expected=len(POST_ANSWER), goal=5.5),
    Workload("rich64", "rich request, 64", Kind.RICH, expected=JSON_ID, requests=10_000, goal=6.0),
    Workload("decode64", "json() of the answer, 64", Kind.DECODE, expected=JSON_ID, goal=5.0),
    Workload(
        "body100k",
        "100 kB bodies, 16",
        path="/bytes/100000",
        concurrency=16,
        requests=4_000,
        expected=100_000,
        goal=3.0,
    ),
    Workload(
        "body10m",
        "10 MB bodies, 4",
        path="/bytes/10000000",
        concurrency=4,
        requests=100,
        expected=10_000_000,
        goal=2.7,
    ),
    Workload("fresh32", "a new connection each, 32", concurrency=32, requests=3_000, is_fresh=True, goal=2.4),
    Workload(
        "gather100k",
        "asyncio.gather of 100,000 gets",
        concurrency=100,
        requests=100_000,
        is_gather=True,
        goal=4.0,
        memory_goal_mb=220.0,
    ),
    Workload(
        "gather1m",
        "asyncio.gather of 1,000,000 gets",
        concurrency=100,
        requests=1_000_000,
        is_gather=True,
        is_long=True,
        memory_goal_mb=3_000.0,
    ),
    Workload("batch64", "a batch, 64", Kind.BATCH, requests=50_000, goal=7.0),
    Workload(
        "batchurls64",
        "a batch, a URL of its own each, 64",
        Kind.BATCH,
        requests=50_000,
        is_unique=True,
        goal=7.0,
    ),
    Workload("batchretry64", "a batch with retry, 64", Kind.RETRYING_BATCH, requests=50_000),
    Workload(
        "batch1m",
        "a batch of 1,000,000",
        Kind.BATCH,
        concurrency=100,
        requests=1_000_000,
        is_long=True,
        memory_goal_mb=64.0,
    ),
    Workload("hosts1", "1 host, limit 100, 2,000 tasks", concurrency=2_000, limit=100),
    Workload(
        "hosts2000",
        "2,000 hosts, limit 100, 2,000 tasks",
        concurrency=2_000,
        limit=100,
        hosts=2_000,
        goal=8.0,
    ),
    Workload("traced64", "GET json, traced, 64", Kind.TRACED, goal=5.0),
    Workload("policies64", "GET json, all policies, 64", Kind.POLICIES, goal=3.0),
    Workload("middleware64", "GET json, one middleware, 64", Kind.MIDDLEWARE, goal=4.0),
    Workload("asyncio64", "GET json, 64, on asyncio's own loop", on_asyncio=True, goal=4.0),
)
WORKLOADS: Final = {workload.name: workload for workload in _ALL}
_SHORT: Final = {
    "json": "json64",
    "urls": "urls64",
    "tls": "tls64",
    "post": "post64",
    "rich": "rich64",
    "decode": "decode64",
    "traced": "traced64",
    "middleware": "middleware64",
    "policies": "policies64",
    "fresh": "fresh32",
    "gather": "gather100k",
    "batch": "batch64",
    "batchurls": "batchurls64",
    "asyncio": "asyncio64",
}


def find_workload(name: str) -> Workload:
    """Return a workload by its name, or by its short name (`json` is `json64`).

    Raises:
        LookupError: there is none; the message lists those there are.
    """
    try:
        return WORKLOADS[_SHORT.get(name, name)]
    except KeyError:
        known = ", ".join((*WORKLOADS, *_SHORT))
        raise LookupError(f"no workload {name!r}; there are {known}") from None
