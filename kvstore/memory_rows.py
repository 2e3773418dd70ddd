"""The rows of an `InMemoryBackend`, and how they are read."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from heapq import nlargest
from itertools import islice
from operator import attrgetter, itemgetter

from kvstore import codec
from kvstore.backend import Backend, NamespaceQuery, Page, Selection, Settings, Span
from kvstore.context import with_tail
from kvstore.description import IndexSetup, check_index
from kvstore.embedding import Embedder
from kvstore.filters import ALL, Filter, matches
from kvstore.memory_filters import DeclaredRows
from kvstore.memory_index import MemoryIndex
from kvstore.namespace import decode_namespace, subtree_range
from kvstore.operations import Record
from kvstore.past_view import item_of
from kvstore.patterns import EVERY_KEY, Pattern
from kvstore.plan import Address
from kvstore.ranking import Hit, Search, page_of
from kvstore.text import contains
from kvstore.types import IndexConfig, Item, Namespace

__all__ = ["MemoryRows", "in_span"]


class MemoryRows(Backend):
    """Rows in a dict, which can be gone through in order; encoded values, as a file would have."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: dict[Address, Record] = {}
        self._order: list[Address] = []  # all addresses, sorted, while `_is_sorted`
        self._is_sorted = True
        self._soonest: int | None = None  # nothing expires before this
        self._index: MemoryIndex | None = None

    def attach(
        self, settings: Settings, index: IndexConfig | None, embedder: Embedder | None
    ) -> None:
        super().attach(settings, index, embedder)
        if index is not None and self._index is None:
            setup = IndexSetup.of(index, embedder, serves_part=settings.reindex)
            self._index = MemoryIndex(setup)
            if index.filters:
                self._rows = DeclaredRows(index.filters)

    def peek(self, namespace: Namespace, path: str, key: str) -> list[Item]:
        row = self._live(path, key, self.now())
        return [] if row is None else [item_of(namespace, row)]

    async def get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        now = self.now()
        rows = (self._live(path, key, now) for key in keys)
        return [item_of(namespace, row) for row in rows if row is not None]

    async def select(self, path: str, selection: Selection) -> list[Item]:
        found = self._passing(path, selection.subtree, selection.filter, selection.text)
        wanted = selection.offset + selection.limit
        page = nlargest(wanted, found.values(), key=attrgetter("version"))[selection.offset :]
        return [item_of(decode_namespace(row.path), row) for row in page]

    async def list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        paths = dict.fromkeys(path for (path, _), _ in self._range("", subtree=True))
        return asked.cut(map(decode_namespace, paths))[offset:][:limit]

    async def keys(self, span: Span, limit: int | None) -> list[str]:
        matching = span.pattern.matches
        found = (key for (_, key), _ in self._in_span(span) if matching(key))
        return list(islice(found, limit))

    async def count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        return sum(pattern.matches(key) for (_, key), _ in self._range(path, subtree))

    async def page(self, span: Span, filter: Filter, limit: int) -> Page:
        matching = (entry for entry in self._in_span(span) if span.pattern.matches(entry[0][1]))
        page = list(islice(matching, limit))
        items = [item_of(decode_namespace(path), row) for (path, _), row in page]
        passing = [item for item in items if matches(filter, item.value)]
        return Page(passing, page[-1][0] if len(page) == limit else None)

    def _passing(
        self, path: str, subtree: bool, filter: Filter, text: str | None = None
    ) -> dict[Address, Record]:
        """Return the live rows that pass a filter, and have a text in their key or value."""
        live = self._may_pass(path, subtree, filter)
        if filter == ALL and text is None:
            return dict(live)
        passing = {}
        for address, row in live:
            value = codec.decode(row.data)
            if matches(filter, value) and (text is None or contains(address[1], value, text)):
                passing[address] = row
        return passing

    def _may_pass(
        self, path: str, subtree: bool, filter: Filter
    ) -> Iterator[tuple[Address, Record]]:
        """Yield the live rows that declared filters let through, or else all."""
        known = None
        if isinstance(self._rows, DeclaredRows) and not subtree:
            known = self._rows.candidates(path, filter)
        if known is None:
            return self._range(path, subtree)
        now, rows = self.now(), self._rows
        return ((at, rows[at]) for at in known if rows[at].is_live(now))

    def _live(self, path: str, key: str, now: int) -> Record | None:
        row = self._rows.get((path, key))
        return row if row is not None and row.is_live(now) else None

    def _in_span(self, span: Span) -> Iterator[tuple[Address, Record]]:
        """Yield the live rows of a span, whatever their keys, in its order."""
        now = self.now()
        for address in in_span(self._sorted(), span):
            row = self._rows[address]
            if row.is_live(now):
                yield address, row

    def _range(self, path: str, subtree: bool) -> Iterator[tuple[Address, Record]]:
        """Yield the live rows of a namespace or a subtree, in order."""
        return self._in_span(Span(path, EVERY_KEY, subtree))

    def _sorted(self) -> list[Address]:
        """Return all addresses, in order."""
        if not self._is_sorted:
            self._order = sorted(self._rows)
            self._is_sorted = True
        return self._order

    async def records(
        self, path: str, after: Address | None, limit: int
    ) -> tuple[list[Record], Address | None]:
        page = list(islice(self._in_span(Span(path, EVERY_KEY, True, after)), limit))
        return [record for _, record in page], page[-1][0] if len(page) == limit else None

    async def sample_vectors(self, path: str, limit: int) -> list[tuple[str, str, bytes]]:
        addresses = (place for place, _ in self._range(path, True))
        return [] if self._index is None else self._index.sample(addresses, limit)

    async def search(self, path: str, asked: Search) -> list[Item]:
        assert self._index is not None
        rows = self._passing(path, asked.subtree, asked.filter)
        index, vector, words = self._index, asked.vector, asked.words
        check_index(
            *(index.description, index.setup, vector),
            by_words=words is not None,
            is_own=asked.is_own,
        )
        said: list[Hit] = []
        if words:
            weights = index.weigh(words, path, subtree=asked.subtree)
            own = said = index.by_words(rows, weights)
            if asked.context:
                scope = [address for address, _ in self._range(path, asked.subtree)]
                near = index.in_context(scope, weights, asked.context)
                near = [hit for hit in near if hit.place in rows]
                said = with_tail(near, lambda wanted: own[:wanted], len(rows))
        page = page_of(
            asked,
            None if vector is None else lambda wanted: index.by_meaning(rows, vector, wanted),
            None if words is None else lambda wanted: said[:wanted],
        )
        return [
            replace(
                item_of(decode_namespace(hit.place[0]), rows[hit.place]),
                score=hit.score,
            )
            for hit in page
        ]

    async def items_before(self, places: Sequence[Address]) -> list[Item | None]:
        found: list[Item | None] = []
        for path, key in places:
            before = [row for (_, each), row in self._range(path, subtree=False) if each < key]
            found.append(item_of(decode_namespace(path), before[-1]) if before else None)
        return found

    def _note_expiry(self, row: Record) -> None:
        if row.expires_at is not None:
            self._soonest = min(row.expires_at, self._soonest or row.expires_at)


def in_span(order: list[Address], span: Span) -> Iterator[Address]:
    """Yield those of sorted addresses that lie in a span, whatever their keys, in its order."""
    low, high = subtree_range(span.path)
    after, before = span.bounds
    begin = bisect_left(order, (low, "")) if after is None else bisect_right(order, after)
    if before is not None:
        end = bisect_left(order, before)
    elif not span.subtree:
        end = bisect_right(order, span.path, key=itemgetter(0))
    else:
        end = len(order) if high is None else bisect_left(order, (high, ""))
    numbers = range(begin, end)
    return (order[at] for at in (reversed(numbers) if span.reverse else numbers))
