"""Every error redis-py can raise has its meaning for the caller."""

import inspect

import pytest
from redis import exceptions as redis

from interfaces.errors import RequestRejected, StoreRefused, StoreUnavailable
from worker.stores.redis_errors import REFUSED, UNAVAILABLE, NotDurableError, store_error

NEVER_RAISED = {
    redis.RedisError,  # bases
    redis.ResponseError,  # by the code it carries, below
    redis.RedisClusterException,  # the cluster client's own, which is not used
    redis.SlotNotCoveredError,
    redis.CrossSlotTransactionError,
    redis.InvalidPipelineStack,
    redis.IncorrectPolicyType,
    redis.DataError,  # arguments that are not bytes
    redis.PubSubError,
    redis.WatchError,
    redis.ExecAbortError,
    redis.NoSuchFieldsetError,
    redis.LockError,
    redis.LockNotOwnedError,
    redis.ChildDeadlockedError,  # threads of a forked process
}


def test_every_class_of_redis_py_is_mapped_or_known_never_to_be_raised() -> None:
    classes = {item for _, item in inspect.getmembers(redis, inspect.isclass) if issubclass(item, Exception)}
    mapped = {item for item in classes if issubclass(item, REFUSED + UNAVAILABLE)}
    assert classes - mapped == NEVER_RAISED


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        TimeoutError(),
        redis.ConnectionError("gone"),
        redis.TimeoutError("late"),
        redis.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.ReadOnlyError("You can't write against a read only replica."),
        redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
        redis.ClusterDownError("The cluster is down"),
        redis.MasterDownError("Link with MASTER is down"),
        redis.ResponseError("BUSY Redis is busy running a script."),
        redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        redis.ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
        NotDurableError("on 0 of 1 replicas"),
        redis.ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
)
def test_what_may_pass_is_unavailable(error: Exception) -> None:
    assert isinstance(store_error(error), StoreUnavailable)


@pytest.mark.parametrize(
    "error",
    [
        redis.AuthenticationError("invalid username-password pair or user is disabled."),
        redis.NoPermissionError("this user has no permissions"),
        redis.MovedError("12182 127.0.0.1:7002"),
        redis.ResponseError("unknown command 'EVALSHA'"),
    ],
)
def test_what_an_operator_must_mend_is_refused(error: Exception) -> None:
    assert isinstance(store_error(error), StoreRefused)


@pytest.mark.parametrize(
    "error",
    [
        redis.AuthenticationError("Authentication required."),
        redis.ResponseError("Protocol error: unauthenticated multibulk length"),
    ],
)
def test_a_password_that_is_missing_is_told_as_such(error: Exception) -> None:
    assert str(store_error(error)).endswith("Redis asks for a password, and SWITCHBOARD_REDIS_URL gives none")


def test_a_key_of_another_type_concerns_its_context_alone() -> None:
    error = redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value script: x")
    assert isinstance(store_error(error), RequestRejected)
