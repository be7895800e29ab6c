"""Chatsky's messages and contexts and ours, both ways.

Chatsky's models unpickle what they are validated from and pickle what is not JSON. Here neither happens: what goes to
Chatsky is checked to hold no pickle, and what comes from it must be JSON, or is refused with the key that is not.
Needs the extra `chatsky`. Called by the edge, by the adapter that runs pipelines, and by the interface that runs one
alone.
"""

from collections.abc import Hashable
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from interfaces.chatsky_downloads import use_own_downloads
from interfaces.context import Context
from interfaces.data_model import json_object
from interfaces.envelope import first_fault
from interfaces.errors import RequestRejected
from interfaces.messages import Message
from interfaces.messengers import MessengerInterface, MessengerInterfaceWithAttachments, PipelineRunnerFunction
from interfaces.nested_loops import nested_loops_prevented
from interfaces.unsafe import refuse_pickles

with nested_loops_prevented():
    import chatsky
    from chatsky.core.message import Origin as ChatskyOrigin
    from chatsky.messengers.common import MessengerInterface as ChatskyInterface
    from chatsky.messengers.common import MessengerInterfaceWithAttachments as ChatskyWithAttachments


def to_chatsky(message: Message) -> chatsky.Message:
    """`message` as Chatsky's own type, with `origin.message` as plain JSON. Raises `ValueError`."""
    return message_from_json(message.model_dump(mode="json"))


def message_from_json(raw: dict[str, Any]) -> chatsky.Message:
    """A Chatsky message from our JSON. Raises `ValueError` where that holds a pickle, or is no message."""
    try:
        refuse_pickles(raw)
    except RequestRejected as error:
        raise ValueError(error.detail) from error
    origin = raw.get("origin")
    try:
        message = chatsky.Message.model_validate({**raw, "origin": None})
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None  # Chatsky's repeats the message, and this gets into logs.
    except TypeError as error:
        # Chatsky's models are built by their constructors, of which a field named `self` is a second first argument.
        raise ValueError(f"Chatsky cannot take the message: {error}") from error
    if isinstance(origin, dict):
        # Validated, its `message` would be taken for a pickle.
        message.origin = ChatskyOrigin.model_construct(message=origin.get("message"), interface=origin.get("interface"))
    return message


def from_chatsky(message: chatsky.Message) -> Message:
    """Chatsky's `message` as ours. Raises `ValueError`, which names the key of a value that is not JSON.

    What `origin.message` holds is kept where it is JSON, or has a `to_dict()` that is, as a Telegram update has; it is
    left out otherwise.
    """
    # In Python mode Chatsky's serializers stay silent, so nothing is pickled to be looked at.
    raw = json_object(message.model_dump(mode="python", exclude={"origin"}))
    if message.origin is not None:
        raw["origin"] = {"interface": message.origin.interface, "message": _plain(message.origin.message)}
    try:
        return Message.model_validate(raw)
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error


def to_chatsky_context(context: Context) -> chatsky.Context:
    """What an interface sees of a dialog: id, turns in memory, misc. Connected to no storage."""
    labels = {number: (label.flow_name, label.node_name) for number, label in context.labels.items()}
    return chatsky.Context(
        id=context.id,
        current_turn_id=context.current_turn_id,
        created_at=context.created_at,
        updated_at=context.updated_at,
        misc=context.misc,
        labels={number: chatsky.AbsoluteNodeLabel.model_validate(label) for number, label in labels.items()},
        requests={number: to_chatsky(message) for number, message in context.requests.items()},
        responses={number: to_chatsky(message) for number, message in context.responses.items()},
    )


def from_chatsky_context(context: chatsky.Context) -> Context:
    """What an interface of ours needs of Chatsky's context: id, misc, the last request and response, the turn's number.

    Raises `ValueError`, which names the key of a value that is not JSON.
    """
    turn_id, response = context.current_turn_id, context.last_response
    return Context(
        id=context.id,
        current_turn_id=turn_id,
        misc=dict(context.misc),
        requests={turn_id: from_chatsky(context.last_request)},
        responses={} if response is None else {turn_id: from_chatsky(response)},
    )


def as_runner(pipeline_runner: PipelineRunnerFunction) -> PipelineRunnerFunction:
    """A runner of ours on that of a Chatsky pipeline; any other one is given back as it is."""
    if not isinstance(getattr(pipeline_runner, "__self__", None), chatsky.Pipeline):
        return pipeline_runner
    use_own_downloads()

    async def run(
        message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        theirs: Any = to_chatsky(message)
        context: Any = await pipeline_runner(theirs, ctx_id, update_ctx_misc)
        return from_chatsky_context(context)

    return run


def adopt(interface: type[MessengerInterface]) -> None:
    """Let Chatsky see a class of interfaces of ours as one of its own, so that a pipeline may be given one."""
    base = ChatskyWithAttachments if issubclass(interface, MessengerInterfaceWithAttachments) else ChatskyInterface
    base.register(interface)


def _plain(original: Any) -> Any:
    """`original` where it is JSON that nobody takes for a pickle, else `None`."""
    to_dict = getattr(original, "to_dict", None)
    if callable(to_dict):
        original = to_dict()
    if not isinstance(original, dict | list | int | float):
        return None
    try:
        return json_object({"message": original})["message"]
    except PydanticSerializationError:
        return None
