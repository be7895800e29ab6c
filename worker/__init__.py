"""Runs bots behind a message broker: `Worker` and its `Settings`. What comes in and goes out is in `interfaces`."""

from worker.running import Worker
from worker.settings import Settings

__all__ = ["Settings", "Worker"]
