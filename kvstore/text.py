"""The text of a value, and its words: one treatment for every index and every query.

Texts are brought into one Unicode form (NFKC). Scripts that are written without spaces between
words (Chinese, Japanese, Thai and the like; Korean, too, whose words carry their particles) are
taken character by character, and a run of them in a query as the pairs it is made of: a word is
found wherever it stands. English endings are removed by Porter's algorithm.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

from kvstore.paths import parse_path, resolve_all

__all__ = ["Phrase", "contains", "prepare", "query_phrases", "stems", "text_of", "texts_of"]

Phrase = tuple[str, ...]
"""Words that a query wants in this order, next to each other; mostly just one."""

WHOLE = "$"  # the path of the whole value
MAX_QUERY_CHARS = 4096  # of a query by words; the rest is ignored
MAX_PHRASES = 64

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u3096\u309d-\u30fa\u30fc-\u312f\u31a0-\u31bf"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_CHAR = re.compile(f"([{_UNSPACED}])")
_SEGMENT = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")

# Words that tell texts apart least; looking them up costs most
_STOP_WORDS = frozenset(
    [
        "a",
        "about",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "me",
        "my",
        "no",
        "not",
        "of",
        "on",
        "or",
        "our",
        "she",
        "should",
        "so",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)


# The text of a value


def text_of(value: Any) -> str:
    """Return the strings and numbers of a value, a line each, in order."""
    return value if isinstance(value, str) else "\n".join(_leaves(value))


def texts_of(value: Any, fields: Iterable[str]) -> list[str]:
    """Return the distinct texts of a value at some paths, in order; each gets a vector.

    A path that leads nowhere, or to no text, adds none; `[*]` adds one for each element.
    """
    found: dict[str, None] = {}
    for field in fields:
        places = (value,) if field == WHOLE else resolve_all(value, parse_path(field))
        for place in places:
            text = text_of(place)
            if text and not text.isspace():
                found[text] = None
    return list(found)


def contains(value: Any, folded: str) -> bool:
    """Whether one of the value's strings or numbers contains a casefolded text."""
    return any(folded in leaf.casefold() for leaf in _leaves(value))


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case bool() | None | bytes():
            return
        case int() | float():
            yield str(value)
        case dict():
            for element in value.values():
                yield from _leaves(element)
        case list():
            for element in value:
                yield from _leaves(element)


# Its words


def prepare(text: str) -> str:
    """Return a text in the form in which it is split into words."""
    if text.isascii():
        return text
    return _UNSPACED_CHAR.sub(r" \1 ", unicodedata.normalize("NFKC", text))


def query_phrases(query: str) -> tuple[Phrase, ...]:
    """Return what a query looks for, whatever it holds: at most 64 phrases, none of them twice.

    Stop words are left out, unless there is nothing else.
    """
    readable = query[:MAX_QUERY_CHARS].encode("utf-8", "replace").decode()
    words = list(_words(unicodedata.normalize("NFKC", readable)))
    telling = [word for word in words if word.lower() not in _STOP_WORDS]
    phrases: dict[Phrase, None] = {}
    for word in telling or words:
        for segment in _SEGMENT.findall(word):
            if not _UNSPACED_CHAR.match(segment):
                phrases[(segment,)] = None
            elif len(segment) <= 2:
                phrases[tuple(segment)] = None
            else:
                phrases.update(dict.fromkeys(pairwise(segment)))
    return tuple(phrases)[:MAX_PHRASES]


def stems(text: str) -> list[str]:
    """Return the words of a prepared text as an index holds them: folded and stemmed."""
    return [_stem_folded(word) for word in _words(text)]


def _words(text: str) -> Iterator[str]:
    if text.isascii():
        return iter(_ASCII_WORD.findall(text))
    return iter("".join(c if c.isalnum() or _is_mark(c) else " " for c in text).split())


_ASCII_WORD = re.compile("[a-zA-Z0-9]+")


@lru_cache(maxsize=4096)
def _is_mark(char: str) -> bool:
    return unicodedata.category(char).startswith("M")


@lru_cache(maxsize=65536)
def _stem_folded(word: str) -> str:
    folded = word.lower()
    if not folded.isascii():
        parts = unicodedata.normalize("NFD", folded)
        bare = "".join(c for c in parts if not "\u0300" <= c <= "\u036f")
        folded = unicodedata.normalize("NFC", bare)
    return stem(folded) if folded.isascii() else folded


# Porter's algorithm (M. F. Porter, "An algorithm for suffix stripping", Program 14, 1980), as
# SQLite's FTS5 has it

_VOWEL = "(?:[aeiou]|(?<=[^aeiou])y)"
_CONSONANT = "(?:[^aeiouy]|(?<=[aeiou])y|^y)"
_PAIR = re.compile(f"{_VOWEL}+{_CONSONANT}+")
_HAS_VOWEL = re.compile("[aeiou]|(?<=.)y")
_SHORT_END = re.compile("[^aeiou][aeiouy][^aeiouwxy]$")

_STEP_2 = {
    "ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize",
    "logi": "log", "bli": "ble", "alli": "al", "entli": "ent", "eli": "e", "ousli": "ous",
    "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al", "iveness": "ive",
    "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble",
}  # fmt: skip
_STEP_3 = {
    "icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
}  # fmt: skip
_STEP_4 = (
    "ement", "ance", "ence", "able", "ible", "ment", "ant", "ent", "ism", "ate", "iti", "ous",
    "ive", "ize", "ion", "al", "er", "ic", "ou",
)  # fmt: skip


def _measure(part: str) -> int:
    return len(_PAIR.findall(part))


def stem(word: str) -> str:
    """Return the stem of a lower-case ASCII word."""
    if not 3 <= len(word) <= 64:
        return word
    if word.endswith("s"):
        if word.endswith(("sses", "ies")):
            word = word[:-2]
        elif not word.endswith("ss"):
            word = word[:-1]
    word = _step_1b(word)
    if word.endswith("y") and _HAS_VOWEL.search(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2)
    word = _replace(word, _STEP_3)
    for ending in _STEP_4:
        if word.endswith(ending):
            rest = word[: -len(ending)]
            if _measure(rest) > 1 and (ending != "ion" or rest.endswith(("s", "t"))):
                word = rest
            break
    if word.endswith("e"):
        rest = word[:-1]
        measure = _measure(rest)
        if measure > 1 or (measure == 1 and not _SHORT_END.search(rest)):
            word = rest
    if word.endswith("ll") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word


def _step_1b(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        rest = word[: -len(ending)]
        if not word.endswith(ending):
            continue
        if not _HAS_VOWEL.search(rest):
            return word
        if rest.endswith(("at", "bl", "iz")):
            return rest + "e"
        if len(rest) > 1 and rest[-1] == rest[-2] and rest[-1] not in "aeiouylsz":
            return rest[:-1]
        if _measure(rest) == 1 and _SHORT_END.search(rest):
            return rest + "e"
        return rest
    return word


def _replace(word: str, endings: dict[str, str]) -> str:
    for ending, other in endings.items():
        if word.endswith(ending):
            rest = word[: -len(ending)]
            return rest + other if _measure(rest) > 0 else word
    return word
