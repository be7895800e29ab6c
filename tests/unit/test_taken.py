"""What is taken and not settled: in order by context, undecoded behind a first, and counted in bytes."""

import gc
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace

import pytest

from interfaces.brokers import Channel, Delivery
from interfaces.envelope import Request, decode_request, encode_request
from interfaces.errors import MisuseError
from interfaces.messages import Message, Origin
from interfaces.taken import MAX_SMALL, OVERHEAD, Held, Taken
from interfaces.topology import Topology
from tests.unit.deliveries import StubChannel, delivery

TOPOLOGY = Topology("ns")


class Bench:
    """`Taken` with its decoder watched."""

    def __init__(self, max_bytes: int = 10**9) -> None:
        self.decoded: list[str] = []
        self.taken = Taken(self.decode, max_bytes)
        self.channel = StubChannel()

    def decode(self, delivery: Delivery) -> Request:
        request = decode_request(delivery, TOPOLOGY)
        self.decoded.append(request.request_id)
        return request

    def deliver(self, ctx_id: str, request_id: str, said: str | Message = "", channel: Channel | None = None) -> Held:
        message = Message(said) if isinstance(said, str) else said
        sent = encode_request(TOPOLOGY, message, ctx_id, request_id=request_id)
        come = delivery(sent.body, message_id=request_id)
        come = replace(come, routing_key=sent.routing_key, channel=channel or self.channel)
        held = self.take(come)
        self.taken.line_up(held, self.decode(come))
        return held

    def take(self, come: Delivery) -> Held:
        held = self.taken.take(come, 1)
        assert held is not None
        return held

    def fits(self, size: int, channels: int) -> bool:
        """Whether one more of this size has room; it is not kept."""
        held = self.taken.take(delivery_on(self.channel, size), channels)
        if held is not None:
            self.taken.settled(held)
        return held is not None


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    assert (bench.taken.bytes, len(bench.taken)) == (0, 0)


@pytest.mark.parametrize(("text", "decoded_again"), [("x" * MAX_SMALL, ["a1", "a2"]), ("", [])], ids=["large", "small"])
def test_requests_of_a_context_take_turns_and_large_ones_are_kept_undecoded(
    bench: Bench, text: str, decoded_again: list[str]
) -> None:
    held = [bench.deliver("a", f"a{number}", text) for number in range(3)]
    bench.decoded.clear()
    for number, one in enumerate(held):
        assert (one.request is None) is (f"a{number}" in decoded_again)
        assert bench.taken.start("a")[0] is one
        assert bench.taken.current("a").request_id == f"a{number}"
        bench.taken.end("a", one)
        bench.taken.end("a", one)
    assert bench.decoded == decoded_again


@pytest.mark.parametrize(
    "message",
    [Message("", misc={"n": [[], []]}), Message("", origin=Origin(interface="x")), Message("", extra=[{}])],
    ids=["misc", "origin", "an unknown field"],
)
def test_what_is_more_than_text_waits_undecoded(bench: Bench, message: Message) -> None:
    """Of an empty list in JSON two bytes become fifty-six: such a body is no bound for what it takes decoded."""
    held = [bench.deliver("a", f"a{number}", message) for number in range(2)]
    assert len(held[1].delivery.body) < MAX_SMALL
    assert held[1].request is None
    for one in held:
        bench.taken.end("a", one)


def test_small_requests_that_wait_decoded_take_no_more_than_is_counted() -> None:
    texts, number = ["é" * (MAX_SMALL // 2 - 60), "x" * (MAX_SMALL - 120), "\N{GRINNING FACE}" * 90], 300
    bench = Bench()
    sent = [encode_request(TOPOLOGY, Message(text), "a", request_id=f"a{n}") for n in range(number) for text in texts]
    gc.collect()
    tracemalloc.start()
    try:
        for n, one in enumerate(sent):
            come = delivery(bytes(bytearray(one.body)), message_id=f"a{n}", correlation_id=f"b{n}", content_type="json")
            come = replace(come, routing_key=one.routing_key, channel=bench.channel)
            held = bench.take(come)
            bench.taken.line_up(held, decode_request(replace(come, properties=one.properties), TOPOLOGY))
            assert held.request is not None
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used < bench.taken.bytes


def test_a_context_in_no_turn_has_no_request(bench: Bench) -> None:
    with pytest.raises(MisuseError, match="'a' is in no turn"):
        bench.taken.current("a")
    first, second = bench.deliver("a", "a1"), bench.deliver("a", "a2")
    bench.taken.end("a", first)
    with pytest.raises(MisuseError, match="in no turn"):
        bench.taken.current("a")  # Its second request has not begun.
    bench.taken.end("a", second)


def test_bodies_and_headers_count_until_they_are_settled(bench: Bench) -> None:
    plain, rich = bench.take(delivery(b"x" * 100)), bench.take(delivery(b"", headers={"k": "v" * 1000}))
    assert plain.size == OVERHEAD + 100
    assert 1000 < rich.size - OVERHEAD < 1100
    assert bench.taken.bytes == plain.size + rich.size
    for held in (plain, plain, rich):
        bench.taken.settled(held)


def test_a_channel_has_room_up_to_its_share_and_not_a_byte_above_it() -> None:
    bench = Bench(max_bytes=4 * (OVERHEAD + 100))
    bench.take(delivery_on(bench.channel, 100))
    assert [bench.fits(size, 2) for size in (99, 100, 101)] == [True, True, False]


def test_all_channels_together_have_room_up_to_the_bound_and_not_a_byte_above_it() -> None:
    """Shares shrink when queues are taken up, and what was held before that is still there."""
    bench = Bench(max_bytes=4 * (OVERHEAD + 100))
    for _ in range(2):
        bench.take(delivery_on(StubChannel(), 100))
    bench.take(delivery_on(bench.channel, 100))
    assert [bench.fits(size, 1) for size in (99, 100, 101)] == [True, True, False]


def test_a_channel_that_holds_nothing_has_room_for_one_of_any_size(bench: Bench) -> None:
    small = Bench(max_bytes=10)
    small.take(delivery_on(StubChannel(), 1000))
    assert small.fits(1000, 1)
    small.take(delivery_on(small.channel, 1000))
    assert not small.fits(0, 1)


def test_what_is_not_started_is_told_from_what_runs(bench: Bench) -> None:
    first, second = bench.deliver("a", "a1"), bench.deliver("a", "a2")
    for held, is_left in ((first, True), (second, False)):
        assert bench.taken.has_unstarted(bench.channel)
        bench.taken.start("a")
        assert bench.taken.has_unstarted(bench.channel) is is_left
        bench.taken.end("a", held)
    assert not bench.taken.has_unstarted(bench.channel)


def delivery_on(channel: Channel, size: int) -> Delivery:
    return replace(delivery(b"x" * size), channel=channel)
