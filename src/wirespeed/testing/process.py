"""The embedded server as a process of its own, so that its work is not counted as the client's."""

import json
import subprocess
import sys
import threading
from os import PathLike
from types import TracebackType
from typing import Any

_START_TIMEOUT = 20.0
"""Seconds for an interpreter to start and listen, on a slow and busy machine."""
_STOP_TIMEOUT = 5.0
"""Seconds from the end of its input to the end of the server, before it is killed."""


class ServerProcess:
    """Runs `python -m wirespeed.testing.server`, as a context manager.

    Args:
        cpu: core to run on; None leaves it to the system.
        tls: paths of a PEM certificate chain and its private key; None serves plain HTTP.
        start_timeout: seconds to wait for its address.

    Attributes:
        url: scheme, host and port, without a slash at the end; empty until started.
        port: its TCP port; 0 until started.
        pid: its process id; 0 until started.
    """

    def __init__(
        self,
        *,
        cpu: int | None = None,
        tls: tuple[str | PathLike[str], str | PathLike[str]] | None = None,
        start_timeout: float = _START_TIMEOUT,
    ) -> None:
        self._command = [sys.executable, "-m", "wirespeed.testing.server", "--port", "0"]
        if cpu is not None:
            self._command += ["--cpu", str(cpu)]
        if tls is not None:
            self._command += ["--tls", str(tls[0]), str(tls[1])]
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.port = 0
        self.pid = 0

    def __enter__(self) -> "ServerProcess":
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait for its address.

        Raises:
            RuntimeError: it is already started, ended before it listened, or did not listen
                within `start_timeout`; no process is left.
        """
        if self._process is not None:
            raise RuntimeError("the server is already started")
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = process
        try:
            address = self._read_address(process)
        except BaseException:
            self.stop()
            raise
        self.url, self.port, self.pid = address["url"], address["port"], process.pid

    def _read_address(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        lines: list[bytes] = []

        def read() -> None:
            assert process.stdout is not None
            lines.append(process.stdout.readline())

        # A thread, since Windows cannot wait for a pipe with a time limit.
        reader = threading.Thread(target=read, name="server-address", daemon=True)
        reader.start()
        reader.join(self._start_timeout)
        if reader.is_alive():
            process.kill()  # ends the reader too
            reader.join()
            raise RuntimeError(f"the server did not listen within {self._start_timeout} s")
        if not lines[0]:
            raise RuntimeError(f"the server ended before it listened: {' '.join(self._command)}")
        address: dict[str, Any] = json.loads(lines[0])
        return address

    def stop(self) -> None:
        """End the process: close its input, wait, and kill it by its own id if it stays."""
        process, self._process = self._process, None
        if process is None:
            return
        # Popen's exit closes the pipes and reaps the process.
        with process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
