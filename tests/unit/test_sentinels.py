"""Which of several sentinels is believed, and what is said when none can be."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection
from redis.exceptions import ConnectionError as NoConnectionError

from worker.stores.address import parse_address
from worker.stores.clients import primary_client


def state(port: int, epoch: int, **changes: Any) -> dict[str, dict[str, Any]]:
    """What a sentinel says of a primary."""
    healthy = {"is_master": True, "is_sdown": False, "is_odown": False, "num-other-sentinels": 2, "flags": "master"}
    return {"primary": healthy | {"ip": "host", "port": port, "config-epoch": epoch} | changes}


async def primary_by(monkeypatch: pytest.MonkeyPatch, *answers: object) -> object:
    client = primary_client(parse_address("redis+sentinel://a,b,c/primary?sentinel_password=hunter2"), timeout=1)
    sentinels = client.connection_pool.sentinel_manager  # type: ignore[attr-defined]  # of the pool for sentinels
    said = iter(answers)

    async def ask(_sentinel: Redis) -> object:
        return next(said)

    monkeypatch.setattr(sentinels, "_ask", ask)
    try:
        return await sentinels.discover_master("primary")
    finally:
        await client.aclose()


async def test_the_sentinel_that_saw_the_latest_fail_over_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await primary_by(monkeypatch, state(1, 4), state(2, 5), state(1, 3)) == ("host", 2)


async def test_sentinels_that_do_not_answer_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await primary_by(monkeypatch, NoConnectionError("gone"), state(1, 3), NoConnectionError("gone")) == (
        "host",
        1,
    )


async def test_a_primary_that_a_sentinel_calls_down_is_not_taken_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await primary_by(monkeypatch, state(2, 5, is_sdown=True), state(1, 3), {}) == ("host", 1)


async def test_without_a_primary_each_sentinel_is_quoted_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoConnectionError) as caught:
        await primary_by(
            monkeypatch,
            state(1, 5, is_sdown=True, flags="master,s_down"),
            NoConnectionError("gone"),
            {"other": state(1, 1)["primary"]},
        )
    assert str(caught.value) == (
        "no primary 'primary': the sentinel at a:26379: it is master,s_down; "
        "the sentinel at b:26379: ConnectionError: gone; the sentinel at c:26379: knows 'other' only"
    )


async def test_the_primary_and_the_sentinels_get_their_own_passwords_and_the_same_encryption() -> None:
    url = "rediss+sentinel://user:one@a,b/primary/3?sentinel_password=two&ssl_ca_certs=%2Fca.pem"
    client = primary_client(parse_address(url), timeout=7)
    pool: Any = client.connection_pool
    assert issubclass(pool.connection_class, SentinelManagedSSLConnection)
    expected = {"username": "user", "password": "one", "db": 3, "ssl_ca_certs": "/ca.pem", "socket_timeout": 7}
    assert expected.items() <= pool.connection_kwargs.items()
    for sentinel in pool.sentinel_manager.sentinels:
        asked = sentinel.connection_pool
        assert issubclass(asked.connection_class, SSLConnection)
        expected = {"username": None, "password": "two", "ssl_ca_certs": "/ca.pem", "socket_timeout": 1}
        assert expected.items() <= asked.connection_kwargs.items()
    await client.aclose()
