"""The turn: load, run, commit. What makes a request change its context exactly once.

A turn that was committed before is not run again: its stored reply goes out as it is. Nothing outside Redis can be
undone, so a handler that has other effects gets the request's id as an idempotency key (`Context.request_id`).
Publishing and acknowledging come after, in `interfaces.settling`; the order of all five is the promise
(docs/decisions/0002).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4
from weakref import WeakKeyDictionary

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from interfaces.broker_attachments import BrokerAttachments
from interfaces.brokers import Channel
from interfaces.context import Context, TurnRecord
from interfaces.envelope import Request, decode_body
from interfaces.errors import Reason, RequestRejected, StoreUnavailable, TurnAbandoned, VersionConflict
from interfaces.foreign import stray_cancellations_caught
from interfaces.messages import Message
from interfaces.reply_bodies import encode_reply
from worker import records
from worker.apps import App, HandlerApp, RunnerApp
from worker.settings import Settings
from worker.stores import ContextStore, Loaded, Turn
from worker.stores.patience import while_store_is_away

if TYPE_CHECKING:
    from worker.chatsky.app import PipelineTurns

logger = logging.getLogger(__name__)


class _BotFailedError(Exception):
    """The bot raised; its error is the cause. Only this is retried and counted as the request's fault."""


class _Ran(NamedTuple):
    """What a bot has left."""

    context: Context
    reply: Message | None
    older_turns: Mapping[int, bytes] = {}
    """Records of turns before this one, where the bot changed any."""


class TurnRunner:
    """A pipeline runner (the seed's `PipelineRunnerFunction`) whose turns are committed exactly once.

    `current(ctx_id)` gives the request that the context is in a turn for; `interface` is the one it came through, for
    bots that ask it for attachments.
    """

    def __init__(
        self,
        app: App,
        store: ContextStore,
        settings: Settings,
        current: Callable[[Hashable], Request],
        interface: BrokerAttachments | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._current = current
        self._interface = interface
        self._bot: HandlerApp | RunnerApp | PipelineTurns
        if isinstance(app, HandlerApp | RunnerApp):
            self._bot, self._history = app, settings.history
        else:
            self._bot = app.turns(store, settings.max_turns, interface)
            self._history = self._bot.history
        self._process = uuid4().hex[:12]
        self._turns = count(1)
        self._epochs: WeakKeyDictionary[Channel, asyncio.Future[int]] = WeakKeyDictionary()
        self._given_up: list[Request] = []

    async def __call__(
        self, message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        """Take the request that `ctx_id` is in through its turn; the context carries the committed reply.

        Raises `RequestRejected` for the dead letters and `TurnAbandoned` where another worker owns the context now.
        """
        request = self._current(ctx_id if ctx_id is not None else "")
        epoch = await self._epoch(request.delivery.channel)
        attempt = f"{self._process}.{next(self._turns)}"
        while True:
            loaded = await self._load(request, epoch, attempt)
            if loaded.reply is not None:
                logger.info("request %r was committed before: its reply goes out again", request.request_id)
                return Context.answered(request.ctx_id, loaded.reply, turn=loaded.version)
            try:
                return await self._run_and_commit(request, loaded)
            except VersionConflict as conflict:
                # Another worker still had the shard's earlier deliveries. Decide anew on what it left.
                logger.warning("turn of request %r was overtaken: %s", request.request_id, conflict)
            except asyncio.CancelledError:
                self._given_up.append(request)
                raise
            except RequestRejected:
                await while_store_is_away(self._store.forget_start, request.ctx_id, request.request_id)
                raise

    async def close(self) -> None:
        """Take back the counted starts of turns that were given up, and ask for no more epochs."""
        for epoch in self._epochs.values():
            epoch.cancel()  # one still asked for would be asked for for ever
        for request in self._given_up:
            # Not finished, but no crash either. Where the store does not answer, one start too many is counted.
            with suppress(StoreUnavailable):
                await self._store.forget_start(request.ctx_id, request.request_id)

    async def _epoch(self, channel: Channel) -> int:
        """This worker's epoch for what `channel` delivers, claimed at its first delivery.

        Not when the channel opens: a waiting consumer may be promoted hours later, and its epoch must be higher than
        the one of the consumer it follows. Raises `TurnAbandoned` where the channel was lost before that.
        """
        if channel not in self._epochs:
            self._epochs[channel] = asyncio.ensure_future(self._claim(channel))
        return await asyncio.shield(self._epochs[channel])

    async def _claim(self, channel: Channel) -> int:
        epoch = await while_store_is_away(self._store.claim)
        # This process may have slept between the delivery and the claim, and others may have finished the delivered
        # requests since: then the new epoch would be higher than theirs. A channel that is open after the claim rules
        # that out, because whoever follows on it claims later.
        if not await channel.verify():
            raise TurnAbandoned("the channel was lost before an epoch was claimed for it")
        return epoch

    async def _load(self, request: Request, epoch: int, attempt: str) -> Loaded:
        async def load() -> Loaded:
            return await self._store.load(
                request.ctx_id, request.request_id, epoch=epoch, attempt=attempt, history=self._history
            )

        loaded = await while_store_is_away(load)
        if loaded.reply is None and loaded.starts > self._settings.crash_limit:
            raise RequestRejected(
                Reason.CRASHES_WORKER,
                "the bot could not finish this message",
                internal=f"its turn was started {loaded.starts - 1} times and never finished",
                attempts=loaded.starts - 1,
            )
        return loaded

    async def _run_and_commit(self, request: Request, loaded: Loaded) -> Context:
        context, response, older_turns = await self._run_with_retries(request, loaded)
        turn_id = context.current_turn_id
        if response is not None and self._interface is not None:
            response = await self._interface.sent(response)
            if turn_id in context.responses:
                context.responses[turn_id] = response
        reply = encode_reply(request, response, context.misc, turn_id)
        try:
            main, record = records.write_main(context), records.write_turn(context, turn_id)
        except ValueError as error:
            detail = "the dialog's data cannot be stored"
            raise RequestRejected(Reason.REPLY_INVALID, detail, internal=str(error)) from error
        turns = {**older_turns, turn_id: record}
        turn = Turn(request.ctx_id, request.request_id, loaded.version, main, turns, reply, loaded.revision)
        context.commit(await while_store_is_away(self._store.commit, turn))
        return context

    async def _run_with_retries(self, request: Request, loaded: Loaded) -> _Ran:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._settings.attempts),
            wait=wait_random_exponential(multiplier=self._settings.retry_wait, max=30),
            retry=retry_if_exception_type(_BotFailedError),
            before_sleep=_log_failure,
            reraise=True,
        )
        message, misc = request.message, request.update_ctx_misc
        try:
            async for attempt in retrying:
                with attempt:
                    if attempt.retry_state.attempt_number > 1:
                        # The bot may have changed what it was given before it failed: take it from the wire again.
                        body = decode_body(request.delivery.body)
                        message, misc = self._received(body.message), body.update_ctx_misc
                    ran = await self._run_once(request, message, misc, loaded)
        except _BotFailedError as error:
            logger.error("the bot failed on request %r", request.request_id, exc_info=error.__cause__)
            raise RequestRejected(
                Reason.HANDLER_FAILED,
                "the bot failed",
                internal=repr(error.__cause__),
                attempts=self._settings.attempts,
            ) from error.__cause__
        return ran

    async def _run_once(
        self, request: Request, message: Message, update_ctx_misc: dict[str, Any] | None, loaded: Loaded
    ) -> _Ran:
        try:
            with stray_cancellations_caught():
                if isinstance(self._bot, HandlerApp | RunnerApp):
                    return await self._run_on_context(self._bot, request, message, update_ctx_misc, loaded)
                return _Ran(*await self._bot.run(request.ctx_id, loaded, message, update_ctx_misc))
        except RequestRejected:
            raise  # What is stored cannot be read, or what the bot left cannot be stored: again, it would be the same.
        except Exception as error:
            raise _BotFailedError from error

    async def _run_on_context(
        self,
        bot: HandlerApp | RunnerApp,
        request: Request,
        message: Message,
        update_ctx_misc: dict[str, Any] | None,
        loaded: Loaded,
    ) -> _Ran:
        context = records.read_context(request.ctx_id, loaded.version, loaded.main, loaded.turns)
        context.connect(request.request_id, self._turn_loader(request.ctx_id), self._interface)
        context.misc.update(update_ctx_misc or {})
        turn_id = loaded.version + 1
        context.current_turn_id = turn_id
        context.requests[turn_id] = message
        if isinstance(bot, HandlerApp):
            response = await bot.answer(context)
        else:
            ran = await bot.run(message, context.id, update_ctx_misc)
            context.misc, response = dict(ran.misc), ran.last_response
        if response is not None:
            context.responses[turn_id] = response
        return _Ran(context, response)

    def _received(self, message: Message) -> Message:
        return message if self._interface is None else self._interface.received(message)

    def _turn_loader(self, ctx_id: str) -> Callable[[Sequence[int]], Awaitable[Mapping[int, TurnRecord]]]:
        async def load(turn_ids: Sequence[int]) -> dict[int, TurnRecord]:
            stored = await while_store_is_away(self._store.read_turns, ctx_id, turn_ids)
            return {number: records.read_turn(turn) for number, turn in stored.items()}

        return load


def _log_failure(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    cause = error.__cause__ if error else None
    logger.warning("the bot failed (attempt %d), running the turn again: %r", state.attempt_number, cause)
