"""The doctor's checks of Redis (or Valkey), of every primary where it is a cluster. It writes one context of its own,
and deletes it.

Called by `doctor` alone, which is why it may use the client library directly.
"""

import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from redis.asyncio import Redis
from redis.exceptions import RedisError

from interfaces.errors import StoreRefused, StoreUnavailable, SwitchboardError
from worker.cli.doctor_neighbours import check_neighbours
from worker.cli.doctor_tls import check_redis_tls
from worker.cli.findings import Finding, fail, ok, warn
from worker.cli.servers import is_memory, shown
from worker.records import read_context, write_main
from worker.settings import Settings
from worker.stores import ContextStore, Durability, Turn
from worker.stores.address import parse_address
from worker.stores.opening import open_store
from worker.stores.redis import connect
from worker.stores.redis_errors import store_error

PROBE_SECONDS: Final = 60

MAX_CLOCK_DIFFERENCE: Final = 1.0
"""Seconds. More than that, and times in logs and contexts of different machines cannot be put in order."""


async def check_redis(settings: Settings) -> AsyncGenerator[Finding]:
    """Check one thing after the other, and stop at the first that makes the others pointless."""
    if is_memory(settings.redis_url):
        yield ok("Redis", "embedded (memory://): one process, nothing kept")
        return
    store = open_store(settings)
    servers = connect(parse_address(settings.redis_url.get_secret_value()), settings.redis_timeout)
    try:
        await store.open()
        await servers.open(())
        versions = sorted({_version(await client.info("server")) for client in servers.clients})
        count = f", {len(servers.clients)} primaries" if len(servers.clients) > 1 else ""
        yield ok("Redis", f"version {', '.join(versions)} at {shown(settings.redis_url)}{count}")
        for finding in check_redis_tls(settings.redis_url):
            yield finding
        yield await _check_permissions(store, settings)
        for client in servers.clients:
            for finding in await _check_server(client, settings):
                yield _at(client, finding) if len(servers.clients) > 1 else finding
        for finding in await check_neighbours(store, settings):
            yield finding
    except (RedisError, OSError) as error:
        yield fail("Redis", str(store_error(error)), "correct SWITCHBOARD_REDIS_URL, or mend it on the server")
    except StoreUnavailable as error:
        yield fail("Redis", str(error), "start it, or correct host and port in SWITCHBOARD_REDIS_URL")
    except StoreRefused as error:
        yield fail("Redis", str(error), "mend it on the server, or correct SWITCHBOARD_REDIS_URL")
    finally:
        await store.close()
        await servers.close()


async def _check_server(client: Redis, settings: Settings) -> list[Finding]:
    findings = [await check(client) for check in (_check_persistence, _check_eviction, _check_clock)]
    if settings.durability in (Durability.REPLICA, Durability.REPLICA_DISK):
        findings.append(await _check_replicas(client, settings.replicas))
    return findings


def _at(client: Redis, finding: Finding) -> Finding:
    place = client.connection_pool.connection_kwargs
    return replace(finding, check=f"{finding.check} of {place['host']}:{place['port']}")


def _version(server: dict[str, Any]) -> str:
    valkey = server.get("valkey_version")
    return f"{server.get('redis_version')}" + (f" (Valkey {valkey})" if valkey else "")


async def _check_permissions(store: ContextStore, settings: Settings) -> Finding:
    """What a turn needs, in a context that goes by itself in a minute where this user may not delete it."""
    check, namespace = "Redis permissions", settings.namespace
    ctx_id = f"switchboard-doctor-{uuid4()}"
    # Not for the epoch, whose key would be given the same short life.
    probing = open_store(settings.model_copy(update={"context_ttl": PROBE_SECONDS}))
    try:
        epoch = await store.claim()
        await probing.open()
        await probing.load(ctx_id, "doctor", epoch=epoch, attempt="doctor", history=1)
        main = write_main(read_context(ctx_id, 0, None, {}))  # for another doctor may come and read it
        await probing.commit(Turn(ctx_id, "doctor", 0, main, {1: b"{}"}, b"{}"))
        await probing.read_turns(ctx_id, [1])
        return ok(check, f"load, commit, read{await _deleted(probing, ctx_id)}")
    except SwitchboardError as error:
        mend = f"allow this user scripts, hashes and expiry on keys {namespace}:* (ACL SETUSER ... ~{namespace}:*)"
        return fail(check, str(error), mend)
    finally:
        await probing.close()


async def _deleted(store: ContextStore, ctx_id: str) -> str:
    try:
        await store.delete(ctx_id)
    except StoreRefused:
        return "; not delete, which a worker need not"
    return ", delete"


async def _check_persistence(client: Redis) -> Finding:
    check = "persistence"
    info = await client.info("persistence")
    if int(info.get("aof_enabled", 0)):
        return ok(check, "append-only file")
    try:
        save = (await client.config_get("save")).get("save", "")
    except RedisError:
        detail = "no append-only file; whether there are snapshots cannot be read (CONFIG is not allowed)"
        return warn(check, detail, "look at the server's `save` and `appendonly` settings")
    mend = "set appendonly to yes (and appendfsync to always, where not even the last second may be lost)"
    if not save:
        return warn(check, "neither append-only file nor snapshots: a restart of Redis forgets every context", mend)
    return warn(check, f"snapshots only ({save!r}): a crash of Redis forgets the turns since the last one", mend)


async def _check_eviction(client: Redis) -> Finding:
    policy = str((await client.info("memory")).get("maxmemory_policy", "unknown"))
    if policy == "noeviction":
        return ok("eviction", "noeviction")
    detail = f"maxmemory-policy is {policy}: when memory is full, contexts disappear"
    return warn("eviction", detail, "set maxmemory-policy to noeviction")


async def _check_replicas(client: Redis, needed: int) -> Finding:
    connected = int((await client.info("replication")).get("connected_slaves", 0))
    if connected >= needed:
        return ok("replicas", f"{connected} connected, commits wait for {needed}")
    detail = f"{connected} connected, and commits wait for {needed}: no turn can be committed"
    return fail("replicas", detail, "start the replicas, or lower SWITCHBOARD_REPLICAS or SWITCHBOARD_DURABILITY")


async def _check_clock(client: Redis) -> Finding:
    before = time.time()
    seconds, microseconds = await client.time()
    halfway = (before + time.time()) / 2
    difference = halfway - (seconds + microseconds / 1_000_000)
    if abs(difference) <= MAX_CLOCK_DIFFERENCE:
        return ok("clock", f"{abs(difference) * 1000:.0f} ms from that of Redis")
    side = "ahead of" if difference > 0 else "behind"
    return warn(
        "clock", f"{abs(difference):.1f} s {side} that of Redis", "synchronise the clocks (NTP) of both machines"
    )
