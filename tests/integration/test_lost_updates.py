"""Fifty messages to one context at once, four workers: every one of them is in the context afterwards, and once.

A bot that reads, adds one and writes loses updates wherever two turns of a context overlap. Chatsky's own storage in
four processes loses some (docs/chatsky.md, which `make chatsky-comparison` measures).
"""

import asyncio
import json

import pytest

from interfaces.client import BrokerClient
from tests.integration.conftest import StartWorker
from worker.records import MainRecord, read_turn
from worker.stores.redis import RedisStore

MESSAGES = 50
WORKERS = 4


@pytest.mark.parametrize("app", ["tests.bots.counting:answer", "tests.bots.chatsky_counting:pipeline"])
async def test_of_fifty_messages_at_once_none_is_lost(
    app: str, client: BrokerClient, store: RedisStore, start_worker: StartWorker
) -> None:
    workers = await asyncio.gather(*(start_worker(app) for _ in range(WORKERS)))
    await asyncio.gather(*(worker.ready() for worker in workers))
    texts = [f"message {number}" for number in range(MESSAGES)]

    replies = await asyncio.gather(*(client.ask(text, "ada") for text in texts))

    assert [reply.turn for reply in replies] == list(range(1, MESSAGES + 1))
    loaded = await store.peek("ada", MESSAGES)
    assert loaded is not None
    assert loaded.main is not None
    assert loaded.version == MESSAGES
    misc = MainRecord.model_validate_json(loaded.main).misc
    assert misc in ({"applied": texts}, {"turns": MESSAGES}), json.dumps(misc)
    requests = [read_turn(turn).request for _, turn in sorted(loaded.turns.items())]
    assert [request.text if request else None for request in requests] == texts
