"""`wirespeed fetch` in a process of its own, as tests run it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 40
MAIN = "from wirespeed.cli import main; main()"


EACH = """
import json, sys
from typer.testing import CliRunner
from wirespeed.cli.app import app
found = []
for arguments in json.loads(sys.argv[2]):
    done = CliRunner().invoke(app, ["fetch", *arguments])
    found.append([done.exit_code, done.output])
print(json.dumps(found))
"""


class Fetch:
    """Runs `wirespeed fetch` in a folder.

    Attributes:
        folder: where it runs; inputs and outputs are named relative to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self,
        *arguments: object,
        code: str = MAIN,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        start_new_session: bool = False,
        **env: str,
    ) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, "fetch", *map(str, arguments)],
            cwd=self.folder,
            # A wide terminal for messages that would wrap; no colours whatever the machine says.
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", **env},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=start_new_session,
            text=True,
            encoding="utf-8",
        )
        self._started.append(process)
        return process

    def __call__(
        self, *arguments: object, text: str | None = None, code: str = MAIN, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        stdin = subprocess.DEVNULL if text is None else subprocess.PIPE
        process = self.start(*arguments, code=code, stdin=stdin, **env)
        out, err = process.communicate(text, timeout=SECONDS)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def each(self, commands: "Sequence[Sequence[str]]") -> "list[tuple[int, str]]":
        """Run several in one process, since most of the time goes into its start; exit codes and outputs."""
        done = self(json.dumps(commands), code=EACH)
        assert done.returncode == 0, done.stderr
        return [(code, output) for code, output in json.loads(done.stdout)]

    def write(self, name: str, lines: Sequence[str]) -> str:
        """Write an input; returns its name."""
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return name

    def document(self, *arguments: object, code: int = 0, **env: str) -> dict[str, Any]:
        """Run with --json, expect an exit code, return what was printed."""
        done = self(*arguments, "--json", **env)
        assert done.returncode == code, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def records(self, name: str) -> list[dict[str, Any]]:
        """What is in an output of NDJSON."""
        with (self.folder / name).open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def left(self) -> set[str]:
        """The names of what is in the folder."""
        return {path.name for path in self.folder.iterdir()}

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            with process:
                pass


def interrupt(process: "subprocess.Popen[str]") -> None:
    """Press Ctrl-C, as far as a process without a terminal can tell."""
    process.send_signal(signal.SIGINT)
