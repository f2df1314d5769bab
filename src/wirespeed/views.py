"""aiohttp's private `_conns` and `_acquired`, as views of the pool.

Programs look at them: gauges of open connections, tests that ask whether one was kept. What
aiohttp's own code puts there, where it still connects (a tool patched it, a test put a mock
in a connection's place), is kept as ever; on top, whoever looks sees the connections of the
pool. Made by connector.py. Nothing can be changed in the pool through them.
"""

from collections import defaultdict, deque
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from ._core.connection import ConnectionState
from ._core.pool import Pool

IN_USE = (ConnectionState.RESERVED, ConnectionState.ACTIVE, ConnectionState.LENT)


class IdleView(defaultdict[Any, deque[tuple[Any, float]]]):
    """`{key: deque of (connection, idle since)}`, of the connections that may be used again.

    Looked up by one key it has aiohttp's own only: that is how aiohttp's code takes one.
    """

    def __init__(self, pool: Pool) -> None:
        super().__init__(deque)
        self._pool = pool

    def snapshot(self) -> dict[Any, deque[tuple[Any, float]]]:
        """What there is at this moment: aiohttp's own, and the pool's, longest idle first."""
        found = {key: deque(own) for key, own in super().items()}
        idle = [conn for conn in self._pool.connections() if conn.state == ConnectionState.IDLE]
        for conn in sorted(idle, key=lambda conn: conn.idle_since):
            found.setdefault(conn.host.key, deque()).append((conn, conn.idle_since))
        return found

    def own(self) -> defaultdict[Any, deque[tuple[Any, float]]]:
        """aiohttp's own alone."""
        return defaultdict(deque, super().items())

    def __len__(self) -> int:
        return len(self.snapshot())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.snapshot())

    def __contains__(self, key: object) -> bool:
        return key in self.snapshot()

    def __repr__(self) -> str:
        return repr(self.snapshot())

    def keys(self) -> KeysView[Any]:  # type: ignore[override]
        return self.snapshot().keys()

    def values(self) -> ValuesView[deque[tuple[Any, float]]]:  # type: ignore[override]
        return self.snapshot().values()

    def items(self) -> ItemsView[Any, deque[tuple[Any, float]]]:  # type: ignore[override]
        return self.snapshot().items()


class InUseView(set[Any]):
    """The connections that serve a request, aiohttp's own and the pool's."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    def snapshot(self) -> set[Any]:
        """What there is at this moment."""
        return {*super().__iter__(), *(conn for conn in self._pool.connections() if conn.state in IN_USE)}

    def __len__(self) -> int:
        return len(self.snapshot())

    def __iter__(self) -> Iterator[Any]:
        return iter(self.snapshot())

    def __contains__(self, conn: object) -> bool:
        return conn in self.snapshot()

    def __repr__(self) -> str:
        return repr(self.snapshot())
