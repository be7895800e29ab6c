"""What a dead letter tells is checked and never believed, and the request it was comes out of it as it went in."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.brokers import Delivery, Outgoing, Properties
from interfaces.brokers.tolerant_decoding import RawText, RawTimestamp
from interfaces.dead_letters import dead_letter
from interfaces.envelope import encode_request
from interfaces.errors import Reason, RequestRejected
from interfaces.messages import Message
from interfaces.topology import Topology, slot
from tests.unit.deliveries import delivery
from worker.dead_letters import DeadLetter, buried_again, new_id, read_dead_letter, replayed

TOPOLOGY = Topology("ns")
REQUEST = encode_request(TOPOLOGY, Message("hello"), "ada", request_id="order-1")
REJECTED = RequestRejected(Reason.HANDLER_FAILED, "for the sender", internal="for operators", attempts=3)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DEATH: dict[str, Any] = {
    "count": 1,
    "reason": "expired",
    "queue": "ns.requests.g1.001",
    "time": AT,
    "exchange": "ns.requests",
    "routing-keys": ["77"],
    "original-expiration": "60000",
}


def delivered(message: Outgoing) -> Delivery:
    return replace(
        delivery(), body=message.body, properties=message.properties, exchange="x", routing_key=message.routing_key
    )


def buried(request: Outgoing = REQUEST, **properties: Any) -> Delivery:
    """The dead letter a worker makes of a request with these properties changed."""
    given_up = delivered(replace(request, properties=replace(request.properties, **properties)))
    return delivered(dead_letter(TOPOLOGY, given_up, REJECTED, "Interface-8f2c"))


def expired(body: bytes = REQUEST.body, *, death: Any = DEATH, **properties: Any) -> Delivery:
    """A dead letter that the broker makes."""
    headers = {**properties.pop("headers", {}), "x-death": [death], "x-first-death-reason": "expired"}
    message_id = properties.pop("message_id", "order-1")
    made = Properties(message_id=message_id, headers=headers, **properties)
    return delivered(Outgoing("ns.dead", "77", body, made))


def replay_of(letter: Delivery, **how: Any) -> Outgoing:
    return replayed(TOPOLOGY, letter, read_dead_letter(letter), **how)


def test_all_that_a_worker_has_written_is_read() -> None:
    letter = read_dead_letter(buried())
    assert letter.failed_at is not None
    assert letter == DeadLetter(
        reason="handler-failed",
        detail="for operators",
        request_id="order-1",
        ctx_id="ada",
        slot=slot("ada"),
        failed_at=letter.failed_at,
        worker="Interface-8f2c",
        attempts=3,
        size=len(REQUEST.body),
        digest=letter.digest,
    )
    assert letter.obstacle is None


def test_what_the_broker_gave_up_is_read_alike() -> None:
    letter = read_dead_letter(expired())
    assert (letter.reason, letter.failed_at, letter.worker, letter.attempts) == ("expired", AT, None, None)
    assert letter.detail == "by the broker, in queue ns.requests.g1.001, after 60000 ms"
    assert (letter.request_id, letter.ctx_id) == ("order-1", "ada")


def test_headers_a_sender_made_up_do_not_pass_for_the_brokers_or_a_workers() -> None:
    assert read_dead_letter(buried(headers={"x-death": [DEATH]})).reason == "handler-failed"
    assert read_dead_letter(expired(headers={"x-switchboard-reason": "handler-failed"})).reason == "expired"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"ctx_id": 5}', b'{"ctx_id": ""}', b"\xff", b"[" * 9999])
def test_without_a_context_id_a_replay_goes_by_the_original_slot(body: bytes) -> None:
    worker_made = read_dead_letter(buried(replace(REQUEST, body=body, routing_key="7")))
    assert (worker_made.ctx_id, worker_made.slot, worker_made.obstacle) == (None, 7, None)
    assert read_dead_letter(expired(body)).slot == 77


@pytest.mark.parametrize("key", ["", "1024", "-1", "x", "²", "9" * 255, 7, None])
def test_a_slot_that_is_none_is_an_obstacle(key: Any) -> None:
    letter = read_dead_letter(expired(b"", death=DEATH | {"routing-keys": [key]}))
    assert (letter.slot, letter.obstacle) == (None, "neither a context id nor a slot can be read")


@pytest.mark.parametrize("message_id", [None, ""])
def test_without_an_id_it_cannot_be_replayed(message_id: str | None) -> None:
    assert "no message_id" in str(read_dead_letter(buried(message_id=message_id)).obstacle)


odd = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers(), max_size=2)
)
names = st.sampled_from(
    [f"x-switchboard-{name}" for name in ("reason", "detail", "attempts", "worker", "failed-at", "expiration")]
    + ["x-death", "CC", "mine"]
)


@given(
    headers=st.dictionaries(names, odd | st.lists(st.dictionaries(st.sampled_from(sorted(DEATH)), odd), max_size=2)),
    body=st.binary(),
    key=st.sampled_from(["", "7", "x"]),
)
def test_whatever_the_headers_are_it_can_be_read_and_told(headers: dict[str, Any], body: bytes, key: str) -> None:
    message = Outgoing("ns.dead", key, body, Properties(message_id="m", headers=headers))
    letter = read_dead_letter(message)
    json.dumps(letter.as_data()).encode()
    if letter.obstacle is None:
        request = replayed(TOPOLOGY, delivered(message), letter)
        assert request.exchange == TOPOLOGY.requests_exchange
        assert set(request.properties.headers or {}) <= {"mine"}
        assert request.properties.expiration is None or request.properties.expiration.isdecimal()


def test_ids_that_are_not_unicode_and_times_that_are_no_dates_can_be_told() -> None:
    letter = read_dead_letter(
        expired(
            message_id=RawText(b"\xff".decode(errors="surrogateescape")),
            death=DEATH | {"time": RawTimestamp.of(2**64 - 1)},
        )
    )
    assert json.loads(json.dumps(letter.as_data()))["request_id"] == "\\udcff"


def test_a_replay_is_the_request_as_it_was() -> None:
    headers = {"mine": 1, "traceparent": "t"}
    sent = replace(REQUEST, properties=replace(REQUEST.properties, headers=headers, expiration="60000", user_id="op"))
    assert replay_of(delivered(dead_letter(TOPOLOGY, delivered(sent), REJECTED, "w")), user="op") == sent


def test_another_users_id_is_not_put_back_for_the_broker_would_refuse_it() -> None:
    assert replay_of(buried(user_id="upstream"), user="op").properties.user_id is None
    assert replay_of(expired(user_id="upstream"), user="op").properties.user_id is None
    assert replay_of(expired(user_id="op"), user="op").properties.user_id == "op"


@pytest.mark.parametrize("expiration", ["0", "999", "4294967296", "9" * 30, "x", "-1", "²"])
def test_an_expiration_that_would_kill_it_at_once_or_be_refused_is_not_put_back(expiration: str) -> None:
    assert replay_of(buried(expiration=expiration)).properties.expiration is None


def test_an_expiration_it_died_of_is_not_put_back_and_another_is() -> None:
    assert replay_of(expired()).properties.expiration is None
    limit = DEATH | {"reason": "delivery_limit"}
    assert replay_of(expired(death=limit)).properties.expiration == "60000"


def test_what_the_broker_would_take_for_a_cycle_or_for_further_routing_keys_is_taken_out() -> None:
    added = {
        "x-last-death-queue": "q",
        "x-first-death-exchange": "e",
        "x-switchboard-marker": 1,
        "CC": ["5"],
        "BCC": [],
    }
    assert replay_of(expired(headers={"mine": 1, **added})).properties.headers == {"mine": 1}
    assert replay_of(buried(headers={"x-death": [DEATH], **added})).properties.headers is None


def test_a_misrouted_request_goes_to_the_slot_of_its_context() -> None:
    assert replay_of(buried(replace(REQUEST, routing_key="5"))).routing_key == str(slot("ada"))


def test_a_request_that_is_to_run_again_has_an_id_made_of_the_old_one() -> None:
    first = replay_of(buried(correlation_id=None), run_again=True).properties
    assert first.message_id == new_id("order-1") != "order-1"
    assert first.correlation_id == "order-1"
    assert first == replay_of(buried(correlation_id=None), run_again=True).properties
    assert replay_of(buried(correlation_id="c"), run_again=True).properties.correlation_id == "c"
    assert new_id(new_id("order-1")) not in ("order-1", new_id("order-1"))


def test_a_dead_letter_is_buried_again_as_it_was() -> None:
    for letter in (buried(), expired(headers={"mine": 1})):
        message = Outgoing("", letter.routing_key, letter.body, letter.properties)
        again = buried_again(TOPOLOGY, message)
        assert (again.exchange, again.routing_key, again.body) == ("ns.dead", letter.routing_key, letter.body)
        assert again.properties == letter.properties
        assert read_dead_letter(again) == read_dead_letter(letter)


def test_what_would_delete_it_or_have_it_refused_travels_as_a_header() -> None:
    properties = Properties(message_id="m", expiration="5", user_id="somebody")
    again = buried_again(TOPOLOGY, Outgoing("", "", b"", properties)).properties
    assert (again.expiration, again.user_id) == (None, None)
    assert again.headers == {"x-switchboard-expiration": "5", "x-switchboard-user-id": "somebody"}


def test_the_digest_does_not_depend_on_the_order_of_headers_which_the_broker_changes() -> None:
    one, other = {"a": [{"b": 1, "c": 2}], "d": "x"}, {"d": "x", "a": [{"c": 2, "b": 1}]}
    digests = {
        read_dead_letter(Outgoing("", "", b"body", Properties(headers=headers))).digest for headers in (one, other)
    }
    assert len(digests) == 1
    changed = read_dead_letter(Outgoing("", "", b"body", Properties(headers={**one, "d": "y"}))).digest
    assert changed not in digests
