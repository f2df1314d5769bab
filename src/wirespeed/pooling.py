"""What can be set about the pool beside aiohttp's own parameters, checked; and its errors.

Used by the connectors, native or not. It must not know the core.
"""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import ClientConnectionError, ConnectionTimeoutError

from .sockets import Preset, TCPOptions

if TYPE_CHECKING:
    from .policy.outcome import Outcome


@dataclass(frozen=True)
class Holder:
    """Who has a connection of the pool: the origin, seconds since it was acquired, and the task's name."""

    origin: str
    age: float
    task: str | None

    def __str__(self) -> str:
        return f"{self.origin} for {self.age:.1f} s by {self.task or 'a task that has ended'}"


@dataclass(frozen=True)
class Pressure:
    """The state of a pool in which somebody found no connection.

    Attributes:
        limit_name: "limit", "limit_per_host" or "max_open"; what blocked.
        limit: its value.
        in_use: connections in use, of the whole pool or, for `limit_per_host`, of the host.
        idle: idle connections, likewise.
        dialling: connections being made, likewise.
        waiting: other callers that wait, likewise.
        holders: the connections that have been in use longest, oldest first.
    """

    limit_name: str
    limit: int
    in_use: int
    idle: int
    dialling: int
    waiting: int
    holders: tuple[Holder, ...] = ()

    def __str__(self) -> str:
        text = (
            f"{self.limit_name}={self.limit} reached: {self.in_use} in use, {self.dialling} dialling, "
            f"{self.idle} idle, {self.waiting} waiting"
        )
        if self.holders:
            text += "; held longest: " + ", ".join(map(str, self.holders))
        return text


class _PoolError:
    """What PoolTimeout and PoolFull have in common: the fields of `pressure` are attributes, too."""

    pressure: Pressure
    limit_name: str
    limit: int
    in_use: int
    idle: int
    dialling: int
    waiting: int
    holders: tuple[Holder, ...]

    @property
    def outcome(self) -> "Outcome":
        """What it is to policies: nothing that the server could help."""
        from .policy.outcome import Outcome  # only with policies are these loaded, and only they ask

        return Outcome.LOCAL

    def _adopt(self, pressure: Pressure) -> None:
        vars(self).update(vars(pressure), pressure=pressure)


class PoolTimeout(_PoolError, ConnectionTimeoutError):
    """No connection of the pool was to be had in time: its limit was reached all the while.

    Raised after `pool_timeout`, and after `ClientTimeout.connect` when it passes in the queue of the
    pool. Nothing was sent. The fields of `pressure` (see Pressure) are attributes.

    Attributes:
        pressure: the limit that blocked, the figures at that moment, and who held connections.
        waited: seconds.
    """

    def __init__(self, message: str, pressure: Pressure, waited: float) -> None:
        # The message alone: this is an OSError, which takes two or three arguments for an errno,
        # its text and a file's name.
        super().__init__(message)
        self._adopt(pressure)
        self.waited = waited

    def __reduce__(self) -> Any:
        return type(self), (self.args[0], self.pressure, self.waited), vars(self)

    def __str__(self) -> str:
        return f"{self.args[0]}: waited {round(self.waited, 3)} s for the pool: {self.pressure}"


class PoolFull(_PoolError, ClientConnectionError):
    """The request was refused: `max_waiters` callers wait for the pool already. Nothing was sent.

    The fields of `pressure` (see Pressure) are attributes.

    Attributes:
        pressure: the limit that blocked, the figures at that moment, and who held connections.
    """

    def __init__(self, message: str, pressure: Pressure) -> None:
        super().__init__(message)
        self._adopt(pressure)

    def __reduce__(self) -> Any:
        return type(self), (self.args[0], self.pressure), vars(self)

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.pressure}"


@dataclass(frozen=True)
class PoolOptions:
    """The parameters of the connectors that aiohttp does not have; see TCPConnector for their meaning.

    Raises:
        ValueError, TypeError: a value that makes no sense.
    """

    max_waiters: int | None = None
    pool_timeout: float | None = None
    max_open: int | None = None
    max_connection_age: float | None = None
    max_requests_per_connection: int | None = None
    reuse: Literal["fifo", "lifo"] = "fifo"
    learn_keepalive: bool = True
    tcp: TCPOptions | Preset | None = None
    track_leaks: bool | None = None

    def __post_init__(self) -> None:
        _check_count("max_waiters", self.max_waiters, least=0)
        _check_count("max_open", self.max_open, least=1)
        _check_count("max_requests_per_connection", self.max_requests_per_connection, least=1)
        _check_seconds("pool_timeout", self.pool_timeout)
        _check_seconds("max_connection_age", self.max_connection_age)
        if not isinstance(self.learn_keepalive, bool):
            raise TypeError(f"learn_keepalive has to be True or False, not {self.learn_keepalive!r}")
        if self.track_leaks is not None and not isinstance(self.track_leaks, bool):
            raise TypeError(f"track_leaks has to be True, False or None, not {self.track_leaks!r}")
        if self.reuse not in ("fifo", "lifo"):
            raise ValueError(f"reuse has to be 'fifo' or 'lifo', not {self.reuse!r}")
        TCPOptions.of(self.tcp)

    @classmethod
    def split(cls, kwargs: dict[str, Any]) -> tuple["PoolOptions", dict[str, Any]]:
        """Separate keyword arguments: what is ours, checked, and the rest."""
        names = cls.__dataclass_fields__
        own = {name: value for name, value in kwargs.items() if name in names}
        return cls(**own), {name: value for name, value in kwargs.items() if name not in names}


def _check_count(name: str, value: object, *, least: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} has to be an int or None, not {value!r}")
    if value < least:
        raise ValueError(f"{name} has to be at least {least}, not {value!r}")


def _check_seconds(name: str, value: object) -> None:
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} has to be a number of seconds or None, not {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} has to be a positive number of seconds or None, not {value!r}")


# For the signatures of the connectors.
TCP_DEFAULTS = asdict(PoolOptions())
UNIX_DEFAULTS = {name: value for name, value in TCP_DEFAULTS.items() if name != "tcp"}
