"""The upstream client: correlation, order, errors that name their cause, and no request lost to a broken connection.

On both brokers where nothing but the client's promise is looked at; faults of a network on RabbitMQ.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import groupby

import pytest

from interfaces.brokers import Broker
from interfaces.brokers.opening import open_broker
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.errors import AskTimeout, BrokerUnavailable, MisuseError, RequestFailed, Unroutable
from interfaces.messages import Message, Origin
from interfaces.messengers import CallbackMessengerInterface, PollingMessengerInterface, Updates
from interfaces.replies import Replies
from interfaces.topology import Topology, slot
from tests.conformance.broker_probes import Inbox
from tests.integration.faults import (
    SHARDS,
    Notebook,
    linked,
    opened,
    rounds,
    running,
    send_all,
    until,
    worker_settings,
)
from worker.running import Worker


@dataclass(frozen=True, slots=True)
class Place:
    """A broker to be a client of."""

    url: str
    namespace: str

    def client(self, *, interface: str | None = None, timeout: float = 30) -> BrokerClient:
        return BrokerClient(self.url, namespace=self.namespace, interface=interface, timeout=timeout)

    def worker(self, bot: object) -> Worker:
        return Worker(bot, worker_settings(self.namespace), broker=open_broker(self.url))


@pytest.fixture(params=["memory", "rabbitmq"])
def place(request: pytest.FixtureRequest, amqp_url: str, namespace: str) -> Place:
    return Place(amqp_url if request.param == "rabbitmq" else f"memory://{namespace}", namespace)


@pytest.fixture
async def own_broker_object(place: Place) -> AsyncIterator[Broker]:
    """A second connection, to look and to prepare with."""
    broker = open_broker(place.url)
    await broker.open()
    yield broker
    await broker.close()


async def declared(broker: Broker, place: Place, **changes: int) -> Topology:
    topology = Topology(place.namespace, **({"shards": SHARDS} | changes))
    await broker.apply(topology)
    return topology


async def bot(ctx: Context) -> Message | str | None:
    """Echoes; fails, or says nothing, when told to."""
    text = ctx.last_request.text or ""
    if text == "fail":
        raise ZeroDivisionError("inside the bot")
    ctx.misc["turns"] = ctx.misc.get("turns", 0) + 1
    return None if text == "nothing" else f"{ctx.id}: {text}"


async def test_a_thousand_asks_at_a_time_each_get_their_own_reply(place: Place) -> None:
    async with place.client() as client, running(place.worker(bot)):
        replies = await asyncio.gather(*(client.ask(f"text {n}", f"context {n}") for n in range(1000)))
    assert [reply.message and reply.message.text for reply in replies] == [
        f"context {n}: text {n}" for n in range(1000)
    ]
    assert len({reply.request_id for reply in replies}) == 1000


async def test_asks_of_one_context_at_a_time_are_answered_in_the_order_they_were_made(place: Place) -> None:
    async with place.client() as client, running(place.worker(bot)):
        replies = await asyncio.gather(*(client.ask(str(n), "ctx") for n in range(100)))
    assert [reply.turn for reply in replies] == list(range(1, 101))


async def test_the_first_ask_is_not_overtaken_by_a_send_made_after_it(place: Place) -> None:
    async with place.client() as client, running(place.worker(bot)):
        reply, _ = await asyncio.gather(client.ask("first", "ctx"), client.send("second", "ctx"))
    assert reply.turn == 1


async def test_asks_under_one_id_are_one_request_with_one_reply_for_all(place: Place) -> None:
    async with place.client() as client, running(place.worker(bot)):
        replies = await asyncio.gather(*(client.ask("once", "ctx", request_id="r") for _ in range(10)))
        assert (await client.ask("once", "ctx", request_id="r")) == replies[0]
        assert (await client.ask("twice", "ctx")).turn == 2
    assert all(reply == replies[0] for reply in replies)


async def test_a_reply_nobody_sent_says_what_was_waited_for(place: Place, own_broker_object: Broker) -> None:
    await declared(own_broker_object, place)
    async with place.client() as client:
        with pytest.raises(AskTimeout) as caught:
            await client.ask("hello?", "ctx", request_id="r1", timeout=0.5)
    for part in ("'r1'", "'ctx'", "0.5 s", repr(place.namespace), "the broker has it"):
        assert part in str(caught.value)


async def test_a_reply_after_the_timeout_is_had_by_asking_again_with_the_same_id(
    place: Place, own_broker_object: Broker
) -> None:
    await declared(own_broker_object, place)
    async with place.client() as client:
        with pytest.raises(AskTimeout):
            await client.ask("late", "ctx", request_id="r1", timeout=0.2)
        async with running(place.worker(bot)):
            assert (await client.ask("late", "ctx", request_id="r1")).turn == 1
            assert (await client.ask("next", "ctx")).turn == 2


async def test_a_full_queue_is_tried_again_and_then_named(place: Place, own_broker_object: Broker) -> None:
    topology = await declared(own_broker_object, place, max_length=1)
    async with place.client() as client:
        with pytest.raises(BrokerUnavailable, match="full") as caught:
            await overfill(client)
        assert "'ctx' was not confirmed within 0.5 s" in str(caught.value)
        with pytest.raises(BrokerUnavailable, match="full"):
            await client.ask("one too many", "ctx", timeout=0.5)
        sending = asyncio.create_task(client.send("when there is room", "ctx"))
        inbox = Inbox()
        channel = await own_broker_object.consume(topology.queue_of(slot("ctx")), 100, inbox)
        while not sending.done():
            for delivery in inbox.deliveries:
                await channel.ack(delivery)
            inbox.deliveries.clear()
            await asyncio.sleep(0.01)
        await sending


async def overfill(client: BrokerClient) -> None:
    for _ in range(20):  # RabbitMQ lets a few more in than its limit
        await client.send("one too many", "ctx", timeout=0.5)


@pytest.mark.parametrize("asking", [False, True])
async def test_a_request_without_a_topology_fails_at_once(place: Place, asking: bool) -> None:
    async with place.client(timeout=20) as client:
        began = time.monotonic()
        with pytest.raises(Unroutable):
            await (client.ask if asking else client.send)("nowhere", "ctx")
        assert time.monotonic() - began < 10


async def test_a_request_whose_slot_leads_nowhere_fails_at_once(place: Place, own_broker_object: Broker) -> None:
    topology = await declared(own_broker_object, place)
    await own_broker_object.delete_queue(topology.queue_of(slot("ctx")))
    async with place.client(timeout=20) as client:
        with pytest.raises(Unroutable):
            await client.send("nowhere", "ctx")


@pytest.mark.parametrize("request_id", ["x" * 256, "ü" * 128])
async def test_a_request_that_cannot_travel_is_misuse_and_the_client_goes_on(place: Place, request_id: str) -> None:
    async with place.client() as client, running(place.worker(bot)):
        with pytest.raises(MisuseError):
            await client.ask("id too long", "ctx", request_id=request_id)
        with pytest.raises(MisuseError):
            await client.send("hello", "")
        assert (await client.ask("hello", "ctx")).turn == 1


async def test_closing_fails_the_calls_that_wait(place: Place, own_broker_object: Broker) -> None:
    await declared(own_broker_object, place)
    client = place.client()
    await client.open()
    asking = asyncio.create_task(client.ask("hello?", "ctx"))
    await until(lambda: client._inbox.is_listening, "it listens")
    await client.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        await asking


async def take(replies: Replies, count: int) -> list[str | None]:
    """The ids of the requests that the next replies answer."""
    async with asyncio.timeout(30):
        return [(await anext(replies)).request_id for _ in range(count)]


async def test_every_private_listener_gets_all_replies_from_its_opening_on(place: Place) -> None:
    async with place.client() as client, running(place.worker(bot)):
        early = await client.send("before", "ctx")
        await client.ask("the one before is answered", "ctx")
        async with client.replies() as first, client.replies() as second:
            sent = [await client.send(str(n), "ctx") for n in range(5)]
            heard = await take(first, 5), await take(second, 5)
    assert early not in heard[0]
    assert heard == (sent, sent)


async def test_a_named_queue_keeps_replies_while_nobody_listens_and_shares_them(
    place: Place, own_broker_object: Broker
) -> None:
    async with place.client() as client, running(place.worker(bot)):
        async with client.replies("kept"):
            pass
        sent = [await client.send(str(n), "ctx") for n in range(10)]
        await client.ask("all before are answered", "ctx")
        async with client.replies("kept") as first:
            heard = await take(first, 4)
        async with client.replies("kept") as second:
            heard += await take(second, 6)
    await own_broker_object.delete_queue(Topology(place.namespace).reply_prefix + "kept")
    assert heard == sent


async def fail_on_the_first(client: BrokerClient) -> None:
    async with client.replies("kept") as failing:
        await take(failing, 1)
        raise ZeroDivisionError


async def test_a_reply_its_reader_failed_on_comes_again(place: Place, own_broker_object: Broker) -> None:
    async with place.client() as client, running(place.worker(bot)):
        async with client.replies("kept"):
            pass
        sent = [await client.send(str(n), "ctx") for n in range(2)]
        with pytest.raises(ZeroDivisionError):
            await fail_on_the_first(client)
        async with client.replies("kept") as reading:
            assert await take(reading, 2) == sent
    await own_broker_object.delete_queue(Topology(place.namespace).reply_prefix + "kept")


async def test_replies_travel_under_the_name_of_the_interface_they_came_through(place: Place) -> None:
    async with (
        place.client(interface="web") as web,
        place.client(interface="mail") as mail,
        running(place.worker(bot)),
    ):
        await web.ask("topology is there", "ctx")
        async with web.replies() as to_web, mail.replies() as to_mail, web.replies(interface="chat") as to_chat:
            from_web, from_mail = await web.send("1", "a.b"), await mail.send("2", "c")
            from_chat = await web.send(Message("3", origin=Origin(interface="chat")), "d")
            heard = await take(to_web, 1), await take(to_mail, 1), await take(to_chat, 1)
    assert heard == ([from_web], [from_mail], [from_chat])


class Callback(CallbackMessengerInterface):
    """A web route, say."""


class Poll(PollingMessengerInterface):
    """A messenger that has each user's messages ready, and keeps what the bot says to them."""

    def __init__(self, updates: list[tuple[str, str]]) -> None:
        super().__init__()
        self.updates = updates
        self.said: list[tuple[str, str | None]] = []
        self.errors: list[BaseException] = []

    async def _request(self) -> Updates:
        batch, self.updates = self.updates[:3], self.updates[3:]
        return [(Message(text), ctx_id) for text, ctx_id in batch]

    async def _respond(self, responses: list[Context]) -> None:
        self.said += [(ctx.id, ctx.last_response.text if ctx.last_response else None) for ctx in responses]

    def _on_exception(self, e: BaseException) -> None:
        self.errors.append(e)


async def test_the_client_is_the_pipeline_runner_of_a_callback_interface(place: Place) -> None:
    async with place.client() as client, running(place.worker(bot)):
        interface = Callback()
        await interface.connect(client)
        contexts = [await interface.on_request_async(Message(text), 7, {"by": "me"}) for text in ("hello", "nothing")]
        alone = await interface.on_request_async(Message("without an id"))
        with pytest.raises(RequestFailed) as failed:
            await interface.on_request_async(Message("fail"), 7)
    assert [(ctx.id, ctx.current_turn_id, ctx.last_request.text) for ctx in contexts] == [
        ("7", 1, "hello"),
        ("7", 2, "nothing"),
    ]
    assert [ctx.last_response for ctx in contexts] == [Message("7: hello"), None]
    assert contexts[1].misc == {"by": "me", "turns": 2}
    assert alone.id
    assert alone.current_turn_id == 1
    assert (failed.value.code, failed.value.detail) == ("handler-failed", "the bot failed")


async def test_the_client_is_the_pipeline_runner_of_a_polling_interface(place: Place) -> None:
    updates = [("1", "a"), ("1", "b"), ("fail", "a"), ("2", "a"), ("2", "b")]
    async with place.client() as client, running(place.worker(bot)):
        interface = Poll(updates)
        await interface.connect(client, loop=lambda: bool(interface.updates))
    assert interface.said == [("a", "a: 1"), ("b", "b: 1"), ("a", "a: 2"), ("b", "b: 2")]
    assert [type(error) for error in interface.errors] == [RequestFailed]


async def test_asks_outlive_their_connections(amqp_url: str, topology: Topology) -> None:
    contexts = [f"context {n}" for n in range(20)]
    notebook = Notebook(pace=0.01)
    worker = Worker(notebook, worker_settings(topology.namespace, concurrency=8), broker=open_broker(amqp_url))
    async with linked(amqp_url) as links, running(worker):
        client = BrokerClient(namespace=topology.namespace, broker=links.broker, timeout=60)
        async with client:

            async def dialog(ctx_id: str) -> list[int]:
                return [(await client.ask(str(n), ctx_id)).turn for n in range(15)]

            dialogs = [asyncio.create_task(dialog(ctx_id)) for ctx_id in contexts]
            for cuts, which in enumerate(["consuming", "publishing", "both"] * 2, start=1):
                await until(lambda cuts=cuts: len(notebook.runs) > cuts * 20, "asks are answered")  # type: ignore[misc]  # mypy cannot type a lambda's default
                before = [proxy.accepted for proxy in links.named(which)]
                for proxy in links.named(which):
                    await proxy.cut()
                for proxy, count in zip(links.named(which), before, strict=True):
                    await until(lambda proxy=proxy, count=count: proxy.accepted > count, "connected again")  # type: ignore[misc]  # as above
            assert await asyncio.gather(*dialogs) == [list(range(1, 16))] * len(contexts)
    assert set(notebook.runs.values()) == {1}


async def test_requests_of_one_context_keep_their_order_when_the_link_is_cut_among_them(
    amqp_url: str, topology: Topology
) -> None:
    texts = [str(n) for n in range(400)]
    async with linked(amqp_url) as links, opened(amqp_url) as broker:
        async with BrokerClient(namespace=topology.namespace, broker=links.broker, timeout=60) as client:
            sends = [asyncio.create_task(client.send(text, "ctx", request_id=text)) for text in texts]
            for done in (50, 150, 250, 350):
                await until(lambda done=done: sends[done].done(), "requests are confirmed")  # type: ignore[misc]  # as above
                before = links.publishing.accepted
                await links.publishing.cut()
                await until(lambda before=before: links.publishing.accepted > before, "connected again")  # type: ignore[misc]  # as above
            assert await asyncio.gather(*sends) == texts
        inbox = Inbox()
        await broker.consume(topology.queue_of(slot("ctx")), 1000, inbox)
        await inbox.wait_for(len(texts))
        await until(lambda: inbox.deliveries[-1].properties.message_id == texts[-1], "the last one came")
    # A request whose confirm was lost is there twice, one right behind the other.
    assert [request_id for request_id, _ in groupby(d.properties.message_id for d in inbox.deliveries)] == texts


async def test_a_confirmed_request_is_never_lost_and_an_unconfirmed_one_is_told(
    amqp_url: str, topology: Topology
) -> None:
    sent = rounds((f"context {n}" for n in range(10)), range(30))
    worker = Worker(Notebook(), worker_settings(topology.namespace), broker=open_broker(amqp_url))
    async with linked(amqp_url) as links, BrokerClient(namespace=topology.namespace, broker=links.broker) as client:
        sending = asyncio.create_task(send_all(client, sent))
        await until(lambda: links.publishing.sent > 30_000, "requests travel")
        assert not sending.done()
        await links.publishing.cut()
        await sending
        await links.publishing.close()
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=r"'context 0' was not confirmed within 1 s: .*connect"):
            await client.send("cut off", "context 0", timeout=1)
        with pytest.raises(BrokerUnavailable, match=r"'context 1' was not confirmed within 1 s: .*connect"):
            await client.ask("cut off", "context 1", timeout=1)
        assert time.monotonic() - began < 5
        await links.publishing.start()
        async with running(worker):
            for ctx_id in sent:
                assert (await client.ask("the last", ctx_id)).turn == 31


async def test_no_caller_waits_longer_than_its_time_on_a_link_that_stalls(amqp_url: str, topology: Topology) -> None:
    async with linked(amqp_url) as links, BrokerClient(namespace=topology.namespace, broker=links.broker) as client:
        await client.send("before", "ctx")
        for proxy in links.named("both"):
            proxy.pause()
        began = time.monotonic()
        outcomes = await asyncio.gather(
            client.send("stalled", "ctx", timeout=0.5),
            client.send("behind it", "ctx", timeout=0.5),
            client.ask("stalled too", "other", timeout=0.5),
            return_exceptions=True,
        )
        assert time.monotonic() - began < 3
        assert [type(outcome) for outcome in outcomes] == [BrokerUnavailable] * 3
        for proxy in links.named("both"):
            proxy.resume()
        await client.send("after", "ctx")
