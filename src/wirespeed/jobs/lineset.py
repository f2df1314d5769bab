"""Which lines of the input are done: a bit for each."""

from collections.abc import Iterator


class LineSet:
    """A set of line numbers, in as many bits as the highest of them; picklable.

    Ranges would be smaller while lines are done about in their order, but not where shards take every third
    line: 12.5 MB for a hundred million lines hold in any case.
    """

    __slots__ = ("_bits", "_count")

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def add(self, number: int) -> bool:
        """Add a number from 0. Returns false where it is in already."""
        place, bit = number >> 3, 1 << (number & 7)
        bits = self._bits
        if place >= len(bits):
            # In steps of an eighth, so that growing by one line at a time costs little.
            bits.extend(bytes(place + 1 - len(bits) + (place >> 3)))
        if bits[place] & bit:
            return False
        bits[place] |= bit
        self._count += 1
        return True

    def __contains__(self, number: int) -> bool:
        place = number >> 3
        return place < len(self._bits) and bool(self._bits[place] & 1 << (number & 7))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for place, byte in enumerate(self._bits):
            if byte:
                yield from (8 * place + bit for bit in range(8) if byte & 1 << bit)

    def __repr__(self) -> str:
        return f"<LineSet of {self._count}>"
