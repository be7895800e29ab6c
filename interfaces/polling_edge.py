"""Polling at the edge: the loop of an interface written for one process, made to survive what goes wrong in it.

The interface keeps its `connect`, which may print an introduction or pick a context id, and gets another
`_polling_loop`. Chatsky's own ends for good with the first exception, holds the event loop while `_request` waits for a
user, and runs a batch message by message. Works on interfaces of both libraries.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from interfaces.blocking import call_sync_or_async
from interfaces.errors import Fatal
from interfaces.foreign import StrayCancellationError, stray_cancellations_caught
from interfaces.messengers import FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 0.05
"""Pause after a `_request` that brought nothing. One that never waits itself would keep a processor busy otherwise."""

OWN_LOOPS: Final = ("interfaces.messengers", "chatsky.messengers.common.interface")
"""Where the polling loops are defined that this one stands in for."""


async def poll(interface: Any, runner: Callable[..., Any], stopping: asyncio.Event, ready: Callable[[], None]) -> None:
    """Poll until the input ends or `stopping` is set; then what was taken from users is answered first.

    Raises `Fatal` where the runner does, and what the interface's own `connect` raises.
    """
    if type(interface)._polling_loop.__module__ not in OWN_LOOPS:  # noqa: SLF001 - the seed's name for it
        logger.warning("the _polling_loop of %s is not used: the edge has its own", type(interface).__name__)
    cycles = _Cycles(interface, stopping)
    interface._polling_loop = cycles.run_one  # noqa: SLF001 - as above
    ready()
    try:
        with stray_cancellations_caught():
            await interface.connect(runner)
    except StrayCancellationError:
        pass  # Interfaces of ours let through what ends the loop; Chatsky's return instead.
    except Exception:
        if not cycles.are_over:
            raise
        logger.exception("%s failed while it ended", type(interface).__name__)
    finally:
        del interface._polling_loop  # noqa: SLF001 - as above
    if cycles.fatal is not None:
        raise cycles.fatal


class _Cycles:
    """Runs one cycle after the other. Nothing that goes wrong in one is raised, but what ends the loop."""

    def __init__(self, interface: Any, stopping: asyncio.Event) -> None:
        self._interface = interface
        self._stopping = stopping
        self._backoff = FIRST_BACKOFF_SECONDS
        self.fatal: Fatal | None = None
        self.are_over = False

    async def run_one(self, pipeline_runner: Callable[..., Any], timeout: float = 0) -> None:
        """Request, take the messages through the pipeline, respond, pause; in the place of `_polling_loop`.

        `CancelledError` ends the interface's loop: it is the one thing that both libraries take for a wish to stop.
        """
        try:
            updates = await self._take()
            responses = await self._run(pipeline_runner, updates)
            # Without any answer there is nothing to show, and some interfaces look at the first one.
            if responses:
                with stray_cancellations_caught():
                    await call_sync_or_async(self._interface._respond, responses)  # noqa: SLF001 - the seed's name
        except asyncio.CancelledError:
            self.are_over = True
            raise
        except Fatal as error:
            self.fatal = error  # Chatsky's `connect` swallows whatever it is.
            self.are_over = True
            raise asyncio.CancelledError from error
        except Exception as error:  # noqa: BLE001 - foreign code, and no bad cycle ends polling
            self._tell(error)
            await self._pause(max(timeout, self._backoff))
            self._backoff = min(2 * self._backoff, MAX_BACKOFF_SECONDS)
        else:
            self._backoff = FIRST_BACKOFF_SECONDS
            await self._pause(timeout if updates else max(timeout, IDLE_SECONDS))

    async def _take(self) -> list[tuple[Any, Any]]:
        """What users sent. Ends the loop where nothing more is to be taken, or there is no more input."""
        if self._stopping.is_set():
            raise asyncio.CancelledError
        requesting = asyncio.create_task(_request(self._interface), name="await users' messages")
        stopped = asyncio.create_task(self._stopping.wait(), name="await the stop")
        try:
            await asyncio.wait({requesting, stopped}, return_when=asyncio.FIRST_COMPLETED)
            # What has been taken is answered, also where it came in the moment of the stop.
            if not requesting.done():
                raise asyncio.CancelledError
            return requesting.result()
        except EOFError as error:
            logger.info("%s: end of input", type(self._interface).__name__)
            raise asyncio.CancelledError from error
        finally:
            requesting.cancel()
            stopped.cancel()

    async def _run(self, pipeline_runner: Callable[..., Any], updates: Sequence[tuple[Any, Any]]) -> list[Any]:
        """The contexts of all that succeeded, in the order of their messages; one context's run in it."""

        async def turn(message: Any, ctx_id: Any) -> Any:
            with stray_cancellations_caught():
                return await pipeline_runner(message, ctx_id)

        outcomes = await asyncio.gather(*(turn(message, ctx_id) for message, ctx_id in updates), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Fatal):
                raise outcome
            if isinstance(outcome, BaseException):
                self._tell(outcome)
        return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _tell(self, error: BaseException) -> None:
        try:
            self._interface._on_exception(error)  # noqa: SLF001 - the seed's name
        except Exception:
            logger.exception("_on_exception of %s failed; it was told of: %r", type(self._interface).__name__, error)


async def _request(interface: Any) -> list[tuple[Any, Any]]:
    with stray_cancellations_caught():
        updates = await call_sync_or_async(interface._request)  # noqa: SLF001 - the seed's name
    return [(message, ctx_id) for message, ctx_id in updates]
