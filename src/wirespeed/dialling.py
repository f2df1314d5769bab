"""One dial, timed: how long the name, the connection and the handshake took, and what came of it.

aiohttp dials; the stages are seen where its connector resolves a name, and where it asks for
a protocol: the connection is made by then, the handshake is still to come. Called by the
connector.
"""

from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from aiohttp.client_proto import ResponseHandler

from ._core.figures import ConnectionFacts

# The dial that the running task makes.
_current: ContextVar["Dial | None"] = ContextVar("dial", default=None)


class Dial:
    """The stages of one dial, on the clock of `time.perf_counter`."""

    __slots__ = ("_began", "_connected", "_resolved", "has_begun")

    def __init__(self) -> None:
        self.has_begun = False

    def begin(self) -> None:
        """The running task begins to dial; the stages that it goes through are noted here."""
        self.has_begun = True
        self._began = self._resolved = perf_counter()
        self._connected: float | None = None
        _current.set(self)

    def facts(self, transport: Any) -> ConnectionFacts:
        """Sum up a dial that has just ended.

        Args:
            transport: what was dialled.
        """
        ended = perf_counter()
        get = transport.get_extra_info
        connected, version, cipher = ended, None, None
        if get("sslcontext") is not None:
            connected = self._connected or ended
            ssl_object, named = get("ssl_object"), get("cipher")
            version = ssl_object.version() if hasattr(ssl_object, "version") else None
            cipher = named[0] if named else None
        return ConnectionFacts(
            dns=self._resolved - self._began,
            connect=connected - self._resolved,
            tls=ended - connected,
            local=get("sockname"),
            peer=get("peername"),
            tls_version=version,
            tls_cipher=cipher,
        )


def note_resolved() -> None:
    """The name of the running task's dial is resolved."""
    if (dial := _current.get()) is not None:
        dial._resolved = perf_counter()


class ProtocolFactory:
    """aiohttp's factory of protocols, which notes that a connection is made: it is asked for then.

    Args:
        make: aiohttp's.
    """

    def __init__(self, make: Callable[[], ResponseHandler]) -> None:
        self._make = make

    def __call__(self) -> ResponseHandler:
        if (dial := _current.get()) is not None:
            dial._connected = perf_counter()
        return self._make()
