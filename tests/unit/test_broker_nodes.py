"""Several nodes in one broker URL: taken apart, checked, and shown without passwords."""

import pytest
from pydantic import SecretStr

from interfaces.brokers.nodes import node_urls
from interfaces.brokers.opening import open_broker
from interfaces.errors import SettingsInvalid
from worker.cli.servers import shown
from worker.settings import load_settings

NODES = ["amqp://u:hunter2@a:5672/vh", "amqps://u:hunter2@b/vh?heartbeat=5", "amqp://[::1]/vh"]


@pytest.mark.parametrize("between", [",", ", ", " , ", ",\n"])
def test_nodes_are_whole_urls_between_commas(between: str) -> None:
    assert node_urls(between.join(NODES)) == NODES


def test_a_comma_in_a_password_is_part_of_it() -> None:
    assert node_urls("amqp://u:a,b@h/,amqp://u:c,d@h/") == ["amqp://u:a,b@h/", "amqp://u:c,d@h/"]


def test_all_nodes_are_shown_and_no_password() -> None:
    assert shown(SecretStr(",".join(NODES))) == "amqp://a:5672/vh,amqps://b/vh,amqp://[::1]/vh"


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("amqp://u:hunter2@a,b/", "whole URLs"),
        ("amqp://u:hunter2@a:5672,u:hunter2@b:5672/", "whole URLs"),
        ("amqp://u:hunter2@a,http://u:hunter2@b", "must begin with amqp"),
        ("amqp://u:hunter2@a,memory://", "no further nodes"),
        ("amqp://u:hunter2@a/one,amqp://u:hunter2@b/two", "same virtual host"),
    ],
)
def test_what_cannot_be_nodes_of_one_broker_is_refused_and_no_password_told(url: str, fault: str) -> None:
    with pytest.raises(SettingsInvalid, match=fault) as caught:
        load_settings(amqp_url=url)
    assert "hunter2" not in str(caught.value)


def test_the_same_virtual_host_may_be_written_in_several_ways() -> None:
    load_settings(amqp_url="amqp://a,amqp://b/,amqp://c/%2F")


def test_a_broker_opened_by_url_alone_is_checked_as_well() -> None:
    with pytest.raises(SettingsInvalid, match="same virtual host"):
        open_broker("amqp://a/one,amqp://b/two")
