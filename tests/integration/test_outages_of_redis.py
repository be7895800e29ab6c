"""Redis away, slow, silent, empty, or answering with one of its errors: waited out in the middle of turns.

The faults are real ones on a server of the module's own: a primary made a replica, memory or disk that is full, data
that is being loaded, slots that nobody serves, credentials that were changed.
"""

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree

import pytest
from redis.asyncio import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from tenacity import wait_random_exponential

from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.client import BrokerClient
from interfaces.errors import ExitCode, StoreRefused
from interfaces.topology import Topology
from tests.integration.faults import all_settled, running, until, worker_settings
from tests.integration.outages import STRICT, Fault, gate, ride_out
from tests.integration.redis_probes import opened, proxied
from tests.services.proxy import TcpProxy
from tests.services.redis_node import RedisNode
from tests.services.servers import free_port
from worker.running import Worker
from worker.stores import patience, refusals

TIME_LIMIT = 0.5
"""Seconds the workers here give Redis to answer."""

USER = "worker"
PASSWORD = "secret"  # noqa: S105 - of a user that the test makes


class OwnRedis(RedisNode):
    """A Redis with an append-only file, which it must not be killed for when that cannot grow (SIGXFSZ)."""

    def __init__(self, *options: str) -> None:
        super().__init__("--save", "", "--appendonly", "yes", *options)
        self._command = ["/bin/sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh", *self._command]

    def url_of(self, credentials: str) -> str:
        """Its URL with a user and a password."""
        return self.url.replace("redis://", f"redis://{credentials}@")

    def errors(self, code: str) -> int:
        """How often it has answered with an error that begins with this word."""
        counted = self.info("errorstats").get(f"errorstat_{code}", {"count": 0})
        return int(counted["count"])

    def limit_files(self, size: int) -> None:
        """Let none of its files grow beyond so many bytes: to the server, a disk that is full."""
        _, hard = resource.prlimit(self._pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (size, hard))

    @property
    def log_of_commands(self) -> Path:
        """The append-only file that grows now."""
        [file] = self.directory.glob("appendonlydir/*.incr.aof")
        return file


@pytest.fixture(scope="module")
def own() -> Iterator[OwnRedis]:
    """One server for all tests of this module; each undoes its fault."""
    # So long it takes to load each key, and so often it answers meanwhile.
    node = OwnRedis("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    node.start_now()
    yield node
    node.remove_now()


@asynccontextmanager
async def answering(
    own: OwnRedis, code: str, begin: Sequence[str | int], end: Sequence[str | int]
) -> AsyncIterator[None]:
    """Between two commands, the server answers with an error."""
    before = await asyncio.to_thread(own.errors, code)
    await asyncio.to_thread(own.ask, *begin)
    try:
        yield
    finally:
        await asyncio.to_thread(own.ask, *end)
    assert await asyncio.to_thread(own.errors, code) > before


def readonly(own: OwnRedis) -> Fault:
    return answering(own, "READONLY", ("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"))


def out_of_memory(own: OwnRedis) -> Fault:
    return answering(own, "OOM", ("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0))


@asynccontextmanager
async def disk_full(own: OwnRedis) -> AsyncIterator[None]:
    """The append-only file cannot grow."""
    before = await asyncio.to_thread(own.errors, "MISCONF")
    own.limit_files(own.log_of_commands.stat().st_size)
    try:
        yield
    finally:
        own.limit_files(resource.RLIM_INFINITY)
    assert await asyncio.to_thread(own.errors, "MISCONF") > before


@asynccontextmanager
async def loading(own: OwnRedis) -> AsyncIterator[None]:
    """Killed and started, it takes two seconds to load its data."""
    for number in range(200):
        own.ask("SET", f"ballast {number}", b"x" * 4096)
    await asyncio.to_thread(own.ask, "BGREWRITEAOF")
    await until(lambda: own.info("persistence")["aof_rewrite_in_progress"] == 0, "its file is written anew")
    await own.kill()
    starting = asyncio.create_task(own.start())
    try:
        yield
    finally:
        await starting
    assert await asyncio.to_thread(own.errors, "LOADING") > 0


ANSWERS: dict[str, tuple[Callable[[OwnRedis], Fault], str]] = {
    "LOADING": (loading, "BusyLoadingError: Redis is loading the dataset in memory"),
    "READONLY": (readonly, "ReadOnlyError: You can't write against a read only replica."),
    "OOM": (out_of_memory, "OutOfMemoryError: command not allowed when used memory > 'maxmemory'."),
    "MISCONF": (disk_full, "ResponseError: MISCONF Errors writing to the AOF file: File too large"),
}


def away(line: str) -> str:
    """What the worker logs when a call has failed for the second time."""
    return f"store unavailable (attempt 2), trying again: {line}"


Ride = Callable[..., Awaitable[None]]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for here is the end of a fault, not that of a pause, which may last 5 s."""
    monkeypatch.setattr(patience, "STORE_WAIT", wait_random_exponential(multiplier=0.05, max=0.5))


@pytest.fixture
async def ride(
    own: OwnRedis,
    amqp_url: str,
    topology: Topology,
    client: BrokerClient,
    broker: RabbitMQBroker,
    caplog: pytest.LogCaptureFixture,
) -> Ride:
    """Has a worker on the module's Redis go through a fault until it logs a line, and to the end."""

    async def ride(
        fault: Fault, line: str, *, url: str = own.url, via: str | None = None, forgets: bool = False
    ) -> None:
        bot = gate()
        settings = worker_settings(topology.namespace, redis_url=via or url, redis_timeout=TIME_LIMIT, **STRICT)
        worker = Worker(bot, settings, broker=RabbitMQBroker(amqp_url))
        async with opened(url, namespace=topology.namespace) as store:
            await ride_out(worker, bot, client, store, fault, noticed=lambda: line in caplog.text, forgets=forgets)
        await all_settled(broker, topology)

    return ride


@pytest.mark.parametrize("code", ANSWERS)
async def test_an_error_that_may_pass_is_waited_out(code: str, own: OwnRedis, ride: Ride) -> None:
    fault, line = ANSWERS[code]
    await ride(fault(own), away(line))


async def test_scripts_that_redis_has_forgotten_are_loaded_again_and_nobody_notices(
    own: OwnRedis, ride: Ride, caplog: pytest.LogCaptureFixture
) -> None:
    @asynccontextmanager
    async def forgotten() -> AsyncIterator[None]:
        await asyncio.to_thread(own.ask, "CONFIG", "RESETSTAT")
        await asyncio.to_thread(own.ask, "SCRIPT", "FLUSH")
        yield
        await until(lambda: own.errors("NOSCRIPT") > 0, "a script was not known")

    await ride(forgotten(), "")
    assert "unavailable" not in caplog.text


async def test_slots_that_nobody_serves_are_waited_for(ride: Ride) -> None:
    node = OwnRedis(
        *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
        *("--cluster-node-timeout", "500"),  # so long it waits as well before it serves again
    )
    slots = (0, REDIS_CLUSTER_HASH_SLOTS - 1)
    try:
        await node.start()
        await asyncio.to_thread(node.ask, "CLUSTER", "ADDSLOTSRANGE", *slots)
        await until(lambda: "cluster_state:ok" in str(node.ask("CLUSTER", "INFO")), "the cluster serves")
        fault = answering(
            node, "CLUSTERDOWN", ("CLUSTER", "DELSLOTSRANGE", *slots), ("CLUSTER", "ADDSLOTSRANGE", *slots)
        )
        await ride(fault, away("ClusterDownError: "), url=f"redis+cluster://127.0.0.1:{node.port}")
    finally:
        await asyncio.to_thread(node.remove_now)


def links(proxy: TcpProxy) -> dict[str, tuple[Fault, str]]:
    @asynccontextmanager
    async def away() -> AsyncIterator[None]:
        await proxy.close()
        yield
        await proxy.start()

    @asynccontextmanager
    async def silent() -> AsyncIterator[None]:
        proxy.pause()
        yield
        proxy.resume()

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        proxy.delay = 1.5 * TIME_LIMIT
        yield
        # Both ways together, still within the limit.
        proxy.delay = 0.2 * TIME_LIMIT

    return {
        "away": (away(), "ConnectionError: Error 111 connecting to 127.0.0.1"),
        "silent": (silent(), "TimeoutError: Timeout reading from 127.0.0.1"),
        "slow": (slow(), "TimeoutError: Timeout reading from 127.0.0.1"),
    }


@pytest.mark.parametrize("what", ["away", "silent", "slow"])
async def test_a_link_that_is_no_good_is_waited_out(what: str, own: OwnRedis, ride: Ride) -> None:
    async with proxied(own.url) as (proxy, via):
        fault, line = links(proxy)[what]
        await ride(fault, away(line), via=via)


async def test_a_redis_that_comes_back_empty_has_every_dialog_begin_anew(own: OwnRedis, ride: Ride) -> None:
    @asynccontextmanager
    async def emptied() -> AsyncIterator[None]:
        await own.kill()
        await asyncio.to_thread(rmtree, own.directory / "appendonlydir")
        await own.start()
        assert own.ask("DBSIZE") == 0
        yield

    await ride(emptied(), "was overtaken: loaded at version 1 (revision 0), now at 0 (0)", forgets=True)


async def acl(admin: Redis, *words: str) -> None:
    await admin.execute_command("ACL", "SETUSER", USER, *words)  # type: ignore[no-untyped-call]  # redis-py has no types here


@asynccontextmanager
async def password_changed(admin: Redis) -> AsyncIterator[None]:
    """Nobody logs in with the old one any more. Who has logged in stays so: their connections are ended."""
    await acl(admin, "resetpass", ">new")
    await admin.client_kill_filter(user=USER)
    try:
        yield
    finally:
        await acl(admin, "resetpass", f">{PASSWORD}")


@asynccontextmanager
async def permission_taken(admin: Redis) -> AsyncIterator[None]:
    await acl(admin, "-evalsha")
    try:
        yield
    finally:
        await acl(admin, "+evalsha")


@asynccontextmanager
async def password_asked_for(admin: Redis) -> AsyncIterator[None]:
    """Of those who never had one."""
    await admin.config_set("requirepass", "new")
    await admin.client_kill_filter(_type="normal", skipme=True)
    try:
        yield
    finally:
        await admin.config_set("requirepass", "")


REFUSALS: dict[str, tuple[Callable[[Redis], Fault], str]] = {
    "WRONGPASS": (password_changed, "AuthenticationError: invalid username-password pair or user is disabled."),
    "NOPERM": (permission_taken, "NoPermissionError: "),
    "NOAUTH": (
        password_asked_for,
        "ResponseError: Protocol error: unauthenticated multibulk length: Redis asks",
    ),
}


@pytest.fixture
async def admin(own: OwnRedis) -> AsyncIterator[Redis]:
    """A connection that stays allowed everything, and a user for the workers."""
    async with Redis.from_url(own.url, single_connection_client=True) as admin:
        await acl(admin, "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        yield admin


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_refusal_of_what_was_allowed_before_is_waited_out(
    code: str, own: OwnRedis, admin: Redis, ride: Ride
) -> None:
    fault, line = REFUSALS[code]
    via = own.url if code == "NOAUTH" else own.url_of(f"{USER}:{PASSWORD}")
    word = "ERR" if code == "NOAUTH" else code  # for so long a command as a script
    before = await asyncio.to_thread(own.errors, word)
    await ride(fault(admin), away(f"refused what was allowed before: {line}"), via=via)
    assert await asyncio.to_thread(own.errors, word) > before


async def test_a_refusal_that_lasts_ends_the_worker_and_its_requests_wait_for_one_with_the_new_password(
    own: OwnRedis,
    admin: Redis,
    amqp_url: str,
    topology: Topology,
    client: BrokerClient,
    broker: RabbitMQBroker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "REFUSED_SECONDS", 1.0)
    bot = gate()
    old, new = (
        worker_settings(topology.namespace, redis_url=own.url_of(f"{USER}:{word}"), drain_timeout=0.2, **STRICT)
        for word in (PASSWORD, "new")
    )
    async with running(Worker(bot, old, broker=RabbitMQBroker(amqp_url))) as working:
        assert (await client.ask("before", "ctx")).turn == 1
        async with password_changed(admin):
            asking = asyncio.create_task(client.ask("during", "ctx"))
            with pytest.raises(StoreRefused, match="invalid username-password pair") as caught:
                await asyncio.wait_for(asyncio.shield(working), 20)
            assert caught.value.exit_code == ExitCode.STORE
            async with running(Worker(bot, new, broker=RabbitMQBroker(amqp_url))):
                assert (await asking).turn == 2
    assert bot.started == ["before", "during"]
    await all_settled(broker, topology)
