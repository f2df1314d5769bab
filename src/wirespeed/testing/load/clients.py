"""The clients under test: a table of names, what each needs, and how each sends a workload.

aiohttp and wirespeed share one class, since they share one API: the module is the parameter.
`peers.py` and `floor.py` hold the others. Each client gets the settings a careful user of it
would choose, and every timeout and check that it has by default stays on.
"""

import abc
import asyncio
import importlib
import importlib.util
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

from ...loops import new_event_loop
from . import workloads
from .workloads import Kind, Workload

Call = Callable[[], Awaitable[int]]
"""Sends one request, reads its answer, and returns the figure to compare with `Workload.expected`."""


@dataclass(frozen=True)
class Target:
    """Where the requests go.

    Attributes:
        url: scheme, host and port, without a slash at the end.
        workload: what to send.
        cafile: PEM certificates to trust for TLS; None for plain HTTP.
    """

    url: str
    workload: Workload
    cafile: str | None = None

    @property
    def request_url(self) -> str:
        return self.url + self.workload.path

    def host_urls(self) -> list[str]:
        """The URL of the request on each of the workload's hosts, which are one server."""
        port = self.url.rpartition(":")[2]
        hosts = self.workload.hosts
        return [f"http://host{i}.test:{port}{self.workload.path}" for i in range(hosts)]

    def request_urls(self) -> Iterator[str]:
        """The URLs of the requests, without an end."""
        url = self.request_url
        if self.workload.is_unique:
            return (f"{url}?i={i}" for i in itertools.count())
        return itertools.cycle([url] if self.workload.hosts == 1 else self.host_urls())

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return a context that trusts `cafile`, or None without one."""
        return None if self.cafile is None else ssl.create_default_context(cafile=self.cafile)


class Client(abc.ABC):
    """One client with its pool, on the running loop."""

    def __init__(self, target: Target) -> None:
        self.target = target

    @abc.abstractmethod
    async def open(self) -> Call:
        """Make the session and return the call that sends one request."""

    def batch(self, requests: int) -> AsyncIterator[Any] | None:
        """Return the results of many requests, where the client has a way of its own for that."""
        return None

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the session and its connections."""

    def lanes(self) -> dict[str, Any] | None:
        """Return wirespeed's count of requests by lane; None for other clients."""
        return None


class SessionClient(Client):
    """aiohttp's API: aiohttp itself, or a module with the same names.

    Args:
        target: where the requests go.
        module: name of the module whose `ClientSession` is used.
    """

    def __init__(self, target: Target, module: str) -> None:
        super().__init__(target)
        self._module: Any = importlib.import_module(module)
        self._session: Any = None
        # One for all rounds: a URL does not come again.
        self._urls = target.request_urls()

    async def open(self) -> Call:
        workload, module = self.target.workload, self._module
        context = self.target.ssl_context()
        connector = module.TCPConnector(
            limit=workload.limit or workload.pool_size,
            force_close=workload.is_fresh,
            ssl=True if context is None else context,
            resolver=None if workload.hosts == 1 else _Loopback(),
        )
        if workload.kind is Kind.RICH:
            # The jar ignores IP addresses unless told otherwise, and the server has no name.
            jar = module.CookieJar(unsafe=True)
            self._session = module.ClientSession(
                connector=connector, cookies=workloads.COOKIES, cookie_jar=jar
            )
        else:
            self._session = module.ClientSession(connector=connector, **_hooks(module, workload.kind))
        return self._calls()[workload.plain_kind]

    def _calls(self) -> dict[Kind, Call]:
        session, url = self._session, self.target.request_url
        timeout = self._module.ClientTimeout(
            total=workloads.TIMEOUT,
            connect=workloads.CONNECT_TIMEOUT,
            sock_read=workloads.READ_TIMEOUT,
        )

        async def read() -> int:
            async with session.get(url) as resp:
                return len(await resp.read())

        urls = self._urls

        async def read_in_turn() -> int:
            async with session.get(next(urls)) as resp:
                return len(await resp.read())

        async def decode() -> int:
            async with session.get(url) as resp:
                answer = await resp.json()
            return int(answer["id"])

        async def post() -> int:
            async with session.post(url, json=workloads.POST_PAYLOAD) as resp:
                return len(await resp.read())

        async def rich() -> int:
            async with session.get(
                url,
                params=workloads.PARAMS,
                headers=workloads.HEADERS,
                timeout=timeout,
                raise_for_status=True,
            ) as resp:
                answer = await resp.json()
            return int(answer["id"])

        is_in_turn = self.target.workload.hosts > 1 or self.target.workload.is_unique
        get = read_in_turn if is_in_turn else read
        return {
            Kind.READ: get,
            Kind.TRACED: read,
            Kind.MIDDLEWARE: read,
            Kind.DECODE: decode,
            Kind.POST: post,
            Kind.RICH: rich,
        }

    def batch(self, requests: int) -> AsyncIterator[Any] | None:
        kind = self.target.workload.kind
        if not hasattr(self._session, "batch") or kind not in (Kind.BATCH, Kind.RETRYING_BATCH):
            return None
        policies: dict[str, Any] = {} if kind is Kind.BATCH else {"retry": 3}
        results: AsyncIterator[Any] = self._session.batch(
            itertools.islice(self._urls, requests), concurrency=self.target.workload.concurrency, **policies
        )
        return results

    async def close(self) -> None:
        await self._session.close()

    def lanes(self) -> dict[str, Any] | None:
        stats = getattr(self._session, "native_stats", None)
        return None if stats is None else stats()


class _Loopback(AbstractResolver):
    """Every name is this machine's."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        """Nothing to close."""


def _all_policies() -> Any:
    """Every policy at once, each wide enough to let all requests of a measurement pass at once."""
    policy: Any = importlib.import_module("wirespeed.policy")
    limits = policy.Gradient2(initial=workloads.WIDE, max_limit=workloads.WIDE)
    return policy.Policies(
        retry=policy.Retry(),
        hedge=policy.Hedge(min_delay=workloads.TIMEOUT),
        breaker=policy.CircuitBreaker(),
        bulkhead=policy.Bulkhead(workloads.WIDE),
        adaptive=policy.AdaptiveConcurrency(limits),
        rate=policy.RateLimit(workloads.WIDE, burst=workloads.WIDE),
    )


def _hooks(module: Any, kind: Kind) -> dict[str, Any]:
    """Settings of a session whose requests pass through code of the user's."""
    if kind is Kind.POLICIES:
        is_ours = module.ClientSession.__module__.partition(".")[0] == "wirespeed"
        return {"middlewares": (_all_policies(),)} if is_ours else {}
    if kind is Kind.MIDDLEWARE:

        async def pass_on(req: Any, handler: Any) -> Any:
            return await handler(req)

        return {"middlewares": (pass_on,)}
    if kind is Kind.TRACED:

        async def note(session: Any, context: Any, params: Any) -> None:
            context.method = params.method

        trace = module.TraceConfig()
        for signal in (trace.on_request_start, trace.on_request_end, trace.on_request_exception):
            signal.append(note)
        return {"trace_configs": [trace]}
    return {}


LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def _aiofastnet_loops(factory: LoopFactory) -> LoopFactory:
    made: LoopFactory = importlib.import_module("aiofastnet").loop_factory(factory)
    return made


@dataclass(frozen=True)
class ClientSpec:
    """One client of the tables.

    Attributes:
        name: how it is chosen on a command line.
        title: how it is shown.
        needs: modules that must be installed.
        make: builds it for a target.
        around_loops: what it makes of the function that makes loops.
        relative_cost: roughly its CPU per request against aiohttp's; rounds of costly clients
            are made shorter by it.
        declines: tells why it cannot run a workload; None when it can.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    make: Callable[[Target], Client]
    around_loops: Callable[[LoopFactory], LoopFactory] = lambda factory: factory
    relative_cost: int = 1
    declines: Callable[[Workload], str | None] = lambda workload: None

    def new_loop(self, workload: Workload) -> asyncio.AbstractEventLoop:
        """Make the loop that it runs the workload on."""
        return self.around_loops(asyncio.new_event_loop if workload.on_asyncio else new_event_loop)()

    def missing(self) -> str | None:
        """Tell why it cannot run here.

        Returns:
            "X is not installed", or None when it can run.
        """
        for module in self.needs:
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
        return None


def _session(module: str) -> Callable[[Target], Client]:
    return lambda target: SessionClient(target, module)


def _late(module: str, name: str) -> Callable[[Target], Client]:
    """Make a client of a module that is imported when it is wanted: it needs a peer, and this module."""

    def make(target: Target) -> Client:
        client: Client = getattr(importlib.import_module(f".{module}", __package__), name)(target)
        return client

    return make


def _declines(workload: Workload) -> str | None:
    if workload.limit or workload.hosts > 1:
        return "no resolver or limit like aiohttp's"
    if workload.is_unique:
        return "measured with one URL only"
    has_hooks = workload.kind in (Kind.TRACED, Kind.MIDDLEWARE)
    return "no traces or middlewares like aiohttp's" if has_hooks else None


def _declines_gather(workload: Workload) -> str | None:
    return "no queue behind its pool" if workload.is_gather else _declines(workload)


def _declines_slow_gather(workload: Workload) -> str | None:
    return "it takes minutes" if workload.is_gather else _declines(workload)


_ALL: Final = (
    ClientSpec("aiohttp", "aiohttp", ("aiohttp",), _session("aiohttp")),
    ClientSpec("wirespeed", "wirespeed", ("wirespeed",), _session("wirespeed")),
    ClientSpec(
        "aiohttp-aiofastnet",
        "aiohttp + aiofastnet",
        ("aiohttp", "aiofastnet"),
        _session("aiohttp"),
        _aiofastnet_loops,
    ),
    ClientSpec(
        "httpx",
        "httpx",
        ("httpx",),
        _late("peers", "HttpxClient"),
        relative_cost=40,
        declines=_declines_slow_gather,
    ),
    ClientSpec(
        "niquests",
        "niquests",
        ("niquests",),
        _late("peers", "NiquestsClient"),
        relative_cost=8,
        declines=_declines,
    ),
    ClientSpec("aiosonic", "aiosonic", ("aiosonic",), _late("peers", "AiosonicClient"), declines=_declines),
    ClientSpec(
        "curl_cffi",
        "curl_cffi",
        ("curl_cffi",),
        _late("peers", "CurlCffiClient"),
        relative_cost=2,
        declines=_declines,
    ),
    ClientSpec(
        "pyreqwest", "pyreqwest", ("pyreqwest",), _late("peers", "PyreqwestClient"), declines=_declines
    ),
    ClientSpec("wreq", "wreq", ("wreq",), _late("peers", "WreqClient"), declines=_declines_gather),
    ClientSpec(
        "floor", "bare floor", ("httptools",), _late("floor", "FloorClient"), declines=_declines_gather
    ),
)
CLIENTS: Final = {spec.name: spec for spec in _ALL}
BASE: Final = "aiohttp"
"""The client that every ratio is taken to."""


def find_client(name: str) -> ClientSpec:
    """Return a client by its name.

    Raises:
        LookupError: there is none, or it is not installed; the message says which.
    """
    spec = CLIENTS.get(name)
    if spec is None:
        raise LookupError(f"no client {name!r}; there are {', '.join(CLIENTS)}")
    missing = spec.missing()
    if missing is not None:
        raise LookupError(f"client {name!r} cannot run: {missing}")
    return spec
