"""The embedded server: a loopback HTTP/1.1 server for benchmarks and for users' tests.

In a test, on the test's own loop:

    async with EmbeddedServer() as server:
        async with session.get(server.url("/json")) as resp:
            ...

As its own process, for measurements: `process.ServerProcess`, which runs

    python -m wirespeed.testing.server --port 0 [--cpu N] [--tls CERT KEY]

It prints one JSON line with its address, and exits when its standard input is closed, so it
cannot outlive the process that started it. Routes: `/json`, `/bytes/N`, `/chunked/N`, `/gzip/N`,
`/echo`, `/post`, `/redirect/N`, `/status/N`, `/headers`, `/cookies/set?name=value`,
`/delay/SECONDS` and `/close`. It listens on the loopback interface unless told otherwise.
"""

import argparse
import asyncio
import contextlib
import json
import os
import ssl
import threading
from collections.abc import Sequence
from types import TracebackType

from ..loops import run
from .machine import pin, raise_file_limit
from .protocol import Connection, ServerState

_BACKLOG = 4096
"""Connections the kernel may hold before they are accepted: above any benchmark's concurrency."""


class EmbeddedServer:
    """A loopback server on the running loop, as an async context manager.

    Args:
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        certfile: path of a PEM certificate chain; serves TLS.
        keyfile: path of its PEM private key.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        certfile: str | os.PathLike[str] | None = None,
        keyfile: str | os.PathLike[str] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._ssl: ssl.SSLContext | None = None
        if certfile is not None:
            self._ssl = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._ssl.load_cert_chain(certfile, keyfile)
        self._state: ServerState | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "EmbeddedServer":
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The TCP port; the chosen one once started."""
        return self._port

    @property
    def requests(self) -> int:
        """Requests answered so far."""
        return self._running().requests

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return self._running().accepted

    @property
    def open_connections(self) -> int:
        """Connections open now."""
        return len(self._running().connections)

    def url(self, path: str = "/") -> str:
        """Return the absolute URL of a path.

        Args:
            path: from the leading slash on, query included.
        """
        scheme = "http" if self._ssl is None else "https"
        return f"{scheme}://{self._host}:{self._port}{path}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be bound; the server stays stopped.
            RuntimeError: it is already started.
        """
        if self._server is not None:
            raise RuntimeError("the server is already started")
        loop = asyncio.get_running_loop()
        state = ServerState(loop)
        try:
            self._server = await loop.create_server(
                lambda: Connection(state), self._host, self._port, ssl=self._ssl, backlog=_BACKLOG
            )
        except BaseException:
            state.close()
            raise
        self._state = state
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and abort the connections that are open; counters stay readable."""
        if self._server is None or self._state is None:
            return
        server, self._server = self._server, None
        server.close()
        self._state.close()
        await server.wait_closed()

    def _running(self) -> ServerState:
        if self._state is None:
            raise RuntimeError("the server was not started")
        return self._state


def _call_when_stdin_closes(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Watch standard input from a thread: a pipe, a terminal and a file work on every platform."""

    def watch() -> None:
        # os.read, not sys.stdin: a buffered reader blocked at interpreter exit is a fatal error.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        with contextlib.suppress(RuntimeError):  # the loop was closed first
            loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()


async def _serve(options: argparse.Namespace) -> None:
    certfile, keyfile = options.tls or (None, None)
    stopped = asyncio.Event()
    async with EmbeddedServer(
        host=options.host, port=options.port, certfile=certfile, keyfile=keyfile
    ) as server:
        _call_when_stdin_closes(asyncio.get_running_loop(), stopped)
        address = {"host": options.host, "port": server.port, "url": server.url(""), "pid": os.getpid()}
        print(json.dumps(address), flush=True)
        await stopped.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until standard input is closed.

    Args:
        arguments: the command line without the program's name; None takes `sys.argv`.
    """
    parser = argparse.ArgumentParser(
        prog="python -m wirespeed.testing.server", description="Serves until standard input is closed."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0 takes a free one")
    parser.add_argument("--cpu", type=int, help="run on this core alone, where the platform can")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="serve TLS with these PEM files")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        pin(options.cpu)
    raise_file_limit()
    with contextlib.suppress(KeyboardInterrupt):
        run(_serve(options))


if __name__ == "__main__":
    main()
