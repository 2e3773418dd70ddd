"""Patterns mean what SQLite's own GLOB means, wherever GLOB says what it means."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import assume, example, given
from hypothesis import strategies as st

from kvstore import InvalidPatternError, escape
from kvstore.patterns import compile_pattern
from kvstore.sqlite import driver

from .strategies import any_text, pattern_texts, patterns, texts

# To GLOB a NUL is the end of the text, and the noncharacters are the replacement character.
MISREAD = frozenset("\x00\ufffd\ufffe\uffff")

_sqlite = driver.connect("file:glob?mode=memory")
close_keys = st.text(st.sampled_from("ab-^][*?é🙂\ue000\n"), max_size=5)


def glob(pattern: str, key: str) -> bool:
    return bool(_sqlite.execute("SELECT ? GLOB ?", (key, pattern)).fetchone()[0])


@given(pattern_texts | st.text(), st.lists(close_keys | texts, max_size=20))
@example("[]-a]", ["]", "-", "a", "b"])
@example("[--a]", ["-", "a", "0", "b"])
@example("[^-]", ["-", "^", "a"])
@example("[a-[]", ["a", "[", "-"])
@example("[c-a]", ["a", "b", "c", "-"])
@example("*[^a]*[^b]", ["ab", "ba", "b", "a"])
def test_patterns_mean_what_glob_means(pattern: str, keys: list[str]) -> None:
    assume(MISREAD.isdisjoint(pattern))
    keys = [key for key in keys if "\x00" not in key]
    try:
        compiled = compile_pattern(pattern)
    except InvalidPatternError:
        assert not any(glob(pattern, key) for key in [*keys, pattern])
    else:
        for key in [*keys, pattern]:
            assert compiled.matches(key) == glob(pattern, key), (pattern, key)


@given(patterns, st.lists(close_keys | texts, max_size=10))
def test_matches_lie_between_the_ends_of_the_head(pattern: str, keys: list[str]) -> None:
    with suppress(InvalidPatternError):
        compiled = compile_pattern(pattern)
        for key in [*keys, pattern, compiled.head]:
            if compiled.matches(key):
                assert key.startswith(compiled.head)
                assert compiled.after_head is None or key < compiled.after_head
            if compiled.literal is not None:
                assert compiled.matches(key) == (key == compiled.literal)
            if compiled.matches_all:
                assert compiled.matches(key)


@given(st.text() | texts, st.text() | texts)
def test_escape_makes_a_pattern_of_just_that_text(text: str, other: str) -> None:
    compiled = compile_pattern(escape(text))
    assert compiled.literal == text
    assert compiled.matches(text)
    assert compiled.matches(other) == (other == text)


@given(st.text() | texts, st.text())
def test_an_escaped_head_finds_what_begins_with_it(head: str, rest: str) -> None:
    compiled = compile_pattern(escape(head) + "*")
    assert compiled.head == head
    assert compiled.matches(head + rest)
    assert compiled.matches(rest) == rest.startswith(head)


@given(any_text)
def test_any_text_is_a_pattern_or_a_named_error(text: str) -> None:
    with suppress(InvalidPatternError):
        compile_pattern(text).matches(text.encode("utf-8", "replace").decode())
