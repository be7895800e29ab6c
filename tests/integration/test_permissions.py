"""The users of `deploy/`: each does its job on real servers, and can do nothing of what another's job is."""

import json
from collections.abc import Iterator

import aiormq
import pytest
import redis

from interfaces.client import BrokerClient
from interfaces.errors import BrokerRefused, ExitCode
from tests.services.command import ROOT, run_command
from tests.services.local import LocalBroker
from tests.services.processes import WorkerProcess
from tests.services.redis_node import RedisNode

PERMISSIONS = ROOT / "deploy/rabbitmq/permissions.json"
USERS = ROOT / "deploy/redis/users.acl"
WORD = "a-word"
OPERATOR, WORKER, CLIENT, EDGE, SCALER = (
    f"switchboard-{role}" for role in ("operator", "worker", "client-web", "edge-telegram", "scaler")
)


class Place:
    """Servers with the users of the shipped files."""

    def __init__(self) -> None:
        self.broker, self.redis = LocalBroker(), RedisNode()

    def start(self) -> None:
        self.broker.start_now()
        self.redis.start_now()
        for user in {entry["user"] for entry in json.loads(PERMISSIONS.read_text())["permissions"]}:
            self.broker.rabbitmqctl_now("add_user", user, WORD)
        self.broker.rabbitmqctl_now("import_definitions", str(PERMISSIONS))
        for line in USERS.read_text().splitlines():
            _, user, *rules = line.split()
            if user != "default":
                self.redis.ask("ACL", "SETUSER", user, *rules, "on", f">{WORD}")

    def amqp(self, user: str) -> str:
        return f"amqp://{user}:{WORD}@{self.broker.url.partition('@')[2]}"

    def settings(self, user: str) -> dict[str, str]:
        url = f"redis://{user}:{WORD}@127.0.0.1:{self.redis.port}/0"
        return {"SWITCHBOARD_AMQP_URL": self.amqp(user), "SWITCHBOARD_REDIS_URL": url, "SWITCHBOARD_SHARDS": "2"}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    place = Place()
    try:
        place.start()
        yield place
    finally:
        place.broker.remove_now()
        place.redis.remove_now()


async def test_each_role_can_do_its_job(place: Place) -> None:
    refused = await run_command("run", "tests.bots.echoing:bot", settings=place.settings(WORKER))
    assert refused.returncode == ExitCode.BROKER, refused.stderr  # nothing is declared, and it is not a worker's to do
    applied = await run_command("topology", "apply", settings=place.settings(OPERATOR))
    assert applied.returncode == ExitCode.OK, applied.stderr
    worker = await WorkerProcess.start(["-m", "worker.cli", "run", "tests.bots.echoing:bot"], place.settings(WORKER))
    try:
        await worker.ready()
        async with BrokerClient(place.amqp(CLIENT), interface="web") as client, client.replies() as replies:
            assert (await client.ask("Hello", "ada")).turn == 1
            await client.send("again", "ada")
            assert (await anext(replies)).turn == 2
            await client.send("fail", "bob")
            assert (await anext(replies)).status == "error"
        async with BrokerClient(place.amqp(EDGE), interface="telegram") as edge:
            assert (await edge.ask("Hello", "eve")).turn == 1
        for arguments in (
            ["status"],
            ["doctor"],
            ["dead", "list"],
            ["context", "show", "ada"],
            ["dead", "drop", "--all", "--yes"],
        ):
            done = await run_command(*arguments, settings=place.settings(OPERATOR))
            assert done.returncode == ExitCode.OK, (arguments, done.stdout, done.stderr)
        await _see_the_doctor_as_a_worker(place)
        assert await worker.stop() == ExitCode.OK
    finally:
        await worker.kill()


async def _see_the_doctor_as_a_worker(place: Place) -> None:
    """With a worker's permissions the doctor finds what a worker needs, and says what it could not look at."""
    done = await run_command("doctor", "--json", settings=place.settings(WORKER))
    assert done.returncode == ExitCode.OK, done.stdout
    checks = json.loads(done.stdout)["checks"]
    skipped = {check["check"] for check in checks if check["status"] == "skip"}
    assert skipped == {"topology", "RabbitMQ permissions", "bindings, policies", "contexts"}
    told = {check["check"]: check["detail"] for check in checks if check["status"] == "ok"}
    assert told["RabbitMQ permissions"] == "declare, publish, consume, delete"
    assert told["Redis permissions"] == "load, commit, read; not delete, which a worker need not"
    left = place.redis.ask("KEYS", "switchboard:ctx:{switchboard-doctor-*")
    assert isinstance(left, list)
    assert [0 < int(str(place.redis.ask("TTL", key))) <= 60 for key in left] == [True]


DENIED = [
    *[
        (CLIENT, "consume", it)
        for it in ("requests.g1.000", "dead", "reply.other.1", "reply.worker.1", "edge.telegram")
    ],
    *[(CLIENT, "publish", it) for it in ("dead", "replies", "")],
    *[(CLIENT, "delete", it) for it in ("requests.g1.000", "dead")],
    *[(CLIENT, "bind", it) for it in ("#", "other.#")],
    *[(EDGE, "consume", it) for it in ("requests.g1.000", "dead", "reply.web.1", "edge.other")],
    (EDGE, "bind", "#"),
    *[(WORKER, "delete", it) for it in ("requests.g1.000", "dead")],
    *[(WORKER, "declare", it) for it in ("requests.g2.000", "reply.web.1")],
    *[(WORKER, "consume", it) for it in ("dead", "reply.web.1")],
    (WORKER, "publish", "requests"),
    *[(SCALER, what, "requests.g1.000") for what in ("consume", "delete")],
    *[(SCALER, "publish", it) for it in ("requests", "")],
]


@pytest.mark.parametrize(("user", "what", "name"), DENIED)
async def test_no_role_can_do_the_job_of_another(place: Place, user: str, what: str, name: str) -> None:
    await _have_queues(place)
    connection = await aiormq.connect(place.amqp(user))
    try:
        channel = await connection.channel()
        with pytest.raises(aiormq.exceptions.ChannelAccessRefused):
            await _try(channel, user, what, name)
    finally:
        await connection.close()


async def _have_queues(place: Place) -> None:
    applied = await run_command("topology", "apply", settings=place.settings(OPERATOR))
    assert applied.returncode == ExitCode.OK, applied.stderr
    connection = await aiormq.connect(place.broker.url)
    channel = await connection.channel()
    for name in ("reply.other.1", "reply.worker.1", "reply.web.1", "edge.telegram", "edge.other"):
        await channel.queue_declare(f"switchboard.{name}", durable=True)
    await connection.close()


async def _try(channel: aiormq.abc.AbstractChannel, user: str, what: str, name: str) -> None:
    full = f"switchboard.{name}"
    if what == "consume":
        await channel.basic_consume(full, _ignore)
    elif what == "delete":
        await channel.queue_delete(full)
    elif what == "declare":
        await channel.queue_declare(full, durable=True)
    elif what == "bind":
        own = f"switchboard.reply.{user.rpartition('-')[2]}.bound"
        await channel.queue_declare(own, durable=True)
        await channel.queue_bind(own, exchange="switchboard.replies", routing_key=name)
    else:
        exchange = full if name else ""
        await channel.basic_publish(b"{}", exchange=exchange, routing_key="switchboard.dead")


async def _ignore(message: object) -> None:
    """Nothing arrives."""


async def test_a_missing_topology_is_not_made_by_somebody_who_may_not(place: Place) -> None:
    async with BrokerClient(place.amqp(CLIENT), interface="other") as client:
        with pytest.raises(BrokerRefused, match="a permission is missing"):
            await client.ask("Hello", "ada", timeout=5)


@pytest.mark.parametrize(
    ("user", "command"),
    [
        (WORKER, ["KEYS", "*"]),
        (WORKER, ["SCAN", "0"]),
        (WORKER, ["FLUSHALL"]),
        (WORKER, ["CONFIG", "GET", "*"]),
        (WORKER, ["DEL", "switchboard:plan"]),
        (WORKER, ["GET", "others:key"]),
        (WORKER, ["EVAL", "return 1", "0"]),
        (OPERATOR, ["FLUSHALL"]),
        (OPERATOR, ["CONFIG", "SET", "dir", "/"]),
        (OPERATOR, ["ACL", "LIST"]),
        (OPERATOR, ["DEL", "others:key"]),
    ],
)
def test_redis_users_reach_their_namespace_and_their_commands_only(place: Place, user: str, command: list[str]) -> None:
    with (
        redis.Redis(port=place.redis.port, username=user, password=WORD) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*command)


def test_every_user_of_the_shipped_file_is_off_until_it_has_a_password() -> None:
    for line in USERS.read_text().splitlines():
        assert line.split()[2:4] == ["off", "resetpass"]
