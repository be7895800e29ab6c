"""The turn on the memory store, with the faults of a store and of a bot played at each step."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from interfaces.brokers import Delivery, Properties
from interfaces.context import Context
from interfaces.envelope import Request, decode_request, encode_request
from interfaces.errors import BrokerRefused, Reason, RequestRejected, StoreUnavailable, TurnAbandoned, TurnPostponed
from interfaces.messages import Message
from interfaces.topology import Topology
from interfaces.turn_records import NodeLabel
from worker.apps import adapt
from worker.isolation import ENDS_IN_COMPANY
from worker.records import MainRecord, read_turn
from worker.settings import Settings
from worker.stores import Loaded, Retention, Turn
from worker.stores.memory import MemoryStore
from worker.turns import TurnRunner


class OpenChannel:
    """A channel that stays open and takes every ack."""

    queue = "requests"
    is_open = True
    unsettled: Mapping[int, float] = {}

    async def wait_closed(self) -> None: ...

    async def verify(self) -> bool:
        return self.is_open

    async def ack(self, delivery: Delivery) -> None: ...

    async def close(self) -> None: ...


class FaultyStore(MemoryStore):
    """A memory store that fails where a test says."""

    loads = 0
    fail_before_commit = 0
    fail_after_commit = 0
    overtaken_by: Turn | None = None

    async def load(self, *args: Any, **more: Any) -> Loaded:
        self.loads += 1
        return await super().load(*args, **more)

    async def commit(self, turn: Turn) -> bytes:
        if self.fail_before_commit:
            self.fail_before_commit -= 1
            raise StoreUnavailable("away")
        if self.overtaken_by is not None:
            first, self.overtaken_by = self.overtaken_by, None
            await super().commit(first)
        reply = await super().commit(turn)
        if self.fail_after_commit:
            self.fail_after_commit -= 1
            raise StoreUnavailable("the answer was lost")
        return reply


class Bench:
    """A turn runner with its store, and requests made as they come from the wire."""

    def __init__(self) -> None:
        self.store = FaultyStore(Retention())
        self.channel = OpenChannel()
        self.settings = Settings(retry_wait=0, history=2)
        self.requests: dict[str, Request] = {}
        self.runners: list[TurnRunner] = []

    def runner(self, bot: Any, may_run: Callable[[Request], bool] = lambda _: True) -> TurnRunner:
        runner = TurnRunner(adapt(bot), self.store, self.settings, self._current, may_run=may_run)
        self.runners.append(runner)
        return runner

    async def turn(
        self, runner: TurnRunner, text: str, request_id: str, *, ctx_id: str = "ctx", **more: Any
    ) -> Context:
        outgoing = encode_request(Topology(), Message(text), ctx_id, request_id=request_id, **more)
        delivery = Delivery(outgoing.body, outgoing.properties, "", outgoing.routing_key, False, 0, 1, self.channel)
        request = self.requests[ctx_id] = decode_request(delivery, Topology())
        return await runner(request.message, ctx_id, request.update_ctx_misc)

    async def crashed(self, request_id: str, *, ctx_id: str = "ctx") -> None:
        """Note as many starts of this request that nobody finishes as make it a suspect."""
        for crash in range(ENDS_IN_COMPANY):
            attempt = f"crashed {crash}"
            await self.store.load(ctx_id, request_id, epoch=0, attempt=attempt, history=1, counted=ENDS_IN_COMPANY)

    async def stored(self) -> Loaded:
        found = await self.store.peek("ctx", 100)
        assert found is not None
        return found

    async def misc(self) -> dict[str, Any]:
        return MainRecord.model_validate_json((await self.stored()).main or b"").misc

    def _current(self, ctx_id: Hashable) -> Request:
        return self.requests[str(ctx_id)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    for runner in bench.runners:
        runner.close()


async def echo(ctx: Context) -> str:
    ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
    return f"you said {ctx.last_request.text}"


def reply_of(context: Context) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(context.committed_reply or b"")
    return reply


async def test_a_turn_commits_request_response_and_misc(bench: Bench) -> None:
    context = await bench.turn(bench.runner(echo), "hello", "r1", update_ctx_misc={"language": "en"})
    assert reply_of(context) == {
        "version": 1,
        "ctx_id": "ctx",
        "request_id": "r1",
        "turn": 1,
        "status": "ok",
        "message": {"text": "you said hello"},
        "misc": {"language": "en", "turns": 1},
    }
    turn = read_turn((await bench.stored()).turns[1])
    assert turn.request is not None
    assert turn.response is not None
    assert (turn.request.text, turn.response.text) == ("hello", "you said hello")


async def test_a_committed_request_is_answered_again_without_running_the_bot(bench: Bench) -> None:
    runner = bench.runner(echo)
    first = await bench.turn(runner, "hello", "r1")
    await bench.turn(runner, "and more", "r2")
    again = await bench.turn(runner, "hello", "r1")
    assert again.committed_reply == first.committed_reply
    assert await bench.misc() == {"turns": 2}


async def test_a_failed_attempt_leaves_nothing_behind_for_the_next(bench: Bench) -> None:
    seen: list[dict[str, Any]] = []

    async def flaky(ctx: Context) -> str:
        seen.append({"misc": dict(ctx.misc), "text": ctx.last_request.text})
        ctx.misc["given"]["list"].append("spoiled")
        ctx.last_request.text = "spoiled"
        if len(seen) < 3:
            raise ValueError("not yet")
        return "done"

    await bench.turn(bench.runner(flaky), "hello", "r1", update_ctx_misc={"given": {"list": []}})
    assert [entry["text"] for entry in seen] == ["hello"] * 3
    assert (await bench.stored()).version == 1
    assert (await bench.misc())["given"] == {"list": ["spoiled"]}  # by the attempt that was committed, once


async def test_a_bot_that_keeps_failing_is_rejected_with_its_attempts_and_no_counted_start(bench: Bench) -> None:
    async def broken(ctx: Context) -> str:
        raise ValueError("secret inside")

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(broken), "hello", "r1")
    assert rejected.value.reason is Reason.HANDLER_FAILED
    assert rejected.value.attempts == bench.settings.attempts
    assert "secret inside" not in rejected.value.detail
    assert "secret inside" in (rejected.value.internal or "")
    loaded = await bench.store.load("ctx", "r1", epoch=10**18, attempt="next", history=1)
    assert loaded.starts == 1


async def test_a_turn_started_too_often_without_an_end_is_rejected_as_crashing(bench: Bench) -> None:
    for crash in range(bench.settings.crash_limit):
        await bench.store.load("ctx", "r1", epoch=1, attempt=f"crashed {crash}", history=1, counted=9)
    ran = False

    async def bot(ctx: Context) -> str:
        nonlocal ran
        ran = True
        return ""

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(bot), "hello", "r1")
    assert rejected.value.reason is Reason.CRASHES_WORKER
    assert rejected.value.attempts == bench.settings.crash_limit
    assert not ran


@pytest.mark.parametrize("fault", ["fail_before_commit", "fail_after_commit"])
async def test_a_commit_with_an_unknown_outcome_is_repeated_and_the_bot_runs_once(bench: Bench, fault: str) -> None:
    setattr(bench.store, fault, 2)
    runs = 0

    async def bot(ctx: Context) -> str:
        nonlocal runs
        runs += 1
        return "once"

    context = await bench.turn(bench.runner(bot), "hello", "r1")
    assert runs == 1
    assert (await bench.stored()).version == 1
    assert reply_of(context)["message"] == {"text": "once"}


async def test_an_overtaken_turn_runs_again_on_what_the_other_writer_left(bench: Bench) -> None:
    main = MainRecord(created_at=1, updated_at=1, misc={"turns": 10}).model_dump_json().encode()
    bench.store.overtaken_by = Turn("ctx", "other", 0, main, {1: b"{}"}, b"{}")
    context = await bench.turn(bench.runner(echo), "hello", "r1")
    assert reply_of(context)["turn"] == 2
    assert await bench.misc() == {"turns": 11}


async def test_an_overtaken_turn_whose_request_the_other_writer_committed_takes_that_reply(bench: Bench) -> None:
    runner = bench.runner(echo)
    main = MainRecord(created_at=1, updated_at=1).model_dump_json().encode()
    bench.store.overtaken_by = Turn("ctx", "r1", 0, main, {1: b"{}"}, b'{"from": "the other"}')
    context = await bench.turn(runner, "hello", "r1")
    assert context.committed_reply == b'{"from": "the other"}'
    assert (await bench.stored()).version == 1


async def test_a_worker_whose_channel_was_taken_over_gives_the_turn_up(bench: Bench) -> None:
    runner = bench.runner(echo)
    await bench.turn(runner, "hello", "r1")
    await bench.store.load("ctx", "r9", epoch=await bench.store.claim(), attempt="new owner", history=1)
    with pytest.raises(TurnAbandoned):
        await bench.turn(runner, "more", "r2")
    assert (await bench.stored()).version == 1


async def test_a_worker_that_slept_between_delivery_and_claim_does_not_run_what_others_have_done(bench: Bench) -> None:
    """Its new epoch is the highest of all, and the reply has left the window: only the lost channel tells."""

    async def claim_after_a_long_sleep() -> int:
        bench.channel.is_open = False
        return await claim()

    claim = bench.store.claim
    bench.store.claim = claim_after_a_long_sleep  # type: ignore[method-assign]  # the moment between two steps
    with pytest.raises(TurnAbandoned, match="channel was lost"):
        await bench.turn(bench.runner(echo), "hello", "r1")
    assert await bench.store.peek("ctx", 1) is None


async def test_no_answer_sends_no_message_and_not_the_one_before(bench: Bench) -> None:
    async def silent_at_first(ctx: Context) -> str | None:
        return None if ctx.current_turn_id == 2 else "loud"

    runner = bench.runner(silent_at_first)
    await bench.turn(runner, "one", "r1")
    assert reply_of(await bench.turn(runner, "two", "r2"))["message"] is None


async def test_a_plain_function_runs_in_a_thread_of_its_own(bench: Bench) -> None:
    threads: list[str] = []

    def plain(ctx: Context) -> Message:
        threads.append(threading.current_thread().name)
        return Message("from a thread", misc={"k": 1})

    context = await bench.turn(bench.runner(plain), "hello", "r1")
    assert reply_of(context)["message"] == {"text": "from a thread", "misc": {"k": 1}}
    assert threads[0] != threading.main_thread().name


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: 5, Reason.HANDLER_FAILED),
        (lambda ctx: ctx.misc.update(o=object()), Reason.REPLY_INVALID),
        (lambda _: Message("x", misc={"o": object()}), Reason.REPLY_INVALID),
        (lambda _: Message("x" * 2**20), Reason.REPLY_INVALID),
        (lambda _: Message("\ud800"), Reason.REPLY_INVALID),
    ],
    ids=["no answer type", "misc not JSON", "message not JSON", "too large", "not Unicode"],
)
async def test_an_answer_that_cannot_travel_is_rejected(
    bench: Bench, answer: Callable[[Context], Any], reason: Reason
) -> None:
    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(answer), "hello", "r1")
    assert rejected.value.reason is reason
    assert await bench.store.peek("ctx", 1) is None or (await bench.stored()).version == 0


async def test_a_stored_context_that_cannot_be_read_is_rejected_and_kept(bench: Bench) -> None:
    await bench.store.commit(Turn("ctx", "r0", 0, b"not a record", {1: b"{}"}, b"{}"))
    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(echo), "hello", "r1")
    assert rejected.value.reason is Reason.CONTEXT_INVALID
    assert (await bench.stored()).main == b"not a record"


async def test_turns_older_than_the_history_are_loaded_on_demand(bench: Bench) -> None:
    remembered: list[str | None] = []

    async def historian(ctx: Context) -> str:
        if ctx.current_turn_id == 6:
            remembered.extend(request.text for request, _, _ in await ctx.turns[1:] if request is not None)
        return "noted"

    runner = bench.runner(historian)
    for number in range(1, 7):
        await bench.turn(runner, f"message {number}", f"r{number}")
    assert remembered == [f"message {number}" for number in range(1, 7)]


async def test_the_handler_sees_the_request_id_as_idempotency_key(bench: Bench) -> None:
    keys: list[str | None] = []

    async def bot(ctx: Context) -> None:
        keys.append(ctx.request_id)
        if len(keys) == 1:
            raise OSError("try again")

    await bench.turn(bench.runner(bot), "hello", "r1")
    assert keys == ["r1", "r1"]


async def test_a_pipeline_runner_keeps_its_context_and_its_reply_is_committed(bench: Bench) -> None:
    async def runner(
        message: Message, ctx_id: Hashable = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        return Context(
            id=str(ctx_id), requests={1: message}, responses={1: Message("from a pipeline")}, misc={"own": 1}
        )

    turns = bench.runner(runner)
    first = await bench.turn(turns, "hello", "r1")
    assert reply_of(first)["message"] == {"text": "from a pipeline"}
    assert (await bench.turn(turns, "hello", "r1")).committed_reply == first.committed_reply


def test_a_delivery_is_compared_by_identity() -> None:
    delivery = Delivery(b"", Properties(), "", "", False, 0, 1, OpenChannel())
    assert delivery != replace(delivery)


async def test_a_bot_cancelled_from_within_fails_like_any_other(bench: Bench) -> None:
    async def cancelled(ctx: Context) -> str:
        raise asyncio.CancelledError

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(cancelled), "hello", "r1")
    assert rejected.value.reason is Reason.HANDLER_FAILED


async def test_an_error_of_this_library_inside_the_bot_is_the_bots(bench: Bench) -> None:
    async def misused(ctx: Context) -> str:
        raise BrokerRefused("the bot's own client")

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(misused), "hello", "r1")
    assert rejected.value.reason is Reason.HANDLER_FAILED


async def test_what_a_bot_puts_into_its_own_turn_becomes_what_it_must_be(bench: Bench) -> None:
    def answer(context: Context) -> None:
        turn_id = context.current_turn_id
        context.responses[turn_id] = "text"  # type: ignore[assignment]  # as a bot without types may
        context.labels[turn_id] = ("flow", "node")  # type: ignore[assignment]

    await bench.turn(bench.runner(answer), "hello", "r1")
    turn = read_turn((await bench.stored()).turns[1])
    assert (turn.request, turn.response) == (Message("hello"), Message("text"))
    assert turn.label == NodeLabel(flow_name="flow", node_name="node")


async def test_what_cannot_become_a_turn_is_rejected(bench: Bench) -> None:
    def answer(context: Context) -> None:
        context.responses[context.current_turn_id] = 5  # type: ignore[assignment]

    with pytest.raises(RequestRejected) as rejected:
        await bench.turn(bench.runner(answer), "hello", "r1")
    assert rejected.value.reason is Reason.REPLY_INVALID


class Gated:
    """A bot whose runs end when they are let go."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Event] = {}

    async def __call__(self, ctx: Context) -> str:
        gate = self.running[ctx.id] = asyncio.Event()
        await gate.wait()
        del self.running[ctx.id]
        return "done"


async def test_the_bot_runs_no_more_often_at_a_time_than_it_may_and_contexts_are_loaded_meanwhile(
    bench: Bench,
) -> None:
    bench.settings = bench.settings.model_copy(update={"concurrency": 2})
    bot = Gated()
    runner = bench.runner(bot)
    turns = [asyncio.create_task(bench.turn(runner, "hello", "r1", ctx_id=f"c{n}")) for n in range(4)]
    await until(lambda: bench.store.loads == 4 and len(bot.running) == 2)
    assert sorted(bot.running) == ["c0", "c1"]
    bot.running["c0"].set()
    await turns[0]
    await until(lambda: sorted(bot.running) == ["c1", "c2"])
    for ctx_id in ("c1", "c2", "c3"):
        await until(lambda ctx_id=ctx_id: ctx_id in bot.running)  # type: ignore[misc]  # mypy cannot type a lambda's default
        bot.running[ctx_id].set()
    assert [reply_of(await turn)["status"] for turn in turns] == ["ok"] * 4


async def test_a_turn_that_waits_for_a_place_is_not_begun_once_its_queue_is_handed_over(bench: Bench) -> None:
    bench.settings = bench.settings.model_copy(update={"concurrency": 1, "crash_limit": 1})
    bot, allowed = Gated(), [True]
    runner = bench.runner(bot, lambda _: allowed[0])
    running = asyncio.create_task(bench.turn(runner, "hello", "r1", ctx_id="runs"))
    waiting = asyncio.create_task(bench.turn(runner, "hello", "r1", ctx_id="waits"))
    await until(lambda: bench.store.loads == 2 and bool(bot.running))
    allowed[0] = False
    bot.running["runs"].set()
    assert reply_of(await running)["status"] == "ok"
    with pytest.raises(TurnPostponed):
        await waiting
    # Its start was taken back: with this crash limit it would be refused as one that has ended a process.
    allowed[0] = True
    again = asyncio.create_task(bench.turn(runner, "hello", "r1", ctx_id="waits"))
    await until(lambda: "waits" in bot.running)
    bot.running["waits"].set()
    assert reply_of(await again)["status"] == "ok"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a store and a bot that are only looked at
            await asyncio.sleep(0)
