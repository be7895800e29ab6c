"""Every dialog of the chatterbot corpus, from a client process over RabbitMQ to a worker process with Redis."""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from itertools import chain
from typing import Any

import pytest

from tests.bots.corpus import Dialog, languages, read_language
from tests.integration.conftest import Report, StartWorker
from tests.services.processes import ROOT
from worker import records
from worker.stores.redis import RedisStore

CONTEXTS_AT_A_TIME = 500
TEST_SECONDS = 300
"""Ten thousand turns; half a minute where nothing else runs."""


def dialogs_of(names: Sequence[str]) -> list[Dialog]:
    return [dialog for name in names for dialog in read_language(name).values()]


async def replay(*arguments: str) -> dict[str, Any]:
    """Run the client process to its end; what it reports."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bots.corpus_client", *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    outcome: dict[str, Any] = json.loads(output)
    return outcome


async def stored_dialog(store: RedisStore, dialog: Dialog) -> tuple[str | None, ...]:
    """What Redis holds of a dialog, as a row of utterances; `None` where a turn has no answer."""
    loaded = await store.peek(dialog.ctx_id, len(dialog.turns) + 1)
    assert loaded is not None, dialog.ctx_id
    assert sorted(loaded.turns) == list(range(1, loaded.version + 1)), dialog.ctx_id
    turns = [records.read_turn(turn) for _, turn in sorted(loaded.turns.items())]
    messages = chain.from_iterable((turn.request, turn.response) for turn in turns)
    return tuple(message.text if message else None for message in messages)


async def wrongly_stored(store: RedisStore, dialogs: Sequence[Dialog]) -> list[str]:
    """The contexts whose turns in Redis are not those of the dialog, in order."""
    wrong: list[str] = []
    for first in range(0, len(dialogs), CONTEXTS_AT_A_TIME):
        some = dialogs[first : first + CONTEXTS_AT_A_TIME]
        stored = await asyncio.gather(*(stored_dialog(store, dialog) for dialog in some))
        wrong += [
            dialog.ctx_id
            for dialog, found in zip(some, stored, strict=True)
            if found != tuple(chain.from_iterable(dialog.turns))
        ]
    return wrong


@pytest.mark.timeout(TEST_SECONDS)
@pytest.mark.parametrize(
    ("names", "mode"),
    [
        pytest.param(["english"], "reply-by-reply", id="english-reply-by-reply"),
        pytest.param(languages(), "bursts", id="all-languages-in-bursts", marks=pytest.mark.long),
    ],
)
async def test_every_reply_is_the_dialogs_next_utterance_and_redis_holds_the_whole_dialog(
    names: list[str],
    mode: str,
    namespace: str,
    amqp_url: str,
    start_worker: StartWorker,
    store: RedisStore,
    report: Report,
) -> None:
    dialogs = dialogs_of(names)
    worker = await (await start_worker("tests.bots.corpus:answer")).ready()

    began = time.monotonic()
    outcome = await replay(amqp_url, namespace, mode, *names)
    wrong = await wrongly_stored(store, dialogs)

    turns = sum(len(dialog.turns) for dialog in dialogs)
    report(
        f"{len(names)} language(s), {len(dialogs)} dialogs, {turns} turns, {outcome['seconds']:.1f} s "
        f"({turns / outcome['seconds']:.0f} turns/s), with client's start and check {time.monotonic() - began:.1f} s"
    )
    assert outcome["wrong"] == []
    assert (outcome["dialogs"], outcome["turns"]) == (len(dialogs), turns)
    assert wrong == []
    assert await worker.stop() == 0, worker.log


def test_the_corpus_holds_dialogs_of_every_shape_that_is_replayed(report: Report) -> None:
    """Guards the two tests above against a corpus that is suddenly empty or read in another way."""
    dialogs = dialogs_of(languages())
    lengths = [len(dialog.utterances) for dialog in dialogs]
    odd, single = sum(length % 2 for length in lengths), lengths.count(1)
    report(f"{len(dialogs)} dialogs, {odd} of them end with the user ({single} hold one utterance only)")
    assert len(read_language("english")) > 2000
    assert len(languages()) >= 28
    assert len({dialog.ctx_id for dialog in dialogs}) == len(dialogs)
    assert odd > single > 0
    assert max(lengths) > 20
