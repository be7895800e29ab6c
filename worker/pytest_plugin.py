"""The pytest plugin of the testing kit: the fixture `run_bot`, and nothing else.

It is loaded into every test run of an environment that Switchboard is installed in, so it imports nothing of ours
before a test asks for the fixture.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from worker.testing import Running


@pytest.fixture
def run_bot() -> "Callable[..., AbstractAsyncContextManager[Running]]":
    """Run a bot within a test: `async with run_bot(bot) as running`. See `worker.testing.run_bot`."""
    from worker.testing import run_bot

    return run_bot
