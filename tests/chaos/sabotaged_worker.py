"""A worker with one of its safeguards switched off: `python -m tests.chaos.sabotaged_worker SAFEGUARD APP`.

The chaos suite must find each of them missing, else its verdict on the real worker would mean nothing. The safeguards
lie in the two seams, wrapped here, so the product holds nothing that could switch one off.
"""

import asyncio
import logging
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Any
from uuid import uuid4

from interfaces.brokers import rabbitmq
from interfaces.brokers.mapping import CONNECTION_LOST
from interfaces.brokers.rabbitmq import RabbitMQBroker, RabbitMQChannel
from worker.running import Worker
from worker.settings import Settings
from worker.stores import Loaded, Retention, Turn
from worker.stores.redis import RedisStore


class Safeguard(StrEnum):
    """What can be switched off."""

    FENCING = "fencing"
    DEDUPLICATION = "deduplication"
    HAND_OVER_BY_CLOSE = "hand-over-by-close"


class UnfencedStore(RedisStore):
    """Commits to whatever version it finds, and knows no epochs. Requests in the window are still deduplicated."""

    async def load(self, ctx_id: str, request_id: str, **more: Any) -> Loaded:
        return await super().load(ctx_id, request_id, **more | {"epoch": 1})

    async def commit(self, turn: Turn) -> bytes:
        found = await self.peek(turn.ctx_id, 1)
        version = found.version if found else 0
        (record,) = turn.turns.values()
        return await super().commit(replace(turn, version=version, turns={version + 1: record}))


class ForgetfulStore(RedisStore):
    """Never recognises a request. The fence still stands."""

    async def load(self, ctx_id: str, request_id: str, **more: Any) -> Loaded:
        return await super().load(ctx_id, str(uuid4()), **more)

    async def commit(self, turn: Turn) -> bytes:
        return await super().commit(replace(turn, request_id=str(uuid4())))


class CancellingChannel(RabbitMQChannel):
    """Gives its queue up as client libraries do: cancel, finish, hand back one by one, close."""

    async def close(self) -> None:
        if self.is_open:
            with suppress(*CONNECTION_LOST):
                for consumer in list(vars(self._channel)["consumers"]):
                    await self._channel.basic_cancel(consumer)
                await asyncio.sleep(0.5)
                await self._channel.basic_nack(0, multiple=True, requeue=True)
        await super().close()


async def main(safeguard: Safeguard, app: str) -> None:
    """Run the worker until SIGTERM."""
    settings = Settings()
    stores = {Safeguard.FENCING: UnfencedStore, Safeguard.DEDUPLICATION: ForgetfulStore}
    store = stores.get(safeguard, RedisStore)(
        settings.redis_url.get_secret_value(),
        settings.namespace,
        Retention(outbox=settings.outbox),
        timeout=settings.redis_timeout,
    )
    if safeguard is Safeguard.HAND_OVER_BY_CLOSE:
        vars(rabbitmq)["RabbitMQChannel"] = CancellingChannel
    broker = RabbitMQBroker(settings.amqp_url.get_secret_value(), publish_timeout=settings.publish_timeout)
    worker = Worker(app, settings, broker=broker, store=store)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(Safeguard(sys.argv[1]), sys.argv[2]))
