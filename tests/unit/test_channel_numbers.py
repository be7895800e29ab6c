"""The order in which channels of a connection get their numbers."""

from types import SimpleNamespace
from typing import Any

import pytest

from interfaces.brokers.channel_numbers import HIGHEST, next_number


class Connection:
    """As much of aiormq's as is asked."""

    def __init__(self, channel_max: int) -> None:
        self.channels: dict[int, object] = {}
        self.connection_tune = SimpleNamespace(channel_max=channel_max)

    def open_one(self) -> int:
        this: Any = self
        number = next_number(this)
        self.channels[number] = object()
        return number


def test_a_number_that_is_free_again_is_not_the_next_one() -> None:
    connection = Connection(channel_max=5)
    assert [connection.open_one() for _ in range(3)] == [1, 2, 3]
    del connection.channels[3]
    assert connection.open_one() == 4


def test_after_the_last_number_come_the_free_ones() -> None:
    connection = Connection(channel_max=4)
    assert [connection.open_one() for _ in range(4)] == [1, 2, 3, 4]
    del connection.channels[2], connection.channels[4]
    assert [connection.open_one() for _ in range(2)] == [2, 4]


def test_with_every_number_in_use_there_is_an_error_that_says_so() -> None:
    connection = Connection(channel_max=2)
    assert [connection.open_one() for _ in range(2)] == [1, 2]
    with pytest.raises(ConnectionError, match="all 2 channels that the broker allows"):
        connection.open_one()
    del connection.channels[1]
    assert connection.open_one() == 1


def test_a_broker_without_a_bound_allows_as_many_as_the_protocol() -> None:
    connection = Connection(channel_max=0)
    connection.channels = dict.fromkeys(range(1, HIGHEST), object())
    assert connection.open_one() == HIGHEST


def test_connections_count_by_themselves() -> None:
    assert [Connection(channel_max=9).open_one() for _ in range(2)] == [1, 1]
