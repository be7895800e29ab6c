"""A dead letter is the request as it came, plus why; nothing in it can delete it, lie, or keep it unpublished."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfaces.brokers import Outgoing
from interfaces.dead_letters import HEADER_PREFIX, MAX_DETAIL, dead_letter
from interfaces.errors import Reason, RequestRejected
from interfaces.topology import Topology
from tests.unit.deliveries import delivery

TOPOLOGY = Topology("ns")
REJECTED = RequestRejected(Reason.BAD_JSON, "for the sender", internal="for operators", attempts=3)

FULL: dict[str, Any] = {
    "content_type": "text/plain",
    "content_encoding": "gzip",
    "delivery_mode": 1,
    "priority": 4,
    "correlation_id": "c",
    "reply_to": "anywhere",
    "message_id": "m",
    "timestamp": datetime(2026, 1, 2, tzinfo=UTC),
    "message_type": "t",
    "app_id": "a",
}


def buried(body: bytes = b"body", *, rejected: RequestRejected = REJECTED, **properties: Any) -> Outgoing:
    return dead_letter(TOPOLOGY, delivery(body, **properties), rejected, "worker 1")


@given(body=st.binary(), present=st.sets(st.sampled_from(sorted(FULL))))
def test_body_and_properties_are_untouched_and_absent_ones_stay_absent(body: bytes, present: set[str]) -> None:
    given_properties = {name: FULL[name] for name in present}
    letter = buried(body, **given_properties)
    assert letter.body == body
    assert {name: getattr(letter.properties, name) for name in FULL} == dict.fromkeys(FULL) | given_properties
    assert (letter.exchange, letter.routing_key, letter.mandatory) == ("ns.dead", "", True)


def test_the_headers_say_why_where_and_when() -> None:
    before = datetime.now(UTC)
    headers = dict(buried().properties.headers or {})
    failed_at = datetime.fromisoformat(headers.pop("x-switchboard-failed-at"))
    assert before.replace(microsecond=0) <= failed_at <= datetime.now(UTC)
    assert failed_at.tzinfo == UTC
    assert headers == {
        "x-switchboard-reason": "bad-json",
        "x-switchboard-detail": "for operators",
        "x-switchboard-attempts": 3,
        "x-switchboard-worker": "worker 1",
        "x-switchboard-exchange": "ns.requests",
        "x-switchboard-routing-key": "7",
    }


def test_the_detail_for_the_sender_stands_where_there_is_none_for_operators() -> None:
    headers = buried(rejected=RequestRejected(Reason.BAD_JSON, "both")).properties.headers
    assert headers is not None
    assert headers["x-switchboard-detail"] == "both"


@given(
    mine=st.dictionaries(
        st.text(max_size=10), st.integers() | st.text(max_size=5) | st.lists(st.integers()), max_size=4
    )
)
def test_the_senders_own_headers_are_kept(mine: dict[str, Any]) -> None:
    mine = {key: value for key, value in mine.items() if not key.startswith(HEADER_PREFIX)}
    headers = buried(headers=mine).properties.headers or {}
    assert {key: headers[key] for key in mine} == mine


def test_headers_that_pretend_to_be_ours_are_dropped() -> None:
    lies = {"x-switchboard-reason": "handler-failed", "x-switchboard-anything": 1, "x-mine": 2}
    headers = buried(headers=lies).properties.headers or {}
    assert headers["x-switchboard-reason"] == "bad-json"
    assert "x-switchboard-anything" not in headers
    assert headers["x-mine"] == 2
    assert lies["x-switchboard-reason"] == "handler-failed"


def test_an_expiration_travels_as_a_header_since_it_would_delete_the_dead_letter() -> None:
    letter = buried(expiration="60000")
    assert letter.properties.expiration is None
    assert (letter.properties.headers or {})["x-switchboard-expiration"] == "60000"


def test_a_user_id_travels_as_a_header_since_the_broker_refuses_one_of_another_connection() -> None:
    letter = buried(user_id="upstream")
    assert letter.properties.user_id is None
    assert (letter.properties.headers or {})["x-switchboard-user-id"] == "upstream"


@pytest.mark.parametrize("character", ["x", "ü", "🎉"])
def test_a_long_detail_is_cut_so_that_the_headers_stay_publishable(character: str) -> None:
    rejected = RequestRejected(Reason.HANDLER_FAILED, "short", internal=character * 500_000)
    headers = buried(rejected=rejected).properties.headers or {}
    assert headers["x-switchboard-detail"] == character * MAX_DETAIL


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_can_be_told(reason: Reason) -> None:
    headers = buried(rejected=RequestRejected(reason, "detail")).properties.headers or {}
    assert headers["x-switchboard-reason"] == reason.value
