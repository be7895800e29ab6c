"""docs/asyncapi.yaml is what the code says, refers to what it has, and its examples are messages that the code takes.

That it is AsyncAPI 3 is `make asyncapi-check`'s to tell, by AsyncAPI's own parser.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic_core import to_json

from interfaces.brokers import Delivery
from interfaces.dead_letters import dead_letter
from interfaces.envelope import decode_request
from interfaces.errors import Reason, RequestRejected
from interfaces.reply_bodies import decode_reply
from interfaces.topology import slot
from tests.asyncapi_document import DOCUMENT, MODELS, TOPOLOGY, document, examples, written
from tests.unit.deliveries import delivery

FOUND = yaml.safe_load(DOCUMENT.read_text())
MESSAGES = FOUND["components"]["messages"]

a_body = pytest.mark.parametrize("name", MODELS)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def test_the_document_is_what_the_code_says() -> None:
    assert DOCUMENT.read_text() == written(), "the document is stale: `make asyncapi` writes it"
    assert document() == FOUND


def test_every_reference_leads_to_something() -> None:
    found = set(references(FOUND))
    assert len(found) > 20
    for reference in found:
        place = FOUND
        for step in reference.removeprefix("#/").split("/"):
            assert step in place, reference
            place = place[step]


def test_it_has_the_parts_that_the_specification_requires() -> None:
    assert FOUND["asyncapi"].startswith("3.")
    assert {"title", "version"} <= FOUND["info"].keys()
    for server in FOUND["servers"].values():
        assert {"host", "protocol"} <= server.keys()
    for operation in FOUND["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert operation["channel"]["$ref"].removeprefix("#/channels/") in FOUND["channels"]
    used = {reference for reference in references(FOUND["channels"]) if reference.startswith("#/components/messages/")}
    assert used == {f"#/components/messages/{name}" for name in MESSAGES}


@a_body
def test_the_example_of_a_message_is_valid_and_less_of_it_is_not(name: str) -> None:
    message = MESSAGES[name]
    [example] = message["examples"]
    for part in ("headers", "payload"):
        schema = message[part] | {"components": FOUND["components"]}
        Draft202012Validator.check_schema(schema)
        validator = Draft202012Validator(schema)
        assert list(validator.iter_errors(example[part])) == []
        assert list(validator.iter_errors([])) != []
    assert MODELS[name].model_validate(example["payload"]).model_dump(mode="json", exclude_unset=True)


@a_body
def test_every_schema_is_a_json_schema(name: str) -> None:
    Draft202012Validator.check_schema(FOUND["components"]["schemas"][name])
    for schema in FOUND["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def example_request() -> Delivery:
    headers, payload = examples()["Request"]
    return replace(delivery(to_json(payload), **headers), routing_key=str(slot("ada")))


def test_the_code_takes_the_example_of_a_request_and_of_a_reply() -> None:
    assert decode_request(example_request(), TOPOLOGY).message.text == "Hello"
    headers, payload = examples()["Reply"]
    assert decode_reply(to_json(payload)).request_id == headers["correlation_id"]


def test_the_headers_of_a_dead_letter_are_those_that_workers_write() -> None:
    kept = dead_letter(
        TOPOLOGY, example_request(), RequestRejected(Reason.REJECTED, "no"), "a worker"
    ).properties.headers
    validator = Draft202012Validator(MESSAGES["DeadLetter"]["headers"])
    assert list(validator.iter_errors(kept)) == []
    assert kept is not None
    assert kept.keys() == MESSAGES["DeadLetter"]["headers"]["properties"].keys()
    assert list(validator.iter_errors({**kept, "x-switchboard-reason": "another"})) != []
