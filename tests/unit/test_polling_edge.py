"""Polling at the edge, for interfaces of both libraries: it goes on after every failure, and stops when it is to."""

import asyncio
import io
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from interfaces import polling_edge
from interfaces.errors import BrokerRefused
from interfaces.messengers import PollingMessengerInterface
from interfaces.nested_loops import nested_loops_prevented

with nested_loops_prevented():
    import chatsky
    from chatsky.messengers.common import PollingMessengerInterface as ChatskyPolling
    from chatsky.messengers.console import CLIMessengerInterface as ChatskyConsole

Script = list[Any]
"""What `_request` gives, one entry a call: a list of (text, context id), or an exception to raise."""


class Played:
    """Mixed into an interface of either library: plays a script, then waits for a user who never writes."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script
        self.answered: list[list[str]] = []
        self.told: list[str] = []
        self.failing_responses = 0
        self.played = threading.Event()

    def _request(self) -> list[tuple[str, Hashable]]:
        if not self.script:
            self.played.set()
            threading.Event().wait()
        entry = self.script.pop(0)
        if isinstance(entry, BaseException):
            raise entry
        return entry  # type: ignore[no-any-return]  # the script says what it gives

    def _respond(self, responses: list[str]) -> None:
        if self.failing_responses:
            self.failing_responses -= 1
            raise OSError("the messenger is away")
        assert responses, "Chatsky's console looks at the first one"
        self.answered.append(responses)

    def _on_exception(self, e: BaseException) -> None:
        self.told.append(f"{type(e).__name__}: {e}")


class Ours(Played, PollingMessengerInterface):  # type: ignore[misc]  # texts stand for messages and contexts here
    pass


class Theirs(Played, ChatskyPolling):
    pass


BOTH = pytest.mark.parametrize("kind", [Ours, Theirs])


async def answer(message: str, ctx_id: Hashable = None, update_ctx_misc: dict[str, Any] | None = None) -> str:
    """The runner: texts instead of messages and contexts, which polling does not look into."""
    if message == "fail":
        raise RuntimeError("no answer")
    return f"{ctx_id}: {message}"


class Polling:
    """An interface that polls in the background."""

    def __init__(self, interface: Any, runner: Callable[..., Any] = answer) -> None:
        self.stopping = asyncio.Event()
        self.ready = asyncio.Event()
        self.task = asyncio.create_task(polling_edge.poll(interface, runner, self.stopping, self.ready.set))

    async def ended(self, seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            await self.task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what sets it is in another thread
            await asyncio.sleep(0.001)


@BOTH
async def test_failures_are_told_and_everything_else_is_answered(kind: type[Played]) -> None:
    interface = kind(
        [
            OSError("no network"),
            [("1", "a"), ("fail", "b"), ("2", "c")],
            None,  # nothing to iterate over
            [],
            [("fail", "a")],
            [("3", "a")],
            [("4", "a")],
        ]
    )
    interface.failing_responses = 0
    polling = Polling(interface)
    await until(interface.played.is_set)
    assert interface.answered == [["a: 1", "c: 2"], ["a: 3"], ["a: 4"]]
    assert [told.partition(":")[0] for told in interface.told] == [
        "OSError",
        "RuntimeError",
        "TypeError",
        "RuntimeError",
    ]
    polling.stopping.set()
    await polling.ended()


@BOTH
async def test_a_response_that_fails_does_not_end_polling(kind: type[Played]) -> None:
    interface = kind([[("1", "a")], [("2", "a")]])
    interface.failing_responses = 1
    polling = Polling(interface)
    await until(interface.played.is_set)
    assert (interface.answered, interface.told) == ([["a: 2"]], ["OSError: the messenger is away"])
    polling.task.cancel()
    await asyncio.wait([polling.task], timeout=5)
    assert polling.task.done()


@BOTH
async def test_an_exception_handler_that_fails_does_not_end_polling(
    kind: type[Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, e: BaseException) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Played, "_on_exception", fail)
    interface = kind([OSError("no network"), [("1", "a")]])
    polling = Polling(interface)
    await until(interface.played.is_set)
    assert interface.answered == [["a: 1"]]
    polling.stopping.set()
    await polling.ended()


@BOTH
async def test_a_request_that_blocks_holds_up_nothing_and_is_left_behind_on_stop(kind: type[Played]) -> None:
    interface = kind([])
    polling = Polling(interface)
    await until(interface.played.is_set)
    polling.stopping.set()
    began = time.monotonic()
    await polling.ended()
    assert time.monotonic() - began < 1


@BOTH
async def test_the_messages_of_a_batch_run_side_by_side_and_are_answered_in_their_order(kind: type[Played]) -> None:
    others = asyncio.Barrier(3)

    async def wait_for_the_others(message: str, ctx_id: Hashable) -> str:
        await others.wait()
        return f"{ctx_id}: {message}"

    interface = kind([[("1", "a"), ("2", "b"), ("3", "c")]])
    polling = Polling(interface, wait_for_the_others)
    await until(interface.played.is_set)
    assert interface.answered == [["a: 1", "b: 2", "c: 3"]]
    polling.stopping.set()
    await polling.ended()


@BOTH
async def test_what_was_taken_is_answered_before_it_stops_and_nothing_more_is_taken(kind: type[Played]) -> None:
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(message: str, ctx_id: Hashable) -> str:
        asked.set()
        await may_answer.wait()
        return f"{ctx_id}: {message}"

    interface = kind([[("1", "a")], [("2", "a")]])
    polling = Polling(interface, slow)
    await asked.wait()
    polling.stopping.set()
    may_answer.set()
    await polling.ended()
    assert interface.answered == [["a: 1"]]
    assert interface.script == [[("2", "a")]]


@BOTH
async def test_cancellation_ends_it_in_the_middle_of_a_turn(kind: type[Played]) -> None:
    asked = asyncio.Event()

    async def never(message: str, ctx_id: Hashable) -> str:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    polling = Polling(kind([[("1", "a")]]), never)
    await asked.wait()
    polling.task.cancel()
    await asyncio.wait([polling.task], timeout=1)
    assert polling.task.done()


@BOTH
async def test_the_end_of_input_is_the_end(kind: type[Played]) -> None:
    interface = kind([[("1", "a")], EOFError()])
    polling = Polling(interface)
    await polling.ended()
    assert interface.answered == [["a: 1"]]
    assert polling.ready.is_set()


@BOTH
async def test_a_fatal_error_of_the_runner_is_raised(kind: type[Played]) -> None:
    async def refused(message: str, ctx_id: Hashable) -> str:
        raise BrokerRefused("no permission")

    with pytest.raises(BrokerRefused, match="no permission"):
        await Polling(kind([[("1", "a")]]), refused).ended()


@BOTH
async def test_a_cancellation_from_within_a_turn_is_a_failure_of_that_turn(kind: type[Played]) -> None:
    async def cancelled(message: str, ctx_id: Hashable) -> str:
        if message == "1":
            raise asyncio.CancelledError
        return f"{ctx_id}: {message}"

    interface = kind([[("1", "a"), ("2", "b")], [("3", "a")]])
    polling = Polling(interface, cancelled)
    await until(interface.played.is_set)
    assert interface.answered == [["b: 2"], ["a: 3"]]
    polling.stopping.set()
    await polling.ended()


@BOTH
async def test_a_connect_that_fails_is_told_to_whoever_runs_it(
    kind: type[Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(self: object, pipeline_runner: object) -> None:
        raise ConnectionError("the messenger refuses the password")

    monkeypatch.setattr(kind, "connect", connect)
    with pytest.raises(ConnectionError, match="password"):
        await Polling(kind([])).ended()


@BOTH
async def test_a_loop_function_of_the_interface_ends_it(kind: type[Played], monkeypatch: pytest.MonkeyPatch) -> None:
    original = kind.connect  # type: ignore[attr-defined]  # the interface that is mixed in has it

    async def connect(self: Played, pipeline_runner: Callable[..., Any]) -> None:
        await original(self, pipeline_runner, loop=lambda: bool(self.script))

    monkeypatch.setattr(kind, "connect", connect)
    interface = kind([[("1", "a")], [("2", "a")]])
    await Polling(interface).ended()
    assert interface.answered == [["a: 1"], ["a: 2"]]


@contextmanager
def console(monkeypatch: pytest.MonkeyPatch, text: str) -> Iterator[io.StringIO]:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    yield out


async def test_chatskys_console_talks_and_ends_with_its_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contexts: set[Hashable] = set()

    async def runner(message: Any, ctx_id: Hashable = None, update_ctx_misc: Any = None) -> Any:
        contexts.add(ctx_id)
        if message.text == "fail":
            raise RuntimeError("no answer")
        return chatsky.Context(id=str(ctx_id), responses={1: chatsky.Message(f"you said {message.text}")})

    with console(monkeypatch, "one\nfail\ntwo\n") as out:
        await Polling(ChatskyConsole(intro="Hello!", out_descriptor=out), runner).ended()
    assert "Hello!" in capsys.readouterr().out
    assert out.getvalue() == "response: text='you said one'\nresponse: text='you said two'\n"
    assert len(contexts) == 1


async def test_a_polling_loop_of_the_interfaces_own_is_not_used_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Own(Ours):
        async def _polling_loop(self, pipeline_runner: object, timeout: float = 0) -> None:
            raise AssertionError

    interface = Own([[("1", "a")]])
    polling = Polling(interface)
    await until(interface.played.is_set)
    assert interface.answered == [["a: 1"]]
    assert "the _polling_loop of Own is not used" in caplog.text
    polling.stopping.set()
    await polling.ended()
