"""Wildcard patterns as PostgreSQL's regular expressions, over escaped keys.

A character up to line feed is two in the column (kvstore/postgres/keys.py), and is one to a
pattern: so `?` is either one character above line feed, or a line feed and its caret letter.
See https://www.postgresql.org/docs/current/functions-matching.html#POSIX-SYNTAX-DETAILS.
"""

from __future__ import annotations

from kvstore.caching import cache_short
from kvstore.patterns import AnyOne, Class, Star, tokenize
from kvstore.postgres.keys import encode_key

__all__ = ["regex_of"]

LONGEST = 200  # characters of a pattern; the server refuses expressions that are too complex
_LAST_ESCAPED = ord("\n")
_ANY = "(?:\n[@-J]|[^\n])"
_SPECIAL = frozenset("\\^$.[]|()?*+{}-")


@cache_short(256)
def regex_of(text: str) -> str | None:
    """Return the expression that matches just what a pattern does; `None`: too complex."""
    if len(text) > LONGEST:
        return None
    parts = ["^"]
    for token in tokenize(text):
        match token:
            case str():
                parts += map(_literal, encode_key(token))
            case AnyOne():
                parts.append(_ANY)
            case Star():
                parts.append(_ANY + "*")
            case Class():
                parts.append(_class(token))
    return "".join([*parts, "$"])


def _literal(char: str) -> str:
    return "\\" + char if char in _SPECIAL else char


def _class(token: Class) -> str:
    """Translate a class: for the escaped characters their letters, for the others a range."""
    ranges = [(ord(low), ord(high)) for low, high in token.ranges if low <= high]
    letters = "".join(
        chr(ord("@") + code)
        for code in range(_LAST_ESCAPED + 1)
        if any(low <= code <= high for low, high in ranges) != token.negated
    )
    others = "".join(
        f"\\U{max(low, _LAST_ESCAPED + 1):08X}-\\U{high:08X}"
        for low, high in ranges
        if high > _LAST_ESCAPED
    )
    choices = [f"\n[{letters}]"] if letters else []
    if token.negated:
        choices.append(f"[^\n{others}]")
    elif others:
        choices.append(f"[{others}]")
    return f"(?:{'|'.join(choices)})" if choices else "(?!)"
