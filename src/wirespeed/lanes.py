"""Which lane a request takes, and the named reason when it is the full one."""

import enum
from typing import Any


class LaneReason(enum.Enum):
    """Why a request runs on aiohttp's own code instead of the core."""

    NO_EXTENSION = "no extension"


class LaneStats:
    """Requests of one session, by lane and reason."""

    __slots__ = ("express", "full")

    def __init__(self) -> None:
        self.express = 0
        self.full: dict[LaneReason, int] = {}

    def count_full(self, reason: LaneReason) -> None:
        self.full[reason] = self.full.get(reason, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        return {"express": self.express, "full": {r.value: n for r, n in self.full.items()}}
