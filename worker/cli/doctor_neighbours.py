"""The doctor's look at what other versions have said or left in Redis: the workers' list, the plan, stored contexts.

Two workers can share a namespace where each reads what the other writes, under keys that both have. Called by
`doctor_redis`; it reads only.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from pydantic import ValidationError

from interfaces.encryption import PLAIN, SETTING
from interfaces.errors import RequestRejected, StoreRefused
from worker.cli.findings import Finding, fail, ok, skip
from worker.formats import FIRST, TITLES
from worker.members import Identity, Member
from worker.plan import Plan
from worker.records import read_context
from worker.settings import Settings
from worker.stores import ContextStore

CONTEXTS_LOOKED_AT: Final = 20
SCAN_SECONDS: Final = 5.0
"""Contexts are found by walking over all keys of the server, others' included."""

UPGRADE: Final = "bring both to one version, in the order of docs/upgrades.md"
KEYS: Final = "give every process of the namespace the same keys, in the order of docs/encryption.md"


class Clash(NamedTuple):
    """Why a worker cannot live beside another, and how to mend it."""

    reason: str
    mend: str


async def check_neighbours(store: ContextStore, settings: Settings) -> list[Finding]:
    """What is wrong with each, or that nothing is. Raises `StoreUnavailable` or `StoreRefused`."""
    this = Identity(settings.keys).member()
    return [
        *_judge_members(await store.living(), this),
        *await _check_plan(store),
        await _check_contexts(store, this),
    ]


def _judge_members(said: Mapping[str, bytes], this: Member) -> list[Finding]:
    check = "neighbours"
    versions: Counter[str] = Counter()
    clashing: dict[Clash, list[str]] = defaultdict(list)
    for name, info in sorted(said.items()):
        try:
            other = Member.model_validate_json(info)
        except ValidationError:
            clashing[Clash("says of itself what this version cannot read", UPGRADE)].append(repr(name))
            continue
        versions[other.version or "unknown"] += 1
        for clash in clashes(this, other):
            clashing[clash].append(f"{name!r} (version {other.version}, process {other.pid} on {other.host})")
    findings = [fail(check, f"worker {_some(names)} {reason}", mend) for (reason, mend), names in clashing.items()]
    listed = ", ".join(f"{count} of version {version}" for version, count in sorted(versions.items()))
    return findings or [ok(check, f"workers that share this namespace: {listed or 'none'}")]


def clashes(this: Member, other: Member) -> Iterator[Clash]:
    """Why `other` cannot work beside a worker as `this`, told from its side; nothing where it can."""
    for name, title in TITLES.items():
        ours, theirs = this.writes.get(name, FIRST), other.writes.get(name, FIRST)
        if theirs not in (reads := this.reads.get(name, [FIRST])):
            known = ", ".join(map(str, reads))
            yield Clash(f"writes {title} in format {theirs}, and this version reads {known}", UPGRADE)
        if ours not in other.reads.get(name, [FIRST]):
            yield Clash(f"does not read {title} in format {ours}, which this version writes", UPGRADE)
    if this.keys and other.keys:
        if (theirs_first := other.keys[0]) not in this.keys:
            yield Clash(f"{_encrypts(theirs_first)}, which {SETTING} does not allow here", KEYS)
        if (ours_first := this.keys[0]) not in other.keys:
            yield Clash(f"cannot read what is written here, by a process that {_encrypts(ours_first)}", KEYS)


def _encrypts(key_id: str) -> str:
    return "encrypts nothing" if key_id == PLAIN else f"encrypts under the key {key_id!r}"


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


async def _check_plan(store: ContextStore) -> list[Finding]:
    stored, _ = await store.read_plan()
    try:
        if stored is not None:
            Plan.read(stored)
    except StoreRefused as error:
        return [fail("plan", str(error).splitlines()[0], UPGRADE)]
    return []


async def _check_contexts(store: ContextStore, this: Member) -> Finding:
    check, looked_at, faults = "contexts", 0, []
    try:
        async with asyncio.timeout(SCAN_SECONDS):
            async for ctx_id in store.context_ids():
                looked_at += 1
                if (fault := await _fault_of(store, ctx_id)) is not None:
                    faults.append(fault)
                if looked_at == CONTEXTS_LOOKED_AT:
                    break
    except TimeoutError:
        if not looked_at:
            return skip(check, f"none was found within {SCAN_SECONDS:g} s", "switchboard context show CTX_ID")
    except StoreRefused as error:
        return skip(check, f"this user may not look for them: {error}", "switchboard doctor, as the operator")
    if faults:
        mend = "where a key is missing, put it back (docs/encryption.md); else " + UPGRADE
        return fail(check, f"{len(faults)} of {looked_at} looked at cannot be read: {faults[0]}", mend)
    seen = f"{looked_at} looked at, all of them readable" if looked_at else "none is stored"
    return ok(check, f"{seen}; a worker with these settings {_encrypts(this.keys[0])}")


async def _fault_of(store: ContextStore, ctx_id: str) -> str | None:
    try:
        loaded = await store.peek(ctx_id, 1)
        if loaded is not None:
            _ = read_context(ctx_id, loaded.version, loaded.main, loaded.turns).requests
    except RequestRejected as error:
        return error.internal or error.detail
    return None
