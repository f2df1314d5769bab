"""The typer app: options of `wirespeed` itself, and its commands."""

from typing import Annotated

import typer
from rich.console import Console

from .._switch import NATIVE
from .._version import __version__
from . import run
from .bench import bench
from .doctor import doctor
from .fetch import fetch

app = typer.Typer(
    name="wirespeed",
    help="aiohttp's client API on a native core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
app.command()(bench)
app.command()(doctor)
app.command(no_args_is_help=True)(fetch)


@app.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    no_args_is_help=True,
)
def run_command(
    program: Annotated[
        list[str],
        typer.Argument(
            metavar="SCRIPT | -m MODULE | -c CODE | - [ARGUMENTS]...", help="As for python itself."
        ),
    ],
) -> None:
    """Run a program, unchanged, with its aiohttp on the native core and its asyncio on uvloop.

    In front of the program stands [bold]--loop fast[/bold] (the default: uvloop, or winloop on
    Windows, unless the program chooses its loop) or [bold]--loop asyncio[/bold] (asyncio's own).
    Python's own options go before: [bold]python -X dev -m wirespeed run app.py[/bold].
    """
    raise typer.Exit(run.main(program))


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        core = "native core" if NATIVE else "no native core: aiohttp's own code runs"
        Console(highlight=False, soft_wrap=True).print(f"wirespeed {__version__} ({core})")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """aiohttp's client API on a native core."""
