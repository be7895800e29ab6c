"""Celery on RabbitMQ by py-amqp, run by its own worker in one process.

As its documentation has it: `task_acks_late`, a large `worker_prefetch_multiplier` for many short tasks, no results,
a `broker_pool_limit` not below the threads, quorum queues detected so that QoS is not global, `confirm_publish`, and
neither gossip, mingle nor heartbeat.
"""

import json
import time

from celery import Celery
from kombu import Exchange, Queue
from redis import Redis

from tests.bench.contenders import Task
from tests.bench.contenders.fills import TASK, queue_of
from tests.bench.work import reply_body, with_turn

task = Task.from_environ()
name = queue_of(task)
app = Celery("celery_", broker=task.amqp_url)
app.conf.update(
    task_queues=[
        Queue(name, Exchange(""), routing_key=name, queue_arguments={"x-queue-type": "quorum"}, no_declare=True)
    ],
    task_default_queue=name,
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    worker_detect_quorum_queues=True,
    broker_native_delayed_delivery_queue_type="classic",
    broker_pool_limit=64,
    broker_transport_options={"confirm_publish": True},
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
)
redis = Redis.from_url(task.redis_url)


@app.task(name=TASK)
def answer(ctx_id: str, text: str, reply_to: str) -> None:
    context = json.loads(redis.get(ctx_id) or "{}")
    if task.wait:
        time.sleep(task.wait)
    reply_text = with_turn(context, text)
    redis.set(ctx_id, json.dumps(context))
    with app.producer_pool.acquire(block=True) as producer:
        producer.publish(
            reply_body(ctx_id, reply_text),
            routing_key=reply_to,
            delivery_mode=2,
            content_type="application/json",
            content_encoding="utf-8",
        )
