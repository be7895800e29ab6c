"""Chatsky's Telegram interfaces at the edge: python-telegram-bot's application, driven inside a running event loop.

Their `connect` calls `run_polling` or `run_webhook`, which run an event loop of their own, take over the process's
signals and close the loop. Here `connect` only tells what it would have run. python-telegram-bot also handles one
update at a time, so that one slow dialog holds up all chats: here each chat has a lane of its own. Called by
`interfaces.edge` for whatever has such an application; imports python-telegram-bot only then.
"""

import asyncio
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from interfaces.errors import AppInvalid, ConsumerLost, MisuseError
from interfaces.foreign import stray_cancellations_caught
from interfaces.lanes import Lanes
from interfaces.telegram_files import stream_sent_files

if TYPE_CHECKING:
    from telegram.ext import Application, Updater

    AnyApplication = Application[Any, Any, Any, Any, Any, Any]

logger = logging.getLogger(__name__)

MOST_UPDATES: Final = 1000
"""Updates taken from Telegram and not answered. Beyond it none is fetched: Telegram keeps the rest for a day."""

POLLING_TASK: Final = "Updater:start_polling:polling_task"
"""Name of the task that fetches updates. It ends without a word where the token is withdrawn."""


def is_telegram(interface: Any) -> bool:
    """Whether `interface` is built on python-telegram-bot's application, as both of Chatsky's are."""
    extension = sys.modules.get("telegram.ext")  # Not imported: then nothing can be built on it.
    return extension is not None and isinstance(getattr(interface, "application", None), extension.Application)


async def serve(interface: Any, runner: Callable[..., Any], stopping: asyncio.Event, ready: Callable[[], None]) -> None:
    """Take updates until `stopping` is set, then answer what was taken. Waits for Telegram while it cannot be reached.

    Raises `AppInvalid` where Telegram refuses the token, and `ConsumerLost` where fetching has ended by itself.
    """
    application: AnyApplication = interface.application
    if callable(getattr(interface, "cast_message_to_telegram_and_send", None)):
        stream_sent_files(interface)
    start_updater = await _connect(interface, runner)
    chats = _Chats(application)
    if application.updater is not None:
        application.updater.update_queue = chats.taken
    stopped = asyncio.create_task(stopping.wait(), name="await the stop")
    starting = asyncio.create_task(_start(application, start_updater), name="start Telegram")
    dispatching = asyncio.create_task(chats.dispatch(), name="dispatch updates")
    try:
        await asyncio.wait({stopped, starting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        fetching = starting.result()
        ready()
        await asyncio.wait({stopped, dispatching, *fetching}, return_when=asyncio.FIRST_COMPLETED)
        _raise_ended(fetching)
        await _stop_updater(application)
        await chats.drain()
    finally:
        # 1. What was given up. 2. The application, which waits for tasks of its own.
        for task in (stopped, starting, dispatching):
            task.cancel()
        await chats.cancel()
        await _end(application)


class _StandIn:
    """Takes the application's place while its interface connects, and notes what it would have run for ever."""

    def __init__(self, application: "AnyApplication") -> None:
        self._application = application
        self.start_updater: Callable[[], Awaitable[object]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._application, name)

    def run_polling(self, *args: Any, **options: Any) -> None:
        """Note to fetch updates."""
        updater = self._updater("run_polling")
        wanted: dict[str, Any] = {"bootstrap_retries": -1, "error_callback": _log_failed_fetch}
        wanted |= self._options(self._application.run_polling, args, options)
        self.start_updater = partial(updater.start_polling, **wanted)

    def run_webhook(self, *args: Any, **options: Any) -> None:
        """Note to listen for updates."""
        updater = self._updater("run_webhook")
        wanted = {"bootstrap_retries": -1} | self._options(self._application.run_webhook, args, options)
        self.start_updater = partial(updater.start_webhook, **wanted)

    def _updater(self, wanted: str) -> "Updater":
        if self._application.updater is None:
            raise MisuseError(f"{wanted} needs an application with an updater")
        return self._application.updater

    @staticmethod
    def _options(function: Callable[..., None], args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
        arguments = inspect.signature(function).bind(*args, **options).arguments
        return {name: value for name, value in arguments.items() if name not in ("close_loop", "stop_signals")}


async def _connect(interface: Any, runner: Callable[..., Any]) -> Callable[[], Awaitable[object]] | None:
    """Let the interface connect; how it wants to get its updates, `None` where it does not say."""
    application = interface.application
    interface.application = stand_in = _StandIn(application)
    try:
        await interface.connect(runner)
    finally:
        interface.application = application
    return stand_in.start_updater


async def _start(
    application: "AnyApplication", start_updater: Callable[[], Awaitable[object]] | None
) -> "set[asyncio.Task[Any]]":
    """Start in the order of `Application.run_polling`; the tasks that fetch updates."""
    from telegram.error import InvalidToken, NetworkError

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(NetworkError),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        before_sleep=_log_waiting,
    )
    try:
        await retrying(application.initialize)
        if application.post_init is not None:
            await application.post_init(application)
        before = asyncio.all_tasks()
        if start_updater is not None:
            await start_updater()
        await application.start()
    except InvalidToken:
        # Its text holds the token.
        raise AppInvalid("Telegram refuses the token of this bot: get a valid one from @BotFather") from None
    return {task for task in asyncio.all_tasks() - before if task.get_name() == POLLING_TASK}


def _raise_ended(fetching: "set[asyncio.Task[Any]]") -> None:
    for task in fetching:
        if task.done():
            raise ConsumerLost("updates are no longer fetched from Telegram; its last answer is in the log above")


async def _stop_updater(application: "AnyApplication") -> None:
    if application.updater is not None and application.updater.running:
        await application.updater.stop()


async def _end(application: "AnyApplication") -> None:
    """End in the order of `Application.run_polling`. A step that fails is told, and the next one is taken."""

    async def stop() -> None:
        if application.running:
            await application.stop()
            if application.post_stop is not None:
                await application.post_stop(application)

    async def shut_down() -> None:
        await application.shutdown()
        if application.post_shutdown is not None:
            await application.post_shutdown(application)

    for step in (partial(_stop_updater, application), stop, shut_down):
        try:
            await step()
        except Exception:
            logger.exception("ending the Telegram application failed")


class _Chats:
    """The updates of one chat one after the other, from its conversion to its answer; chats side by side."""

    def __init__(self, application: "AnyApplication") -> None:
        self._application = application
        self._lanes: Lanes[object] = Lanes(self._process, MOST_UPDATES)
        self._room = asyncio.Semaphore(MOST_UPDATES)
        # Of one place: whoever fetches waits while there is no room, instead of filling the memory.
        self.taken: asyncio.Queue[object] = asyncio.Queue(1)

    async def dispatch(self) -> None:
        """Put what is taken into the lanes of its chats, until cancelled."""
        while True:
            update = await self.taken.get()
            await self._room.acquire()
            chat = getattr(update, "effective_chat", None)
            self._lanes.submit(f"chat {chat.id}" if chat is not None else f"update {id(update)}", update)
            self.taken.task_done()

    async def drain(self) -> None:
        """Return when everything taken is answered."""
        await self.taken.join()
        await self._lanes.drain()

    async def cancel(self) -> None:
        """Give up what is not answered."""
        await self._lanes.cancel()

    async def _process(self, _: str, update: object) -> None:
        try:
            with stray_cancellations_caught():
                await self._application.process_update(update)
        except Exception:
            logger.exception("an update from Telegram was not answered")
        finally:
            self._room.release()


def _log_failed_fetch(error: Exception) -> None:
    logger.warning("fetching updates from Telegram failed, trying again: %s", error)


def _log_waiting(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    logger.warning("waiting for Telegram (attempt %d): %s", state.attempt_number, error)
