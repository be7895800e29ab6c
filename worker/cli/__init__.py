"""The command `switchboard`. Each subcommand is a module of its own, imported when it is run or its help is asked for.

Nothing but click may be imported here: `switchboard --help` and shell completion must answer at once.
"""

import importlib
from collections.abc import Mapping
from typing import Final

import click

SUBCOMMANDS: Final[Mapping[str, str]] = {
    "run": "Run a bot: take requests, run turns, publish replies.",
    "edge": "Put a messenger interface in front of the broker.",
    "chat": "Talk to a bot in the terminal.",
    "send": "Send one message to a bot and print its reply.",
    "topology": "Declare or show exchanges and queues, change the number of shards.",
    "dead": "List, show, replay, drop, export and import dead letters.",
    "context": "Show, export or delete what is kept of a dialog, take dialogs over from Chatsky.",
    "status": "Show workers, shards and dead letters of a namespace.",
    "doctor": "Check both servers and say how to mend what is wrong.",
    "health": "Say whether a worker is live, by the file that it touches.",
    "schema": "Print the JSON Schemas of requests and replies.",
}
"""Name, which is also the module's, and the first line of its help."""

EPILOG: Final = """\b
Examples:
  switchboard chat --app examples.pizza:bot
  switchboard run bot:handler --amqp-url amqp://rabbitmq --redis-url redis://redis
  switchboard send ada "Hello"
  switchboard doctor

\b
Exit codes:
  0 done                           5 Redis refuses what is needed
  1 failed                         6 connected, yet no consumer: restart
  2 wrong usage or settings        7 stopped with turns still running
  3 the bot cannot be loaded       8 no reply in time
  4 RabbitMQ refuses what is needed  9 the bot is stuck: restart
"""


class _Subcommands(click.Group):
    """A group that knows its members' names and helps, and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        command: click.Command = importlib.import_module(f"worker.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUBCOMMANDS.items()))


@click.command(cls=_Subcommands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def switchboard() -> None:
    """Run dialog bots behind RabbitMQ, their contexts in Redis.

    Every setting is a flag of the commands it matters to, and an environment variable SWITCHBOARD_*. Without any,
    both servers are embedded (memory://): one process, nothing kept.
    """


def main() -> None:
    """Entry point of the command."""
    switchboard(prog_name="switchboard")
