"""`InMemoryStore`: the contract in plain Python, and the model for the other backends.

Rows hold encoded values, as a file would, so nothing stored is shared with the caller. Every
primitive runs without awaiting, so each is atomic on the event loop.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

from kvstore import codec
from kvstore.filters import Filter, matches
from kvstore.instants import to_datetime, to_micros
from kvstore.namespace import decode_namespace, subtree_range
from kvstore.operations import (
    Check,
    Delete,
    Mutate,
    Operation,
    Put,
    Remove,
    Sweep,
    Touch,
    check_version,
)
from kvstore.patterns import Pattern
from kvstore.store import NamespaceQuery, Page, Selection, Store
from kvstore.text import contains
from kvstore.types import IndexConfig, Item, Namespace, make_item

__all__ = ["InMemoryStore"]

_Address = tuple[str, str]  # path and key; sorts as (namespace, key)
_ABOVE_ALL_KEYS = "\U0010ffff"


@dataclass(slots=True)
class _Row:
    data: bytes
    version: int
    created_at: int
    updated_at: int
    ttl: int | None
    expires_at: int | None
    indexing: tuple[str, ...] | None

    def is_live(self, now: int) -> bool:
        return self.expires_at is None or self.expires_at > now


class InMemoryStore(Store):
    """A store in the memory of this process, for tests, prototypes and caches.

    It has the whole contract but for one thing: it does not last. What it holds survives
    `close()` and a new `open()` of the same object.
    """

    _rows: dict[_Address, _Row]

    def __init__(self, *, index: IndexConfig | None = None, **options: Any) -> None:
        super().__init__(index=index, **options)
        self._rows = {}
        self._order: list[_Address] = []  # all addresses, sorted, where it is not None
        self._is_sorted = True
        self._version = 0

    @classmethod
    def with_embeddings(cls, model: Any, **options: Any) -> Self:
        """Short for `InMemoryStore(index=IndexConfig(model))`."""
        return cls(index=IndexConfig(model), **options)

    async def _open(self) -> None:
        """Nothing to acquire."""

    async def _close(self) -> None:
        """Nothing to release."""

    def _now(self) -> int:
        return to_micros(self._clock())

    # Read

    def _peek(self, namespace: Namespace, path: str, key: str) -> list[Item]:
        row = self._live(path, key, self._now())
        return [] if row is None else [_item(namespace, key, row)]

    async def _get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        now = self._now()
        rows = ((key, self._live(path, key, now)) for key in keys)
        return [_item(namespace, key, row) for key, row in rows if row is not None]

    async def _select(self, path: str, selection: Selection) -> list[Item]:
        found = []
        for address, row in self._range(path, selection.subtree):
            value = codec.decode(row.data)
            if matches(selection.filter, value) and (
                selection.text is None or contains(value, selection.text)
            ):
                found.append((address, row))
        found.sort(key=lambda entry: (-entry[1].updated_at, entry[0]))
        page = islice(found, selection.offset, selection.offset + selection.limit)
        return [_item(decode_namespace(path), key, row) for (path, key), row in page]

    async def _list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        paths = dict.fromkeys(path for (path, _), _ in self._range("", subtree=True))
        found = (decode_namespace(path) for path in paths)
        cut = dict.fromkeys(labels[: asked.max_depth] for labels in found if asked.matches(labels))
        return list(islice(cut, offset, None if limit is None else offset + limit))

    async def _keys(
        self, path: str, pattern: Pattern, subtree: bool, limit: int | None
    ) -> list[str]:
        found = (key for (_, key), _ in self._range(path, subtree) if pattern.matches(key))
        return list(islice(found, limit))

    async def _count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        return sum(pattern.matches(key) for (_, key), _ in self._range(path, subtree))

    async def _page(
        self,
        path: str,
        pattern: Pattern,
        filter: Filter,
        subtree: bool,
        after: _Address | None,
        limit: int,
    ) -> Page:
        rows = self._range(path, subtree, after)
        matching = (entry for entry in rows if pattern.matches(entry[0][1]))
        page = list(islice(matching, limit))
        items = [_item(decode_namespace(path), key, row) for (path, key), row in page]
        passing = [item for item in items if matches(filter, item.value)]
        return Page(passing, page[-1][0] if len(page) == limit else None)

    def _live(self, path: str, key: str, now: int) -> _Row | None:
        row = self._rows.get((path, key))
        return row if row is not None and row.is_live(now) else None

    def _range(
        self, path: str, subtree: bool, after: _Address | None = None
    ) -> Iterator[tuple[_Address, _Row]]:
        """Yield the live rows of a namespace or a subtree, in order."""
        now = self._now()
        if not self._is_sorted:
            self._order = sorted(self._rows)
            self._is_sorted = True
        order = self._order
        low, high = subtree_range(path)
        begin = bisect_left(order, (low, "")) if after is None else bisect_right(order, after)
        if not subtree:
            end = bisect_right(order, path, key=lambda address: address[0])
        else:
            end = len(order) if high is None else bisect_left(order, (high, ""))
        for at in range(begin, end):
            row = self._rows[order[at]]
            if row.is_live(now):
                yield order[at], row

    # Write

    async def _apply(self, ops: Sequence[Operation]) -> list[Any]:
        now = self._now()
        for op in ops:
            if isinstance(op, (Put, Delete, Check)):
                row = self._live(op.path, op.key, now)
                check_version(op, row.version if row is not None else 0)
        return [self._apply_one(op, now) for op in ops]

    def _apply_one(self, op: Operation, now: int) -> Any:
        match op:
            case Put():
                row = self._write(op, op.data, now, op.indexing, op.keep)
                return _item(op.namespace, op.key, row)
            case Mutate():
                row_before = self._live(op.path, op.key, now)
                data, answer = op.change(None if row_before is None else row_before.data)
                if data is not None:
                    self._write(op, data, now, None, keep=True)
                return answer
            case Delete():
                found = self._live(op.path, op.key, now) is not None
                if found:
                    self._discard((op.path, op.key))
                return found
            case Remove():
                doomed = [
                    address
                    for address, _ in self._range(op.path, op.subtree)
                    if op.pattern.matches(address[1])
                ]
                for address in doomed:
                    self._discard(address)
                return len(doomed)
            case Touch():
                rows = ((key, self._live(op.path, key, now)) for key in op.keys)
                return {key: _renew(row, now) for key, row in rows if row is not None and row.ttl}
            case Sweep():
                expired = [address for address, row in self._rows.items() if not row.is_live(now)]
                for address in expired[: op.limit]:
                    self._discard(address)
                return len(expired[: op.limit])
        return None

    def _write(
        self, op: Put | Mutate, data: bytes, now: int, indexing: tuple[str, ...] | None, keep: bool
    ) -> _Row:
        self._version += 1
        before = self._live(op.path, op.key, now)
        row = _Row(data, self._version, now, now, op.ttl, None, indexing)
        if op.ttl is not None:
            row.expires_at = now + op.ttl
        if before is not None:
            row.created_at = before.created_at
            row.updated_at = max(now, before.updated_at)
            if keep:
                row.ttl, row.expires_at, row.indexing = (
                    before.ttl,
                    before.expires_at,
                    before.indexing,
                )
        self._is_sorted &= (op.path, op.key) in self._rows
        self._rows[op.path, op.key] = row
        return row

    def _discard(self, address: _Address) -> None:
        self._version += 1
        del self._rows[address]
        self._is_sorted = False


def _renew(row: _Row, now: int) -> int:
    assert row.ttl is not None
    row.expires_at = now + row.ttl
    return row.expires_at


def _item(namespace: Namespace, key: str, row: _Row) -> Item:
    return make_item(
        namespace,
        key,
        codec.decode(row.data),
        to_datetime(row.created_at),
        to_datetime(row.updated_at),
        row.version,
        None if row.expires_at is None else to_datetime(row.expires_at),
    )
