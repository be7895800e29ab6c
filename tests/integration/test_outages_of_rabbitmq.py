"""RabbitMQ blocked, silent, closing channels or refusing: waited out in the middle of turns.

The faults are real ones on a broker of the module's own. That it is down, or loses a node, is in `test_broker_restart`,
`test_reconnect` and `test_rabbitmq_cluster`; that it forgets a consumer or a queue, in `test_watchdog`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiormq
import pytest

from interfaces.brokers.rabbitmq import RabbitMQBroker, RabbitMQChannel
from interfaces.client import BrokerClient
from interfaces.errors import BrokerRefused, ExitCode
from interfaces.topology import Topology
from tests.integration.faults import (
    SHARDS,
    Links,
    ObservedBroker,
    all_settled,
    linked,
    opened,
    running,
    until,
    worker_settings,
)
from tests.integration.outages import STRICT, Fault, gate, ride_out
from tests.services.local import LocalBroker
from worker.running import Worker
from worker.stores.redis import RedisStore

USER = "worker"
PASSWORD = "secret"  # noqa: S105 - of a user that the test makes
PUBLISH_TIMEOUT = 0.5
ACK_TIMEOUT = 1_000
"""Milliseconds."""


class OwnBroker(LocalBroker):
    """A RabbitMQ with a user for the workers, so that what is done to them is not done to the test's client."""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 5672

    def workers_url(self, password: str = PASSWORD) -> str:
        return f"amqp://{USER}:{password}@127.0.0.1:{self.port}/"

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text(errors="replace")

    async def set(self, **changes: int) -> None:
        """Change settings of a broker that runs. Those of a channel are taken when it is opened."""
        terms = [f"application:set_env(rabbit, {name}, {value})" for name, value in changes.items()]
        await self.rabbitmqctl("eval", ", ".join(terms) + ".")


@pytest.fixture(scope="module")
def own() -> Iterator[OwnBroker]:
    """One broker for all tests of this module; each undoes its fault."""
    broker = OwnBroker()
    broker.start_now()
    broker.rabbitmqctl_now("add_user", USER, PASSWORD)
    broker.rabbitmqctl_now("set_permissions", USER, ".*", ".*", ".*")
    yield broker
    broker.remove_now()


Ride = Callable[..., Awaitable[None]]


@pytest.fixture
async def ride(
    own: OwnBroker, namespace: str, redis_url: str, store: RedisStore, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Ride]:
    """Has a worker go through a fault until it logs a line, and to the end."""
    topology = Topology(namespace, SHARDS)
    async with opened(own.url) as observer, BrokerClient(own.url, namespace=namespace) as client:
        await observer.apply(topology)

        async def ride(fault: Fault, *lines: str, broker: RabbitMQBroker) -> None:
            bot = gate()
            settings = worker_settings(namespace, redis_url=redis_url, **STRICT)
            worker = Worker(bot, settings, broker=broker)
            await ride_out(
                worker, bot, client, store, fault, noticed=lambda: all(line in caplog.text for line in lines)
            )
            await all_settled(observer, topology)

        yield ride


@asynccontextmanager
async def alarm(own: OwnBroker, what: str) -> AsyncIterator[None]:
    """It takes no publishes, as where its memory or its disk is nearly full."""
    begin, end = {
        "memory": (("set_vm_memory_high_watermark", "absolute", "1"), ("set_vm_memory_high_watermark", "0.4")),
        "disk": (("set_disk_free_limit", "100000GB"), ("set_disk_free_limit", "50MB")),
    }[what]
    await own.rabbitmqctl(*begin)
    try:
        assert what in await own.rabbitmqctl("eval", "rabbit_alarm:get_alarms().")
        yield
    finally:
        await own.rabbitmqctl(*end)


@pytest.mark.parametrize("what", ["memory", "disk"])
async def test_a_broker_that_takes_no_publishes_gets_the_replies_when_it_takes_them_again(
    what: str, own: OwnBroker, ride: Ride
) -> None:
    lines = (
        "broker unavailable (attempt 1), trying again: publishing to ",
        "no confirm within 0.5 s",
        "broker unavailable (attempt 2), trying again: RabbitMQ takes no messages now: it is short of memory or disk",
    )
    broker = RabbitMQBroker(own.workers_url(), publish_timeout=PUBLISH_TIMEOUT)
    numbers: set[int] = set()

    @asynccontextmanager
    async def observed() -> AsyncIterator[None]:
        async with alarm(own, what):
            yield
            connection = await broker._publishing.get()
            assert connection.transport is not None
            numbers.update(connection.transport.connection.channels)

    await ride(observed(), *lines, broker=broker)
    # The connection's own, the one that was published on, and none for each time that it was tried again.
    assert len(numbers) <= 2


@asynccontextmanager
async def confirms_lost(links: Links) -> AsyncIterator[None]:
    """What the broker says on the connection that publishes arrives nowhere."""
    links.publishing.drop_replies()
    try:
        yield
    finally:
        links.publishing.resume()
    assert links.publishing.dropped > 0


async def test_a_reply_without_a_confirm_is_published_again(own: OwnBroker, ride: Ride) -> None:
    async with linked(own.workers_url(), publish_timeout=PUBLISH_TIMEOUT, connect_timeout=2) as links:
        lines = "broker unavailable (attempt 1), trying again: publishing to ", "no confirm within 0.5 s"
        await ride(confirms_lost(links), *lines, broker=links.broker)


async def test_turns_longer_than_the_brokers_own_limit_are_delivered_again_and_run_once(
    own: OwnBroker, ride: Ride, namespace: str
) -> None:
    """The `consumer_timeout`, 30 minutes where it is not set."""
    topology = Topology(namespace, SHARDS)
    timed_out = "timed out"

    @asynccontextmanager
    async def held_for_long() -> AsyncIterator[None]:
        await until(lambda: own.log.count(timed_out) > before, "a delivery timed out")
        yield

    before = own.log.count(timed_out)
    await own.set(consumer_timeout=ACK_TIMEOUT, channel_tick_interval=ACK_TIMEOUT // 4)
    try:
        lines = [
            f"the broker closed the channel that consumes {queue}: PRECONDITION_FAILED - delivery acknowledgement on "
            for queue in topology.shard_queues
        ]
        await ride(held_for_long(), *lines, broker=RabbitMQBroker(own.workers_url()))
    finally:
        await own.set(consumer_timeout=1_800_000, channel_tick_interval=60_000)


async def test_channels_that_the_broker_closes_over_a_double_ack_are_opened_again(
    own: OwnBroker, ride: Ride, namespace: str
) -> None:
    broker = ObservedBroker(own.workers_url())
    topology = Topology(namespace, SHARDS)

    @asynccontextmanager
    async def acked_twice() -> AsyncIterator[None]:
        before = own.log.count("unknown delivery tag")
        for channel in broker.channels.values():
            assert isinstance(channel, RabbitMQChannel)
            assert isinstance(channel._channel, aiormq.Channel)
            await channel._channel.basic_ack(1)  # the request of "before", which is settled
        yield
        assert own.log.count("unknown delivery tag") >= before + SHARDS

    lines = [
        f"the broker closed the channel that consumes {queue}: PRECONDITION_FAILED - unknown delivery tag 1"
        for queue in topology.shard_queues
    ]
    await ride(acked_twice(), *lines, broker=broker)


@asynccontextmanager
async def password_changed(own: OwnBroker) -> AsyncIterator[None]:
    """Nobody logs in with the old one any more. Who has logged in stays so: their connections are ended."""
    await own.rabbitmqctl("change_password", USER, "new")
    try:
        await own.rabbitmqctl("close_all_user_connections", USER, "rotated")
        yield
    finally:
        await own.rabbitmqctl("change_password", USER, PASSWORD)


async def test_a_refusal_after_the_start_is_waited_out(own: OwnBroker, ride: Ride, namespace: str) -> None:
    queue = Topology(namespace, SHARDS).shard_queue(0)
    reason = "wrong user name or password (ACCESS_REFUSED"
    line = f"cannot consume {queue} (attempt 2): connecting to RabbitMQ at 127.0.0.1:{own.port}: {reason}"
    await ride(password_changed(own), line, broker=RabbitMQBroker(own.workers_url()))


async def test_a_refusal_that_lasts_ends_the_worker_and_its_requests_wait_for_one_with_the_new_password(
    own: OwnBroker, namespace: str, redis_url: str
) -> None:
    bot, topology = gate(), Topology(namespace, SHARDS)
    options = {"watch_lost_after": 1.0, "drain_timeout": 0.2} | STRICT
    settings = worker_settings(namespace, redis_url=redis_url, **options)
    async with (
        opened(own.url) as observer,
        running(Worker(bot, settings, broker=RabbitMQBroker(own.workers_url()))) as working,
        BrokerClient(own.url, namespace=namespace) as client,
    ):
        assert (await client.ask("before", "ctx")).turn == 1
        async with password_changed(own):
            asking = asyncio.create_task(client.ask("during", "ctx"))
            with pytest.raises(BrokerRefused, match=r"refused for \d+ s: .*wrong user name or password") as caught:
                await asyncio.wait_for(asyncio.shield(working), 30)
            assert caught.value.exit_code == ExitCode.BROKER
            async with running(Worker(bot, settings, broker=RabbitMQBroker(own.workers_url("new")))):
                assert (await asking).turn == 2
        await all_settled(observer, topology)
    assert bot.started == ["before", "during"]
