"""Writes: units of operations inside one transaction, and plain puts in one statement.

Every write locks the one row of `kvstore_state` first, and holds it to its commit. So the writers
of all processes come one after the other, versions are given out in the order of commits (which
the change feed lives on), no other lock is needed and there are no deadlocks. What this costs is
one update of a row for each transaction, and a transaction carries whatever waits.

A `Batch` reads the rows that its units name by one statement, applies the units to them in memory,
one after the other, and writes what has come of it by one statement for each kind of write. A
unit's conditions are tested before its first write, so a unit that fails has changed nothing, and
its neighbours in the same transaction go on.

While one process alone writes, the rows are read before the state is locked, together with its
`turn`, which each write transaction changes; what has come of them is written if the turn is still
the same. If that is nothing but rows, one statement does it all, in one round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from kvstore.errors import SchemaError, StoreError
from kvstore.namespace import decode_namespace
from kvstore.operations import (
    Admission,
    Adopt,
    Check,
    Delete,
    Lease,
    Mutate,
    Operation,
    Put,
    Record,
    Reindex,
    Remove,
    Restore,
    Sweep,
    Touch,
    Trim,
    check_version,
    take_piece,
)
from kvstore.postgres import changes, statements
from kvstore.postgres.connection import Connection, DriverError
from kvstore.postgres.keys import SURELY_SHORT, Address, check_length, encode_key, root_of
from kvstore.postgres.reading import columns, matching_addresses
from kvstore.types import Item, pack_item

__all__ = ["Batch", "Entry", "IndexWriter", "find_plain", "is_simple", "put_plain"]

_SIMPLE = (Put, Delete, Check, Mutate, Touch)  # they name their items
_WRITTEN_AT_ONCE = 5_000  # rows in one statement
_WRITTEN_CHARS = 16 * 2**20
_REMOVED_AT_ONCE = 5_000
_ALL = 2**62
_NO_STATE = "kvstore_state has lost its row; restore it from a backup"
_BEFORE = statements.SEPARATOR
_BEFORE_BYTES = _BEFORE.encode()

Kind = Literal["put", "delete", "expire"]


class Entry(NamedTuple):
    """An item that is about to be written, as the search index has to know it."""

    path: str
    key: str  # encoded
    data: bytes
    indexing: tuple[str, ...] | None
    vectors: Mapping[str, bytes] | None


class IndexWriter(Protocol):
    """The search index in one write transaction; see kvstore/postgres/indexing.py."""

    async def load(self, connection: Connection, addresses: Sequence[Address]) -> None:
        """Read what the index holds of some items."""

    def plan(self, entries: Sequence[Entry]) -> Any:
        """Find out what the puts of a unit need; raise `UnembeddedError`, or change nothing."""

    def put(self, planned: Any) -> None:
        """Take note that the puts of a unit are applied."""

    def delete(self, path: str, key: str) -> None:
        """Take note that an item is deleted."""

    async def flush(self, connection: Connection) -> None:
        """Write what was noted."""

    async def dropped(self, connection: Connection, addresses: Sequence[Address]) -> None:
        """Drop the entries of rows that a statement has deleted."""

    async def restored(self, connection: Connection, first_version: int) -> None:
        """Index or mark the rows from a version on."""

    async def adopt(self, connection: Connection) -> int:
        """Do what `Adopt` says."""
        ...

    async def reindex(self, connection: Connection, op: Reindex) -> tuple[int, int]:
        """Do what `Reindex` says."""
        ...


def _indexing(op: Put) -> str | None:
    return None if op.indexing is None else orjson.dumps(op.indexing).decode()


MakeIndexer = Callable[[str], IndexWriter]


async def put_plain(
    connection: Connection, puts: Sequence[Put], now: int, *, is_bare: bool
) -> list[Item] | None:
    """Upsert in one statement, which is a transaction of its own if there is none.

    Args:
        connection: for writing.
        puts: without conditions.
        now: the instant, in microseconds.
        is_bare: no two are of one item, and none has a lifetime or an indexing of its own.

    Returns:
        The items as stored, or `None`: nothing is done, because somebody watches, or there is
        a search index to keep.
    """
    count = len(puts)
    paths = [op.path for op in puts]
    keys = [encode_key(op.key) for op in puts]
    if is_bare:
        row = await connection.fetchrow(
            statements.PUT_PLAIN,
            _BEFORE.join(["", *paths]),
            _BEFORE.join(["", *keys]),
            _BEFORE_BYTES.join([b"", *[op.data for op in puts]]).decode(),
            count,
            now,
        )
        last, created, updated = row
        if last is None:
            return None
        return [
            pack_item(op.namespace, op.key, op.data, version, begun, changed, None)
            for op, version, begun, changed in zip(
                puts, range(last - count + 1, last + 1), created, updated, strict=True
            )
        ]
    numbers = dict(zip(zip(paths, keys, strict=True), range(1, count + 1), strict=True))
    # Of several puts of one item, the last is what is written.
    parts = [
        (root_of(path), path, key, op.data.decode(), number,
         None if op.ttl is None else now + op.ttl, op.ttl, _indexing(op))
        for (path, key), number in numbers.items()
        for op in (puts[number - 1],)
    ]  # fmt: skip
    rows = await connection.fetch(statements.PUT_ANY, *zip(*parts, strict=True), count, now)
    if not rows:
        return None
    times = {row[0]: row for row in rows}
    base = max(times) - count
    items = []
    for number, (op, address) in enumerate(
        zip(puts, zip(paths, keys, strict=True), strict=True), 1
    ):
        _, created, updated = times[base + numbers[address]]
        expires = None if op.ttl is None else now + op.ttl
        items.append(
            pack_item(op.namespace, op.key, op.data, base + number, created, updated, expires)
        )
    return items


async def find_plain(
    connection: Connection, puts: Sequence[Put], now: int, version: int
) -> list[Item] | None:
    """Find out what has become of a `put_plain` whose answer was lost.

    One of its rows as it wrote it says that all are there: it was one transaction.

    Args:
        connection: a new one.
        puts: those of the call.
        now: its instant.
        version: of the store before it; -1: unknown.

    Returns:
        The items as stored; `[]`: nothing was done; `None`: that cannot be told, as others have
        written since.
    """
    numbers = {(op.path, encode_key(op.key)): at for at, op in enumerate(puts, 1)}
    rows = await connection.fetch(statements.GET_BY_ADDRESS, *columns(numbers))
    present = (await connection.fetchrow(statements.GET_STATE))["version"]
    bases = {}
    for path, key, value, found, created_at, updated_at, _ in rows:
        at = numbers[path, key]
        if value == puts[at - 1].data.decode() and updated_at == now and found > version:
            bases[path, key] = found - at, created_at, updated_at
    if not bases:
        return [] if present == version else None
    base = next(iter(bases.values()))[0]
    if len(bases) < len(numbers) or any(each[0] != base for each in bases.values()):
        return None
    items = []
    for at, op in enumerate(puts, 1):
        _, created, updated = bases[op.path, encode_key(op.key)]
        expires = None if op.ttl is None else now + op.ttl
        items.append(pack_item(op.namespace, op.key, op.data, base + at, created, updated, expires))
    return items


@dataclass(slots=True)
class _Row:
    """A row as it is in the present transaction."""

    version: int
    created_at: int
    updated_at: int
    expires_at: int | None
    ttl: int | None
    indexing: str | None
    value: str | None  # if it was asked for

    def is_live(self, now: int) -> bool:
        return self.expires_at is None or self.expires_at > now


class Batch:
    """The units of one transaction, which the caller has begun and commits.

    Args:
        connection: inside a write transaction, of read committed isolation.
        now: the instant of all its writes, in microseconds.
        make_indexer: from the description of the search index to what keeps it.
        channel: where to notify those who watch.

    Attributes:
        xid: the transaction's number, by which to ask for its outcome.
        index: the description of the search index; `None`: there is none.
        turn: of the store, when `look` read its state.
    """

    def __init__(
        self, connection: Connection, now: int, make_indexer: MakeIndexer, channel: str
    ) -> None:
        self._connection = connection
        self._now = now
        self._make_indexer = make_indexer
        self._channel = channel
        self._version = self._first_version = self._until = self._begin = 0
        self._rows: dict[Address, _Row] = {}
        self._written: dict[Address, None] = {}
        self._deleted: dict[Address, None] = {}
        self._touched: dict[Address, None] = {}
        self._has_more = False  # has written something beside new versions
        self._changes: list[tuple[int, Kind, str, str, int]] = []
        self._indexer: IndexWriter | None = None
        self.xid = ""
        self.index: str | None = None
        self.turn = 0

    async def begin(self) -> None:
        """Lock the state, waiting for other writers."""
        row = await self._lock()
        self._version, self._until, self._begin, self.index, self.turn, self.xid = row
        self._first_version = self._version
        if self.index is not None:
            self._indexer = self._make_indexer(self.index)

    async def _lock(self) -> Sequence[Any]:
        row = await self._connection.fetchrow(statements.LOCK_STATE)
        if row is None:
            raise SchemaError(_NO_STATE)
        return tuple(row)

    async def look(self, units: Sequence[Sequence[Operation]]) -> list[list[Any] | Exception]:
        """As `begin` and `apply`, but without a lock, and nothing is written yet.

        If `is_changed`, what is to be written is by `write`, or in a transaction by `lock` and
        `flush`.

        Args:
            units: all of them `is_simple`.
        """
        wanted = _named(units)
        found = await self._connection.fetch(
            statements.GET_STATES_UNLOCKED, *columns(wanted), list(wanted.values())
        )
        if not found:
            raise SchemaError(_NO_STATE)
        self._version, self._until, self._begin, self.index, self.turn = tuple(found[0])[:5]
        self._first_version = self._version
        rows = [tuple(row)[5:] for row in found if row[5] is not None]
        self._rows = {row[:2]: _Row(*row[2:]) for row in rows}
        if self.index is not None:
            self._indexer = self._make_indexer(self.index)
            await self._indexer.load(self._connection, list(wanted))
        return [self._apply_simple(ops) for ops in units]

    @property
    def is_changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self._written or self._deleted or self._touched)

    async def lock(self) -> bool:
        """Lock the state, in a transaction; whether nobody has written since `look`."""
        *_, turn, self.xid = await self._lock()
        return bool(turn == self.turn)

    @property
    def is_writable(self) -> bool:
        """Whether `write` can: there are just rows, and one statement holds them."""
        return (
            not self.is_watched
            and self.index is None
            and sum(1 for _ in _pieces(self._written, self._rows)) <= 1
        )

    async def write(self, turn: int) -> bool:
        """Write and commit what `look` has come to, unless somebody has written since.

        Args:
            turn: the store's next, which nobody else chooses.

        Returns:
            Whether it did.
        """
        touched, expiries = self._renewed()
        rows = self._columns(self._written) if self._written else [()] * 10
        done = await self._connection.fetchval(
            statements.WRITE_UNLOCKED, *rows, *columns(self._deleted), *columns(touched), expiries,
            self.turn, turn, self._version,
        )  # fmt: skip
        return bool(done)

    @property
    def version(self) -> int:
        """The store's, with what this transaction has written so far."""
        return self._version

    @property
    def is_watched(self) -> bool:
        """Whether changes are recorded."""
        return self._until != 0

    @property
    def is_news(self) -> bool:
        """Whether there is something for those who watch."""
        return self.is_watched and self._version != self._first_version

    async def apply(self, units: Sequence[Sequence[Operation]]) -> list[list[Any] | Exception]:
        """Apply units, in order; return for each the answers to its operations, or its error.

        A unit that gets an error has changed nothing.

        Raises:
            DriverError: the transaction cannot go on.
        """
        outcomes: list[list[Any] | Exception] = []
        for simple, group in groupby(units, key=is_simple):
            if simple:
                run = list(group)
                await self._load(run)
                outcomes += map(self._apply_simple, run)
                await self.flush()
            else:
                for ops in group:
                    outcomes.append(await self._apply_other(ops))
        return outcomes

    def finish(self) -> str:
        """Return the statements with which the transaction ends, before COMMIT."""
        if self._version == self._first_version and not self._has_more:
            return ""
        ring = f" RETURNING pg_notify('{self._channel}', '')" if self.is_news else ""
        return statements.SET_VERSION.format(version=self._version, ring=ring)

    # Units whose operations name their items: in memory, between a load and a flush

    async def _load(self, units: Iterable[Sequence[Operation]]) -> None:
        """Read the rows that units name."""
        wanted = _named(units)
        found = await self._connection.fetch(
            statements.GET_STATES, *columns(wanted), list(wanted.values())
        )
        self._rows = {(row[0], row[1]): _Row(*tuple(row)[2:]) for row in found}
        if self._indexer is not None:
            await self._indexer.load(self._connection, list(wanted))

    def _apply_simple(self, ops: Sequence[Operation]) -> list[Any] | Exception:
        try:
            plans = [self._plan(op) for op in ops]
            if self._indexer is not None:
                found = map(self._entry, ops, plans)
                entries = [entry for entry in found if entry is not None]
                planned = self._indexer.plan(entries) if entries else None
        except Exception as exc:  # noqa: BLE001 - it belongs to the unit's caller
            return exc
        answers = [self._write(op, plan) for op, plan in zip(ops, plans, strict=True)]
        if self._indexer is not None and entries:
            self._indexer.put(planned)
        return answers

    def _plan(self, op: Operation) -> Any:
        """Test the conditions, and find out what the write needs to know."""
        match op:
            case Put() | Delete() | Check():
                row = self._live(op.path, encode_key(op.key))
                check_version(op, 0 if row is None else row.version)
            case Mutate():
                row = self._live(op.path, encode_key(op.key))
                data = None if row is None or row.value is None else row.value.encode()
                return op.change(data)
        return None

    def _entry(self, op: Operation, plan: Any) -> Entry | None:
        """Return what the index has to know of a write, if it is a put."""
        if not isinstance(op, (Put, Mutate)):
            return None
        data, indexing = (op.data, op.indexing) if isinstance(op, Put) else (plan[0], None)
        if data is None:
            return None
        key = encode_key(op.key)
        kept = self._live(op.path, key) if isinstance(op, Mutate) or op.keep else None
        if kept is not None:
            indexing = None if kept.indexing is None else tuple(orjson.loads(kept.indexing))
        return Entry(op.path, key, data, indexing, op.vectors)

    def _write(self, op: Operation, plan: Any) -> Any:
        match op:
            case Put():
                row = self._put(op, op.data, _indexing(op), op.keep)
                return pack_item(
                    op.namespace,
                    op.key,
                    op.data,
                    row.version,
                    row.created_at,
                    row.updated_at,
                    row.expires_at,
                )
            case Mutate():
                data, answer = plan
                if data is not None:
                    self._put(op, data, None, keep=True)
                return answer
            case Delete():
                address = op.path, encode_key(op.key)
                if self._live(*address) is None:
                    return False
                self._discard("delete", address)
                return True
            case Touch():
                return self._touch(op)
        return None

    def _live(self, path: str, key: str) -> _Row | None:
        row = self._rows.get((path, key))
        return row if row is not None and row.is_live(self._now) else None

    def _put(self, op: Put | Mutate, data: bytes, indexing: str | None, keep: bool) -> _Row:
        now = self._now
        address = op.path, encode_key(op.key)
        before = self._rows.get(address)
        if before is not None and not before.is_live(now):
            before = None
            if self.is_watched:
                self._discard("expire", address)
        self._version += 1
        expires_at = None if op.ttl is None else now + op.ttl
        row = _Row(self._version, now, now, expires_at, op.ttl, indexing, data.decode())
        if before is not None:
            row.created_at = before.created_at
            if keep:
                row.ttl, row.expires_at, row.indexing = (
                    before.ttl,
                    before.expires_at,
                    before.indexing,
                )
        self._rows[address] = row
        self._written[address] = None
        self._deleted.pop(address, None)
        self._note("put", address)
        return row

    def _discard(self, kind: Kind, address: Address) -> None:
        self._version += 1
        del self._rows[address]
        self._written.pop(address, None)
        self._touched.pop(address, None)
        self._deleted[address] = None
        if self._indexer is not None:
            self._indexer.delete(*address)
        self._note(kind, address)

    def _touch(self, op: Touch) -> dict[str, int]:
        renewed = {}
        for key in op.keys:
            address = op.path, encode_key(key)
            row = self._live(*address)
            if row is not None and row.ttl is not None:
                row.expires_at = renewed[key] = self._now + row.ttl
                if address not in self._written:
                    self._touched[address] = None
        return renewed

    async def flush(self) -> None:
        """Write what has been changed in memory."""
        execute = self._connection.execute
        if self._deleted:
            await execute(statements.DELETE, *columns(self._deleted))
        for some in _pieces(self._written, self._rows):
            await execute(statements.UPSERT, *self._columns(some))
        touched, expiries = self._renewed()
        if touched:
            self._has_more = True
            await execute(statements.TOUCH, *columns(touched), expiries)
        for kept in (self._deleted, self._written, self._touched):
            kept.clear()
        await self._write_changes()
        if self._indexer is not None:
            await self._indexer.flush(self._connection)

    def _columns(self, addresses: Iterable[Address]) -> list[tuple[Any, ...]]:
        """Return rows as they are to be written, by columns."""
        rows = [
            (root_of(path), path, key, row.version, row.created_at, row.updated_at, row.value,
             row.expires_at, row.ttl, row.indexing)
            for path, key in addresses
            for row in (self._rows[path, key],)
        ]  # fmt: skip
        return list(zip(*rows, strict=True))

    def _renewed(self) -> tuple[list[Address], list[int | None]]:
        """Return the rows whose lifetime alone is renewed, and when they end."""
        touched = [address for address in self._touched if address not in self._written]
        return touched, [self._rows[address].expires_at for address in touched]

    def _note(self, kind: Kind, address: Address) -> None:
        """Record a change at the present version, for those who watch."""
        if self.is_watched:
            self._changes.append((self._version, kind, *address, self._now))

    async def _write_changes(self) -> None:
        if self._changes:
            noted, self._changes = self._changes, []
            await self._connection.execute(statements.ADD_CHANGES, *zip(*noted, strict=True))

    # Other units: by statements, with a way back

    async def _apply_other(self, ops: Sequence[Operation]) -> list[Any] | Exception:
        before = self._version, self._until, self._begin
        await self._connection.execute("SAVEPOINT unit")
        try:
            answers = [await self._run(op) for op in ops]
        except _UnreadableError as exc:
            failure: BaseException | None = exc.__cause__
        except DriverError as exc:
            if not isinstance(exc, StoreError):
                raise
            failure = exc
        except Exception as exc:  # noqa: BLE001 - it belongs to the unit's caller
            failure = exc
        else:
            await self._connection.execute("RELEASE SAVEPOINT unit")
            self._has_more = True
            return answers
        assert isinstance(failure, Exception)
        await self._connection.execute("ROLLBACK TO SAVEPOINT unit; RELEASE SAVEPOINT unit")
        self._version, self._until, self._begin = before
        self._changes.clear()
        return failure

    async def _run(self, op: Operation) -> Any:
        connection, now = self._connection, self._now
        match op:
            case Remove():
                return await self._remove(op)
            case Sweep():
                gone = await connection.fetch(statements.SWEEP, now, op.limit)
                await self._dropped("expire", [(row[0], row[1]) for row in gone])
                return len(gone)
            case Restore():
                return await self._restore(op)
            case Lease():
                self._until, self._begin = await changes.take_lease(
                    connection, op, self._version, self._until, self._begin, now
                )
                return self._version, self._begin
            case Trim():
                trimmed, self._until, self._begin = await changes.trim(
                    connection, op, self._version, self._until, self._begin, now
                )
                return trimmed
            case Adopt():
                return 0 if self._indexer is None else await self._indexer.adopt(connection)
            case Reindex():
                if self._indexer is None:
                    return 0, 0
                return await self._indexer.reindex(connection, op)
        await self._load([[op]])
        answer = self._apply_simple([op])
        if isinstance(answer, Exception):
            raise answer
        await self.flush()
        return answer[0]

    async def _dropped(self, kind: Kind, gone: Sequence[Address]) -> None:
        """Take note of rows that a statement has deleted."""
        for address in gone:
            self._version += 1
            self._note(kind, address)
        await self._write_changes()
        if self._indexer is not None and gone:
            await self._indexer.dropped(self._connection, gone)

    async def _remove(self, op: Remove) -> int:
        connection, now = self._connection, self._now
        statement = statements.delete_range(op.path, op.subtree, op.pattern, now)
        if statement is None:
            doomed = await matching_addresses(
                connection, op.path, op.pattern, op.subtree, None, now
            )
            for begin in range(0, len(doomed), _REMOVED_AT_ONCE):
                some = doomed[begin : begin + _REMOVED_AT_ONCE]
                await connection.execute(statements.DELETE, *columns(some))
                await self._dropped("delete", some)
            return len(doomed)
        text = statement.render()
        if self.is_watched or self._indexer is not None:
            gone = await connection.fetch(
                f"{text} RETURNING {statements.ADDRESS}", *statement.params
            )
            await self._dropped("delete", [(row[0], row[1]) for row in gone])
            return len(gone)
        done: str = await connection.execute(text, *statement.params)
        number = int(done.rpartition(" ")[2])
        self._version += number
        return number

    async def _restore(self, op: Restore) -> int:
        """Write records, in pieces that memory holds."""
        if self.is_watched:  # so that no record replaces an expired item, untold
            gone = await self._connection.fetch(statements.SWEEP, self._now, _ALL)
            await self._dropped("expire", [(row[0], row[1]) for row in gone])
        first = self._version
        admission = Admission(op, self._version, self._now)
        records = iter(op.records)
        while some := await _next_piece(records):
            await self._restore_piece(admission, some)
        self._version = admission.version
        if self._indexer is not None and admission.written:
            await self._indexer.restored(self._connection, first + 1)
        return admission.written

    async def _restore_piece(self, admission: Admission, records: list[Record]) -> None:
        there: set[Address] = set()
        if not admission.replaces:
            wanted = {(each.path, encode_key(each.key)): each for each in records}
            found = await self._connection.fetch(
                statements.GET_STATES, *columns(wanted), [False] * len(wanted)
            )
            live = [row for row in found if _Row(*tuple(row)[2:]).is_live(self._now)]
            there = {(row[0], wanted[row[0], row[1]].key) for row in live}
        rows: dict[Address, tuple[Any, ...]] = {}
        for version, record in admission.admit(records, there):
            address = record.path, encode_key(record.key)
            if len(record.path) + len(record.key) > SURELY_SHORT:
                check_length(decode_namespace(record.path), record.path, record.key)
            self._version = version
            self._note("put", address)
            rows[address] = (
                root_of(record.path), *address, version, record.created_at, record.updated_at,
                record.data.decode(), record.expires_at, record.ttl,
                None if record.indexing is None else orjson.dumps(record.indexing).decode(),
            )  # fmt: skip
        if rows:
            await self._connection.execute(statements.UPSERT, *zip(*rows.values(), strict=True))
            await self._write_changes()


def _pieces(addresses: Iterable[Address], rows: Mapping[Address, _Row]) -> Iterator[list[Address]]:
    """Cut what is to be written into what one statement should have."""
    piece: list[Address] = []
    size = 0
    for address in addresses:
        piece.append(address)
        size += len(rows[address].value or "")
        if size > _WRITTEN_CHARS or len(piece) >= _WRITTEN_AT_ONCE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def is_simple(ops: Sequence[Operation]) -> bool:
    """Whether all operations name their items."""
    return all(isinstance(op, _SIMPLE) for op in ops)


def _named(units: Iterable[Sequence[Operation]]) -> dict[Address, bool]:
    """Return the items that simple units name, and whether their values are wanted."""
    wanted: dict[Address, bool] = {}
    for ops in units:
        for op in ops:
            if isinstance(op, Touch):
                for key in op.keys:
                    wanted.setdefault((op.path, encode_key(key)), False)
            elif isinstance(op, (Put, Delete, Check, Mutate)):
                address = op.path, encode_key(op.key)
                wanted[address] = wanted.get(address, False) or isinstance(op, Mutate)
    return wanted


class _UnreadableError(Exception):
    """The records of a `Restore` cannot be read on, and its cause says why."""


async def _next_piece(records: Iterator[Record]) -> list[Record]:
    try:
        return await asyncio.to_thread(take_piece, records)
    except Exception as exc:
        raise _UnreadableError from exc
