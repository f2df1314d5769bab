"""Results of `wirespeed bench` as an SVG: bars of how many times less CPU than aiohttp, by workload.

One panel for each workload, in two columns, all on one scale. It carries its own background and
a dark variant of its colours, since a page that shows it as an image cannot lend it either.
"""

import itertools
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from ..testing.load.clients import BASE
from ..testing.load.results import SUBJECT, Cell, Results, Row
from .report import facts, goals

_FLOOR: Final = "floor"
"""Not a client: its bars may leave the scale, so that they do not squeeze the others."""

# All lengths are SVG's units, which are pixels where the image is shown at its own size.
_WIDTH: Final = 1000
_MARGIN: Final = 24
_COLUMN_GAP: Final = 28
_COLUMN: Final = (_WIDTH - 2 * _MARGIN - _COLUMN_GAP) / 2
_LABEL: Final = 128
"""Room for a client's name, left of its bar."""
_VALUE: Final = 92
"""Room for the figures, right of the longest bar."""
_SPAN: Final = _COLUMN - _LABEL - _VALUE
_BAR: Final = 11
_BAR_STEP: Final = 15
_PANEL_HEAD: Final = 22
_PANEL_GAP: Final = 14
_AXIS: Final = 34
_NOTE_STEP: Final = 15
_NOTE_LENGTH: Final = 165
"""Characters in a line of the footnotes."""
_LETTER: Final = 6.5
"""Roughly the width of a bold letter in figures."""
_MOST_TICKS: Final = 10

_STYLE: Final = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-size: 18px; font-weight: 600 }
.panel { font-weight: 600 }
.name { text-anchor: end }
.tick { text-anchor: middle }
.name, .tick, .value { font-size: 11px }
.value { paint-order: stroke; stroke: #ffffff; stroke-width: 3px }
.subject { font-weight: 600 }
.muted { fill: #59636e }
.note { font-size: 10.5px; fill: #59636e }
.back { fill: #ffffff }
.grid { stroke: #d1d9e0 }
.base { stroke: #59636e; stroke-dasharray: 3 2 }
.goal { stroke: #bc4c00; stroke-width: 2.5 }
rect.ours { fill: #0969da }
rect.theirs { fill: #8c959f }
rect.floor { fill: #d1d9e0 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .muted, .note { fill: #9198a1 }
  .value { stroke: #0d1117 }
  .back { fill: #0d1117 }
  .grid { stroke: #3d444d }
  .base { stroke: #9198a1 }
  .goal { stroke: #f0883e }
  rect.ours { fill: #4493f8 }
  rect.theirs { fill: #6e7681 }
  rect.floor { fill: #3d444d }
}
"""


@dataclass(frozen=True)
class _Scale:
    """From ratios to lengths; `top` is the last tick."""

    top: float
    step: float

    def length(self, ratio: float) -> float:
        return min(ratio, self.top) / self.top * _SPAN

    def ticks(self) -> list[float]:
        return [self.step * number for number in range(round(self.top / self.step) + 1)]


def chart(results: Results) -> str:
    """Draw the results.

    Args:
        results: what was measured.

    Returns:
        An SVG document.
    """
    scale = _scale(results)
    columns = _columns(results.workloads)
    top = _MARGIN + 62
    bottom = top + max(sum(map(_height, column)) for column in columns)
    notes = [part for fact in facts(results) for part in textwrap.wrap(fact, _NOTE_LENGTH)]
    height = bottom + _AXIS + _NOTE_STEP * (len(notes) + 1)
    title = "CPU per request: how many times less than aiohttp"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{_WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {_WIDTH} {height:.0f}">',
        f"<title>{title}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{_WIDTH}" height="{height:.0f}" rx="6"/>',
        _text(_MARGIN, _MARGIN + 16, title, "title"),
        *_legend(_MARGIN + 42),
    ]
    for number, column in enumerate(columns):
        left = _MARGIN + number * (_COLUMN + _COLUMN_GAP)
        parts += _draw_column(column, scale, left, top)
    for number, note in enumerate(notes):
        parts.append(_text(_MARGIN, bottom + _AXIS + _NOTE_STEP * (number + 1), note, "note"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _scale(results: Results) -> _Scale:
    ratios = [row.goal for row in results.workloads]
    ratios += [cell.ratio for row in results.workloads for cell in row.clients if cell.name != _FLOOR]
    most = max([1.0, *(ratio for ratio in ratios if ratio is not None)])
    step = next(step for step in _steps() if most / step <= _MOST_TICKS)
    return _Scale(math.ceil(most / step) * step, step)


def _steps() -> Iterator[float]:
    """1, 2, 5, 10, 20, 50, …"""
    for number in itertools.count():
        yield (1.0, 2.0, 5.0)[number % 3] * 10 ** (number // 3)


def _columns(rows: tuple[Row, ...]) -> list[list[Row]]:
    """Share the panels out to two columns, in order, as even as they come."""
    drawn = [row for row in rows if _bars(row)]
    whole = sum(map(_height, drawn))
    columns: list[list[Row]] = [[], []]
    height = 0.0
    for row in drawn:
        columns[height + _height(row) / 2 > whole / 2].append(row)
        height += _height(row)
    return columns


def _bars(row: Row) -> list[Cell]:
    """The clients of a panel; aiohttp is the line at 1, unless it has failed."""
    able = (cell for cell in row.clients if cell.declined is None)
    return [cell for cell in able if cell.name != BASE or cell.failed is not None]


def _height(row: Row) -> float:
    return _PANEL_HEAD + _BAR_STEP * len(_bars(row)) + _PANEL_GAP


def _legend(y: float) -> list[str]:
    parts: list[str] = []
    x: float = _MARGIN
    for name, kind in (
        ("wirespeed", "ours"),
        ("other clients", "theirs"),
        ("bare floor: the least that uvloop and httptools could do, not a client", _FLOOR),
    ):
        parts.append(_bar(x, y - 9, 14, kind))
        parts.append(_text(x + 20, y, name))
        x += 44 + 6.2 * len(name)
    for name, kind in (("aiohttp", "base"), ("goal for wirespeed", "goal")):
        parts.append(_line(x + 4, y - 11, y + 2, kind))
        parts.append(_text(x + 14, y, name))
        x += 38 + 6.2 * len(name)
    return parts


def _draw_column(rows: list[Row], scale: _Scale, left: float, top: float) -> list[str]:
    if not rows:
        return []
    start, y = left + _LABEL, top
    parts: list[str] = []
    for row in rows:
        if any(cell.ratio is not None for cell in _bars(row)):
            first, last = y + _PANEL_HEAD - 4, y + _PANEL_HEAD + _BAR_STEP * len(_bars(row))
            parts += [_line(start + scale.length(tick), first, last, "grid") for tick in scale.ticks()]
            parts.append(_line(start + scale.length(1.0), first, last, "base"))
        parts += _draw_panel(row, scale, left, y)
        y += _height(row)
    for tick in scale.ticks():
        parts.append(_text(start + scale.length(tick), y + 2, f"{tick:g}", "tick muted"))
    parts.append(_text(start + _SPAN / 2, y + 18, "times less CPU than aiohttp", "tick muted"))
    return parts


def _draw_panel(row: Row, scale: _Scale, left: float, top: float) -> list[str]:
    start = left + _LABEL
    parts = [f'<text class="panel" x="{left:.1f}" y="{top + 10:.1f}">{escape(row.title)}{_goal(row)}</text>']
    for number, cell in enumerate(_bars(row)):
        y = top + _PANEL_HEAD + _BAR_STEP * number
        kind = {SUBJECT: "ours", _FLOOR: _FLOOR}.get(cell.name, "theirs")
        weight = " subject" if cell.name == SUBJECT else ""
        value = _value(row, cell, scale)
        length = 0.0 if cell.ratio is None else scale.length(cell.ratio)
        parts.append(_text(start - 6, y + 9, cell.title, f"name{weight}"))
        if length:
            parts.append(_bar(start, y, length, kind))
        if cell.name == SUBJECT and row.goal is not None:
            goal = scale.length(row.goal)
            parts.append(_line(start + goal, y - 2, y + _BAR + 2, "goal"))
            # Figures that would lie on the mark stand behind it.
            length = goal if length < goal < length + 8 + _LETTER * len(value) else length
        parts.append(_text(start + length + 5, y + 9, value, f"value{weight}"))
    return parts


def _goal(row: Row) -> str:
    if not goals(row):
        return ""
    verdict = {True: ": met", False: ": missed", None: ""}[row.goal_met]
    text = escape(f"goal {' and '.join(goals(row))}{verdict}")
    return f'<tspan class="muted" dx="8" font-weight="400">{text}</tspan>'


def _value(row: Row, cell: Cell, scale: _Scale) -> str:
    if cell.failed is not None:
        return f"failed: {cell.failed.partition(':')[0]}"
    values = []
    if cell.ratio is not None:
        values.append(f"{cell.ratio:.2f}x{' »' * (cell.ratio > scale.top)}")
    elif cell.cpu_us_per_request is not None:
        values.append(f"{cell.cpu_us_per_request:,.1f} µs")
    if row.memory_goal_mb is not None and cell.peak_memory_mb is not None:
        values.append(f"{cell.peak_memory_mb:,.0f} MB")
    return ", ".join(values)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    of_class = f' class="{kind}"' if kind else ""
    return f'<text{of_class} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _bar(x: float, y: float, length: float, kind: str) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{length:.1f}" height="{_BAR}" rx="1.5"/>'


def _line(x: float, top: float, bottom: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
