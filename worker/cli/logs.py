"""Log lines for people, on standard error: time, level, short name of the logger, message. For `run` and `chat`."""

import logging
from typing import Final

LEVELS: Final = ("debug", "info", "warning", "error")

LIBRARIES: Final = ("aio_pika", "aiormq")
"""They log what they also raise, with tracebacks; ours say it in one line."""


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.short = record.name.removeprefix("worker.").removeprefix("interfaces.")
        return super().format(record)


def log_to_stderr(level: str) -> None:
    """Begin to log everything from `level` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)-7s %(short)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def quiet_libraries() -> None:
    """Leave the AMQP client's failures to our own messages."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
