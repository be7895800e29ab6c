"""The surface of `switchboard dead`: what it asks for, filters, times, tables on narrow terminals. No server."""

from datetime import UTC, datetime, timedelta

import click
import pytest
from click.testing import CliRunner, Result

from interfaces.brokers import Outgoing, Properties
from interfaces.errors import ExitCode
from tests.unit.deliveries import delivery
from worker.cli import switchboard
from worker.cli.dead_filters import Filter, moment
from worker.cli.dead_tables import print_letter, print_letters
from worker.dead_letters import DeadLetter, read_dead_letter

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LETTER = DeadLetter(
    reason="handler-failed",
    detail="ValueError('a detail that is longer than any terminal is wide " + "x" * 200 + "')",
    request_id="9f1c6a52-8d0e-4b53-9a55-0c2f8f3f1f0a",
    ctx_id="telegram-1234567890",
    slot=7,
    failed_at=AT,
    worker="Interface-8f2c91aa",
    attempts=3,
    size=1234,
    digest="d",
)
UNTOLD = DeadLetter("unknown", "", None, None, None, None, None, None, 0, "e")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(switchboard, ["dead", *arguments], prog_name="switchboard")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(request.param))
    width: int = request.param
    return width


@pytest.mark.parametrize("name", ["replay", "drop"])
def test_what_changes_anything_must_be_told_which(name: str) -> None:
    for arguments in ([], ["--all", "--reason", "bad-json"], ["--all", "order-1"]):
        result = invoke(name, *arguments)
        assert result.exit_code == ExitCode.USAGE
        assert "--all" in result.stderr


def test_dropping_without_a_terminal_needs_yes() -> None:
    result = invoke("drop", "--all", "--amqp-url", "amqp://127.0.0.1:1")
    assert result.exit_code == ExitCode.USAGE
    assert "--yes" in result.stderr


@pytest.mark.parametrize("arguments", [["list"], ["show"], ["replay", "--all"], ["drop", "--all", "--yes"]])
def test_a_server_is_needed(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert "SWITCHBOARD_AMQP_URL" in result.stderr


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02T03:04:05", AT),
        ("2026-01-02T04:04:05+01:00", AT),
        ("2026-01-02T03:04:05Z", AT),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text: str, at: datetime) -> None:
    context = click.Context(switchboard)
    assert moment(context, click.Option(["--since"]), text) == at


@pytest.mark.parametrize(
    ("text", "age"),
    [("90s", timedelta(seconds=90)), ("30m", timedelta(minutes=30)), ("2h", timedelta(hours=2)), ("7d", timedelta(7))],
)
def test_a_time_may_be_an_age(text: str, age: timedelta) -> None:
    before = datetime.now(UTC)
    found = moment(click.Context(switchboard), click.Option(["--since"]), text)
    assert found is not None
    assert before - age <= found <= datetime.now(UTC) - age


@pytest.mark.parametrize("text", ["", "soon", "2h ago", "999999d", "2026-13-01", "-1h"])
def test_what_is_no_time_is_wrong_usage(text: str) -> None:
    result = invoke("list", "--since", text)
    assert result.exit_code == ExitCode.USAGE
    assert "2h, 7d" in result.stderr


@pytest.mark.parametrize(
    ("wanted", "is_match"),
    [
        (Filter(), True),
        (Filter(ids=frozenset({LETTER.request_id or ""})), True),
        (Filter(ids=frozenset({"9f1c6a52"})), False),
        (Filter(workers=frozenset({"8f2c91aa"})), True),
        (Filter(workers=frozenset({"Interface-8f2c91aa"})), True),
        (Filter(workers=frozenset({"8f2c"})), False),
        (Filter(since=AT), True),
        (Filter(until=AT), False),
        (Filter(since=AT, until=AT + timedelta(seconds=1), reasons=frozenset({"bad-json", "handler-failed"})), True),
        (Filter(contexts=frozenset({"telegram-1234567890"}), reasons=frozenset({"bad-json"})), False),
    ],
)
def test_all_that_is_asked_for_must_hold(wanted: Filter, is_match: bool) -> None:
    assert wanted.matches(LETTER) is is_match
    assert bool(wanted) is (wanted != Filter())


def test_what_is_not_told_does_not_match_but_where_nothing_is_asked_for() -> None:
    assert Filter().matches(UNTOLD)
    for wanted in (Filter(since=AT), Filter(until=AT), Filter(workers=frozenset({"w"})), Filter(ids=frozenset({"x"}))):
        assert not wanted.matches(UNTOLD)


@pytest.mark.parametrize("terminal", [80, 100, 160], indirect=True)
def test_a_table_fits_the_terminal_and_keeps_ids_whole(terminal: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_letters([LETTER, UNTOLD])
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= terminal
    assert len(lines) == 1 + 1 + 2 * 2 + 2  # header, rule, two lines each, blank lines around
    text = "\n".join(lines)
    for whole in (LETTER.request_id, LETTER.ctx_id, LETTER.reason, "2026-01-02 03:04:05", "8f2c91aa, 3 tries"):
        assert whole is not None
        assert whole in text
    assert "…" in text


def test_in_a_pipe_it_is_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    print_letters([LETTER, UNTOLD])
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["failed", "at", "reason", "context", "request", "worker", "tries", "size", "detail"]
    assert first.startswith("2026-01-02 03:04:05  handler-failed  telegram-1234567890  9f1c6a52-")
    assert first.endswith("…")
    assert second.split() == ["?", "unknown", "?", "(no", "id)", "(broker)", "0"]


def test_a_body_is_shown_indented_where_it_is_json_and_escaped_where_it_is_no_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for body, told in (
        (b'{"ctx_id":"ada"}', '{\n  "ctx_id": "ada"\n}'),
        (b"\xffx", "\\xffx\n(not UTF-8"),
        (b"x" * 30_000, "(the first 20000 of 30000 bytes)"),
    ):
        message = delivery(body, message_id="m", headers={"mine": {"a": [1]}})
        print_letter(read_dead_letter(Outgoing("", "", body, Properties(message_id="m"))), message)
        out = capsys.readouterr().out
        assert told in out
        assert "mine: {'a': [1]}" in out
