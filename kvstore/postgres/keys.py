"""Addresses as columns: text without NUL, in an order that is Python's; patterns of such keys.

A key is escaped as the labels of a namespace are (kvstore/namespace.py): the characters up to
line feed become a line feed and their caret letter. That keeps the order, and no NUL gets to the
server, whose texts cannot hold one.

A wildcard pattern becomes a regular expression over escaped keys, in which a character up to line
feed is two, and is one to the pattern: so `?` is either one character above line feed, or a line
feed and its caret letter. See
https://www.postgresql.org/docs/current/functions-matching.html#POSIX-SYNTAX-DETAILS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from kvstore.caching import cache_short
from kvstore.errors import InvalidKeyError
from kvstore.namespace import root_of, show
from kvstore.patterns import AnyOne, Class, Star, tokenize
from kvstore.types import Namespace

__all__ = [
    "SURELY_SHORT",
    "Address",
    "address_columns",
    "check_length",
    "check_lengths",
    "decode_key",
    "encode_key",
    "encode_keys",
    "regex_of",
    "root_of",
]

Address = tuple[str, str]  # path and encoded key

_CONTROL = re.compile(r"[\x00-\n]")
_ESCAPED = re.compile(r"\n(.)", re.DOTALL)
_CARET = {code: "\n" + chr(ord("@") + code) for code in range(ord("\n") + 1)}

# An entry of a B-tree takes a third of a page of 8 KiB at most, and this is within it.
MOST_BYTES = 2_600
SURELY_SHORT = MOST_BYTES // 8  # characters, of 4 bytes, and the root is counted twice

LONGEST = 200  # characters of a pattern; the server refuses expressions that are too complex
_LAST_ESCAPED = ord("\n")
_ANY = "(?:\n[@-J]|[^\n])"
_SPECIAL = frozenset("\\^$.[]|()?*+{}-")


def address_columns(addresses: Iterable[Address]) -> tuple[list[str], Sequence[str]]:
    """Return paths and keys, which are not encoded yet, as the columns path and key."""
    pairs = list(addresses)
    return [path for path, _ in pairs], encode_keys([key for _, key in pairs])


def encode_key(key: str) -> str:
    """Escape the characters up to line feed."""
    if key.isprintable() or not _CONTROL.search(key):  # the first is quick, and mostly true
        return key
    return key.translate(_CARET)


def encode_keys(keys: Sequence[str]) -> Sequence[str]:
    """As `encode_key` of each; mostly they are fine as they are, which one look at all tells."""
    whole = "".join(keys)
    return keys if whole.isprintable() else list(map(encode_key, keys))


def decode_key(key: str) -> str:
    """Undo `encode_key`."""
    if "\n" not in key:
        return key
    return _ESCAPED.sub(lambda escaped: chr(ord(escaped[1]) - ord("@")), key)


def check_lengths(namespace: Namespace, path: str, keys: Sequence[str]) -> None:
    """As `check_length` of each."""
    if len(path) + max(map(len, keys)) > SURELY_SHORT:
        for key in keys:
            check_length(namespace, path, key)


def check_length(namespace: Namespace, path: str, key: str) -> None:
    """Refuse an address that is too long for the server's index.

    Raises:
        InvalidKeyError: it takes too many bytes.
    """
    size = len(root_of(path).encode()) + len(path.encode()) + len(key.encode())
    if size > MOST_BYTES:
        raise InvalidKeyError(
            f"the namespace and the key of {show(namespace, key)[:120]}... take {size:,} bytes, "
            f"and an index of PostgreSQL holds {MOST_BYTES:,} at most; use a shorter key, such as "
            "a hash of this one"
        )


# Patterns


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
