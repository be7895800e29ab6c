"""`switchboard topology`: declares a namespace's exchanges and queues, and shows what is in them."""

import asyncio
import time
from dataclasses import dataclass

import click

from interfaces.brokers import QueueState
from interfaces.topology import SLOTS
from worker.cli.commands import TOPOLOGY_FIELDS, Group, examples, with_settings
from worker.cli.output import Cell, json_option, print_json, print_line, print_table
from worker.cli.servers import opened_broker, shown
from worker.settings import Settings


@click.group("topology", cls=Group)
def command() -> None:
    """Declare or show exchanges and queues.

    A worker declares them by itself when it starts; declare them beforehand where workers may not.
    """


@command.command(
    "apply", epilog=examples("switchboard topology apply", "switchboard topology apply --namespace staging --shards 16")
)
@with_settings(*TOPOLOGY_FIELDS)
def apply(settings: Settings) -> None:
    """Declare everything a namespace needs. May be repeated.

    What exists with other properties is left alone and reported, with exit code 4.
    """
    began = time.monotonic()
    asyncio.run(_apply(settings))
    print_line(
        f"namespace {settings.namespace!r} at {shown(settings.amqp_url)}: 3 exchanges, {settings.shards} request "
        f"queues, {SLOTS} slots bound and the dead-letter queue are there ({time.monotonic() - began:.1f} s)"
    )


async def _apply(settings: Settings) -> None:
    async with opened_broker(settings) as broker:
        await broker.apply(settings.topology)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the broker holds of a topology; `None` for a queue that does not exist."""

    shards: dict[str, QueueState | None]
    dead: QueueState | None
    more_than_expected: bool

    def faults(self, settings: Settings) -> list[str]:
        """What is missing or different, each with how to mend it."""
        missing = [queue for queue, state in self.shards.items() if state is None]
        if len(missing) == len(self.shards):
            return ["nothing is declared: run `switchboard topology apply`, or start a worker"]
        faults = []
        if missing:
            faults.append(
                f"{len(missing)} of {settings.shards} request queues are missing ({', '.join(missing)}): where "
                f"SWITCHBOARD_SHARDS={settings.shards} is right, run `switchboard topology apply`"
            )
        if self.more_than_expected:
            faults.append(
                f"there are more than {settings.shards} request queues: set SWITCHBOARD_SHARDS to the number in use"
            )
        if self.dead is None:
            faults.append("the dead-letter queue is missing: run `switchboard topology apply`")
        idle = [queue for queue, state in self.shards.items() if state is not None and not state.consumers]
        if idle:
            faults.append(f"no consumer on {len(idle)} of {settings.shards} request queues: start a worker")
        return faults


async def look(settings: Settings) -> Seen:
    """Ask the broker for every queue of the topology. Nothing is declared."""
    topology = settings.topology
    async with opened_broker(settings) as broker:
        shards = {queue: await broker.queue_state(queue) for queue in topology.shard_queues}
        dead = await broker.queue_state(topology.dead)
        beyond = await broker.queue_state(topology.shard_queue(topology.shards))
    return Seen(shards, dead, beyond is not None)


@command.command("show", epilog=examples("switchboard topology show", "switchboard topology show --json | jq .faults"))
@json_option
@with_settings(*TOPOLOGY_FIELDS)
def show(as_json: bool, settings: Settings) -> None:
    """Show the queues of a namespace: messages ready, consumers, dead letters, and what is missing."""
    seen = asyncio.run(look(settings))
    faults = seen.faults(settings)
    if as_json:
        print_json(_as_data(seen, faults, settings))
        return
    rows = [_row(queue, state) for queue, state in seen.shards.items()]
    rows.append([settings.topology.dead, *_numbers(seen.dead), ("dead letters", "yellow" if _held(seen.dead) else "")])
    print_table(["queue", "ready", "consumers", "state"], rows, numbers=["ready", "consumers"])
    for fault in faults:
        print_line(("! ", "yellow"), fault)


def _row(queue: str, state: QueueState | None) -> list[Cell | str]:
    if state is None:
        return [queue, *_numbers(state), ("missing", "red")]
    return [queue, *_numbers(state), ("ok", "green") if state.consumers else ("no consumer", "yellow")]


def _numbers(state: QueueState | None) -> list[str]:
    return ["-", "-"] if state is None else [str(state.messages), str(state.consumers)]


def _held(state: QueueState | None) -> int:
    return 0 if state is None else state.messages


def _as_data(seen: Seen, faults: list[str], settings: Settings) -> dict[str, object]:
    return {
        "namespace": settings.namespace,
        "shards": [
            {"queue": queue, "exists": state is not None, "ready": _held(state), "consumers": state and state.consumers}
            for queue, state in seen.shards.items()
        ],
        "dead_letters": {"queue": settings.topology.dead, "exists": seen.dead is not None, "ready": _held(seen.dead)},
        "faults": faults,
    }
