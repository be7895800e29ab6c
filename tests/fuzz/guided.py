"""Coverage-guided fuzzing of what reads a stranger's bytes: `python -m tests.fuzz.guided TARGET [LIBFUZZER OPTION...]`.

Needs `atheris` (`pip install atheris`), which instruments our modules as they are imported. A target may raise what it
is documented to raise and nothing else, and what it accepts can be stored and read again. Started by `tests.fuzz`.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

atheris: Any = importlib.import_module("atheris")  # Not among the project's own dependencies, and without types.

with atheris.instrument_imports(include=["interfaces"]):
    from interfaces.brokers import Delivery, Properties
    from interfaces.data_model import json_object
    from interfaces.envelope import DecodedBody, decode_body, decode_request
    from interfaces.errors import AttachmentReferenceInvalid, DecryptionFailed, RequestRejected
    from interfaces.references import Reference
    from interfaces.reply_bodies import decode_reply
    from interfaces.topology import Topology
    from interfaces.turn_records import TurnRecord

TOPOLOGY = Topology("ns")
TEXTS = ("content_type", "content_encoding", "message_id", "reply_to", "correlation_id")
SEPARATOR = b"\n--\n"


def body(data: bytes) -> None:
    """A request's body."""
    try:
        accepted = decode_body(data)
    except RequestRejected as rejected:
        require_one_line(rejected.detail)
    else:
        require_storable(accepted)


def require_one_line(detail: str) -> None:
    """A refusal goes into logs and headers."""
    assert detail.isprintable(), detail


def require_storable(accepted: DecodedBody) -> None:
    """What a worker accepts it must be able to keep: otherwise the dialog ends with it."""
    json_object(accepted.update_ctx_misc or {})
    record = TurnRecord(request=accepted.message)
    assert TurnRecord.model_validate_json(record.model_dump_json()).request is not None


def request(data: bytes) -> None:
    """A request with its properties and routing key, one a line before its body."""
    head, _, content = data.partition(SEPARATOR)
    lines = [line.decode(errors="surrogateescape") for line in head.split(b"\n")]
    known: dict[str, Any] = dict(zip(TEXTS, lines[1:], strict=False))
    channel: Any = None
    delivery = Delivery(content, Properties(**known), "ns.requests", lines[0], False, 0, 1, channel)
    try:
        decode_request(delivery, TOPOLOGY)
    except RequestRejected as rejected:
        require_one_line(rejected.detail)


def reply(data: bytes) -> None:
    """A reply's body."""
    with suppress(ValueError, RequestRejected, DecryptionFailed):
        decode_reply(data)


def reference(data: bytes) -> None:
    """An attachment's id."""
    text = data.decode(errors="surrogateescape")
    with suppress(AttachmentReferenceInvalid):
        found = Reference.parse(text)
        assert found is None or str(found) == text


def chatsky(data: bytes) -> None:
    """A message for a Chatsky pipeline, from what the decoder accepts."""
    from interfaces.bridge import message_from_json

    with suppress(RequestRejected):
        message = decode_body(data).message.model_dump(mode="json")
        with suppress(ValueError):
            message_from_json(message)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (body, request, reply, reference, chatsky)
}


def main(arguments: Sequence[str]) -> None:
    """Fuzz one target until libFuzzer's own limits end it."""
    target = TARGETS[arguments[1]]
    atheris.Setup([arguments[0], *arguments[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
