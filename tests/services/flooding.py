"""Sends requests of one context as fast as the broker confirms them, from a process of its own.

Run as `python -m tests.services.flooding URL NAMESPACE CTX_ID COUNT`; it writes "sending" when it begins, and "sent"
when the broker has them all.
"""

import asyncio
import sys

from interfaces.client import BrokerClient

AT_A_TIME = 100


async def main(url: str, namespace: str, ctx_id: str, count: int) -> None:
    """Send requests whose texts are their numbers."""
    async with BrokerClient(url, namespace=namespace) as client:
        say("sending")
        for start in range(0, count, AT_A_TIME):
            numbers = range(start, min(start + AT_A_TIME, count))
            await asyncio.gather(*(client.send(str(number), ctx_id) for number in numbers))
        say("sent")


def say(word: str) -> None:
    """Tell whoever has started this process."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
