"""The search index of `InMemoryStore`: every search looks at every entry."""

from __future__ import annotations

import math
import operator
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvstore.plan import Address
from kvstore.ranking import Hit, relevance, similarity
from kvstore.text import Phrase, prepare, stems

__all__ = ["MemoryIndex"]


@dataclass(slots=True)
class _Entry:
    """What the index holds of an item: the vectors of its texts, and its words."""

    vectors: dict[str, bytes]
    words: list[str]
    counts: Counter[str]


class MemoryIndex:
    """The search index: every search looks at every entry.

    Attributes:
        pending: the items some of whose texts have no vectors: those of an import.
    """

    def __init__(self, *, has_vectors: bool) -> None:
        self._has_vectors = has_vectors
        self._entries: dict[Address, _Entry] = {}
        self._length = 0  # of all entries, in words
        self.pending: set[Address] = set()

    def held(self, address: Address) -> Mapping[str, bytes]:
        """Return the vectors of an item."""
        entry = self._entries.get(address)
        return {} if entry is None else entry.vectors

    def put(self, address: Address, texts: Sequence[str], known: Mapping[str, bytes]) -> None:
        """Index the texts of an item, and nothing else of it."""
        before = self.discard(address)
        if not texts:
            return
        vectors: dict[str, bytes] = {}
        if self._has_vectors:
            held = {**known, **(before.vectors if before is not None else {})}
            vectors = {text: held[text] for text in texts if text in held}
            if len(vectors) < len(texts):
                self.pending.add(address)
        words = [word for text in texts for word in stems(prepare(text))]
        self._length += len(words)
        self._entries[address] = _Entry(vectors, words, Counter(words))

    def discard(self, address: Address) -> _Entry | None:
        """Take an item out."""
        self.pending.discard(address)
        entry = self._entries.pop(address, None)
        if entry is not None:
            self._length -= len(entry.words)
        return entry

    def by_meaning(self, scope: Iterable[Address], vector: bytes) -> list[Hit]:
        """Rank items by the cosine of their best vectors."""
        query = array("f", vector)
        hits = []
        for address in scope:
            entry = self._entries.get(address)
            held = [] if entry is None else [each for each in entry.vectors.values() if each]
            if held:
                best = max(sum(map(operator.mul, query, array("f", each))) for each in held)
                hits.append(Hit(similarity(best), address, 0))
        return sorted(hits, key=lambda hit: (-hit.score, hit.place))

    def by_words(self, scope: Iterable[Address], phrases: Iterable[Phrase]) -> list[Hit]:
        """Rank items by BM25, with the constants of FTS5."""
        wanted = {tuple(word for part in phrase for word in stems(part)) for phrase in phrases}
        weights = dict.fromkeys(self._entries, 0.0)
        mean = self._length / max(1, len(self._entries))
        for phrase in wanted:
            found = {
                address: frequency
                for address, entry in self._entries.items()
                if (frequency := _frequency(entry, phrase))
            }
            others = len(self._entries) - len(found)
            rarity = max(1e-6, math.log((others + 0.5) / (len(found) + 0.5)))
            for address, frequency in found.items():
                length = len(self._entries[address].words) / mean
                weights[address] += rarity * frequency * 2.2 / (frequency + 0.3 + 0.9 * length)
        hits = [
            Hit(relevance(weights[address]), address, 0)
            for address in scope
            if weights.get(address)
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.place))


def _frequency(entry: _Entry, phrase: Phrase) -> int:
    if len(phrase) == 1 or 0 in (entry.counts[word] for word in phrase):
        return entry.counts[phrase[0]] if len(phrase) == 1 else 0
    words, length = entry.words, len(phrase)
    return sum(tuple(words[at : at + length]) == phrase for at in range(len(words) - length + 1))
