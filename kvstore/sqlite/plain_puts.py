"""Plain puts, which are most of all writes: many share a statement, and none is looked up before.

They come to what `kvstore.plan` decides of them, and a property test holds them against it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import count, islice, repeat
from typing import Any, TypeGuard

from kvstore.collecting import uncollected
from kvstore.namespace import decode_namespace
from kvstore.operations import Check, Mutate, Operation, Put, PutColumns
from kvstore.sqlite import driver, statements
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite.read_cache import ABSENT, Address, Entry, make_entry
from kvstore.sqlite.reading import checksum
from kvstore.sqlite.rows import NotInlineError
from kvstore.sqlite.sequence_writing import SequenceRows
from kvstore.types import Item, Namespace, pack_item

__all__ = [
    "PlainPuts",
    "are_bare_puts",
    "are_new",
    "is_bare_put",
    "is_plain",
    "put_plain",
    "read_plain",
]

_TOLD = 5_000  # plain puts of which each is told to the cache of reads; of more, none is
_SLICE = 2_048  # plain puts of a unit that are in hand at once
_FEW_NEW = 8
_KEPT_BYTES = 64 * 1024  # of a value that is kept by this way; a longer one stays inside SQLite
_ROWS = (32, 16, 8, 4, 2, 1)  # of the statements that puts share; of more rows they take longer


def is_bare_put(op: Operation) -> TypeGuard[Put]:
    """Whether an operation is a put without conditions, lifetime or indexing of its own."""
    return (
        type(op) is Put
        and op.expected is None
        and op.ttl is None
        and op.indexing is None
        and not op.keep
    )


def are_bare_puts(ops: Sequence[Operation]) -> TypeGuard[Sequence[Put]]:
    """Whether operations are bare puts, one and all."""
    if isinstance(ops, PutColumns):
        return ops.ttl is None and ops.indexing is None
    return all(map(is_bare_put, ops))


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

    def _are_outside(self, ops: Sequence[Operation]) -> bool:
        """Whether no put or change of some is in a log or a queue."""
        if self._sequences is None:
            return True
        if isinstance(ops, PutColumns):
            return not self._known_states((ops.path,))
        return not self._known_states({op.path for op in ops if isinstance(op, (Put, Mutate))})

    def put_crowd(self, puts: Sequence[Put]) -> list[Item] | None:
        """Put plain items, each a unit; `None`: `apply` must be asked."""
        if self._is_watched or self.index is not None or not self._are_outside(puts):
            return None
        return self._put_plain(puts)

    def _put_units(self, units: Sequence[Sequence[Operation]]) -> list[list[Any] | Exception]:
        """Put plain items, units of one or many, and give each its share of the answers."""
        puts: Any = units[0] if len(units) == 1 else [op for ops in units for op in ops]
        items = self._put_plain(puts)
        if len(units) == 1:
            return [items]
        left = iter(items)
        return [list(islice(left, len(ops))) for ops in units]

    def _put_plain(self, puts: Sequence[Put]) -> list[Item]:
        """Put plain items, and return them."""
        if len(puts) <= _SLICE:
            return self._put_all(puts)
        if len(puts) > _TOLD:
            self.changed = None
        items: list[Item] = []
        with uncollected():
            for begin in range(0, len(puts), _SLICE):
                items += self._put_all(puts[begin : begin + _SLICE])
        return items

    def _put_all(self, puts: Sequence[Put]) -> list[Item]:
        now, versions = self._now, count(self._version + 1)
        if isinstance(puts, PutColumns):
            namespaces: Iterable[Namespace] = repeat(puts.namespace)
            keys, datas = puts.keys, puts.datas
            addresses = list(zip(repeat(puts.path), keys))
        else:
            namespaces, keys = [op.namespace for op in puts], [op.key for op in puts]
            addresses, datas = [(op.path, op.key) for op in puts], [op.data for op in puts]
        created = self._write_all(addresses, datas)
        each = namespaces, keys, datas, versions, created, repeat(now), repeat(None)
        return list(map(pack_item, *each))

    def _write_all(
        self, addresses: Sequence[Address], datas: Sequence[bytes], *, keep: bool = False
    ) -> list[int]:
        """Put plain items: those over items that are known by one statement, others by few.

        Nobody ever sees what is put over in the same transaction, and so it is not written.
        Returns of each put when the item was created.

        Args:
            addresses: of the items.
            datas: their encoded values.
            keep: see `Put`.
        """
        now, changed, first = self._now, self.changed, self._version + 1
        self._version += len(datas)
        lasting = dict(zip(addresses, count()))  # of each item, its last put
        created: dict[Address, int] = {}
        over, others = [], []
        for (address, at), entry in zip(lasting.items(), self._known(lasting), strict=True):
            if entry is None:
                others.append(at)
                continue
            path, key = address
            data, version, at_first = datas[at], first + at, entry.created_at
            code = checksum(path, key, version, data)
            over.append((version, now, code, data.decode(), path, key))
            created[address] = at_first
            if changed is not None:
                changed[address] = make_entry((data, version, at_first, now, None))
        if over and self._connection.executemany(statements.PUT_OVER, over).rowcount < len(over):
            others = list(lasting.values())  # some are of another kind: put all of them once more
        if others:
            stored = self._upsert([(*addresses[at], datas[at], first + at) for at in others])
            for at in others:
                address, data, version = addresses[at], datas[at], first + at
                row = stored.get(version)
                if row is None:
                    created[address] = self._put_over(address, data, version, keep)
                    continue
                created[address] = row[1]
                if changed is not None:
                    changed[address] = make_entry((data, version, row[1], now, None))
        return list(map(created.__getitem__, addresses))

    def _put_watched(self, ops: Sequence[Operation]) -> Item | None:
        """Put a plain item where changes are noted; `None`: it is another unit, or another row."""
        op = ops[0]
        if len(ops) > 1 or not is_bare_put(op) or not self._are_outside(ops):
            return None
        version, now, address = self._version + 1, self._now, (op.path, op.key)
        at = max(now, self._last)
        (there,) = self._known((address,))
        created = put_plain(self._execute, op, version, now, self._most, there, at, self._keeps)
        if created is None:
            return None
        self._version, self._last = version, at
        if self.changed is not None:
            self.changed[address] = Entry(op.data, version, created, now, None)
        return pack_item(op.namespace, op.key, op.data, version, created, now, None)

    def _known(self, addresses: Collection[Address]) -> list[Entry | None]:
        """Return the plain items that are there, as far as they are known."""
        changed, most = self.changed, self._most
        if changed is None or self.look is None:
            return [None] * len(addresses)
        found = self.look(addresses)
        if changed:
            pairs = zip(addresses, found, strict=True)
            found = [changed.get(address, entry) for address, entry in pairs]
        return [  # as `is_plain` has it
            entry if entry and entry.expires_at is None and 0 < len(entry.data) <= most else None
            for entry in found
        ]

    def _upsert(self, puts: Sequence[tuple[str, str, bytes, int]]) -> dict[int, Sequence[Any]]:
        """Upsert plain items: path, key, data and version of each.

        Returns version, created and updated of those that were, by version; the others are over
        items of another kind, or over long values.
        """
        stored = {}
        begin = 0
        for rows in _ROWS:
            while len(puts) - begin >= rows:
                params: list[Any] = [self._now, self._most]
                for path, key, data, version in puts[begin : begin + rows]:
                    params += path, key, version, checksum(path, key, version, data), data.decode()
                found = self._execute(statements.upsert_plain(rows), params).fetchall()
                stored.update({row[0]: row for row in found})
                begin += rows
        return stored

    def _put_over(self, address: Address, data: bytes, version: int, keep: bool) -> int:
        """Put a plain item over one of another kind, or over a long value; when was it created."""
        if self._longest is not None:
            raise NotInlineError
        op = Put(decode_namespace(address[0]), *address, data, keep=keep)
        effects, there = self._decide((op,), version - 1)
        self._write_rows(effects, there)
        ((row, _),) = effects.writes
        return row.created_at


def put_plain(
    execute: Callable[..., driver.Cursor],
    op: Put,
    version: int,
    now: int,
    longest: int,
    there: Entry | None,
    at: int | None = None,
    keeps: bool = False,
) -> int | None:
    """Put a plain item by itself, and note the change; return when the item was created.

    `None`: an item of another kind is there, or a long value, and nothing is written.

    Args:
        execute: of a cursor inside a write transaction; at rest.
        op: `is_bare_put`.
        version: that of the put.
        now: the instant of the transaction, in microseconds.
        longest: value to write over, in bytes.
        there: what is known to be there.
        at: the instant of the change; `None`: changes are not noted.
        keeps: whether what is replaced is kept with its change.
    """
    path, key, data = op.path, op.key, op.data
    code, text = checksum(path, key, version, data), data.decode()
    if there is None:
        there = read_plain(execute, path, key, longest, with_data=keeps)
    if there is ABSENT:
        row = path, key, version, now, now, code, text, None, None, None
        if not execute(statements.INSERT_NEW, row).rowcount:
            return None
        created = now
    elif is_plain(there, longest):
        if not execute(statements.PUT_OVER, (version, now, code, text, path, key)).rowcount:
            return None
        created = there.created_at
        if keeps:
            execute(sql.ADD_PAST, (version, at, path, key, *_past(path, key, there, data)))
            return created
    else:
        return None
    if at is not None:
        execute(statements.ADD_CHANGE, (version, "put", path, key, at))
    return created


def read_plain(
    execute: Callable[..., driver.Cursor],
    path: str,
    key: str,
    longest: int,
    *,
    with_data: bool,
) -> Entry | None:
    """Return the plain item that is there, or `ABSENT`; `None`: one of another kind is there.

    Args:
        execute: see `put_plain`.
        path: of the item.
        key: of the item.
        longest: value of one, in bytes.
        with_data: whether its data is needed, and then as it was written.
    """
    most = min(longest, _KEPT_BYTES) if with_data else -1
    row = execute(statements.GET_STATE, (most, path, key)).fetchone()
    if row is None:
        return ABSENT
    _, version, created, updated, expires, _, indexing, code, size, data = row
    if expires is not None or indexing is not None or size > longest:
        return None
    if with_data and (data is None or checksum(path, key, version, data) != code):
        return None
    return Entry(data or b"", version, created, updated, None)


def _past(path: str, key: str, was: Entry, data: bytes) -> tuple[Any, ...]:
    """Return of an item that is replaced what is kept: the value only if it is another one."""
    code = checksum(path, key, was.version, was.data)
    value = None if was.data == data else was.data.decode()
    return was.version, was.created_at, was.updated_at, code, value


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
