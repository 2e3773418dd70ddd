"""Words, namespaces and scalars as numbers, by which the search index knows them.

A term stands for a word, because words may be long, or for a namespace. A code stands for a scalar
at a path of names; an item's codes are kept in `kvstore_facts`, with a GIN index. A filter by
equality asks for items with one code or another: what comes back may include items that do not
pass, and never leaves one out that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

from kvstore.caching import Known, cache_short
from kvstore.filters import And, Compare, Filter, In, Or
from kvstore.index_plan import Words
from kvstore.paths import Path

__all__ = [
    "MANY",
    "Terms",
    "conditions_of",
    "namespace_term",
    "scalars_of",
    "subtree_term",
    "term_of",
]

MANY = 0  # the code of an item with more scalars than are kept: it may pass any filter
MOST_FACTS = 64
MOST_CHARS = 200  # of a string; longer ones are not looked for
MOST_DEPTH = 4

_SCALARS = (str, int, float, bool, type(None))


def _number(text: str) -> int:
    said = text.encode("utf-8", "backslashreplace")
    return int.from_bytes(blake2b(said, digest_size=8).digest(), signed=True)


# Terms


def namespace_term(path: str) -> int:
    """Return the term of the items of one namespace."""
    return _number("\nn" + path)  # no word has a line feed


def subtree_term(path: str) -> int:
    """Return the term of the items of a namespace and of those below it."""
    return _number("\ns" + path)


@cache_short(4096)
def _namespace_terms(path: str) -> list[int]:
    ends = [0, *(at + 1 for at, char in enumerate(path) if char == "\t")]
    return [namespace_term(path), *(subtree_term(path[:end]) for end in ends)]


_TERMS = Known(_number)


def term_of(word: str) -> int:
    """Return the term of a word."""
    return _TERMS[word]


@dataclass(slots=True)
class Terms:
    """The words of an item, as `kvstore_entries` holds them.

    Attributes:
        numbers: of each word; after them, of the namespace and of those above.
        counts: how often each word is there.
        length: of all texts, in words.
    """

    numbers: list[int]
    counts: list[int]
    length: int

    @classmethod
    def of(cls, texts: Iterable[str], path: str) -> Self:
        """Find those of an item's texts."""
        words = Words(texts, path)
        return cls(
            [*map(_TERMS.__getitem__, words.counts), *_namespace_terms(path)],
            list(words.counts.values()),
            words.length,
        )


# Scalars


def scalars_of(value: Any) -> list[int]:
    """Return the codes of the scalars of a value, sorted."""
    codes = set()
    for path, scalar in _scalars(value, ()):
        codes.add(_code_of(path, scalar))
        if len(codes) > MOST_FACTS:
            return [MANY]
    return sorted(codes)


def _scalars(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        if len(path) < MOST_DEPTH:
            for name, element in value.items():
                yield from _scalars(element, (*path, name))
    elif path and isinstance(value, _SCALARS) and _is_short(value):
        yield path, value


def _is_short(scalar: Any) -> bool:
    return not isinstance(scalar, str) or len(scalar) <= MOST_CHARS


def _code_of(path: tuple[str, ...], scalar: Any) -> int:
    """Return the code of a scalar at a path; those that are equal in JSON have one."""
    if isinstance(scalar, float) and scalar.is_integer():
        scalar = int(scalar)
    return _code((path, type(scalar), scalar))


@cache_short(16_384)
def _code(place: tuple[tuple[str, ...], type, Any]) -> int:
    path, _, scalar = place  # by its type, as 1 is equal to True
    return _number(repr((path, scalar)))


def conditions_of(node: Filter) -> list[list[int]]:
    """Return what an item must have to pass a filter: of each list one code, or `MANY`.

    No list: it may have anything.
    """
    match node:
        case Compare(path, "eq", operand):
            code = _wanted(path, operand)
            return [] if code is None else [[code, MANY]]
        case In(path, operands):
            wanted = [_wanted(path, operand) for operand in operands]
            known = [code for code in wanted if code is not None]
            return [[*known, MANY]] if len(known) == len(wanted) else []
        case And(parts):
            return [condition for part in parts for condition in conditions_of(part)]
        case Or(parts):
            each = [conditions_of(part) for part in parts]
            if not all(each):
                return []
            return [[code for conditions in each for code in conditions[0]]]
    return []


def _wanted(path: Path, operand: Any) -> int | None:
    """Return the code of an equality, or `None` if that is not kept."""
    names = tuple(segment for segment in path if isinstance(segment, str))
    is_kept = (
        0 < len(names) == len(path) <= MOST_DEPTH
        and isinstance(operand, _SCALARS)
        and _is_short(operand)
    )
    return _code_of(names, operand) if is_kept else None
