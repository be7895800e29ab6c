"""Replays dialogs of the corpus as a client process of its own: `python -m tests.bots.corpus_client URL NAMESPACE MODE
LANGUAGE...`.

MODE is `reply-by-reply`, or `bursts`: all of a dialog's messages are sent before any reply is awaited. It prints one
JSON object: how many dialogs and turns, the seconds, and every reply that was wrong.
"""

import asyncio
import json
import sys
import time

from interfaces.client import BrokerClient
from interfaces.reply_bodies import Reply
from tests.bots.corpus import Dialog, read_language

DIALOGS_AT_A_TIME = 100
REPLY_SECONDS = 60


def fault(dialog: Dialog, turn: int, reply: Reply) -> str | None:
    """What is wrong with the reply to a turn (from 1), `None` where nothing is."""
    expected = ("ok", turn, dialog.turns[turn - 1][1], {"position": 2 * turn})
    found = (reply.status, reply.turn, reply.message.text if reply.message else None, reply.misc)
    return None if found == expected else f"{dialog.ctx_id} turn {turn}: {found} instead of {expected}"


async def replay(client: BrokerClient, dialog: Dialog, *, burst: bool) -> list[str | None]:
    """Say the user's part of a dialog; the fault of each reply."""
    if burst:
        asked = (client.ask(text, dialog.ctx_id, timeout=REPLY_SECONDS) for text, _ in dialog.turns)
        replies = await asyncio.gather(*asked)
    else:
        replies = [await client.ask(text, dialog.ctx_id, timeout=REPLY_SECONDS) for text, _ in dialog.turns]
    return [fault(dialog, turn, reply) for turn, reply in enumerate(replies, start=1)]


async def main(url: str, namespace: str, mode: str, languages: list[str]) -> None:
    """Replay all dialogs of the languages, many at a time."""
    dialogs = [dialog for language in languages for dialog in read_language(language).values()]
    places = asyncio.Semaphore(DIALOGS_AT_A_TIME)
    began = time.monotonic()

    async def one(client: BrokerClient, dialog: Dialog) -> list[str | None]:
        async with places:
            return await replay(client, dialog, burst=mode == "bursts")

    async with BrokerClient(url, namespace=namespace, interface="corpus") as client:
        results = await asyncio.gather(*(one(client, dialog) for dialog in dialogs))
    faults = [fault for result in results for fault in result]
    outcome = {
        "dialogs": len(dialogs),
        "turns": len(faults),
        "seconds": time.monotonic() - began,
        "wrong": [fault for fault in faults if fault is not None],
    }
    sys.stdout.write(json.dumps(outcome))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
