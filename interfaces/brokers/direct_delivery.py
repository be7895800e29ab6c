"""Messages handed to their consumer as soon as their last frame is read, past aiormq's queue of frames.

aiormq puts each of a message's three frames into a queue of its channel, from which another task takes them, to make
another one for each message. Here something stands before that queue which takes one consumer's messages, whole from
`quick_reading` or in their frames, and lets everything else through. Nothing is overtaken that matters: after a channel
or its consumer is closed nothing comes for it any more. Where the library looks different nothing is done
(docs/decisions/0022). Used by the RabbitMQ broker.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from interfaces.brokers.quick_reading import AT_A_TIME, CONSUMER, Messages
from interfaces.brokers.whole_messages import Parts, parts_of

_Item = tuple[int, Any]


def deliver_directly(channel: AbstractChannel, deliver: Callable[[Parts], None]) -> bool:
    """Have what comes for the consumer `CONSUMER` of a channel handed to `deliver`, which must not raise.

    False where that cannot be arranged: then its consumer must have another tag.
    """
    with_frames: Any = channel
    queue = getattr(channel, "frames", None)
    if not isinstance(queue, asyncio.Queue):
        return False
    with_frames.frames = _Before(queue, channel, deliver)
    return True


class _Before:
    """What the connection's reader puts frames into, and the channel's reader takes them from."""

    def __init__(
        self,
        queue: "asyncio.Queue[_Item]",
        channel: AbstractChannel,
        deliver: Callable[[Parts], None],
    ) -> None:
        self._queue = queue
        self._channel = channel
        self._deliver = deliver
        self._kept: list[_Item] = []
        """Frames of the message that comes now: they follow each other on a channel (AMQP 0-9-1, 4.2.6)."""
        self._missing = 0
        self._delivered = 0
        self.get = queue.get
        self.task_done = queue.task_done

    async def put(self, item: _Item) -> None:
        """Take a frame."""
        frame = item[1]
        if type(frame) is Messages:
            for message in frame:
                self._deliver(message)
            await self._pause(len(frame))
        elif self._kept:
            await self._go_on(item)
        elif type(frame) is commands.Basic.Deliver and frame.consumer_tag == CONSUMER:
            self._kept.append(item)
        else:
            await self._queue.put(item)

    async def _go_on(self, item: _Item) -> None:
        kept, frame = self._kept, item[1]
        kept.append(item)
        if len(kept) == 2 and isinstance(frame, ContentHeader):
            self._missing = frame.body_size
        elif len(kept) > 2 and isinstance(frame, ContentBody):
            self._missing -= len(frame.value)
        else:  # It is the library's to say what is wrong.
            self._kept = []
            for each in kept:
                await self._queue.put(each)
            return
        if self._missing > 0:
            return
        self._kept = []
        (_, delivery), (_, header), *parts = kept
        body = parts[0][1].value if len(parts) == 1 else b"".join(part.value for _, part in parts)
        self._deliver(parts_of(DeliveredMessage(delivery=delivery, header=header, body=body, channel=self._channel)))
        await self._pause(1)

    async def _pause(self, delivered: int) -> None:
        self._delivered += delivered
        if self._delivered >= AT_A_TIME:
            self._delivered = 0
            await asyncio.sleep(0)
