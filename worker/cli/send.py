"""`switchboard send`: one message to a bot, and its reply."""

import asyncio
import sys

import click

from interfaces.client import BrokerClient
from interfaces.errors import ExitCode
from interfaces.reply_bodies import Reply
from worker.cli.commands import BROKER_FIELDS, KEY_FIELDS, TRACE_FIELDS, Command, examples, with_settings
from worker.cli.output import json_option, print_json, print_line, said
from worker.cli.servers import refuse_memory
from worker.settings import Settings
from worker.tracing import tracing_of

INTERFACE = "send"
"""Name of this source of messages, in their origin."""


@click.command(
    "send",
    cls=Command,
    epilog=examples(
        'switchboard send ada "Hello"',
        "switchboard send ada - < message.txt",
        'switchboard send ada "Hello" --id order-4711      # repeated, it is still one turn',
        'switchboard send ada "Hello" --json | jq -r .message.text',
        'switchboard send ada "Hello" --no-wait             # prints the request id',
    ),
)
@click.argument("ctx_id")
@click.argument("text")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the reply and print it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait. Without a reply in time the exit code is 8.",
)
@click.option("--id", "request_id", metavar="TEXT", help="Id of the request; a new one where not given.")
@json_option
@with_settings(*BROKER_FIELDS, *KEY_FIELDS, *TRACE_FIELDS)
def command(
    ctx_id: str, text: str, wait: bool, timeout: float, request_id: str | None, as_json: bool, settings: Settings
) -> None:
    """Send one message to a bot and print its reply.

    CTX_ID names the dialog; TEXT is the message, or - to read it from standard input.
    """
    refuse_memory(settings.amqp_url, "amqp_url", ", or talk to an embedded bot with `switchboard chat --app`")
    if text == "-":
        text = sys.stdin.read().removesuffix("\n")
    with tracing_of(settings, "switchboard-send") as tracing:
        client = BrokerClient(
            settings.amqp_url.get_secret_value(),
            namespace=settings.namespace,
            interface=INTERFACE,
            timeout=timeout,
            keys=settings.keys,
            tracing=tracing,
        )
        if wait:
            _show(asyncio.run(_ask(client, ctx_id, text, request_id)), as_json)
            return
        request_id = asyncio.run(_send(client, ctx_id, text, request_id))
    if as_json:
        print_json({"request_id": request_id})
    else:
        print_line(request_id)


async def _ask(client: BrokerClient, ctx_id: str, text: str, request_id: str | None) -> Reply:
    try:
        await client.open()
        return await client.ask(text, ctx_id, request_id=request_id)
    finally:
        await client.close()


async def _send(client: BrokerClient, ctx_id: str, text: str, request_id: str | None) -> str:
    try:
        await client.open()
        return await client.send(text, ctx_id, request_id=request_id)
    finally:
        await client.close()


def _show(reply: Reply, as_json: bool) -> None:
    if as_json:
        print_json(reply)
    elif reply.error is None:
        print_line(said(reply.message))
    else:
        print_line(("Error: ", "red"), f"{reply.error.code}: {reply.error.detail}", err=True)
    if reply.error is not None:
        raise click.exceptions.Exit(ExitCode.FAILED)
