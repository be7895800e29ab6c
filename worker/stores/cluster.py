"""A Redis Cluster: each call goes to the primary that holds its key's slot, those of one tick as one pipeline per node.

The client library's own cluster client is not used: its pipeline refuses EVALSHA, and it repeats by itself what may
have run (docs/decisions/0009). Repeated here is only what a node refused with MOVED or ASK, so did not run. Whatever
else goes wrong is reported, and the table of slots is fetched anew. `RedisStore` is the only caller.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError

from interfaces.telemetry import Telemetry
from worker.stores.address import Host, RedisAddress
from worker.stores.clients import server_client
from worker.stores.durability import Confirmation
from worker.stores.pipelining import Command, Script, closed
from worker.stores.servers import MAX_CONNECTIONS, Server, Servers

REDIRECTIONS: Final = 5
"""How often one call follows MOVED and ASK: one each, for a slot that moves on while a call is under way, and spare."""

TABLE_SECONDS: Final = 1.0
"""Time a node has to tell the slots, where the store's own limit is not shorter: there are others to ask."""

SIGNS_OF_CHANGE: Final = (
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ClusterError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
)
"""After one of these another node may hold the slot."""


class Cluster(Servers):
    """The primaries of a Redis Cluster. A node that is no longer one loses its connections with the next table."""

    def __init__(
        self,
        address: RedisAddress,
        timeout: float,
        confirmation: Confirmation | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        super().__init__(telemetry)
        self._address = address
        self._timeout = timeout
        self._confirmation = confirmation
        self._owners: list[Host | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._nodes = set(address.hosts)
        """Whom to ask for the table: every node of the last one, and those of the URL."""
        self._servers: dict[Host, Server] = {}
        self._learning: asyncio.Task[Exception | None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def clients(self) -> Sequence[Redis]:
        """A client of every primary."""
        return [self._server(host).client for host in sorted({host for host in self._owners if host is not None})]

    async def close(self) -> None:
        """See `Servers.close`."""
        self._is_closed = True
        if self._learning is not None:
            self._learning.cancel()
            await asyncio.gather(self._learning, return_exceptions=True)
        await asyncio.gather(*self._retiring, *(server.close() for server in self._servers.values()))

    async def _open(self, scripts: Sequence[Script]) -> None:
        if (failure := await self._learn()) is not None:
            raise failure
        hosts = {host for host in self._owners if host is not None}
        await asyncio.gather(*(self._server(host).check(scripts) for host in hosts))

    async def _call(self, command: Command, is_durable: bool) -> Any:
        if self._is_closed:
            return closed()
        slot = key_slot(command.key)
        if (host := self._owners[slot]) is None:
            failure = await self._learn()
            if (host := self._owners[slot]) is None:
                return failure or ClusterDownError(f"slot {slot} is served by no node")
        answer = await self._server(host).call(command, is_durable=is_durable)
        for _ in range(REDIRECTIONS):
            if not isinstance(answer, AskError):
                break
            # An empty host means the one that answered.
            host = (answer.host or host[0], answer.port)
            has_moved = isinstance(answer, MovedError)
            if has_moved:
                self._owners[slot] = host
                self._learn_soon()
            answer = await self._server(host).call(command, is_durable=is_durable, is_asking=not has_moved)
        else:
            answer = ClusterDownError(f"slot {slot}: still sent elsewhere after {REDIRECTIONS} nodes")
        if isinstance(answer, SIGNS_OF_CHANGE) and not self._is_closed:
            self._learn_soon()
        return answer

    def _server(self, host: Host) -> Server:
        if host not in self._servers:
            client = server_client(self._address, self._timeout, MAX_CONNECTIONS, host)
            self._servers[host] = Server(client, self._confirmation, self.telemetry)
        return self._servers[host]

    def _learn_soon(self) -> "asyncio.Task[Exception | None]":
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._fetch_table(), name="fetch the cluster's slots")
        return self._learning

    async def _learn(self) -> Exception | None:
        """Fetch the table, or wait for whoever is fetching it. Returns why no node gave it."""
        return await asyncio.shield(self._learn_soon())

    async def _fetch_table(self) -> Exception | None:
        failure: Exception | None = None
        # In random order, so that one node with an old view of the cluster is not asked every time.
        for host in random.sample(sorted(self._nodes), len(self._nodes)):
            try:
                ranges = await self._ask_for_slots(host)
            except (RedisError, OSError) as error:
                failure = error
            else:
                self._take_over(ranges, host)
                return None
        return failure

    async def _ask_for_slots(self, host: Host) -> list[Any]:
        # A connection of its own: those of the calls may all be busy, waiting for this very answer.
        client = server_client(self._address, min(self._timeout, TABLE_SECONDS), 1, host)
        async with client:
            ranges: list[Any] = await client.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]  # redis-py has no types here
            return ranges

    def _take_over(self, ranges: Sequence[Any], asked: Host) -> None:
        owners: list[Host | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        nodes = set(self._address.hosts)
        for first, last, *holders in ranges:
            hosts = [_host(holder, asked) for holder in holders]
            owners[first : last + 1] = [hosts[0]] * (last - first + 1)
            nodes.update(hosts)
        self._owners, self._nodes = owners, nodes
        for host in set(self._servers) - set(owners):
            # What it was still asked fails now and is asked of the new owner, which beats waiting for its silence.
            retiring = asyncio.create_task(self._servers.pop(host).close())
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)


def _host(holder: Sequence[Any], asked: Host) -> Host:
    """Where a node listens. One that does not know its own address is reached where it was asked."""
    name = (holder[0] or b"").decode()
    return (name if name not in ("", "?") else asked[0]), int(holder[1])
