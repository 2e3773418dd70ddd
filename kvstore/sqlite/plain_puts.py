"""Plain puts, which are most of all writes: many share a statement, and none is looked up before.

They come to what `kvstore.plan` decides of them, and a property test holds them against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeGuard

from kvstore.operations import (
    Check,
    Operation,
    Put,
)
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite import (
    statements,
)
from kvstore.sqlite.read_cache import ABSENT, Address, Entry
from kvstore.sqlite.reading import checksum
from kvstore.sqlite.rows import NotInlineError
from kvstore.sqlite.sequence_writing import SequenceRows
from kvstore.types import Item, pack_item

__all__ = ["PlainPuts", "are_new", "is_bare_put", "is_plain"]

_TOLD = 5_000  # plain puts of which each is told to the cache of reads; of more, none is
_FEW_NEW = 8
_ROWS = (32, 16, 8, 4, 2, 1)  # of the statements that puts share; of more rows they take longer
_UPSERT_ONE = statements.upsert_plain(1)


def is_bare_put(op: Operation) -> TypeGuard[Put]:
    """Whether an operation is a put without conditions, lifetime or indexing of its own."""
    return (
        type(op) is Put
        and op.expected is None
        and op.ttl is None
        and op.indexing is None
        and not op.keep
    )


def are_new(ops: Sequence[Operation]) -> TypeGuard[Sequence[Put | Check]]:
    """Whether operations seem to be a few puts of new items, perhaps beside checks of others."""
    return len(ops) <= _FEW_NEW and all(type(op) is Check or _is_new(op) for op in ops)


def _is_new(op: Operation) -> bool:
    return (
        type(op) is Put
        and op.ttl is None
        and not op.keep
        and not op.vectors
        and (op.expected == 0 or (op.expected is None and op.indexing is not None))
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
        """Put plain items."""
        first = self._version + 1
        self._version += len(puts)
        if len(puts) > _TOLD:
            self.changed = None
        return self._put_all(puts, range(first, first + len(puts)))

    def _put_kept(self, ops: Sequence[Operation]) -> Item | None:
        """Put a plain item where the past is kept; `None`: it is another unit, or another row."""
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
        _, created, updated = rows[0]  # it is there: the conditions are the same
        if self.changed is not None:
            self.changed[op.path, op.key] = Entry(op.data, version, created, updated, None)
        return pack_item(op.namespace, op.key, op.data, version, created, updated, None)

    def _put_all(self, puts: list[Put], versions: Sequence[int]) -> list[Item]:
        """Put plain items: those over items that are known by one statement, others by few."""
        now, changed = self._now, self.changed
        addresses = [(op.path, op.key) for op in puts]
        there = self._known(addresses)
        over = [
            (version, now, *_content(op, version), *address)
            for op, version, address, entry in zip(puts, versions, addresses, there, strict=True)
            if entry is not None
        ]
        if over and self._connection.executemany(statements.PUT_OVER, over).rowcount < len(over):
            there = [None] * len(puts)  # some are of another kind: put all of them once more
        others = [at for at, entry in enumerate(there) if entry is None]
        stored = self._upsert([(puts[at], versions[at]) for at in others]) if others else {}
        items: list[Item] = []
        for op, version, address, entry in zip(puts, versions, addresses, there, strict=True):
            if entry is not None:
                created = entry.created_at
            elif (row := stored.get(version)) is not None:
                created = row[1]
            else:
                items.append(self._put_over(op, version))
                continue
            if changed is not None:
                changed[address] = Entry(op.data, version, created, now, None)
            items.append(pack_item(op.namespace, op.key, op.data, version, created, now, None))
        return items

    def _known(self, addresses: Sequence[Address]) -> list[Entry | None]:
        """Return the plain items that are there, as far as they are known."""
        changed, most = self.changed, self._most
        if changed is None or self.look is None:
            return [None] * len(addresses)
        found = self.look(addresses)
        if changed:
            pairs = zip(addresses, found, strict=True)
            found = [changed.get(address, entry) for address, entry in pairs]
        return [entry if is_plain(entry, most) else None for entry in found]

    def _upsert(self, puts: Sequence[tuple[Put, int]]) -> dict[int, Sequence[Any]]:
        """Upsert plain items; return version, created and updated of those that were, by version.

        The others are over items of another kind, or over long values.
        """
        stored = {}
        begin = 0
        for rows in _ROWS:
            while len(puts) - begin >= rows:
                params: list[Any] = [self._now, self._most]
                for op, version in puts[begin : begin + rows]:
                    params += (op.path, op.key, version, *_content(op, version))
                found = self._execute(statements.upsert_plain(rows), params).fetchall()
                stored.update({row[0]: row for row in found})
                begin += rows
        return stored

    def _put_over(self, op: Put, version: int) -> Item:
        """Put a plain item over one of another kind, or over a long value."""
        if self._longest is not None:
            raise NotInlineError
        effects, there = self._decide((op,), version - 1)
        self._write_rows(effects, there)
        item: Item = effects.answers[0]
        return item


def is_plain(entry: Entry | None, longest: int) -> TypeGuard[Entry]:
    """Whether an item is known to be there, without lifetime and with a value not longer than that.

    Whether it has indexing of its own, `PUT_OVER` tells.
    """
    return (
        entry is not None
        and entry is not ABSENT
        and entry.expires_at is None
        and len(entry.data) <= longest
    )


def _content(op: Put, version: int) -> tuple[int, str]:
    """Return the checksum and the value, as they are written."""
    return checksum(op.path, op.key, version, op.data), op.data.decode()
