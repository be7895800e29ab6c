"""`make demo`: a worker, three users and you, all in this process; nothing to install, nothing kept.

The broker and the store are the embedded ones (`memory://`); the code above them is what runs on RabbitMQ and Redis.
"""

import asyncio
import sys
from itertools import zip_longest

from rich.console import Console
from rich.table import Table

from examples.pizza import bot
from interfaces import BrokerClient, CLIMessengerInterface, Reply
from worker import Settings, Worker

DIALOGS = {
    "ada": ["Hello", "large", "mushrooms", "yes please", "one more", "small", "olives", "no, wait", "capers", "yes"],
    "grace": ["Hi!", "gigantic", "medium", "extra cheese", "yes"],
    "alan": ["Good evening", "small", "apples", "no", "pears", "yes"],
}


async def speak(client: BrokerClient, user: str) -> list[Reply]:
    """One user's dialog, each message sent when the reply to the one before is there."""
    return [await client.ask(text, user) for text in DIALOGS[user]]


def show(console: Console, replies: dict[str, list[Reply]]) -> None:
    """The dialogs side by side, as they ran."""
    table = Table(title="Three dialogs, one worker, at the same time", show_lines=True, expand=True)
    for user in replies:
        table.add_column(user, ratio=1)
    columns = [
        [
            f"[bold]{said}[/]\n[green]{reply.message.text if reply.message else ''}[/]"
            for said, reply in zip(DIALOGS[user], answered, strict=True)
        ]
        for user, answered in replies.items()
    ]
    for row in zip_longest(*columns, fillvalue=""):
        table.add_row(*row)
    console.print(table)


async def say_it_three_times(client: BrokerClient, console: Console) -> None:
    """Publish one request three times under one id, as a publisher does that got no confirm."""
    replies = [await client.ask("Hello?", "edsger", request_id="order-4711") for _ in range(3)]
    turns = {reply.turn for reply in replies}
    console.print(
        f"\nThe same message published three times: {len(replies)} replies, all alike, "
        f"and [bold]{len(turns)} turn[/] in the dialog.\n"
    )


async def main() -> None:
    """Start the worker, let the users speak, then let whoever is at the terminal."""
    console = Console()
    worker = Worker(bot, Settings(amqp_url="memory://demo", redis_url="memory://"))
    working = asyncio.create_task(worker.run())
    await worker.wait_ready()
    try:
        async with BrokerClient("memory://demo") as client:
            answered = await asyncio.gather(*(speak(client, user) for user in DIALOGS))
            show(console, dict(zip(DIALOGS, answered, strict=True)))
            await say_it_three_times(client, console)
            if sys.stdin.isatty():
                intro = "Your turn: order a pizza. Ctrl-D ends."
                await CLIMessengerInterface(intro, "you> ", "bot> ").connect(client)
    finally:
        worker.stop()
        await working


if __name__ == "__main__":
    asyncio.run(main())
