"""What a job has come to, in figures that can be added up over processes and over restarts."""

from collections import Counter
from typing import TYPE_CHECKING, Any

from ..batch import Result

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

BAD_LINE = "BadLine"
"""The class of error under which lines are counted that are no requests."""
SHOWN_MAX = 10
"""Bad lines that are kept with their message."""


class Summary:
    """Figures of a job, or of a part of it. Small, picklable, and can be added to another.

    Attributes:
        done: lines that have a record.
        failed: those of them that have no response, or one of status 400 or above, or are no requests.
        bad: lines that are no requests.
        bad_lines: the first of them: number and what is wrong.
        bytes: of bodies, decoded.
        attempts: how often requests were sent, or were to be sent.
        statuses: responses by status.
        errors: failures without a (whole) response by name of their class, bad lines among them.
        seconds: of work, of all sessions of the job.
        recovered: lines of `done` that earlier sessions have done.
    """

    done: int
    failed: int
    bad: int
    bad_lines: list[tuple[int, str]]
    bytes: int
    attempts: int
    statuses: "Counter[int]"
    errors: "Counter[str]"
    seconds: float
    recovered: int

    def note(self, result: Result) -> None:
        """Count a result."""
        raise NotImplementedError

    def note_bad(self, number: int, error: str) -> None:
        """Count a line that is no request."""
        raise NotImplementedError

    def note_record(self, record: dict[str, Any]) -> None:
        """Count what a record says of a result, or of a bad line."""
        raise NotImplementedError

    def merge(self, other: "Summary") -> None:
        """Add another's counts; `seconds` and `recovered` stay, for the work may have been at the same time."""
        raise NotImplementedError

    def latency(self) -> "HdrHistogram":
        """Microseconds that the requests took, failures included, to three digits.

        Raises:
            JobError: the package `hdrhistogram` is missing.
        """
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """For `json.dumps`: done, failed, bad_lines, bytes, attempts, statuses, errors, latency, seconds, requests_per_second."""
        raise NotImplementedError
