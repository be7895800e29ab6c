"""Every file of the corpus at the decoder: refused with the reason beside it, or passed on."""

from dataclasses import replace

import pytest
from pamqp import commands

from interfaces.brokers import Delivery
from interfaces.brokers.properties import from_amqp, to_amqp
from interfaces.brokers.tolerant_decoding import install
from interfaces.envelope import decode_request
from interfaces.errors import Reason, RequestRejected
from interfaces.reply_bodies import encode_error_reply
from interfaces.topology import Topology
from tests.hostile_inputs import ANSWERED, BY_THE_BOT, HostileInput, Published, load_corpus
from tests.unit.deliveries import StubChannel

TOPOLOGY = Topology("ns", shards=4)
CORPUS = load_corpus()
OF_THE_TURN = {
    *(Reason.CONTEXT_INVALID, Reason.CRASHES_WORKER, Reason.TURN_TIMEOUT, Reason.REJECTED, Reason.RATE_LIMITED)
}
OF_THE_WIRE = frozenset(Reason) - BY_THE_BOT - OF_THE_TURN

install()


def delivered(published: Published) -> Delivery:
    """The delivery a message becomes, its properties once through their bytes."""
    received = commands.Basic.Properties()
    encoded = published.properties.marshal()
    received.unmarshal(int.from_bytes(encoded[:2], "big"), encoded[2:])
    properties, count = from_amqp(received)
    return Delivery(
        published.body, properties, published.exchange, published.routing_key, count > 0, count, 1, StubChannel()
    )


def outcome(delivery: Delivery) -> tuple[str, str]:
    """A reason and its detail, or that it was passed on."""
    try:
        decode_request(delivery, TOPOLOGY)
    except RequestRejected as rejected:
        return rejected.reason.value, rejected.detail
    return ANSWERED, ""


@pytest.mark.parametrize("hostile", CORPUS, ids=[hostile.name for hostile in CORPUS])
def test_each_is_refused_for_its_reason_or_passed_on(hostile: HostileInput) -> None:
    delivery = delivered(hostile.published(TOPOLOGY, "ns.reply.x"))
    reason, detail = outcome(delivery)
    assert reason == (ANSWERED if hostile.passes_the_decoder else hostile.expected)
    assert detail.isprintable()
    assert len(detail) <= 400
    # A dead letter and an error reply can be made of it.
    to_amqp(replace(delivery.properties, expiration=None)).marshal()
    encode_error_reply(None, delivery.properties.message_id, RequestRejected(Reason.BAD_JSON, detail))


def test_there_is_an_input_for_every_reason_the_wire_can_cause() -> None:
    assert {hostile.expected for hostile in CORPUS} >= OF_THE_WIRE | {ANSWERED}
    assert len(CORPUS) >= 120
    assert all(hostile.why for hostile in CORPUS)
