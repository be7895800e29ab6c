"""The log on standard error, for people or as JSON, each line of a turn with whose it is. For long-running commands.

A line for people is time, level, short name of the logger, message, and then the turn. A record begins a line, and
whatever else it has, further lines and a traceback, is indented below, whatever a stranger's text in it holds: no line
of that can pass for one of ours, and nothing in it is a command to the terminal. Everything goes through `logging`,
what libraries and bots write included; structlog writes it down.
"""

import json
import logging
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from interfaces.current_turn import CURRENT
from interfaces.encryption import Keys
from interfaces.envelope import Request
from worker.settings import Settings
from worker.telemetry_settings import LogFormat

INDENT: Final = "    "

LEVELS: Final = ("debug", "info", "warning", "error")

LIBRARIES: Final = ("aio_pika", "aiormq")
"""They log what they also raise, with tracebacks; ours say it in one line."""

TALKATIVE: Final = ("chatsky", "httpcore", "telegram")
"""They log at level debug what is said, or the URL it is fetched by. A bot that wants that sets their level itself."""

LINE_PER_TURN: Final = ("chatsky.core.pipeline",)
"""They log every turn at level info."""

TURN: Final = ("ctx_id", "request_id", "queue", "worker")
"""What is told of a turn, in this order."""

Event = MutableMapping[str, Any]


class TurnFields:
    """Adds to a record whose turn it is of.

    :param written: how a context id is written.
    :param trace_id: the trace that the running task is in, where there are traces.
    """

    def __init__(self, written: Callable[[str], str] = str, trace_id: Callable[[], str | None] = lambda: None) -> None:
        self._written = written
        self._trace_id = trace_id
        self.worker = ""
        """Name of the worker in this process, once there is one."""

    def __call__(self, _: Any, __: str, event: Event) -> Event:
        """As structlog calls its processors."""
        current = CURRENT.get()
        delivery = current.delivery if isinstance(current, Request) else current
        if isinstance(current, Request):
            event["ctx_id"] = written = self._written(current.ctx_id)
            for name in ("event", "exception"):
                if name in event and written != current.ctx_id:
                    # Ours are all written this way. In a traceback, the bot's own words may be others.
                    event[name] = event[name].replace(repr(current.ctx_id), repr(written))
        if delivery is not None:
            event["request_id"], event["queue"] = delivery.properties.message_id, delivery.channel.queue
        if self.worker:
            event["worker"] = self.worker
        if trace_id := self._trace_id():
            event["trace_id"] = trace_id
        return event


def hashed(ctx_id: str, keys: Keys | None) -> str:
    """16 hexadecimal digits that stand for a context id, the same wherever the key is.

    Without a key, whoever guesses an id can find it. AES-SIV's first 16 bytes depend on the place and the key alone.
    """
    if keys is None or keys.writing is None:
        return sha256(ctx_id.encode(errors="backslashreplace")).hexdigest()[:16]
    return keys.seal(b"\0", keys.writing, "log", ctx_id)[:8].hex()


def escaped(text: str) -> str:
    """`text` with control characters, line breaks and overrides of the reading direction as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def for_people(_: Any, __: str, event: Event) -> str:
    """A record as lines for people."""
    record: logging.LogRecord = event["_record"]
    short = record.name.removeprefix("worker.").removeprefix("interfaces.")
    first, *more = event["event"].split("\n")
    time = datetime.fromtimestamp(record.created).isoformat(" ", "milliseconds").replace(".", ",")
    turn = " ".join(f"{name}={event[name]!r}" for name in TURN if "request_id" in event and event.get(name))
    begin = f"{time} {record.levelname:<7} {short}: {first}{f'  [{turn}]' if turn else ''}"
    more = [line if line.startswith(INDENT) else INDENT + line for line in more]
    more += [INDENT + line for name in ("exception", "stack") if name in event for line in event[name].split("\n")]
    return "\n".join([escaped(begin), *map(escaped, more)])


def as_json(_: Any, __: str, event: Event) -> str:
    """A record as one object in one line, all of it in ASCII."""
    record: logging.LogRecord = event.pop("_record")
    event.pop("_from_structlog")
    time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    start = {"timestamp": time, "level": record.levelname.lower(), "logger": record.name}
    return json.dumps({**start, **event}, default=repr)


def log_to_stderr(level: str, settings: Settings | None = None) -> TurnFields:
    """Begin to log everything from `level` on; returns what is to be told the worker's name."""
    # Not above: it takes longer to import than all else that a short command does.
    from structlog.processors import ExceptionRenderer, StackInfoRenderer
    from structlog.stdlib import ProcessorFormatter

    settings = settings or Settings()
    keys = settings.keys if settings.log_hash_ids else None
    fields = TurnFields((lambda ctx_id: hashed(ctx_id, keys)) if settings.log_hash_ids else str, _trace_id_of(settings))
    handler = logging.StreamHandler()
    handler.setFormatter(
        ProcessorFormatter(
            processors=[
                *(StackInfoRenderer(), ExceptionRenderer(), fields),
                as_json if settings.log_format is LogFormat.JSON else for_people,
            ]
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return fields


def _trace_id_of(settings: Settings) -> Callable[[], str | None]:
    with suppress(ImportError):  # said when the traces are begun
        if settings.traces:
            from interfaces.tracing import trace_id

            return trace_id
    return lambda: None


def quiet_libraries() -> None:
    """Leave the AMQP client's failures to our own messages, and keep out of the log what people say."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in LINE_PER_TURN:
        logging.getLogger(name).setLevel(logging.WARNING)


def pass_on_json(number: int, line: str) -> None:
    """A worker's line in its supervisor's log as JSON: with its number, and made an object where it is none."""
    if line.startswith("{") and line.endswith("}"):
        sys.stderr.write(f'{{"process": {number}, {line[1:]}\n')
    else:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = {"process": number, "timestamp": now, "level": "error", "logger": "stderr", "event": line}
        sys.stderr.write(json.dumps(told) + "\n")
