"""The seed's interfaces: signatures and defaults, polling that goes on, stops that stop, and helpful misuse errors."""

import asyncio
import contextvars
import inspect
import logging
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import pytest

from interfaces import messengers
from interfaces.context import Context
from interfaces.errors import BrokerRefused, MisuseError
from interfaces.messages import Message
from interfaces.messengers import (
    MAX_BACKOFF_SECONDS,
    CallbackMessengerInterface,
    MessengerInterface,
    MessengerInterfaceWithAttachments,
    PipelineRunnerFunction,
    PollingMessengerInterface,
    Updates,
)

Script = Iterable[Updates | BaseException]
SETTING: contextvars.ContextVar[str] = contextvars.ContextVar("SETTING")


async def echo(
    message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
) -> Context:
    """A pipeline that repeats what it is told."""
    if message.text == "fail":
        raise RuntimeError("the pipeline failed")
    return Context(id=str(ctx_id), responses={1: message}, misc=update_ctx_misc or {})


class Plain(PollingMessengerInterface):
    """Plays a script of polls, one entry a cycle, with plain methods."""

    def __init__(self, script: Script = ()) -> None:
        super().__init__()
        self.script = list(script)
        self.sent: list[list[str | None]] = []
        self.exceptions: list[BaseException] = []
        self.threads: set[str] = set()

    def _request(self) -> Updates:
        self.threads.add(threading.current_thread().name)
        entry = self.script.pop(0)
        if isinstance(entry, BaseException):
            raise entry
        return entry

    def _respond(self, responses: list[Context]) -> None:
        self.threads.add(threading.current_thread().name)
        self.sent.append([context.last_response.text if context.last_response else None for context in responses])

    def _on_exception(self, e: BaseException) -> None:
        self.exceptions.append(e)
        super()._on_exception(e)

    def unfinished(self) -> bool:
        """A `loop` that ends with the script."""
        return bool(self.script)


class Async(Plain):
    """The same with coroutines."""

    async def _request(self) -> Updates:  # type: ignore[override]  # the seed's base allows both; `Plain` narrowed it
        return super()._request()

    async def _respond(self, responses: list[Context]) -> None:  # type: ignore[override]  # as above
        super()._respond(responses)


class Waiting(Plain):
    """Blocks in a plain `_request` until released."""

    def __init__(self) -> None:
        super().__init__()
        self.blocked = threading.Event()
        self.release = threading.Event()

    def _request(self) -> Updates:
        self.blocked.set()
        self.release.wait()
        return []


def said(*texts: str) -> Updates:
    return [(Message(text), f"user-{number}") for number, text in enumerate(texts)]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses asked of `asyncio.sleep`, none of which is waited for."""
    asked: list[float] = []
    sleep = asyncio.sleep

    async def remember(delay: float) -> None:
        asked.append(delay)
        await sleep(0)

    monkeypatch.setattr("interfaces.messengers.asyncio.sleep", remember)
    return asked


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (MessengerInterface.connect, "(self, pipeline_runner)"),
        (MessengerInterfaceWithAttachments.__init__, "(self, attachments_directory=None)"),
        (MessengerInterfaceWithAttachments.get_attachment_bytes, "(self, source)"),
        (PollingMessengerInterface._request, "(self)"),
        (PollingMessengerInterface._respond, "(self, responses)"),
        (PollingMessengerInterface._on_exception, "(self, e)"),
        (PollingMessengerInterface._polling_loop, "(self, pipeline_runner, timeout=0)"),
        (CallbackMessengerInterface.connect, "(self, pipeline_runner)"),
        (CallbackMessengerInterface.on_request, "(self, request, ctx_id=None, update_ctx_misc=None)"),
        (CallbackMessengerInterface.on_request_async, "(self, request, ctx_id=None, update_ctx_misc=None)"),
        (PipelineRunnerFunction.__call__, "(self, message, ctx_id=None, update_ctx_misc=None)"),
    ],
)
def test_signatures_are_the_seeds(function: Callable[..., Any], signature: str) -> None:
    parameters = [
        name if parameter.default is parameter.empty else f"{name}={parameter.default!r}"
        for name, parameter in inspect.signature(function).parameters.items()
    ]
    assert f"({', '.join(parameters)})" == signature


def test_polling_connect_loops_for_ever_without_pause_by_default() -> None:
    parameters = inspect.signature(PollingMessengerInterface.connect).parameters
    assert list(parameters) == ["self", "pipeline_runner", "loop", "timeout"]
    assert parameters["loop"].default() is True
    assert parameters["timeout"].default == 0


@pytest.mark.parametrize(
    "kind",
    [MessengerInterface, MessengerInterfaceWithAttachments, PollingMessengerInterface],
)
def test_the_base_classes_are_abstract(kind: type[Any]) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()


def test_an_interface_is_called_after_its_class() -> None:
    assert Plain().id == "Plain"


class Files(MessengerInterfaceWithAttachments, CallbackMessengerInterface):
    async def get_attachment_bytes(self, source: str) -> bytes:
        raise NotImplementedError


def test_attachments_go_to_the_temporary_directory_by_default() -> None:
    assert Files().attachments_directory == Path(tempfile.gettempdir())
    assert Files.supported_request_attachment_types == set()
    assert Files.supported_response_attachment_types == set()


def test_a_given_attachments_directory_is_created(tmp_path: Path) -> None:
    assert Files(tmp_path / "a" / "b").attachments_directory.is_dir()


@pytest.mark.parametrize("kind", [Plain, Async])
async def test_each_cycle_answers_what_was_asked(kind: type[Plain], pauses: list[float]) -> None:
    interface = kind([said("a", "b"), [], said("c")])
    await interface.connect(echo, interface.unfinished, timeout=2.5)
    assert interface.sent == [["a", "b"], [], ["c"]]
    assert pauses == [2.5, 2.5, 2.5]
    assert interface.exceptions == []


async def test_plain_methods_run_beside_the_event_loop_with_the_callers_context_variables() -> None:
    SETTING.set("here")
    seen: list[str] = []

    class Curious(Plain):
        def _request(self) -> Updates:
            seen.append(SETTING.get())
            return super()._request()

    interface = Curious([said("a")])
    await interface.connect(echo, interface.unfinished)
    assert seen == ["here"]
    assert threading.main_thread().name not in interface.threads


async def test_polling_never_begins_where_loop_is_false() -> None:
    interface = Plain([said("a")])
    await interface.connect(echo, lambda: False)
    assert interface.sent == []


@pytest.mark.parametrize("kind", [Plain, Async])
async def test_one_bad_poll_does_not_end_polling(
    kind: type[Plain], pauses: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    interface = kind([said("a"), OSError("the messenger is away"), said("b")])
    with caplog.at_level(logging.INFO):
        await interface.connect(echo, interface.unfinished)
    assert interface.sent == [["a"], ["b"]]
    assert [(r.levelname, r.message) for r in caplog.records if r.name == messengers.__name__] == [
        ("ERROR", f"Exception in {kind.__name__} loop!")
    ]


async def test_repeated_failures_are_spaced_out_up_to_a_bound_and_success_starts_anew(pauses: list[float]) -> None:
    interface = Plain([*(OSError() for _ in range(7)), [], OSError()])
    await interface.connect(echo, interface.unfinished)
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, MAX_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, 0, 0.05]


async def test_a_pause_after_a_failure_is_never_shorter_than_timeout(pauses: list[float]) -> None:
    interface = Plain([OSError(), OSError()])
    await interface.connect(echo, interface.unfinished, timeout=60)
    assert pauses == [60, 60]


async def test_a_failing_turn_takes_no_other_reply_with_it(pauses: list[float]) -> None:
    interface = Plain([said("a", "fail", "b"), said("fail")])
    await interface.connect(echo, interface.unfinished)
    assert interface.sent == [["a", "b"]]
    assert [str(error) for error in interface.exceptions] == ["the pipeline failed"] * 2


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
async def test_an_exit_ends_polling_is_logged_as_information_and_raised(
    stop: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    # Not through `connect` in a task of its own: asyncio lets these two out of the event loop itself.
    interface = Plain([stop()])
    connecting = interface.connect(echo)
    with caplog.at_level(logging.INFO), pytest.raises(stop):
        await connecting
    assert [(r.levelname, r.message) for r in caplog.records if r.name == messengers.__name__] == [
        ("INFO", "Plain has stopped polling.")
    ]


async def test_a_fatal_error_ends_polling() -> None:
    interface = Plain([BrokerRefused("too old"), said("a")])
    with pytest.raises(BrokerRefused):
        await interface.connect(echo)
    assert interface.sent == []


async def test_cancellation_ends_a_blocked_poll_and_is_raised_again(caplog: pytest.LogCaptureFixture) -> None:
    interface = Waiting()
    task = asyncio.create_task(interface.connect(echo))
    await asyncio.to_thread(interface.blocked.wait)
    with caplog.at_level(logging.INFO):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert task.cancelled()
    assert "Waiting has stopped polling." in caplog.messages
    interface.release.set()


async def test_cancellation_ends_a_pause_between_polls() -> None:
    paused = asyncio.Event()

    class Pausing(Async):
        async def _respond(self, responses: list[Context]) -> None:  # type: ignore[override]  # as in `Async`
            paused.set()

    interface = Pausing([[]])
    task = asyncio.create_task(interface.connect(echo, timeout=3600))
    await paused.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_thread_still_waiting_for_input_does_not_keep_the_process_alive() -> None:
    program = """
import asyncio, threading
from interfaces.messengers import PollingMessengerInterface

class Console(PollingMessengerInterface):
    def _request(self):
        blocked.set()
        threading.Event().wait()
    def _respond(self, responses): ...

async def main():
    task = asyncio.create_task(Console().connect(None))
    while not blocked.is_set():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

blocked = threading.Event()
asyncio.run(main())
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert (ended.stdout, ended.stderr) == ("ended\n", "")


async def test_on_request_async_passes_everything_to_the_pipeline() -> None:
    interface = CallbackMessengerInterface()
    await interface.connect(echo)
    context = await interface.on_request_async(Message("hi"), 7, {"a": 1})
    assert (context.id, context.last_response, context.misc) == ("7", Message("hi"), {"a": 1})


async def test_requests_before_connect_are_told_to_connect() -> None:
    with pytest.raises(MisuseError, match=r"call `await CallbackMessengerInterface.connect\(pipeline_runner\)` first"):
        await CallbackMessengerInterface().on_request_async(Message("hi"))
    with pytest.raises(MisuseError, match="connect"):
        CallbackMessengerInterface().on_request(Message("hi"))


async def test_on_request_inside_an_event_loop_is_told_to_await() -> None:
    interface = CallbackMessengerInterface()
    await interface.connect(echo)
    with pytest.raises(MisuseError, match=r"use `await on_request_async\(\.\.\.\)` there"):
        interface.on_request(Message("hi"))


def test_on_request_without_an_event_loop_runs_one() -> None:
    interface = CallbackMessengerInterface()
    asyncio.run(interface.connect(echo))
    assert interface.on_request(Message("hi"), "c", {"a": 1}).last_response == Message("hi")


async def test_on_request_from_a_thread_runs_in_the_loop_that_connected() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def runner(
        message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        loops.append(asyncio.get_running_loop())
        return await echo(message, ctx_id, update_ctx_misc)

    interface = CallbackMessengerInterface()
    await interface.connect(runner)
    context = await asyncio.to_thread(interface.on_request, Message("hi"), "c")
    assert context.id == "c"
    assert loops == [asyncio.get_running_loop()]
