"""What connectors have in common, native or not: what they tell of their pool, and to whom.

The base of both kinds of connectors. It must not know how connections are kept.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aiohttp import ClientConnectionError
from aiohttp.connector import BaseConnector
from yarl import URL

from .observe import Observer, PoolStats
from .pooling import PoolOptions

if TYPE_CHECKING:
    from aiohttp.client import ClientTimeout


@lru_cache(4096)
def _origin(host: str, port: int | None, is_ssl: bool) -> str:
    scheme = "https" if is_ssl else "http"
    try:
        return str(URL.build(scheme=scheme, host=host, port=port).origin())
    except (TypeError, ValueError):
        # A test's own key.
        return f"{scheme}://{host}:{port}"


def origin_of(key: Any) -> str:
    """The origin of a connection key, as in "https://example.org"."""
    return _origin(key.host, key.port, key.is_ssl)


class TellingConnector(BaseConnector):
    """A connector with parameters of the pool, figures and observers."""

    options: PoolOptions
    # Told of each request and connection that ends; none as a rule.
    observers: tuple[Observer, ...] = ()

    def stats(self, origin: str | URL | None = None) -> PoolStats:
        """Copy the figures of the pool; from any thread, and without looking at each connection.

        Args:
            origin: only those of one origin, as in "https://example.org"; None for all.

        Returns:
            An immutable snapshot; of an origin that is not known, or forgotten (of those without
            connections 1,024 are remembered), all zeros.

        Raises:
            ValueError: `origin` is not an absolute URL.
        """
        raise NotImplementedError

    def stats_by_origin(self) -> dict[str, PoolStats]:
        """Copy the figures of each origin that is known; see `stats`."""
        raise NotImplementedError

    async def prewarm(self, origin: str | URL, n: int = 1, *, timeout: "ClientTimeout | None" = None) -> int:
        """Open connections before they are needed.

        Args:
            origin: where to, as in "https://example.org"; a path is ignored.
            n: how many connections shall be open, idle and used ones and those being made counted. The
                limits hold: no more are made than there are free slots.
            timeout: `connect` or `total` bounds the whole, `sock_connect` each connection; None for
                aiohttp's default.

        Returns:
            How many connections to the origin are open, or nearly: those that others are making count.

        Raises:
            ValueError, TypeError: bad arguments.
            ClientConnectorError: no connection at all could be made; the first failure.
            ServerDisconnectedError: they were made, and lost at once.
            ClientConnectionError: the connector is closed.
        """
        raise NotImplementedError

    def add_observer(self, observer: Observer) -> None:
        """Have an object told of each request and connection that ends; see observe.Observer."""
        self.observers = (*self.observers, observer)

    def remove_observer(self, observer: Observer) -> None:
        """Tell an observer no more.

        Raises:
            ValueError: it was not added.
        """
        observers = list(self.observers)
        observers.remove(observer)
        self.observers = tuple(observers)

    def _describe(self) -> str:
        """One line: the figures and the limits."""
        stats = self.stats()
        limits = f"limit {self._limit or 'none'}"
        if self._limit_per_host:
            limits += f", {self._limit_per_host} per host"
        if self.options.max_open is not None:
            limits += f", max_open {self.options.max_open}"
        return (
            f"<{type(self).__name__}{' closed' * self._closed}: {stats.in_use} in use, "
            f"{stats.dialling} dialling, {stats.idle} idle, {stats.waiting} waiting; {limits}; "
            f"{stats.created} created, {stats.reused} reused>"
        )

    def _check_prewarming(self, origin: object, n: object) -> URL:
        """Check the arguments of `prewarm`, and that the connector is open; return the origin's URL."""
        url = URL(str(origin))
        if not isinstance(n, int) or isinstance(n, bool):
            raise TypeError(f"n has to be an int, not {n!r}")
        if n < 1:
            raise ValueError(f"n has to be at least 1, not {n}")
        if not url.absolute or url.scheme not in self.allowed_protocol_schema_set:
            raise ValueError(f"origin has to be an absolute http or https URL, not {str(origin)!r}")
        if self.closed:
            raise ClientConnectionError("Connector is closed.")
        return url.origin()
