"""The doctor's comparison of what is declared with what this version would declare, by AMQP alone.

A queue or exchange is declared again as it should be: where it is so, nothing happens, and where it is not, RabbitMQ
refuses and names the first argument that differs. So nothing is changed, and nothing is declared that is not there.
What AMQP does not show, bindings and policies, is in `doctor_management`. Called by `doctor_rabbitmq`.
"""

import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from interfaces.brokers.declare import raw_channel
from interfaces.brokers.mapping import amqp_errors
from interfaces.errors import BrokerRefused
from interfaces.topology import MAX_SHARDS, Arguments, ExchangeKind, Topology
from worker.cli.findings import Finding, fail, ok, skip

APPLY: Final = "switchboard topology apply"
CHECK: Final = "topology"

_REFUSAL: Final = re.compile(
    r"inequivalent arg '(.*?)' for \w+ '.*?' in vhost '.*?': received (.*) but current is (.*)$"
)
"""RabbitMQ's words, the same in every version since 3.8."""
_VALUE: Final = re.compile(r"(?:the value )?'(.*)'(?: of type '.*')?$")

Call = Callable[[AbstractChannel], Awaitable[Any]]


class Difference(NamedTuple):
    """An argument that is not what it should be, with both values as RabbitMQ writes them."""

    argument: str
    wanted: str
    found: str


async def missing(connection: AbstractConnection, topology: Topology) -> list[str]:
    """What is not there, of all that `topology` has, an exchange with that word before its name."""
    return [name for name, (passive, _) in _wanted(topology).items() if not await _exists(connection, passive)]


def is_all(names: Sequence[str], topology: Topology) -> bool:
    """Whether nothing is left where `names` are missing."""
    return len(names) == len(_wanted(topology))


async def compare(connection: AbstractConnection, topology: Topology) -> list[Finding]:
    """One finding for each argument that differs, or one that says that none does. Everything must be there."""
    differing: dict[Difference, list[str]] = defaultdict(list)
    for name, (_, declaration) in _wanted(topology).items():
        try:
            with amqp_errors(f"comparing {name}"):
                difference = await _difference(connection, declaration)
        except BrokerRefused as error:
            if not isinstance(error.__cause__, ChannelAccessRefused):
                raise
            detail = "all is there; whether with the arguments of this version, only who may declare it can ask"
            return [skip(CHECK, detail, "switchboard doctor, as the operator")]
        if difference is not None:
            differing[difference].append(name)
    if not differing:
        return [ok(CHECK, f"namespace {topology.namespace!r}, {topology.shards} shards, as it should be")]
    return [_differs(difference, names, topology) for difference, names in differing.items()]


def _differs(difference: Difference, names: list[str], topology: Topology) -> Finding:
    argument, wanted, found = difference
    return fail(
        CHECK,
        f"{argument} of {some(names)} is {found}, and this version with these settings declares {wanted}",
        _mend(argument, found, names, topology),
    )


def _mend(argument: str, found: str, names: list[str], topology: Topology) -> str:
    if topology.dead in names:
        return f"switchboard dead export, delete the queue, {APPLY}, switchboard dead import"
    if names[0].startswith("exchange "):
        return f"while nobody publishes: delete the exchange, then {APPLY}"
    again = topology.shards + 1 if topology.shards < MAX_SHARDS else topology.shards - 1
    mend = (
        f"while workers with the settings or the version of then run: switchboard topology reshard --shards {again}, "
        f"which makes new queues; while nobody publishes: delete the queues once they are empty, then {APPLY}"
    )
    return f"SWITCHBOARD_MAX_LENGTH={found}; or {mend}" if argument == "x-max-length" else mend


def some(names: Sequence[str]) -> str:
    """The first of `names`, and how many more there are."""
    return repr(names[0]) if len(names) == 1 else f"{names[0]!r} and {len(names) - 1} more"


def _wanted(topology: Topology) -> Mapping[str, tuple[Call, Call]]:
    """By name: the passive declaration, and the one RabbitMQ refuses where a thing exists with other properties."""
    wanted = {
        f"exchange {exchange}": _declarations_of_exchange(exchange, *kind)
        for exchange, kind in topology.exchanges.items()
    }
    for queue in topology.shard_queues:
        wanted[queue] = _declarations_of_queue(queue, topology.shard_arguments)
    wanted[topology.dead] = _declarations_of_queue(topology.dead, topology.dead_arguments)
    return wanted


def _declarations_of_exchange(exchange: str, kind: ExchangeKind, arguments: Arguments) -> tuple[Call, Call]:
    return (
        lambda channel: channel.exchange_declare(exchange, passive=True),
        lambda channel: channel.exchange_declare(exchange, exchange_type=kind, durable=True, arguments=dict(arguments)),
    )


def _declarations_of_queue(queue: str, arguments: Arguments) -> tuple[Call, Call]:
    return (
        lambda channel: channel.queue_declare(queue, passive=True),
        lambda channel: channel.queue_declare(queue, durable=True, arguments=dict(arguments)),
    )


async def _exists(connection: AbstractConnection, passive: Call) -> bool:
    with amqp_errors("looking for the topology"):
        try:
            await _on_channel(connection, passive)
        except ChannelNotFoundEntity:
            return False
    return True


async def _difference(connection: AbstractConnection, declaration: Call) -> Difference | None:
    try:
        await _on_channel(connection, declaration)
    except ChannelPreconditionFailed as error:
        refusal = _REFUSAL.search(str(error))
        if refusal is None:
            raise
        argument, wanted, found = refusal.groups()
        return Difference(argument, _value(wanted), _value(found))
    return None


def _value(words: str) -> str:
    found = _VALUE.match(words)
    return found[1] if found is not None else "not set" if words == "none" else words


async def _on_channel(connection: AbstractConnection, call: Call) -> None:
    # The broker closes a channel on which something was refused, so each call has its own.
    channel = await raw_channel(connection)
    try:
        await call(channel)
    finally:
        await channel.close()
