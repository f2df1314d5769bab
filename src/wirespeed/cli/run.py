"""`wirespeed run`: start a program as Python itself would, with wirespeed put under its aiohttp.

The program is run by the real interpreter, which takes this process's place: exit code,
`__main__`, tracebacks, signals and standard streams are Python's own. What is ours comes in
through PYTHONPATH, see `preload/`. Imports little, since each start of a program waits for it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # `typing` takes as long to import as all of this
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

USAGE: Final = "usage: wirespeed run [--loop fast|asyncio] SCRIPT | -m MODULE | -c CODE | -  [ARGUMENTS]"
PRELOAD: Final = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "preload")
LOOPS: Final = ("fast", "asyncio")
COULD_NOT_RUN: Final = 2
"""Exit code of a bad command line; Python's own too."""
_DISTURBING: Final = "-E, -I and -S keep Python from loading wirespeed before the program"


class BadCommandLine(Exception):
    """The program cannot be started; the message says why."""


def wants_help(arguments: Sequence[str]) -> bool:
    """Tell whether the command's own help is asked for, not the program's."""
    return bool(arguments) and arguments[0] in ("-h", "--help")


def main(arguments: Sequence[str]) -> int:
    """Run a program; on POSIX the call does not return when it could be started.

    Args:
        arguments: what follows `wirespeed run`.

    Returns:
        The exit code.
    """
    try:
        loop, program = split(arguments)
        flags = interpreter_flags(sys.orig_argv, len(sys.argv) - 1)
        if flags and (sys.flags.ignore_environment or sys.flags.no_site):
            raise BadCommandLine(_DISTURBING)
        return _start([sys.executable, *flags, *program], environment(os.environ, loop))
    except BadCommandLine as exc:
        print(f"wirespeed run: {exc}\n{USAGE}", file=sys.stderr)
    except OSError as exc:
        print(f"wirespeed run: {exc}", file=sys.stderr)
    return COULD_NOT_RUN


def split(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Take our options off; the rest is a command line of Python.

    Returns:
        The loop, and the program with its arguments, `-m` or `-c` included.

    Raises:
        BadCommandLine: an option that is not ours, a bad value, or no program.
    """
    loop, rest = LOOPS[0], list(arguments)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--") and rest[0][:2] not in ("-m", "-c"):
        option, is_joined, value = rest.pop(0).partition("=")
        if option != "--loop":
            raise BadCommandLine(
                f"no option {option}; Python's own go before: python {option} -m wirespeed run"
            )
        if not is_joined:
            value = rest.pop(0) if rest else ""
        if value not in LOOPS:
            raise BadCommandLine(f"--loop is one of {', '.join(LOOPS)}, not {value!r}")
        loop = value
    if not rest:
        raise BadCommandLine("no program given")
    return loop, rest


def interpreter_flags(command: Sequence[str], arguments: int) -> list[str]:
    """Return Python's options of a command line `python OPTIONS -m wirespeed ARGUMENTS`.

    They are the program's too: `python -X dev -m wirespeed run app.py`. The options in the
    first line of an installed `wirespeed` script are that script's alone.

    Args:
        command: `sys.orig_argv`.
        arguments: how many arguments follow `wirespeed`.
    """
    flags = list(command[1 : len(command) - arguments])
    if len(flags) > 1 and flags[-1] == "wirespeed":
        flags.pop()
    elif flags and flags[-1].endswith("mwirespeed"):  # in one word: -mwirespeed
        flags[-1] = flags[-1].removesuffix("wirespeed")
    else:
        return []
    last = flags.pop()
    if not last.startswith("-") or not last.endswith("m"):
        return []
    return [*flags, last[:-1]] if len(last) > 2 else flags  # -um is -u -m


def environment(base: Mapping[str, str], loop: str) -> dict[str, str]:
    """Return the environment of the program and of its children.

    Args:
        base: this process's environment.
        loop: one of `LOOPS`.
    """
    others = [path for path in base.get("PYTHONPATH", "").split(os.pathsep) if path != PRELOAD]
    path = os.pathsep.join(others)
    return {
        **base,
        "PYTHONPATH": f"{PRELOAD}{os.pathsep}{path}" if path else PRELOAD,
        "WIRESPEED_RUN": environment_mark(loop),
    }


def environment_mark(loop: str) -> str:
    """Name the environment that is accelerated; children in another one are left alone."""
    return f"{sys.implementation.cache_tag},{sys.prefix},{loop}"


def _start(command: list[str], env: dict[str, str]) -> int:
    if not sys.executable:
        raise BadCommandLine("Python does not know its own executable")
    if os.name != "nt":
        os.execve(sys.executable, command, env)
    return _wait(command, env)


def _wait(command: list[str], env: dict[str, str]) -> int:
    """Run a program in a process of its own, for Windows, where exec returns to the shell at once."""
    import signal
    import subprocess

    # Ctrl-C reaches both processes; what it does is the program's to say.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = subprocess.call(command, env=env)
    finally:
        signal.signal(signal.SIGINT, before)
    # Windows' codes are unsigned: sys.exit would make -1 of 0xC000013A.
    return code - (1 << 32) if code >= 1 << 31 else code
