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
from itertools import groupby
from typing import Any, Literal, NamedTuple, Protocol, assert_never, cast

import orjson

from kvstore.backend import Span
from kvstore.errors import InvalidArgumentError, SchemaError, StoreError
from kvstore.namespace import decode_namespace
from kvstore.operations import (
    NAMED,
    OF_SEQUENCE,
    Adopt,
    Forget,
    Keep,
    Lease,
    Named,
    Operation,
    Put,
    Record,
    Reindex,
    Remove,
    Restore,
    Rewind,
    Sweep,
    Trim,
    Wide,
    named_of,
    take_piece,
)
from kvstore.plan import Address, Admission, Effects, Note, Vectors, decide, gone, named
from kvstore.postgres import changes, statements
from kvstore.postgres.connection import Connection, DriverError
from kvstore.postgres.keys import SURELY_SHORT, check_length, decode_key, encode_key, root_of
from kvstore.postgres.keys import Address as Encoded
from kvstore.postgres.reading import columns, matching_addresses
from kvstore.types import Item, pack_item

__all__ = ["Batch", "Entry", "IndexWriter", "find_plain", "is_simple", "put_plain"]

_WRITTEN_AT_ONCE = 5_000  # rows in one statement
_WRITTEN_BYTES = 16 * 2**20
_REMOVED_AT_ONCE = 5_000
_ALL = 2**62
_NO_STATE = "kvstore_state has lost its row; restore it from a backup"
_BEFORE = statements.SEPARATOR
_BEFORE_BYTES = _BEFORE.encode()


class Entry(NamedTuple):
    """An item that is about to be written, as the search index has to know it."""

    path: str
    key: str  # encoded
    data: bytes
    indexing: tuple[str, ...] | None
    vectors: Vectors | None
    keeps_own: bool = False  # it is as it was, with the vectors that it was put with


class IndexWriter(Protocol):
    """The search index in one write transaction; see kvstore/postgres/indexing.py."""

    async def load(self, connection: Connection, addresses: Sequence[Encoded]) -> None:
        """Read what the index holds of some items."""

    def plan(self, entries: Sequence[Entry]) -> Any:
        """Find out what the puts of a unit need; raise `UnembeddedError`, or change nothing."""

    def put(self, planned: Any) -> None:
        """Take note that the puts of a unit are applied."""

    def delete(self, path: str, key: str) -> None:
        """Take note that an item is deleted."""

    async def flush(self, connection: Connection) -> None:
        """Write what was noted."""

    async def dropped(self, connection: Connection, addresses: Sequence[Encoded]) -> None:
        """Drop the entries of rows that a statement has deleted."""

    async def restored(self, connection: Connection, first_version: int) -> None:
        """Index or mark the rows from a version on."""

    async def adopt(self, connection: Connection) -> int:
        """Do what `Adopt` says."""
        ...

    async def reindex(self, connection: Connection, op: Reindex) -> tuple[int, int, list[Address]]:
        """Do what `Reindex` says."""
        ...


def _indexing(op: Put | Record) -> str | None:
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


class Batch:
    """The units of one transaction, which the caller has begun and commits.

    Args:
        connection: inside a write transaction, of read committed isolation.
        now: the instant of all its writes, in microseconds.
        make_indexer: from the description of the search index to what keeps it.

    Attributes:
        xid: the transaction's number, by which to ask for its outcome.
        index: the description of the search index; `None`: there is none.
        turn: of the store, when `look` read its state.
    """

    def __init__(self, connection: Connection, now: int, make_indexer: MakeIndexer) -> None:
        self._connection = connection
        self._now = now
        self._make_indexer = make_indexer
        self._version = self._first_version = self._until = self._begin = 0
        self._rows: dict[Address, Record] = {}
        self._written: dict[Address, None] = {}
        self._deleted: dict[Address, None] = {}
        self._touched: dict[Address, None] = {}
        self._has_more = False  # has written something beside new versions
        self._notes: list[Note] = []
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
        simple = cast("Sequence[Sequence[Named]]", units)
        wanted = named(op for ops in simple for op in ops)
        addresses = _encoded(wanted)
        found = await self._connection.fetch(
            statements.GET_STATES_UNLOCKED, *columns(addresses), list(wanted.values())
        )
        if not found:
            raise SchemaError(_NO_STATE)
        self._version, self._until, self._begin, self.index, self.turn = tuple(found[0])[:5]
        self._first_version = self._version
        self._rows = _rows_of(tuple(row)[5:] for row in found if row[5] is not None)
        if self.index is not None:
            self._indexer = self._make_indexer(self.index)
            await self._indexer.load(self._connection, addresses)
        return [self._apply_simple(ops) for ops in simple]

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
        touched = self._touched_columns()
        rows = self._columns(self._written) if self._written else [()] * 10
        done = await self._connection.fetchval(
            statements.WRITE_UNLOCKED, *rows, *columns(_encoded(self._deleted)),
            *touched, self.turn, turn, self._version,
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
                run = cast("list[Sequence[Named]]", list(group))
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
        return statements.SET_VERSION.format(version=self._version)

    # Units whose operations name their items: in memory, between a load and a flush

    async def _load(self, units: Iterable[Sequence[Named]]) -> None:
        """Read the rows that units name."""
        wanted = named(op for ops in units for op in ops)
        addresses = _encoded(wanted)
        found = await self._connection.fetch(
            statements.GET_STATES, *columns(addresses), list(wanted.values())
        )
        self._rows = _rows_of(found)
        if self._indexer is not None:
            await self._indexer.load(self._connection, addresses)

    def _apply_simple(self, ops: Sequence[Named]) -> list[Any] | Exception:
        """Apply a unit to the rows in memory, as `kvstore.plan` decides."""
        planned = None
        try:
            effects = decide(ops, self._rows, self._now, self._version, is_watched=self.is_watched)
            if self._indexer is not None and effects.writes:
                entries = [
                    Entry(row.path, encode_key(row.key), row.data, row.indexing, vectors)
                    for row, vectors in effects.writes
                ]
                planned = self._indexer.plan(entries)
        except Exception as exc:  # noqa: BLE001 - it belongs to the unit's caller
            return exc
        self._take(effects)
        if self._indexer is not None and planned is not None:
            self._indexer.put(planned)
        return effects.answers

    def _take(self, effects: Effects) -> None:
        """Apply to the rows in memory what was decided."""
        rows = self._rows
        for address in effects.drops:
            del rows[address]
            self._written.pop(address, None)
            self._touched.pop(address, None)
            self._deleted[address] = None
            if self._indexer is not None:
                self._indexer.delete(address[0], encode_key(address[1]))
        for row, _ in effects.writes:
            address = row.path, row.key
            rows[address] = row
            self._written[address] = None
            self._deleted.pop(address, None)
        for row in effects.renewals:
            address = row.path, row.key
            rows[address] = row
            if address not in self._written:
                self._touched[address] = None
        self._version = effects.version
        self._notes += effects.notes

    async def flush(self) -> None:
        """Write what has been changed in memory."""
        execute = self._connection.execute
        if self._deleted:
            await execute(statements.DELETE, *columns(_encoded(self._deleted)))
        for some in _pieces(self._written, self._rows):
            await execute(statements.UPSERT, *self._columns(some))
        touched = self._touched_columns()
        if touched[0]:
            self._has_more = True
            await execute(statements.TOUCH, *touched)
        for kept in (self._deleted, self._written, self._touched):
            kept.clear()
        await self._write_notes()
        if self._indexer is not None:
            await self._indexer.flush(self._connection)

    def _columns(self, addresses: Iterable[Address]) -> list[tuple[Any, ...]]:
        """Return rows as they are to be written, by columns."""
        return list(zip(*[_columns_of(self._rows[address]) for address in addresses], strict=True))

    def _touched_columns(self) -> list[Sequence[Any]]:
        """Return the rows whose lifetime alone changes, and that, by columns."""
        touched = [address for address in self._touched if address not in self._written]
        rows = [self._rows[address] for address in touched]
        lifetimes = [row.expires_at for row in rows], [row.ttl for row in rows]
        return [*columns(_encoded(touched)), *lifetimes]

    async def _write_notes(self) -> None:
        if self._notes:
            noted, self._notes = self._notes, []
            versions, kinds, paths, keys, instants = zip(*noted, strict=True)
            await self._connection.execute(
                statements.ADD_CHANGES, versions, kinds, paths, [*map(encode_key, keys)], instants
            )

    # Other units: by statements, with a way back

    async def _apply_other(self, ops: Sequence[Operation]) -> list[Any] | Exception:
        before = self._version, self._until, self._begin
        await self._connection.execute("SAVEPOINT unit")
        try:
            answers = await self._apply_unit(ops)
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
        self._notes.clear()
        return failure

    async def _apply_unit(self, ops: Sequence[Operation]) -> list[Any]:
        asked = named_of(ops)
        given: list[Any] = []
        if asked:
            await self._load([asked])
            outcome = self._apply_simple(asked)
            if isinstance(outcome, Exception):
                raise outcome
            await self.flush()
            given = outcome
        answers = iter(given)
        return [next(answers) if isinstance(op, NAMED) else await self._run(op) for op in ops]

    async def _run(self, op: Wide) -> Any:
        connection, now = self._connection, self._now
        if isinstance(op, OF_SEQUENCE):
            raise NotImplementedError  # it has no logs and no queues
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
                    return 0, 0, []
                return await self._indexer.reindex(connection, op)
            case Keep() | Forget() | Rewind():
                raise InvalidArgumentError("a PostgresStore keeps no history yet")
        assert_never(op)

    async def _dropped(
        self, kind: Literal["delete", "expire"], addresses: Sequence[Encoded]
    ) -> None:
        """Take note of rows that a statement has deleted."""
        plain = [(path, decode_key(key)) for path, key in addresses]
        effects = gone(kind, plain, self._now, self._version, is_watched=self.is_watched)
        self._version = effects.version
        self._notes += effects.notes
        await self._write_notes()
        if self._indexer is not None and addresses:
            await self._indexer.dropped(self._connection, addresses)

    async def _remove(self, op: Remove) -> int:
        connection, now = self._connection, self._now
        statement = statements.delete_range(op.path, op.subtree, op.pattern, now)
        if statement is None:
            span = Span(op.path, op.pattern, op.subtree)
            doomed = await matching_addresses(connection, span, None, now)
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
        connection = self._connection
        if self.is_watched:  # so that no record replaces an expired item, untold
            expired = await connection.fetch(statements.SWEEP, self._now, _ALL)
            await self._dropped("expire", [(row[0], row[1]) for row in expired])
        first = self._version
        admission = Admission(op, first, self._now, is_watched=self.is_watched)
        records = iter(op.records)
        while some := await _next_piece(records):
            live: set[Address] = set()
            if not admission.replaces:
                wanted = columns(_encoded((each.path, each.key) for each in some))
                found = await connection.fetch(statements.GET_STATES, *wanted, [False] * len(some))
                there = _rows_of(found)
                live = {address for address, row in there.items() if row.is_live(self._now)}
            effects = admission.admit(some, live)
            rows = [_columns_of(row) for row, _ in effects.writes]
            for row, _ in effects.writes:
                if len(row.path) + len(row.key) > SURELY_SHORT:
                    check_length(decode_namespace(row.path), row.path, row.key)
            if rows:
                await connection.execute(statements.UPSERT, *zip(*rows, strict=True))
            self._version = effects.version
            self._notes += effects.notes
            await self._write_notes()
        if self._indexer is not None and admission.written:
            await self._indexer.restored(connection, first + 1)
        return admission.written


def _pieces(
    addresses: Iterable[Address], rows: Mapping[Address, Record]
) -> Iterator[list[Address]]:
    """Cut what is to be written into what one statement should have."""
    piece: list[Address] = []
    size = 0
    for address in addresses:
        piece.append(address)
        size += len(rows[address].data)
        if size > _WRITTEN_BYTES or len(piece) >= _WRITTEN_AT_ONCE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def is_simple(ops: Sequence[Operation]) -> bool:
    """Whether all operations name their items."""
    return all(isinstance(op, NAMED) for op in ops)


def _encoded(addresses: Iterable[Address]) -> list[Encoded]:
    return [(path, encode_key(key)) for path, key in addresses]


def _rows_of(found: Iterable[Sequence[Any]]) -> dict[Address, Record]:
    """Return rows as GET_STATES gives them; one whose value was not asked for has no data."""
    rows = {}
    for path, encoded, version, created_at, updated_at, expires_at, ttl, indexing, value in found:
        key = decode_key(encoded)
        data = b"" if value is None else value.encode()
        paths = None if indexing is None else tuple(orjson.loads(indexing))
        rows[path, key] = Record(
            path, key, data, version, created_at, updated_at, expires_at, ttl, paths
        )
    return rows


def _columns_of(row: Record) -> tuple[Any, ...]:
    """Return a row as it is to be written."""
    return (
        root_of(row.path), row.path, encode_key(row.key), row.version, row.created_at,
        row.updated_at, row.data.decode(), row.expires_at, row.ttl, _indexing(row),
    )  # fmt: skip


class _UnreadableError(Exception):
    """The records of a `Restore` cannot be read on, and its cause says why."""


async def _next_piece(records: Iterator[Record]) -> list[Record]:
    try:
        return await asyncio.to_thread(take_piece, records)
    except Exception as exc:
        raise _UnreadableError from exc
