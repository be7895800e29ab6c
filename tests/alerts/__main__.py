"""Causes every alert for real and writes docs/alerts.md from what was seen: `make alerts-check`.

`python -m tests.alerts [CAUSE ...]` does those alone; what was seen of the others stays in the page. The exit code is 1
where an alert did not fire, or fired before its cause.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.alerts.causes import CAUSES, Cause
from tests.alerts.page import Record, page
from tests.alerts.world import Servers, World, running_servers, until
from tests.services.prometheus import deployed_rules

DOCS: Final = Path(__file__).parents[2] / "docs"


async def see(name: str) -> Record:
    """Do one cause on servers of its own. Raises `AssertionError` where an alert does not fire, or did before."""
    cause = CAUSES[name]
    async with running_servers() as servers, _world(servers, cause) as world:
        early = set(await asyncio.to_thread(world.prometheus.firing)) & set(cause.alerts)
        assert not early, f"{name}: fired before: {early}"
        began, seconds = time.monotonic(), dict[str, float]()
        harm = asyncio.create_task(_do(cause, world), name=cause.what)
        also: set[str] = set()

        def all_fire() -> bool:
            for alert in world.prometheus.firing():
                also.add(alert)
                seconds.setdefault(alert, round(time.monotonic() - began, 1))
            return set(cause.alerts) <= also or (harm.done() and harm.exception() is not None)

        try:
            with suppress(AssertionError):
                await until(all_fire, "the alerts fire", seconds=cause.seconds)
        finally:
            harm.cancel()
            [ended] = await asyncio.gather(harm, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended
        missing = set(cause.alerts) - also
        assert not missing, f"{name}: did not fire within {cause.seconds:g} s: {missing}; did: {also}\n{_logs(world)}"
    return Record(name, f"{datetime.now(UTC):%Y-%m-%d}", {alert: seconds[alert] for alert in cause.alerts})


def _world(servers: Servers, cause: Cause) -> World:
    return World(
        servers,
        workers=cause.workers,
        settings=dict(cause.settings),
        arguments=cause.arguments,
        url_options=cause.url_options,
    )


async def _do(cause: Cause, world: World) -> None:
    await cause.harm(world)


def _logs(world: World) -> str:
    return "\n".join(worker.log[-1500:] for worker in world.workers)


async def main(names: list[str]) -> int:
    """Do these causes, or all; the number of those that failed."""
    data = DOCS / "alerts.json"
    records = {each["cause"]: Record(**each) for each in json.loads(data.read_text())} if data.exists() else {}
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it tells each connection that is lost, which is the point
    failed = 0
    for name in names or CAUSES:
        try:
            records[name] = await see(name)
        except AssertionError as error:
            failed += 1
            sys.stdout.write(f"FAILED {name}: {error}\n")
        else:
            sys.stdout.write(f"{name}: {records[name].seconds}\n")
        sys.stdout.flush()
    kept = [records[name] for name in CAUSES if name in records]
    data.write_text(json.dumps([asdict(record) for record in kept], indent=1) + "\n")
    (DOCS / "alerts.md").write_text(page(kept, deployed_rules()))
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("causes", nargs="*", metavar="CAUSE", help=", ".join(CAUSES))
    sys.exit(1 if asyncio.run(main(parser.parse_args().causes)) else 0)
