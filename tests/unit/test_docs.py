"""What the documents name must exist: files, links, make targets, reasons, settings."""

import re
from pathlib import Path

import pytest
from myst_parser.slugs import github_slugify

from interfaces.errors import Reason
from tests.code_blocks import PAGES
from tests.telemetry_page import PAGE, with_table
from worker.server_settings import ENV_PREFIX
from worker.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "CHANGELOG.md", *PAGES])


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_anchor_of_a_link_is_a_heading(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", document.read_text())
    pages = [(document.parent / page if page else document, anchor) for page, anchor in links]
    assert [(page.name, anchor) for page, anchor in pages if anchor not in anchors(page)] == []


def anchors(document: Path) -> list[str]:
    """Of its headings, as the pages have them where they are read without the site."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [github_slugify(title.replace("`", "")) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_file_named_in_code_style_exists(document: Path) -> None:
    named = re.findall(r"`((?:interfaces|worker|tests|deploy|docs|examples)/[\w./*-]+)`", document.read_text())
    assert [name for name in named if not list(ROOT.glob(name.rstrip("/")))] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_setting_named_exists(document: Path) -> None:
    named = re.findall(rf"\b{ENV_PREFIX}(?!TEST_)([A-Z_]+[A-Z])\b", document.read_text())
    known = Settings.model_fields.keys()
    assert [name for name in named if not {name.lower(), name.lower().removesuffix("_file")} & known] == []


def test_the_wire_contract_lists_every_reason_and_no_other() -> None:
    table = (ROOT / "docs/wire-contract.md").read_text().partition("| reason |")[2]
    listed = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    assert sorted(set(listed)) == sorted(reason.value for reason in Reason)


def test_the_page_on_telemetry_lists_every_metric_as_the_code_has_it() -> None:
    page = PAGE.read_text()
    assert page == with_table(page), "run: python -m tests.telemetry_page"


def test_every_make_target_the_readme_uses_exists() -> None:
    used = set(re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert used <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= used
