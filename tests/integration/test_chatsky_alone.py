"""`Pipeline(messenger_interface=RabbitMQMessengerInterface(...)).run()`: a plain Chatsky program behind the broker."""

import asyncio
import os
import signal

from interfaces.client import BrokerClient
from interfaces.messages import Image, Message
from tests.services.processes import WorkerProcess

ARGUMENTS = ["-m", "tests.bots.chatsky_alone"]


async def test_a_chatsky_program_takes_its_messages_from_the_broker(
    client: BrokerClient, worker_settings: dict[str, str], processes: list[WorkerProcess]
) -> None:
    process = await WorkerProcess.start(ARGUMENTS, worker_settings)
    processes.append(process)
    replies = await asyncio.gather(*(client.ask(f"hello {n}", "ada") for n in range(1, 6)))
    assert [reply.message for reply in replies] == [Message(f"message {n}: hello {n}") for n in range(1, 6)]
    assert [reply.turn for reply in replies] == [1, 2, 3, 4, 5]
    with_attachment = await client.ask(Message("look", attachments=[Image(id="file")]), "bob")
    assert with_attachment.misc == {"turns": 1}
    os.kill(process.pid, signal.SIGINT)
    assert await process.ended() == -signal.SIGINT
    assert process.log.rstrip().endswith("KeyboardInterrupt"), process.log
    assert "ERROR" not in process.log, process.log
