"""`switchboard edge`: a messenger interface in front of the broker, from its start to its exit code.

Where something is left running that nobody can stop, a thread that waits for a user's input for example, the process
ends without it.
"""

import asyncio
import inspect
import logging
import tempfile
from pathlib import Path
from typing import Any

import click

from interfaces.attachment_requests import AttachmentRequests
from interfaces.brokers.opening import open_broker
from interfaces.client import BrokerClient
from interfaces.edge import Edge, edge_name, giver_of
from interfaces.errors import AppInvalid, ExitCode, SwitchboardError
from interfaces.nested_loops import nested_loops_prevented
from interfaces.topology import Topology
from worker.apps import load_object
from worker.attachments import open_transfer
from worker.cli.commands import (
    ATTACHMENT_FIELDS,
    BROKER_FIELDS,
    KEY_FIELDS,
    LOG_FIELDS,
    Command,
    examples,
    exit_code,
    tell,
    with_settings,
)
from worker.cli.ending import end_on_signals, leave, until_ended
from worker.cli.logs import LEVELS, log_to_stderr
from worker.cli.servers import refuse_memory
from worker.running import patiently
from worker.settings import Settings

logger = logging.getLogger(__name__)


@click.command(
    "edge",
    cls=Command,
    epilog=examples(
        "switchboard edge my_bot.telegram:interface --amqp-url amqp://rabbitmq",
        "switchboard edge my_bot.telegram:interface --name support    # how bots see where it comes from",
        "switchboard edge chatsky.messengers.console:CLIMessengerInterface",
    ),
)
@click.argument("interface")
@click.option("--name", metavar="TEXT", help="Name of this source of messages; the interface's own id where not given.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for the reply to a message.",
)
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged.")
@with_settings(*BROKER_FIELDS, *KEY_FIELDS, "drain_timeout", *ATTACHMENT_FIELDS, *LOG_FIELDS)
def command(interface: str, name: str | None, timeout: float, log_level: str, settings: Settings) -> None:
    """Put a messenger interface in front of the broker.

    INTERFACE is module:attribute, looked for in the current directory first: an instance of any interface written on
    the API of this library or of Chatsky, or a class or function without parameters that gives one.

    SIGTERM or Ctrl-C stops it: nothing more is taken from users, and what was taken gets the drain timeout to be
    answered, exit code 0. A second one, or the timeout, ends it at once; where messages were not answered, the exit
    code is 7. It also ends with the end of the interface's input.
    """
    log_to_stderr(log_level, settings)
    # It logs the URL of every request, and Telegram's have the bot's token in them.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    refuse_memory(settings.amqp_url, "amqp_url", ", or talk to an embedded bot with `switchboard chat --app`")
    until_ended(_supervise(load_interface(interface), name, timeout, settings))


def load_interface(path: str) -> Any:
    """The interface that `module:attribute` is, or gives when it is called. Raises `AppInvalid`."""
    value = load_object(path)
    if inspect.isclass(value) or not hasattr(value, "connect"):
        if not callable(value):
            raise AppInvalid(f"{path!r} is neither a messenger interface nor a class or function that gives one")
        try:
            with nested_loops_prevented():
                value = value()
        except Exception as error:
            raise AppInvalid(f"calling {path!r} without parameters failed: {type(error).__name__}: {error}") from error
    return value


async def _supervise(interface: Any, name: str | None, timeout: float, settings: Settings) -> None:
    """Run the edge until it ends or is told to. Ends the process itself where something may be left running."""
    broker = open_broker(settings.amqp_url.get_secret_value(), publish_timeout=settings.publish_timeout)
    client = BrokerClient(namespace=settings.namespace, broker=broker, timeout=timeout, keys=settings.keys)
    transfer = open_transfer(_with_directory_of(interface, settings))
    name, topology = edge_name(interface, name), Topology(namespace=settings.namespace)
    give = giver_of(interface, transfer)
    requests = None if give is None else AttachmentRequests(broker, topology, name, give)
    edge = Edge(interface, client, transfer, name=name, requests=requests, drain_timeout=settings.drain_timeout)
    working = asyncio.create_task(_work(edge, client), name="edge")
    ending = end_on_signals(edge.stop, working, settings.drain_timeout, "messages that were taken")
    overdue = asyncio.create_task(ending.wait(), name="await the end")
    await asyncio.wait({working, overdue}, return_when=asyncio.FIRST_COMPLETED)
    overdue.cancel()
    if not working.done():
        logger.error("the edge does not come to an end; ended by force")
        leave(ExitCode.UNFINISHED)
    error = None if working.cancelled() else working.exception()
    if error is not None:
        leave(_told(error))
    if edge.was_cut_short:
        logger.error("cut short with %d messages asked for and not answered", edge.unanswered)
        leave(ExitCode.UNFINISHED)
    logger.info("edge stopped")
    if edge.is_stopping:
        leave(ExitCode.OK)


def _with_directory_of(interface: Any, settings: Settings) -> Settings:
    """Keep attachments where the interface does, unless it was said where, or that is everybody's directory."""
    own = getattr(interface, "attachments_directory", None)
    if "attachments_directory" in settings.model_fields_set or own in (None, Path(tempfile.gettempdir())):
        return settings
    return settings.model_copy(update={"attachments_directory": Path(own)})


async def _work(edge: Edge, client: BrokerClient) -> None:
    opening = asyncio.create_task(patiently("RabbitMQ", client.open), name="open RabbitMQ")
    stopped = asyncio.create_task(edge.wait_stopping(), name="await the stop")
    try:
        await asyncio.wait({opening, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            await edge.run()
    finally:
        opening.cancel()
        stopped.cancel()
        await client.close()


def _told(error: BaseException) -> ExitCode:
    if isinstance(error, SwitchboardError):
        tell(error)
        return exit_code(error)
    logger.error("the edge failed", exc_info=error)
    return ExitCode.FAILED
