"""What each failure of Redis or its client means for the caller: the one place where redis-py's errors are mapped.

Where it is open whether a later try can succeed, `Unavailable`; where only an operator can mend it, `StoreRefused`. A
context whose key holds something else concerns that context alone. `RedisStore` is the only caller.
"""

from redis import exceptions as redis

from interfaces.errors import Reason, RequestRejected, StoreRefused, StoreUnavailable, SwitchboardError

REFUSED: tuple[type[Exception], ...] = (
    redis.AuthenticationError,
    redis.AuthenticationWrongNumberOfArgsError,
    redis.AuthorizationError,
    redis.NoPermissionError,
    redis.ModuleError,
    redis.MovedError,  # the URL names one node of a cluster
    redis.ClusterCrossSlotError,
)
"""Looked at first: redis-py derives several of these from its `ConnectionError`, `MovedError` from `AskError`."""

UNAVAILABLE: tuple[type[Exception], ...] = (
    OSError,
    redis.ConnectionError,  # BusyLoadingError, MaxConnectionsError and ExternalAuthProviderError included
    redis.TimeoutError,
    redis.InvalidResponse,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.NoScriptError,
    redis.TryAgainError,
    redis.AskError,
    redis.ClusterError,  # ClusterDownError and MasterDownError included
)

UNAVAILABLE_CODES = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE"})
"""First words of temporary error replies for which redis-py has no class."""


def store_error(error: Exception) -> SwitchboardError:
    """The error to raise instead of `error`, a `RedisError` or `OSError`. The caller raises it `from error`."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, REFUSED):
        return StoreRefused(text)
    if isinstance(error, UNAVAILABLE):
        return StoreUnavailable(text)
    code = str(error).partition(" ")[0]
    if code in UNAVAILABLE_CODES:
        return StoreUnavailable(text)
    if code == "WRONGTYPE":
        return RequestRejected(Reason.CONTEXT_INVALID, "the key of this context holds something that is not a context")
    return StoreRefused(text)
