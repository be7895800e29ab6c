"""Takes dialogs over from Chatsky's own Redis storage, each in one atomic step, and those that are here already never.

So it may be stopped at any point and run again. What is taken goes on in a Chatsky pipeline that Switchboard runs where
it stopped: turns, labels, misc, slots, statistics. Left out is `origin.message`, the original of a message, which is a
pickle of a messenger's own classes. Called by `switchboard context import`.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from interfaces.envelope import context_id
from interfaces.errors import MisuseError, RequestRejected, VersionConflict
from worker.chatsky.dialog import TABLES
from worker.chatsky.stored_dialogs import StoredDialog, new_context
from worker.stores import ContextStore
from worker.stores.redis_errors import store_error

BATCH: Final = 32
"""Dialogs that are in memory at a time."""


@dataclass(slots=True)
class Progress:
    """How far it is, in dialogs."""

    total: int
    taken: int = 0
    here: int = 0
    """Were here before, and are left alone."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why, by context id."""

    @property
    def done(self) -> int:
        """Dialogs that need no more looking at."""
        return self.taken + self.here + len(self.refused)


class ChatskyRedis:
    """Chatsky's storage, read only. Raises as `store_error` says."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def ids(self) -> list[bytes]:
        """Ids of all dialogs."""
        begin = f"{self._prefix}:main:".encode()
        pattern = re.sub(rb"([*?\[\]\\^])", rb"\\\1", begin) + b"*"
        try:
            found = {key.removeprefix(begin) async for key in self._client.scan_iter(match=pattern, count=1000)}
        except (RedisError, OSError) as error:
            raise store_error(error) from error
        return sorted(found)

    async def read(self, ctx_id: str) -> StoredDialog:
        """One dialog. Raises `ValueError` where its keys hold something else."""
        names = [f"main:{ctx_id}", *(f"turns:{ctx_id}:{table}" for table in TABLES)]
        try:
            async with self._client.pipeline(transaction=True) as pipeline:  # Chatsky may be writing.
                for name in names:
                    pipeline.hgetall(f"{self._prefix}:{name}")
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError) as error:
            raise store_error(error) from error
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, Exception):
                raise ValueError(f"the key {self._prefix}:{name} is no hash")
        return StoredDialog(ctx_id, answers[0], dict(zip(TABLES, answers[1:], strict=True)))


async def import_dialogs(source: ChatskyRedis, store: ContextStore, tell: Callable[[Progress], None]) -> Progress:
    """Take over every dialog that is not here yet. Raises `StoreUnavailable` where one of the two goes away."""
    ids = await source.ids()
    progress = Progress(len(ids))
    tell(progress)
    for begin in range(0, len(ids), BATCH):
        await asyncio.gather(*(_import(ctx_id, source, store, progress) for ctx_id in ids[begin : begin + BATCH]))
        tell(progress)
    return progress


async def _import(raw_id: bytes, source: ChatskyRedis, store: ContextStore, progress: Progress) -> None:
    try:
        ctx_id = context_id(raw_id.decode())
        if await store.peek(ctx_id, history=0) is not None:
            progress.here += 1
            return
        edit = await new_context(await source.read(ctx_id), uuid4().hex)
        await store.edit(edit)
        progress.taken += 1
    except VersionConflict:  # A turn of this dialog was committed just now.
        progress.here += 1
    except (ValueError, MisuseError, RequestRejected) as error:
        progress.refused[raw_id.decode(errors="backslashreplace")] = str(error)
