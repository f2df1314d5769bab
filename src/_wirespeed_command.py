"""Where the installed `wirespeed` script starts; outside the package, which imports aiohttp.

A program in `wirespeed run` then starts a fifth of a second earlier: the launcher needs
neither aiohttp nor typer, and the program imports what it needs for itself.
"""

import os
import sys
from importlib.machinery import SourceFileLoader

TYPE_CHECKING = False  # `typing` takes as long to import as all of this
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: always; with the exit code.
    """
    if sys.argv[1:2] == ["run"]:
        run = _load_run()
        if not run.wants_help(sys.argv[2:]):
            raise SystemExit(run.main(sys.argv[2:]))
    from wirespeed import cli

    cli.main()


def _load_run() -> "Any":
    """Load wirespeed.cli.run by its place beside us, without its packages."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wirespeed", "cli", "run.py")
    run = type(sys)("wirespeed.cli.run")
    run.__file__ = path
    SourceFileLoader(run.__name__, path).exec_module(run)
    return run
