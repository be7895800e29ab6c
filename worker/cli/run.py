"""`switchboard run`: a worker process, from its start to the exit code that tells a supervisor what happened.

The first SIGTERM or SIGINT stops politely, a second one at once. Neither a thread that is stuck in a bot nor a
coroutine that ignores its cancellation may keep the process alive after that: their requests are delivered again.
With `--processes N` it is the supervisor's process instead, and each worker is this command once more, `--supervised`.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

import click

from interfaces.errors import ExitCode, Fatal
from worker.child import prefixed
from worker.cli.blocked_loop import end_where_blocked
from worker.cli.commands import ALL_FIELDS, Command, examples, tell, with_settings
from worker.cli.ending import CLOSING_SECONDS, STOP_SIGNALS, end_on_signals, leave, until_ended
from worker.cli.logs import LEVELS, log_to_stderr, pass_on_json
from worker.cli.servers import is_memory
from worker.collector import relax_collector
from worker.probes import sockets_of, supervisor_probed, worker_probed
from worker.running import Worker
from worker.settings import Settings
from worker.supervisor import Supervisor, end_with_supervisor
from worker.telemetry_settings import LogFormat

logger = logging.getLogger(__name__)

PROBED = ("SWITCHBOARD_HEALTH_ADDRESS", "SWITCHBOARD_HEALTH_FILE")
"""The supervisor's own: it answers for its workers, which answer to it."""


@click.command(
    "run",
    cls=Command,
    epilog=examples(
        "SWITCHBOARD_AMQP_URL=amqp://user:password@rabbitmq SWITCHBOARD_REDIS_URL=redis://redis \\\\",
        "    switchboard run bot:handler",
        "switchboard run examples.pizza:bot --namespace staging --concurrency 32",
        "switchboard run my_bot.script:pipeline --log-level debug",
        "switchboard run bot:handler --processes 4",
    ),
)
@click.argument("app")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="What is logged.")
@click.option("--supervised", is_flag=True, hidden=True, help="Started by a supervisor: end with standard input.")
@click.option("--sockets", type=click.Path(path_type=Path), hidden=True, help="Where to answer the supervisor.")
@with_settings(*ALL_FIELDS)
def command(app: str, log_level: str, supervised: bool, sockets: Path | None, settings: Settings) -> None:
    """Run a bot: take requests, run turns, publish replies.

    APP is module:attribute, looked for in the current directory first: an async or plain function (ctx) -> answer, a
    pipeline runner, or a Chatsky Pipeline.

    SIGTERM or Ctrl-C stops it: running turns get the drain timeout to finish, exit code 0. A second one, or the
    timeout, ends it at once; where turns were running, the exit code is 7 and their requests are delivered again.

    With --processes above 1, a supervisor keeps as many workers running: it passes signals on, starts a worker that
    crashed again, and ends where one ends with a code from 2 to 5.
    """
    fields = log_to_stderr(log_level, settings)
    if supervised:
        end_with_supervisor(settings.drain_timeout + CLOSING_SECONDS)
    elif settings.processes > 1:
        code = until_ended(_keep_running(app, log_level, settings))
        raise click.exceptions.Exit(code)
    _warn_of_memory(settings)
    worker = Worker(app, settings)
    fields.worker = worker.name
    relax_collector()
    with worker_probed(worker, sockets):
        until_ended(_supervise(worker))


async def _keep_running(app: str, log_level: str, settings: Settings) -> int:
    """Run several workers until they end or are told to; the exit code."""
    # As this process was started itself, up to its arguments: by `-m worker.cli`, a worker would find a folder `worker`
    # of the bot instead. Settings go by the environment, for there may be passwords in them.
    start = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    with sockets_of(settings) as sockets:
        answering = [] if sockets is None else ["--sockets", str(sockets)]
        supervisor = Supervisor(
            [sys.executable, *start, "run", "--log-level", log_level, "--supervised", *answering, "--", app],
            {name: value for name, value in {**os.environ, **settings.environment}.items() if name not in PROBED},
            processes=settings.processes,
            polite_seconds=settings.drain_timeout + CLOSING_SECONDS,
            abrupt_seconds=CLOSING_SECONDS,
            pass_on=pass_on_json if settings.log_format is LogFormat.JSON else prefixed,
        )
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, supervisor.on_signal, number)
        with supervisor_probed(supervisor, settings, sockets):
            return await supervisor.run()


def _warn_of_memory(settings: Settings) -> None:
    if is_memory(settings.amqp_url):
        logger.warning(
            "SWITCHBOARD_AMQP_URL is memory://: nobody outside this process can talk to the bot. "
            "To try it, use `switchboard chat --app`"
        )
    elif is_memory(settings.redis_url):
        logger.warning(
            "SWITCHBOARD_REDIS_URL is memory://: contexts end with this process, and no other worker sees them"
        )


async def _supervise(worker: Worker) -> None:
    """Run `worker` until it ends or is told to. Ends the process itself where something of the bot is left running."""
    end_where_blocked(worker.settings.turn_timeout)
    working = asyncio.create_task(worker.run(), name="worker")
    ending = end_on_signals(worker.stop, working, worker.settings.drain_timeout, "running turns")
    overdue = asyncio.create_task(ending.wait(), name="await the end")
    await asyncio.wait({working, overdue}, return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        logger.error("the worker does not come to an end; ended by force, its requests are delivered again")
        leave(ExitCode.UNFINISHED)
    overdue.cancel()
    error = None if working.cancelled() else working.exception()
    if error is not None and not worker.unfinished and not worker.left_behind:
        raise error
    if isinstance(error, Fatal):
        tell(error)
        leave(error.exit_code)
    if error is not None:
        logger.error("the worker failed", exc_info=error)
        leave(ExitCode.FAILED)
    if worker.unfinished:
        logger.error("stopped with %d dialogs in a turn: their requests are delivered again", worker.unfinished)
        leave(ExitCode.UNFINISHED)
    if worker.left_behind or working.cancelled():
        # Runs of the bot, or tasks of the AMQP client, that ignore their cancellation: the event loop would wait for
        # each of them.
        leave(ExitCode.OK)
