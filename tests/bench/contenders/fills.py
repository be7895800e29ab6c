"""Requests for the contenders that read only envelopes of their own; making one needs no contender installed.

Each fills one quorum queue, declared as its contender expects it; where to reply is inside the envelope.
"""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import aiormq
from pamqp.commands import Basic

from tests.bench.contenders import Task
from tests.bench.place import PUBLISHED_AT_ONCE, Place
from tests.bench.work import Work

TASK = "answer"
"""What the contenders call the task, whose arguments are context id, text and where to reply."""

Envelope = tuple[bytes, Basic.Properties]


def queue_of(task: Task) -> str:
    """The one queue of such a contender."""
    return f"{task.queues[0].split('.requests.')[0]}.tasks"


async def taskiq(place: Place, work: Work) -> None:
    """For taskiq's JSON serializer; headers are only informative."""

    def envelope(arguments: list[str]) -> Envelope:
        message = {"task_id": uuid4().hex, "task_name": TASK, "labels": {}, "labels_types": {}}
        return _encoded({**message, "args": arguments, "kwargs": {}}), Basic.Properties(delivery_mode=2)

    await _fill(place, work, envelope, {})


async def dramatiq(place: Place, work: Work) -> None:
    """For dramatiq's JSON encoder; its queues have a dead letter queue by their name."""
    queue = f"{place.topology.namespace}.tasks"

    def envelope(arguments: list[str]) -> Envelope:
        message = {"queue_name": queue, "actor_name": TASK, "args": arguments, "kwargs": {}, "options": {}}
        identity = {"message_id": str(uuid4()), "message_timestamp": int(time.time() * 1000)}
        return _encoded({**message, **identity}), Basic.Properties(delivery_mode=2)

    await _fill(place, work, envelope, {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue}.XQ"})


async def celery(place: Place, work: Work) -> None:
    """For Celery's message protocol 2: the task in the headers, the arguments in the body."""
    rest = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    headers: dict[str, Any] = {
        "lang": "py",
        "task": TASK,
        "retries": 0,
        "timelimit": [None, None],
        "eta": None,
        "expires": None,
    }

    def envelope(arguments: list[str]) -> Envelope:
        identity = uuid4().hex
        properties = Basic.Properties(
            content_type="application/json",
            content_encoding="utf-8",
            correlation_id=identity,
            delivery_mode=2,
            headers={**headers, "id": identity, "root_id": identity, "parent_id": None, "group": None},
        )
        return _encoded([arguments, {}, rest]), properties

    await _fill(place, work, envelope, {})


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


async def _fill(
    place: Place, work: Work, envelope: Callable[[list[str]], Envelope], queue_arguments: dict[str, Any]
) -> None:
    queue = f"{place.topology.namespace}.tasks"
    async with aiormq.Connection(place.broker.url) as connection:
        channel = await connection.channel()
        await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum", **queue_arguments})
        limit = asyncio.Semaphore(PUBLISHED_AT_ONCE)

        async def publish(body: bytes, properties: Basic.Properties) -> None:
            async with limit:
                await channel.basic_publish(body, routing_key=queue, properties=properties)

        async with asyncio.TaskGroup() as publishing:
            for ctx_id, text in work:
                publishing.create_task(publish(*envelope([ctx_id, text, place.replies])))
