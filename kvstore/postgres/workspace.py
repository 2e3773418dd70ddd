"""What a transaction does under one root: decided in memory, written by one call.

A `Workspace` begins with the root and the rows that operations name, applies units to them one
after the other, and gives the arguments of `kvstore_write`, which takes effect if nobody has
written under the root since. A unit's conditions are tested before its first write, so a unit that
fails has changed nothing, and its neighbours in the same transaction go on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, cast

from kvstore.errors import StoreCorruptError, StoreError
from kvstore.namespace import show
from kvstore.operations import (
    Named,
    OfJobs,
    Operation,
    Record,
    TakeJob,
    UnembeddedError,
    named_of,
)
from kvstore.plan import Address, Effects, Note, decide, gone, named
from kvstore.postgres import statements
from kvstore.postgres.connection import Connection, aside
from kvstore.postgres.indexing import Entry, IndexChanges, Indexer
from kvstore.postgres.keys import address_columns, decode_key, encode_key, root_of
from kvstore.postgres.past import PastKeeper
from kvstore.postgres.roots import RootState, lock_root
from kvstore.postgres.sequences import Ledger
from kvstore.rules import pack_indexing, unpack_indexing
from kvstore.sequences import key_of
from kvstore.types import pack_item

__all__ = [
    "Decision",
    "Fetch",
    "MakeIndexer",
    "Stamp",
    "Workspace",
    "find_unembedded",
    "is_decided",
    "is_light",
]

_WRITTEN_AT_ONCE = 5_000  # rows in one call
_WRITTEN_BYTES = 16 * 2**20
_LIGHT_BYTES = 2**16  # whose words take some 20 ms
_WRITE, _DELETE, _RENEW = 0, 1, 2  # kinds of rows, as kvstore_write has them
_NO_ROWS: Final = (None,) * 10
_NO_NOTES: Final = (None,) * 4

MakeIndexer = Callable[[str], Indexer]

Fetch = Callable[..., Awaitable[list[Any]]]
"""What returns the rows of a statement with arguments."""


class Stamp(NamedTuple):
    """By what a transaction is known to a root.

    Attributes:
        writer: whose it is.
        first: the number of the first try.
        number: of this one; `None`: it may be done twice.
    """

    writer: int | None = None
    first: int | None = None
    number: int | None = None


@dataclass(slots=True)
class Decision:
    """What a unit comes to, before anything has happened."""

    effects: Effects
    planned: Any = None  # by the indexer


class Workspace:
    """Rows under one root, as they are to be.

    Args:
        state: of the root.
        now: the instant of all writes, in microseconds.
        at_least: a version, above which new ones are.
        make_indexer: from the description of the search index to what keeps it.
        is_locked: whether nobody else can write under the root.

    Attributes:
        ledger: the logs and queues under the root.
    """

    def __init__(
        self,
        state: RootState,
        now: int,
        at_least: int,
        make_indexer: MakeIndexer,
        *,
        is_locked: bool,
    ) -> None:
        self.state = state
        self.now = now
        self.version = self._base = max(state.version, at_least)
        self.indexer = None if state.index is None else make_indexer(state.index)
        self.ledger = Ledger(state.root, now, has_any=state.has_sequences, is_locked=is_locked)
        self._rows: dict[Address, Record] = {}
        self._written: dict[Address, None] = {}
        self._deleted: dict[Address, None] = {}
        self._renewed: dict[Address, None] = {}
        self._notes: list[Note] = []
        self._keeper = PastKeeper() if state.history else None
        self._calls = 0

    @classmethod
    async def look(
        cls,
        connection: Connection,
        root: str,
        units: Sequence[Sequence[Operation]],
        now: int,
        at_least: int,
        make_indexer: MakeIndexer,
        *,
        is_indexed: bool,
    ) -> Workspace | None:
        """Read a root and what units name, without a lock.

        Args:
            connection: outside a transaction.
            root: whose operations they all are.
            units: all `is_decided`.
            now: as for the class, and so the next two.
            at_least: see above.
            make_indexer: see above.
            is_indexed: whether there is an index, most likely.

        Returns:
            `None`: there is no such root.
        """
        wanted = named(op for ops in units for op in named_of(ops))
        columns = address_columns(wanted)
        statement = statements.LOOK_INDEXED if is_indexed else statements.LOOK
        rows = await connection.fetch(statement, root, *columns, list(wanted.values()))
        if not rows:
            return None
        state = RootState.of(root, rows[0])
        space = cls(state, now, at_least, make_indexer, is_locked=False)
        space.take_rows(row[8:] for row in map(tuple, rows) if row[8] is not None)
        if space.indexer is not None and not is_indexed:
            await space.load(connection, wanted)
        await space.ledger.load(connection, units)
        return space

    @classmethod
    async def lock(
        cls, connection: Connection, root: str, now: int, at_least: int, make_indexer: MakeIndexer
    ) -> Workspace:
        """Lock a root, inside a transaction."""
        state = await lock_root(connection, root)
        return cls(state, now, at_least, make_indexer, is_locked=True)

    async def load(self, connection: Connection, wanted: Mapping[Address, bool]) -> None:
        """Read rows, and whether with their values."""
        if not wanted:
            return
        statement = statements.GET_STATES
        if self.indexer is not None:
            statement = statements.GET_INDEXED_STATES
        found = await connection.fetch(
            statement, self.state.root, *address_columns(wanted), list(wanted.values())
        )
        self.take_rows(map(tuple, found))

    def take_rows(self, found: Iterable[Sequence[Any]]) -> None:
        """Take rows in as GET_STATES gives them; one whose value was not asked for has no data."""
        for path, encoded, version, created, updated, expires, ttl, indexing, value, *held in found:
            key = decode_key(encoded)
            if held and self.indexer is not None:
                self.indexer.learn(path, encoded, *held)
            if version is not None:
                data = b"" if value is None else value.encode()
                paths = unpack_indexing(indexing)
                self._rows[path, key] = Record(
                    path, key, data, version, created, updated, expires, ttl, paths
                )

    # What it comes to

    @property
    def is_watched(self) -> bool:
        """Whether changes are recorded."""
        return self.state.watched_until != 0

    @property
    def is_plain(self) -> bool:
        """Whether rows may be written and deleted by themselves, as nothing goes with them."""
        return not self.is_watched and self.indexer is None and self._keeper is None

    @property
    def is_changed(self) -> bool:
        """Whether there is something to write."""
        return (
            bool(self._written or self._deleted or self._renewed or self._notes)
            or self.version != self._base
            or (self.indexer is not None and self.indexer.is_changed)
            or self.ledger.is_changed
        )

    @property
    def is_news(self) -> bool:
        """Whether there is something for those who watch, follow a log, or wait for a job."""
        return self.ledger.is_news or (self.is_watched and self.version != self._base)

    def rows(self, addresses: Iterable[Address]) -> dict[Address, Record]:
        """Return the rows at those of some addresses, which were read, that have an item."""
        return {at: self._rows[at] for at in addresses if at in self._rows}

    def live(self, addresses: Iterable[Address]) -> dict[Address, Record]:
        """Return the rows at those of some addresses, which were read, that have a live item."""
        return {at: row for at, row in self.rows(addresses).items() if row.is_live(self.now)}

    def expired(self, addresses: Iterable[Address]) -> list[Address]:
        """Return those of some addresses, whose rows were read, that have an item that is over."""
        rows = self._rows
        return [at for at in addresses if at in rows and not rows[at].is_live(self.now)]

    # Units

    def apply(self, ops: Sequence[Operation]) -> list[Any] | Exception:
        """Apply a unit; return the answers to its operations, or its error."""
        try:
            if isinstance(ops[0], OfJobs):
                return [self._run_job(ops[0])]
            decision = self.decide(cast("Sequence[Named]", ops))
        except Exception as exc:  # noqa: BLE001 - it belongs to the unit's caller
            return exc
        self.take(decision)
        return decision.effects.answers

    async def apply_all(
        self, connection: Connection, units: Sequence[Sequence[Operation]]
    ) -> list[list[Any] | Exception]:
        """Apply units, on a thread if that takes long.

        Args:
            connection: over which the root was looked at or locked.
            units: as `apply` has them.
        """
        if self.indexer is None or is_light(units):
            return [self.apply(ops) for ops in units]
        return await aside(connection, lambda: [self.apply(ops) for ops in units])

    def _run_job(self, op: OfJobs) -> Any:
        answer = self.ledger.run(op)
        if not isinstance(op, TakeJob) or answer is None:
            return answer
        item = self.ledger.item_of(answer)
        if item is None:  # it was put in this transaction, or it is lost
            key = key_of(answer.position)
            row = self._rows.get((op.path, key))
            if row is None:
                raise StoreCorruptError(f"the job {show(op.namespace, key)} has lost its item")
            times = row.created_at, row.updated_at, row.expires_at
            item = pack_item(op.namespace, key, row.data, row.version, *times)
        return item, answer.attempt

    def decide(self, ops: Sequence[Named]) -> Decision:
        """Decide what a unit comes to, as `kvstore.plan` has it; nothing is changed yet.

        Raises:
            Exception: the unit's own error.
        """
        effects = decide(
            *(ops, self._rows, self.now, self.version),
            is_watched=self.is_watched,
            sequences=self.ledger.of(ops),
            jobs=self.ledger.jobs,
        )
        return Decision(effects, self._plan(effects))

    def _plan(self, effects: Effects, *, leaves_vectors: bool = False) -> Any:
        if self.indexer is None or not effects.writes:
            return None
        entries = [
            Entry(row.path, encode_key(row.key), row.data, row.indexing, vectors)
            for row, vectors in effects.writes
        ]
        return self.indexer.plan(entries, leaves_vectors=leaves_vectors)

    def take(self, decision: Decision) -> None:
        """Apply what was decided."""
        effects, rows, indexer = decision.effects, self._rows, self.indexer
        if self._keeper is not None:
            others = self._deleted.keys() | self._renewed.keys()
            self._keeper.take(effects, rows, self._written, others)
        for address in effects.drops:
            rows.pop(address, None)
            self._written.pop(address, None)
            self._renewed.pop(address, None)
            self._deleted[address] = None
            if indexer is not None:
                indexer.delete(address[0], encode_key(address[1]))
        for row, _ in effects.writes:
            address = row.path, row.key
            rows[address] = row
            self._written[address] = None
            self._deleted.pop(address, None)
        for row in effects.renewals:
            address = row.path, row.key
            rows[address] = row
            if address not in self._written:
                self._renewed[address] = None
        self.version = effects.version
        self._notes += effects.notes
        self.ledger.take(effects)
        if indexer is not None and decision.planned is not None:
            indexer.put(decision.planned)

    def write(self, effects: Effects) -> None:
        """Apply effects that were decided elsewhere, those of an import; vectors are left.

        Raises:
            Exception: the index cannot hold what is written.
        """
        self.take(Decision(effects, self._plan(effects, leaves_vectors=True)))

    def drop(self, kind: Literal["delete", "expire"], addresses: Sequence[Address]) -> None:
        """Have rows go; of an index, a log or a queue that there is, they were loaded."""
        effects = gone(
            *(kind, addresses, self.now, self.version),
            is_watched=self.is_watched,
            sequences=self.ledger.known(dict.fromkeys(path for path, _ in addresses)),
        )
        self.take(Decision(effects))

    def forget_rows(self) -> None:
        """Let go of the rows that were read and written, once all is flushed."""
        self._rows.clear()

    def skip(self, number: int) -> None:
        """Give out versions for what a statement has done that nobody watches."""
        self.version += number

    # Writing

    async def flush(self, connection: Connection, stamp: Stamp) -> bool:
        """Write what has changed, inside a transaction, and go on from there.

        Returns:
            Whether nobody has written under the root since it was looked at.
        """
        if not self.is_changed and self._calls:
            return True
        changes = None if self.indexer is None else self.indexer.take_changes()
        pieces = list(self._pieces()) or [_NO_ROWS]
        self._forget_changes()
        for piece in pieces:
            call, arguments = self._call(stamp, piece, changes, None)
            if not await connection.fetchval(call, *arguments):
                return False
            self._note_written()
            if changes is not None:
                await changes.write_vectors(connection, self.state.root)
                changes = None
        return True

    def in_one_call(self, stamp: Stamp, patience: int | None) -> tuple[str, Sequence[Any]] | None:
        """Return the one statement that does it all, and its arguments.

        Args:
            stamp: by which the call is known.
            patience: as `one_call` has it.

        Returns:
            `None`: it takes more than one, and so a transaction, in which to `flush`.
        """
        if self.indexer is not None and self.indexer.has_vectors:
            return None
        pieces = self._pieces()
        rows = next(pieces, _NO_ROWS)
        if next(pieces, None) is not None:
            return None
        self._forget_changes()
        changes = None if self.indexer is None else self.indexer.take_changes()
        return self._call(stamp, rows, changes, patience)

    def _call(
        self,
        stamp: Stamp,
        rows: Sequence[Any],
        changes: IndexChanges | None,
        patience: int | None,
    ) -> tuple[str, Sequence[Any]]:
        """Return the call that writes rows, and what else has changed so far: let go of that."""
        state = self.state
        number = None if self._calls else stamp.number
        version = state.version if self.version == self._base else self.version
        notes: Sequence[Any] = _NO_NOTES
        if self._notes:
            versions, kinds, paths, keys, _ = zip(*self._notes, strict=True)
            notes = versions, kinds, paths, [*map(encode_key, keys)]
        index = IndexChanges.NONE if changes is None else changes.arguments
        past = self._keeper.take_arguments() if self._keeper is not None else ()
        sequences = self.ledger.take_changes() if self.ledger.is_changed else ()
        call = statements.one_call(
            keeps_past=bool(past), has_sequences=bool(sequences), patience=patience
        )
        return call, (
            state.root, state.writes, stamp.writer, stamp.first, number, self.now,
            version, None if changes is None else changes.description, *rows, *notes, *index,
            *past, *sequences,
        )  # fmt: skip

    def _note_written(self) -> None:
        """Take note that a call has done all that there was, but for rows to come."""
        self._calls += 1
        self._notes.clear()
        self.state.writes += 1
        if self.version != self._base:
            self.state.version = self._base = self.version

    def _pieces(self) -> Iterator[Sequence[Any]]:
        """Cut the rows that change into what one call should have, by columns."""
        rows = self._rows
        parts: list[tuple[Any, ...]] = []
        size = 0
        for kind, addresses in (
            (_DELETE, self._deleted),
            (_WRITE, self._written),
            (_RENEW, self._renewed),
        ):
            for path, key in addresses:
                if kind == _DELETE:
                    parts.append((kind, path, encode_key(key), *[None] * 7))
                elif kind == _RENEW:
                    row = rows[path, key]
                    lifetime = row.expires_at, row.ttl
                    parts.append((kind, path, encode_key(key), *[None] * 4, *lifetime, None))
                else:
                    row = rows[path, key]
                    parts.append((kind, *_columns_of(row)))
                    size += len(row.data)
                if size > _WRITTEN_BYTES or len(parts) >= _WRITTEN_AT_ONCE:
                    yield list(zip(*parts, strict=True))
                    parts, size = [], 0
        if parts:
            yield list(zip(*parts, strict=True))

    def _forget_changes(self) -> None:
        """Let go of which rows change, as they are on their way."""
        for changed in (self._deleted, self._written, self._renewed):
            changed.clear()


async def find_unembedded(
    connection: Connection, ops: Sequence[Named], now: int, make_indexer: MakeIndexer
) -> Sequence[str]:
    """Return the texts for which a unit would want vectors, as things are now.

    Args:
        connection: to read over.
        ops: the unit.
        now: the instant.
        make_indexer: as for `Workspace`.

    Returns:
        They may be more or others when it is written; none where it is to fail, which is told then.
    """
    missing: list[str] = []
    for root in sorted({root_of(op.path) for op in ops}):
        mine = [op for op in ops if root_of(op.path) == root]
        space = await Workspace.look(
            connection, root, [mine], now, 0, make_indexer, is_indexed=True
        )
        if space is not None:
            try:
                space.decide(mine)
            except UnembeddedError as exc:
                missing += exc.texts
            except StoreError:
                return ()
    return missing


def is_light(units: Sequence[Sequence[Operation]]) -> bool:
    """Whether the words of what units put are found in a moment."""
    return sum(len(getattr(op, "data", b"")) for ops in units for op in ops) <= _LIGHT_BYTES


def is_decided(ops: Sequence[Operation]) -> bool:
    """Whether a unit is decided in memory: its operations name their items, or it is of jobs."""
    return all(isinstance(op, Named) for op in ops) or isinstance(ops[0], OfJobs)


def _columns_of(row: Record) -> tuple[Any, ...]:
    """Return a row as it is to be written, but for its root."""
    return (
        row.path, encode_key(row.key), row.version, row.created_at, row.updated_at,
        row.data.decode(), row.expires_at, row.ttl, pack_indexing(row.indexing),
    )  # fmt: skip
