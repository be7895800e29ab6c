"""Epochs: one for each channel, claimed once, and forgotten with it."""

import pytest

from interfaces.brokers import Channel
from interfaces.errors import TurnAbandoned
from worker.epochs import Epochs
from worker.stores import Retention
from worker.stores.memory import MemoryStore


class OneChannel:
    """As much of a channel as is asked of one for an epoch."""

    is_open = True

    async def verify(self) -> bool:
        return self.is_open


async def epochs() -> Epochs:
    store = MemoryStore(Retention())
    await store.open()
    return Epochs(store)


def channel() -> Channel:
    return OneChannel()  # type: ignore[return-value]


async def test_a_channel_has_one_epoch_and_a_later_one_a_higher() -> None:
    of, first, second = (await epochs()).of, channel(), channel()
    assert await of(first) == await of(first) < await of(second)


async def test_a_channel_that_is_closed_is_forgotten_when_the_next_one_comes() -> None:
    known, closed, there = await epochs(), channel(), channel()
    kept = await known.of(there)
    await known.of(closed)
    closed.is_open = False  # type: ignore[misc]
    await known.of(channel())
    assert closed not in known._claimed
    assert await known.of(there) == kept
    with pytest.raises(TurnAbandoned):
        await known.of(closed)
