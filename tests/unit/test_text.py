"""The text of a value: its strings and numbers."""

from __future__ import annotations

import pytest

from kvstore.text import contains, text_of


def test_strings_and_numbers_make_a_line_each() -> None:
    value = {"title": "One", "rows": [2, 3.5, True, None, b"bytes", {"x": "four"}]}
    assert text_of(value) == "One\n2\n3.5\nfour"
    assert text_of(None) == ""


@pytest.mark.parametrize(
    ("part", "found"),
    [("straße", True), ("STRASSE", True), ("42", True), ("key", False), ("true", False)],
)
def test_a_part_is_found_whatever_the_case(part: str, found: bool) -> None:
    assert contains({"key": ["Große Straße", 420, True]}, part.casefold()) is found


def test_no_part_reaches_over_two_texts() -> None:
    assert not contains(["one", "two"], "one\ntwo")
