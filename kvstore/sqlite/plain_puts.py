"""Plain puts, which are most of all writes: many share a statement, and none is looked up before.

They come to what `kvstore.plan` decides of them, and a property test holds them against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from kvstore.operations import (
    Operation,
    Put,
)
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite import (
    statements,
)
from kvstore.sqlite.read_cache import Entry
from kvstore.sqlite.reading import checksum
from kvstore.sqlite.rows import NotInlineError
from kvstore.sqlite.sequence_writing import SequenceRows
from kvstore.types import Item, pack_item

__all__ = ["PlainPuts", "is_bare_put"]

_TOLD = 5_000  # plain puts of which each is told to the cache of reads; of more, none is
_ROWS = (128, 64, 32, 16, 8, 4, 2, 1)  # of the statements that many puts share
_UPSERT_ONE = statements.upsert_plain(1)


def is_bare_put(op: Operation) -> bool:
    """Whether an operation is a put without conditions, lifetime or indexing of its own."""
    return (
        type(op) is Put
        and op.expected is None
        and op.ttl is None
        and op.indexing is None
        and not op.keep
    )


class PlainPuts(SequenceRows):
    """Rows, of which many are put at once."""

    def _are_outside(self, puts: Sequence[Operation]) -> bool:
        """Whether no put of some is in a log or a queue."""
        if self._sequences is None:
            return True
        return not self._known_states({op.path for op in puts if type(op) is Put})

    def _put_shares(self, puts: list[Put], shares: list[int]) -> Iterator[list[Any]]:
        """Upsert plain items, and give each unit its share of the answers."""
        items = iter(self._put_plain(puts))
        return ([next(items)] if share == 1 else list(islice(items, share)) for share in shares)

    def _put_plain(self, puts: list[Put]) -> list[Item]:
        """Upsert plain items; of many puts, those that another one replaces write nothing."""
        first = self._version + 1
        self._version += len(puts)
        versions: Sequence[int] = range(first, first + len(puts))
        if len(puts) <= _ROWS[0]:
            return self._put_all(puts, versions)
        if len(puts) > _TOLD:
            self.changed = None
        last = {(op.path, op.key): version for op, version in zip(puts, versions, strict=True)}
        if len(last) == len(puts):
            return self._put_all(puts, versions)
        lasting = sorted(last.values())
        written = self._put_all([puts[version - first] for version in lasting], lasting)
        stored = dict(zip(lasting, written, strict=True))
        items = []
        for op, version in zip(puts, versions, strict=True):
            item: Any = stored[last[op.path, op.key]]
            if version not in stored:
                times = item._created, item._updated
                item = pack_item(op.namespace, op.key, op.data, version, *times, None)
            items.append(item)
        return items

    def _put_one(self, op: Put) -> Item:
        """As `_put_plain`, of the one put of a transaction, which most of them are."""
        self._version = version = self._version + 1
        path, key, data = op.path, op.key, op.data
        code = checksum(path, key, version, data)
        params = self._now, self._most, path, key, version, code, data.decode()
        rows = self._execute(_UPSERT_ONE, params).fetchall()
        return self._stored(op, rows[0]) if rows else self._put_over(op, version)

    def _put_kept(self, ops: Sequence[Operation]) -> Item | None:
        """As `_put_one`, where the past is kept; `None`: it is another unit, or another row."""
        if not (self._keeps and len(ops) == 1 and is_bare_put(ops[0]) and self._are_outside(ops)):
            return None
        op: Any = ops[0]
        version, at = self._version + 1, max(self._now, self._last)
        path, key, data = op.path, op.key, op.data.decode()
        code = checksum(path, key, version, op.data)
        kept = self._execute(sql.KEEP_PLAIN, (version, at, path, key, data, self._most))
        if not kept.rowcount:
            return None
        params = self._now, self._most, path, key, version, code, data
        rows = self._execute(_UPSERT_ONE, params).fetchall()
        self._version, self._last = version, at
        return self._stored(op, rows[0])  # it is there: the conditions are the same

    def _put_all(self, puts: list[Put], versions: Sequence[int]) -> list[Item]:
        """Upsert plain items by as few statements as may be."""
        items: list[Item] = []
        left = len(puts)
        for rows in _ROWS:
            while left >= rows:
                items += self._put_rows(puts, versions, len(items), rows)
                left -= rows
        return items

    def _put_rows(
        self, puts: list[Put], versions: Sequence[int], begin: int, rows: int
    ) -> list[Item]:
        """Upsert as many of the plain items from one on as a statement takes."""
        some = puts if len(puts) == rows else puts[begin : begin + rows]
        params: list[Any] = [self._now, self._most]
        for at, op in enumerate(some, begin):
            path, key, data, version = op.path, op.key, op.data, versions[at]
            params += (path, key, version, checksum(path, key, version, data), data.decode())
        found = self._execute(statements.upsert_plain(rows), params).fetchall()
        stored = {row[0]: row for row in found}
        items: list[Item] = []
        for at, op in enumerate(some, begin):
            version = versions[at]
            row = stored.get(version)
            items.append(self._put_over(op, version) if row is None else self._stored(op, row))
        return items

    def _put_over(self, op: Put, version: int) -> Item:
        """Put a plain item over one of another kind, or over a long value."""
        if self._longest is not None:
            raise NotInlineError
        effects, there = self._decide((op,), version - 1)
        self._write_rows(effects, there)
        item: Item = effects.answers[0]
        return item

    def _stored(self, op: Put, row: Sequence[Any]) -> Item:
        """Return the item that a statement has stored: version, created, updated."""
        version, created, updated = row
        if self.changed is not None:
            self.changed[op.path, op.key] = Entry(op.data, version, created, updated, None)
        return pack_item(op.namespace, op.key, op.data, version, created, updated, None)
