"""The testing kit with bots of each kind: what a test sees of them, and what it is told when something is wrong."""

import asyncio
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest

from interfaces.context import Context
from interfaces.errors import AppInvalid, AskTimeout, AttachmentError, MisuseError, RequestFailed
from interfaces.messages import DataModel, Document, Image, Location, Message
from interfaces.nested_loops import nested_loops_prevented
from worker.testing import CrashMissed, run_bot


async def counting(ctx: Context) -> str:
    ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
    return f"{ctx.misc['turns']}: {ctx.last_request.text}"


async def test_a_reply_has_text_misc_turn_and_steps() -> None:
    async with run_bot(counting) as running:
        reply = await running.user("ada").say("hi")
    assert (reply.text, reply.misc, reply.turn) == ("1: hi", {"turns": 1}, 1)
    assert reply.steps == {"load": 1, "run": 1, "commit": 1, "publish": 1, "ack": 1}


async def test_users_speak_at_once_each_in_their_own_dialog() -> None:
    here = asyncio.Barrier(3)

    async def bot(ctx: Context) -> str:
        await here.wait()  # passes only where all three turns run at a time
        return await counting(ctx)

    async with run_bot(bot) as running:
        replies = await asyncio.gather(*(running.user(name).say(f"I am {name}") for name in ("ada", "bob", "eve")))
    assert [reply.text for reply in replies] == ["1: I am ada", "1: I am bob", "1: I am eve"]


async def test_messages_of_one_user_are_answered_in_the_order_they_were_said() -> None:
    async with run_bot(counting) as running:
        ada = running.user("ada")
        replies = await asyncio.gather(*(ada.say(str(number)) for number in range(20)))
    assert [reply.text for reply in replies] == [f"{number + 1}: {number}" for number in range(20)]


async def test_users_without_a_name_are_different_ones() -> None:
    async with run_bot(counting) as running:
        replies = [await running.user().say("hi") for _ in range(2)]
    assert [reply.turn for reply in replies] == [1, 1]


async def test_attachments_and_misc_of_a_message_go_there_and_back() -> None:
    async def bot(ctx: Context) -> Message:
        return Message("see", attachments=ctx.last_request.attachments, misc=ctx.last_request.misc)

    attachments = [Image(source="https://example.com/a.png"), Location(longitude=1, latitude=2)]
    async with run_bot(bot) as running:
        reply = await running.user().say(Message("look", attachments=attachments, misc={"n": 1}))
    assert reply.message == Message("see", attachments=attachments, misc={"n": 1})


@pytest.mark.filterwarnings("ignore:Accessing the 'model_fields'")  # Chatsky's pipelines do
async def test_files_go_there_and_back(tmp_path: Path) -> None:
    with nested_loops_prevented():
        from chatsky import RESPONSE, TRANSITIONS, BaseResponse, Pipeline
        from chatsky import Context as ChatskyContext
        from chatsky import Message as ChatskyMessage
        from chatsky import Transition as Tr
        from chatsky.core.message import Document as ChatskyDocument

    class Reversed(BaseResponse):
        async def call(self, ctx: ChatskyContext) -> ChatskyMessage:
            (sent,) = ctx.last_request.attachments
            answer = tmp_path / "answer.txt"
            answer.write_bytes((await sent.get_bytes(ctx.pipeline.messenger_interface))[::-1])
            return ChatskyMessage(attachments=[ChatskyDocument(source=answer)])

    script = {"flow": {"start": {TRANSITIONS: [Tr(dst="end")]}, "end": {RESPONSE: Reversed(), TRANSITIONS: []}}}
    (tmp_path / "question.txt").write_text("stressed")
    async with run_bot(Pipeline(script, start_label=("flow", "start"))) as running:
        running.crash(before="publish")
        question = Document(source=tmp_path / "question.txt")
        reply = await running.user().say(Message(attachments=[question]))
        assert reply.message is not None
        assert reply.message.attachments is not None
        (answer,) = reply.message.attachments
        assert isinstance(answer, Document)
        assert isinstance(answer.source, Path)
        assert answer.source.read_text() == "desserts"
    assert not answer.source.exists()


async def test_a_handler_reads_the_file_that_it_is_sent(tmp_path: Path) -> None:
    async def bot(ctx: Context) -> str:
        (sent,) = ctx.last_request.attachments or []
        assert isinstance(sent, Document)
        return (await ctx.attachment_bytes(sent)).decode()

    (tmp_path / "file.txt").write_text("inside")
    async with run_bot(bot) as running:
        reply = await running.user().say(Message(attachments=[Document(source=tmp_path / "file.txt")]))
    assert reply.text == "inside"


async def test_a_file_that_is_not_there_is_an_error() -> None:
    async with run_bot(counting) as running:
        with pytest.raises(AttachmentError, match=r"no/such/file"):
            await running.user().say(Message(attachments=[Image(source="/no/such/file")]))


async def test_a_message_that_cannot_travel_is_refused_as_in_production() -> None:
    async with run_bot(counting) as running:
        with pytest.raises(MisuseError, match="is not an http or https URL"):
            await running.user().say(Message(attachments=[DataModel(source="/etc/passwd")]))


async def test_the_context_is_read_as_it_is_stored_with_all_its_turns() -> None:
    async with run_bot(counting, history=2) as running:
        ada = running.user("ada")
        assert (await ada.context()).current_turn_id == 0
        for number in range(5):
            await ada.say(str(number))
        context = await ada.context()
    assert context.misc == {"turns": 5}
    said = [(request.text, response.text) for request, _, response in await context.turns[1:] if request and response]
    assert said == [(str(number), f"{number + 1}: {number}") for number in range(5)]


async def test_what_an_interface_passes_along_is_in_misc() -> None:
    async with run_bot(counting) as running:
        reply = await running.user().say("hi", update_ctx_misc={"turns": 41})
    assert reply.text == "42: hi"


async def test_a_message_that_comes_twice_is_answered_twice_and_run_once() -> None:
    async with run_bot(counting) as running:
        ada = running.user("ada")
        first, again = [await ada.say("hi", request_id="one") for _ in range(2)]
        assert (await ada.context()).current_turn_id == 1
    assert (again.text, again.turn) == (first.text, first.turn)
    assert again.steps == {"load": 1, "publish": 1, "ack": 1}


async def test_copies_of_a_message_at_once_are_one_turn() -> None:
    async with run_bot(counting) as running:
        ada = running.user("ada")
        replies = await asyncio.gather(*(ada.say("hi", request_id="one") for _ in range(3)))
        assert (await ada.context()).misc == {"turns": 1}
    assert {reply.text for reply in replies} == {"1: hi"}


async def test_a_bot_that_answers_nothing_gives_a_reply_without_a_message() -> None:
    async def bot(ctx: Context) -> None: ...

    async with run_bot(bot) as running:
        reply = await running.user().say("hi")
    assert (reply.message, reply.text, reply.turn) == (None, None, 1)


async def runner(
    message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
) -> Context:
    return Context(id=str(ctx_id), requests={1: message}, responses={1: Message(f"ran {message.text}")}, misc={"a": 1})


async def test_a_plain_pipeline_runner_is_run() -> None:
    async with run_bot(runner) as running:
        reply = await running.user().say("hi")
    assert (reply.text, reply.misc) == ("ran hi", {"a": 1})


@pytest.mark.filterwarnings("ignore:Accessing the 'model_fields'")  # Chatsky's pipelines do
async def test_a_chatsky_pipeline_is_run_and_its_labels_are_read() -> None:
    with nested_loops_prevented():
        from chatsky import RESPONSE, TRANSITIONS, Pipeline
        from chatsky import Transition as Tr

    script = {"flow": {"start": {TRANSITIONS: [Tr(dst="end")]}, "end": {RESPONSE: "Hello!", TRANSITIONS: []}}}
    async with run_bot(Pipeline(script, start_label=("flow", "start"))) as running:
        ada = running.user("ada")
        reply = await ada.say("hi")
        labels = (await ada.context()).labels
    assert (reply.text, reply.turn) == ("Hello!", 1)
    assert {number: label.node_name for number, label in labels.items()} == {0: "start", 1: "end"}


async def test_a_bot_is_named_as_on_the_command_line() -> None:
    async with run_bot("examples.pizza:bot") as running:
        reply = await running.user().say("hi")
    assert reply.text == "Welcome! Small, medium or large?"


async def test_a_bot_that_fails_is_an_error_with_its_traceback() -> None:
    async def bot(ctx: Context) -> str:
        raise ValueError("out of cheese")

    async with run_bot(bot) as running:
        with pytest.raises(RequestFailed, match="handler-failed") as caught:
            await running.user().say("hi")
    (note,) = caught.value.__notes__
    assert 'raise ValueError("out of cheese")' in note
    assert "attempt" not in note


async def test_settings_are_those_of_a_worker() -> None:
    failures = iter([ValueError("once"), ValueError("twice")])

    async def bot(ctx: Context) -> str:
        for failure in failures:
            raise failure
        return "third time"

    async with run_bot(bot, attempts=3, retry_wait=0) as running:
        reply = await running.user().say("hi")
    assert (reply.text, reply.steps["run"]) == ("third time", 1)


async def test_the_environment_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_AMQP_URL", "amqp://nowhere.invalid")
    monkeypatch.setenv("SWITCHBOARD_SHARDS", "no number")
    async with run_bot(counting) as running:
        assert (await running.user().say("hi")).turn == 1


async def test_a_coroutine_that_does_not_answer_is_shown_where_it_waits() -> None:
    async def look_it_up() -> None:
        await asyncio.Event().wait()  # for ever

    async def bot(ctx: Context) -> str:
        await look_it_up()
        return "found"

    async with run_bot(bot, timeout=0.05) as running:
        with pytest.raises(AskTimeout) as caught:
            await running.user("ada").say("where is it?")
    said = str(caught.value)
    assert "user 'ada' said 'where is it?' and got no answer within 0.05 s: its turn is at the step 'run'" in said
    assert said.count(" in bot\n") == said.count(" in look_it_up\n") == 1
    assert said.rstrip().endswith("await asyncio.Event().wait()  # for ever")


async def test_a_plain_function_that_does_not_answer_is_shown_where_it_waits() -> None:
    import threading

    released = threading.Event()

    def bot(ctx: Context) -> str:
        released.wait()  # in a thread
        return "late"

    async with run_bot(bot, timeout=0.05) as running:
        with pytest.raises(AskTimeout) as caught:
            await running.user("ada").say("hi")
    released.set()
    assert str(caught.value).rstrip().endswith("released.wait()  # in a thread")


async def test_what_ends_the_worker_ends_the_test_at_once() -> None:
    async def bot(ctx: Context) -> str:
        pytest.fail("asked although it must not be")

    with pytest.raises(pytest.fail.Exception, match="must not be"):
        async with run_bot(bot, timeout=60) as running:
            await running.user().say("hi")


async def test_what_cannot_be_run_says_what_can() -> None:
    with pytest.raises(AppInvalid, match="give an async function"):
        async with run_bot(42):
            pass


async def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="atempts"):
        async with run_bot(counting, atempts=3):
            pass


async def test_servers_cannot_be_given() -> None:
    with pytest.raises(MisuseError, match="redis_url"):
        async with run_bot(counting, redis_url="redis://localhost"):
            pass


async def test_a_step_that_does_not_exist_is_named() -> None:
    async with run_bot(counting) as running:
        with pytest.raises(MisuseError, match="its steps are load, run, commit, publish, ack"):
            running.crash(before="loading")  # type: ignore[arg-type]  # the mistake this is about


async def test_nothing_of_a_bot_is_left() -> None:
    before = asyncio.all_tasks()
    async with run_bot(counting) as running:
        await running.user().say("hi")
        running.crash(before="ack")
        await running.user().say("hi")
    assert asyncio.all_tasks() == before


async def test_a_turn_that_still_runs_at_the_end_is_given_up() -> None:
    begun = asyncio.Event()

    async def bot(ctx: Context) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with run_bot(bot) as running:
        saying = asyncio.create_task(running.user().say("hi"))
        await begun.wait()
        saying.cancel()
    assert len(asyncio.all_tasks()) == 1


async def test_what_a_test_raises_is_not_hidden_by_a_crash_that_was_missed() -> None:
    async def the_test() -> None:
        async with run_bot(counting) as running:
            running.crash(before="run")
            assert (await running.user("ada").context()).misc

    with pytest.raises(AssertionError, match="misc"):
        await the_test()


async def test_a_crash_that_was_missed_fails_the_test_and_is_named() -> None:
    async def the_test() -> None:
        async with run_bot(counting) as running:
            running.crash(before="publish", user=running.user("eve"))
            await running.user("ada").say("hi")

    with pytest.raises(CrashMissed, match="the crash before 'publish' of a turn of user 'eve' never happened"):
        await the_test()


async def test_crashes_that_were_missed_in_part_are_counted() -> None:
    async def the_test() -> None:
        async with run_bot(counting) as running:
            running.crash(before="run", times=5)
            with pytest.raises(RequestFailed, match="crashes-worker"):
                await running.user().say("hi")

    with pytest.raises(CrashMissed, match="the crash before 'run' of a turn of any user happened 3 of 5 times"):
        await the_test()


async def test_a_bot_starts_and_answers_in_well_under_50_milliseconds() -> None:
    seconds = []
    for _ in range(10):  # the best of them: a busy machine must not decide
        begun = time.perf_counter()
        async with run_bot(counting) as running:
            await running.user().say("hi")
        seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.05
