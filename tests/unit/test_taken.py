"""What is taken and not settled: in order by context, undecoded behind a first, counted in bytes, and let go of."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from interfaces.brokers import Channel, Delivery
from interfaces.envelope import Request, decode_request, encode_request
from interfaces.errors import MisuseError
from interfaces.messages import Message
from interfaces.taken import OVERHEAD, Held, Taken
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

    def deliver(self, ctx_id: str, request_id: str, text: str = "", channel: Channel | None = None) -> Held:
        sent = encode_request(TOPOLOGY, Message(text), ctx_id, request_id=request_id)
        come = delivery(sent.body, message_id=request_id)
        come = replace(come, routing_key=sent.routing_key, channel=channel or self.channel)
        held = self.taken.take(come)
        self.taken.line_up(held, self.decode(come))
        return held


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    assert (bench.taken.bytes, len(bench.taken)) == (0, 0)


def test_requests_of_a_context_are_in_turn_one_after_the_other_and_only_the_first_is_kept_decoded(bench: Bench) -> None:
    held = [bench.deliver("a", f"a{number}") for number in range(3)]
    assert [one.request is None for one in held] == [False, True, True]
    bench.decoded.clear()
    for number, one in enumerate(held):
        assert bench.taken.start("a") is one
        assert bench.taken.current("a").request_id == f"a{number}"
        bench.taken.end("a", one)
        bench.taken.end("a", one)
    assert bench.decoded == ["a1", "a2"]


def test_a_context_in_no_turn_has_no_request(bench: Bench) -> None:
    with pytest.raises(MisuseError, match="'a' is in no turn"):
        bench.taken.current("a")
    first, second = bench.deliver("a", "a1"), bench.deliver("a", "a2")
    bench.taken.end("a", first)
    with pytest.raises(MisuseError, match="in no turn"):
        bench.taken.current("a")  # Its second request has not begun.
    bench.taken.end("a", second)


def test_bodies_and_headers_count_until_they_are_settled(bench: Bench) -> None:
    plain, rich = bench.taken.take(delivery(b"x" * 100)), bench.taken.take(delivery(b"", headers={"k": "v" * 1000}))
    assert plain.size == OVERHEAD + 100
    assert 1000 < rich.size - OVERHEAD < 1100
    assert bench.taken.bytes == plain.size + rich.size
    for held in (plain, plain, rich):
        bench.taken.settled(held)


def test_at_the_bound_nothing_is_too_much_and_one_byte_above_it_is() -> None:
    bench = Bench(max_bytes=2 * OVERHEAD + 10)
    for body, is_over in ((b"x" * 10, False), (b"", False), (b"x", True)):
        bench.taken.take(delivery(body))
        assert bench.taken.is_over is is_over


def test_what_is_let_go_of_is_the_most_of_one_channel_and_what_runs_stays(bench: Bench) -> None:
    heavy, light, busy = StubChannel(), StubChannel(), StubChannel()
    of_heavy = [bench.deliver("h", f"h{number}", "x" * 10_000, heavy) for number in range(4)]
    of_light = [bench.deliver("l", f"l{number}", channel=light) for number in range(6)]
    alone = bench.deliver("b", "b0", "x" * 100_000, busy)
    assert bench.taken.heaviest(lambda _: True) is heavy  # Not the one with a single delivery, however large.
    assert bench.taken.heaviest(lambda channel: channel is not heavy) is light
    bench.taken.start("h")
    before = bench.taken.bytes
    bench.taken.let_go_of(heavy, 3)
    assert before - bench.taken.bytes == 3 * of_heavy[0].size
    assert [one.delivery is None for one in of_heavy] == [False, True, True, True]
    assert bench.taken.current("h").request_id == "h0"
    for one in of_heavy:
        assert bench.taken.start("h") is one
        assert (one.request is None) is (one is not of_heavy[0])
        bench.taken.end("h", one)
    for ctx_id, one in (*(("l", one) for one in of_light), ("b", alone)):
        bench.taken.end(ctx_id, one)


@pytest.mark.parametrize(
    ("max_bytes", "channels", "prefetch"),
    [(40 * (OVERHEAD + 1000), 4, 8), (10**9, 4, 8), (12 * (OVERHEAD + 1000), 4, 3), (10, 4, 1)],
    ids=["half as many", "half as many where more would fit", "what fits a share", "one at least"],
)
def test_a_queue_is_taken_up_again_with_what_fits_its_share(max_bytes: int, channels: int, prefetch: int) -> None:
    bench = Bench(max_bytes)
    for _ in range(16):
        bench.taken.take(replace(delivery(b"x" * 1000), channel=bench.channel))
    assert bench.taken.let_go_of(bench.channel, channels) == prefetch
    assert bench.taken.bytes == 0
