"""For authors of bots: their bot on the embedded broker and store, within a test, spoken to as a user speaks.

    async def test_greets(run_bot):
        async with run_bot(bot) as running:
            reply = await running.user("ada").say("hi")
            assert reply.text == "Hello, Ada!"

What runs is the product itself, a `Worker` on both memory implementations, wrapped at its two seams so that a test can
let the process die between any two steps of a turn. The fixture is in `worker.pytest_plugin`; `run_bot` does without.
"""

from worker.testing.crashes import STEPS, Crash, CrashMissed, Step
from worker.testing.running import BotReply, Running, User, run_bot

__all__ = ["STEPS", "BotReply", "Crash", "CrashMissed", "Running", "Step", "User", "run_bot"]
