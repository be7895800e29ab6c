"""Limits of requests, replies and contexts: what is at a limit passes, what is above it is refused with its reason."""

import json
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from pydantic_core import to_json

from interfaces.context import Context
from interfaces.envelope import decode_body, encode_request
from interfaces.errors import Reason, RequestRejected, SettingsInvalid
from interfaces.limits import MAX_BODY_BYTES, WIDEST, Limits, require_size
from interfaces.messages import Document, MediaGroup, Message
from interfaces.reply_bodies import encode_reply
from interfaces.topology import Topology
from tests.unit.test_envelope import request
from worker import records
from worker.settings import Settings, load_settings

IMAGE = {"chatsky_attachment_type": "image", "id": "x"}


def body(**parts: Any) -> bytes:
    """A request body; what is not about the message stands beside it."""
    beside = {name: parts.pop(name) for name in ("update_ctx_misc",) if name in parts}
    return json.dumps({"version": 1, "ctx_id": "ctx", "message": parts, **beside}, separators=(",", ":")).encode()


def nested(depth: int) -> bytes:
    """A body of that many levels: itself, message, misc, and arrays below."""
    value: Any = 1
    for _ in range(depth - 2):
        value = [value]
    return body(misc={"a": value})


def group(size: int) -> dict[str, Any]:
    return {"chatsky_attachment_type": "media_group", "group": [IMAGE] * size}


def outcome(raw: bytes, limits: Limits) -> Reason | None:
    try:
        decode_body(raw, limits)
    except RequestRejected as rejected:
        return rejected.reason
    return None


@pytest.mark.parametrize(
    ("made", "limits", "reason"),
    [
        (lambda n: body(text="") + b" " * (n - len(body(text=""))), Limits(body_bytes=200), Reason.BODY_TOO_LARGE),
        (nested, Limits(depth=10), Reason.TOO_DEEP),
        (lambda n: body(misc={"a": [0] * (n - 5)}), Limits(nodes=50), Reason.TOO_MANY_VALUES),
        (lambda n: body(text="", update_ctx_misc={"a": [0] * (n - 6)}), Limits(nodes=50), Reason.TOO_MANY_VALUES),
        (lambda n: body(attachments=[IMAGE] * n), Limits(attachments=5), Reason.TOO_MANY_ATTACHMENTS),
        (lambda n: body(attachments=[group(n - 1)]), Limits(attachments=5), Reason.TOO_MANY_ATTACHMENTS),
        (lambda n: body(text="é" * n), Limits(text=20), Reason.TEXT_TOO_LONG),
    ],
    ids=["bytes", "depth", "values", "values of the update", "attachments", "attachments in a group", "text"],
)
def test_a_request_below_and_at_a_limit_is_read_and_one_above_is_refused(
    made: Callable[[int], bytes], limits: Limits, reason: Reason
) -> None:
    changed = {f.name: getattr(limits, f.name) for f in fields(Limits) if getattr(limits, f.name) != f.default}
    (limit,) = changed.values()
    assert [outcome(made(limit + more), limits) for more in (-1, 0, 1)] == [None, None, reason]


def test_a_message_that_is_nothing_but_a_text_has_the_limit_of_a_text() -> None:
    def bare(length: int) -> bytes:
        return json.dumps({"version": 1, "ctx_id": "ctx", "message": "x" * length}).encode()

    assert [outcome(bare(length), Limits(text=20)) for length in (20, 21)] == [None, Reason.TEXT_TOO_LONG]


def test_300000_empty_attachments_are_refused_before_a_model_is_made_of_any() -> None:
    """They held up the event loop for 12 seconds; the bound leaves room for a slow machine, not for models."""
    raw = body(attachments=[{}] * 300_000)
    begun = time.process_time()
    assert outcome(raw, Limits()) is Reason.TOO_MANY_ATTACHMENTS
    assert time.process_time() - begun < 2


def test_the_most_that_is_accepted_is_read_in_a_bounded_time() -> None:
    """Within the default limits no body holds up the event loop for long, whatever its values are."""
    costly = [
        body(attachments=[group(0)] * 100, misc={"a": [{}] * 9_600}),
        body(attachments=[{"chatsky_attachment_type": "poll", "question": "?", "options": [{}] * 9_900}]),
        body(misc={"a": [[]] * 9_900}, text="x" * 100_000),
    ]
    for raw in costly:
        begun = time.process_time()
        outcome(raw, Limits())
        assert time.process_time() - begun < 1


def test_a_sender_is_held_to_the_contract_and_not_to_the_settings_of_a_worker() -> None:
    many = Message("x" * 200_000, attachments=[MediaGroup(group=[Document(source="https://a/b")] * 150)])
    raw = encode_request(Topology(), many, "ctx", request_id="r").body
    assert outcome(raw, WIDEST) is None
    assert outcome(raw, Limits()) is Reason.TEXT_TOO_LONG


def reply_of(size: int, limits: Limits) -> str | None:
    overhead = len(encode_reply(request(), Message(""), {}, 1))
    return internal(lambda: encode_reply(request(), Message("x" * (size - overhead)), {}, 1, limits))


def misc_of(size: int, limits: Limits) -> str | None:
    misc = {"note": "é" * ((size - len(to_json({"note": ""}))) // 2)}
    return internal(lambda: encode_reply(request(), Message("hi"), misc, 1, limits))


def main_of(size: int, limits: Limits) -> str | None:
    context = Context(framework_data={"note": ""})
    overhead = len(records.write_main(context))
    context.framework_data = {"note": "x" * (size - overhead)}
    return internal(lambda: records.require_sizes(records.write_main(context), {}, limits))


def turn_of(size: int, limits: Limits) -> str | None:
    overhead = len(records.write_turn(Context(responses={1: Message("")}), 1))
    context = Context(responses={1: Message("x" * (size - overhead))})
    return internal(lambda: records.require_sizes(b"", {0: b"small", 1: records.write_turn(context, 1)}, limits))


def internal(writing: Callable[[], object]) -> str | None:
    """What operators are told, where it is refused; the sender is told neither sizes nor settings."""
    refused: RequestRejected | None = None
    try:
        writing()
    except RequestRejected as error:
        refused = error
    if refused is None:
        return None
    assert refused.reason is Reason.REPLY_INVALID
    assert not any(part in refused.detail for part in ("SWITCHBOARD", "bytes"))
    return refused.internal


@pytest.mark.parametrize(
    ("left", "limits", "told"),
    [
        (reply_of, Limits(reply_bytes=2000), "the bot's answer has {} bytes, the limit is 2000 ({}REPLY_BYTES)"),
        (misc_of, Limits(misc_bytes=2001), "misc as the bot left it has {} bytes, the limit is 2001 ({}MISC_BYTES)"),
        (
            main_of,
            Limits(context_bytes=2000),
            "what is stored beside the turns has {} bytes, the limit is 2000 ({}CONTEXT_BYTES)",
        ),
        (turn_of, Limits(turn_bytes=2000), "turn 1 as stored has {} bytes, the limit is 2000 ({}TURN_BYTES)"),
    ],
    ids=["reply", "misc", "context", "turn"],
)
def test_what_a_bot_leaves_passes_below_and_at_a_limit_and_above_it_operators_are_told_which(
    left: Callable[[int, Limits], str | None], limits: Limits, told: str
) -> None:
    limit = min(getattr(limits, f.name) for f in fields(Limits) if f.name.endswith("_bytes"))
    step = 2 if left is misc_of else 1
    sizes = (limit - step, limit, limit + step)
    assert [left(size, limits) for size in sizes] == [None, None, told.format(limit + step, "SWITCHBOARD_MAX_")]


def test_a_size_at_its_limit_is_none_too_many() -> None:
    require_size("it", 5, 5, "max_it")
    with pytest.raises(RequestRejected, match=r"it has 6 bytes, the limit is 5 \(SWITCHBOARD_MAX_IT\)"):
        require_size("it", 6, 5, "max_it")


def test_the_settings_give_every_limit_and_their_defaults_are_those_of_the_library() -> None:
    assert Settings().limits == Limits()
    given = {"max_body_bytes": 2000, "max_depth": 20, "max_nodes": 21, "max_attachments": 22, "max_text": 23}
    given |= {"max_reply_bytes": 2004, "max_misc_bytes": 25, "max_context_bytes": 2006, "max_turn_bytes": 2007}
    limits = load_settings(**given).limits
    assert limits == Limits(*given.values())
    assert all(getattr(limits, f.name) != f.default for f in fields(Limits))


@pytest.mark.parametrize("setting", ["max_body_bytes", "max_reply_bytes", "max_nodes", "max_text", "max_attachments"])
def test_no_setting_is_wider_than_the_contract(setting: str) -> None:
    load_settings(**{setting: MAX_BODY_BYTES})
    with pytest.raises(SettingsInvalid, match=f"SWITCHBOARD_{setting.upper()}"):
        load_settings(**{setting: MAX_BODY_BYTES + 1})
