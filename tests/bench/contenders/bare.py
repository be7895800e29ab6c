"""The ceiling: aio-pika as fast as it goes by its public interface, without any state.

What has arrived is answered by one gather of publishes with confirms, then acknowledged at once ("multiple").
"""

import asyncio
import json

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

from tests.bench.contenders import Task
from tests.bench.work import answer_to, reply_body

PREFETCH = 1000


async def main() -> None:
    task = Task.from_environ()
    connection = await aio_pika.connect(task.amqp_url)
    publishing = await connection.channel(publisher_confirms=True)
    await asyncio.gather(*(serve(connection, publishing, queue) for queue in task.queues))


async def serve(
    connection: aio_pika.abc.AbstractConnection, publishing: aio_pika.abc.AbstractChannel, name: str
) -> None:
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
    await (await channel.get_queue(name, ensure=False)).consume(arrived.put)

    async def answer(message: AbstractIncomingMessage) -> None:
        request = json.loads(message.body)
        body = reply_body(request["ctx_id"], answer_to(request["message"]["text"], 0))
        reply = aio_pika.Message(
            body, message_id=message.message_id, correlation_id=message.message_id, delivery_mode=2
        )
        await publishing.default_exchange.publish(reply, message.reply_to or "")

    while True:
        batch = [await arrived.get()]
        while not arrived.empty():
            batch.append(arrived.get_nowait())
        await asyncio.gather(*map(answer, batch))
        await batch[-1].ack(multiple=True)


if __name__ == "__main__":
    asyncio.run(main())
