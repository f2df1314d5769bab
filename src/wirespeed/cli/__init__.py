"""The `wirespeed` command: its entry point, which says what to install when rich or typer is missing."""

import io
import sys

from . import run


def main() -> None:
    """Run the command line; all but `wirespeed run` needs the `cli` extra.

    Raises:
        SystemExit: always; 0 when the command did its work, 2 when it could not run.
    """
    if sys.argv[1:2] == ["run"] and not run.wants_help(sys.argv[2:]):
        # Without typer, whose import takes longer than Python's own start; and whose parser would
        # look for options behind the program's name.
        raise SystemExit(run.main(sys.argv[2:]))
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as exc:
        print(f"wirespeed: the command line needs {exc.name}: pip install 'wirespeed[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    from .app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a table with a "?" in it beats a traceback
    app()
