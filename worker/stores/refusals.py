"""What Redis refuses in the middle of the work, although it allowed it before: waited out for a while, then final.

Users and their permissions are not copied to replicas, are reloaded, and are changed in two commands: every worker of a
namespace meets that at once, and must not end for it. What was never allowed is somebody's mistake, told at once
(docs/decisions/0020). `Servers` asks it about every refusal.
"""

import time
from typing import Final

REFUSED_SECONDS: Final = 60.0
"""How long what was allowed before may be refused. A process cannot learn a new password, and the one that is started
in its place can."""


LOGIN: Final = b""
"""The kind of all calls together: a refused login concerns also what this process has not called yet."""


class Refusals:
    """Which kinds of calls were allowed, and since when they are refused."""

    def __init__(self) -> None:
        self._refused_since: dict[bytes, float | None] = {}
        """By kind of call, those that were ever allowed."""

    def note_allowed(self, kind: bytes) -> None:
        """The server has carried such a call out."""
        self._refused_since[kind] = self._refused_since[LOGIN] = None

    def may_pass(self, kind: bytes) -> bool:
        """Note a refusal; whether it is to be waited out."""
        if kind not in self._refused_since:
            return False
        now = time.monotonic()
        since = self._refused_since[kind]
        if since is None:
            self._refused_since[kind] = since = now
        return now - since < REFUSED_SECONDS
