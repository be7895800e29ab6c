"""The messenger interface that takes its messages from a broker: where a message comes in and its reply goes out.

`_request` gives what is ready now, `_respond` publishes and then acknowledges. Between the two every context has a
lane, so a slow turn holds back nobody else. A request is acknowledged in one place only, after its reply or its dead
letter is confirmed; a turn that was abandoned stays unacknowledged and comes again.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from interfaces.arrivals import Arrivals
from interfaces.attachment_transfer import AttachmentTransfer
from interfaces.bot_signals import BotSignal
from interfaces.broker_attachments import BrokerAttachments
from interfaces.brokers import Broker, Delivery
from interfaces.brokers.opening import open_broker
from interfaces.consumers import KeptConsumer, Watch
from interfaces.context import Context
from interfaces.dead_letters import rejection
from interfaces.encryption import Keys
from interfaces.envelope import Request, decode_request
from interfaces.errors import Fatal, MisuseError, RequestRejected, TurnAbandoned, TurnPostponed
from interfaces.foreign import stray_cancellations_caught
from interfaces.lanes import Lanes
from interfaces.lazy_bridge import adopt, our_runner
from interfaces.limits import Limits
from interfaces.markers import Markers
from interfaces.messages import Message
from interfaces.messengers import PipelineRunnerFunction, PollingMessengerInterface
from interfaces.observed import Observed
from interfaces.reply_bodies import encode_reply
from interfaces.request_queues import RequestQueues
from interfaces.settling import Settler
from interfaces.shards import Shards
from interfaces.taken import Taken
from interfaces.telemetry import Telemetry
from interfaces.topology import Topology

logger = logging.getLogger(__name__)

IDLE_POLL_SECONDS = 1.0
"""For `_request` to wait for a first message before it returns none, so that `loop` is asked again."""


class RabbitMQMessengerInterface(PollingMessengerInterface, BrokerAttachments, Observed):
    """Polling interface on the request queues of the namespace that `topology` names.

    Alone it runs any pipeline runner: each request reaches it at least once, in order per context. Together with a
    `worker.Worker` each turn is committed exactly once.

    :param url: `amqp://`, `amqps://` (nodes of a cluster separated by commas), or `memory://` inside this process.
    :param broker: a broker to use instead of `url`; it is opened here and closed with the interface.
    :param batch_size: requests per poll at most.
    :param concurrency: turns that run at a time at most.
    :param drain_timeout: seconds that running turns have to finish when the interface stops.
    :param queues: which request queues there are, where their number may change; else `topology` says it.
    :param attachments: the way to the attachment store; by default to one in this process.
    :param keys: decrypt requests, and encrypt the replies to those that were.
    :param limits: how much a request and its reply may be.
    :param in_flight_bytes: bytes of unacknowledged requests at most, 2 KiB for each included.
    :param telemetry: where it counts what it does.
    """

    def __init__(
        self,
        url: str = "memory://",
        *,
        topology: Topology | None = None,
        broker: Broker | None = None,
        batch_size: int = 64,
        concurrency: int = 256,
        drain_timeout: float = 20.0,
        watch: Watch | None = None,
        queues: RequestQueues | None = None,
        attachments_directory: Path | None = None,
        attachments: AttachmentTransfer | None = None,
        keys: Keys | None = None,
        limits: Limits | None = None,
        in_flight_bytes: int = 256 * 1024 * 1024,
        telemetry: Telemetry | None = None,
    ) -> None:
        adopt(type(self))
        self._telemetry = telemetry or Telemetry()
        self._broker = broker or open_broker(url, telemetry=self._telemetry)
        self._queues = queues or RequestQueues(self._broker, topology or Topology())
        super().__init__(self._broker, self.topology, attachments_directory, attachments)
        self.name = f"{self.id}-{uuid4().hex[:8]}"
        self._batch_size, self._concurrency, self._drain_timeout = batch_size, concurrency, drain_timeout
        self._watch = watch
        self._limits, self._keys = limits or Limits(), keys
        self._settler = Settler(self._broker, self._queues, self.name, self._are_settled, self._telemetry)
        self._markers = Markers(self._queues.passed)
        self._taken = Taken(self._decode, in_flight_bytes, self._telemetry)
        self._arrivals = Arrivals(
            self._taken, self._decode, self._settler, self._markers, self._connected, self._queues.prefetch
        )
        self._is_open = self._stopping = False
        self._wanted: frozenset[str] = frozenset(self.topology.shard_queues)
        self._shards: Shards | None = None
        self._is_connected = asyncio.Event()
        self.unfinished = 0  # of contexts, after `connect` has ended: their requests come again

    async def connect(
        self, pipeline_runner: PipelineRunnerFunction, loop: Callable[[], bool] = lambda: True, timeout: float = 0
    ) -> None:
        """Take requests and answer them until `stop`, until `loop()` is False, or until cancelled.

        Whichever it is, running turns get `drain_timeout` seconds to finish; a cancellation after `stop` ends that at
        once. Raises `BrokerRefused` or `BrokerUnavailable` where it cannot start, what `KeptConsumer.run` does later.
        """
        async with AsyncExitStack() as undoing:
            undoing.push_async_callback(self.close)
            await self.open()
            undoing.pop_all()
        self._runner = our_runner(pipeline_runner)
        self._lanes: Lanes[None] = Lanes(self._turn, self._concurrency)
        self._shards = Shards(self._keep, self._drain_timeout, self._telemetry)
        self._shards.want(self._wanted)
        self._is_connected.set()
        polling = asyncio.create_task(
            super().connect(pipeline_runner, lambda: not self._stopping and loop(), timeout), name="poll"
        )
        supervised: list[asyncio.Future[None]] = [polling, self._lanes.failed, self._shards.failed]
        patience = self._drain_timeout
        try:
            await asyncio.wait(supervised, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            patience = 0 if self._stopping else patience  # `stop` had been called: whoever cancels now is in a hurry.
            raise
        finally:
            await self._shut_down(patience, polling)
        for ended in supervised:
            if ended.done() and not ended.cancelled():
                ended.result()

    async def open(self) -> None:
        """Connect and declare the topology, once; may be tried again. Raises `BrokerRefused` or `BrokerUnavailable`."""
        if not self._is_open:
            await self._broker.open()
            await self._queues.open()
            self._is_open = True

    async def close(self) -> None:
        """Close the broker; for an interface that was never connected. Never raises, may be repeated."""
        await self._close_attachments()
        await self._broker.close()

    def stop(self) -> None:
        """Take nothing more, finish the running turns, end `connect`. Returns at once, may be repeated."""
        self._stopping = True
        self._arrivals.wake()
        if self._shards is not None:
            self._lanes.wake()

    def want(self, queues: Collection[str]) -> None:
        """Consume these request queues and hand over all others, now or once connected. All, where never called."""
        self._wanted = frozenset(queues)
        if self._shards is not None and not self._stopping:
            self._shards.want(self._wanted)

    @property
    def topology(self) -> Topology:
        """The topology as it is now."""
        return self._queues.topology

    async def wait_consuming(self) -> None:
        """Return once `connect` runs and every queue wanted then has been consumed."""
        await self._is_connected.wait()
        await self._connected().wait_consuming()

    def current(self, ctx_id: Hashable) -> Request:
        """The request whose turn this context is in. Raises `MisuseError` where it is in none."""
        return self._taken.current(ctx_id)

    def returnable(self, request: Request) -> int:
        """How many earlier requests of its context the broker may deliver again although they are acknowledged."""
        return self._arrivals.returnable(request)

    def may_run(self, request: Request) -> bool:
        """Whether a bot may still begin in the turn of this request here; otherwise it comes again."""
        return not self._stopping and self._connected().may_run(request.delivery.channel)

    async def _request(self) -> list[tuple[Message, Hashable]]:
        """The next requests, at most `batch_size`: those that are ready now, and it waits only while there is none."""
        if not self._stopping:
            await self._arrivals.wait(IDLE_POLL_SECONDS)
        batch: list[tuple[Message, Hashable]] = []
        while len(batch) < self._batch_size and not self._stopping and (request := self._arrivals.next()) is not None:
            batch.append((request.message, request.ctx_id))
        return self._telemetry.polled(batch)

    async def _respond(self, responses: list[Context]) -> None:
        """Publish the last response of each context as the reply to the request it is in, then acknowledge that."""
        if len(responses) == 1:
            await self._answer(responses[0])  # As in every turn of a lane: without a task more.
        else:
            await asyncio.gather(*(self._answer(context) for context in responses))

    async def _polling_loop(self, pipeline_runner: PipelineRunnerFunction, timeout: float = 0) -> None:
        """One poll: put what is ready into the lanes. It does not wait for the answers."""
        if await self._lanes.until_short(IDLE_POLL_SECONDS):
            for _, ctx_id in await self._request():
                self._lanes.submit(str(ctx_id), None)
        await asyncio.sleep(timeout)

    def _are_settled(self, seconds: float) -> bool:
        return self._connected().are_settled(seconds)

    def _keep(self, queue: str) -> KeptConsumer:
        mend, prefetch = partial(self._queues.mend, queue), self._queues.prefetch(queue)
        return KeptConsumer(self._broker, queue, prefetch, self._arrivals.deliver, declare=mend, watch=self._watch)

    def _decode(self, delivery: Delivery) -> Request:
        request = decode_request(delivery, self.topology, self._keys, self._limits)
        message = self.received(request.message)
        return request if message is request.message else replace(request, message=message)

    async def _turn(self, ctx_id: str, _: None) -> None:
        held, request = self._taken.start(ctx_id)
        shards, channel = self._connected(), held.delivery.channel
        try:
            if not self._stopping and shards.may_start(channel):
                self._begin_turn(request)
                task = shards.hold(channel)
                try:
                    await self._telemetry.turn(request, self._run)
                finally:
                    shards.let_go(channel, task)
        finally:
            self._taken.end(ctx_id, held)
            self._arrivals.make_room(channel)

    async def _run(self, request: Request) -> None:
        try:
            with stray_cancellations_caught():
                context = await self._runner(request.message, request.ctx_id, request.update_ctx_misc)
            await self._respond([context])
        except TurnPostponed:
            pass  # It comes again once the channel is closed.
        except TurnAbandoned as abandoned:
            logger.warning("turn of request %r given up here: %s", request.request_id, abandoned)
            self._telemetry.metrics.turns_total["abandoned"] += 1
            await request.delivery.channel.close()
        except RequestRejected as rejected:
            await self._reject(request, rejected)
        except Fatal:
            raise  # Not the request's fault: it stays unacknowledged, and `connect` ends with this.
        except (Exception, BotSignal) as error:  # noqa: BLE001 - the user's code: whatever it raises is its answer
            self._on_exception(error)
            await self._reject(request, rejection(error, attempts=1))

    async def _reject(self, request: Request, rejected: RequestRejected) -> None:
        await self._settler.reject(request.delivery, rejected, request)
        self._arrivals.acknowledged(request)

    async def _answer(self, context: Context) -> None:
        request = self.current(context.id)
        body = context.committed_reply
        if body is None:
            response = context.last_response and await self.sent(context.last_response)
            body = encode_reply(request, response, context.misc, context.current_turn_id, self._limits)
        await self._settler.answer(request, body, is_repeated=context.is_repeated)
        self._arrivals.acknowledged(request)

    def _connected(self) -> Shards:
        if self._shards is None:
            raise MisuseError("the interface is not connected: await connect(pipeline_runner) first")
        return self._shards

    async def _shut_down(self, patience: float, polling: asyncio.Task[None]) -> None:
        """Stop in order; each step runs whatever happens to the one before, a cancellation included."""
        self.stop()  # 1. Start no turn any more.
        polling.cancel()
        try:  # 2. Let running turns finish, publish and acknowledge.
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._lanes.drain()
                    await self._settler.drain()
        finally:
            self.unfinished = await self._lanes.cancel()  # 3. Give up the rest; unacknowledged, they come again.
            await self._settler.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            await self._markers.close()
            # 4. Close the channels: acks are on the wire before, and what is unacknowledged goes back in order.
            await self._connected().close()
            await self.close()  # 5. Close the connections.
