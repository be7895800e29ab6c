"""Epochs: the number by which a context tells this process from those that had its request queue before.

One for each channel, claimed at its first delivery and never again: what a channel delivers is in order, and whoever
follows on it claims later. Used by `worker.turns`.
"""

import asyncio

from interfaces.brokers import Channel
from interfaces.errors import TurnAbandoned
from worker.stores import ContextStore
from worker.stores.patience import while_store_is_away


class Epochs:
    """This process's epochs, by channel."""

    def __init__(self, store: ContextStore) -> None:
        self._store = store
        self._claimed: dict[Channel, asyncio.Future[int]] = {}

    def of(self, channel: Channel) -> "asyncio.Future[int]":
        """The epoch for what `channel` delivers.

        Not claimed when the channel opens: a waiting consumer may be promoted hours later, and its epoch must be higher
        than the one of the consumer it follows. Raises `TurnAbandoned` where the channel was lost before that.
        """
        epoch = self._claimed.get(channel)
        if epoch is None:
            self._forget_closed()
            epoch = self._claimed[channel] = asyncio.ensure_future(self._claim(channel))
        return epoch if epoch.done() else asyncio.shield(epoch)

    def close(self) -> None:
        """Ask for no more of them."""
        for epoch in self._claimed.values():
            epoch.cancel()  # one still asked for would be asked for for ever

    def _forget_closed(self) -> None:
        # Here, and not by weak references: one would be made and looked up in every turn.
        for channel, epoch in list(self._claimed.items()):
            if epoch.done() and not channel.is_open:
                del self._claimed[channel]

    async def _claim(self, channel: Channel) -> int:
        epoch = await while_store_is_away(self._store.claim)
        # This process may have slept between the delivery and the claim, and others may have finished the delivered
        # requests since: then the new epoch would be higher than theirs. A channel that is open after the claim rules
        # that out, because whoever follows on it claims later.
        if not await channel.verify():
            raise TurnAbandoned("the channel was lost before an epoch was claimed for it")
        return epoch
