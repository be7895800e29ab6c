"""Runs bots behind a message broker: `Worker` and its `Settings`. What comes in and goes out is in `interfaces`.

Both are imported when first asked for: every start of the command passes through here, `switchboard --help` included.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.running import Worker
    from worker.settings import Settings

__all__ = ["Settings", "Worker"]


def __getattr__(name: str) -> Any:
    if name == "Worker":
        from worker.running import Worker

        return Worker
    if name == "Settings":
        from worker.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
