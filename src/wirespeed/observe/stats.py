"""What the pool counts, as immutable snapshots. Made by the connectors; must not reach into the pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .reasons import CloseReason

# Upper bounds of the buckets of PoolStats.waits, seconds; one more bucket has what is above.
WAIT_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)

_REASONS = tuple(CloseReason)
_SUMS = (
    "in_use", "idle", "dialling", "waiting", "created", "reused", "requests", "refused", "wait_timeouts",
    "dial_failures", "stale_retries", "bytes_in", "bytes_out",
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """How often something happened, and how much of it there was: seconds, or a number of requests."""

    count: int = 0
    total: float = 0.0
    max: float = 0.0

    @property
    def mean(self) -> float:
        """The arithmetic mean; 0 where nothing happened."""
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True)
class Histogram(Spread):
    """A Spread with its distribution: `counts[i]` values were at most `bounds[i]`, the last ones above."""

    bounds: tuple[float, ...] = WAIT_BOUNDS
    counts: tuple[int, ...] = (0,) * (len(WAIT_BOUNDS) + 1)


@dataclass(frozen=True)
class PoolStats:
    """The figures of a connector, or of one origin, at one moment.

    Attributes:
        in_use: connections that serve a request, or are reserved for one.
        idle: connections that wait for the next request.
        dialling: connections that are being made.
        waiting: callers that wait for a slot.
        created: connections that were made.
        reused: requests that got a connection from the pool instead of dialling.
        requests: requests sent, a loan to aiohttp's own code counted as one.
        refused: callers that were refused by `max_waiters`.
        wait_timeouts: callers whose time passed while they waited for a slot.
        dial_failures: connections that could not be made, given-up dials included.
        stale_retries: requests that were sent again because a reused connection turned out dead;
            those of the core (aiohttp's own code does not tell).
        bytes_in: bytes received by the core, heads included, TLS removed; connections that
            aiohttp's own code had on loan are not counted meanwhile.
        bytes_out: bytes sent by the core, likewise.
        closed: connections closed, by reason.
        waits: seconds that callers waited for a slot that they got; those served at once are not counted.
        dials: seconds that it took to make a connection, name resolution and TLS included.
        tls_handshakes: seconds of TLS handshakes.
        requests_per_connection: requests that the closed connections had served.
        learned_keepalive: for an origin: seconds after which its idle connections are not used any more,
            as learned from their ends; None where nothing is known, and for the whole connector.
    """

    in_use: int = 0
    idle: int = 0
    dialling: int = 0
    waiting: int = 0
    created: int = 0
    reused: int = 0
    requests: int = 0
    refused: int = 0
    wait_timeouts: int = 0
    dial_failures: int = 0
    stale_retries: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    closed: Mapping[CloseReason, int] = field(default_factory=dict, hash=False)
    waits: Histogram = Histogram()
    dials: Spread = Spread()
    tls_handshakes: Spread = Spread()
    requests_per_connection: Spread = Spread()
    learned_keepalive: float | None = None

    def __post_init__(self) -> None:
        # A copy: what is handed in goes on counting.
        object.__setattr__(self, "closed", MappingProxyType(dict(self.closed)))

    def __getstate__(self) -> dict[str, Any]:
        """What pickle and copy take: a mapping proxy cannot be pickled."""
        return {**vars(self), "closed": dict(self.closed)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, closed=MappingProxyType(state["closed"]))

    @property
    def open(self) -> int:
        """Connections that are open: in use or idle."""
        return self.in_use + self.idle

    @classmethod
    def of(cls, snapshots: Sequence[Mapping[str, Any]]) -> "PoolStats":
        """Sum up what the core copied from its counters (`Pool.snapshot`)."""
        one = snapshots[0] if len(snapshots) == 1 else _sum_of(snapshots)
        count, total, longest = one["waits"]
        closed = {reason: number for reason, number in zip(_REASONS, one["closed"], strict=True) if number}
        return cls(
            **{name: one[name] for name in _SUMS},
            closed=closed,
            waits=Histogram(count, total, longest, counts=one["wait_buckets"]),
            dials=Spread(*one["dials"]),
            tls_handshakes=Spread(*one["tls"]),
            requests_per_connection=Spread(*one["lives"]),
            learned_keepalive=one["learned_keepalive"],
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain values, for logs and JSON; reasons by their lower-case names."""
        plain = {
            name: value for name, value in vars(self).items() if not isinstance(value, (Spread, Mapping))
        }
        plain["open"] = self.open
        plain["closed"] = {reason.name.lower(): count for reason, count in self.closed.items()}
        for name, value in vars(self).items():
            if isinstance(value, Spread):
                plain[name] = {**vars(value), "mean": value.mean}
        return plain


def _sum_of(snapshots: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    def column(name: str) -> list[Any]:
        return [snapshot[name] for snapshot in snapshots]

    found: dict[str, Any] = {name: sum(column(name)) for name in _SUMS}
    for name in ("closed", "wait_buckets"):
        found[name] = tuple(map(sum, zip(*column(name), strict=True)))
    for name in ("waits", "dials", "tls", "lives"):
        counts, totals, maxima = zip(*column(name), strict=True)
        found[name] = (sum(counts), sum(totals), max(maxima))
    learned = [value for value in column("learned_keepalive") if value is not None]
    found["learned_keepalive"] = min(learned, default=None)
    return found
