"""Contexts in Redis: one hash for each context, one script call to load it and one to commit a turn to it.

Every script may be repeated after a lost answer, so every failure is simply reported and nothing is retried here. The
fields read are named exactly: what a turn costs never depends on the length of its dialog (docs/decisions/0004).
The worker and the operator's commands use it through `ContextStore`.

    h head: version, revision, epoch noted,       t:<turn> turn        r:<request id> reply
      where the windows end, the turn started     d:<turn> request id  m main
    xi id of the last edit                        v, e, x keep out whoever reads them (docs/decisions/0029)
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import unquote

from interfaces.errors import TurnAbandoned, VersionConflict
from interfaces.telemetry import Telemetry
from worker.stores import Durability, Edit, Loaded, Outbox, Retention, Turn
from worker.stores.address import RedisAddress, parse_address
from worker.stores.clients import primary_client, refuse_unusable_files, server_client
from worker.stores.cluster import Cluster
from worker.stores.context_cache import CACHE_BYTES, ContextCache, Known
from worker.stores.durability import Confirmation, confirmation_for
from worker.stores.pipelining import Script
from worker.stores.servers import MAX_CONNECTIONS, OneServer, Servers

logger = logging.getLogger(__name__)

LOAD = Script.named("load", "head")
COMMIT = Script.named("commit", "head")
_EDIT = Script.named("edit", "head")
_FORGET_START = Script.named("forget_start", "head")
_PEEK = Script.named("peek", "head")
_OUTBOX = Script.named("outbox", "head")
_DELETE = Script.named("delete")
_CLAIM = Script.named("claim")
_ANNOUNCE = Script.named("announce")
_LIVING = Script.named("living")
_READ_PLAN = Script.named("read_plan")
_CHANGE_PLAN = Script.named("change_plan")
_NOTE_PASSED = Script.named("note_passed")
_SCRIPTS = (
    *(LOAD, COMMIT, _EDIT, _FORGET_START, _PEEK, _OUTBOX, _DELETE),
    *(_CLAIM, _ANNOUNCE, _LIVING, _READ_PLAN, _CHANGE_PLAN, _NOTE_PASSED),
)

_UNSAFE = re.compile(r"[%{}\x00-\x1f\x7f]")


def escape(text: str) -> str:
    """`text` with `%`, braces and control characters percent-encoded: readable, and different for different texts."""
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", text)


def unescape(text: str) -> str:
    """What `escape` was given."""
    return unquote(text, errors="strict")


class RedisStore:
    """A `ContextStore` in Redis (or Valkey) 7.0 or later: one server, a primary with sentinels, or a cluster.

    `timeout` (seconds) bounds connecting, each answer, and the wait for a free connection. A commit returns when it is
    where `durability` says, `replicas` being how many replicas must have it where it speaks of them. Of contexts of its
    turns, `cache_bytes` at most are kept in memory for the next ones.
    """

    def __init__(
        self,
        url: str,
        namespace: str,
        retention: Retention,
        *,
        timeout: float = 5.0,
        durability: Durability = Durability.PRIMARY,
        replicas: int = 1,
        cache_bytes: int = CACHE_BYTES,
        telemetry: Telemetry | None = None,
    ) -> None:
        telemetry = telemetry or Telemetry()
        self._cache = ContextCache(cache_bytes)
        self._loads = telemetry.metrics.context_loads_total
        self._durability = durability
        self._address = parse_address(url)
        self._pipeline = connect(self._address, timeout, confirmation_for(durability, replicas, timeout), telemetry)
        self._namespace = escape(namespace)
        self._workers = f"{self._namespace}:workers".encode()
        self._plan = f"{self._namespace}:plan".encode()
        self._retention = retention
        self._ttl = b"%d" % retention.ttl_seconds

    async def open(self) -> None:
        """Connect, check every server, and let it know the scripts. Raises `StoreRefused` or `StoreUnavailable`."""
        if self._address.is_unverified:
            logger.warning("the certificate of Redis is not verified: its URL says ssl_cert_reqs or ssl_check_hostname")
        await asyncio.to_thread(refuse_unusable_files, self._address)
        await self._pipeline.open(_SCRIPTS)

    async def close(self) -> None:
        """Give up calls not yet answered and close all connections. Never raises, may be repeated."""
        await self._pipeline.close()

    async def claim(self) -> int:
        """A new epoch: one more than the last one given, or Redis' clock in microseconds where that is higher."""
        # The key may expire like all others: the clock alone still gives a higher number, unless it was set back since.
        return int(await self._pipeline.script(_CLAIM, f"{self._namespace}:epoch".encode(), self._ttl))

    async def load(
        self, ctx_id: str, request_id: str, *, epoch: int, attempt: str, history: int, counted: int = 1
    ) -> Loaded:
        """See `ContextStore.load`. One script call, and one more where a reply is found that must have copies."""
        known = self._cache.take(ctx_id)
        key = self.key(ctx_id) if known is None else known.key
        if known is not None and (known.epoch != epoch or known.history != history):
            known = None
        arguments = [request_id.encode(), b"%016d" % epoch, attempt.encode(), b"%d" % history, self._ttl]
        arguments.append(b"%d" % counted)
        arguments += (b"", b"") if known is None else (b"%d" % known.version, b"%d" % known.revision)
        answer = await self._pipeline.script(LOAD, key, *arguments)
        if answer[0] == b"abandoned":
            raise TurnAbandoned(f"the context was taken over: it has seen epoch {int(answer[1])}, this one is {epoch}")
        if known is not None and answer[0] == b"known":
            _, reply, starts = answer
            self._loads["cache"] += 1
        else:
            _, version, main, reply, starts, packed, revision = answer
            known = Known.loaded(key, epoch, history, int(version), revision, main, packed)
            self._loads["redis"] += 1
        if reply is not None:
            await self._confirm(ctx_id)
        self._cache.keep(ctx_id, known)
        return known.as_loaded(reply, starts)

    async def commit(self, turn: Turn) -> bytes:
        """See `ContextStore.commit`. One script call, and one more for a repeated commit that must have copies."""
        retention, known = self._retention, self._cache.take(turn.ctx_id)
        arguments = [turn.request_id.encode(), b"%012d" % turn.version, turn.main, turn.reply, self._ttl]
        arguments += [
            b"%d" % max(retention.outbox, turn.returnable + 1),
            b"%d" % (retention.max_turns or 0),
            b"%d" % turn.revision,
        ]
        for turn_id, content in turn.turns.items():
            arguments += [b"%012d" % turn_id, content]
        key = self.key(turn.ctx_id) if known is None else known.key
        answer = await self._pipeline.script(COMMIT, key, *arguments, is_durable=True)
        if answer[0] == b"conflict":
            raise _conflict(turn, answer)
        if answer[0] == b"ok":
            if known is not None and (after := known.after(turn, retention.max_turns)) is not None:
                self._cache.keep(turn.ctx_id, after)
            return turn.reply
        await self._confirm(turn.ctx_id)
        reply: bytes = answer[1]
        return reply

    async def edit(self, edit: Edit) -> None:
        """See `ContextStore.edit`. One script call; a repeated one is followed by its copies like the first."""
        arguments = [edit.edit_id.encode(), b"%d" % edit.version, b"%d" % edit.revision, b"%d" % edit.new_version]
        arguments += [edit.main, self._ttl, b"%d" % (self._retention.max_turns or 0)]
        for turn_id, content in edit.turns.items():
            arguments += [b"%d" % turn_id, content]
        answer = await self._pipeline.script(_EDIT, self.key(edit.ctx_id), *arguments, is_durable=True)
        if answer[0] == b"conflict":
            raise _conflict(edit, answer)
        await self._confirm(edit.ctx_id)

    async def forget_start(self, ctx_id: str, request_id: str, attempt: str | None = None) -> None:
        """See `ContextStore.forget_start`."""
        await self._pipeline.script(_FORGET_START, self.key(ctx_id), request_id.encode(), (attempt or "").encode())

    async def peek(self, ctx_id: str, history: int) -> Loaded | None:
        """See `ContextStore.peek`."""
        answer = await self._pipeline.script(_PEEK, self.key(ctx_id), b"%d" % history)
        if answer is None:
            return None
        version, main, starts, turns, revision = answer
        return Loaded(version, main, _numbered(turns, version), None, starts, revision)

    async def read_turns(self, ctx_id: str, turn_ids: Sequence[int]) -> dict[int, bytes]:
        """See `ContextStore.read_turns`."""
        if not turn_ids:
            return {}
        values = await self._pipeline.command(b"HMGET", self.key(ctx_id), *(b"t:%d" % turn_id for turn_id in turn_ids))
        return {turn_id: value for turn_id, value in zip(turn_ids, values, strict=True) if value is not None}

    async def read_outbox(self, ctx_id: str) -> Outbox:
        """See `ContextStore.read_outbox`. A hundred turns a call: an import may have left a long gap."""
        key, first, replies = self.key(ctx_id), b"", dict[str, bytes]()
        while True:
            following, started, *kept = await self._pipeline.script(_OUTBOX, key, first)
            replies |= {request.decode(): reply for request, reply in zip(kept[::2], kept[1::2], strict=True)}
            if following is None:
                return Outbox(replies, started.decode() or None)
            first = b"%d" % following

    async def delete(self, ctx_id: str) -> bool:
        """See `ContextStore.delete`. Repeated after a lost answer it says False."""
        return bool(await self._pipeline.script(_DELETE, self.key(ctx_id)))

    async def context_ids(self) -> AsyncIterator[str]:
        """See `ContextStore.context_ids`. SCAN, so the servers go on working; each id once."""
        prefix = f"{self._namespace}:ctx:{{"
        seen: set[str] = set()  # SCAN may tell a key twice
        async for key in self._pipeline.scan(_glob(prefix) + "*"):
            ctx_id = unescape(key.decode().removeprefix(prefix).removesuffix("}"))
            if ctx_id not in seen:
                seen.add(ctx_id)
                yield ctx_id

    async def announce(self, worker: str, info: bytes, lives_for: float) -> dict[str, bytes]:
        """See `ContextStore.announce`."""
        milliseconds = b"%d" % int(lives_for * 1000)
        said = await self._pipeline.script(_ANNOUNCE, self._workers, worker.encode(), info, milliseconds, self._ttl)
        return _by_name(said)

    async def living(self) -> dict[str, bytes]:
        """See `ContextStore.living`."""
        return _by_name(await self._pipeline.script(_LIVING, self._workers))

    async def withdraw(self, worker: str) -> None:
        """See `ContextStore.withdraw`."""
        await self._pipeline.command(b"HDEL", self._workers, worker.encode())

    async def read_plan(self) -> tuple[bytes | None, frozenset[str]]:
        """See `ContextStore.read_plan`."""
        plan, passed = await self._pipeline.script(_READ_PLAN, self._plan, self._ttl)
        return plan, frozenset(queue.decode() for queue in passed)

    async def change_plan(self, expected: bytes | None, new: bytes) -> bool:
        """See `ContextStore.change_plan`."""
        return bool(await self._pipeline.script(_CHANGE_PLAN, self._plan, expected or b"", new, self._ttl))

    async def note_passed(self, queue: str) -> None:
        """See `ContextStore.note_passed`."""
        await self._pipeline.script(_NOTE_PASSED, self._plan, queue.encode(), self._ttl)

    async def _confirm(self, ctx_id: str) -> None:
        """Return when a commit that was found has its copies.

        Whoever made it may have died, or given up, before it had them. Redis confirms copies of what the same
        connection has written, hence a write: it comes after the commit in the one stream that replicas follow.
        """
        if self._durability is not Durability.PRIMARY:
            await self._pipeline.command(b"EXPIRE", self.key(ctx_id), self._ttl, is_durable=True)

    def key(self, ctx_id: str) -> bytes:
        """The one key of a context. The id in braces is what Redis Cluster places it by."""
        return f"{self._namespace}:ctx:{{{escape(ctx_id)}}}".encode()


def _conflict(read: Turn | Edit, answer: Sequence[Any]) -> VersionConflict:
    return VersionConflict(
        f"loaded at version {read.version} (revision {read.revision}), now at {int(answer[1])} ({answer[2]})"
    )


def _glob(text: str) -> str:
    """A pattern of SCAN that matches `text` alone."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def _by_name(said: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): info for name, info in zip(said[::2], said[1::2], strict=True)}


def connect(
    address: RedisAddress,
    timeout: float,
    confirmation: Confirmation | None = None,
    telemetry: Telemetry | None = None,
) -> Servers:
    """The server, or servers, at `address`; nothing is connected yet."""
    if address.is_cluster:
        return Cluster(address, timeout, confirmation, telemetry)
    if address.primary is not None:
        return OneServer(primary_client(address, timeout), confirmation, telemetry)
    return OneServer(server_client(address, timeout, MAX_CONNECTIONS), confirmation, telemetry)


def _numbered(turns: Sequence[bytes | None], last: int) -> dict[int, bytes]:
    """The turns up to number `last` under their numbers, the missing ones left out."""
    return {n: turn for n, turn in enumerate(turns, start=last - len(turns) + 1) if turn is not None}
