"""Secrets in files that the environment names, and none on a command line."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from interfaces.errors import ExitCode, SettingsInvalid
from worker.cli import switchboard
from worker.cli.passwords import has_password
from worker.settings import Settings, load_settings

URL = "amqp://bot:hunter2@rabbitmq/vhost"
VARIABLE = "SWITCHBOARD_AMQP_URL_FILE"


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "amqp"
    file.write_text(URL + "\n")
    monkeypatch.setenv(VARIABLE, str(file))
    return file


@pytest.mark.usefixtures("secret")
def test_a_secret_is_read_from_its_file_and_nowhere_shown() -> None:
    settings = load_settings()
    assert settings.amqp_url.get_secret_value() == URL
    assert "hunter2" not in repr(settings) + str(settings)
    assert settings == Settings()


@pytest.mark.usefixtures("secret")
def test_another_process_reads_the_file_itself() -> None:
    assert load_settings(shards=3).environment == {"SWITCHBOARD_SHARDS": "3"}


@pytest.mark.usefixtures("secret")
def test_a_setting_in_two_places_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid, match="a flag says otherwise"):
        load_settings(amqp_url="amqp://h")
    monkeypatch.setenv("SWITCHBOARD_AMQP_URL", "amqp://h")
    with pytest.raises(SettingsInvalid, match="both set"):
        load_settings()


@pytest.mark.parametrize("content", ["missing", b"", b"hunter2\xff", b"http://u:hunter2@h"])
def test_a_file_that_is_no_good_is_named_and_its_content_is_not_shown(secret: Path, content: str | bytes) -> None:
    """A worker whose secret was not mounted must not begin on memory://."""
    if isinstance(content, bytes):
        secret.write_bytes(content)
    else:
        secret.unlink()
    with pytest.raises(SettingsInvalid, match="SWITCHBOARD_AMQP_URL") as caught:
        load_settings()
    assert "hunter2" not in repr(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor", "--amqp-url", URL],
        ["send", "ada", "x", "--amqp-url", f"amqp://a,{URL}"],
        ["run", "examples.pizza:bot", "--redis-url", "rediss+sentinel://h/p?sentinel_password=hunter2"],
        ["status", "--redis-url", "redis://:hunter2/unquoted@h"],
        ["context", "import", "redis://:hunter2@h"],
        ["chat", "--encryption-keys", f"k1:{'hunter2' * 12}"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_password_on_a_command_line_is_refused_by_every_command_that_takes_a_url(arguments: list[str]) -> None:
    result = CliRunner().invoke(switchboard, arguments)
    assert result.exit_code == ExitCode.USAGE
    assert "there is a password in it" in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "url", ["amqp://h", "amqp://user@h/v", "redis://h:6379/0", "redis+cluster://h:1,g:2", "memory://"]
)
def test_a_url_without_a_password_may_be_a_flag(url: str) -> None:
    assert not has_password(url)
