"""The doctor's look at what only RabbitMQ's management API shows: where slots lead, and what policies make of queues.

AMQP declares bindings and cannot list them, and a policy changes a queue behind the back of whoever declared it.
Nothing is changed here. Called by `doctor_rabbitmq`.
"""

import re
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final

from interfaces.errors import BrokerRefused, BrokerUnavailable
from interfaces.topology import SLOTS, Arguments, Topology
from worker.cli.doctor_topology import APPLY, some
from worker.cli.findings import Finding, fail, ok, skip, warn
from worker.cli.management import Management

PAGE: Final = 500
"""The API's bound; a generation has 256 queues at most."""

LOSING: Final = frozenset({"message-ttl", "expires", "delivery-limit"})
"""By these a policy takes requests away that nobody refused: they expire, go with their queue, or are hand-overs."""

LOSING_DEAD: Final = LOSING | {"max-length", "max-length-bytes"}
"""The queue of dead letters has no bound of its own: one by policy drops the oldest."""


async def check_management(management: Management, topology: Topology, *, is_moving: bool) -> AsyncGenerator[Finding]:
    """Compare bindings and policies with what this version declares; all of `topology` must be there."""
    try:
        if is_moving:
            yield skip("bindings", "the slots move at this moment", "look again once the change is done")
        else:
            for finding in await _check_bindings(management, topology):
                yield finding
        for finding in await _check_policies(management, topology):
            yield finding
    except BrokerUnavailable as error:
        yield fail("management", str(error), "correct --management-url, or rabbitmq-plugins enable rabbitmq_management")
    except BrokerRefused as error:
        mend = "correct --management-url; or rabbitmqctl set_user_tags USER management, for the user of the AMQP URL"
        yield fail("management", str(error), mend)


async def _check_bindings(management: Management, topology: Topology) -> list[Finding]:
    leads: dict[int, set[str]] = {number: set() for number in range(SLOTS)}
    stray: list[str] = []
    for exchange in (topology.requests_exchange, topology.alternate_exchange):
        for binding in await management.get("exchanges", exchange, "bindings", "source"):
            queue, key = binding["destination"], binding["routing_key"]
            if key.isdecimal() and int(key) in leads and queue in topology.shard_queues:
                leads[int(key)].add(queue)
            else:
                stray.append(f"{key} of exchange {exchange} leads to {queue}")
    findings = [*_unbound(leads), *_misled(leads, topology)]
    if stray:
        detail = f"{some(sorted(stray))}: who reads there sees requests, and a full queue there refuses them"
        findings.append(warn("bindings", detail, "delete the binding, unless it is meant"))
    dead = await management.get("exchanges", topology.dead, "bindings", "source")
    if topology.dead not in {binding["destination"] for binding in dead}:
        detail = f"exchange {topology.dead!r} does not lead to the queue of that name: no dead letter can be put there"
        findings.append(fail("bindings", detail, APPLY))
    return findings or [ok("bindings", f"each of {SLOTS} slots leads to its queue, and dead letters to theirs")]


def _unbound(leads: Mapping[int, set[str]]) -> Iterable[Finding]:
    unbound = [number for number, queues in leads.items() if not queues]
    if unbound:
        detail = f"{len(unbound)} of {SLOTS} slots lead nowhere ({_listed(unbound)}): their requests come back"
        yield fail("bindings", detail, APPLY)


def _misled(leads: Mapping[int, set[str]], topology: Topology) -> Iterable[Finding]:
    """A slot with two queues has each of its requests delivered twice, and order kept by neither."""
    wrong = {number: queues - {topology.queue_of(number)} for number, queues in leads.items()}
    wrong = {number: queues for number, queues in wrong.items() if queues}
    if wrong:
        first = min(wrong)
        also = " as well" if topology.queue_of(first) in leads[first] else ""
        detail = (
            f"{len(wrong)} of {SLOTS} slots lead to a queue that is not theirs ({_listed(wrong)}): slot {first} to "
            f"{min(wrong[first])!r}{also}, and its own is {topology.queue_of(first)!r}: the order is lost"
        )
        mend = f"{APPLY}, then delete the other bindings of exchange {topology.slots_exchange!r}"
        yield fail("bindings", detail, mend)


def _listed(numbers: Iterable[int]) -> str:
    first = sorted(numbers)[:5]
    more = ", ..." if len(list(numbers)) > len(first) else ""
    return ", ".join(map(str, first)) + more


async def _check_policies(management: Management, topology: Topology) -> list[Finding]:
    pattern = rf"^{re.escape(topology.namespace)}\.(dead|requests\.g{topology.generation}\.\d+)$"
    answer = await management.get("queues", name=pattern, use_regex="true", page=1, page_size=PAGE)
    queues = {queue["name"]: queue for queue in answer["items"]}
    untold = [name for name, queue in queues.items() if "effective_policy_definition" not in queue]
    changed: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
    for name, queue in sorted(queues.items()):
        is_dead = name == topology.dead
        declared = topology.dead_arguments if is_dead else topology.shard_arguments
        for key, value in _effective(queue, declared).items():
            told = f"{key}: {value!r} by {_policies(queue)}"
            changed[key, told, key in (LOSING_DEAD if is_dead else LOSING)].append(name)
    findings = [_changed(told, names, is_losing) for (_, told, is_losing), names in changed.items()]
    if untold:
        detail = f"RabbitMQ does not tell those of {some(untold)}: new, or its statistics are switched off"
        findings.append(skip("policies", detail, "look again in a few seconds"))
    return findings or [ok("policies", "none changes a queue of this namespace")]


def _changed(told: str, names: list[str], is_losing: bool) -> Finding:
    judge = fail if is_losing else warn
    mend = "let the policy's pattern pass over these queues (rabbitmqctl list_policies, list_operator_policies)"
    return judge("policies", f"{some(names)} have {told}, which this version does not declare", mend)


def _effective(queue: Mapping[str, Any], declared: Arguments) -> Mapping[str, Any]:
    """What policies change. An argument of the queue comes before a policy, but of two numbers the lower one counts.

    https://www.rabbitmq.com/docs/policies#conflict-resolution
    """
    told = queue.get("effective_policy_definition") or {}
    return {key: value for key, value in told.items() if _counts(value, declared.get(f"x-{key}"))}


def _counts(value: Any, argument: str | int | None) -> bool:
    if argument is None:
        return True
    return isinstance(value, int) and isinstance(argument, int) and value < argument


def _policies(queue: Mapping[str, Any]) -> str:
    names = [f"{kind} {queue[key]!r}" for key, kind in _KINDS.items() if queue.get(key)]
    return " and ".join(names) or "a policy"


_KINDS: Final = {"policy": "policy", "operator_policy": "operator policy"}
