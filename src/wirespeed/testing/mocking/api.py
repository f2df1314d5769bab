"""The mock as tests use it: routes in, requests out, and what must hold at the end."""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar

from aiohttp import ClientConnectionError, ClientSession
from aiohttp.connector import BaseConnector
from yarl import URL

from . import network
from .criteria import Asked, Criteria, UrlLike
from .replies import CLOSE, RESET, NoConnection, Reply, Step
from .request import Request
from .routes import Route

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NEAREST = 3
"""Routes named in the message for a request that none of them takes."""


class UnmatchedRequest(ClientConnectionError):
    """No route takes a request; nothing was sent anywhere.

    Attributes:
        request: the Request.
    """

    def __init__(self, message: str, request: Request) -> None:
        super().__init__(message)
        self.request = request


class HTTPMock:
    """Answers requests of aiohttp's and wirespeed's sessions without a network.

    The client runs for real, from the session down to its pool: a connection in memory takes the
    place of its sockets. Requests are compared with the routes in the order these were added; the
    first that matches and has an answer left takes the request. A request that no route takes
    fails with UnmatchedRequest, and fails the mock at its end, too. A mock inside another one
    answers first, and leaves what it has no route for to the outer one.

        with mock() as api:
            users = api.get("https://api.example/users", params={"page": 1}).respond(json=[])
            ...
        assert users.call_count == 1

    Args:
        only: sessions or connectors; other ones reach the network as ever. None given: every
            session of the process, whether it exists or is made later.
        base_url: what comes before the URLs of routes that have no host.
        passthrough: hosts that are not mocked, as `host` or `host:port`.
        assert_all_mocked: fail at the end when a request met no route.
        assert_all_called: fail at the end when a route took no request.

    Attributes:
        routes: in the order they were added.
        calls: the requests that routes took, oldest first.
        unmatched: the requests that none took.
    """

    RESET: ClassVar[Step] = RESET
    CLOSE: ClassVar[Step] = CLOSE

    def __init__(
        self,
        *only: ClientSession | BaseConnector,
        base_url: str | URL | None = None,
        passthrough: Iterable[str] = (),
        assert_all_mocked: bool = True,
        assert_all_called: bool = False,
    ) -> None:
        self.routes: list[Route] = []
        self.calls: list[Request] = []
        self.unmatched: list[Request] = []
        self._misses: list[str] = []
        self._only = only
        self._base_url = str(base_url).rstrip("/") if base_url is not None else ""
        self._passthrough = frozenset([passthrough] if isinstance(passthrough, str) else passthrough)
        self._must_match = assert_all_mocked
        self._must_call = assert_all_called
        self._is_active = False

    def __repr__(self) -> str:
        return f"<HTTPMock routes={len(self.routes)} calls={len(self.calls)}>"

    # Routes

    def route(
        self, method: str | None = None, url: UrlLike | None = None, **criteria: "Unpack[Asked]"
    ) -> Route:
        """Add a route.

        Args:
            method: None for every method.
            url: a URL, or its path where the mock has a base_url; a compiled pattern, matched from
                the start of the whole URL; None for every URL.
            criteria: `params`, `headers`, `json`, `data` and `match`; see `Criteria`.

        Returns:
            The route, which answers 200 unless told otherwise.

        Raises:
            ValueError: a URL without a host.
        """
        if isinstance(url, str) and self._base_url and "://" not in url:
            url = f"{self._base_url}/{url.lstrip('/')}"
        route = Route(Criteria(method, url, **criteria))
        self.routes.append(route)
        return route

    def get(self, url: UrlLike | None = None, **criteria: "Unpack[Asked]") -> Route:
        """Add a route for GET; see `route`."""
        return self.route("GET", url, **criteria)

    def post(self, url: UrlLike | None = None, **criteria: "Unpack[Asked]") -> Route:
        """Add a route for POST; see `route`."""
        return self.route("POST", url, **criteria)

    def put(self, url: UrlLike | None = None, **criteria: "Unpack[Asked]") -> Route:
        """Add a route for PUT; see `route`."""
        return self.route("PUT", url, **criteria)

    def patch(self, url: UrlLike | None = None, **criteria: "Unpack[Asked]") -> Route:
        """Add a route for PATCH; see `route`."""
        return self.route("PATCH", url, **criteria)

    def delete(self, url: UrlLike | None = None, **criteria: "Unpack[Asked]") -> Route:
        """Add a route for DELETE; see `route`."""
        return self.route("DELETE", url, **criteria)

    def head(self, url: UrlLike | None = None, **criteria: "Unpack[Asked]") -> Route:
        """Add a route for HEAD; see `route`."""
        return self.route("HEAD", url, **criteria)

    def options(self, url: UrlLike | None = None, **criteria: "Unpack[Asked]") -> Route:
        """Add a route for OPTIONS; see `route`."""
        return self.route("OPTIONS", url, **criteria)

    def reset(self) -> None:
        """Forget the routes and all requests."""
        for seen in (self.routes, self.calls, self.unmatched, self._misses):
            seen.clear()

    # Beginning and end

    def start(self) -> None:
        """Begin to answer.

        Raises:
            RuntimeError: it does already.
        """
        if self._is_active:
            raise RuntimeError("the mock is active already")
        self._is_active = True
        network.enter(self)

    def stop(self) -> None:
        """Cease to answer; asserts nothing. Without effect when it is not active."""
        self._leave()

    def _leave(self) -> "list[asyncio.Task[None]]":
        if not self._is_active:
            return []
        self._is_active = False
        return network.leave(self)

    def __enter__(self) -> "HTTPMock":
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        self._leave()
        if exc_type is None:
            self.assert_at_end()

    async def __aenter__(self) -> "HTTPMock":
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        if tasks := self._leave():
            loop = asyncio.get_running_loop()
            if mine := [task for task in tasks if task.get_loop() is loop]:
                await asyncio.wait(mine)
        if exc_type is None:
            self.assert_at_end()

    # Asserting

    def assert_at_end(self) -> None:
        __tracebackhide__ = True
        if self._must_match:
            self.assert_all_mocked()
        if self._must_call:
            self.assert_all_called()

    def assert_all_mocked(self) -> None:
        """Fail when a request met no route, whatever the program made of that."""
        __tracebackhide__ = True
        if self.unmatched:
            raise AssertionError("\n".join(self._misses))

    def assert_all_called(self) -> None:
        """Fail when a route took no request."""
        __tracebackhide__ = True
        if idle := [route for route in self.routes if not route.called]:
            raise AssertionError("\n  ".join(["not called:", *(str(route.criteria) for route in idle)]))

    # What the network asks

    def covers(self, connector: BaseConnector) -> bool:
        """Whether the connections of a connector are this mock's."""
        if not self._only:
            return True
        return any(
            one is connector or (isinstance(one, ClientSession) and one.connector is connector)
            for one in self._only
        )

    def lets_pass(self, host: str, port: int | None) -> bool:
        """Whether a host is not mocked."""
        return host in self._passthrough or f"{host}:{port}" in self._passthrough

    def refuses_connections(self) -> bool:
        """Whether a route is about to refuse one."""
        return any(isinstance(route.peek(), NoConnection) for route in self.routes)

    def find_refusal(self, request: Request) -> NoConnection | bool:
        """The failure to connect that a request is to meet; else whether a route will take it."""
        route = self._route_for(request)
        if route is None:
            return False
        reply = route.peek()
        if not isinstance(reply, NoConnection):
            return True
        self._take(route, request)
        return reply

    def find(self, request: Request) -> Reply | None:
        """The reply to a request, None when no route takes it."""
        route = self._route_for(request)
        return self._take(route, request) if route is not None else None

    def miss(self, request: Request, mocks: "list[network.Mock]") -> UnmatchedRequest:
        """Note that no mock takes a request; returns what the client is to raise."""
        routes = [route for mock in mocks if isinstance(mock, HTTPMock) for route in mock.routes]
        message = _no_route(request, routes)
        self.unmatched.append(request)
        self._misses.append(message)
        return UnmatchedRequest(message, request)

    def _route_for(self, request: Request) -> Route | None:
        for route in self.routes:
            if route.peek() is not None and not route.criteria.differences(request):
                return route
        return None

    def _take(self, route: Route, request: Request) -> Reply:
        self.calls.append(request)
        return route.take(request)


def _no_route(request: Request, routes: list[Route]) -> str:
    """Say what was asked for, and which routes come nearest."""
    lines = [f"no route for {request.method} {request.url}"]
    nearest = sorted(routes, key=lambda route: route.criteria.distance(request))[:_NEAREST]
    for route in nearest:
        why = "; ".join(route.criteria.differences(request)) or "all its answers were given"
        lines.append(f"  {route.criteria}: {why}")
    if len(routes) > _NEAREST:
        lines.append(f"  and {len(routes) - _NEAREST} more")
    return "\n".join(lines if routes else [f"{lines[0]}: the mock has no routes"])
