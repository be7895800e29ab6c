"""`switchboard dead` on real servers: looking changes nothing, and what is hostile can be handled like all else."""

import asyncio
import json
import re
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pamqp import commands

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.properties import from_amqp
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.dead_letters import dead_letter
from interfaces.errors import ExitCode, Reason, RequestRejected
from interfaces.topology import Topology
from tests.conformance.broker_probes import holds_messages
from tests.hostile_inputs import load_corpus
from tests.integration.dead_command import DeadCommand, buried, publish_all
from tests.integration.test_odd_properties import ODD
from tests.integration.wire import Seen, Wire
from tests.unit.deliveries import delivery

pytestmark = pytest.mark.timeout(180)

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\n\tx"
NESTED: dict[str, Any] = {"a": 1}
for _ in range(100):
    NESTED = {"a": NESTED}
HOSTILE: dict[str, Properties] = {
    "bare": Properties(),
    "escapes": Properties(
        message_id=EVIL,
        headers={
            EVIL: EVIL,
            "x-switchboard-reason": EVIL,
            "x-switchboard-detail": EVIL * 50,
            "x-switchboard-worker": EVIL,
        },
    ),
    "ours of other types": Properties(
        message_id="types",
        headers={f"x-switchboard-{name}": [1] for name in ("reason", "detail", "worker", "failed-at", "attempts")},
    ),
    "a time that is none": Properties(message_id="time", headers={"x-switchboard-failed-at": "0000-99-99"}),
    "an expiration that is none": Properties(message_id="exp", headers={"x-switchboard-expiration": "never"}),
    "deep": Properties(message_id="deep", headers={"a": NESTED}),
    "large": Properties(message_id="large", headers={"a": "x" * 130_000}),
    "routes": Properties(message_id="routes", headers={"CC": ["1", "2"]}),
    "the form of a tag": Properties(message_id="tag", headers={"a": {"$text": "eA=="}, "$bytes": 1}),
}
BODIES = [b"", b"\xff\xfe", b"[" * 10_000, EVIL.encode(), json.dumps({"ctx_id": EVIL, "version": 1}).encode()]


@pytest.fixture
def dead(worker_settings: dict[str, str]) -> DeadCommand:
    return DeadCommand(worker_settings)


def as_bytes(seen: list[Seen]) -> list[tuple[bytes, bytes, str]]:
    """Messages byte for byte, but for how often each was delivered."""
    for each in seen:
        (each.properties.headers or {}).pop("x-delivery-count", None)
    return [(each.body, each.properties.marshal(), each.routing_key) for each in seen]


async def bury_three(broker: RabbitMQBroker, topology: Topology) -> list[Outgoing]:
    letters = [
        buried(topology, "ada", "0", worker="Interface-aaa"),
        buried(topology, "bob", "1", reason=Reason.CRASHES_WORKER, worker="Interface-bbb"),
        buried(topology, "ada", "2", reason=Reason.REPLY_INVALID, worker="Interface-aaa"),
    ]
    await publish_all(broker, letters)
    return letters


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        ([], ["ada-0", "bob-1", "ada-2"]),
        (["--reason", "handler-failed"], ["ada-0"]),
        (["--reason", "handler-failed", "--reason", "reply-invalid"], ["ada-0", "ada-2"]),
        (["--context", "ada"], ["ada-0", "ada-2"]),
        (["--context", "ada", "--reason", "crashes-worker"], []),
        (["--worker", "bbb"], ["bob-1"]),
        (["--worker", "Interface-aaa"], ["ada-0", "ada-2"]),
        (["--since", "1h"], ["ada-0", "bob-1", "ada-2"]),
        (["--until", "1h"], []),
        (["--since", (datetime.now(UTC) + timedelta(days=1)).isoformat()], []),
        (["bob-1", "ada-2"], ["bob-1", "ada-2"]),
        (["--scan", "2"], ["ada-0", "bob-1"]),
    ],
)
async def test_filters_say_which(
    broker: RabbitMQBroker, topology: Topology, dead: DeadCommand, arguments: list[str], ids: list[str]
) -> None:
    await bury_three(broker, topology)
    assert [letter["request_id"] for letter in await dead.listed(*arguments)] == ids


async def test_a_smaller_scan_than_before_moves_what_it_held_behind_the_rest(
    broker: RabbitMQBroker, topology: Topology, dead: DeadCommand
) -> None:
    """What the page says it does: a quorum queue puts what comes back behind all else that came back."""
    await bury_three(broker, topology)
    await dead("list")
    await dead("list", "--scan", "1")
    assert [letter["request_id"] for letter in await dead.listed()] == ["bob-1", "ada-2", "ada-0"]


async def test_a_filter_says_what_is_replayed_and_what_is_dropped(
    broker: RabbitMQBroker, topology: Topology, dead: DeadCommand
) -> None:
    await bury_three(broker, topology)
    assert json.loads((await dead("replay", "--context", "bob", "--json")).out)["replayed"] == [
        {"request_id": "bob-1", "new_id": "bob-1"}
    ]
    assert (await dead("drop", "--reason", "reply-invalid", "--yes")).out == "1 dead letter dropped\n"
    assert [letter["request_id"] for letter in await dead.listed()] == ["ada-0"]
    assert (await dead("drop", "nobody", "--yes")).out == "0 dead letters dropped\n"


async def test_looking_and_trying_change_nothing(
    broker: RabbitMQBroker, topology: Topology, wire: Wire, dead: DeadCommand, tmp_path: Path
) -> None:
    """Byte for byte, and in the same order."""
    await bury_three(broker, topology)
    taken = await wire.take_all(topology.dead)
    before = as_bytes(taken)
    assert len(before) == 3
    for each in taken:
        await wire.channel.basic_publish(
            each.body, exchange=topology.dead, routing_key=each.routing_key, properties=each.properties
        )

    await dead("list", "--scan", "1")
    await dead("list")
    await dead("show", "ada-0")
    await dead("show", "nobody", code=ExitCode.FAILED)
    await dead("export", str(tmp_path / "lines"))
    assert "3 dead letters would be replayed" in (await dead("replay", "--all", "--dry-run")).out
    assert "2 dead letters would be replayed" in (await dead("replay", "--context", "ada", "--dry-run")).out
    assert "3 dead letters would be dropped" in (await dead("drop", "--all", "--dry-run")).out
    assert "0 would be published, 3 were there" in (await dead("import", str(tmp_path / "lines"), "--dry-run")).out
    assert "0 published, 3 were there" in (await dead("import", str(tmp_path / "lines"))).out
    for arguments in (["replay"], ["drop", "--yes"], ["drop", "--all"], ["replay", "--all", "--context", "ada"]):
        await dead(*arguments, code=ExitCode.USAGE)

    await holds_messages(broker, topology.dead, 3)
    assert as_bytes(await wire.take_all(topology.dead)) == before
    assert [await wire.count(queue) for queue in topology.shard_queues] == [0] * topology.shards


async def bury_the_hostile(wire: Wire, topology: Topology) -> int:
    """Whatever a stranger could have published, as workers have made dead letters of it, and without a worker."""
    number = 0
    strangers = [*HOSTILE.values(), *(Properties(**({"message_id": "odd"} | odd)) for odd in ODD.values())]
    for properties in strangers:
        for body in BODIES:
            await publish_raw(wire, Outgoing(topology.dead, str(number % 3 or ""), body, properties))
            number += 1
    bad = [hostile for hostile in load_corpus() if hostile.broker is None and not hostile.is_answered]
    for each in bad:
        published = each.published(topology, f"{topology.reply_prefix}x")
        came = replace(delivery(each.body), properties=from_amqp(published.properties)[0], routing_key="7")
        await publish_raw(wire, dead_letter(topology, came, RequestRejected(Reason(each.expected), EVIL), "worker 1"))
    return number + len(bad)


async def publish_raw(wire: Wire, message: Outgoing) -> None:
    properties = commands.Basic.Properties()
    for name in Properties.__dataclass_fields__:
        setattr(properties, name, getattr(message.properties, name))  # Past the constructor, as a stranger's client.
    await wire.channel.basic_publish(
        message.body, exchange=message.exchange, routing_key=message.routing_key, properties=properties
    )


async def test_hostile_dead_letters_can_be_listed_shown_exported_dropped_and_imported(
    broker: RabbitMQBroker, topology: Topology, wire: Wire, dead: DeadCommand, tmp_path: Path
) -> None:
    number = await bury_the_hostile(wire, topology)
    await holds_messages(broker, topology.dead, number)
    assert len(await dead.listed()) == number
    assert len((await dead("show", "--json", "--limit", "1000")).out.splitlines()) == number
    for looking in (["list", "--limit", "1000"], ["show", "--limit", "1000"], ["list", "--json"], ["show", "--json"]):
        steering = re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", (await dead(*looking)).out)
        assert steering is None, looking
    boxes = (await dead("list", FORCE_COLOR="1", COLUMNS="80")).out
    assert not re.search(r"\x1b\]|\x9b|\x07|\x1b\[2J", boxes)

    file = tmp_path / "lines"
    await dead("export", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text().splitlines()) == number
    assert f"{number} dead letters dropped" in (await dead("drop", "--all", "--yes")).out
    await holds_messages(broker, topology.dead, 0)

    # Some have one id in one context: of these, the first counts.
    first = (await dead("import", str(file))).out
    published = int(re.findall(r"(\d+) published", first)[0])
    assert "0 refused" in first
    assert 0 < published < number
    await holds_messages(broker, topology.dead, published)
    assert f"0 published, {number} were there already, 0 refused" in (await dead("import", str(file))).out


async def test_an_export_that_is_imported_is_the_same_byte_for_byte(
    broker: RabbitMQBroker, topology: Topology, wire: Wire, dead: DeadCommand, tmp_path: Path
) -> None:
    """Of those with one id in one context an import publishes the first, so the others are imported after it."""
    every_kind = [*HOSTILE.values(), *(Properties(**odd) for odd in ODD.values())]
    for properties in every_kind:
        for body in BODIES[:2]:
            await publish_raw(wire, Outgoing(topology.dead, "7", body, properties))
    await holds_messages(broker, topology.dead, 2 * len(every_kind))
    file = tmp_path / "lines"
    await dead("export", str(file))
    left = list(zip(file.read_text().splitlines(), as_bytes(await wire.take_all(topology.dead)), strict=True))
    while left:
        file.write_text("\n".join(line for line, _ in left))
        assert " 0 refused" in (await dead("import", str(file))).out
        came = as_bytes(await wire.take_all(topology.dead))
        assert came != [], left
        waiting = []
        for line, letter in left:
            if came and came[0] == letter:
                came.pop(0)
            else:
                waiting.append((line, letter))
        assert came == [], "imported otherwise than it was exported"
        left = waiting


async def test_an_export_never_overwrites_and_a_bad_line_is_named(
    broker: RabbitMQBroker, topology: Topology, dead: DeadCommand, tmp_path: Path
) -> None:
    await bury_three(broker, topology)
    file = tmp_path / "lines"
    file.write_text("kept")
    assert "exists" in (await dead("export", str(file), code=ExitCode.USAGE)).err
    assert file.read_text() == "kept"
    lines = (await dead("export", "-", "--context", "ada")).out.splitlines()
    assert [json.loads(line)["about"]["request_id"] for line in lines] == ["ada-0", "ada-2"]
    file.write_text(f"nonsense\n\n{lines[0]}\n")
    await dead("drop", "ada-0", "--yes")
    refused = await dead("import", str(file), code=ExitCode.FAILED)
    assert "1 published, 0 were there already, 1 refused" in refused.out
    assert "line 1: no JSON" in refused.err
    assert [letter["request_id"] for letter in await dead.listed()] == ["bob-1", "ada-2", "ada-0"]
    assert (await dead("export", str(tmp_path / "more"), "--scan", "2", code=ExitCode.FAILED)).err.count("more") == 1


async def test_a_namespace_without_a_dead_letter_queue_is_told(dead: DeadCommand) -> None:
    done = await dead("list", code=ExitCode.FAILED, SWITCHBOARD_NAMESPACE="nobody")
    assert "there is no queue 'nobody.dead'" in done.err


async def test_a_second_command_waits_and_is_told_who_holds_it_up(
    broker: RabbitMQBroker, topology: Topology, dead: DeadCommand
) -> None:
    channel = await broker.consume_alone(topology.dead, 1, lambda _: None)
    waiting = asyncio.create_task(dead("list", code=ExitCode.FAILED))
    assert "somebody else is at it" in (await waiting).err
    await channel.close()
    await dead("list")
