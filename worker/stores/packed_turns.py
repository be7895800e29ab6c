"""Turns one after another in one piece of memory, as Redis packs them for a load.

What most turns of a bot never look at is one object to receive, to keep and to drop, in place of ten.
"""

from collections.abc import Iterator, Mapping

_MISSING = (-1).to_bytes(4, "little", signed=True)


def moved(count: int, packed: bytes, turn: bytes, most: int) -> tuple[int, bytes]:
    """So many packed turns with the next one, `most` in all: the oldest go. How many there are then, and they."""
    begin = 0
    while count >= most:
        length = packed[begin : begin + 4]
        begin += 4 if length == _MISSING else 4 + int.from_bytes(length, "little")
        count -= 1
    return count + 1, packed[begin:] + len(turn).to_bytes(4, "little") + turn


class PackedTurns(Mapping[int, bytes]):
    """`count` turns up to number `last`, each behind its length in four bytes; -1 stands for one that is missing.

    They are unpacked when one of them is asked for.
    """

    __slots__ = ("_count", "_last", "_packed", "_unpacked")

    def __init__(self, last: int, count: int, packed: bytes) -> None:
        self._last = last
        self._count = count
        self._packed = packed
        self._unpacked: dict[int, bytes] | None = None

    def __getitem__(self, number: int) -> bytes:
        return self._turns()[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._turns())

    def __len__(self) -> int:
        return len(self._turns())

    def _turns(self) -> dict[int, bytes]:
        if self._unpacked is None:
            packed, begin, turns = self._packed, 0, {}
            for number in range(self._last - self._count + 1, self._last + 1):
                length, begin = packed[begin : begin + 4], begin + 4
                if length != _MISSING:
                    end = begin + int.from_bytes(length, "little")
                    turns[number], begin = packed[begin:end], end
            self._unpacked = turns
        return self._unpacked
