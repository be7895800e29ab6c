"""Dead letters of requests that no file of the corpus can be: without any property, or with one of this broker's user.

All others, with what becomes of them, are in `test_hostile_inputs`.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from interfaces.brokers import Outgoing, Properties
from interfaces.brokers.rabbitmq import RabbitMQBroker
from interfaces.errors import Reason
from interfaces.topology import Topology
from tests.conformance.broker_probes import eventually
from tests.integration.conftest import StartWorker
from tests.integration.wire import Seen, Wire

BOT = "tests.bots.counting:answer"
PROPERTIES = {field.name for field in fields(Properties)} - {"headers"}
ADDED = {"reason", "detail", "attempts", "worker", "failed-at", "exchange", "routing-key"}


async def the_dead_letter(wire: Wire, topology: Topology) -> Seen:
    async def arrived() -> bool:
        return await wire.count(topology.dead) == 1

    await eventually(arrived, "a dead letter")
    [dead] = await wire.take_all(topology.dead)
    return dead


def added_headers(dead: Seen) -> Mapping[str, Any]:
    """The headers of a dead letter but for the one of the quorum queue it is on."""
    return {key: value for key, value in (dead.properties.headers or {}).items() if key != "x-delivery-count"}


async def test_a_bare_request_gains_no_property_on_its_way_to_the_dead_letters(
    topology: Topology, broker: RabbitMQBroker, wire: Wire, start_worker: StartWorker
) -> None:
    await start_worker(BOT)
    await broker.publish(Outgoing(topology.requests_exchange, "0", b"hello", Properties()))
    dead = await the_dead_letter(wire, topology)

    assert dead.body == b"hello"
    assert {name for name in PROPERTIES if getattr(dead.properties, name) is not None} == set()
    assert added_headers(dead).keys() == {f"x-switchboard-{name}" for name in ADDED}
    assert added_headers(dead)["x-switchboard-reason"] == Reason.BAD_MESSAGE_ID


async def test_expiration_and_user_id_travel_as_headers_of_the_dead_letter(
    topology: Topology, amqp_url: str, broker: RabbitMQBroker, wire: Wire, start_worker: StartWorker
) -> None:
    """As properties the one would delete the dead letter, and the other is refused by the broker for another's user."""
    await start_worker(BOT)
    user = urlsplit(amqp_url).username or "guest"
    properties = Properties(content_type="text/plain", message_id="r1", expiration="600000", user_id=user)
    await broker.publish(Outgoing(topology.requests_exchange, "0", b"hello", properties))
    dead = await the_dead_letter(wire, topology)

    assert (dead.properties.message_id, dead.properties.expiration, dead.properties.user_id) == ("r1", None, None)
    assert added_headers(dead)["x-switchboard-expiration"] == "600000"
    assert added_headers(dead)["x-switchboard-user-id"] == user
