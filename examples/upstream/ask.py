"""An upstream service in Python: says each text to one dialog and prints the replies.

python examples/upstream/ask.py ada "Hello" "And again"
"""

import asyncio
import os
import sys

from interfaces import BrokerClient, Message
from interfaces.errors import SwitchboardError

URL = os.environ.get("SWITCHBOARD_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
NAMESPACE = os.environ.get("SWITCHBOARD_NAMESPACE", "switchboard")


async def main(ctx_id: str, texts: list[str]) -> None:
    """Ask one thing after the other. What is lost on the way the client publishes again under the same id."""
    async with BrokerClient(URL, namespace=NAMESPACE, interface="python", timeout=60) as client:
        for text in texts:
            reply = await client.ask(Message(text), ctx_id)
            if reply.error is not None:
                print(f"{reply.error.code}: {reply.error.detail}")
            else:
                print(reply.message.text if reply.message else "")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python ask.py CTX_ID TEXT...")
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2:]))
    except SwitchboardError as error:
        sys.exit(str(error))
