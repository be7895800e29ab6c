"""Dramatiq on RabbitMQ by pika, run by its own worker in one process.

As its documentation has it: 8 threads a process (its default), prefetch of a small multiple of them, the broker's
channel of the thread for publishing, with `confirm_delivery=True`; acknowledged after the actor has returned.
"""

import json
import time
from typing import Any

import dramatiq
import pika
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from redis import Redis

from tests.bench.contenders import Task
from tests.bench.contenders.fills import TASK, queue_of
from tests.bench.work import reply_body, with_turn


class QuorumBroker(RabbitmqBroker):
    """Dramatiq leaves the queue type to the virtual host's default; here it is asked for."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


task = Task.from_environ()
broker = QuorumBroker(url=task.amqp_url, confirm_delivery=True)
dramatiq.set_broker(broker)
redis = Redis.from_url(task.redis_url)
PERSISTENT = pika.BasicProperties(delivery_mode=2)


@dramatiq.actor(actor_name=TASK, queue_name=queue_of(task))
def answer(ctx_id: str, text: str, reply_to: str) -> None:
    context = json.loads(redis.get(ctx_id) or "{}")
    if task.wait:
        time.sleep(task.wait)
    reply_text = with_turn(context, text)
    redis.set(ctx_id, json.dumps(context))
    broker.channel.basic_publish("", reply_to, reply_body(ctx_id, reply_text), PERSISTENT)
