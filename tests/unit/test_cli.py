"""The command's surface: help, flags made from settings, errors and exit codes, schemas. No server is needed."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from interfaces.brokers import QueueState
from interfaces.errors import AskTimeout, BrokerRefused, ExitCode, MisuseError, StoreUnavailable, SwitchboardError
from interfaces.messages import Contact, Image, MediaGroup, Message
from worker.cli import SUBCOMMANDS, switchboard
from worker.cli.commands import ALL_FIELDS, SERVER_FIELDS, exit_code
from worker.cli.output import print_json, print_line, print_table, said
from worker.cli.servers import shown
from worker.cli.topology import Seen
from worker.plan import Generation, Plan
from worker.settings import Settings, load_settings

HEAVY = ("pydantic", "aio_pika", "aiormq", "redis", "rich", "asyncio", "interfaces")


def invoke(*arguments: str, env: dict[str, str] | None = None, stdin: str | None = None) -> Result:
    return CliRunner().invoke(switchboard, list(arguments), env=env, input=stdin, prog_name="switchboard")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SWITCHBOARD_")]:
        monkeypatch.delenv(name)  # those of the test run, which the doctor would wonder about


def paths(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    """The command and every command below it."""
    yield names
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from paths(below, *names, name)


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from worker.cli import main
try:
    main()
except SystemExit:
    pass
sys.exit(', '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Commands:" in done.stdout


def test_help_answers_at_once() -> None:
    def seconds() -> float:
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "worker.cli", "--help"], stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - began

    assert min(seconds() for _ in range(5)) < 0.25


@pytest.mark.parametrize("path", list(paths(switchboard)), ids=" ".join)
def test_every_command_explains_itself_and_shows_examples(path: tuple[str, ...]) -> None:
    result = invoke(*path, "--help")
    assert result.exit_code == 0
    assert "Usage: switchboard" in result.stdout
    if path not in [("topology",), ("context",)]:
        assert "Examples:\n    " in result.stdout
    assert all(len(line) <= 100 for line in result.stdout.splitlines())


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    context = click.Context(switchboard)
    for name, text in SUBCOMMANDS.items():
        command = switchboard.get_command(context, name)
        assert command is not None
        assert (command.help or "").splitlines()[0] == text
        assert command.name == name


def test_every_exit_code_is_told_in_the_help() -> None:
    lines = invoke("--help").stdout.partition("Exit codes:")[2].split()
    assert {int(word) for word in lines if word.isdigit()} == {int(code) for code in ExitCode}


def test_run_has_a_flag_for_every_setting_with_its_variable_and_default() -> None:
    text = " ".join(invoke("run", "--help").stdout.split())
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in text
        assert f"env: SWITCHBOARD_{name.upper()}" in text
    assert "env: SWITCHBOARD_SHARDS; default: 8]" in text


def test_flags_are_made_of_fields_that_exist() -> None:
    assert set(SERVER_FIELDS) <= set(ALL_FIELDS) == set(Settings.model_fields)


def test_bad_settings_are_reported_all_at_once_without_secrets() -> None:
    urls = {"SWITCHBOARD_REDIS_URL": "http://u:hunter2@h", "SWITCHBOARD_AMQP_URL": "x://u:hunter2@h"}
    result = invoke("topology", "show", "--max-length", "0", env={"SWITCHBOARD_SHARDS": "many", **urls})
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith("Error: settings are wrong:\n")
    for name in ("SHARDS", "REDIS_URL", "MAX_LENGTH", "AMQP_URL"):
        assert f"SWITCHBOARD_{name}" in result.stderr
    assert "hunter2" not in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["nonsense"], ["send"], ["run"], ["send", "a", "b", "--nonsense"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == ExitCode.USAGE


def test_an_app_that_cannot_be_loaded_ends_with_3() -> None:
    result = invoke("run", "no_such_module:handler")
    assert result.exit_code == ExitCode.APP
    assert "Error: there is no module 'no_such_module'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["send", "ada", "hi"], "SWITCHBOARD_AMQP_URL"),
        (["chat"], "SWITCHBOARD_AMQP_URL"),
        (["topology", "show"], "SWITCHBOARD_AMQP_URL"),
        (["topology", "apply"], "SWITCHBOARD_AMQP_URL"),
        (["context", "show", "ada"], "SWITCHBOARD_REDIS_URL"),
        (["context", "delete", "ada", "--yes"], "SWITCHBOARD_REDIS_URL"),
    ],
)
def test_a_command_that_needs_a_server_says_which_variable_to_set(arguments: list[str], variable: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert variable in result.stderr


def test_deleting_without_a_terminal_needs_yes() -> None:
    result = invoke("context", "delete", "ada", "--redis-url", "redis://127.0.0.1:1")
    assert result.exit_code == ExitCode.USAGE
    assert "--yes" in result.stderr


@pytest.mark.parametrize("ctx_id", ["", "x" * 201])
def test_a_context_id_that_cannot_exist_ends_with_2(ctx_id: str) -> None:
    assert invoke("context", "show", ctx_id).exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokerRefused(), ExitCode.BROKER),
        (StoreUnavailable(), ExitCode.FAILED),
        (AskTimeout(), ExitCode.NO_REPLY),
        (MisuseError(), ExitCode.USAGE),
    ],
)
def test_exit_codes_follow_the_error(error: SwitchboardError, code: ExitCode) -> None:
    assert exit_code(error) is code


def test_a_server_that_is_away_is_one_message_and_exit_code_1() -> None:
    result = invoke("context", "show", "ada", env={"SWITCHBOARD_REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"})
    assert result.exit_code == ExitCode.FAILED
    assert result.stderr.startswith("Error: ")
    assert "127.0.0.1:1" in result.stderr
    assert "hunter2" not in result.output


def test_doctor_calls_embedded_servers_embedded() -> None:
    result = invoke("doctor", "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["ok"] is True
    assert [check["status"] for check in report["checks"]] == ["ok", "ok", "ok"]


def test_doctor_reports_both_servers_and_ends_with_the_code_of_the_first_that_failed() -> None:
    redis = {"SWITCHBOARD_REDIS_URL": "redis://:hunter2@127.0.0.1:1"}
    result = invoke("doctor", env={"SWITCHBOARD_AMQP_URL": "amqp://u:hunter2@127.0.0.1:1", **redis})
    assert result.exit_code == ExitCode.BROKER
    assert result.stdout.count("fail  ") == 2
    assert result.stdout.count("mend: start it") == 2
    assert "hunter2" not in result.output
    assert invoke("doctor", env=redis).exit_code == ExitCode.STORE


def test_doctor_reports_bad_settings_as_a_check() -> None:
    result = invoke("doctor", "--json", "--shards", "0")
    assert result.exit_code == ExitCode.USAGE
    (check,) = json.loads(result.stdout)["checks"]
    assert "SWITCHBOARD_SHARDS" in check["detail"]


def test_doctor_warns_of_a_variable_that_is_no_setting() -> None:
    result = invoke("doctor", env={"SWITCHBOARD_PREFTECH": "1"})
    assert result.exit_code == 0
    assert "warn  settings: not a setting: SWITCHBOARD_PREFTECH" in result.stdout


def test_schemas_describe_bodies_with_their_version() -> None:
    both = json.loads(invoke("schema").stdout)
    assert json.loads(invoke("schema", "request").stdout) == both["request"]
    assert json.loads(invoke("schema", "reply").stdout) == both["reply"]
    for name in ("request", "reply"):
        assert "version" in both[name]["required"]
        assert both[name]["properties"]["version"]["const"] == 1


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("amqp://user:hunter2@host:5671/vhost?key=hunter2", "amqp://host:5671/vhost"),
        ("redis://:hunter2@[::1]:6379/0", "redis://[::1]:6379/0"),
        ("rediss://host", "rediss://host"),
        (
            "redis+sentinel://:hunter2@a:1,[::1]:2/name/3?sentinel_password=hunter2",
            "redis+sentinel://a:1,[::1]:2/name/3",
        ),
        ("rediss+cluster://user:hunter2@a:1,b:2", "rediss+cluster://a:1,b:2"),
        ("unix:///run/redis.sock?password=hunter2", "unix:///run/redis.sock"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_user_password_and_query(url: str, text: str) -> None:
    field = "amqp_url" if url.startswith("amqp") else "redis_url"
    assert shown(getattr(load_settings(**{field: url}), field)) == text


CONSUMED = QueueState(messages=0, consumers=1)


STEADY = Plan(current=Generation(number=1, shards=2))
MOVING = STEADY.moved_to(2)


@pytest.mark.parametrize(
    ("plan", "shards", "dead", "faults"),
    [
        (STEADY, [CONSUMED, CONSUMED], CONSUMED, []),
        (STEADY, [None, None], None, ["nothing is declared: run `switchboard topology apply`, or start a worker"]),
        (STEADY, [CONSUMED, None], CONSUMED, ["1 request queues are missing"]),
        (STEADY, [CONSUMED, QueueState(5, 0)], CONSUMED, ["no consumer on 1 of 2 request queues"]),
        (
            MOVING,
            [CONSUMED, CONSUMED],
            None,
            ["a change from 2 to 2 shards is under way", "the dead-letter queue is missing"],
        ),
    ],
)
def test_what_is_missing_is_said_with_how_to_mend_it(
    plan: Plan, shards: list[QueueState | None], dead: QueueState | None, faults: list[str]
) -> None:
    queues = plan.current.of(load_settings().topology).shard_queues
    said_of_it = Seen(plan, dict(zip(queues, shards, strict=True)), dead).faults()
    assert len(said_of_it) == len(faults)
    assert all(line.startswith(fault) for line, fault in zip(said_of_it, faults, strict=True))


def test_texts_lose_what_would_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b[31mb\x9b2Jc\x07"
    print_line(("x", "red"), evil)
    print_table(["name"], [[evil]])
    print_json({"text": evil})
    out = capsys.readouterr().out
    assert re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out) is None
    assert json.loads(out[out.index("{") :]) == {"text": evil}


def test_a_table_without_a_terminal_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["queue", "ready"], [["a", "1"], [("longer", "red"), "1000"]], numbers=["ready"])
    assert capsys.readouterr().out == "queue   ready\na           1\nlonger   1000\n"


def test_markup_in_a_text_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("[bold]x[/bold] :smile:")
    assert capsys.readouterr().out == "[bold]x[/bold] :smile:\n"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (None, "(no answer)"),
        (Message(""), "(empty)"),
        (Message("hi"), "hi"),
        (
            Message("see", attachments=[Image(source="https://e.org/a.png"), Image(id="7")]),
            "see\n[image: https://e.org/a.png]\n[image: 7]",
        ),
        (
            Message(attachments=[Contact(phone_number="1", first_name="Ada", last_name=None)]),
            '[contact: {"phone_number":"1","first_name":"Ada"}]',
        ),
        (Message(attachments=[MediaGroup(group=[Image(id="7")])]), "[media_group: image: 7]"),
    ],
)
def test_a_message_is_shown_with_a_line_for_each_attachment(message: Message | None, text: str) -> None:
    assert said(message) == text


def test_python_m_is_the_same_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.cli", "schema", "reply"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["title"] == "Switchboard reply, version 1"
