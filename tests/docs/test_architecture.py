"""docs/architecture.md speaks of files and names that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
FILES = sorted(set(re.findall(r"\b((?:kvstore|tests|migrations)/[\w/]*\w(?:\.py)?)", PAGE)))
DRAWN = re.findall(r"\b((?:\w+/)*\w+\.py)", PAGE[: PAGE.index("## Where each rule lives")])
LINKS = re.findall(r"\]\(([^)]+)\)", PAGE)
# Words in code that are defined somewhere in the package, each beside the file that has it
NAMES = re.findall(r"`(\w+)` in `([\w/]+\.py)`|`([\w/]+\.py)` \(`(?:\w+\.)?(\w+)`\)", PAGE)


@pytest.mark.parametrize("name", FILES)
def test_files_are_there(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_there(name: str) -> None:
    assert any((ROOT / folder / name).exists() for folder in ("", "kvstore")), name


@pytest.mark.parametrize("link", LINKS)
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()


@pytest.mark.parametrize("found", NAMES)
def test_names_are_in_their_files(found: tuple[str, str, str, str]) -> None:
    name, file, other_file, other_name = found
    text = (ROOT / (file or other_file)).read_text("utf-8")
    assert re.search(
        rf"(def|class) {name or other_name}\b|^{name or other_name} *[:=]", text, re.MULTILINE
    )


def test_something_is_held() -> None:
    assert len(FILES) > 40
    assert len(NAMES) > 8
