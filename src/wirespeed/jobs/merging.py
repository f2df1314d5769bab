"""The records of many parts, as one stream without repetition."""

import contextlib
import heapq
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from .lineset import LineSet
from .parts import records
from .records import number_of

OPEN_MAX = 128
"""Parts that are open at the same time: half of the smallest usual limit of open files."""


def merged(parts: Sequence[Path], *, ordered: bool = False) -> Iterator[bytes]:
    """The records of parts, each line's once: a shard that was taken for lost may have been written twice.

    Args:
        parts: the parts, recovered.
        ordered: by line number; each part is in that order.
    """
    seen = LineSet()
    for raw in _by_number(parts) if ordered else chain.from_iterable(map(records, parts)):
        if seen.add(number_of(raw)):
            yield raw


def repeats(part: Path) -> bool:
    """Whether a part has more than one record of a line."""
    seen = LineSet()
    with contextlib.closing(records(part)) as stream:
        return not all(seen.add(number_of(raw)) for raw in stream)


def _by_number(parts: Sequence[Path]) -> Iterator[bytes]:
    """Merge parts, by way of files of their own where there are too many to be open at once."""
    made: list[Path] = []
    try:
        while len(parts) > OPEN_MAX:
            group, rest = parts[:OPEN_MAX], parts[OPEN_MAX:]
            longer = group[0].with_name(f"merged-{len(made):05d}.ndjson")
            made.append(longer)
            with open(longer, "wb") as file:
                file.writelines(_merge(group))
            parts = [*rest, longer]
        yield from _merge(parts)
    finally:
        for path in made:
            path.unlink(missing_ok=True)


def _merge(parts: Sequence[Path]) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(contextlib.closing(records(part))) for part in parts]
        yield from heapq.merge(*streams, key=number_of)
