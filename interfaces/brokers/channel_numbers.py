"""Numbers for channels, each of which is used again only after all the others were.

RabbitMQ tells of a channel that it has closed from another process than the one that writes the channel's frames, so
deliveries and confirms come for it even after that. aiormq frees a number when it reads that its channel is closed, and
gives the next channel the one after the highest in use: often that same number. What comes late would then be taken for
the new channel's, be it a delivery that nobody may acknowledge there, or the confirm of another message
(`tests/integration/test_late_frames.py`).
"""

from itertools import chain
from typing import Final
from weakref import WeakKeyDictionary

from aiormq.abc import AbstractConnection

HIGHEST: Final = 65_535
"""Where the broker sets no bound (AMQP 0-9-1, `channel-max`); RabbitMQ's is 2,047."""

_last: WeakKeyDictionary[AbstractConnection, int] = WeakKeyDictionary()


def next_number(connection: AbstractConnection) -> int:
    """A number for one more channel of the connection. Raises `ConnectionError` where all are in use."""
    highest: int = connection.connection_tune.channel_max or HIGHEST
    last = _last.get(connection, 0)
    for number in chain(range(last + 1, highest + 1), range(1, last + 1)):
        if number not in connection.channels:
            _last[connection] = number
            return number
    raise ConnectionError(f"all {highest} channels that the broker allows on a connection are open")
