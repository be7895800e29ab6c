"""What one writes by hand: aio-pika and redis, a task per message, GET and SET of the context as one JSON value."""

import asyncio
import json

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from redis.asyncio import Redis

from tests.bench.contenders import Task
from tests.bench.work import reply_body, with_turn

PREFETCH = 256


async def main() -> None:
    task = Task.from_environ()
    connection = await aio_pika.connect(task.amqp_url)
    publishing = await connection.channel(publisher_confirms=True)
    redis = Redis.from_url(task.redis_url, max_connections=1000)

    async def answer(message: AbstractIncomingMessage) -> None:
        request = json.loads(message.body)
        ctx_id, text = request["ctx_id"], request["message"]["text"]
        context = json.loads(await redis.get(ctx_id) or "{}")
        if task.wait:
            await asyncio.sleep(task.wait)
        reply_text = with_turn(context, text)
        await redis.set(ctx_id, json.dumps(context))
        reply = aio_pika.Message(
            reply_body(ctx_id, reply_text),
            message_id=message.message_id,
            correlation_id=message.message_id,
            delivery_mode=2,
        )
        await publishing.default_exchange.publish(reply, message.reply_to or "")
        await message.ack()

    for name in task.queues:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        await (await channel.get_queue(name, ensure=False)).consume(answer)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
