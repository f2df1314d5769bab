"""What native connectors tell about their pool: figures and pressure. It must not change the pool."""

import weakref
from typing import Any

from yarl import URL

from ._core.hosts import Host
from ._core.pool import Pool
from .observe.stats import PoolStats
from .pooling import Holder, Pressure
from .telling import origin_of
from .views import IN_USE

# Connections that a PoolTimeout names.
_HOLDERS_MAX = 5
# Seconds for which the list of holders is good: a thousand waiters may time out in one step.
_HOLDERS_FOR = 0.05


def stats(pool: Pool, origin: str | URL | None = None) -> PoolStats:
    """The figures of a pool, or of one origin.

    Raises:
        ValueError: `origin` is not an absolute URL.
    """
    if origin is None:
        return PoolStats.of([pool.snapshot()])
    wanted = str(URL(origin).origin())
    found = [host.snapshot(pool.now()) for host in pool.known_hosts() if origin_of(host.key) == wanted]
    return PoolStats.of(found) if found else PoolStats()


def stats_by_origin(pool: Pool) -> dict[str, PoolStats]:
    """The figures of each origin that is known."""
    found: dict[str, list[dict[str, Any]]] = {}
    for host in pool.known_hosts():
        found.setdefault(origin_of(host.key), []).append(host.snapshot(pool.now()))
    return {origin: PoolStats.of(snapshots) for origin, snapshots in found.items()}


class Survey:
    """Tells who holds the connections of a pool, when somebody found none.

    Args:
        pool: the pool.
        limit: the connector's, which `max_open` may have lowered.
    """

    def __init__(self, pool: Pool, limit: int) -> None:
        self._pool = pool
        self._limit_name = "limit" if pool.limit == limit else "max_open"
        self._holders: dict[Host | None, tuple[Holder, ...]] = {}
        self._found_at = 0.0

    def pressure(self, host: Host) -> Pressure:
        """Describe the limit that keeps a host's callers waiting."""
        pool = self._pool
        # When there is room again by now, the limit that more callers share is to blame.
        is_host_full = 0 < pool.limit_per_host <= host.in_use
        is_total = not is_host_full or 0 < pool.limit <= pool.in_use
        of: Host | Pool = pool if is_total else host
        only = None if is_total else host
        return Pressure(
            limit_name=self._limit_name if is_total else "limit_per_host",
            limit=pool.limit if is_total else pool.limit_per_host,
            in_use=of.in_use - of.dialling,
            idle=pool.idle if is_total else host.idle_count,
            dialling=of.dialling,
            waiting=of.waiting,
            holders=self._oldest(only),
        )

    def _oldest(self, only: Host | None) -> tuple[Holder, ...]:
        now = self._pool.now()
        if now - self._found_at > _HOLDERS_FOR:
            self._holders.clear()
            self._found_at = now
        if only not in self._holders:
            held = [
                conn
                for conn in self._pool.connections()
                if conn.state in IN_USE and (only is None or conn.host is only)
            ]
            held.sort(key=lambda conn: conn.acquired_at)
            self._holders[only] = tuple(
                Holder(origin_of(conn.host.key), now - conn.acquired_at, _task_name(conn.holder))
                for conn in held[:_HOLDERS_MAX]
            )
        return self._holders[only]


def _task_name(holder: Any) -> str | None:
    """The name of the task that holds a connection; None when it has ended."""
    if isinstance(holder, weakref.ref):
        task = holder()
        return None if task is None else task.get_name()
    return getattr(holder, "task_name", None)
