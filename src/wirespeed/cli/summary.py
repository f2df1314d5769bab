"""What `wirespeed fetch` says at the end: statuses, errors, latencies and throughput, as tables.

It is made of the document that `--json` prints, so both say the same.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from .bar import amount, duration

_QUANTILES: Final = ("p50", "p90", "p99", "p99.9", "max")


def show(document: Mapping[str, Any], out: Console) -> None:
    """Print a summary.

    Args:
        document: as `jobs.Summary.as_dict` makes it.
        out: where to.
    """
    for table in tables(document):
        out.print(table)
    out.print(totals(document), markup=False, soft_wrap=True)


def tables(document: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables that have something in them: statuses, errors, latencies."""
    if document["statuses"]:
        count = sum(document["statuses"].values())
        shown = _table("status", "", "requests", "share")
        for status, number in sorted(document["statuses"].items(), key=lambda item: int(item[0])):
            shown.add_row(str(status), _phrase(int(status)), f"{number:,}", f"{number / count:.1%}")
        yield shown
    if document["errors"]:
        shown = _table("error", "requests")
        # The most frequent first: it is what to look at.
        for name, number in sorted(document["errors"].items(), key=lambda item: (-item[1], item[0])):
            shown.add_row(name, f"{number:,}")
        yield shown
    latency = document["latency"]
    if latency["max"]:
        shown = Table(box=box.SIMPLE_HEAD)
        shown.add_column("latency")
        for name in _QUANTILES:
            shown.add_column(name, justify="right")
        shown.add_row("ms", *(_milliseconds(latency[name]) for name in _QUANTILES))
        yield shown


def _table(*headings: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        shown.add_column(heading, justify="right" if heading in ("requests", "share") else "left")
    return shown


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def totals(document: Mapping[str, Any]) -> str:
    """Return the line below the tables."""
    seconds = document["seconds"]
    parts = [f"{document['done']:,} done", f"{document['failed']:,} failed"]
    parts.append(f"{amount(document['bytes'])} in {duration(seconds)}")
    if seconds > 0:
        parts.append(f"{document['requests_per_second']:,.1f} requests/s")
        parts.append(f"{amount(document['bytes'] / seconds)}/s")
    return ", ".join(parts)
