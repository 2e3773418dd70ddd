"""The text of a value, and its words: one treatment for every index and every query.

Words are made here alone: an index is given finished words, and a query asks for such, so every
backend finds the same items. What a word is:

- a run of letters, digits and the marks on them, in one Unicode form (NFKC), without case and
  without accents; everything else (signs, symbols, emoji) separates words or, like soft hyphens
  and joiners, is nothing;
- of `getUserName` also each part, of the version `3.11.7` also `3.11`, of a hash such as
  `c4297b4a4a06ecea` also its beginnings;
- in scripts that are written without spaces between words (Chinese, Japanese, Thai and the like;
  Korean, too, whose words carry their particles) each character, and each pair of neighbours: what
  a query says is found wherever it stands.

English endings are removed by Porter's algorithm; words of other languages are left as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from typing import Any

from kvstore.caching import Known
from kvstore.paths import parse_path, resolve_all

__all__ = ["WORDS_REVISION", "contains", "fold", "query_words", "text_of", "texts_of", "words_of"]

WORDS_REVISION = 2  # grows whenever `words_of` gives other words: an older index is made anew
WHOLE = "$"  # the path of the whole value
MAX_QUERY_CHARS = 4096  # of a query by words; the rest is ignored
MAX_QUERY_WORDS = 64

# Words that tell texts apart least, and what an apostrophe leaves of others
_STOP_WORDS = frozenset(
    """
    a about am an and any are as at be because been being but by can could did didn do does doesn
    doing don for from had has have he her here hers him his how i if in into is isn it its just
    ll me my no not of on or our ours re s she should so some such t than that the their them then
    there these they this those to too ve very was we were what when where which who whom whose
    why will with would you your yours
    """.split()  # noqa: SIM905 - one can read it
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


def contains(key: str, value: Any, folded: str) -> bool:
    """Whether an item's key, or a string or number of its value, contains a folded text."""
    return folded in fold(key) or any(folded in fold(leaf) for leaf in _leaves(value))


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


def words_of(texts: Iterable[str]) -> list[str]:
    """Return the words of some texts, as an index holds them; a word that is there twice, twice.

    A word is of lower-case ASCII letters, digits and inner full stops, or has other letters; it
    has no space in it and never begins with a full stop.
    """
    found: list[str] = []
    for text in texts:
        if text.isascii():
            found += chain.from_iterable(map(_INDEXED.__getitem__, _ascii_words(text)))
            continue
        for segment in _segments(text):
            if len(segment) > 1 and _UNSPACED_CHAR.match(segment):
                found += segment
                found += map("".join, pairwise(segment))
            else:
                found += _INDEXED[segment]
    return found


def query_words(query: str) -> tuple[str, ...]:
    """Return the words that a query looks for, whatever it holds: at most 64, none of them twice.

    Stop words are left out, unless there is nothing else.
    """
    readable = query[:MAX_QUERY_CHARS].encode("utf-8", "replace").decode()
    segments = list(_segments(readable))
    telling = [segment for segment in segments if _folded(segment) not in _STOP_WORDS]
    words: dict[str, None] = {}
    for segment in telling or segments:
        if len(segment) > 1 and _UNSPACED_CHAR.match(segment):
            words.update(dict.fromkeys(map("".join, pairwise(segment))))
        else:
            words.update(dict.fromkeys(_asked(segment)))
    return tuple(words)[:MAX_QUERY_WORDS]


_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u3096\u309d-\u30fa\u30fc-\u312f\u31a0-\u31bf"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_CHAR = re.compile(f"[{_UNSPACED}]")
_SEGMENT = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]{{1,128}}")
_VERSION = re.compile(r"[0-9]\.[0-9]")
_ASCII_WORD = re.compile(r"[a-zA-Z]{,128}[0-9]{1,128}(?:\.[0-9]{1,128}){1,5}|[a-zA-Z0-9]{1,128}")
_ASCII_PLAIN_WORD = re.compile(r"[a-zA-Z0-9]{1,128}")
_WORD = re.compile(r"[^\s.0-9]{,128}[0-9]{1,128}(?:\.[0-9]{1,128}){1,5}|[^\s.]+")


def _segments(text: str) -> Iterator[str]:
    """Cut a text into words as they are written, and into runs of an unspaced script."""
    if text.isascii():
        yield from _ascii_words(text)
        return
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).translate(_CHARS)):
        yield from _SEGMENT.findall(word)


def _ascii_words(text: str) -> list[str]:
    pattern = _ASCII_WORD if _VERSION.search(text) else _ASCII_PLAIN_WORD
    return pattern.findall(text)


# Written inside of words: soft hyphen, joiners, tatweel, variation selectors, fillers
_NOTHING = re.compile(
    "[\u00ad\u034f\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u200c\u200d\u2060\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\U000e0100-\U000e01ef]"
)


def _kept(code: int) -> str | None:
    """Return what a character is to a text that is cut into words: itself, a space, or nothing."""
    char = chr(code)
    if char == ".":
        return char
    if _NOTHING.match(char):
        return None
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    is_han = "\U00020000" <= char <= "\U0003ffff"  # what this Python does not know yet, too
    is_part = char.isalnum() or is_han or unicodedata.category(char) in ("Mn", "Mc")
    return char if is_part else " "


_CHARS = Known(_kept)


def _indexed(segment: str) -> tuple[str, ...]:
    """Return what an index holds of a word as it is written."""
    head, version = _head_and_version(segment)
    if version:
        ends = [at for at, char in enumerate(version) if char == "."][1:]
        numbers = version.split(".")
        shorter = [version[:end] for end in ends]
        return (*(_words(head) if head else ()), *numbers, *shorter, version)
    words = _words(segment)
    if words and _HASH.match(words[0]):
        most = min(len(words[0]), _LONGEST_BEGINNING + 1)
        return (*words, *(words[0][:end] for end in range(_SHORTEST_BEGINNING, most)))
    return words


_INDEXED = Known(_indexed, longest=64)


def _asked(segment: str) -> tuple[str, ...]:
    """Return what a query wants of a word as it is written."""
    head, version = _head_and_version(segment)
    if version:
        return (*(_words(head) if len(head) > 1 else ()), version)
    words = _words(segment)
    if words and len(words[0]) > _LONGEST_BEGINNING and _HASH.match(words[0]):
        return (*words, words[0][:_LONGEST_BEGINNING])  # it may be a beginning itself
    return words


_HEAD = re.compile(r"[^0-9.]*")
_HASH = re.compile("(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{8,}$")
_SHORTEST_BEGINNING, _LONGEST_BEGINNING = 4, 12  # of a hash, in characters


def _head_and_version(segment: str) -> tuple[str, str]:
    """Take `v1.2` and `python3.11` apart; a word without a full stop is no version."""
    if "." not in segment:
        return segment, ""
    match = _HEAD.match(segment)
    assert match is not None
    return match.group(), segment[match.end() :]


def _words(segment: str) -> tuple[str, ...]:
    """Return a word, and its parts if it is written in camel case."""
    whole = _stemmed(segment)
    if not whole:
        return ()
    if segment.islower() or segment[1:].islower():
        return (whole,)
    parts = [_stemmed(part) for part in _humps(segment)]
    return (whole, *filter(None, parts)) if len(parts) > 1 else (whole,)


def _humps(segment: str) -> list[str]:
    """Cut `getHTTPServer` into `get`, `HTTP` and `Server`."""
    begins = [
        at
        for at in range(1, len(segment))
        if segment[at].isupper()
        and (segment[at - 1].islower() or segment[at + 1 : at + 2].islower())
    ]
    return [segment[begin:end] for begin, end in pairwise([0, *begins, len(segment)])]


def _stemmed(segment: str) -> str:
    folded = _folded(segment)
    return stem(folded) if folded.isascii() and folded.isalpha() else folded


def fold(text: str) -> str:
    """Return a text in one Unicode form, without case, accents and what is nothing in a word."""
    if text.isascii():
        return text.lower()
    return _folded(_NOTHING.sub("", unicodedata.normalize("NFKC", text)))


def _folded(segment: str) -> str:
    if segment.isascii():
        return segment.lower()
    parts = unicodedata.normalize("NFD", segment.casefold())
    return unicodedata.normalize("NFC", parts.translate(_BARE))


# Accents (not the vowels of Indian scripts), the points of Arabic and Hebrew, and letters that
# have no accent but a stroke
_BARE = dict.fromkeys(
    code
    for first, last in (
        (0x0300, 0x036F), (0x0591, 0x05BD), (0x05BF, 0x05BF), (0x05C1, 0x05C2), (0x05C4, 0x05C5),
        (0x05C7, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F), (0x0670, 0x0670), (0x06D6, 0x06DC),
        (0x06DF, 0x06E4), (0x06E7, 0x06E8), (0x06EA, 0x06ED), (0x08CA, 0x08E1), (0x08E3, 0x08FF),
    )
    for code in range(first, last + 1)
) | str.maketrans({
    "ł": "l", "đ": "d", "ø": "o", "ħ": "h", "ŧ": "t", "\u0131": "i", "ð": "d", "þ": "th", "æ": "ae",
    "œ": "oe",
})  # fmt: skip


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
