"""FastStream: a subscriber for each queue, answering by its own reply to `reply_to`.

As its documentation recommends for speed and safety: a `Channel(prefetch_count=...)` for each subscriber (unlimited
concurrency within it), `apply_types=False` where nothing is injected or validated, no logger, confirms by default,
`AckPolicy.NACK_ON_ERROR`, which acknowledges after the reply is published.
"""

import asyncio
import json
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue, RabbitResponse
from redis.asyncio import Redis

from tests.bench.contenders import Task
from tests.bench.work import reply_body, with_turn

PREFETCH = 256


async def main() -> None:
    task = Task.from_environ()
    broker = RabbitBroker(task.amqp_url, apply_types=False, logger=None, ack_policy=AckPolicy.NACK_ON_ERROR)
    redis = Redis.from_url(task.redis_url, max_connections=1100)

    async def answer(request: dict[str, Any]) -> RabbitResponse:
        ctx_id, text = request["ctx_id"], request["message"]["text"]
        context = json.loads(await redis.get(ctx_id) or "{}")
        if task.wait:
            await asyncio.sleep(task.wait)
        reply_text = with_turn(context, text)
        await redis.set(ctx_id, json.dumps(context))
        return RabbitResponse(reply_body(ctx_id, reply_text), content_type="application/json", persist=True)

    for name in task.queues:
        broker.subscriber(RabbitQueue(name, declare=False), channel=Channel(prefetch_count=PREFETCH))(answer)
    await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    asyncio.run(main())
