"""What a job has come to, in figures that can be added up over processes and over restarts."""

import importlib
from collections import Counter
from typing import Any

from ..batch import Result
from .errors import JobError

BAD_LINE = "BadLine"
"""The class of error under which lines are counted that are no requests."""
SHOWN_MAX = 10
"""Bad lines that are kept with their message."""
_DIGITS = 3
_LATENCY_MAX = 2**38
"""Microseconds: three days."""
_UNITS = 11
"""Bits of the first values of the histogram, each of which has a count of its own: 2048 at three digits."""
_QUANTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
_MICRO = 1_000_000


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

    def __init__(self) -> None:
        self.done = self.failed = self.bad = self.bytes = self.attempts = self.recovered = 0
        self.bad_lines: list[tuple[int, str]] = []
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.seconds = 0.0
        # By the lowest microsecond that the histogram does not tell from it. A plain count takes a quarter of
        # the time of recording, and can be pickled.
        self._latencies: Counter[int] = Counter()

    def note(self, result: Result) -> None:
        """Count a result."""
        error = result.error
        self._note(result.status, None if error is None else type(error).__name__, result.elapsed)
        self.bytes += len(result.body)
        self.attempts += result.attempts

    def note_bad(self, number: int, error: str) -> None:
        """Count a line that is no request."""
        self.done += 1
        self.failed += 1
        self.bad += 1
        self.errors[BAD_LINE] += 1
        if len(self.bad_lines) < SHOWN_MAX:
            self.bad_lines.append((number, error))

    def note_record(self, record: dict[str, Any]) -> None:
        """Count what a record says of a result, or of a bad line."""
        error = record.get("error")
        if error is not None and error["type"] == BAD_LINE:
            self.note_bad(record["line"], error["message"])
            return
        self._note(record["status"], error and error["type"], record["elapsed"])
        self.bytes += record["size"]
        self.attempts += record["attempts"]

    def _note(self, status: int | None, error: str | None, elapsed: float) -> None:
        self.done += 1
        if status is not None:
            self.statuses[status] += 1
        if error is not None:
            self.errors[error] += 1
            self.failed += 1
        elif status is None or status >= 400:
            self.failed += 1
        # Rounded, as records have it.
        micros = min(int(elapsed * _MICRO + 0.5), _LATENCY_MAX - 1)
        shift = micros.bit_length() - _UNITS
        self._latencies[micros if shift <= 0 else micros >> shift << shift] += 1

    def merge(self, other: "Summary") -> None:
        """Add another's counts.

        `seconds` and `recovered` stay as they are: the other's work may have been at the same time.
        """
        self.done += other.done
        self.failed += other.failed
        self.bad += other.bad
        self.bytes += other.bytes
        self.attempts += other.attempts
        self.bad_lines = sorted(self.bad_lines + other.bad_lines)[:SHOWN_MAX]
        self.statuses.update(other.statuses)
        self.errors.update(other.errors)
        self._latencies.update(other._latencies)

    def latency(self) -> Any:
        """Microseconds that the requests took, failures included: an HdrHistogram of three digits.

        Raises:
            JobError: the package `hdrhistogram` is missing.
        """
        histogram = histogram_class()(1, _LATENCY_MAX, _DIGITS)
        for micros, count in self._latencies.items():
            histogram.record_value(micros, count)
        return histogram

    def as_dict(self) -> dict[str, Any]:
        """The figures for `json.dumps`, latencies and times in seconds.

        Raises:
            JobError: the package `hdrhistogram` is missing.
        """
        return {
            "done": self.done,
            "ok": self.done - self.failed,
            "failed": self.failed,
            "recovered": self.recovered,
            "bad_lines": self.bad,
            "bytes": self.bytes,
            "attempts": self.attempts,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.errors.most_common()),
            "latency": self._latency(),
            "seconds": round(self.seconds, 3),
            "requests_per_second": round(self.requests_per_second, 1),
        }

    @property
    def requests_per_second(self) -> float:
        """Lines that were done per second of work."""
        return self.done / self.seconds if self.seconds else 0.0

    def _latency(self) -> dict[str, float]:
        histogram = self.latency()
        values = histogram.get_percentile_to_value_dict(list(_QUANTILES.values()))
        figures = {name: values.get(quantile, 0) / _MICRO for name, quantile in _QUANTILES.items()}
        figures["max"] = histogram.get_max_value() / _MICRO
        figures["mean"] = round(histogram.get_mean_value() / _MICRO, 6)
        return figures

    def __repr__(self) -> str:
        return f"<Summary of {self.done}, {self.failed} failed>"


def histogram_class() -> Any:
    """The class of the reference implementation.

    Raises:
        JobError: it is missing.
    """
    try:
        return importlib.import_module("hdrh.histogram").HdrHistogram
    except ImportError:
        raise JobError("the package hdrhistogram is missing", "pip install 'wirespeed[cli]'") from None
