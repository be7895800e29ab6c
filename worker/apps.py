"""APP: the bot a worker runs, given as `module:attribute` and brought into one of three forms.

A *handler* takes a context and gives the answer; the worker keeps its context. So it does for a Chatsky `Pipeline`
(`worker.chatsky`). Any other *pipeline runner* (the seed's `PipelineRunnerFunction`, or an object with `_run_pipeline`)
takes a message and a context id and keeps its contexts itself.
"""

import importlib
import inspect
import logging
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from interfaces.blocking import run_in_daemon_thread
from interfaces.context import Context
from interfaces.errors import AppInvalid
from interfaces.messages import Message
from interfaces.messengers import PipelineRunnerFunction
from interfaces.nested_loops import nested_loops_prevented

if TYPE_CHECKING:
    from worker.chatsky.app import ChatskyApp

Answer = Message | str | None
Handler = Callable[[Context], Awaitable[Answer] | Answer]
OWN_PACKAGES = ("interfaces", "worker")

Collision = tuple[Path, Path]
"""A file or folder of the bot, and the one of ours that is imported instead of it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HandlerApp:
    """A bot that answers a context. A plain function runs in a thread, so that it may block."""

    function: Handler
    is_async: bool

    async def answer(self, context: Context, started: Callable[[threading.Thread], None]) -> Message | None:
        """Run the handler. Raises what it raises, and `TypeError` where the answer is no answer.

        `started` is told the thread of a plain function.
        """
        if self.is_async:
            answer: Any = await self.function(context)  # type: ignore[misc]  # is_async says that it is awaitable
        else:
            answer = await run_in_daemon_thread(self.function, context, started=started)
        if answer is None or isinstance(answer, Message):
            return answer
        if isinstance(answer, str):
            return Message(answer)
        raise TypeError(f"a handler answers with Message, str or None, not {type(answer).__name__}")


@dataclass(frozen=True, slots=True)
class RunnerApp:
    """A bot that keeps its contexts itself."""

    run: PipelineRunnerFunction


App: TypeAlias = "HandlerApp | RunnerApp | ChatskyApp"


def adapt(bot: Any) -> App:
    """The form `bot` can be run in. Raises `AppInvalid`.

    A Chatsky `Pipeline` is one; any other object with `_run_pipeline` is a pipeline runner, and so is a callable with a
    `ctx_id` parameter or at least two required ones; a callable with one required parameter is a handler.
    """
    chatsky = sys.modules.get("chatsky")  # A pipeline cannot have been made without it.
    if chatsky is not None and isinstance(bot, chatsky.Pipeline):
        from worker.chatsky.app import ChatskyApp

        return ChatskyApp(bot)
    pipeline = getattr(bot, "_run_pipeline", None)
    if callable(pipeline) and not inspect.isclass(bot):
        return RunnerApp(pipeline)
    if inspect.isclass(bot) or not callable(bot):
        raise AppInvalid(
            f"{_named(bot)} cannot be run: give an async function (ctx) -> answer, a pipeline runner "
            "(message, ctx_id, update_ctx_misc) -> Context, or an object with _run_pipeline"
        )
    try:
        signature = inspect.signature(bot)
    except ValueError as error:
        raise AppInvalid(f"{_named(bot)} has no readable parameters") from error
    required = [p for p in signature.parameters.values() if p.default is p.empty and p.kind in _POSITIONAL]
    if "ctx_id" in signature.parameters or len(required) > 1:
        return RunnerApp(bot)
    if len(required) == 1:
        return HandlerApp(bot, _is_async(bot))
    raise AppInvalid(f"{_named(bot)} takes no parameter: a handler takes the context")


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _is_async(bot: Any) -> bool:
    return inspect.iscoroutinefunction(bot) or inspect.iscoroutinefunction(getattr(bot, "__call__", None))  # noqa: B004 - the method itself is asked about, not whether there is one


def _named(bot: Any) -> str:
    return getattr(bot, "__qualname__", None) or f"{type(bot).__name__} object"


def load_app(path: str) -> App:
    """The bot at `module:attribute`, see `load_object`. Raises `AppInvalid`."""
    return adapt(load_object(path))


def load_object(path: str) -> Any:
    """Import `module:attribute` with the current directory first on the path. Raises `AppInvalid`."""
    module_name, colon, attribute = path.partition(":")
    if not colon or not module_name or not attribute:
        raise AppInvalid(f"APP {path!r} must be module:attribute, such as bot:handler")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    collisions = [pair for name in OWN_PACKAGES for pair in _share_package(name)]
    try:
        with nested_loops_prevented():
            value: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            value = getattr(value, part)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.split(".")[0]:
            raise AppInvalid(f"there is no module {error.name!r} in {here} or among the installed packages") from error
        fault = f"{type(error).__name__}: {error}{_place(error)}"
        raise AppInvalid(f"loading {path!r} failed: {fault}{_collision_hint(collisions)}") from error
    if collisions:
        logger.warning("APP %r was loaded%s", path, _collision_hint(collisions))
    return value


def _share_package(name: str) -> list[Collision]:
    """Let the bot's own folder `name`, where it has one beside it, be found behind the package of ours.

    A bot in `worker/bot.py` then runs as `worker.bot:handler`. Where both hold a module of one name, ours stays; these
    are returned.
    """
    package = sys.modules[name]
    ours = Path(str(package.__file__)).parent
    theirs = (Path.cwd() / name).resolve()
    if theirs == ours.resolve():
        return []
    module = theirs.with_suffix(".py")
    if not theirs.is_dir():
        return [(module, ours)] if module.is_file() else []
    if str(theirs) not in package.__path__:
        package.__path__.append(str(theirs))
    return [(path, ours / path.name) for path in sorted(theirs.iterdir()) if _is_hidden(path, ours)]


def _is_hidden(path: Path, ours: Path) -> bool:
    """Whether a module or package of the bot has the name of one of ours. An empty `__init__.py` hides nothing."""
    if path.name == "__init__.py":
        return path.stat().st_size > 0
    is_module = path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))
    return is_module and ((ours / f"{path.stem}.py").exists() or (ours / path.stem).is_dir())


def _collision_hint(collisions: list[Collision]) -> str:
    if not collisions:
        return ""
    pairs = "; ".join(f"{theirs} is hidden by {ours}" for theirs, ours in collisions)
    return f". Names collide: {pairs}. Rename the first of each pair"


def _place(error: Exception) -> str:
    """Where in the bot's own code it happened."""
    machinery = (__file__, importlib.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in machinery and not frame.filename.startswith("<frozen")
    ]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
