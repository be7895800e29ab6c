"""The pytest plugin of the testing kit: the fixture `run_bot`, and nothing else.

Loaded into every test run where Switchboard is installed, so it imports nothing before the fixture is asked for.
"""

from typing import Any

import pytest


@pytest.fixture
def run_bot() -> Any:
    """Run a bot within a test: `async with run_bot(bot) as running: ...`. See `worker.testing.run_bot`."""
    from worker.testing import run_bot

    return run_bot
