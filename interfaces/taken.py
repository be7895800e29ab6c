"""Requests taken from the broker and not settled yet, found by their context.

A context has one turn at a time, so its id finds the request that is in it, and no context variable has to travel with
the turn (docs/decisions/0001). Used by `RabbitMQMessengerInterface`.
"""

from collections import deque
from collections.abc import Hashable

from interfaces.envelope import Request
from interfaces.errors import MisuseError


class Taken:
    """Of each context the requests taken, the one whose turn it is first."""

    def __init__(self) -> None:
        self._requests: dict[str, deque[Request]] = {}

    def add(self, request: Request) -> None:
        """Note a request; its turn comes after those of the requests before it."""
        self._requests.setdefault(request.ctx_id, deque()).append(request)

    def current(self, ctx_id: Hashable) -> Request:
        """The request whose turn this context is in. Raises `MisuseError` where it is in none."""
        requests = self._requests.get(str(ctx_id))
        if not requests:
            raise MisuseError(f"context {ctx_id!r} is in no turn: was its id changed by the pipeline?")
        return requests[0]

    def __len__(self) -> int:
        """How many contexts have any."""
        return len(self._requests)

    def remove(self, request: Request) -> None:
        """Forget a request whose turn has ended. May be repeated."""
        requests = self._requests.get(request.ctx_id)
        if requests and requests[0] is request:
            requests.popleft()
            if not requests:
                del self._requests[request.ctx_id]
