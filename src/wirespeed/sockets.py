"""Options of TCP sockets, and presets for common networks. Used by the connectors."""

import socket
from dataclasses import dataclass
from typing import Any, Literal

# What Linux takes at most (include/net/tcp.h); a value above would fail at each connection.
_MOST_SECONDS = 32_767
_MOST_PROBES = 127
# TCP_USER_TIMEOUT is an int of milliseconds.
_MOST_USER_TIMEOUT = (2**31 - 1) / 1000

# The names in PRESETS.
Preset = Literal["lan", "internet", "nat"]


@dataclass(frozen=True)
class TCPOptions:
    """Options that are set on each TCP connection; those that the platform lacks are left out.

    Args:
        nodelay: send small writes at once (TCP_NODELAY, RFC 896 turned off); aiohttp's default.
        probe_after: seconds of silence, whole ones, after which the kernel probes the peer (TCP_KEEPIDLE,
            RFC 9293 section 3.8.4); None for no probes.
        probe_every: seconds between probes, whole ones (TCP_KEEPINTVL).
        probes: unanswered probes after which the connection is dead (TCP_KEEPCNT).
        user_timeout: seconds that sent data may stay unacknowledged before the connection is dead
            (TCP_USER_TIMEOUT, RFC 5482; Linux); None for the kernel's own limit, many minutes.

    Raises:
        ValueError: a time or a number that is not positive, or more than kernels take.
        TypeError: something that is no number, or no whole one where a whole one is needed.
    """

    nodelay: bool = True
    probe_after: int | None = None
    probe_every: int = 15
    probes: int = 4
    user_timeout: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.nodelay, bool):
            raise TypeError(f"nodelay has to be True or False, not {self.nodelay!r}")
        if self.probe_after is not None:
            _check("probe_after", self.probe_after, int, _MOST_SECONDS)
        _check("probe_every", self.probe_every, int, _MOST_SECONDS)
        _check("probes", self.probes, int, _MOST_PROBES)
        if self.user_timeout is not None:
            _check("user_timeout", self.user_timeout, (int, float), _MOST_USER_TIMEOUT)

    @staticmethod
    def of(value: "TCPOptions | str | None") -> "TCPOptions | None":
        """Options as they are, or those of a preset by its name.

        Raises:
            ValueError: no such preset.
            TypeError: neither options nor a name.
        """
        if value is None or isinstance(value, TCPOptions):
            return value
        if not isinstance(value, str):
            raise TypeError(f"tcp has to be TCPOptions, the name of a preset or None, not {value!r}")
        try:
            return PRESETS[value]
        except KeyError:
            names = ", ".join(map(repr, PRESETS))
            raise ValueError(f"no such preset of TCP options: {value!r}; there are {names}") from None

    def settings(self) -> list[tuple[int, int, int]]:
        """What `socket.setsockopt` has to be called with on this platform."""
        settings = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(self.nodelay))]
        if self.probe_after is not None:
            settings.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
            # macOS has another name for the first.
            idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"
            values = (
                (idle, self.probe_after),
                ("TCP_KEEPINTVL", self.probe_every),
                ("TCP_KEEPCNT", self.probes),
            )
            settings += [
                (socket.IPPROTO_TCP, getattr(socket, name), value)
                for name, value in values
                if hasattr(socket, name)
            ]
        if self.user_timeout is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            milliseconds = max(1, round(self.user_timeout * 1000))
            settings.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds))
        return settings

    def apply_to(self, transport: Any) -> None:
        """Set the options on the socket of a transport; one without a socket has none.

        Args:
            transport: connected.

        Raises:
            OSError: the kernel refused a value.
        """
        if (sock := transport.get_extra_info("socket")) is not None:
            self.apply(sock)

    def apply(self, sock: Any) -> None:
        """Set the options on a connected socket.

        Args:
            sock: a socket, or what `transport.get_extra_info("socket")` returns.

        Raises:
            OSError: the kernel refused a value.
        """
        for level, option, value in self.settings():
            sock.setsockopt(level, option, value)


def _check(name: str, value: object, kind: type | tuple[type, ...], most: float) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "a whole number" if kind is int else "a number"
        raise TypeError(f"{name} has to be {what}, not {value!r}")
    if not 0 < value <= most:  # type: ignore[operator]
        raise ValueError(f"{name} has to be positive and at most {most:,}, not {value!r}")


PRESETS: dict[str, TCPOptions] = {
    # A dead peer, or a cable that was pulled, is noticed within 20 seconds.
    "lan": TCPOptions(probe_after=10, probe_every=3, probes=3, user_timeout=20),
    # Long paths with losses: patient.
    "internet": TCPOptions(probe_after=60, probe_every=15, probes=4, user_timeout=120),
    # Load balancers and NATs that forget silent connections (AWS NLB: 350 s, Azure: 240 s,
    # carriers: from 30 s): probed often enough that they do not.
    "nat": TCPOptions(probe_after=25, probe_every=10, probes=3, user_timeout=60),
}
