"""The least that a stateful answer takes: aio-pika on one quorum queue, GET and SET in Redis, then the reply.

A task for each message, replies with confirms, acknowledged after them: a server as aio-pika's RPC tutorial has it.
"""

import asyncio
import json

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from redis.asyncio import Redis

from tests.bench.contenders import Task
from tests.bench.work import reply_body, with_turn

PREFETCH = 64


async def main() -> None:
    task = Task.from_environ()
    connection = await aio_pika.connect(task.amqp_url)
    channel = await connection.channel(publisher_confirms=True)
    await channel.set_qos(prefetch_count=PREFETCH)
    redis = Redis.from_url(task.redis_url)

    async def answer(message: AbstractIncomingMessage) -> None:
        request = json.loads(message.body)
        ctx_id = request["ctx_id"]
        context = json.loads(await redis.get(f"rpc:{ctx_id}") or "{}")
        text = with_turn(context, request["message"]["text"])
        await redis.set(f"rpc:{ctx_id}", json.dumps(context))
        reply = aio_pika.Message(
            reply_body(ctx_id, text), message_id=message.message_id, correlation_id=message.correlation_id
        )
        await channel.default_exchange.publish(reply, message.reply_to or "")
        await message.ack()

    (name,) = task.queues
    await (await channel.get_queue(name, ensure=False)).consume(answer)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
