"""A worker process that kills itself at one point of one turn: `python -m tests.services.faulty_worker APP WHERE ID`.

The points lie in the two seams, wrapped here, so the product holds nothing that could be set off outside tests. The
kill is SIGKILL: nothing is flushed, closed or cleaned up. Settings come from the environment, as those of the command.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum

from interfaces.brokers import Outgoing
from interfaces.brokers.rabbitmq import RabbitMQBroker
from worker.running import Worker
from worker.settings import Settings
from worker.stores import Retention, Turn
from worker.stores.redis import RedisStore


class Where(StrEnum):
    """Points of a turn at which the process can die."""

    BEFORE_COMMIT = "before-commit"
    BETWEEN_COMMIT_AND_PUBLISH = "between-commit-and-publish"
    BETWEEN_PUBLISH_AND_ACK = "between-publish-and-ack"


Reached = Callable[[Where, str | None], None]


class MortalStore(RedisStore):
    """Reports each commit before Redis hears of it."""

    reached: Reached

    async def commit(self, turn: Turn) -> bytes:
        """Commit a turn."""
        self.reached(Where.BEFORE_COMMIT, turn.request_id)
        return await super().commit(turn)


class MortalBroker(RabbitMQBroker):
    """Reports each reply before it is published and once it is confirmed."""

    reached: Reached

    async def publish(self, message: Outgoing) -> None:
        """Publish a message."""
        self.reached(Where.BETWEEN_COMMIT_AND_PUBLISH, message.properties.correlation_id)
        await super().publish(message)
        self.reached(Where.BETWEEN_PUBLISH_AND_ACK, message.properties.correlation_id)


async def main(app: str, deadly_point: Where, deadly_request: str) -> None:
    """Run the worker until it dies."""

    def reached(where: Where, request_id: str | None) -> None:
        if (where, request_id) == (deadly_point, deadly_request):
            os.kill(os.getpid(), signal.SIGKILL)

    settings = Settings()
    store = MortalStore(settings.redis_url.get_secret_value(), settings.namespace, Retention())
    broker = MortalBroker(settings.amqp_url.get_secret_value())
    store.reached = broker.reached = reached
    await Worker(app, settings, broker=broker, store=store).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main(sys.argv[1], Where(sys.argv[2]), sys.argv[3]))
