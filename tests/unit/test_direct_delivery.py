"""Frames of messages on their way to a consumer past the client library's queue, and all others into it."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from interfaces.brokers import Properties
from interfaces.brokers.direct_delivery import deliver_directly
from interfaces.brokers.quick_reading import AT_A_TIME, CONSUMER, Messages
from interfaces.brokers.whole_messages import Parts


class Bench:
    """A channel with a queue of frames, and what was delivered of it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self.channel = cast("Any", SimpleNamespace(frames=self.queue))
        self.delivered: list[Parts] = []
        assert deliver_directly(self.channel, self.delivered.append)

    async def put(self, *frames: Any) -> None:
        for frame in frames:
            await self.channel.frames.put((0, frame))

    async def queued(self) -> list[Any]:
        frames = []
        while not self.queue.empty():
            frames.append((await self.channel.frames.get())[1])
            self.channel.frames.task_done()
        return frames


def bodies(bench: Bench) -> list[bytes]:
    return [parts[0] for parts in bench.delivered]


def whole(body: bytes, tag: int = 1) -> Parts:
    return body, Properties(message_id=str(tag)), "", "", False, 0, tag


def message(*parts: bytes, tag: int = 1, consumer: str = CONSUMER) -> list[Any]:
    header = ContentHeader(0, sum(map(len, parts)), commands.Basic.Properties(message_id=str(tag)))
    return [commands.Basic.Deliver(consumer, tag), header, *map(ContentBody, parts)]


@pytest.mark.parametrize("parts", [[], [b"one"], [b"a part", b" and", b" another"]], ids=len)
async def test_a_message_is_delivered_with_its_last_frame_and_not_before(parts: list[bytes]) -> None:
    bench = Bench()
    *frames, last = message(*parts, tag=7)
    await bench.put(*frames)
    assert bench.delivered == []
    await bench.put(last)
    assert bench.delivered == [whole(b"".join(parts), tag=7)]
    assert await bench.queued() == []


async def test_whole_messages_are_delivered_in_their_place() -> None:
    bench = Bench()
    await bench.put(*message(b"1"), Messages([whole(b"2"), whole(b"3")]), *message(b"4"))
    assert bodies(bench) == [b"1", b"2", b"3", b"4"]
    assert await bench.queued() == []


async def test_everything_else_goes_the_librarys_way_in_order() -> None:
    bench = Bench()
    before, others, after = commands.Basic.Ack(1), message(b"x", consumer="lock"), commands.Channel.Close()
    await bench.put(before, *others, *message(b"y"), after)
    assert await bench.queued() == [before, *others, after]
    assert bodies(bench) == [b"y"]


@pytest.mark.parametrize("good", [1, 2, 3], ids=["no header", "no body", "not the rest of the body"])
async def test_frames_that_do_not_follow_each_other_are_the_librarys_to_refuse(good: int) -> None:
    bench = Bench()
    frames, wrong = message(b"part", b"rest")[:good], commands.Basic.Ack(1)
    await bench.put(*frames, wrong)
    assert await bench.queued() == [*frames, wrong]
    await bench.put(*message(b"next"))
    assert bodies(bench) == [b"next"]


@pytest.mark.parametrize("at_once", [1, 8, AT_A_TIME])
async def test_others_have_their_turn_while_many_messages_are_read(at_once: int) -> None:
    bench = Bench()
    seen: list[int] = []

    async def look() -> None:
        while len(bench.delivered) < 3 * AT_A_TIME:
            seen.append(len(bench.delivered))
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    for _ in range(3 * AT_A_TIME // at_once):
        await bench.put(*(message(b"x") if at_once == 1 else [Messages([whole(b"x")] * at_once)]))
    await looking
    assert seen == [0, AT_A_TIME, 2 * AT_A_TIME]


def test_a_channel_without_such_a_queue_is_left_alone() -> None:
    channel: Any = SimpleNamespace(frames=[])
    assert not deliver_directly(channel, print)
    assert channel.frames == []
