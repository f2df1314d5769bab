"""Whether leaks are tracked: the switch that sessions look at. `leaks` is imported once it is on."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sessions import SessionLog

sessions: "SessionLog | None" = None
"""The sessions under watch; None while nothing is tracked."""


def is_wanted(option: bool | None = None) -> bool:
    """Whether leaks are to be tracked: as an option says, else as the environment does."""
    if option is not None:
        return option
    return os.environ.get("WIRESPEED_TRACK_LEAKS", "") not in ("", "0")
