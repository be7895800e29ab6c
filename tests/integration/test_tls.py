"""TLS to real servers: whom a connection is for is verified by everything that connects, and what is refused is told.

Each refusal is one that the server or the handshake really made: the certificates are changed, the code is not.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from interfaces.client import BrokerClient
from interfaces.errors import BrokerRefused, ExitCode, StoreRefused, StoreUnavailable
from tests.services.authority import Authority, Issued
from tests.services.command import run_command, run_command_now
from tests.services.processes import WorkerProcess
from tests.services.tls_servers import PRIMARY, TlsBroker, TlsRedis, own_all_slots, tls_cluster, tls_sentinel
from worker.stores import Retention
from worker.stores.redis import RedisStore

BOT = "tests.bots.echoing:bot"
SHARDS = "1"
ATTEMPTS = 40


@dataclass(frozen=True, slots=True)
class World:
    """Two authorities, what they issued, and servers that show certificates of the first."""

    ours: Authority
    other: Authority
    server: Issued
    expired: Issued
    elsewhere: Issued
    broker: TlsBroker
    strict_broker: TlsBroker
    redis: TlsRedis

    @property
    def settings(self) -> dict[str, str]:
        return {
            "SWITCHBOARD_AMQP_URL": f"amqps://guest:guest@localhost:{self.broker.tls_port}/",
            "SWITCHBOARD_REDIS_URL": f"rediss://localhost:{self.redis.tls_port}/0",
            "SWITCHBOARD_TLS_CA": str(self.ours.file),
            "SWITCHBOARD_SHARDS": SHARDS,
        }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("certificates")
    ours, other = Authority(directory, "ours"), Authority(directory, "other")
    server = ours.issue("server", "localhost", "127.0.0.1")
    expired = ours.issue("expired", "localhost", ends_in=timedelta(days=-1))
    elsewhere = ours.issue("elsewhere", "bank.example")
    broker, strict = TlsBroker(ours, server), TlsBroker(ours, server, must_show=True)
    redis = TlsRedis(ours, server)
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda it: it.start_now(), (broker, strict, redis)))
        yield World(ours, other, server, expired, elsewhere, broker, strict, redis)
    finally:
        for it in (broker, strict, redis):
            it.remove_now()


async def test_a_worker_and_every_command_work_over_verified_connections(world: World) -> None:
    worker = await WorkerProcess.start(["-m", "worker.cli", "run", BOT], world.settings)
    try:
        await worker.ready()
        for arguments in (
            ["send", "ada", "Hello"],
            *(["status", "--json"], ["topology", "show"], ["topology", "apply"], ["dead", "list"]),
            *(["context", "show", "ada"], ["doctor"]),
        ):
            done = await run_command(*arguments, settings=world.settings)
            assert done.returncode == ExitCode.OK, (arguments, done.stdout, done.stderr)
            assert "not verified" not in done.stdout + done.stderr
        assert done.stdout.count("TLS, certificate and host name verified") == 2
        async with BrokerClient(f"{world.settings['SWITCHBOARD_AMQP_URL']}?cafile={world.ours.file}") as client:
            assert (await client.ask("Hello", "bob")).status == "ok"
            assert await _connections(world.broker, "ssl") == ["true"] * 4
        assert world.redis.info("stats")["total_connections_received"] > 0
        assert await worker.stop() == ExitCode.OK
    finally:
        await worker.kill()


async def _connections(broker: TlsBroker, column: str) -> list[str]:
    return (await broker.rabbitmqctl("-q", "list_connections", column, "--no-table-headers")).split()


COMMANDS = [
    (["run", BOT], ExitCode.STORE),  # Redis is asked first
    (["send", "ada", "Hello"], ExitCode.BROKER),
    (["topology", "apply"], ExitCode.BROKER),
    (["status"], ExitCode.BROKER),
    (["dead", "list"], ExitCode.BROKER),
    (["context", "show", "ada"], ExitCode.STORE),
    (["edge", "chatsky.messengers.console:CLIMessengerInterface"], ExitCode.BROKER),
    (["doctor"], ExitCode.BROKER),
]


@pytest.mark.parametrize(("arguments", "code"), COMMANDS, ids=lambda it: it[0] if isinstance(it, list) else "")
def test_a_server_of_an_authority_that_is_not_ours_is_refused_by_every_command(
    world: World, arguments: list[str], code: ExitCode
) -> None:
    done = run_command_now(*arguments, settings=world.settings | {"SWITCHBOARD_TLS_CA": str(world.other.file)})
    assert done.returncode == code, done.stderr
    assert "self-signed certificate in certificate chain. Mend: name the authority that signed it as " in (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize(
    ("shown", "fault"),
    [("expired", "certificate has expired. Mend: renew it"), ("elsewhere", "Hostname mismatch")],
)
def test_an_expired_certificate_and_one_for_another_host_are_refused(world: World, shown: str, fault: str) -> None:
    for server, arguments, code in (
        (world.broker, ["send", "ada", "Hello"], ExitCode.BROKER),
        (world.redis, ["context", "show", "ada"], ExitCode.STORE),
    ):
        server.show(getattr(world, shown))
        try:
            done = run_command_now(*arguments, settings=world.settings)
        finally:
            server.show(world.server)
        assert done.returncode == code
        assert fault in done.stderr


def test_the_systems_authorities_are_not_enough_for_one_of_ones_own(world: World) -> None:
    settings = {name: value for name, value in world.settings.items() if name != "SWITCHBOARD_TLS_CA"}
    for arguments, code in ((["send", "ada", "Hello"], ExitCode.BROKER), (["context", "show", "a"], ExitCode.STORE)):
        done = run_command_now(*arguments, settings=settings)
        assert (done.returncode, "SWITCHBOARD_TLS_CA" in done.stderr) == (code, True)


def test_verification_ends_only_by_an_option_in_the_url_and_is_told_of(world: World) -> None:
    settings = {
        "SWITCHBOARD_AMQP_URL": world.settings["SWITCHBOARD_AMQP_URL"] + "?no_verify_ssl=1",
        "SWITCHBOARD_REDIS_URL": world.settings["SWITCHBOARD_REDIS_URL"] + "?ssl_cert_reqs=none",
        "SWITCHBOARD_TLS_CA": str(world.other.file),
        "SWITCHBOARD_SHARDS": SHARDS,
    }
    done = run_command_now("status", settings=settings)
    assert done.returncode == ExitCode.OK, done.stderr
    assert "the certificate of RabbitMQ at localhost:" in done.stderr
    assert "the certificate of Redis is not verified" in done.stderr
    done = run_command_now("doctor", settings=settings)
    assert done.returncode == ExitCode.OK, done.stdout
    assert done.stdout.count("the certificate is not verified, so whoever is in between can read and change") == 2


async def test_a_server_that_asks_for_a_certificate_refuses_who_has_none_of_its_authority(world: World) -> None:
    url, ours = f"amqps://guest:guest@localhost:{world.strict_broker.tls_port}/", world.ours.issue("client")
    settings = world.settings | {"SWITCHBOARD_AMQP_URL": url}
    for given, reason in (
        (settings, "CERTIFICATE_REQUIRED"),
        (_with(settings, world.other.issue("stranger")), "UNKNOWN_CA"),
    ):
        done = await run_command("topology", "apply", settings=given)
        for _ in range(ATTEMPTS):
            if "reset by peer" not in done.stderr:
                break
            # The server's reset may overtake the alert in front of it; whoever tries again reads that.
            done = await run_command("topology", "apply", settings=given)
        assert done.returncode == ExitCode.BROKER, done.stderr
        assert f"{reason}). Mend: name one that it accepts as SWITCHBOARD_TLS_CERT" in done.stderr
    right = await run_command("topology", "apply", settings=_with(settings, ours))
    assert right.returncode == ExitCode.OK, right.stderr


def _with(settings: dict[str, str], issued: Issued) -> dict[str, str]:
    return settings | {"SWITCHBOARD_TLS_CERT": str(issued.certificate), "SWITCHBOARD_TLS_KEY": str(issued.key)}


async def test_redis_may_ask_for_a_certificate_as_well(world: World) -> None:
    url, client = (
        f"{world.settings['SWITCHBOARD_REDIS_URL']}?ssl_ca_certs={world.ours.file}",
        world.ours.issue("client"),
    )
    world.redis.require("yes")
    try:
        async with asyncio.timeout(30):
            while isinstance(error := await _failure(url), StoreUnavailable):
                # The server's reset may overtake the alert in front of it; whoever tries again reads that.
                assert "reset" in str(error)
        assert isinstance(error, StoreRefused)
        assert "CERTIFICATE_REQUIRED" in str(error)
        assert await _failure(f"{url}&ssl_certfile={client.certificate}&ssl_keyfile={client.key}") is None
    finally:
        world.redis.require("no")


async def _failure(url: str) -> Exception | None:
    store = RedisStore(url, "tls", Retention())
    try:
        await store.open()
        await store.claim()
    except (StoreRefused, StoreUnavailable) as error:
        return error
    else:
        return None
    finally:
        await store.close()


async def test_external_logs_in_as_the_user_that_the_certificate_names(world: World) -> None:
    bot, nobody = world.ours.issue("bot-of-ada"), world.ours.issue("nobody")
    await world.broker.rabbitmqctl("add_user", "bot-of-ada", "")
    await world.broker.rabbitmqctl("set_permissions", "bot-of-ada", ".*", ".*", ".*")
    url = f"amqps://localhost:{world.broker.tls_port}/?cafile={world.ours.file}&auth=external"
    async with BrokerClient(f"{url}&certfile={bot.certificate}&keyfile={bot.key}"):
        assert set(await _connections(world.broker, "user")) == {"bot-of-ada"}
    client = BrokerClient(f"{url}&certfile={nobody.certificate}&keyfile={nobody.key}")
    with pytest.raises(BrokerRefused, match="EXTERNAL"):
        await client.open()
    await client.close()


async def test_sentinels_and_the_primary_they_name_are_verified(world: World) -> None:
    sentinel = tls_sentinel(world.ours, world.server, world.redis)
    try:
        await sentinel.start()
        url = f"rediss+sentinel://localhost:{sentinel.tls_port}/{PRIMARY}/0"
        assert await _failure(f"{url}?ssl_ca_certs={world.ours.file}") is None
        error = await _failure(f"{url}?ssl_ca_certs={world.other.file}")
        assert isinstance(error, StoreRefused), error
        assert "self-signed certificate" in str(error)
        world.redis.show(world.elsewhere)
        error = await _failure(f"{url}?ssl_ca_certs={world.ours.file}")
        assert isinstance(error, StoreRefused), error
        assert "mismatch" in str(error)
    finally:
        world.redis.show(world.server)
        sentinel.remove_now()


async def test_the_nodes_of_a_cluster_are_verified(world: World) -> None:
    node = tls_cluster(world.ours, world.server)
    try:
        await node.start()
        own_all_slots(node)
        url = f"rediss+cluster://localhost:{node.tls_port}"
        assert await _failure(f"{url}?ssl_ca_certs={world.ours.file}") is None
        error = await _failure(f"{url}?ssl_ca_certs={world.other.file}")
        assert isinstance(error, StoreRefused), error
    finally:
        node.remove_now()


@pytest.mark.parametrize("certificate", ["missing", "of another key", "encrypted key"])
async def test_files_that_cannot_be_used_are_named_at_once(world: World, tmp_path: Path, certificate: str) -> None:
    ours = world.ours.issue("client")
    file, key = str(ours.certificate), str(ours.key)
    if certificate == "missing":
        file = str(tmp_path / "none.crt")
    elif certificate == "of another key":
        key = str(world.server.key)
    else:
        key = str(world.ours.issue_encrypted("client").key)
    options = f"ssl_certfile={file}&ssl_keyfile={key}"
    error = await _failure(f"rediss://localhost:{world.redis.tls_port}/0?{options}")
    assert isinstance(error, StoreRefused)
    assert file in str(error)
    client = BrokerClient(f"amqps://guest:guest@localhost:{world.broker.tls_port}/?certfile={file}&keyfile={key}")
    with pytest.raises(BrokerRefused, match="cannot be used"):
        await client.open()
    await client.close()
