"""How a pattern is taken apart: its literal head, its one key, and what is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kvstore import InvalidKeyError, InvalidPatternError, escape
from kvstore.patterns import compile_pattern
from kvstore.testing import GLOBS, UNCLOSED_PATTERNS


@pytest.mark.parametrize(("pattern", "matching", "others"), GLOBS, ids=ascii)
def test_meaning(pattern: str, matching: list[str], others: list[str]) -> None:
    compiled = compile_pattern(pattern)
    assert [key for key in matching if not compiled.matches(key)] == []
    assert [key for key in others if compiled.matches(key)] == []


@pytest.mark.parametrize(
    ("pattern", "head", "after_head", "literal"),
    [
        ("", "", None, ""),
        ("temp", "temp", "temq", "temp"),
        ("temp_*", "temp_", "temp`", None),
        ("a[b]c*", "abc", "abd", None),
        ("[*]", "*", "+", "*"),
        ("*a", "", None, None),
        ("a?b", "a", "b", None),
        ("[ab]", "", None, None),
        ("a\ud7ff*", "a\ud7ff", "a\ue000", None),
        ("a\U0010ffff*", "a\U0010ffff", "b", None),
        ("\U0010ffff*", "\U0010ffff", None, None),
    ],
    ids=ascii,
)
def test_head_and_literal(
    pattern: str, head: str, after_head: str | None, literal: str | None
) -> None:
    compiled = compile_pattern(pattern)
    assert (compiled.head, compiled.after_head, compiled.literal) == (head, after_head, literal)


def test_what_matches_all_is_known() -> None:
    assert compile_pattern("*").matches_all
    assert compile_pattern("***").matches_all
    for pattern in ("", "a*", "*a", "?", "?*", "[*]"):
        assert not compile_pattern(pattern).matches_all


@pytest.mark.parametrize("pattern", UNCLOSED_PATTERNS)
def test_a_class_that_is_never_closed_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidPatternError, match=r"'\[\[\]'|escape"):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", [None, 5, b"*", ["*"], "a\ud800*"], ids=ascii)
def test_what_is_no_pattern_is_refused(pattern: Any) -> None:
    with pytest.raises(InvalidPatternError):
        compile_pattern(pattern)


def test_escape() -> None:
    assert escape("a*b?[c]") == "a[*]b[?][[]c]"
    assert escape("plain ^-]") == "plain ^-]"
    assert escape("") == ""
    for bad in (None, b"*", "\ud800"):
        with pytest.raises(InvalidKeyError):
            escape(bad)  # type: ignore[arg-type]


def test_many_stars_take_no_exponential_time() -> None:
    compiled = compile_pattern("*a" * 50 + "*b")
    assert not compiled.matches("a" * 5_000)
    assert compiled.matches("a" * 5_000 + "b")


def test_a_pattern_tells_how_long_a_match_is_at_least() -> None:
    texts = {"": 0, "*": 0, "ab": 2, "a?c": 3, "*[ab]*?x": 3, "[]]": 1, "[^]a]?": 2, "[a-a]*": 1}
    for text, width in texts.items():
        assert compile_pattern(text).width == width, text


@pytest.mark.parametrize("part", ["?", "[ab]", "[^x]?", "a*", "*?", "*a?", "[a-c]x*"])
def test_a_long_pattern_takes_a_moment_until_a_key_is_as_long(part: str) -> None:
    pattern = compile_pattern(part * 40_000)
    began = time.process_time()
    for _ in range(1000):
        assert not pattern.matches("abc" * 10)
    assert time.process_time() - began < 0.1  # an expression would take longer to compile


def test_a_class_of_many_members_is_the_set_of_them() -> None:
    pattern = compile_pattern(f"[{'ab' * 50_000}]x")
    assert pattern.matches("bx")
    assert not pattern.matches("cx")


def test_a_long_pattern_with_stars_alone_takes_no_expression() -> None:
    long = "x" * 100_000
    for text, key in ((f"*{long}", f"y{long}"), (f"{long}*y*", f"{long}yy"), (long, long)):
        pattern = compile_pattern(text)
        assert pattern.runs is not None  # to compile an expression takes seconds
        assert pattern.matches(key)
        assert not pattern.matches(key.replace("x", "z", 1))
