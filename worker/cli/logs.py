"""Log lines for people, on standard error: time, level, short name of the logger, message. For `run` and `chat`.

A record begins a line, and whatever else it has, further lines and a traceback, is indented below, whatever a
stranger's text in it holds: no line of that can pass for one of ours, and nothing in it is a command to the terminal.
"""

import logging
from typing import Any, Final

INDENT: Final = "    "

LEVELS: Final = ("debug", "info", "warning", "error")

LIBRARIES: Final = ("aio_pika", "aiormq")
"""They log what they also raise, with tracebacks; ours say it in one line."""

TALKATIVE: Final = ("chatsky", "httpcore", "telegram")
"""They log at level debug what is said, or the URL it is fetched by. A bot that wants that sets their level itself."""


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.short = record.name.removeprefix("worker.").removeprefix("interfaces.")
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as in `logging`
        first, *more = super().formatMessage(record).split("\n")
        return "\n".join([escaped(first), *map(_indented, more)])

    def formatException(self, error: Any) -> str:  # noqa: N802
        return "\n".join(INDENT + escaped(line) for line in super().formatException(error).split("\n"))


def _indented(line: str) -> str:
    return escaped(line if line.startswith(INDENT) else INDENT + line)


def escaped(text: str) -> str:
    """`text` with control characters, line breaks and overrides of the reading direction as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def log_to_stderr(level: str) -> None:
    """Begin to log everything from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(short)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def quiet_libraries() -> None:
    """Leave the AMQP client's failures to our own messages, and keep out of the log what people say."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.INFO)
