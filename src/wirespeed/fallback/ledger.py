"""What the fallback's connectors count: an account for each origin, the snapshots of them, and all together.

Events are written into one account; the whole is added up when somebody asks, which happens seldom. Used
by `fallback`; it must not know connections or requests.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any

from yarl import URL

from ..observe import CloseReason, Histogram, PoolStats, Spread
from ..observe.stats import WAIT_BOUNDS
from ..telling import origin_of

# Origins without connections that are remembered, as in the native pool.
MAX_ORIGINS = 1024

_NOW = ("in_use", "idle", "dialling", "waiting")
_EVER = ("created", "reused", "requests", "refused", "wait_timeouts", "dial_failures")
_SPREADS = ("dials", "tls_handshakes", "requests_per_connection")


class Tally:
    """A Spread that counts on."""

    __slots__ = ("count", "max", "total")

    def __init__(self) -> None:
        self.count, self.total, self.max = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.max = max(self.max, value)

    def merge(self, other: "Tally") -> None:
        self.count += other.count
        self.total += other.total
        self.max = max(self.max, other.max)

    def snapshot(self) -> Spread:
        return Spread(self.count, self.total, self.max)


class WaitTally(Tally):
    """A Histogram that counts on."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        super().__init__()
        self.counts = [0] * (len(WAIT_BOUNDS) + 1)

    def add(self, value: float) -> None:
        super().add(value)
        self.counts[bisect_left(WAIT_BOUNDS, value)] += 1

    def merge(self, other: Tally) -> None:
        super().merge(other)
        assert isinstance(other, WaitTally)
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]

    def snapshot(self) -> Histogram:
        return Histogram(self.count, self.total, self.max, WAIT_BOUNDS, tuple(self.counts))


class Account:
    """The figures of one origin; the names are those of PoolStats."""

    __slots__ = ("closed", "keys", "origin", "planned", "waits", *_NOW, *_EVER, *_SPREADS)

    def __init__(self, origin: str = "") -> None:
        self.origin = origin
        self.keys: list[Any] = []
        self.planned = 0
        """Connections that will be dialled in a moment."""
        self.in_use = self.idle = self.dialling = self.waiting = 0
        self.created = self.reused = self.requests = 0
        self.refused = self.wait_timeouts = self.dial_failures = 0
        self.closed: Counter[CloseReason] = Counter()
        self.waits = WaitTally()
        self.dials, self.tls_handshakes, self.requests_per_connection = Tally(), Tally(), Tally()

    @property
    def is_busy(self) -> bool:
        """Whether it has connections, or somebody who wants one."""
        return bool(self.in_use or self.idle or self.dialling or self.waiting or self.planned)

    def merge(self, other: "Account") -> None:
        for name in (*_NOW, *_EVER):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.closed.update(other.closed)
        for name in (*_SPREADS, "waits"):
            getattr(self, name).merge(getattr(other, name))

    def snapshot(self) -> PoolStats:
        return PoolStats(
            **{name: getattr(self, name) for name in (*_NOW, *_EVER)},
            **{name: getattr(self, name).snapshot() for name in (*_SPREADS, "waits")},
            closed=self.closed,
        )


class Ledger:
    """The accounts of a connector."""

    def __init__(self) -> None:
        self._of_key: dict[Any, Account] = {}
        self._of_origin: dict[str, Account] = {}
        self._forgotten = Account()

    def of(self, key: Any) -> Account:
        """Find or open the account of a connection key (aiohttp's ConnectionKey)."""
        account = self._of_key.get(key)
        if account is None:
            origin = origin_of(key)
            account = self._of_origin.get(origin)
            if account is None:
                self._make_room()
                account = self._of_origin[origin] = Account(origin)
            account.keys.append(key)
            self._of_key[key] = account
        return account

    def _make_room(self) -> None:
        """Forget the oldest account that nobody is at, but not what it added up to."""
        if len(self._of_origin) < MAX_ORIGINS:
            return
        for origin, account in self._of_origin.items():
            if not account.is_busy:
                self._forgotten.merge(account)
                del self._of_origin[origin]
                for key in account.keys:
                    del self._of_key[key]
                return

    def find(self, origin: object) -> Account:
        """Look up an origin, or the origin of a URL; an empty account when nothing is known of it."""
        name = str(URL(str(origin)).origin())
        return self._of_origin.get(name) or Account(name)

    def snapshots(self) -> dict[str, PoolStats]:
        # list() is one step: another thread may be asking.
        return {origin: account.snapshot() for origin, account in list(self._of_origin.items())}

    def whole(self) -> Account:
        """Add all accounts up."""
        whole = Account()
        accounts: Iterable[Account] = (self._forgotten, *list(self._of_origin.values()))
        for account in accounts:
            whole.merge(account)
        return whole
