"""Which worker consumes which shard: a pure function of who lives and what each holds.

Every worker computes it for itself from the same list. Where two lists differ for a moment the load is uneven, and
nothing breaks: the broker decides who consumes. A shard moves only where balance needs it; which one moves, and where
to, is decided by rendezvous hashing (Thaler and Ravishankar, 1998) within a bounded load, so that all decide alike.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

Holdings = Mapping[str, Collection[str]]
"""Worker to shards."""


@dataclass(frozen=True, slots=True)
class Place:
    """Who is to consume a shard, and who waits to take it over at once."""

    primary: str
    standby: str | None


def rank(shards: Collection[str], consuming: Holdings, waiting: Holdings) -> dict[str, Place]:
    """The place of every shard among the workers that are the keys of `consuming`, at least one.

    `consuming` tells the shards each worker consumes now, `waiting` those it is standby for. With N shards and W
    workers every worker becomes primary of floor(N / W) or ceil(N / W) of them. Only shards move whose worker is gone,
    to its standby where that has room, or has more than its share.
    """
    primary = _Spread(shards, consuming, waiting, excluded={}).placed
    standby = _Spread(shards, {worker: waiting.get(worker, ()) for worker in consuming}, {}, excluded=primary).placed
    return {shard: Place(worker, standby.get(shard)) for shard, worker in primary.items()}


class _Spread:
    """A worker for each shard in `placed`, any but the `excluded` one; none for a shard where there is no other."""

    def __init__(
        self, shards: Collection[str], claims: Holdings, next_in_line: Holdings, *, excluded: Mapping[str, str]
    ) -> None:
        self._next_in_line = next_in_line
        self._excluded = excluded
        self.placed: dict[str, str] = {}
        kept = _undisputed(shards, claims, excluded)
        share, over = divmod(len(shards), len(claims))
        # Who has most keeps the shards that cannot be shared out evenly: fewer move.
        by_load = sorted(claims, key=lambda worker: (-len(kept[worker]), worker))
        self._room = {worker: share + (place < over) for place, worker in enumerate(by_load)}
        for worker in claims:
            for shard in sorted(kept[worker], key=lambda shard: -_weight(worker, shard))[: self._room[worker]]:
                self._give(shard, worker)
        for shard in sorted(set(shards) - self.placed.keys()):
            if others := [worker for worker in claims if worker != excluded.get(shard)]:
                self._give(shard, self._choose(shard, others))

    def _give(self, shard: str, worker: str) -> None:
        self.placed[shard] = worker
        self._room[worker] -= 1

    def _choose(self, shard: str, others: Sequence[str]) -> str:
        """One of `others` for `shard`: who has room, is next in line, weighs most, in this order."""

        def preference(worker: str) -> tuple[bool, bool, int]:
            return self._room[worker] > 0, shard in self._next_in_line.get(worker, ()), _weight(worker, shard)

        best = max(others, key=preference)
        return best if self._room[best] > 0 else self._swapped(self._excluded[shard]) or best

    def _swapped(self, free: str) -> str | None:
        """Let `free`, the only one with room, take a shard from another; who that is, and has room now."""
        swaps = [
            shard for shard in sorted(self.placed) if self.placed[shard] != free and self._excluded.get(shard) != free
        ]
        if not swaps:
            return None
        swap = max(swaps, key=lambda shard: _weight(free, shard))
        worker = self.placed[swap]
        self._room[worker] += 1
        self._give(swap, free)
        return worker


def _undisputed(shards: Iterable[str], claims: Holdings, excluded: Mapping[str, str]) -> dict[str, list[str]]:
    """What each worker holds, a shard that several say they hold given to the one it weighs most for."""
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for worker, held in claims.items():
        for shard in held:
            if worker != excluded.get(shard):
                holders[shard].append(worker)
    kept: defaultdict[str, list[str]] = defaultdict(list)
    for shard in shards:
        if holders[shard]:
            kept[max(holders[shard], key=lambda worker: _weight(worker, shard))].append(shard)
    return kept


def _weight(worker: str, shard: str) -> int:
    return int.from_bytes(blake2b(f"{worker}\0{shard}".encode(), digest_size=8).digest())
