"""The search index of `InMemoryStore`: every search looks at every entry."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from operator import itemgetter

from kvstore import codec
from kvstore.context import CONTEXT_HITS, Neighbour, in_context
from kvstore.description import Description, IndexSetup
from kvstore.index_plan import VectorFinder, Wanted, Words, adopt
from kvstore.namespace import root_of
from kvstore.operations import Record
from kvstore.plan import Address, Vectors
from kvstore.ranking import Hit, WordWeights, cosines_of
from kvstore.text import WORDS_REVISION

__all__ = ["MemoryIndex"]


@dataclass(slots=True)
class _Entry:
    """What the index holds of an item: its vectors, by the codes of its texts, and its words."""

    vectors: dict[bytes, bytes]
    words: Words


class MemoryIndex:
    """The search index: every search looks at every entry.

    Args:
        setup: of the store.

    Attributes:
        setup: see above.
        description: of the index.
        pending: the items some of whose texts have no vectors, those of an import, and their
            versions.
    """

    def __init__(self, setup: IndexSetup) -> None:
        self.setup = setup
        self.description = Description(setup.fields, setup.model, None, words=WORDS_REVISION)
        self._entries: dict[Address, _Entry] = {}
        self._roots: dict[str, dict[Address, Words]] = {}  # those of the entries, by root
        self.pending: dict[Address, int] = {}
        self._order: list[tuple[int, Address]] | None = []  # all that are pending, and more

    def finder(self) -> VectorFinder:
        """Return what finds the vectors of the items of one unit."""
        return VectorFinder(self.description, self.setup)

    def adopt(self, rows: Mapping[Address, Record]) -> int:
        """Make it the store's, of which those are all items; return how many are marked."""
        is_dropped, is_marked = adopt(self.description, self.setup)
        if is_dropped:
            for entry in self._entries.values():
                entry.vectors = {}
        if is_marked:
            self.pending = {address: row.version for address, row in rows.items()}
            self._order = None
        return len(self.pending)

    def marked(self, after: int, limit: int) -> list[Address]:
        """Return the first pending items of later versions, by their versions."""
        if self._order is None:
            self._order = sorted((version, address) for address, version in self.pending.items())
        begin = bisect_right(self._order, after, key=itemgetter(0))
        later = (self._order[at] for at in range(begin, len(self._order)))
        there = (address for version, address in later if self.pending.get(address) == version)
        return list(islice(there, limit))

    def plan(
        self,
        finder: VectorFinder,
        row: Record,
        known: Vectors | None,
        refused: Collection[str] = (),
    ) -> Wanted:
        """Find out what the index is to hold of an item."""
        wanted = Wanted.of_row(codec.decode(row.data), row.indexing, self.description, known)
        entry = self._entries.get((row.path, row.key))
        finder.find(wanted, () if entry is None else entry.vectors, known, refused)
        return wanted

    def put(self, row: Record, wanted: Wanted) -> None:
        """Index what was planned of an item, and nothing else of it."""
        address, description = (row.path, row.key), self.description
        marked = self.pending.get(address)
        before = self.discard(address)
        if not wanted.codes:
            return
        if wanted.own and description.model is None:
            description.model = self.setup.own
        vectors: dict[bytes, bytes] = {}
        if description.model is not None:
            held = {**(before.vectors if before is not None else {}), **wanted.vectors}
            found = ((code, held.get(code)) for code in wanted.codes)
            vectors = {code: vector for code, vector in found if vector is not None}
            if len(vectors) < len(wanted.codes):
                self.pending[address] = row.version
                if marked != row.version:
                    self._order = None
            for vector in filter(None, vectors.values()):
                description.dimensions = len(vector) // 4
        words = Words(wanted.texts.values(), address[0])
        self._entries[address] = _Entry(vectors, words)
        self._roots.setdefault(root_of(address[0]), {})[address] = words

    def discard(self, address: Address) -> _Entry | None:
        """Take an item out."""
        self.pending.pop(address, None)
        entry = self._entries.pop(address, None)
        if entry is not None:
            root = root_of(address[0])
            del self._roots[root][address]
            if not self._roots[root]:
                del self._roots[root]
        return entry

    def sample(self, scope: Iterable[Address], limit: int) -> list[tuple[str, str, bytes]]:
        """Return path, key and a vector of at most so many of the items that have one."""
        held = ((at, entry) for at in scope if (entry := self._entries.get(at)) is not None)
        found = ((*at, next(filter(None, entry.vectors.values()), b"")) for at, entry in held)
        return list(islice((each for each in found if each[2]), limit))

    def by_meaning(self, scope: Iterable[Address], vector: bytes, wanted: int) -> list[Hit]:
        """Return the first of some items by the cosine of their best vectors; `b""` has none."""
        if not vector:
            return []
        held = [
            (address, each)
            for address in scope
            if (entry := self._entries.get(address)) is not None
            for each in entry.vectors.values()
            if each
        ]
        best: dict[Address, float] = {}
        cosines = cosines_of([each for _, each in held], vector)
        for (address, _), cosine in zip(held, cosines, strict=True):
            best[address] = max(best.get(address, -2.0), cosine)
        first = nsmallest(wanted, best.items(), key=lambda found: (-found[1], found[0]))
        return [Hit(cosine, address, 0) for address, cosine in first]

    def weigh(self, words: Sequence[str], path: str, *, subtree: bool) -> WordWeights:
        """Return what a query's words weigh in a namespace or subtree.

        Below a root, that goes by the entries of this root alone.
        """
        roots = self._roots
        some = roots.values() if subtree and not path else [roots.get(root_of(path), {})]
        entries = [entry for each in some for entry in each.values()]
        holding = [sum(word in entry.counts for entry in entries) for word in words]
        return WordWeights(words, holding, len(entries), sum(entry.length for entry in entries))

    def in_context(self, scope: Sequence[Address], weights: WordWeights, context: int) -> list[Hit]:
        """Rank items by the words of each, and of its neighbours.

        Args:
            scope: all live items where it looks.
            weights: of the words of the query.
            context: how many neighbours on each side count.
        """
        own = self.by_words(scope, weights)[:CONTEXT_HITS]
        asked = [word for word, _ in weights.found]
        items = []
        for address in scope:
            entry = self._entries.get(address)
            counts = [0 if entry is None else entry.words.counts[word] for word in asked]
            items.append(Neighbour(address, counts, 0 if entry is None else entry.words.length))
        return in_context(items, {hit.place for hit in own}, context, weights)

    def by_words(self, scope: Iterable[Address], weights: WordWeights) -> list[Hit]:
        """Rank items by BM25."""
        entries = self._entries
        asked = [word for word, _ in weights.found]
        hits = []
        for address in scope:
            entry = entries.get(address)
            if entry is not None:
                weight = weights.weigh(
                    [entry.words.counts[word] for word in asked], entry.words.length
                )
                if weight:
                    hits.append(Hit(weights.score(weight), address, 0))
        return sorted(hits, key=lambda hit: (-hit.score, hit.place))
