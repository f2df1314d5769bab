"""The lane that each feature's requests must take in a native build: said here and nowhere else."""

from support.outcome import ANY, EXPRESS, FULL

TRACING = EXPRESS
MIDDLEWARES = EXPRESS
EXPECT_100 = EXPRESS
UPLOAD_TRACKER = EXPRESS


def lane_of(*lanes: str) -> str:
    """The lane of a request that uses several features: the full one when any needs it."""
    return FULL if FULL in lanes else lanes[0]


def beside_plain(lane: str) -> str | None:
    """The lane of a case that makes a plain request as well."""
    return ANY if lane == FULL else lane
