"""Wildcards over keys: the meaning of SQLite's GLOB, for every backend.

`*` is any run of characters, `?` one character, `[abc]`, `[a-z]` and `[^a]` one of (or none of)
a set. Matching is case-sensitive and by code point. A class that is never closed matches nothing
in SQLite; here it is refused. Source of the details (`]` first in a class is itself, a `-` at an
end is itself): `patternCompare` in SQLite's func.c, https://sqlite.org/lang_expr.html#glob.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kvstore.caching import cache_short
from kvstore.errors import InvalidPatternError
from kvstore.namespace import check_key

__all__ = ["AnyOne", "Class", "Pattern", "Star", "compile_pattern", "escape", "tokenize"]

_WILDCARD = re.compile(r"[*?\[]")
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
        regex: matches (with `fullmatch`) just what GLOB does.
    """

    text: str
    literal: str | None
    head: str
    after_head: str | None
    regex: re.Pattern[str]

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
        return self.regex.fullmatch(key) is not None


def escape(text: str) -> str:
    """Make any text a pattern that matches just this text.

    Raises:
        InvalidKeyError: it is not a `str`, or holds a lone surrogate.
    """
    return _WILDCARD.sub(lambda wildcard: f"[{wildcard[0]}]", check_key(text))


@cache_short(1024)
def _compile(text: str) -> Pattern:
    tokens = tokenize(text)
    head = ""
    for token in tokens:
        if not isinstance(token, str):
            break
        head += token
    else:
        return Pattern(text, head, head, _successor(head), re.compile(re.escape(head)))
    return Pattern(text, None, head, _successor(head), _regex(tokens))


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
    return _compile(pattern)


@dataclass(frozen=True, slots=True)
class Star:
    """Any run of characters."""


@dataclass(frozen=True, slots=True)
class AnyOne:
    """One character."""


@dataclass(frozen=True, slots=True)
class Class:
    """One character of some ranges, or of none of them."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def regex(self) -> str:
        """Return it as Python's expressions have it."""
        members = "".join(
            f"{re.escape(low)}-{re.escape(high)}" for low, high in self.ranges if low <= high
        )
        if not members:
            return "." if self.negated else "(?!)"
        return f"[{'^' if self.negated else ''}{members}]"


_Token = str | Star | AnyOne | Class


def tokenize(text: str) -> list[_Token]:
    """Split a pattern into literal characters, stars, any-ones and classes."""
    tokens: list[_Token] = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "*":
            if not (tokens and isinstance(tokens[-1], Star)):
                tokens.append(Star())
        elif char == "?":
            tokens.append(AnyOne())
        elif char == "[":
            token, position = _class(text, position)
            (low, high) = token.ranges[0]
            one_char = len(token.ranges) == 1 and low == high and not token.negated
            tokens.append(low if one_char else token)
        else:
            tokens.append(char)
    return tokens


def _class(text: str, position: int) -> tuple[Class, int]:
    """Parse a class whose `[` stands before `position`; return it and where it ends."""
    opened = position - 1
    negated = text[position : position + 1] == "^"
    if negated:
        position += 1
    ranges: list[tuple[str, str]] = []
    start: str | None = None  # the last member, if it may begin a range
    if text[position : position + 1] == "]":
        ranges.append(("]", "]"))
        position += 1
    while position < len(text) and text[position] != "]":
        char = text[position]
        position += 1
        if char == "-" and start is not None and text[position : position + 1] not in ("", "]"):
            ranges.append((start, text[position]))
            position += 1
            start = None
        else:
            ranges.append((char, char))
            start = char
    if position >= len(text):
        raise InvalidPatternError(
            f"the pattern {text!r} opens a class with '[' at position {opened} and never closes "
            "it; write '[[]' (or use kvstore.escape) for a literal '['"
        )
    return Class(tuple(ranges), negated), position + 1


def _regex(tokens: list[_Token]) -> re.Pattern[str]:
    """Translate tokens into a regular expression that takes linear time a star.

    What stands between two stars is matched at its first place and never again (an atomic
    group): every token but a star is one character wide, so a later place cannot help.
    """
    runs: list[str] = [""]
    for token in tokens:
        if isinstance(token, Star):
            runs.append("")
        elif isinstance(token, str):
            runs[-1] += re.escape(token)
        else:
            runs[-1] += "." if isinstance(token, AnyOne) else token.regex()
    first, *middle = runs
    if not middle:
        return re.compile(first, re.DOTALL)
    last = middle.pop()
    between = "".join(f"(?>.*?{run})" for run in middle)
    return re.compile(f"{first}{between}.*{last}", re.DOTALL)


def _successor(head: str) -> str | None:
    """Return the least text above all that begin with `head`, if there is one."""
    trimmed = head.rstrip(chr(_MAX_CODE_POINT))
    if not trimmed:
        return None
    following = ord(trimmed[-1]) + 1
    if following in _SURROGATES:
        following = _SURROGATES.stop
    return trimmed[:-1] + chr(following)
