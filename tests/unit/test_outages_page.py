"""What docs/outages.md says is there: every test it names, one in every row, and every line that is logged."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/outages.md").read_text().splitlines()
    if line.startswith("| ")
][1:]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def functions_of(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def outage(row: list[str]) -> str:
    return row[0]


def test_there_is_a_table() -> None:
    assert len(ROWS) > 30
    assert {len(row) for row in ROWS} == {6}
    assert len({outage(row) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=outage)
def test_every_row_names_tests_and_all_of_them_exist(row: list[str]) -> None:
    named = NAMED.findall(row[-1])
    assert named
    assert "`" + "`, `".join(f"{path}::{name}" for path, name in named) + "`" == row[-1]
    assert [f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)] == []


@pytest.mark.parametrize("row", ROWS, ids=outage)
def test_every_line_that_is_logged_is_in_the_code_or_in_the_test_of_its_row(row: list[str]) -> None:
    lines = re.findall(r"`([^`]+)`", row[-2])
    assert lines or row[-2] == "nothing"
    sources = [*(ROOT / "interfaces").rglob("*.py"), *(ROOT / "worker").rglob("*.py")]
    sources += [ROOT / path for path, _ in NAMED.findall(row[-1])]
    texts = [source.read_text() for source in sources]
    # What comes after a colon is often an error's own text.
    pieces = [piece for line in lines for piece in re.split(r"…|(?<=: )", line)]
    assert [piece for piece in pieces if not any(piece in text for text in texts)] == []
