"""What a URL says of where Redis is."""

import pytest

from worker.stores.address import RedisAddress, parse_address


@pytest.mark.parametrize("url", ["redis://:hunter2@host:6380/3?socket_read_size=1", "unix:///run/redis.sock"])
def test_one_server_is_left_to_the_client_library(url: str) -> None:
    assert parse_address(url) == RedisAddress(url.partition(":")[0], (), None, url)


def test_sentinels_have_hosts_a_name_for_the_primary_and_a_password_of_their_own() -> None:
    url = (
        "redis+sentinel://user:pass%2Fword@one,two:1,[::1]:2/my%20primary/4"
        "?sentinel_password=se%20cret&sentinel_username=s&health_check_interval=9"
    )
    assert parse_address(url) == RedisAddress(
        "redis+sentinel",
        (("one", 26379), ("two", 1), ("::1", 2)),
        "my primary",
        "redis://user:pass%2Fword@one/4?health_check_interval=9",
        "s",
        "se cret",
    )


def test_a_cluster_has_hosts_and_no_database() -> None:
    url = "rediss+cluster://:password@one,two:1?ssl_ca_certs=%2Fca.pem"
    address = parse_address(url)
    assert address.hosts == (("one", 6379), ("two", 1))
    assert address.primary is None
    assert address.server_url == "rediss://:password@one/0?ssl_ca_certs=%2Fca.pem"
    assert address.is_encrypted
    assert address.is_cluster


def test_an_address_shows_no_password() -> None:
    address = parse_address("redis+sentinel://:hunter2@one/primary?sentinel_password=hunter2")
    assert "hunter2" not in repr(address)
