"""`switchboard topology`: declares a namespace's exchanges and queues, shows what is in them, changes their number."""

import asyncio
import time
from dataclasses import dataclass

import click

from interfaces.brokers import QueueState
from interfaces.errors import BrokerRefused
from interfaces.topology import SLOTS, Topology
from worker.cli import reshard
from worker.cli.commands import SERVER_FIELDS, Group, examples, with_settings
from worker.cli.output import Cell, json_option, print_json, print_line, print_table
from worker.cli.plans import look_up_plan
from worker.cli.servers import is_memory, opened_broker, opened_store, shown
from worker.generations import read_or_make_plan
from worker.plan import Plan
from worker.settings import Settings


@click.group("topology", cls=Group)
def command() -> None:
    """Declare or show exchanges and queues, change the number of shards.

    A worker declares them by itself when it starts; declare them beforehand where workers may not.
    """


command.add_command(reshard.command)


@command.command(
    "apply", epilog=examples("switchboard topology apply", "switchboard topology apply --namespace staging --shards 16")
)
@with_settings(*SERVER_FIELDS)
def apply(settings: Settings) -> None:
    """Declare everything a namespace needs. May be repeated.

    What exists with other properties, or another number of shards or prefetch than asked for, is left alone and
    reported, with exit code 4.
    """
    began = time.monotonic()
    topology = asyncio.run(_apply(settings))
    print_line(
        f"namespace {settings.namespace!r} at {shown(settings.amqp_url)}: {len(topology.exchanges)} exchanges, "
        f"{topology.shards} request queues, {SLOTS} slots bound and the dead-letter queue are there "
        f"({time.monotonic() - began:.1f} s)"
    )


async def _apply(settings: Settings) -> Topology:
    async with opened_broker(settings) as broker:
        plan = await look_up_plan(broker, settings)
        if plan is not None and (unfollowed := settings.unfollowed(plan.current.of(settings.topology))):
            raise BrokerRefused("; ".join(f"{told}: to change it, run `{command}`" for told, command in unfollowed))
        if plan is None and not is_memory(settings.redis_url):
            async with opened_store(settings) as store:
                plan, _ = await read_or_make_plan(broker, store, settings.topology)
        topology = settings.topology if plan is None else plan.current.of(settings.topology)
        await broker.apply(topology)
    return topology


@dataclass(frozen=True, slots=True)
class Seen:
    """What the broker holds of a namespace; `None` for a queue that does not exist."""

    plan: Plan
    shards: dict[str, QueueState | None]
    """Those of the generation in use, then those of the one before while there is anything left of it."""
    dead: QueueState | None

    def faults(self) -> list[str]:
        """What is missing or unfinished, each with how to mend it."""
        missing = [queue for queue, state in self.shards.items() if state is None]
        if len(missing) == len(self.shards):
            return ["nothing is declared: run `switchboard topology apply`, or start a worker"]
        faults = []
        if self.plan.previous is not None:
            faults.append(
                f"a change from {self.plan.previous.shards} to {self.plan.current.shards} shards is under way: where "
                f"nobody is at it, run `switchboard topology reshard --shards {self.plan.current.shards}`"
            )
        if missing:
            faults.append(f"{len(missing)} request queues are missing ({', '.join(missing)}): start a worker")
        if self.dead is None:
            faults.append("the dead-letter queue is missing: run `switchboard topology apply`")
        idle = [queue for queue, state in self.shards.items() if state is not None and not state.consumers]
        if idle:
            faults.append(f"no consumer on {len(idle)} of {len(self.shards)} request queues: start a worker")
        return faults


async def look(settings: Settings) -> Seen:
    """Ask the broker for every queue of the namespace. Nothing is declared."""
    topology = settings.topology
    async with opened_broker(settings) as broker:
        plan = await look_up_plan(broker, settings) or Plan.of(topology)
        shards = {queue: await broker.queue_state(queue) for queue in plan.current.of(topology).shard_queues}
        for queue in plan.previous.of(topology).shard_queues if plan.previous is not None else ():
            state = await broker.queue_state(queue)
            if state is not None:
                shards[queue] = state
        dead = await broker.queue_state(topology.dead)
    return Seen(plan, shards, dead)


@command.command("show", epilog=examples("switchboard topology show", "switchboard topology show --json | jq .faults"))
@json_option
@with_settings(*SERVER_FIELDS)
def show(as_json: bool, settings: Settings) -> None:
    """Show the queues of a namespace: messages ready, consumers, dead letters, and what is missing."""
    seen = asyncio.run(look(settings))
    faults = seen.faults()
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
        "plan": seen.plan.model_dump(mode="json"),
        "shards": [
            {"queue": queue, "exists": state is not None, "ready": _held(state), "consumers": state and state.consumers}
            for queue, state in seen.shards.items()
        ],
        "dead_letters": {"queue": settings.topology.dead, "exists": seen.dead is not None, "ready": _held(seen.dead)},
        "faults": faults,
    }
