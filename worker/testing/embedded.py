"""Broker, store and the one process that works on them, all in this event loop; where it dies, a fresh one takes over.

Nothing is read from the environment, and nothing is kept. Behind `Running`, which is what a test sees of it.
"""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar
from uuid import uuid4

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from interfaces.brokers.memory import MemoryBroker, MemoryServer
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import AskTimeout, RequestFailed
from interfaces.messages import Message
from interfaces.reply_bodies import Reply
from worker import records
from worker.attachments import open_transfer
from worker.settings import Settings
from worker.stores import Retention
from worker.stores.memory import MemoryStore
from worker.testing.crashes import STEPS, Crash, Step, TurnTrace
from worker.testing.process import Process
from worker.testing.silence import RecentLog, where_the_bot_waits

T = TypeVar("T")

STOP_SECONDS = 5.0
"""For turns that do not end when they are cancelled."""


class KitSettings(Settings):
    """Settings as the test gives them: the environment it runs in decides nothing."""

    model_config = SettingsConfigDict(extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keyword arguments alone."""
        return (init_settings,)


class Embedded:
    """A bot at work. Raises `AppInvalid` for one that cannot be run."""

    def __init__(self, bot: Any, settings: Settings, timeout: float, log: RecentLog) -> None:
        self._bot = bot
        self._settings = settings
        self._timeout = timeout
        self._log = log
        self._server = MemoryServer()
        self._store = MemoryStore(Retention(settings.outbox, settings.max_turns, settings.context_ttl))
        self._client = BrokerClient(namespace=settings.namespace, broker=MemoryBroker(self._server), keys=settings.keys)
        self._transfer = open_transfer(settings)
        self._traces: dict[str, TurnTrace] = {}
        # A fresh process begins in these, and not in those of the lane that its predecessor died in.
        self._variables = contextvars.copy_context()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._workers: dict[asyncio.Task[None], Process] = {}
        self._process = self._start_process()
        self._is_stopping = False
        self.crashes: list[Crash] = []
        """Crashes asked for."""

    async def start(self) -> None:
        """Return once the bot takes messages."""
        await self._client.open()
        await self._unless_the_worker_fails(self._process.worker.wait_ready())

    async def stop(self) -> None:
        """Give up what still runs. Raises what the worker ended with, where it ended by itself."""
        self._is_stopping = True
        self._process.worker.stop()
        _, left = await asyncio.wait(self._workers, timeout=STOP_SECONDS)
        left |= {task for task in asyncio.all_tasks() if task.get_name().startswith("bot ")}
        await self._client.close()
        if left:
            raise TimeoutError(f"the bot still runs {STOP_SECONDS:g} s after it was cancelled: does it catch that?")
        if self._failed.done():
            self._failed.result()

    async def kill(self) -> None:
        """Let the process die now, and a fresh one take over. Does not wait."""
        dead, self._process = self._process, self._start_process()
        await dead.die()
        next(task for task, process in self._workers.items() if process is dead).cancel()

    async def ask(
        self, ctx_id: str, message: Message | str, update_ctx_misc: dict[str, Any] | None, request_id: str | None
    ) -> tuple[Reply, TurnTrace]:
        """Publish a request as an edge does; return its reply, and what its turn did, once that is over."""
        request_id = request_id or str(uuid4())
        if isinstance(message, Message):
            message = await self._transfer.upload(message)
        trace = self._traces.get(request_id)
        if trace is None or trace.is_over.is_set():
            trace = self._traces[request_id] = TurnTrace(ctx_id)
        asking = self._client.ask(
            message,
            ctx_id,
            request_id=request_id,
            update_ctx_misc=update_ctx_misc,
            timeout=self._timeout + 1,  # Ours is shorter, and has more to say.
        )
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._unless_the_worker_fails(asking)
                # The reply is there before its request is acknowledged, and the process may die in between.
                await self._unless_the_worker_fails(trace.is_over.wait())
        except TimeoutError:
            raise self._silence(trace, message) from None
        if reply.error is not None:
            failed = RequestFailed(reply.error.code, reply.error.detail)
            failed.add_note(str(self._log))
            raise failed
        if reply.message is not None:
            reply.message = await self._transfer.localize(reply.message)
        return reply, trace

    async def read(self, ctx_id: str) -> Context:
        """A dialog as it is stored, with all its turns; a new one where none is."""
        stored = await self._store.peek(ctx_id, history=1)
        if stored is None:
            return Context(id=ctx_id)
        turns = await self._store.read_turns(ctx_id, range(stored.version + 1))
        return records.read_context(ctx_id, stored.version, stored.main, turns)

    async def before(self, step: Step, request_id: str | None) -> None:
        """The living process is about to take a step of a turn: it dies here, or the step counts as begun."""
        trace = self._traces.get(request_id or "")
        if trace is None:
            return
        crash = next((crash for crash in self.crashes if crash.is_due(step, trace.ctx_id)), None)
        if crash is None or self._is_stopping:
            trace.steps[step] += 1
        else:
            crash.happened += 1
            await self.kill()

    def over(self, request_id: str | None) -> None:
        """The living process has acknowledged a request."""
        if trace := self._traces.get(request_id or ""):
            trace.is_over.set()

    def _start_process(self) -> Process:
        process = Process(self._bot, self._settings, MemoryBroker(self._server), self._store, self)
        task = asyncio.create_task(process.worker.run(), name="worker", context=self._variables.copy())
        self._workers[task] = process
        task.add_done_callback(self._on_worker_ended)
        return process

    def _on_worker_ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._workers[task].is_dead:
            self._failed.set_exception(error)

    async def _unless_the_worker_fails(self, waiting: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(waiting)
        watched: list[asyncio.Future[Any]] = [task, self._failed]
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._failed.result()
            return await task
        finally:
            task.cancel()

    def _silence(self, trace: TurnTrace, message: Message | str) -> AskTimeout:
        begun = [step for step in STEPS if trace.steps[step]]
        place = where_the_bot_waits(trace.ctx_id)
        said = message if isinstance(message, str) else message.text
        silence = AskTimeout(
            f"user {trace.ctx_id!r} said {said!r} and got no answer within {self._timeout:g} s: "
            + (f"its turn is at the step {begun[-1]!r}" if begun else "its turn was not begun")
            + (f", and the bot waits at\n{place}" if place else "")
        )
        silence.add_note(str(self._log))
        return silence
