"""The text of a value, and its words."""

from __future__ import annotations

import sys
import time

import pytest

from kvstore.text import contains, fold, query_words, text_of, words_of


def test_strings_and_numbers_make_a_line_each() -> None:
    value = {"title": "One", "rows": [2, 3.5, True, None, b"bytes", {"x": "four"}]}
    assert text_of(value) == "One\n2\n3.5\nfour"
    assert text_of(None) == ""


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("straße", True),
        ("STRASSE", True),
        ("42", True),
        ("key", False),
        ("true", False),
        ("cafe\u0301", True),
        ("ＣＡＦÉ", True),
        ("theme", True),
        ("ΛΌΓΟΣ", True),
    ],
)
def test_a_part_is_found_whatever_the_case_and_form(part: str, found: bool) -> None:
    value = {"key": ["Große Straße", 420, True, "Café", "λόγος"]}
    assert contains("Dark.Theme", value, fold(part)) is found


def test_no_part_reaches_over_two_texts() -> None:
    assert not contains("k", ["one", "two"], "one\ntwo")


@pytest.mark.parametrize(
    ("text", "queries"),
    [
        ("call getUserName() now", ["getUserName", "getusername", "user name", "get_user_name"]),
        ("class HTTPServer2Go", ["http", "HTTPServer2Go", "httpserver2go"]),
        ("read kvstore/sqlite/store.py", ["sqlite", "store.py", "kvstore/sqlite/store.py"]),
        ("snake_case and kebab-case", ["snake", "snake_case", "kebab"]),
        ("at commit c4297b4a4a06ecea", ["c4297b4", "c4297b4a4a06ecea", "C429"]),
        ("c4297b4a4a06ecea1f0d3e5b7a9c1d2e3f405162", ["c4297b4a4a06ecea", "C4297B4A4A06ECEA1F0D"]),
        ("fixed by c4297b4a4a06", ["c4297b4a4a06ecea1f0d3e5b7a9c1d2e3f405162"]),
        ("Python 3.11.7, v1.2.3rc1", ["3.11", "3.11.7", "1.2.3", "v1.2.3", "1.2", "rc1"]),
        ("python3.11", ["python 3.11", "3.11", "python"]),
        ("it costs 3.50", ["3.50"]),
        ("Zażółć gęślą jaźń, łódź", ["zazolc", "lodz", "ŁÓDŹ"]),
        ("Đorđe", ["dorde", "ĐORĐE"]),
        ("Straße, Maß", ["strasse", "STRASSE", "mass"]),
        ("ο λόγος", ["ΛΌΓΟΣ", "λογοσ", "λόγος"]),
        ("İstanbul'da", ["istanbul", "ISTANBUL"]),
        ("كِتَابٌ", ["كتاب", "كتـاب"]),
        ("إسلام", ["اسلام"]),
        ("שָׁלוֹם", ["שלום"]),
        ("٣٤", ["34"]),
        ("soft\u00adhyphen", ["softhyphen"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("ﬁne", ["fine"]),
        ("running runs", ["run"]),
        ("東京都庁", ["東京", "京都", "東京都庁", "庁"]),
    ],
)
def test_what_is_written_is_found(text: str, queries: list[str]) -> None:
    words = set(words_of([text]))
    for query in queries:
        asked = query_words(query)
        assert asked, query
        assert set(asked) & words, query


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("3.1.1", "3.11"),
        ("1.2.30", "1.2.3"),
        ("c4297b4a4a06ecea", "c4297b5"),
        ("c4297b4a4a06ecea", "c4297b4a4a07ecea"),
        ("20261128050222", "2026"),
        ("हिन्दी", "हन्द"),
        ("東京 都", "京都"),
        ("over\nlap", "overlap"),
    ],
)
def test_what_is_not_written_is_not_found(text: str, query: str) -> None:
    assert not set(query_words(query)) & set(words_of([text]))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\U0001f917"), ("", "\U0001f600"), ("\U0001f916", ""), ("\u20ba", ""), ("\u20bd", ""),
        ("\u2068", "\u2069"), ("\u061c", ""), ("\uf007", ""), ("\u26a0\ufe0f", ""), ("$", "%"),
        ("1\ufe0f\u20e3", ""), ("\u200b", "\u200b"), ("\ufeff", ""), ("«", "»"), ("\U000e0067", ""),
    ],
)  # fmt: skip
def test_what_is_no_letter_is_no_part_of_a_word(before: str, after: str) -> None:
    assert "alic" in words_of([f"{before}Alice{after}"])


def test_a_query_drops_what_tells_nothing_unless_there_is_nothing_else() -> None:
    assert query_words("What is the dog's name?") == ("dog", "name")
    assert query_words("who are you") == ("who", "ar", "you")
    assert query_words("…") == ()
    assert len(query_words(" ".join(f"w{at}" for at in range(1000)))) == 64


@pytest.mark.slow
def test_every_character_makes_words_that_an_index_takes_as_they_are() -> None:
    """No word has a space or an ASCII sign in it, is empty, or is folded once more."""
    plain = set("abcdefghijklmnopqrstuvwxyz0123456789.")
    for begin in range(0, sys.maxunicode + 1, 64):
        chars = [chr(code) for code in range(begin, begin + 64) if not 0xD800 <= code < 0xE000]
        for word in words_of([" ".join(chars), "".join(f"a{char}b " for char in chars)]):
            assert word
            assert word[0] != "."
            assert not any(char.isspace() for char in word), ascii(word)
            assert all(char in plain for char in word if char.isascii()), ascii(word)


def test_long_words_and_many_take_their_time_and_no_more() -> None:
    begin = time.perf_counter()
    for text in ("a" * 200_000, "aB" * 100_000, "1." * 100_000, "é" * 100_000, "東" * 100_000):
        assert max(map(len, words_of([text]))) <= 800
    assert time.perf_counter() - begin < 10
