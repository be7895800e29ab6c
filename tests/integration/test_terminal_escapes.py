"""No command passes on to the terminal what strangers wrote to steer it, whichever way it came in."""

import re

import pytest
from pamqp import commands

from interfaces.client import BrokerClient
from interfaces.topology import Topology
from tests.conformance.broker_probes import eventually
from tests.integration.conftest import StartWorker
from tests.integration.wire import Wire
from tests.services.command import run_command
from worker.stores.redis import RedisStore

EVIL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m\x85\r\x08"
CTX_ID = f"ada{EVIL}"
SECONDS = 180
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

COMMANDS = [
    ["send", CTX_ID, f"hello{EVIL}"],
    ["context", "show", CTX_ID],
    ["context", "export", CTX_ID],
    ["context", "delete", CTX_ID, "--dry-run"],
    ["dead", "list"],
    ["dead", "show"],
    ["status"],
    ["topology", "show"],
    ["doctor"],
]


@pytest.mark.timeout(SECONDS)
async def test_no_command_prints_what_steers_a_terminal(
    topology: Topology,
    client: BrokerClient,
    wire: Wire,
    store: RedisStore,
    start_worker: StartWorker,
    worker_settings: dict[str, str],
) -> None:
    worker = await (await start_worker("tests.bots.counting:answer")).ready()
    await client.ask(f"hello{EVIL}", CTX_ID)
    await wire.channel.basic_publish(
        f'{{"{EVIL!r}": 1}}'.encode(),
        exchange=topology.requests_exchange,
        routing_key="1",
        properties=commands.Basic.Properties(message_id=f"stranger{EVIL}", headers={EVIL: EVIL}),
    )

    async def is_dead() -> bool:
        return await wire.count(topology.dead) == 1

    await eventually(is_dead, "the stranger's request is a dead letter")
    [said] = (await store.living()).values()
    await store.announce(f"forged{EVIL}", said, lives_for=SECONDS)

    shown = ""
    for command in COMMANDS:
        ran = await run_command(*command, settings=worker_settings)
        assert ran.returncode == 0, (command, ran)
        assert STEERING.search(ran.stdout + ran.stderr) is None, command
        shown += ran.stdout
    assert STEERING.search(worker.log) is None
    # Otherwise nothing of it was there to be shown.
    assert [word for word in ("ada", "red", "stranger", "forged") if word not in shown] == []
