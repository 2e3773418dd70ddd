"""The changelog and the version agree, and each version has one heading of each kind, in order."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from kvstore.distribution import VERSION

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text("utf-8")
KINDS = ("Breaking", "Storage", "Added", "Changed", "Fixed")
PARTS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
NAMES = [part.split("\n", 1)[0] for part in PARTS]


def released() -> list[str]:
    return [found[1] for name in NAMES if (found := re.match(r"\[(\d+\.\d+\.\d+)\]", name))]


def test_the_version_is_the_latest_or_yet_to_be_released() -> None:
    versions = released()
    assert NAMES[0] == "[Unreleased]" or versions[0] == VERSION, NAMES[0]
    if VERSION in versions:
        assert versions[0] == VERSION
    else:
        assert "\n- " in PARTS[0], f"nothing is said of {VERSION}, which is yet to be released"
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert all(newer > older for newer, older in pairwise(numbers))


def test_each_version_has_one_heading_of_each_kind_in_order() -> None:
    for name, part in zip(NAMES, PARTS, strict=True):
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds], f"{name}: {kinds}"


def test_no_entry_is_there_twice() -> None:
    for name, part in zip(NAMES, PARTS, strict=True):
        entries = [" ".join(entry.split()) for entry in re.split(r"^- ", part, flags=re.MULTILINE)]
        firsts = [entry[:60] for entry in entries[1:]]
        twice = {first for first in firsts if firsts.count(first) > 1}
        assert not twice, f"{name}: {twice}"
