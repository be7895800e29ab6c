"""What each failure of Redis or its client means for the caller: the one place where redis-py's errors are mapped.

Where it is open whether a later try can succeed, `Unavailable`; where only an operator can mend it, `StoreRefused`. A
context whose key holds something else concerns that context alone. Called where calls to Redis are made.
"""

from redis import exceptions as redis

from interfaces.errors import Reason, RequestRejected, StoreRefused, StoreUnavailable, SwitchboardError
from interfaces.tls import handshake_fault


class NotDurableError(redis.RedisError):
    """A commit was carried out, and its copies could not be confirmed in time."""


REFUSED: tuple[type[Exception], ...] = (
    redis.AuthenticationError,
    redis.AuthenticationWrongNumberOfArgsError,
    redis.AuthorizationError,
    redis.NoPermissionError,
    redis.ModuleError,
    redis.MovedError,  # redis:// names one node of a cluster; a cluster's own redirections never come here
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
    NotDurableError,
)

UNAVAILABLE_CODES = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "UNBLOCKED", "UNKILLABLE"})
"""First words of temporary error replies for which redis-py has no class."""

NO_PASSWORD = ("Authentication required", "unauthenticated multibulk length", "unauthenticated bulk length")
"""Until somebody has logged in, Redis reads no command of more than ten words or 16 KiB: it says so instead of
NOAUTH."""


def store_error(error: Exception) -> SwitchboardError:
    """The error to raise instead of `error`, a `RedisError` or `OSError`. The caller raises it `from error`."""
    text = f"{type(error).__name__}: {error}"
    if (fault := handshake_fault(error)) is not None:
        return StoreRefused(f"connecting to Redis: {fault}")
    if isinstance(error, redis.MovedError):
        return StoreRefused(f"{text}: this is one node of a Redis Cluster, which is named by redis+cluster://")
    if _asks_for_password(error):
        return StoreRefused(f"{text}: Redis asks for a password, and SWITCHBOARD_REDIS_URL gives none")
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


def is_login_refused(error: Exception) -> bool:
    """Whether Redis refuses whoever this process is, rather than the one call."""
    return isinstance(error, redis.AuthenticationError) or _asks_for_password(error)


def _asks_for_password(error: Exception) -> bool:
    return any(sign in str(error) for sign in NO_PASSWORD)
