"""The words of items in a file: what FTS5 is given, and what it takes to weigh them.

FTS5 finds items by words that `kvstore.text` has made, and gives them by its own weight, best
first. Its weight of a word that half of all items hold is next to nothing, and it tells no counts.
So `index_entries` has, beside the item's hashes, how often it holds each word: an item's weight is
computed from that, and FTS5's says how far one must look.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import starmap

from kvstore.caching import cache_short
from kvstore.ranking import WordWeights
from kvstore.sqlite import driver
from kvstore.sqlite import index_statements as sql

__all__ = ["Weigher", "namespace_words", "pack_counts"]

_CODE_BYTES = 5  # of a word's hash
_RECORD_BYTES = _CODE_BYTES + 1  # a count follows
_LEAST_RARITY = 1e-6  # that FTS5 gives a word of many items


# Writing


def pack_counts(counts: Mapping[str, int]) -> bytearray:
    """Return how often each word is there, as `index_entries` has it: hash, count, hash, ..."""
    return bytearray().join(starmap(_record, counts.items()))


@cache_short(65_536, 64)
def _record(word: str, count: int) -> bytes:
    return _code(word) + bytes([count])


def _code(word: str) -> bytes:
    return blake2b(word.encode(), digest_size=_CODE_BYTES).digest()


@cache_short(4096)
def namespace_words(path: str) -> str:
    """Return the words by which FTS5 narrows a search; no text has words such as these."""
    ends = [at + 1 for at, char in enumerate(path) if char == "\t"]
    return " ".join([_namespace_word(path), *(_subtree_word(path[:end]) for end in ends)])


def _namespace_word(path: str) -> str:
    return ".n" + blake2b(path.encode(), digest_size=10).hexdigest()


def _subtree_word(path: str) -> str:
    return ".s" + blake2b(path.encode(), digest_size=10).hexdigest()


# Searching


class Weigher:
    """What a query's words weigh in the items of a file, at one moment.

    Args:
        connection: inside a read transaction.
        words: of the query.

    Attributes:
        weights: of the words.
    """

    def __init__(self, connection: driver.Connection, words: Sequence[str]) -> None:
        entries, length, record = connection.execute(sql.GET_WORD_TOTALS).fetchone()
        holding = [
            connection.execute(sql.COUNT_HOLDING, (f'"{word}"',)).fetchone()[0] for word in words
        ]
        self.weights = WordWeights(words, holding, entries, length)
        self._codes = [_code(word) for word, _ in self.weights.found]
        # What FTS5's weight of an item may lack: a bit for each word, and more for common ones.
        # FTS5 counts what was deleted, too, so its mean length may be another one.
        rows, *lengths = _varints(record)
        self._slack = sum(
            max(0.0, most - 2.2 * _fts5_rarity(rows, number))
            for (_, most), number in zip(self.weights.found, filter(None, holding), strict=True)
        )
        self._stretch = max(1.0, self.weights.mean * rows / max(1, sum(lengths)))

    def query(self, path: str, subtree: bool) -> str:
        """Return what FTS5 is to find: any of the words, in a namespace or subtree."""
        query = " OR ".join(f'"{word}"' for word, _ in self.weights.found)
        if not subtree:
            return f'"{_namespace_word(path)}" AND ({query})'
        return f'"{_subtree_word(path)}" AND ({query})' if path else query

    def score(self, packed: bytes, length: int) -> float:
        """Return the score of an item.

        Args:
            packed: its words, by `pack_counts`.
            length: how many they are.
        """
        return self.weights.score(self.weights.weigh(self.counts(packed), length))

    def counts(self, packed: bytes) -> list[int]:
        """Return how often an item holds each word that is found."""
        return [_count(packed, code) for code in self._codes]

    def most(self, weight: float) -> float:
        """Return what an item scores at most to which FTS5 gives a weight."""
        return self.weights.score(self._stretch * (weight + self._slack) + 1e-9)


def _count(packed: bytes, code: bytes) -> int:
    at = packed.find(code)
    while at % _RECORD_BYTES > 0 and at >= 0:
        at = packed.find(code, at + 1)
    return packed[at + _CODE_BYTES] if at >= 0 else 0


def _fts5_rarity(entries: int, holding: int) -> float:
    odds = (entries - holding + 0.5) / (holding + 0.5)
    return max(_LEAST_RARITY, math.log(odds)) if odds > 0 else _LEAST_RARITY


def _varints(data: bytes) -> list[int]:
    """Read numbers as SQLite writes them: seven bits a byte, the ninth byte whole."""
    numbers, number, read = [], 0, 0
    for byte in data:
        read += 1
        if read == 9:
            number = number << 8 | byte
        else:
            number = number << 7 | byte & 0x7F
            if byte & 0x80:
                continue
        numbers.append(number)
        number = read = 0
    return numbers or [0]
