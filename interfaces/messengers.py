"""The seed's messenger interfaces: what stands between users on one side and a pipeline runner on the other.

Names, parameters and defaults are Chatsky's. Unlike there, one failed poll or turn does not end polling, cancellation
is never swallowed, and a plain `_request` or `_respond` runs in a thread, so that it may block.
Subclass them for a messenger; `RabbitMQMessengerInterface` and `CLIMessengerInterface` are such subclasses.
"""

import asyncio
import logging
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Hashable
from pathlib import Path
from typing import Any, ClassVar, Protocol

from interfaces.blocking import call_sync_or_async
from interfaces.bot_signals import BotSignal
from interfaces.context import Context
from interfaces.errors import Fatal, MisuseError
from interfaces.messages import DataModel, Message

logger = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 0.05
"""Pause after a failed cycle; it doubles with every further failure in a row."""
MAX_BACKOFF_SECONDS = 1.0
"""Where the doubling ends: short enough for users after an outage, long enough to idle through it."""

Updates = list[tuple[Message, Hashable]]
"""What users sent, each with the id of the context it belongs to."""


class PipelineRunnerFunction(Protocol):
    """Takes one message through a dialog and returns its context. Chatsky's `Pipeline._run_pipeline` is one."""

    def __call__(
        self, message: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Awaitable[Context]:
        """Process `message` in context `ctx_id` (`None`: a new one), after merging `update_ctx_misc` into its misc."""


class MessengerInterface(ABC):
    """Connects users and a pipeline."""

    def __init__(self) -> None:
        self.id = type(self).__name__

    @abstractmethod
    async def connect(self, pipeline_runner: PipelineRunnerFunction) -> None:
        """Begin to pass users' messages to `pipeline_runner` and its contexts' responses back.

        May be used to show an introduction first.
        """


class MessengerInterfaceWithAttachments(MessengerInterface, ABC):
    """A messenger interface that handles attachments.

    :param attachments_directory: where attachments are kept, created where it is missing; by default the system's
        temporary directory.
    """

    supported_request_attachment_types: ClassVar[set[type[DataModel]]] = set()
    """Types of attachment this interface can receive, a base class for all that is derived from it; others are
    neglected."""
    supported_response_attachment_types: ClassVar[set[type[DataModel]]] = set()
    """Types of attachment this interface can send; others are neglected."""

    def __init__(self, attachments_directory: Path | None = None) -> None:
        super().__init__()
        if attachments_directory is None:
            attachments_directory = Path(tempfile.gettempdir())
        else:
            attachments_directory.mkdir(parents=True, exist_ok=True)
        self.attachments_directory = attachments_directory

    @abstractmethod
    async def get_attachment_bytes(self, source: str) -> bytes:
        """Return the bytes of the file that `source` (an attachment's id or URL) identifies on the messenger's servers.

        Whoever implements it for URLs decides which of them may be fetched: they come from users.
        """


class PollingMessengerInterface(MessengerInterface):
    """Asks users for their input in a loop.

    `_request` and `_respond` may be plain functions or `async def`. A plain one runs in a thread of its own: it may
    block, and it must not touch the event loop.
    """

    @abstractmethod
    def _request(self) -> Updates | Awaitable[Updates]:
        """Return what users have sent, each message with its context's id."""

    @abstractmethod
    def _respond(self, responses: list[Context]) -> Awaitable[None] | None:
        """Send users the `last_response` of each context."""

    def _on_exception(self, e: BaseException) -> None:
        """Called with whatever ends a cycle or a turn. Logs errors as errors, and what asks to stop as information."""
        if isinstance(e, Exception | BotSignal):
            logger.error("Exception in %s loop!", type(self).__name__, exc_info=e)
        else:
            logger.info("%s has stopped polling.", type(self).__name__)

    async def _polling_loop(self, pipeline_runner: PipelineRunnerFunction, timeout: float = 0) -> None:
        """Run one cycle: request, take each message through the pipeline in turn, respond, pause for `timeout` seconds.

        A turn that fails goes to `_on_exception`; the others of the cycle are answered.
        """
        updates: Updates = await call_sync_or_async(self._request)
        responses: list[Context] = []
        for message, ctx_id in updates:
            try:
                responses.append(await pipeline_runner(message, ctx_id))
            except Fatal:
                raise
            except (Exception, BotSignal) as error:  # noqa: BLE001 - the runner is foreign code and may raise anything
                self._on_exception(error)
        if responses or not updates:
            await call_sync_or_async(self._respond, responses)
        await asyncio.sleep(timeout)

    async def connect(
        self,
        pipeline_runner: PipelineRunnerFunction,
        loop: Callable[[], bool] = lambda: True,
        timeout: float = 0,
    ) -> None:
        """Run cycles until `loop()`, asked before each, is False; `timeout` is the pause between them in seconds.

        A cycle that raises goes to `_on_exception` and the next one follows, after `timeout` or, where that is longer,
        a pause that grows with every failure in a row. Cancellation, `KeyboardInterrupt`, `SystemExit` and `Fatal` go
        to `_on_exception` and are raised again.
        """
        backoff = FIRST_BACKOFF_SECONDS
        try:
            while loop():
                try:
                    await self._polling_loop(pipeline_runner, timeout)
                    backoff = FIRST_BACKOFF_SECONDS
                except Fatal:
                    raise
                except Exception as error:  # noqa: BLE001 - foreign code, and no bad poll ends polling
                    self._on_exception(error)
                    await asyncio.sleep(max(timeout, backoff))
                    backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit, Fatal) as stop:
            self._on_exception(stop)
            raise


class CallbackMessengerInterface(MessengerInterface):
    """Waits to be called with users' input, for example by a web framework's route."""

    def __init__(self) -> None:
        super().__init__()
        self._pipeline_runner: PipelineRunnerFunction | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def connect(self, pipeline_runner: PipelineRunnerFunction) -> None:
        """Keep `pipeline_runner` for the requests to come, and return."""
        self._pipeline_runner = pipeline_runner
        self._loop = asyncio.get_running_loop()

    async def on_request_async(
        self, request: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        """Take one request through the pipeline, and raise what that raises; before `connect`, `MisuseError`."""
        return await self._connected()(request, ctx_id, update_ctx_misc)

    def on_request(
        self, request: Message, ctx_id: Hashable | None = None, update_ctx_misc: dict[str, Any] | None = None
    ) -> Context:
        """The same for code without an event loop; it blocks.

        The request runs in the loop that `connect` ran in while that still runs (in another thread), so a runner may
        hold connections; otherwise in a loop of its own. Raises `MisuseError` inside an event loop or before `connect`.
        """
        self._connected()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise MisuseError(
                f"{type(self).__name__}.on_request blocks, so it cannot be called inside a running event loop: "
                "use `await on_request_async(...)` there"
            )
        turn = self.on_request_async(request, ctx_id, update_ctx_misc)
        if self._loop is not None and self._loop.is_running():
            return asyncio.run_coroutine_threadsafe(turn, self._loop).result()
        return asyncio.run(turn)

    def _connected(self) -> PipelineRunnerFunction:
        if self._pipeline_runner is None:
            name = type(self).__name__
            raise MisuseError(f"{name} has no pipeline yet: call `await {name}.connect(pipeline_runner)` first")
        return self._pipeline_runner
