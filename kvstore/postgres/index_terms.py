"""Words and namespaces as numbers: the terms of the search index, because words may be long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Self

from kvstore.caching import Known, cache_short
from kvstore.index_plan import Words

__all__ = ["Terms", "namespace_term", "subtree_term", "term_of"]


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)


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
