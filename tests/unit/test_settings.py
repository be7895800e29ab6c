"""Settings: environment and flags, every fault reported at once, and no secret in any text."""

import pytest

from interfaces.errors import ExitCode, SettingsInvalid
from worker.settings import Settings, load_settings


def test_every_field_has_a_description_and_a_default() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_a_flag_comes_before_its_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_SHARDS", "4")
    monkeypatch.setenv("SWITCHBOARD_PREFETCH", "5")
    settings = load_settings(shards="16", prefetch=None)
    assert (settings.shards, settings.prefetch) == (16, 5)


def test_a_flag_of_zero_is_not_taken_for_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_DRAIN_TIMEOUT", "7")
    assert load_settings(drain_timeout=0).drain_timeout == 0


def test_all_faults_are_reported_together_by_the_names_of_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_SHARDS", "many")
    monkeypatch.setenv("SWITCHBOARD_NAMESPACE", "a.b")
    monkeypatch.setenv("SWITCHBOARD_AMQP_URL", "http://user:hunter2@host")
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(prefetch="0")
    text = str(caught.value)
    for name in ("SHARDS", "NAMESPACE", "AMQP_URL", "PREFETCH"):
        assert f"SWITCHBOARD_{name}: " in text
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@host",
        "amqp://user:hunter2/more@host",
        "amqp://user:hunter2@host:port",
        "amqp://user:hunter2@host:0",
        "amqp://user:hunter2@[::1",
        "amqp://user:hunter2\u2100@host",
    ],
)
@pytest.mark.parametrize("field", ["amqp_url", "redis_url"])
def test_a_bad_url_is_refused_without_its_password_anywhere_in_the_error(field: str, url: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(**{field: url})
    assert f"SWITCHBOARD_{field.upper()}: the URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("redis+sentinel://:hunter2@host1,host2:26380", "the path of the URL must be the name"),
        ("redis+sentinel://:hunter2@host1/primary/zero", "the path of the URL must be the name"),
        ("redis+sentinel://:hunter2@host1,/primary", "the URL cannot be read"),
        ("redis+sentinel://:hunter2@host1:0/primary", "the URL cannot be read"),
        ("redis+sentinel://:hunter2/3@host1/primary", "the URL cannot be read"),
        ("redis+sentinel://:hunter2@3@host1/primary", "the URL cannot be read"),
        ("redis+cluster://:hunter2@host1:6379:1", "the URL cannot be read"),
        ("redis+cluster://:hunter2@host1/1", "database 0 only"),
        ("redis+cluster://host1?sentinel_password=hunter2", "for sentinels, and this URL names a cluster"),
        ("redis+other://:hunter2@host1", "must begin with redis:// or rediss:// or unix:// or redis+sentinel://"),
    ],
)
def test_a_bad_address_of_several_servers_is_refused_without_its_password(url: str, hint: str) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        load_settings(redis_url=url)
    assert hint in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_repr_of_settings_shows_no_password() -> None:
    settings = load_settings(amqp_url="amqp://user:hunter2@host", redis_url="redis://:hunter2@host")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in settings.model_dump_json()


def test_a_bad_attachments_url_is_refused_without_its_password() -> None:
    with pytest.raises(SettingsInvalid, match=r"SWITCHBOARD_ATTACHMENTS_URL: .*credentials and options") as caught:
        load_settings(attachments_url="s3://key:hunter2@bucket")
    assert "hunter2" not in str(caught.value)


def test_the_topology_carries_what_the_settings_say() -> None:
    topology = load_settings(namespace="n", shards=3, max_length=9).topology
    assert (topology.namespace, topology.shards, topology.max_length) == ("n", 3, 9)


@pytest.mark.parametrize(("url", "is_embedded"), [("memory://", True), ("memory://x", True), ("amqp://h", False)])
def test_embedded_is_what_never_leaves_the_process(url: str, is_embedded: bool) -> None:
    assert load_settings(amqp_url=url).is_embedded is is_embedded
