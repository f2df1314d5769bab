"""The typer app: options of `wirespeed` itself, and its commands."""

from typing import Annotated

import typer
from rich.console import Console

from .._switch import NATIVE
from .._version import __version__
from .bench import bench

app = typer.Typer(
    name="wirespeed",
    help="aiohttp's client API on a native core.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(bench)


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
