"""The turn: load, run, commit. What makes a request change its context exactly once.

A turn that was committed before is not run again: its stored reply goes out as it is. Nothing outside Redis can be
undone, so a handler that has other effects gets the request's id as an idempotency key (`Context.request_id`).
Publishing and acknowledging come after, in `interfaces.settling`; the order of all five is the promise
(docs/decisions/0002).
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import uuid4

from interfaces.bot_signals import Reject, Retry
from interfaces.broker_attachments import BrokerAttachments
from interfaces.context import Context
from interfaces.envelope import Request, decode_body
from interfaces.errors import (
    Reason,
    RequestRejected,
    StoreUnavailable,
    TurnAbandoned,
    TurnPostponed,
    VersionConflict,
)
from interfaces.messages import Message
from interfaces.reply_bodies import encode_reply
from interfaces.telemetry import Telemetry
from interfaces.turn_records import TurnRecord
from worker import records
from worker.apps import App, HandlerApp, RunnerApp
from worker.bot_runs import BotRuns, Run, store_of
from worker.epochs import Epochs
from worker.isolation import Isolation, shared_starts
from worker.retries import BotFailed, rejection, retrying
from worker.settings import Settings
from worker.stores import ContextStore, Loaded, Turn
from worker.stores.patience import while_store_is_away
from worker.turn_rate import TurnRate

if TYPE_CHECKING:
    from worker.chatsky.app import PipelineTurns

logger = logging.getLogger(__name__)

TAKE_BACK_SECONDS: Final = 1.0
"""For taking back the start of a turn that is given up: where the store is away, one start too many stays counted."""


class _Ran(NamedTuple):
    """What a bot has left."""

    context: Context
    reply: Message | None
    older_turns: Mapping[int, bytes] = {}
    """Records of turns before this one, where the bot changed any."""


@dataclass(slots=True)
class _Turn:
    """A request on its way through its turn."""

    request: Request
    epoch: int
    attempt: str
    """Names this process's try at it towards the store; a run after a failure is the same try."""
    has_run: bool = False


class TurnRunner:
    """A pipeline runner (the seed's `PipelineRunnerFunction`) whose turns are committed exactly once.

    `current(ctx_id)` gives the request that the context is in a turn for; `interface` is the one it came through, for
    bots that ask it for attachments. `returnable(request)` says how many requests of its context may be delivered again
    although they are acknowledged: their replies are kept, however many. `may_run(request)`: whether the bot may still
    begin with it here.
    """

    def __init__(
        self,
        app: App,
        store: ContextStore,
        settings: Settings,
        current: Callable[[Hashable], Request],
        interface: BrokerAttachments | None = None,
        *,
        returnable: Callable[[Request], int] = lambda _: 0,
        may_run: Callable[[Request], bool] = lambda _: True,
        telemetry: Telemetry | None = None,
    ) -> None:
        telemetry = telemetry or Telemetry()
        self._metrics = telemetry.metrics
        self._load_seconds = self._metrics.stage_seconds["load"]
        self._commit_seconds = self._metrics.stage_seconds["commit"]
        self._store = store
        self._settings = settings
        self._limits = settings.limits
        self._current = current
        self._interface = interface
        self._returnable = returnable
        self._may_run = may_run
        self._bot: HandlerApp | RunnerApp | PipelineTurns
        if isinstance(app, HandlerApp | RunnerApp):
            self._bot, self._history = app, settings.history
        else:
            self._bot = app.turns(settings.max_turns, interface)
            self._history = self._bot.history
        self._process = uuid4().hex[:12]
        self._turns = count(1)
        self._epochs = Epochs(store)
        self._isolation = Isolation()
        self._shared_starts = shared_starts(settings.crash_limit)
        self._rate = TurnRate(settings.rate)
        self.runs = BotRuns(settings.turn_timeout, settings.concurrency, settings.left_behind, telemetry)
        """The bot at work, and what is left behind of it."""

    async def __call__(
        self, message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        """Take the request that `ctx_id` is in through its turn; the context carries the committed reply.

        Raises `RequestRejected` for the dead letters, `TurnAbandoned` where another worker owns the context now, and
        `TurnPostponed` where the bot was not to begin any more.
        """
        request = self._current(ctx_id if ctx_id is not None else "")
        epoch = await self._epochs.of(request.delivery.channel)
        turn = _Turn(request, epoch, f"{self._process}.{next(self._turns)}")
        try:
            try:
                return await self._isolated(turn)  # Nearly always: without what it costs to set up the retries.
            except (VersionConflict, BotFailed, Retry, Reject) as error:
                failures: list[Exception | Retry | Reject] = [error]
            return await self._attempted(turn, failures)
        except (asyncio.CancelledError, TurnPostponed):
            # Not finished, but no crash either. Said before the channel closes and the next worker is asked.
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(TAKE_BACK_SECONDS):
                    await self._store.forget_start(request.ctx_id, request.request_id, turn.attempt)
            raise
        except RequestRejected:
            await while_store_is_away(self._store.forget_start, request.ctx_id, request.request_id)
            raise

    def close(self) -> None:
        """Ask for no more epochs."""
        self._epochs.close()

    async def _attempted(self, turn: _Turn, failures: list[Exception | Retry | Reject]) -> Context:
        """The turn, run as often as it takes and is allowed; `failures` has what its first run raised."""
        runs = 1
        try:
            async for attempt in retrying(self._settings):
                with attempt:
                    runs = attempt.retry_state.attempt_number
                    self._metrics.retries_total += runs > 1
                    return await self._once_committed(turn, failures)
        except (BotFailed, Retry, Reject) as error:
            logger.error("the bot failed on request %r", turn.request.request_id, exc_info=error.__cause__ or error)
            raise rejection(error, runs) from error
        raise AssertionError("an attempt returns or raises")  # pragma: no cover

    async def _once_committed(self, turn: _Turn, failures: list[Exception | Retry | Reject]) -> Context:
        while True:
            try:
                if failures:
                    raise failures.pop()  # Kept, it would make a circle: this frame is in its traceback.
                return await self._isolated(turn)
            except VersionConflict as conflict:
                # Another worker still had the shard's earlier deliveries. Decide anew on what it left.
                self._metrics.fenced_commits_total += 1
                logger.warning("turn of request %r was overtaken: %s", turn.request.request_id, conflict)

    async def _isolated(self, turn: _Turn) -> Context:
        """Load, run and commit: beside others, or alone where the turn may be what ended its last processes."""
        if not self._isolation.try_enter_shared():
            await self._isolation.enter_shared()
        try:
            loaded = await self._load(turn, counted=self._shared_starts)
            if loaded.starts <= self._shared_starts:
                return await self._run_and_commit(turn, loaded)
        finally:
            self._isolation.leave_shared()
        logger.warning(
            "request %r was started %d times and never finished: it runs alone in this process",
            turn.request.request_id,
            loaded.starts - 1,
        )
        async with self._isolation.alone():
            # What is left behind of other turns could end the process as well: then it would prove nothing.
            counted = self._shared_starts if self.runs.left_behind else self._settings.crash_limit
            loaded = await self._load(turn, counted=counted)
            return await self._run_and_commit(turn, loaded)

    async def _load(self, turn: _Turn, *, counted: int) -> Loaded:
        request = turn.request
        if not request.delivery.channel.is_open:
            # It may have waited for long. Started here and elsewhere, it could only commit once.
            raise TurnAbandoned("the channel was lost before the turn was started")

        load = partial(
            self._store.load,
            epoch=turn.epoch,
            attempt=turn.attempt,
            history=self._history,
            counted=counted,
        )
        began = monotonic()
        loaded = await while_store_is_away(load, request.ctx_id, request.request_id)
        self._load_seconds.observe(monotonic() - began)
        if loaded.reply is None and loaded.starts > self._settings.crash_limit:
            raise RequestRejected(
                Reason.CRASHES_WORKER,
                "the bot could not finish this message",
                internal=f"its turn was started {loaded.starts - 1} times and never finished",
                attempts=loaded.starts - 1,
            )
        return loaded

    async def _run_and_commit(self, turn: _Turn, loaded: Loaded) -> Context:
        request = turn.request
        if loaded.reply is not None:
            logger.info("request %r was committed before: its reply goes out again", request.request_id)
            return Context.answered(request.ctx_id, loaded.reply, turn=loaded.version)
        # Only now: a request that comes again after its turn was committed must not be refused.
        if not turn.has_run and not self._rate.admits(request.ctx_id):
            raise RequestRejected(Reason.RATE_LIMITED, f"more than {self._settings.rate} messages in a minute")
        context, response, older_turns = await self._run(turn, loaded)
        turn_id = context.current_turn_id
        if response is not None and self._interface is not None:
            response = await self._interface.sent(response)
            if context.turn(turn_id).response is not None:
                context.answer_turn(response)
        reply = encode_reply(request, response, context.misc, turn_id, self._limits)
        main, turns = records.write(context, turn_id, older_turns, self._limits)
        returnable = self._returnable(request)
        new = Turn(request.ctx_id, request.request_id, loaded.version, main, turns, reply, loaded.revision, returnable)
        began = monotonic()
        context.commit(await while_store_is_away(self._store.commit, new))
        self._commit_seconds.observe(monotonic() - began)
        return context

    async def _run(self, turn: _Turn, loaded: Loaded) -> _Ran:
        """Run the bot once. Raises `BotFailed`, `Retry` or `Reject`, with its start taken back: it did not crash."""
        request = turn.request
        message, misc = request.message, request.update_ctx_misc
        if turn.has_run:
            # The bot may have changed what it was given before it failed: take it from the wire again.
            body = decode_body(request.body, self._limits)
            message, misc = self._received(body.message), body.update_ctx_misc
        bot = partial(self._run_bot, turn, message, misc, loaded)
        try:
            return await self.runs.run(f"bot {request.ctx_id!r}", bot)
        except (TurnPostponed, RequestRejected, Reject):
            raise  # What is stored cannot be read, or what the bot left cannot be stored: again, it would be the same.
        except (Exception, Retry) as error:
            await while_store_is_away(self._store.forget_start, request.ctx_id, request.request_id, turn.attempt)
            if isinstance(error, Retry):
                raise
            raise BotFailed from error

    async def _run_bot(
        self, turn: _Turn, message: Message, update_ctx_misc: dict[str, Any] | None, loaded: Loaded, run: Run
    ) -> _Ran:
        request = turn.request
        if not turn.has_run and not self._may_run(request):
            raise TurnPostponed("the worker stops, or hands over the request's queue")
        turn.has_run = True
        if not isinstance(self._bot, HandlerApp | RunnerApp):
            store = store_of(run, self._store)
            return _Ran(*await self._bot.run(store, request.ctx_id, loaded, message, update_ctx_misc))
        context = records.read_context(request.ctx_id, loaded.version, loaded.main, loaded.turns)
        context.connect(request.request_id, partial(_load_turns, run, self._store, request.ctx_id), self._interface)
        context.misc.update(update_ctx_misc or {})
        context.begin_turn(loaded.version + 1, message)
        if isinstance(self._bot, HandlerApp):
            response = await self._bot.answer(context, run.thread_started)
        else:
            ran = await self._bot.run(message, context.id, update_ctx_misc)
            context.misc, response = dict(ran.misc), ran.last_response
        if response is not None:
            context.answer_turn(response)
        return _Ran(context, response)

    def _received(self, message: Message) -> Message:
        return message if self._interface is None else self._interface.received(message)


async def _load_turns(run: Run, store: ContextStore, ctx_id: str, turn_ids: Sequence[int]) -> dict[int, TurnRecord]:
    stored = await while_store_is_away(store_of(run, store).read_turns, ctx_id, turn_ids)
    return {number: records.read_turn(turn) for number, turn in stored.items()}
