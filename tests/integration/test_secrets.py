"""No password is anywhere to be seen: every command, on servers that are right, that refuse, and that are away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from interfaces.client import BrokerClient
from interfaces.errors import SwitchboardError
from tests.services.command import run_command_now
from tests.services.local import LocalBroker
from tests.services.processes import WorkerProcess
from tests.services.redis_node import RedisNode
from worker.stores import Retention
from worker.stores.redis import RedisStore

PARTS = ("hunter2", "hunter3")
PASSWORD = "-%25-".join(PARTS)
NOBODY = "127.0.0.1:1"
BOT = "tests.bots.echoing:bot"

COMMANDS = [
    ["send", "ada", "Hello", "--no-wait", "--json"],
    ["topology", "apply"],
    ["topology", "show", "--json"],
    ["topology", "reshard", "--shards", "1"],
    ["status", "--json"],
    ["status"],
    ["dead", "list", "--json"],
    ["dead", "replay", "--all", "--yes"],
    ["context", "show", "ada"],
    ["context", "delete", "ada", "--yes"],
    ["context", "import"],
    ["doctor", "--json"],
    ["doctor"],
    ["doctor", "--management-url", "http://127.0.0.1:1"],
    ["chat", "--timeout", "1"],
    ["edge", "chatsky.messengers.console:CLIMessengerInterface", "--log-level", "debug"],
    ["schema"],
]


class Places:
    """Two servers with passwords, and the settings that lead to them or past them."""

    def __init__(self) -> None:
        self.broker, self.redis = LocalBroker(), RedisNode()

    def settings(self, where: str) -> dict[str, str]:
        amqp, redis = (NOBODY, NOBODY) if where == "away" else (self.broker.url.split("@")[1][:-1], self._redis)
        wrong = "-wrong" if where == "wrong" else ""
        return {
            "SWITCHBOARD_AMQP_URL": f"amqp://bot:{PASSWORD}{wrong}@{amqp}/",
            "SWITCHBOARD_REDIS_URL": f"redis://bot:{PASSWORD}{wrong}@{redis}/0",
            "CHATSKY_REDIS_URL": f"redis://bot:{PASSWORD}{wrong}@{redis}/0",
            "SWITCHBOARD_SHARDS": "1",
        }

    @property
    def _redis(self) -> str:
        return f"127.0.0.1:{self.redis.port}"


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    places = Places()
    plain = PASSWORD.replace("%25", "%")
    try:
        places.broker.start_now()
        places.redis.start_now()
        places.broker.rabbitmqctl_now("add_user", "bot", plain)
        places.broker.rabbitmqctl_now("set_permissions", "bot", ".*", ".*", ".*")
        places.redis.ask("ACL", "SETUSER", "bot", "on", f">{plain}", "~*", "+@all")
        yield places
    finally:
        places.broker.remove_now()
        places.redis.remove_now()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "where", ["right", pytest.param("wrong", marks=pytest.mark.long), pytest.param("away", marks=pytest.mark.long)]
)
def test_no_command_shows_a_password(places: Places, where: str) -> None:
    settings = places.settings(where)
    codes = {}
    for arguments in COMMANDS:
        if where == "away" and arguments[0] == "edge":
            continue  # It waits for the broker until it is stopped.
        done = run_command_now(*arguments, settings=settings)
        codes[" ".join(arguments)] = done.returncode
        assert not shown_in(done.stdout + done.stderr), (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, (arguments, done.stderr)
    assert codes["schema"] == 0
    assert (codes["topology apply"] == 0) is (where == "right"), codes
    assert {"right": 0, "wrong": 5, "away": 1}[where] == codes["context import"]


def shown_in(text: str) -> list[str]:
    return [part for part in PARTS if part in text]


@pytest.mark.parametrize("where", ["right", "wrong", "away"])
async def test_no_worker_shows_a_password_in_its_log_or_to_the_list_of_processes(places: Places, where: str) -> None:
    process = await WorkerProcess.start(
        ["-m", "worker.cli", "run", BOT, "--processes", "2", "--log-level", "debug"], places.settings(where)
    )
    try:
        if where == "wrong":
            assert await process.ended() == 5
        elif where == "right":
            await process.ready()
        else:
            await process.logged("waiting for Redis")
        seen = [place.read_text() for place in _cmdlines(process.pid)] if process.is_running else []
        assert len(seen) == (0 if where == "wrong" else 3)
        assert not shown_in("".join(seen))
    finally:
        await process.stop() if process.is_running else None
    assert not shown_in(process.log), process.log


def _cmdlines(pid: int) -> list[Path]:
    """Of the process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{it}/cmdline") for it in (str(pid), *children)]


BAD = ["amqp://bot:{}/unquoted@127.0.0.1/", "amqp://bot:{}@127.0.0.1:port/", "amqp://bot:{}@[::1/", "http://bot:{}@h/"]


@pytest.mark.parametrize("where", ["wrong", "away", *BAD])
async def test_no_error_of_the_library_shows_a_password(places: Places, where: str) -> None:
    settings = places.settings(where)
    amqp, redis = settings["SWITCHBOARD_AMQP_URL"], settings["SWITCHBOARD_REDIS_URL"]
    if where in BAD:
        amqp = where.format(PASSWORD)
        redis = amqp.replace("amqp", "redis")
    with pytest.raises((SwitchboardError, ValueError)) as caught:
        async with BrokerClient(amqp):
            pass
    with pytest.raises((SwitchboardError, ValueError)) as of_store:
        await RedisStore(redis, "secrets", Retention()).open()
    for raised in (caught.value, of_store.value):
        error: BaseException | None = raised
        while error is not None:
            assert not shown_in(repr(error) + str(error)), repr(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
