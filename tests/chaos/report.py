"""A chaos run as a page of the documentation: what was done, what was broken meanwhile, and whether all held."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from tests.chaos.verdict import Verdict
from tests.chaos.world import World

EXPLANATIONS: Mapping[str, str] = {
    "change shards": "`topology reshard` to a random number, killed up to twice on the way and repeated until done",
    "cut link": "all TCP connections of one link reset, up to three times in a row",
    "fail over redis": "the primary Redis killed; a replica takes its place, the old one comes back as a replica",
    "freeze worker": "SIGSTOP for longer than every time limit, then SIGCONT",
    "kill node": "SIGKILL of one RabbitMQ node of the cluster, started again seconds later",
    "kill worker": "SIGKILL, a new process within a second",
    "lose answers": "a link carries requests and no answers: confirms and commits of unknown fate",
    "promote frozen worker": "a frozen worker is given another one's shards and loses them before it wakes",
    "raise disk alarm": "RabbitMQ's free disk limit above the disk's size",
    "raise memory alarm": "RabbitMQ's memory limit below what it uses (`set_vm_memory_high_watermark`)",
    "restart nodes": "one RabbitMQ node after the other stopped and started",
    "restart redis": "Redis (append-only file, fsync always) killed and started",
    "restart workers": "SIGTERM to one worker after the other, each replaced",
    "slow link": "50 to 400 ms added to everything on a link",
    "stall link": "a half-open link: connected, and nothing passes, for longer than every time limit",
    "storm of guests": "two to four further workers join and leave, politely or not",
    "swap version": "a worker replaced by one of another version, which stays",
}


def page(verdict: Verdict, world: World, versions: Sequence[str]) -> str:
    """The page, in Markdown."""
    plan = verdict.plan
    faults = "\n".join(f"| {name} | {count} | {EXPLANATIONS[name]} |" for name, count in sorted(verdict.faults.items()))
    kinds = {kind: sum(v.kind.value == kind for v in verdict.violations) for kind in ("lost request", "order broken")}
    doubled = sum(v.kind.value == "request applied twice" for v in verdict.violations)
    others = len(verdict.violations) - sum(kinds.values()) - doubled
    return f"""# A long chaos run

Written by `make chaos-report SEED={plan.seed}` on {datetime.now(UTC):%Y-%m-%d}, with {", ".join(versions)}:
{len(world.cluster.nodes)} RabbitMQ nodes, {len(world.slots)} workers, {plan.contexts} contexts, {plan.seconds:g} s of
faults in four tracks side by side. All processes are real and local, and every worker has proxies of its own.

| | |
|---|---|
| requests confirmed | {verdict.confirmed} |
| requests given up by their publisher before a confirm | {verdict.given_up} |
| turns found in Redis | {verdict.turns} |
| replies received, of them repeated | {verdict.replies}, {verdict.repeated_replies} |
| **lost** | **{kinds["lost request"]}** |
| **applied twice** | **{doubled}** |
| **out of order** | **{kinds["order broken"]}** |
| other violations (state, replies) | {others} |
| workers that ended by themselves | {len(verdict.unasked_ends)} |
| seconds from the last fault until everything was answered | {verdict.drained_in:.1f} |
| verdict | {"every promise held" if verdict.holds else "VIOLATED"} |

| fault | times | what it is |
|---|---|---|
{faults}

{sum(verdict.faults.values())} faults, each of which proved that it had happened. What decides, and the tests of that,
are in `tests/chaos`.
"""
