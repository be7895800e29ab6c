"""What a test sees of the kit: a bot that runs, the users who speak to it, and its answers."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from interfaces.context import Context
from interfaces.envelope import context_id
from interfaces.errors import MisuseError
from interfaces.messages import Message
from worker.testing.crashes import STEPS, Crash, Step
from worker.testing.embedded import Embedded, KitSettings
from worker.testing.silence import RecentLog

SERVERS = frozenset({"amqp_url", "redis_url"})


@asynccontextmanager
async def run_bot(bot: Any, *, timeout: float = 5.0, **settings: Any) -> AsyncIterator["Running"]:
    """Run a bot for as long as the `async with` lasts.

    :param bot: what `switchboard run` takes: a handler, a pipeline runner, a Chatsky pipeline, or `module:attribute`.
    :param timeout: seconds the bot may take for an answer.
    :param settings: those of `worker.Settings`, with their defaults but for `attempts`, which is 1: the first error of
        a bot fails its test. The environment is not read.

    Raises `AppInvalid` for what cannot be run; at the end what the worker ended with where it ended by itself, and
    `CrashMissed` where a crash that was asked for has not happened.
    """
    if given := SERVERS & settings.keys():
        raise MisuseError(f"{min(given)}: run_bot has a broker and a store of its own; for others use worker.Worker")
    with RecentLog() as log, TemporaryDirectory(prefix="switchboard-") as directory:
        defaults: dict[str, Any] = {"attempts": 1, "drain_timeout": 0.0, "attachments_directory": Path(directory)}
        embedded = Embedded(bot, KitSettings(**{**defaults, **settings}), timeout, log)
        try:
            await embedded.start()
            yield Running(embedded)
        finally:
            await embedded.stop()
    for crash in embedded.crashes:
        crash.require_happened()


@dataclass(frozen=True, slots=True)
class BotReply:
    """What the bot answered, once its turn is over: committed, published and acknowledged."""

    message: Message | None
    """`None` where the bot answered nothing."""
    misc: dict[str, Any]
    """What the bot remembers after this turn."""
    turn: int
    """Number of the turn in the dialog, from 1."""
    steps: Counter[Step]
    """How often the turn began each of its steps, once each where nothing crashed. `steps["run"]` is how often a
    process set the bot to it; for a message that came twice it is 0 the second time."""

    @property
    def text(self) -> str | None:
        """Text of the answer."""
        return None if self.message is None else self.message.text


class Running:
    """A running bot, as `run_bot` gives it."""

    def __init__(self, embedded: Embedded) -> None:
        self._embedded = embedded
        self._numbers = count(1)

    def user(self, name: str | None = None) -> "User":
        """Someone who speaks to the bot. The name is the id of their dialog; a new one where not given."""
        return User(context_id(name if name is not None else f"user-{next(self._numbers)}"), self._embedded)

    def crash(self, *, before: Step, user: "User | None" = None, times: int = 1) -> Crash:
        """Let the process die when a turn, of `user` where given, is about to take a step; then a fresh one takes over.

        All that runs in the process dies with it, turns of other users included. The bot object itself stays, and with
        it what it keeps outside its contexts.
        """
        if before not in STEPS:
            raise MisuseError(f"a turn has no step {before!r}, its steps are {', '.join(STEPS)}")
        crash = Crash(before, None if user is None else user.ctx_id, times)
        self._embedded.crashes.append(crash)
        return crash

    async def kill(self) -> None:
        """Let the process die now, in the middle of whatever it does; a fresh one takes over."""
        await self._embedded.kill()


@dataclass(frozen=True, slots=True)
class User:
    """Someone who speaks to the bot, in one dialog."""

    ctx_id: str
    """Id of the dialog."""
    _embedded: Embedded = field(repr=False)

    async def say(
        self,
        message: Message | str,
        *,
        update_ctx_misc: dict[str, Any] | None = None,
        request_id: str | None = None,
    ) -> BotReply:
        """Send a message, and return the bot's answer to it. Files of this machine are attached by their path, and so
        are those in the answer, until the bot stops.

        With the `request_id` of an earlier message it is that message once more, as from a publisher that got no
        confirm. Raises `RequestFailed` where the bot failed and `AskTimeout` where it did not answer in time, each with
        the worker's log; `MisuseError` for a message that cannot travel.
        """
        reply, trace = await self._embedded.ask(self.ctx_id, message, update_ctx_misc, request_id)
        return BotReply(reply.message, reply.misc or {}, reply.turn, Counter(trace.steps))

    async def context(self) -> Context:
        """The dialog as it is stored, with all its turns; an empty one before the first is committed."""
        return await self._embedded.read(self.ctx_id)
