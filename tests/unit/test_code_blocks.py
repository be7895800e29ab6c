"""Every code block of the documentation says its language and is that; `test_documentation.py` runs what can run."""

import configparser
import json
import subprocess
import tomllib
from collections.abc import Callable

import pytest
import yaml

from tests.code_blocks import DATA, LANGUAGES, PAGES, SHELL, Block, blocks_of, calls, complaint, unmade_targets

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SCRIPTS = [block for block in BLOCKS if block.language == SHELL]


def sections(text: str) -> list[str]:
    parser = configparser.ConfigParser(strict=False)
    parser.read_string(text)
    return parser.sections()


PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "toml": tomllib.loads,
    "ini": sections,
}


def test_there_is_a_parser_for_each_language_of_data() -> None:
    assert PARSERS.keys() == set(DATA)


def place(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("block", BLOCKS, ids=place)
def test_every_block_says_in_which_language_it_is(block: Block) -> None:
    assert block.language in LANGUAGES


@pytest.mark.parametrize("block", SCRIPTS, ids=place)
def test_every_block_of_the_shell_is_one(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", SCRIPTS, ids=place)
def test_every_call_of_the_command_has_commands_and_options_that_there_are(block: Block) -> None:
    assert [(call, told) for call in calls(block.text) if (told := complaint(call))] == []


@pytest.mark.parametrize("block", SCRIPTS, ids=place)
def test_every_target_of_make_is_there(block: Block) -> None:
    assert unmade_targets(block.text) == []


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in PARSERS], ids=place)
def test_every_block_of_data_parses(block: Block) -> None:
    assert PARSERS[block.language](block.text)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("switchboard sned ada Hello", "there is no command sned"),
        ("docker run image switchboard dead replay --al", "No such option"),
        ("A=b .venv/bin/switchboard topology reshard --shards 0 2>log &", "0 is not in the range"),
        ("kubectl exec worker -- switchboard status --json && switchboard send ada", "Missing argument 'TEXT'"),
    ],
)
def test_a_call_that_the_command_would_refuse_is_found(script: str, told: str) -> None:
    assert [told in str(complaint(call)) for call in calls(script)][-1:] == [True]


def test_a_call_in_a_comment_and_a_name_that_is_no_call_are_none() -> None:
    assert list(calls("kubectl -n switchboard get pods  # switchboard nothing\necho switchboard")) == []
