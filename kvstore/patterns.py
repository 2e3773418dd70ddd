"""Wildcards over keys: the meaning of SQLite's GLOB, for every backend.

`*` is any run of characters, `?` one character, `[abc]`, `[a-z]` and `[^a]` one of (or none of)
a set. Matching is case-sensitive and by code point. A class that is never closed matches nothing
in SQLite; here it is refused. Source of the details (`]` first in a class is itself, a `-` at an
end is itself): `patternCompare` in SQLite's func.c, https://sqlite.org/lang_expr.html#glob.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from kvstore.caching import LONGEST, cache_short
from kvstore.errors import InvalidPatternError
from kvstore.namespace import check_key

__all__ = [
    "EVERY_KEY",
    "AnyOne",
    "Class",
    "Pattern",
    "Star",
    "compile_pattern",
    "escape",
    "tokenize",
]

_WILDCARD = re.compile(r"[*?\[]")
# A class ends at the first bracket that is not its first member; one that never does is a bracket.
_PART = re.compile(
    r"(?P<stars>\*+)|(?P<ones>\?+)|(?P<class>\[\^?+\]?+[^\]]*+\]|\[)|(?P<plain>[^*?\[]+)", re.DOTALL
)
_MAX_CODE_POINT = 0x10FFFF
_QUICK_CHARACTERS = 100  # each may be compared with each of the key's
_SURROGATES = range(0xD800, 0xE000)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern.

    Attributes:
        text: the pattern as it was written.
        literal: the one key that it stands for, if it has no wildcard; else `None`.
        head: the text that every match begins with, possibly empty.
        after_head: the least text above all that begin with `head`; `None` if there is none.
        runs: what stands between the stars, of a pattern with no other wildcard; else `None`.
        width: the fewest characters that a match has.
    """

    text: str
    literal: str | None
    head: str
    after_head: str | None
    runs: tuple[str, ...] | None
    width: int

    @property
    def is_quick(self) -> bool:
        """Whether a match takes a time by the length of the key alone."""
        stars = self.text.count("*") - self.text.endswith("*")
        return len(self.text) <= _QUICK_CHARACTERS and stars <= 1

    @property
    def matches_all(self) -> bool:
        """Whether every key matches."""
        return not self.head and not self.text.strip("*") and self.text != ""

    def matches(self, key: str) -> bool:
        """Whether the key matches."""
        if self.literal is not None:
            return key == self.literal
        if len(key) < self.width:  # as nearly all keys are, if the pattern is long
            return False
        if self.runs is not None:
            return _holds_in_order(key, self.runs)
        regex = _regex if len(self.text) <= LONGEST else _long_regex
        return regex(self.text).fullmatch(key) is not None


def _holds_in_order(key: str, runs: tuple[str, ...]) -> bool:
    """Whether a key begins with the first of some texts, ends with the last, and has the others.

    Each is taken where it stands first: a later place cannot help those after it.
    """
    first, *middle, last = runs
    if not key.startswith(first) or not key.endswith(last):
        return False
    at, end = len(first), len(key) - len(last)
    for run in middle:
        found = key.find(run, at, end)
        if found < 0:
            return False
        at = found + len(run)
    return True


def escape(text: str) -> str:
    """Make any text a pattern that matches just this text.

    Raises:
        InvalidKeyError: it is not a `str`, or holds a lone surrogate.
    """
    return _WILDCARD.sub(lambda wildcard: f"[{wildcard[0]}]", check_key(text))


@cache_short(1024)
def _compile(text: str) -> Pattern:
    if "?" not in text and "[" not in text:  # however long, in a moment
        first, *rest = text.split("*")
        runs = (first, *rest)
        width = sum(map(len, runs))
        return Pattern(text, None if rest else first, first, _successor(first), runs, width)
    head, width, is_literal = _measure(text)
    if is_literal:
        return Pattern(text, head, head, _successor(head), (head,), width)
    return Pattern(text, None, head, _successor(head), None, width)


@cache_short(4, 2**20)  # else it would be parsed anew for each key that it is held against
def _compile_long(text: str) -> Pattern:
    return _compile(text)


def _parts(text: str) -> Iterator[re.Match[str]]:
    """Yield the runs of stars, of question marks and of plain characters, and each class."""
    for part in _PART.finditer(text):
        if part[0] == "[":
            raise InvalidPatternError(
                f"the pattern {text!r} opens a class with '[' at position {part.start()} and never "
                "closes it; write '[[]' (or use kvstore.escape) for a literal '['"
            )
        yield part


def _measure(text: str) -> tuple[str, int, bool]:
    """Return the text that every match begins with, a match's fewest characters, if it is one."""
    head: list[str] = []
    width, is_literal = 0, True
    for part in _parts(text):
        written = part[0]
        if not part["stars"]:
            width += 1 if part["class"] else len(written)
        if is_literal:
            literal = written if part["plain"] else _literal_of(written)
            is_literal = literal is not None
            head.append(literal or "")
    return "".join(head), width, is_literal


def _literal_of(written: str) -> str | None:
    """Return the one character that a wildcard stands for, `None` if there are more."""
    if len(written) > len("[a-a]") or written[0] != "[":
        return None
    token = tokenize(written)[0]
    return token if isinstance(token, str) else None


@cache_short(1024)
def _regex(text: str) -> re.Pattern[str]:
    """Translate a pattern into an expression that matches (with `fullmatch`) just what GLOB does.

    It takes linear time a star: what stands between two stars is matched at its first place and
    never again (an atomic group), as every token but a star is one character wide, and so a later
    place cannot help.
    """
    runs: list[str] = [""]
    for token, same in groupby(tokenize(text)):
        if isinstance(token, Star):
            runs.append("")
            continue
        number = sum(1 for _ in same)
        one = re.escape(token) if isinstance(token, str) else token.regex()
        runs[-1] += one if number == 1 else f"(?:{one}){{{number}}}"
    first, *middle = runs
    if not middle:
        return re.compile(first, re.DOTALL)
    last = middle.pop()
    between = "".join(f"(?>.*?{run})" for run in middle)
    return re.compile(f"{first}{between}.*{last}", re.DOTALL)


@cache_short(4, 2**20)
def _long_regex(text: str) -> re.Pattern[str]:
    return _regex(text)


def compile_pattern(pattern: str) -> Pattern:
    """Parse a pattern.

    Raises:
        InvalidPatternError: it is not a `str`, holds a lone surrogate, or opens a class with
            `[` that it never closes.
    """
    if not isinstance(pattern, str):
        raise InvalidPatternError(f"a pattern is a str, not {type(pattern).__name__}")
    try:
        pattern.encode()
    except UnicodeEncodeError:
        raise InvalidPatternError(f"the pattern {pattern!r} holds a lone surrogate") from None
    return _compile(pattern) if len(pattern) <= LONGEST else _compile_long(pattern)


@dataclass(frozen=True, slots=True)
class Star:
    """Any run of characters."""


@dataclass(frozen=True, slots=True)
class AnyOne:
    """One character."""

    def regex(self) -> str:
        """Return it as Python's expressions have it."""
        return "."


@dataclass(frozen=True, slots=True)
class Class:
    """One character of some ranges, or of none of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def regex(self) -> str:
        """Return it as Python's expressions have it."""
        members = "".join(
            f"{re.escape(low)}-{re.escape(high)}"
            for low, high in dict.fromkeys(self.ranges)
            if low <= high
        )
        if not members:
            return "." if self.negated else "(?!)"
        return f"[{'^' if self.negated else ''}{members}]"


_Token = str | Star | AnyOne | Class


def tokenize(text: str) -> list[_Token]:
    """Split a pattern into literal characters, stars, any-ones and classes."""
    tokens: list[_Token] = []
    for part in _parts(text):
        if part["stars"]:
            tokens.append(Star())
        elif part["ones"]:
            tokens += [AnyOne()] * len(part[0])
        elif part["class"]:
            tokens.append(_class(part[0]))
        else:
            tokens += part[0]
    return tokens


def _class(written: str) -> str | Class:
    """Parse a class with its brackets; return the character that it is, if it is but one."""
    negated = written.startswith("[^")
    members = written[2 if negated else 1 : -1]
    at = int(members.startswith("]"))
    ranges: list[tuple[str, str]] = [("]", "]")] * at
    start: str | None = None  # the last member, if it may begin a range
    while at < len(members):
        char = members[at]
        at += 1
        if char == "-" and start is not None and at < len(members):
            ranges.append((start, members[at]))
            at += 1
            start = None
        else:
            ranges.append((char, char))
            start = char
    (low, high) = ranges[0]
    is_one = len(ranges) == 1 and low == high and not negated
    return low if is_one else Class(tuple(ranges), negated)


def _successor(head: str) -> str | None:
    """Return the least text above all that begin with `head`, if there is one."""
    trimmed = head.rstrip(chr(_MAX_CODE_POINT))
    if not trimmed:
        return None
    following = ord(trimmed[-1]) + 1
    if following in _SURROGATES:
        following = _SURROGATES.stop
    return trimmed[:-1] + chr(following)


EVERY_KEY = compile_pattern("*")
