"""What docs/exactly-once.md says is there: every crash point in its diagram, and every test that it names."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.unit.test_outages_page import NAMED, functions_of

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (ROOT / "docs/exactly-once.md").read_text().splitlines()
    if re.match(r"\| \d+ \|", line)
]


def point(row: list[str]) -> str:
    return row[0]


def test_the_diagram_numbers_the_points_of_the_table() -> None:
    svg = ElementTree.parse(ROOT / "docs/exactly-once.svg")  # noqa: S314 - a file of our own
    numbers = [
        element.text for element in svg.iter("{http://www.w3.org/2000/svg}text") if (element.text or "").isdigit()
    ]
    assert numbers == [point(row) for row in ROWS] == [str(number) for number in range(1, 10)]


@pytest.mark.parametrize("row", ROWS, ids=point)
def test_every_point_names_tests_and_all_of_them_exist(row: list[str]) -> None:
    assert len(row) == 5
    named = NAMED.findall(row[-1])
    assert named
    assert ", ".join(f"`{path}::{name}`" for path, name in named) == row[-1]
    assert [f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)] == []
