"""Lines of the log: what a stranger has written in them passes for none of ours."""

import io
import logging
from collections.abc import Iterator

import pytest

from worker.cli.logs import log_to_stderr

FORGED = "hello\n2026-01-01 00:00:00,000 ERROR   running: all is lost\x1b[2J\u202e\r\x85"


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    log_to_stderr("info")
    yield log
    root.setLevel(level)


def test_further_lines_are_indented_and_nothing_is_a_command_to_the_terminal(lines: io.StringIO) -> None:
    logging.getLogger("worker.turns").warning("request %s", FORGED)
    first, second = lines.getvalue().splitlines()
    assert first.endswith("WARNING turns: request hello")
    assert second == r"    2026-01-01 00:00:00,000 ERROR   running: all is lost\x1b[2J\u202e\r\x85"


def test_a_traceback_is_indented_too(lines: io.StringIO) -> None:
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("worker.turns").exception("the bot failed")
    first, *more = lines.getvalue().splitlines()
    assert first.endswith("ERROR   turns: the bot failed")
    assert more
    assert all(line.startswith("    ") and line.isprintable() for line in more)


def test_lines_that_are_indented_already_are_left_as_they_are(lines: io.StringIO) -> None:
    logging.getLogger("worker.supervisor").error("its last lines:\n    one\n    two")
    assert lines.getvalue().splitlines()[1:] == ["    one", "    two"]
