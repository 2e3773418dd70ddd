"""The words of items in a file: what FTS5 is given, and what it takes to weigh them.

FTS5 finds items by words that `kvstore.text` has made, and gives them by its own weight, best
first. Its weight of a word that half of all items hold is next to nothing, and it tells no counts.
So `index_entries` has, beside the item's hashes, how often it holds each word: an item's weight is
computed from that, and FTS5's says how far one must look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b

from kvstore.caching import Known, cache_short
from kvstore.namespace import root_of
from kvstore.ranking import WordWeights
from kvstore.sqlite import driver
from kvstore.sqlite import index_statements as sql

__all__ = ["Weigher", "namespace_words", "pack_counts"]

_CODE_BYTES = 5  # of a word's hash
_RECORD_BYTES = _CODE_BYTES + 1  # a count follows
FEW = 256  # items that hold a word: to have FTS5 rank them takes longer than to look at them
_LEAST_RARITY = 1e-6  # that FTS5 gives a word of many items


# Writing


def pack_counts(counts: Mapping[str, int]) -> bytearray:
    """Return how often each word is there, as `index_entries` has it: hash, count, hash, ..."""
    return bytearray().join(map(_RECORDS.__getitem__, counts.items()))


def _record(counted: tuple[str, int]) -> bytes:
    word, count = counted
    return _code(word) + bytes([count])


_RECORDS = Known(_record, longest=64)


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

    Below a root, that goes by the entries of this root alone: what stands under another one changes
    no ranking, and cannot be guessed from a score.

    Args:
        connection: inside a read transaction.
        words: of the query.
        path: of the namespace where it looks.
        subtree: whether it looks at all below it, too.

    Attributes:
        weights: of the words.
        is_few: whether so few items hold one that each can be looked at, in any order.
    """

    def __init__(
        self, connection: driver.Connection, words: Sequence[str], path: str, subtree: bool
    ) -> None:
        within = ""
        if subtree and not path:
            totals = connection.execute(sql.GET_TOTALS).fetchone()
        else:
            root = root_of(path)
            totals = connection.execute(sql.GET_TOTALS_OF_ROOT, (root,)).fetchone()
            within = _narrowed(root, bool(root))
        entries, length, has_others = totals or (0, 0, False)
        holding = _count_holding(connection, words, within if has_others else "")
        self.weights = WordWeights(words, holding, entries, length)
        self._codes = [_code(word) for word, _ in self.weights.found]
        self.is_few = sum(holding) <= FEW
        self._narrowed = _narrowed(path, subtree)
        if not self.is_few:
            self._learn_ranks(connection, filter(None, holding), is_whole=not has_others)

    def _learn_ranks(
        self, connection: driver.Connection, holding: Iterable[int], *, is_whole: bool
    ) -> None:
        """Find out what an item weighs at most to which FTS5 gives a weight.

        FTS5 goes by the whole file, and by what was deleted, too, so that a word has another weight
        there, and the mean length may be another one.
        """
        found = [word for word, _ in self.weights.found]
        (record,) = connection.execute(sql.GET_FTS5_TOTALS).fetchone()
        rows, *lengths = _varints(record)
        stretch = max(1.0, self.weights.mean * rows / max(1, sum(lengths)))
        everywhere = holding if is_whole else _count_holding(connection, found, "")
        bounds = [
            (most, 2.2 * _fts5_rarity(rows, number) / stretch)
            for (_, most), number in zip(self.weights.found, everywhere, strict=True)
        ]
        self._bounds = sorted(bounds, key=lambda bound: -bound[0] / bound[1])

    @property
    def query(self) -> str:
        """What FTS5 is to find: any of the words, in the namespace or subtree."""
        words = " OR ".join(f'"{word}"' for word, _ in self.weights.found)
        return _both(self._narrowed, f"({words})")

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
        left = weight * (1 + 1e-9)
        most = 1e-9
        for ours, fts5s in self._bounds:  # those first that count for more here than there
            if left <= fts5s:
                most += ours * left / fts5s
                break
            most += ours
            left -= fts5s
        return self.weights.score(most)


def _count_holding(connection: driver.Connection, words: Sequence[str], within: str) -> list[int]:
    """Return how many items hold each of some words, within a namespace's or everywhere."""
    queries = (_both(within, f'"{word}"') for word in words)
    return [connection.execute(sql.COUNT_HOLDING, (query,)).fetchone()[0] for query in queries]


def _both(one: str, other: str) -> str:
    """Return the query of FTS5 for what two find, the first of which may be empty: everything."""
    return " AND ".join(filter(None, [one, other]))


def _narrowed(path: str, subtree: bool) -> str:
    """Return the word for FTS5 that all items of a namespace or subtree have; empty: all do."""
    if not subtree:
        return f'"{_namespace_word(path)}"'
    return f'"{_subtree_word(path)}"' if path else ""


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
