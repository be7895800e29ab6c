"""The script that a page's code blocks become."""

from pathlib import Path

from tests.code_blocks import Block
from tests.page_script import Servers, missing_output, write

SERVERS = Servers("amqp://guest:guest@127.0.0.1:1/", "redis://127.0.0.1:2/0")


def block(language: str, text: str, line: int = 1) -> Block:
    return Block("page.md", line, language, text)


def test_what_does_not_end_is_started_in_the_background_and_waited_for(tmp_path: Path) -> None:
    script = write([block("bash", "A=b switchboard run bot:bot \\\n  --processes 2  # two\nls")], tmp_path, SERVERS)
    assert "A=b switchboard run bot:bot --processes 2 &\nls\nworkers=$((workers + 1)); workers_ready" in script


def test_a_block_that_is_a_file_is_written_and_what_names_it_runs_it(tmp_path: Path) -> None:
    blocks = [block("python", "# hello.py\nx = 1\n"), block("bash", "python hello.py")]
    script = write(blocks, tmp_path, SERVERS)
    assert (tmp_path / "hello.py").read_text() == "# hello.py\nx = 1\n"
    assert script.count("python hello.py") == 1


def test_a_file_that_only_a_checked_block_names_is_run_by_itself(tmp_path: Path) -> None:
    blocks = [block("python", "# hello.py\nx = 1\n"), block("bash", "docker run image python hello.py")]
    script = write(blocks, tmp_path, SERVERS)
    assert script.count("python hello.py") == 1
    assert "docker" not in script


def test_addresses_of_the_machine_become_those_of_the_run(tmp_path: Path) -> None:
    text = "export A=amqp://guest:guest@127.0.0.1:5672/ B=redis://127.0.0.1:6379/0"
    script = write([block("bash", text)], tmp_path, SERVERS)
    assert f"export A={SERVERS.amqp_url} B={SERVERS.redis_url}" in script


def test_a_page_that_shows_what_is_not_printed_is_found() -> None:
    blocks = [block("bash", "echo", 3), block("text", "one\n...\nthree\n", 7)]
    assert missing_output(blocks, "--- block in line 3 ---\none\na line of the log\ntwo\nthree\n") == []
    assert missing_output(blocks, "--- block in line 3 ---\nthree\none\n") == ["three"]
