"""`Past`: a store as it was at a moment, to be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kvstore import codec
from kvstore.arguments import (
    LabelPattern,
    Place,
    check_count,
    check_keys,
    check_limit,
    check_query,
    check_score,
    whole_query,
)
from kvstore.backend import Host, NamespaceQuery, Span
from kvstore.bulk import span_of
from kvstore.description import IndexSetup
from kvstore.errors import InvalidArgumentError
from kvstore.filters import Filter, matches, parse_filter
from kvstore.instants import to_datetime
from kvstore.memory_index import MemoryIndex
from kvstore.namespace import address, check_key, decode_namespace
from kvstore.operations import Record
from kvstore.ordering import first_items, parse_order
from kvstore.own_vectors import Given
from kvstore.past import Moment
from kvstore.text import contains, fold, query_words
from kvstore.types import UNKNOWN, Change, IndexConfig, Item, Namespace, SearchQuery, make_item

__all__ = ["Past", "changes_of", "item_of"]

_PAGE = 500  # items in hand at once


class Past:
    """A store as it was at a moment, as `Store.at` gives it.

    Its methods are those of `Store`, but for what writes. Each raises `HistoryExpiredError` when
    the moment is older than what is kept, and `InvalidArgumentError` when it is in the future.
    """

    def __init__(
        self,
        store: Host,
        index: IndexConfig | None,
        version: int | None,
        instant: int | None,
        root: str | None = None,
    ) -> None:
        self._store = store
        self._index = index
        self._version = version
        self._instant = instant
        self._root = root
        self._moment: Moment | None = None

    async def moment(self) -> Moment:
        """Return which moment that is; it stays the same once it is known."""
        self._store.require_open()
        if self._moment is None:
            self._moment = await self._store.backend.moment(
                self._version, self._instant, self._root
            )
        return self._moment

    async def get(self, namespace: Sequence[str], key: str) -> Item | None:
        """Return the item as it was, or `None` if there was none."""
        moment, recall = self._moment, self._store.backend.recall_past
        if moment is not None and recall is not None:
            item = recall(moment, namespace, key)
            if item is UNKNOWN and self._store.backend.is_turn_over:
                await self._store.backend.give_way()
                item = recall(moment, namespace, key)
            if item is not UNKNOWN:
                return item
        labels, path = address(namespace)
        key = check_key(key)
        if moment is None:
            moment = await self.moment()
        else:
            self._store.require_open()
        items = self._store.backend.past_peek(moment, labels, path, key)
        if items is None:
            rows = await self._store.backend.past_many(moment, path, (key,))
            items = [item_of(labels, row) for row in rows]
        return items[0] if items else None

    async def get_many(self, namespace: Sequence[str], keys: Iterable[str]) -> dict[str, Item]:
        """Return the items that were there, by key, in the order of `keys`."""
        labels, path = address(namespace)
        wanted = check_keys(keys)
        moment = await self.moment()
        rows = await self._store.backend.past_many(moment, path, wanted)
        found = {row.key: item_of(labels, row) for row in rows}
        return {key: found[key] for key in wanted if key in found}

    async def keys(
        self,
        namespace: Sequence[str],
        pattern: str = "*",
        *,
        subtree: bool = False,
        after: Place | None = None,
        before: Place | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[str]:
        """List the keys that were there and match, sorted; with `subtree` by (namespace, key).

        The arguments are those of `Store.keys`.
        """
        span = span_of(namespace, pattern, subtree, after, before, reverse)
        most = check_limit(limit)
        await self.moment()
        if most == 0:
            return []
        found: list[str] = []
        async for row in self._rows(span, _PAGE if most is None else min(most, _PAGE)):
            found.append(row.key)
            if len(found) == most:
                break
        return found

    async def count(
        self, namespace: Sequence[str], pattern: str = "*", *, subtree: bool = False
    ) -> int:
        """Count the items that were there and whose keys match."""
        number = 0
        async for _ in self._rows(span_of(namespace, pattern, subtree)):
            number += 1
        return number

    def scan(
        self,
        namespace: Sequence[str] = (),
        *,
        pattern: str = "*",
        filter: Mapping[str, Any] | None = None,
        subtree: bool = True,
        after: Place | None = None,
        before: Place | None = None,
        reverse: bool = False,
        batch_size: int = _PAGE,
    ) -> AsyncIterator[Item]:
        """Iterate over everything that was there, in (namespace, key) order.

        The arguments are those of `Store.scan`.

        Raises:
            HistoryExpiredError: from the iteration, too: what comes next is not kept any more.
        """
        self._store.require_open()
        size = check_count(batch_size, "batch_size", least=1)
        span = span_of(namespace, pattern, subtree, after, before, reverse)
        return self._items(span, parse_filter(filter), size)

    async def _items(self, span: Span, filter: Filter, size: int) -> AsyncIterator[Item]:
        async for row in self._rows(span, size):
            item = item_of(decode_namespace(row.path), row)
            if matches(filter, item.value):
                yield item

    async def list_namespaces(
        self,
        prefix: LabelPattern = (),
        *,
        suffix: LabelPattern = (),
        max_depth: int | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Namespace]:
        """List the distinct namespaces that held items, sorted; see `Store.list_namespaces`."""
        asked = NamespaceQuery.of(prefix, suffix, max_depth)
        most, first = check_limit(limit), check_count(offset, "offset")
        paths: dict[str, None] = {}
        async for row in self._rows(span_of((), subtree=True)):
            paths[row.path] = None
        return asked.cut(map(decode_namespace, paths))[first:][:most]

    async def search(
        self,
        namespace: Sequence[str],
        query: str | SearchQuery | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        order_by: str | Sequence[str] | None = None,
        limit: int = 10,
        offset: int = 0,
        mode: str = "auto",
        subtree: bool = False,
        min_score: float | None = None,
        vector: Given = None,
    ) -> list[Item]:
        """Find items that were there, by a filter and by words; it looks at each of them.

        The arguments are those of `Store.search`. The words of a query are weighed against the
        items that were there in the namespace.

        Raises:
            InvalidArgumentError: it is by meaning, for which old vectors are not kept.
        """
        rest: Any = limit, offset, mode, subtree, min_score, vector
        asked = SearchQuery(query, filter, order_by, *rest)  # type: ignore[arg-type]
        return await self._find(namespace, whole_query(asked))

    async def _find(self, namespace: Sequence[str], asked: SearchQuery) -> list[Item]:
        span = span_of(namespace, subtree=asked.subtree)
        if asked.mode not in ("auto", "text") or asked.vector is not None:
            raise InvalidArgumentError(
                "the past is searched by filter and by words, mode='auto' or 'text': the vectors "
                "of old items are not kept"
            )
        config = self._index if self._index is not None and self._index.ranks else None
        if asked.mode == "text" and config is None:
            raise InvalidArgumentError("mode='text' needs an index: pass index=IndexConfig()")
        check_query(asked.query)
        parsed, orders = parse_filter(asked.filter), parse_order(asked.order_by)
        first, most = check_count(asked.offset, "offset"), check_count(asked.limit, "limit")
        rows = [row async for row in self._rows(span)]
        items = {(row.path, row.key): item_of(decode_namespace(row.path), row) for row in rows}
        passing = {at for at, item in items.items() if matches(parsed, item.value)}
        if not asked.query or config is None:
            if asked.min_score is not None:
                raise InvalidArgumentError(
                    "min_score is for ranked searches; this one has no query, or no index"
                )
            folded = (fold(asked.query) or asked.query) if asked.query else None
            found = [
                item
                for at, item in items.items()
                if at in passing and (folded is None or contains(item.key, item.value, folded))
            ]
            found.sort(key=lambda item: item.version, reverse=True)
            return first_items(found, orders, first + most)[first:]
        if orders:
            raise InvalidArgumentError("order_by is not for ranked searches: the score orders")
        ranked = _by_words(config, rows, asked.query)
        hits = [(at, score) for at, score in ranked if at in passing]
        least = check_score(asked.min_score) or 0.0
        page = hits[first : first + most]
        return [replace(items[at], score=score) for at, score in page if score >= least]

    async def _rows(self, span: Span, size: int = _PAGE) -> AsyncIterator[Record]:
        moment = await self.moment()
        while not span.is_empty:
            self._store.require_open()
            rows, end = await self._store.backend.past_page(moment, span, size)
            for row in rows:
                yield row
            if end is None:
                return
            span = span.rest(end)


def item_of(namespace: Namespace, row: Record) -> Item:
    """Return the item that a record holds."""
    value = codec.decode(row.data)
    times = row.created_at, row.updated_at, row.expires_at
    return make_item(namespace, row.key, value, row.version, *times)


def changes_of(
    namespace: Namespace, row: Record, at: int | None, ended: Sequence[Any] = ()
) -> list[Change]:
    """Return the changes that an item of the past tells of, the newest first.

    Args:
        namespace: of the item.
        row: as it was.
        at: the instant of its put; `None`: when it was updated.
        ended: the version, the instant and the kind of what ended it; empty: nothing has.
    """
    instant = to_datetime(row.updated_at if at is None else at)
    put = Change("put", namespace, row.key, row.version, instant, item_of(namespace, row))
    if not ended or ended[2] == "put":  # which is told of by what was put then
        return [put]
    version, end, kind = ended
    return [Change(kind, namespace, row.key, version, to_datetime(end)), put]


def _by_words(
    config: IndexConfig, rows: Iterable[Record], query: str
) -> list[tuple[tuple[str, str], float]]:
    """Rank items by the words of a query, best first."""
    index = MemoryIndex(IndexSetup(config.fields))
    finder = index.finder()
    addresses = []
    for row in rows:
        addresses.append((row.path, row.key))
        index.put(row, index.plan(finder, row, None))
    weights = index.weigh(query_words(query), "", subtree=True)
    return [(hit.place, hit.score) for hit in index.by_words(addresses, weights)]
