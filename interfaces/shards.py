"""The request queues one interface consumes, taken up and handed over one by one while it runs.

A queue is handed over by closing its channel, after the turns that run on it are finished and settled: what was not
started goes back to the head in order, and the broker lets the next consumer begin (docs/decisions/0003). Nothing here
decides which queues; that is whoever calls `want`.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import Any

from interfaces.brokers import Channel
from interfaces.consumers import KeptConsumer
from interfaces.telemetry import Telemetry

logger = logging.getLogger(__name__)


class Shards:
    """Consumers by queue. `failed` carries the error of one that cannot go on.

    :param keep: makes the consumer of a queue.
    :param drain_timeout: seconds that running turns have to finish when their queue is handed over; one that takes
        longer goes on, but its request is delivered again elsewhere and only one of the two can commit.
    """

    def __init__(
        self, keep: Callable[[str], KeptConsumer], drain_timeout: float, telemetry: Telemetry | None = None
    ) -> None:
        self._metrics = (telemetry or Telemetry()).metrics
        self._keep = keep
        self._drain_timeout = drain_timeout
        self._kept: dict[str, KeptConsumer] = {}
        self._consuming: dict[str, asyncio.Task[None]] = {}
        self._releasing: dict[str, asyncio.Task[None]] = {}
        self._reopening: dict[Channel, asyncio.Task[None]] = {}
        self._turns: defaultdict[str, set[asyncio.Task[Any]]] = defaultdict(set)
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def want(self, queues: Collection[str]) -> None:
        """Consume these queues and hand over all others. Returns at once; a queue still on its way out comes later."""
        for queue in set(queues) - self._kept.keys():
            self._kept[queue] = self._keep(queue)
            task = asyncio.create_task(self._kept[queue].run(), name=f"consume {queue}")
            self._consuming[queue] = task
            task.add_done_callback(self._on_ended)
        for queue in self._kept.keys() - set(queues) - self._releasing.keys():
            self._releasing[queue] = asyncio.create_task(self._release(queue), name=f"hand over {queue}")

    def __len__(self) -> int:
        """Queues wanted, and those on their way out."""
        return len(self._kept)

    @property
    def consumed(self) -> list[str]:
        """Queues with an open consumer, active or waiting, that are not being handed over."""
        return sorted(queue for queue, kept in self._kept.items() if kept.is_open and queue not in self._releasing)

    @property
    def is_complete(self) -> bool:
        """Whether every queue wanted now has its open consumer, active or waiting."""
        return all(kept.is_open for queue, kept in self._kept.items() if queue not in self._releasing)

    @property
    def delivering(self) -> set[str]:
        """Those of them that have delivered something: the broker has made this their active consumer."""
        return {queue for queue, kept in self._kept.items() if kept.is_delivering and queue not in self._releasing}

    @property
    def unsettled(self) -> dict[str, list[float]]:
        """By queue, where there are any: event loop time of each unacknowledged delivery, the oldest first."""
        return {queue: times for queue, kept in self._kept.items() if (times := kept.unsettled)}

    def are_settled(self, seconds: float) -> bool:
        """Whether every queue has its consumer, and for so long where it was lost before."""
        return all(kept.is_settled(seconds) for kept in self._kept.values())

    def may_start(self, channel: Channel) -> bool:
        """Whether a turn may still begin for what this channel delivered; otherwise that comes again elsewhere."""
        return self.may_run(channel) and channel not in self._reopening

    def may_run(self, channel: Channel) -> bool:
        """Whether a bot may still begin in a turn that has: a channel that is reopened waits for those."""
        return channel.is_open and channel.queue not in self._releasing

    def hold(self, channel: Channel) -> "asyncio.Task[Any]":
        """Hold the channel's queue for the turn in the current task, which is returned."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - turns are in lanes, which are tasks
        self._turns[channel.queue].add(task)
        return task

    def let_go(self, channel: Channel, task: "asyncio.Task[Any]") -> None:
        """Hold it no more, as the turn has ended."""
        self._turns[channel.queue].discard(task)

    def reopen(self, channel: Channel) -> None:
        """Let this channel's turns finish, then close it, so that its queue is consumed on a new one.

        Returns at once; what is not settled then comes again, in order, here or where the queue goes meanwhile.
        """
        if self.may_start(channel):
            task = asyncio.create_task(self._reopen(channel), name=f"reopen {channel.queue}")
            self._reopening[channel] = task

    async def wait_consuming(self) -> None:
        """Return once every queue wanted now has been consumed."""
        await asyncio.gather(*(kept.wait_consuming() for kept in list(self._kept.values())))

    async def close(self) -> None:
        """Close every channel at once, for an interface that has drained its turns itself."""
        tasks = (*self._releasing.values(), *self._reopening.values(), *self._consuming.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reopen(self, channel: Channel) -> None:
        try:
            if running := self._turns[channel.queue]:
                await asyncio.wait(running, timeout=self._drain_timeout)
        finally:
            await channel.close()
            del self._reopening[channel]

    async def _release(self, queue: str) -> None:
        try:
            if running := self._turns[queue]:
                await asyncio.wait(running, timeout=self._drain_timeout)
        finally:
            consuming = self._consuming.pop(queue)
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
            del self._kept[queue], self._releasing[queue]
            self._metrics.hand_overs_total += 1

    def _on_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)
