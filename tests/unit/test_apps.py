"""APP: what can be run, and how it is found beside packages that have the names of ours."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import interfaces
import worker
from interfaces import Context, Message
from interfaces.errors import AppInvalid, ExitCode
from worker.apps import HandlerApp, RunnerApp, adapt, load_app

BOT = "async def handler(ctx):\n    return 'here'\n"


async def async_handler(ctx: Context) -> str:
    return f"{ctx.id} async"


def plain_handler(ctx: Context) -> Message:
    return Message(f"{ctx.id} plain")


class CallableBot:
    async def __call__(self, ctx: Context) -> None:
        return None


class Pipeline:
    async def _run_pipeline(
        self, message: Message, ctx_id: Any = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        return Context(id=str(ctx_id), responses={1: message})


async def runner(message: Message, ctx_id: Any = None, update_ctx_misc: dict[str, Any] | None = None) -> Context:
    return Context(id=str(ctx_id), responses={1: message})


@pytest.mark.parametrize("bot", [async_handler, CallableBot(), partial(async_handler)])
def test_an_async_callable_with_one_required_parameter_is_an_async_handler(bot: Any) -> None:
    app = adapt(bot)
    assert isinstance(app, HandlerApp)
    assert app.is_async


def test_a_plain_function_is_a_handler_that_runs_in_a_thread() -> None:
    app = adapt(plain_handler)
    assert isinstance(app, HandlerApp)
    assert not app.is_async


@pytest.mark.parametrize("bot", [runner, Pipeline()])
def test_a_pipeline_runner_or_a_pipeline_keeps_its_contexts_itself(bot: Any) -> None:
    assert isinstance(adapt(bot), RunnerApp)


@pytest.mark.parametrize(
    ("bot", "fault"),
    [
        (Pipeline, "cannot be run"),
        (Message, "cannot be run"),
        ("bot:handler", "cannot be run"),
        (None, "cannot be run"),
        (lambda: None, "takes no parameter"),
    ],
)
def test_anything_else_is_refused_with_what_would_do(bot: Any, fault: str) -> None:
    with pytest.raises(AppInvalid, match=fault) as caught:
        adapt(bot)
    assert caught.value.exit_code is ExitCode.APP


@pytest.mark.parametrize(("bot", "answer"), [(async_handler, "ada async"), (plain_handler, "ada plain")])
async def test_a_handler_answers_with_a_message(bot: Any, answer: str) -> None:
    app = adapt(bot)
    assert isinstance(app, HandlerApp)
    message = await app.answer(Context(id="ada"), lambda _: None)
    assert message is not None
    assert message.text == answer


async def test_an_answer_of_another_type_is_an_error_that_names_it() -> None:
    app = adapt(lambda ctx: 42)
    assert isinstance(app, HandlerApp)
    with pytest.raises(TypeError, match="not int"):
        await app.answer(Context(id="ada"), lambda _: None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory as the current one; what is imported from it is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for package in (interfaces, worker):
        monkeypatch.setattr(package, "__path__", [*package.__path__])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                vars(sys.modules[parent]).pop(child, None)
            del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_bot_in_the_current_directory_is_found(project: Path) -> None:
    write(project / "some_bot.py", BOT)
    assert isinstance(load_app("some_bot:handler"), HandlerApp)


def test_an_attribute_may_be_inside_another(project: Path) -> None:
    write(project / "nested_bot.py", "class Bots:\n    @staticmethod\n    async def one(ctx):\n        return 'x'\n")
    assert isinstance(load_app("nested_bot:Bots.one"), HandlerApp)


@pytest.mark.parametrize("path", ["bot", "bot:", ":handler", ""])
def test_a_path_that_is_not_module_and_attribute_is_refused(path: str) -> None:
    with pytest.raises(AppInvalid, match="must be module:attribute"):
        load_app(path)


def test_a_module_that_is_not_there_is_named_with_where_it_was_looked_for(project: Path) -> None:
    with pytest.raises(AppInvalid, match="there is no module 'nowhere_bot'") as caught:
        load_app("nowhere_bot:handler")
    assert str(project) in str(caught.value)


def test_an_error_in_the_bot_is_told_with_its_file_and_line(project: Path) -> None:
    bot = write(project / "broken_bot.py", "import sys\n\nraise ValueError('no token')\n")
    with pytest.raises(AppInvalid, match="ValueError: no token") as caught:
        load_app("broken_bot:handler")
    assert f"({bot}, line 3)" in str(caught.value)
    assert "collide" not in str(caught.value)


def test_an_attribute_that_is_not_there_is_named(project: Path) -> None:
    write(project / "empty_bot.py", "")
    with pytest.raises(AppInvalid, match="'empty_bot' has no attribute 'handler'"):
        load_app("empty_bot:handler")


@pytest.mark.parametrize("package", ["worker", "interfaces"])
@pytest.mark.parametrize("init", [None, ""], ids=["namespace package", "empty __init__"])
def test_a_bot_in_a_folder_named_like_our_package_runs(
    project: Path, package: str, init: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    write(project / package / "bot.py", f"from {package}.helper import answer\n\nasync def handler(ctx):\n    pass\n")
    write(project / package / "helper.py", "answer = 'here'\n")
    if init is not None:
        write(project / package / "__init__.py", init)
    assert isinstance(load_app(f"{package}.bot:handler"), HandlerApp)
    assert not caplog.records


def test_a_module_hidden_by_one_of_ours_is_an_error_that_names_both_paths(project: Path) -> None:
    theirs = write(project / "worker" / "turns.py", BOT)
    with pytest.raises(AppInvalid, match="Names collide") as caught:
        load_app("worker.turns:handler")
    assert str(theirs) in str(caught.value)
    assert str(Path(str(worker.__file__)).parent / "turns.py") in str(caught.value)


def test_a_bot_whose_import_gets_our_module_instead_of_its_own_is_told_both_paths(project: Path) -> None:
    theirs = write(project / "worker" / "settings.py", "TOKEN = 'x'\n")
    write(project / "worker" / "bot.py", f"from worker.settings import TOKEN\n{BOT}")
    with pytest.raises(AppInvalid, match="cannot import name 'TOKEN'") as caught:
        load_app("worker.bot:handler")
    assert f"{theirs} is hidden by {Path(str(worker.__file__)).parent / 'settings.py'}" in str(caught.value)


def test_a_single_module_named_like_our_package_is_told_both_paths(project: Path) -> None:
    theirs = write(project / "worker.py", BOT)
    with pytest.raises(AppInvalid, match="has no attribute 'handler'") as caught:
        load_app("worker:handler")
    assert f"{theirs} is hidden by {Path(str(worker.__file__)).parent}" in str(caught.value)


def test_a_bot_that_loads_beside_hidden_modules_is_run_with_a_warning(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = write(project / "worker" / "__init__.py", "TOKEN = 'never set'\n")
    write(project / "worker" / "bot.py", BOT)
    assert isinstance(load_app("worker.bot:handler"), HandlerApp)
    assert str(theirs) in caplog.text
