"""taskiq on RabbitMQ by taskiq-aio-pika, run by its own worker in one process.

As its documentation has it: an async task, state made at worker startup, `qos` raised above what the worker runs at
a time (`--max-async-tasks`), `--ack-type when_executed` and `--no-parse` where nothing is to be validated.
"""

import asyncio
import json

import aio_pika
from aio_pika.abc import AbstractChannel
from redis.asyncio import Redis
from taskiq import TaskiqEvents, TaskiqState
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

from tests.bench.contenders import Task
from tests.bench.contenders.fills import TASK, queue_of
from tests.bench.work import reply_body, with_turn

PREFETCH = 1024

task = Task.from_environ()
queue = Queue(name=queue_of(task), declare=False)
broker = AioPikaBroker(
    task.amqp_url,
    qos=PREFETCH,
    exchange=Exchange(name="amq.topic", declare=False),
    task_queues=[queue],
    dead_letter_queue=queue,
)
redis = Redis.from_url(task.redis_url, max_connections=PREFETCH)
publishing: AbstractChannel


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def connect(_: TaskiqState) -> None:
    global publishing  # noqa: PLW0603
    connection = await aio_pika.connect(task.amqp_url)
    publishing = await connection.channel(publisher_confirms=True)


@broker.task(task_name=TASK)
async def answer(ctx_id: str, text: str, reply_to: str) -> None:
    context = json.loads(await redis.get(ctx_id) or "{}")
    if task.wait:
        await asyncio.sleep(task.wait)
    reply_text = with_turn(context, text)
    await redis.set(ctx_id, json.dumps(context))
    await publishing.default_exchange.publish(
        aio_pika.Message(reply_body(ctx_id, reply_text), delivery_mode=2), reply_to
    )
