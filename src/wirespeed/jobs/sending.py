"""Lines, sent as a batch, into a part."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..batch import Progress
from .lines import Line
from .settings import Settings
from .summary import Summary

Stop = Any
"""An object with `is_set()`, or a callable: whether to stop."""


def run_part(
    lines: Iterable[Line],
    settings: Settings,
    path: "str | os.PathLike[str]",
    *,
    bodies: Path | None = None,
    ordered: bool = False,
    on_progress: Callable[[Progress], object] | None = None,
    stop: Stop | None = None,
) -> Summary:
    """Send the requests of lines and append their records to a file, on a loop of its own.

    Args:
        lines: what to send; lines with an error are recorded as such.
        settings: how to send it.
        path: of the part; made where it is missing. It is whole when this returns.
        bodies: a directory for the bodies; None for bodies in the records.
        ordered: write records in the order of the lines.
        on_progress: called four times a second and at the end, on the loop.
        stop: asks for the end: no more lines are taken, what is under way is finished and recorded.

    Returns:
        The figures of these lines.

    Raises:
        JobError: it could not be written; what was written before is there.
        RuntimeError: called on a running loop.
    """
    raise NotImplementedError
