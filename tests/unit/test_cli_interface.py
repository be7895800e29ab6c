"""The console: dialogs through pipes, files and stand-ins, the end of input, and text that cannot do harm."""

import asyncio
import io
import os
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interfaces.cli import CLIMessengerInterface, printable
from interfaces.context import Context
from interfaces.messages import Location, Message


class Bot:
    """Repeats what it is told and remembers who said it."""

    def __init__(self, response: Message | None = None) -> None:
        self.heard: list[tuple[str | None, Hashable]] = []
        self.response = response

    async def __call__(
        self, message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        self.heard.append((message.text, ctx_id))
        return Context(id=str(ctx_id), responses={1: self.response or message})


class Console:
    """What standard input reads, and the end to type into."""

    def __init__(self) -> None:
        reading, self._writing = os.pipe()
        self.stdin = os.fdopen(reading, encoding="utf-8")

    def type(self, text: str) -> None:
        os.write(self._writing, text.encode())

    def end(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    console = Console()
    monkeypatch.setattr("sys.stdin", console.stdin)
    yield console
    console.end()
    console.stdin.close()


async def test_a_dialog_is_one_context_and_ends_with_the_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\nbye\n"))
    bot = Bot()
    await CLIMessengerInterface(intro="welcome").connect(bot)
    assert [text for text, _ in bot.heard] == ["hi", "bye"]
    assert len({ctx_id for _, ctx_id in bot.heard}) == 1
    assert capsys.readouterr().out == "welcome\nrequest: response: hi\nrequest: response: bye\nrequest: "


async def test_each_connect_is_a_new_dialog(monkeypatch: pytest.MonkeyPatch) -> None:
    interface, bot = CLIMessengerInterface(), Bot()
    for _ in range(2):
        monkeypatch.setattr("sys.stdin", io.StringIO("hi\n"))
        await interface.connect(bot)
    assert len({ctx_id for _, ctx_id in bot.heard}) == 2


async def test_prompts_and_the_place_of_responses_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n"))
    out = io.StringIO()
    await CLIMessengerInterface(prompt_request="> ", prompt_response="< ", out_descriptor=out).connect(Bot())
    assert out.getvalue() == "< hi\n"
    assert capsys.readouterr().out == "> > "


async def test_loop_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nb\n"))
    bot, more = Bot(), iter([True, False])
    await CLIMessengerInterface().connect(bot, lambda: next(more))
    assert [text for text, _ in bot.heard] == ["a"]


async def test_lines_come_one_at_a_time_however_a_pipe_delivers_them(console: Console) -> None:
    bot = Bot()
    task = asyncio.create_task(CLIMessengerInterface().connect(bot, lambda: len(bot.heard) < 4))
    for piece in ("on", "e\r\ntwo\n\nfo", "\u00fcr\n"):
        console.type(piece)
        await asyncio.sleep(0)
    await task
    assert [text for text, _ in bot.heard] == ["one", "two", "", "fo\u00fcr"]


async def test_a_last_line_without_an_end_counts(console: Console) -> None:
    bot = Bot()
    console.type("one\ntwo")
    console.end()
    await CLIMessengerInterface().connect(bot)
    assert [text for text, _ in bot.heard] == ["one", "two"]


async def test_a_file_can_be_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dialog").write_text("hi\nbye")
    bot = Bot()
    with (tmp_path / "dialog").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        await CLIMessengerInterface().connect(bot)
    assert [text for text, _ in bot.heard] == ["hi", "bye"]


async def test_cancelling_takes_no_input_along(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()
    add_reader = asyncio.get_running_loop().add_reader

    def add_and_tell(*args: Any) -> None:
        add_reader(*args)
        waiting.set()

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", add_and_tell)
    interface, bot = CLIMessengerInterface(), Bot()
    task = asyncio.create_task(interface.connect(bot))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not asyncio.get_running_loop().remove_reader(console.stdin), "it still watches the input"
    console.type("after\n")
    await interface.connect(bot, lambda: not bot.heard)
    assert [text for text, _ in bot.heard] == ["after"]


async def test_a_response_with_more_than_text_shows_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("where?\n"))
    out = io.StringIO()
    await CLIMessengerInterface(out_descriptor=out).connect(
        Bot(Message("here", attachments=[Location(longitude=1, latitude=2)]))
    )
    assert out.getvalue().startswith("response: text='here' attachments=")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext ünïcödé 👩‍👩‍👧", "plain\n\ttext ünïcödé 👩‍👩‍👧"),
        ("\x1b[31mred\x1b[0m \x9b1mbold", "red bold"),
        ("\x1b]0;title\x07a\x1b]8;;http://e.com\x1b\\link\x1b]8;;\x1b\\ \x9d52;c;Zm9v\x9cb", "alink b"),
        ("\x1b]0;never ends", "0;never ends"),
        ("\x1bcreset \x1b(B\x08\x7f\x00\rover\x1b", "reset over"),
    ],
)
def test_control_characters_are_not_printed(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_hostile_text_costs_no_more_than_its_length() -> None:
    assert printable("\x1b]\x9d\x1b[" * 200_000) == ""
