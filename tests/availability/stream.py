"""A steady stream of requests to every shard, and what came of it: when each turn began, where, and what is wrong.

Requests go out by the clock, not when others are answered, so a pause in service is seen at its full length. The books
are those of the chaos suite, and its checker judges them: a measurement of a run that lost something is worth nothing.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count, pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from interfaces.client import BrokerClient
from interfaces.topology import Topology, slot
from tests.chaos.checker import Violation, check
from tests.chaos.history import Confirmed, Event, Recorder, Replied, Sent, now
from tests.chaos.traffic import Collector, read_contexts

PATIENCE_SECONDS = 90.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The first reply to a request. Times are nanoseconds of the monotonic clock."""

    request_id: str
    sent: int
    began: int
    """When its turn began: the run of it that was committed."""
    replied: int
    pid: int
    """The worker process it ran in."""


def pauses(times: Iterable[int], since: int, until: int) -> list[float]:
    """Seconds between consecutive times, of those gaps that touch the span, the longest first."""
    gaps = [(late - early) / 1e9 for early, late in pairwise(sorted(times)) if late > since and early < until]
    return sorted(gaps, reverse=True)


class Book(Recorder):
    """A history that is also kept in memory, with the answers by shard."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.events: list[Event] = []
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        self._sent: dict[str, Sent] = {}
        self._answered: set[str] = set()

    def write(self, event: Event) -> None:
        """Append one event."""
        super().write(event)
        self.events.append(event)
        match event:
            case Sent():
                self._sent[event.request_id] = event
            case Replied() if event.request_id in self._sent and event.request_id not in self._answered:
                self._answered.add(event.request_id)
                began, pid = json.loads(event.body)["message"]["text"].split()
                queue = event.request_id.partition("/")[0]
                sent = self._sent[event.request_id].at
                self.answers[queue].append(Answer(event.request_id, sent, int(began), event.at, int(pid)))


class Stream:
    """Use it as a context manager: inside, requests are sent until `stop`.

    :param url: the broker's nodes, for publishers and for the collector of replies.
    :param every: seconds between two requests to one shard.
    :param contexts: contexts of each shard, which take turns.
    """

    def __init__(
        self, url: str, redis_url: str, topology: Topology, directory: Path, *, every: float, contexts: int = 4
    ) -> None:
        self._url, self._redis_url, self._topology = url, redis_url, topology
        self._book = Book(directory / "history.jsonl")
        self._every = every
        self._contexts = {queue: list(_contexts_of(topology, queue, contexts)) for queue in topology.shard_queues}
        self._stopping = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._cleaning = AsyncExitStack()

    @property
    def answers(self) -> Mapping[str, Sequence[Answer]]:
        """The answers so far, by request queue, in the order in which they came."""
        return self._book.answers

    def pid(self, queue: str) -> int:
        """The process that ran the last turn of a shard."""
        return self._book.answers[queue][-1].pid

    async def answered(self, since: int, queues: Collection[str] | None = None) -> None:
        """Return once every shard, or each of `queues`, has answered a request sent after `since`.

        Raises `AssertionError` that says where the stream has got to.
        """
        wanted = self._topology.shard_queues if queues is None else queues

        def is_answered(queue: str) -> bool:
            return bool(self.answers[queue]) and self.answers[queue][-1].sent > since

        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not all(map(is_answered, wanted)):  # noqa: ASYNC110 - answers come by a collector's callback
                    await asyncio.sleep(0.02)
        except TimeoutError:
            late = {queue: len(self.answers[queue]) for queue in wanted if not is_answered(queue)}
            raise AssertionError(
                f"not within {PATIENCE_SECONDS:g} s: an answer of {late} (answers so far); "
                f"events {self._book.counts}, {len(self._sending)} not confirmed"
            ) from None

    async def stop(self) -> list[Violation]:
        """Send nothing more, wait until everything is answered, and judge the books."""
        self._stopping.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._pacing
            while self._sending:
                await asyncio.wait(self._sending)
            while self._book.counts["sent"] > sum(map(len, self.answers.values())):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        ctx_ids = [ctx_id for contexts in self._contexts.values() for ctx_id in contexts]
        found = await read_contexts(self._redis_url, self._topology.namespace, ctx_ids)
        return check(self._book.events, found)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as cleaning:
            cleaning.enter_context(self._book)
            await cleaning.enter_async_context(Collector(self._url, self._topology, self._book))
            self._client = await cleaning.enter_async_context(
                BrokerClient(self._url, namespace=self._topology.namespace, timeout=PATIENCE_SECONDS)
            )
            cleaning.push_async_callback(self._abandon)
            self._pacing = asyncio.create_task(self._pace(), name="pace")
            self._cleaning = cleaning.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cleaning.aclose()

    async def _pace(self) -> None:
        """Shards get their requests one after the other within each interval, which evens the load."""
        loop = asyncio.get_running_loop()
        start, queues = loop.time(), self._topology.shard_queues
        for number in count():
            for place, queue in enumerate(queues):
                at = start + (number + place / len(queues)) * self._every
                await asyncio.sleep(at - loop.time())
                if self._stopping.is_set():
                    return
                contexts = self._contexts[queue]
                self._send(queue, contexts[number % len(contexts)], number)

    def _send(self, queue: str, ctx_id: str, number: int) -> None:
        sending = asyncio.create_task(self._publish(f"{queue}/{number}", ctx_id), name="send")
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _publish(self, request_id: str, ctx_id: str) -> None:
        self._book.write(Sent(request_id, ctx_id, now()))
        await self._client.send(request_id, ctx_id, request_id=request_id)
        self._book.write(Confirmed(request_id, now()))

    async def _abandon(self) -> None:
        for task in (self._pacing, *self._sending):
            task.cancel()
        await asyncio.gather(self._pacing, *self._sending, return_exceptions=True)


def _contexts_of(topology: Topology, queue: str, wanted: int) -> Iterable[str]:
    """Ids of contexts whose requests lead to `queue`."""
    names = (f"{queue} {number}" for number in count())
    found = (name for name in names if topology.queue_of(slot(name)) == queue)
    return [name for name, _ in zip(found, range(wanted), strict=False)]
