"""Turns of a Chatsky pipeline on the memory store, with what may go wrong at each step."""

from collections.abc import AsyncIterator, Hashable
from typing import Any, ClassVar

import pytest
from chatsky import PRE_RESPONSE, RESPONSE, TRANSITIONS, BaseProcessing, BaseResponse, Message, Pipeline
from chatsky import Context as ChatskyContext
from chatsky import Transition as Tr
from chatsky.context_storages import MemoryContextStorage
from pydantic_core import from_json, to_json

from interfaces.bot_signals import Reject, Retry
from interfaces.brokers import Delivery
from interfaces.context import Context
from interfaces.envelope import Request, decode_request, encode_request
from interfaces.errors import MisuseError, Reason, RequestRejected
from interfaces.messages import Message as OurMessage
from interfaces.messages import Origin
from interfaces.topology import Topology
from tests.bots.chatsky_counting import pipeline as counting
from tests.unit.test_turns import OpenChannel
from worker.apps import adapt
from worker.records import read_turn
from worker.settings import Settings
from worker.stores import Edit, Loaded, Retention, Turn
from worker.stores.memory import MemoryStore
from worker.turns import TurnRunner


class OvertakenStore(MemoryStore):
    """Lets somebody else be faster than the next commit."""

    before_commit: Any = None

    async def commit(self, turn: Turn) -> bytes:
        if self.before_commit is not None:
            first, self.before_commit = self.before_commit, None
            await first()
        return await super().commit(turn)


class Bench:
    """A turn runner with its store, and requests made as they come from the wire."""

    def __init__(self) -> None:
        self.store = OvertakenStore(Retention())
        self.settings = Settings(retry_wait=0, history=2)
        self.requests: dict[str, Request] = {}
        self.channel = OpenChannel()
        self.runners: list[TurnRunner] = []

    async def say(self, bot: Any, message: OurMessage | str, request_id: str, **more: Any) -> dict[str, Any]:
        """The reply, as it is published."""
        message = OurMessage(message) if isinstance(message, str) else message
        outgoing = encode_request(Topology(), message, "ctx", request_id=request_id, **more)
        delivery = Delivery(outgoing.body, outgoing.properties, "", outgoing.routing_key, False, 0, 1, self.channel)
        request = self.requests["ctx"] = decode_request(delivery, Topology())
        runner = TurnRunner(adapt(bot), self.store, self.settings, self._current)
        self.runners.append(runner)
        context = await runner(request.message, "ctx", request.update_ctx_misc)
        reply: dict[str, Any] = from_json(context.committed_reply or b"")
        return reply

    async def stored(self) -> Loaded:
        found = await self.store.peek("ctx", 100)
        assert found is not None
        return found

    def _current(self, ctx_id: Hashable) -> Request:
        return self.requests[str(ctx_id)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    for runner in bench.runners:
        runner.close()


def pipeline_of(processing: BaseProcessing | None = None, response: Any = "done", **more: Any) -> Pipeline:
    node = {RESPONSE: response, TRANSITIONS: [Tr(dst="node")]}
    if processing is not None:
        node[PRE_RESPONSE] = {"it": processing}
    return Pipeline(script={"flow": {"node": node}}, start_label=("flow", "node"), **more)


async def test_a_turn_commits_everything_the_pipeline_left(bench: Bench) -> None:
    reply = await bench.say(counting, "hello", "r1", update_ctx_misc={"language": "en"})
    assert reply == {
        "version": 1,
        "ctx_id": "ctx",
        "request_id": "r1",
        "turn": 1,
        "status": "ok",
        "message": {"text": "message 1: hello"},
        "misc": {"language": "en", "turns": 1},
    }
    turns = (await bench.stored()).turns
    assert from_json(turns[0]) == {"label": {"flow_name": "talk", "node_name": "start"}}
    turn = read_turn(turns[1])
    assert (turn.request, turn.response) == (OurMessage("hello"), OurMessage("message 1: hello"))
    assert turn.label is not None
    assert turn.label.node_name == "answer"


async def test_the_users_pipeline_and_its_storage_are_left_alone(bench: Bench) -> None:
    storage = counting.context_storage
    await bench.say(counting, "hello", "r1")
    assert counting.context_storage is storage
    assert isinstance(storage, MemoryContextStorage)
    assert await storage.load_main_info("ctx") is None


class FailTwice(BaseProcessing):
    tries: ClassVar[list[dict[str, Any]]] = []

    async def call(self, ctx: ChatskyContext) -> None:
        self.tries.append({"misc": dict(ctx.misc), "text": ctx.last_request.text, "turn": ctx.current_turn_id})
        ctx.misc.setdefault("list", []).append("left")
        ctx.last_request.text = "spoiled"
        if len(self.tries) < 3:
            ctx.framework_data.pipeline = None  # What makes Chatsky itself fail: errors of a processing it swallows.
            raise RuntimeError("not yet")


async def test_an_attempt_that_fails_leaves_nothing_for_the_next(bench: Bench) -> None:
    processing = FailTwice()

    class Failing(Pipeline):
        async def _run_pipeline(self, *args: Any, **kwargs: Any) -> ChatskyContext:
            context = await super()._run_pipeline(*args, **kwargs)
            if len(processing.tries) < 3:
                raise RuntimeError("not yet")
            return context

    bot = Failing(
        script={"flow": {"node": {RESPONSE: "done", TRANSITIONS: [Tr(dst="node")], PRE_RESPONSE: {"it": processing}}}},
        start_label=("flow", "node"),
    )
    reply = await bench.say(bot, "hello", "r1")
    assert processing.tries == 3 * [{"misc": {}, "text": "hello", "turn": 1}]
    assert reply["misc"] == {"list": ["left"]}


class PutIntoMisc(BaseProcessing):
    async def call(self, ctx: ChatskyContext) -> None:
        ctx.misc["handle"] = {"of": object()}


class PutIntoResponse(BaseResponse):
    async def call(self, _: ChatskyContext) -> Message:
        return Message("hi", misc={"handle": object()})


class PutIntoStats(BaseProcessing):
    async def call(self, ctx: ChatskyContext) -> None:
        ctx.framework_data.stats["handle"] = object()


class GoBack(BaseProcessing):
    async def call(self, ctx: ChatskyContext) -> None:
        ctx.current_turn_id = 7


@pytest.mark.parametrize(
    ("bot", "named"),
    [
        (pipeline_of(PutIntoMisc()), r"\['handle'\]\['of'\]"),
        (pipeline_of(response=PutIntoResponse()), r"\['misc'\]\['handle'\]"),
        (pipeline_of(PutIntoStats()), "'handle'"),
        (pipeline_of(GoBack()), "left current_turn_id at 7; this is turn 1"),
    ],
)
async def test_what_cannot_be_stored_is_refused_with_its_key_and_not_run_again(
    bench: Bench, bot: Pipeline, named: str
) -> None:
    with pytest.raises(RequestRejected, match=named) as refused:
        await bench.say(bot, "hello", "r1")
    assert refused.value.reason is Reason.REPLY_INVALID
    assert "handle" not in refused.value.detail, "the sender is told nothing of the inside"
    assert await bench.store.peek("ctx", 1) is None


async def test_a_turn_that_was_overtaken_runs_again_on_what_it_finds(bench: Bench) -> None:
    await bench.say(counting, "one", "r1")

    async def edit() -> None:
        found = await bench.stored()
        main = from_json(found.main or b"")
        main["misc"]["turns"] = 10
        await bench.store.edit(Edit("ctx", "e1", found.version, found.revision, found.version, to_json(main), {}))

    bench.store.before_commit = edit
    reply = await bench.say(counting, "two", "r2")
    assert (reply["turn"], reply["message"]["text"]) == (2, "message 11: two")


async def echo(ctx: Context) -> str:
    ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
    return f"handler {ctx.misc['turns']}"


class TellAll(BaseResponse):
    async def call(self, ctx: ChatskyContext) -> Message:
        turns = await ctx.turns[1:]
        told = [(request.text, response.text if response else None) for request, _, response in turns]
        return Message(misc={"told": told, "keys": list(ctx.requests.keys()), "labels": list(ctx.labels.keys())})


async def test_a_handler_and_a_pipeline_may_take_turns_on_one_dialog(bench: Bench) -> None:
    teller = pipeline_of(response=TellAll())
    await bench.say(echo, "a", "r1")
    await bench.say(counting, "b", "r2")
    await bench.say(echo, "c", "r3")
    message = (await bench.say(teller, "d", "r4"))["message"]
    assert message["misc"]["told"] == [["a", "handler 1"], ["b", "message 2: b"], ["c", "handler 3"], ["d", None]]
    assert message["misc"]["keys"] == [1, 2, 3, 4]
    assert message["misc"]["labels"] == [0, 2, 4], "turns of a handler have no label; the script starts at turn 0"


class LookAround(BaseResponse):
    async def call(self, ctx: ChatskyContext) -> Message:
        storage = ctx.pipeline.context_storage
        other = await storage.load_main_info("other")
        await storage.update_context("other", other)
        try:
            await ctx.delete()
        except MisuseError as error:
            return Message(f"{other.misc} {error}")
        return Message("deleted")


async def test_a_turn_may_read_and_edit_other_contexts_and_not_delete_its_own(bench: Bench) -> None:
    await bench.store.edit(
        Edit("other", "e1", 0, 0, 3, b'{"layout":1,"created_at":1,"updated_at":1,"misc":{"n":1}}', {})
    )
    reply = await bench.say(pipeline_of(response=LookAround()), "hi", "r1")
    assert "{'n': 1} context 'ctx' cannot be deleted in its own turn" in reply["message"]["text"]
    other = await bench.store.peek("other", 1)
    assert other is not None
    assert (other.version, other.revision) == (3, 2)


class TellOrigin(BaseResponse):
    async def call(self, ctx: ChatskyContext) -> Message:
        before = await ctx.requests.get(1)
        return Message(misc={"now": ctx.last_request.origin.message, "before": before.origin.message})


async def test_the_original_of_a_message_is_json_now_and_in_later_turns(bench: Bench) -> None:
    bot = pipeline_of(response=TellOrigin(), context_storage=MemoryContextStorage(partial_read_config={"requests": 1}))
    for number in (1, 2, 3):
        message = OurMessage("hi", origin=Origin(message={"update": number}, interface="web"))
        reply = await bench.say(bot, message, f"r{number}")
        assert reply["message"]["misc"] == {"now": {"update": number}, "before": {"update": 1}}


@pytest.mark.parametrize(
    ("main", "turn"),
    [
        (b"not JSON", b"{}"),
        (b'{"layout":1,"created_at":1,"updated_at":1,"framework_data":{"chatsky":{"slots":{"a":{"value":7}}}}}', b"{}"),
        (b'{"layout":1,"created_at":1,"updated_at":1}', b"not JSON"),
    ],
)
async def test_what_is_stored_and_cannot_be_read_rejects_the_request(bench: Bench, main: bytes, turn: bytes) -> None:
    await bench.store.edit(Edit("ctx", "e1", 0, 0, 1, main, {1: turn}))
    with pytest.raises(RequestRejected) as refused:
        await bench.say(counting, "hello", "r1")
    assert refused.value.reason is Reason.CONTEXT_INVALID


async def test_only_the_turns_that_the_pipeline_asks_for_are_loaded(bench: Bench) -> None:
    asked: list[int] = []
    load = bench.store.load

    async def noted(*args: Any, history: int, **kwargs: Any) -> Loaded:
        asked.append(history)
        return await load(*args, history=history, **kwargs)

    bench.store.load = noted  # type: ignore[method-assign]
    config = {"labels": 2, "requests": 5, "responses": 1}
    await bench.say(pipeline_of(context_storage=MemoryContextStorage(partial_read_config=config)), "hi", "r1")
    assert asked == [5]


async def test_a_script_may_ask_for_another_run_and_give_its_request_up(bench: Bench) -> None:
    signals: list[BaseException] = [Retry(after=0), Retry(after=0), Reject("not this one")]

    class Signal(BaseResponse):
        async def call(self, ctx: ChatskyContext) -> Message:
            raise signals.pop(0)

    with pytest.raises(RequestRejected) as rejected:
        await bench.say(pipeline_of(response=Signal()), "hello", "r1")
    assert (rejected.value.reason, rejected.value.detail) == (Reason.REJECTED, "not this one")
    assert (rejected.value.attempts, signals) == (3, [])


async def test_an_error_that_chatsky_swallows_is_no_failure_of_the_turn(bench: Bench) -> None:
    runs = 0

    class Failing(BaseResponse):
        async def call(self, ctx: ChatskyContext) -> Message:
            nonlocal runs
            runs += 1
            raise ValueError("inside")

    reply = await bench.say(pipeline_of(response=Failing()), "hello", "r1")
    assert (reply["status"], reply["turn"], runs) == ("ok", 1, 1)
