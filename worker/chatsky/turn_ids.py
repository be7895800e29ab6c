"""`TurnIds`: which turns of a dialog have an item, kept as ranges.

Chatsky keeps a set and sorts it at every look at the last item, so its turns cost more the longer the dialog is. A
dialog without gaps is one range here, however long.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import overload


class TurnIds(Sequence[int]):
    """A sorted set of turn ids, from 0, in place of Chatsky's set of keys.

    Everything costs as much as there are ranges, except to go through the ids, which no Python code does.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges = [range(first, last + 1) for first, last in ranges]

    @classmethod
    def of(cls, ids: Iterable[int]) -> "TurnIds":
        """Those of `ids`, in any order."""
        turn_ids = cls()
        for turn_id in ids:
            turn_ids.add(turn_id)
        return turn_ids

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First and last id of each range, in order: what the constructor takes."""
        return [(ids[0], ids[-1]) for ids in self._ranges]

    def copy(self) -> "TurnIds":
        """The ids as they are now."""
        return TurnIds(self.ranges)

    def add(self, turn_id: int) -> None:
        """Add an id; nothing happens where it is there."""
        if turn_id in self:
            return
        place = bisect_right(self._ranges, turn_id, key=lambda ids: ids[0])
        first = last = turn_id
        if place < len(self._ranges) and self._ranges[place][0] == turn_id + 1:
            last = self._ranges.pop(place)[-1]
        if place and self._ranges[place - 1][-1] == turn_id - 1:
            place -= 1
            first = self._ranges.pop(place)[0]
        self._ranges.insert(place, range(first, last + 1))

    def discard(self, turn_id: int) -> None:
        """Remove an id; nothing happens where it is not there."""
        place = bisect_right(self._ranges, turn_id, key=lambda ids: ids[0]) - 1
        if place < 0 or turn_id not in self._ranges[place]:
            return
        ids = self._ranges[place]
        parts = range(ids[0], turn_id), range(turn_id + 1, ids[-1] + 1)
        self._ranges[place : place + 1] = [part for part in parts if part]

    def drop_below(self, turn_id: int) -> None:
        """Remove all ids before `turn_id`."""
        kept = (range(max(ids[0], turn_id), ids[-1] + 1) for ids in self._ranges)
        self._ranges = [ids for ids in kept if ids]

    def __contains__(self, turn_id: object) -> bool:
        if not isinstance(turn_id, int):
            return False
        place = bisect_right(self._ranges, turn_id, key=lambda ids: ids[0]) - 1
        return place >= 0 and turn_id in self._ranges[place]

    def __len__(self) -> int:
        return sum(map(len, self._ranges))

    def __iter__(self) -> Iterator[int]:
        return chain.from_iterable(self._ranges)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = index if index >= 0 else index + len(self)
        for ids in self._ranges:
            if 0 <= place < len(ids):
                return ids[place]
            place -= len(ids)
        raise IndexError(f"turn ids: there are {len(self)}, asked for number {index}")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TurnIds):
            return self._ranges == other._ranges
        return isinstance(other, list) and list(self) == other

    __hash__ = None  # type: ignore[assignment]  # it changes, as a set does

    def __repr__(self) -> str:
        return f"TurnIds({self.ranges})"
