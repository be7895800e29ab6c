"""Which request queues a command is about: as the store's plan says, or the broker's queues where there is none."""

from interfaces.brokers import Broker
from interfaces.errors import StoreRefused, Unavailable
from worker.cli.servers import is_memory, opened_store
from worker.generations import find_plan
from worker.plan import Plan
from worker.settings import Settings


async def look_up_plan(broker: Broker, settings: Settings) -> Plan | None:
    """The plan in use, `None` where no request queue exists. Nothing is declared or written."""
    stored = None
    if not is_memory(settings.redis_url):
        try:
            async with opened_store(settings) as store:
                stored, _ = await store.read_plan()
        except (Unavailable, StoreRefused):
            stored = None  # These commands show the broker; `doctor` tells what is the matter with Redis.
    return await find_plan(broker, settings.topology) if stored is None else Plan.read(stored)
