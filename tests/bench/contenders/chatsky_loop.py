"""Chatsky's own way: its Redis storage, and a polling interface on plain aio-pika.

Chatsky's guide has `context_storage_factory("redis://...")` and a `PollingMessengerInterface` with `_request` and
`_respond`, whose loop runs the pipeline for one request after another. Both methods are synchronous, so waiting for
requests, confirms and acknowledgements is put around a cycle.
"""

import asyncio
import json
from collections import deque
from collections.abc import Hashable
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from chatsky import Context, Message, Pipeline
from chatsky.context_storages import context_storage_factory
from chatsky.messengers.common.interface import PollingMessengerInterface

from tests.bench.contenders import Task
from tests.bench.work import reply_body
from tests.bots.benchmark_chatsky import SCRIPT, START

PREFETCH = 32


class Polling(PollingMessengerInterface):
    """Takes what has arrived, answers it in order, acknowledges it after the confirms."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.arrived: deque[AbstractIncomingMessage] = deque()
        self.some_arrived = asyncio.Event()
        self.taken: list[AbstractIncomingMessage] = []
        self.answering: list[asyncio.Task[None]] = []
        self.publishing: AbstractChannel

    async def connect(self, *args: Any, **options: Any) -> None:
        connection = await aio_pika.connect(self.task.amqp_url)
        self.publishing = await connection.channel(publisher_confirms=True)
        for name in self.task.queues:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            await (await channel.get_queue(name, ensure=False)).consume(self.arrive)
        await super().connect(*args, **options)

    async def arrive(self, message: AbstractIncomingMessage) -> None:
        self.arrived.append(message)
        self.some_arrived.set()

    async def _polling_loop(self, *args: Any, **options: Any) -> None:
        await self.some_arrived.wait()
        await super()._polling_loop(*args, **options)
        await asyncio.gather(*self.answering)

    def _request(self) -> list[tuple[Message, Hashable]]:
        self.taken = list(self.arrived)
        self.arrived.clear()
        self.some_arrived.clear()
        requests = [json.loads(message.body) for message in self.taken]
        return [(Message(text=request["message"]["text"]), request["ctx_id"]) for request in requests]

    def _respond(self, responses: list[Context]) -> None:
        pairs = zip(self.taken, responses, strict=True)
        self.answering = [asyncio.create_task(self.answer(message, context)) for message, context in pairs]

    async def answer(self, message: AbstractIncomingMessage, context: Context) -> None:
        reply = aio_pika.Message(
            reply_body(context.id, context.last_response.text),
            message_id=message.message_id,
            correlation_id=message.message_id,
            delivery_mode=2,
        )
        await self.publishing.default_exchange.publish(reply, message.reply_to or "")
        await message.ack()


def main() -> None:
    task = Task.from_environ()
    storage = context_storage_factory(task.redis_url)
    Pipeline(SCRIPT, START, messenger_interface=Polling(task), context_storage=storage).run()


if __name__ == "__main__":
    main()
