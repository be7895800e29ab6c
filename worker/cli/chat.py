"""`switchboard chat`: the terminal's messenger interface in front of a bot, over the broker or in the same process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import click

from interfaces.cli import CLIMessengerInterface
from interfaces.client import BrokerClient
from interfaces.context import Context
from interfaces.envelope import context_id
from interfaces.errors import AskTimeout, Fatal, RequestFailed, SettingsInvalid, SwitchboardError
from interfaces.messengers import Updates
from worker.cli.commands import BROKER_FIELDS, KEY_FIELDS, Command, examples, with_settings
from worker.cli.logs import log_to_stderr
from worker.cli.output import print_line, said
from worker.cli.servers import is_memory, shown
from worker.running import Worker
from worker.settings import Settings

INTERFACE = "chat"
"""Name of this source of messages, in their origin."""

FIELDS = (*BROKER_FIELDS, *KEY_FIELDS, "redis_url", "shards", "history", "attempts")


@click.command(
    "chat",
    cls=Command,
    epilog=examples(
        "switchboard chat --app examples.pizza:bot        # the bot runs in this process, nothing is kept",
        "switchboard chat --amqp-url amqp://rabbitmq      # with bots that run elsewhere",
        "switchboard chat --ctx ada                       # go on with a dialog",
    ),
)
@click.option("--app", metavar="APP", help="Run this bot (module:attribute) here, in this process.")
@click.option("--ctx", "ctx_id", metavar="ID", help="Id of the dialog; a new one where not given.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    help="Seconds to wait for a reply.",
)
@with_settings(*FIELDS)
def command(app: str | None, ctx_id: str | None, timeout: float, settings: Settings) -> None:
    """Talk to a bot in the terminal.

    Each line is a message; Ctrl-D ends. With --app and a broker that is not memory://, the bot here also takes the
    requests of others in the namespace.
    """
    if app is None and is_memory(settings.amqp_url):
        raise SettingsInvalid(
            "no bot to talk to: name one with --app, or set SWITCHBOARD_AMQP_URL to the broker that its workers use"
        )
    log_to_stderr("warning", settings)
    asyncio.run(_chat(app, context_id(ctx_id or uuid4()), timeout, settings))


async def _chat(app: str | None, ctx_id: str, timeout: float, settings: Settings) -> None:
    client = BrokerClient(
        settings.amqp_url.get_secret_value(),
        namespace=settings.namespace,
        interface=INTERFACE,
        timeout=timeout,
        keys=settings.keys,
    )
    async with _worker_of(app, settings), client:
        bot = app or f"namespace {settings.namespace!r} at {shown(settings.amqp_url)}"
        print_line((f"Talking to {bot}, dialog {ctx_id}. Ctrl-D ends.", "dim"))
        await _Terminal(ctx_id).connect(client)
        print_line()


@asynccontextmanager
async def _worker_of(app: str | None, settings: Settings) -> AsyncIterator[None]:
    """A worker in this process for as long as the chat goes on, where `app` is given."""
    if app is None:
        yield
        return
    if settings.is_embedded:
        # Nobody else waits for what it does, and nothing of it is kept.
        settings = settings.model_copy(update={"drain_timeout": 0.0})
    worker = Worker(app, settings)
    working = asyncio.create_task(worker.run(), name="worker")
    ready = asyncio.create_task(worker.wait_ready(), name="await ready")
    try:
        await asyncio.wait({working, ready}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        yield
    finally:
        ready.cancel()
        worker.stop()
        await asyncio.wait({working})
        if not working.cancelled():
            working.result()


class _Terminal(CLIMessengerInterface):
    """A chat about one dialog. What goes wrong with one message is shown, and the chat goes on."""

    def __init__(self, ctx_id: str) -> None:
        super().__init__(prompt_request="you> ", prompt_response="bot> ")
        self._dialog = ctx_id

    async def _request(self) -> Updates:
        return [(message, self._dialog) for message, _ in await super()._request() if message.text]

    async def _respond(self, responses: list[Context]) -> None:
        for context in responses:
            print_line(("bot> ", "green"), said(context.last_response))

    def _on_exception(self, e: BaseException) -> None:
        if isinstance(e, RequestFailed):
            print_line((f"bot failed> {e.code}: {e.detail}", "red"), err=True)
        elif isinstance(e, AskTimeout):
            print_line((f"no reply> {e}", "yellow"), err=True)
        elif isinstance(e, SwitchboardError) and not isinstance(e, Fatal):
            print_line((f"not sent> {e}", "red"), err=True)
        else:
            super()._on_exception(e)
