"""The write side of the search index: an item and its entries change in one transaction.

The index of a file has one description, kept in `meta`: the fields, the model, the length of its
vectors. Every writer goes by it, whatever it was opened with, so the index is the same whoever
writes. A writer that has not the index's model leaves an item's new texts without vectors, and
marks the item for `reindex`.

- `words`, an FTS5 table without content, has a row for each indexed item: its words, and one
  token for its namespace and for each one above it, by which FTS5 itself narrows a search.
- `vectors_small` and `vectors_large`, vec0 tables partitioned by namespace, have a row for each
  distinct text of an item. They differ in the size of vec0's chunks: the first vectors of a
  namespace go to chunks of 8, so that a small one takes little space; the others to chunks of
  256, which are searched faster. The index on the table in which vec0 keeps its chunks, which
  vec0 itself does without, makes the time to find a partition independent of their number.
- `index_entries` has a hash of each text, so that only what has changed is embedded and written.

A trigger notes deleted items; the batch that deletes them drops their entries before it commits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson

from kvstore import codec
from kvstore.description import Description
from kvstore.errors import MissingDependencyError
from kvstore.index_plan import (
    CODE_BYTES,
    VectorFinder,
    Wanted,
    Words,
    adopt,
    complete,
    require_adopted,
    texts_of_put,
)
from kvstore.namespace import root_of
from kvstore.operations import (
    Adopt,
    Operation,
    PopEntry,
    Put,
    Record,
    Reindex,
    Remove,
    Restore,
    Rewind,
    Sweep,
    TrimLog,
    Wide,
)
from kvstore.own_vectors import OwnVectors
from kvstore.plan import Address, Effects, Vectors
from kvstore.rules import unpack_indexing
from kvstore.sqlite import driver
from kvstore.sqlite import index_statements as sql
from kvstore.sqlite.index_file import (
    FREE,
    Entries,
    Setup,
    codes_held,
    entries_of,
    keep_description,
    load_vectors,
    require_words,
)
from kvstore.sqlite.plain_puts import are_bare_puts
from kvstore.sqlite.rows import FileState, NotInlineError, StoredRow, read_state
from kvstore.sqlite.vectors import VectorChange
from kvstore.sqlite.words import namespace_words, pack_counts
from kvstore.sqlite.writing import Batch
from kvstore.types import Item

__all__ = ["begin_batch"]

_NOTHING = (None, None, 0, 0)


def begin_batch(
    cursor: driver.Cursor,
    now: int,
    longest: int | None,
    setup: Setup | None,
    state: FileState | None = None,
) -> Batch:
    """Return the batch that keeps the file's index, if it has one."""
    state = state or read_state(cursor)
    if state.description is None:
        return Batch(cursor, now, longest, state)
    return IndexedBatch(cursor, now, longest, state, setup)


class IndexedBatch(Batch):
    """A batch in a file with an index: what it writes, it indexes in the same transaction."""

    def __init__(
        self,
        cursor: driver.Cursor,
        now: int,
        longest: int | None,
        state: FileState,
        setup: Setup | None,
    ) -> None:
        super().__init__(cursor, now, longest, state)
        assert self.index is not None
        self._description = Description.parse(self.index)
        self._setup = setup
        self._finder = VectorFinder(self._description, setup)  # of the present unit
        self._touched: dict[str, None] = {}  # namespaces whose vectors have changed
        self._vector_changes: list[VectorChange] = []
        self._room: dict[str, int] = {}  # vectors that small chunks may yet take, by namespace
        self._has_vec0: bool | None = None
        self._counted: dict[str, list[int]] = {}  # entries that have come, and their words, by root
        require_words(self._connection)
        if self._description.dimensions is not None:
            self._collect_garbage(longest is not None)

    def apply(self, units: Sequence[Sequence[Operation]]) -> list[list[Any] | Exception]:
        """Apply units as the base class does.

        A unit may get an `UnembeddedError`: some of its texts need vectors.
        """
        self._require_few(units)
        return [self._outcome(ops) for ops in units]

    def _keep_description(self) -> None:
        keep_description(self._connection, self._description)
        self.index = self._description.text

    def finish(self) -> None:
        """Note how many entries there are, and for caches what has changed."""
        for root, (items, length) in self._counted.items():
            if items or length:
                self._execute(sql.ADD_TOTALS, (root, items, length))
            if items < 0:
                self._execute(sql.FORGET_ROOT, (root,))
        for path in self._touched:
            self._execute(sql.COUNT_WRITE, (path,))
        if self._touched and self._version == self._first_version:
            self._version += 1
        super().finish()

    def committed(self) -> None:
        """Publish what has changed."""
        if self._setup is not None and self._vector_changes:
            self._setup.journal.publish(self._version, self._vector_changes)

    def _apply_unit(self, ops: Sequence[Operation]) -> list[Any]:
        self._finder = VectorFinder(self._description, self._setup)
        if not self._is_watched and are_bare_puts(ops) and self._are_outside(ops):
            return self._apply_plain(list(ops))
        return super()._apply_unit(ops)

    def _carry_out(self, effects: Effects, rows: Mapping[Address, StoredRow]) -> None:
        found = [self._plan_entries(row, vectors, rows) for row, vectors in effects.writes]
        self._finder.require_all()
        super()._carry_out(effects, rows)
        for entry, (row, _) in zip(found, effects.writes, strict=True):
            if entry is not None:
                if entry.item is None:
                    address = row.path, row.key
                    _, entry.item = self._execute(sql.GET_ONE_ID, address).fetchone()
                self._write_entries(entry)
        if effects.drops:
            self._drop_deleted()

    def _run(self, op: Wide) -> Any:
        first = self._version + 1
        match op:
            case Adopt():
                super()._run(op)
                return 0 if self._setup is None else self._adopt()
            case Reindex() if self._setup is not None:
                planned = self._plan_reindex(op)
                self._finder.require_all()
                return self._reindex(planned, op.refused)
            case Rewind():
                self._finder = VectorFinder(self._description, None)  # which leaves its vectors out
            case PopEntry() | TrimLog() | Remove() | Sweep() | Restore():
                answer = super()._run(op)
                self._drop_deleted()
                if isinstance(op, Restore):
                    self._index_since(first)
                return answer
        return super()._run(op)

    def _apply_plain(self, ops: Sequence[Put]) -> list[Item]:
        """Apply puts that share statements."""
        keys: dict[str, list[str]] = {}
        for op in ops:
            keys.setdefault(op.path, []).append(op.key)
        held = self._get_all(sql.GET_ONE_ENTRIES, sql.GET_MANY_ENTRIES, keys)
        fields = self._description.fields
        entries = []
        for op in ops:
            item, *there = held.get((op.path, op.key), _NOTHING)
            wanted = Wanted.of(texts_of_put(op, fields), op.vectors)
            entry = entries_of(item, op.path, wanted, *there)
            if not entry.is_unchanged:
                self._find_vectors(entry, op.vectors)
                entries.append((op, entry))
        self._finder.require_all()
        answers = self._put_plain(ops)
        ids = held
        if len(held) < len(ops):
            ids = self._get_all(sql.GET_ONE_ID, sql.GET_MANY_IDS, keys)
        fresh = []
        for op, entry in entries:
            entry.item = ids[op.path, op.key][0]
            if self._is_fresh(entry):
                fresh.append(entry)
            else:
                self._write_entries(entry)
        self._write_fresh(fresh)
        return answers

    def _get_all(
        self, one: str, many: str, keys: Mapping[str, list[str]]
    ) -> dict[tuple[str, str], list[Any]]:
        """Return a row for each item that is there of some namespaces, by either statement."""
        held = {}
        for path, some in keys.items():
            if len(some) == 1:
                rows = self._execute(one, (path, some[0])).fetchall()
            else:
                rows = self._execute(many, (orjson.dumps(some).decode(), path)).fetchall()
            for key, *row in rows:
                held[path, key] = row
        return held

    # Planning: what reads, and may refuse

    def _plan_entries(
        self, row: Record, vectors: Vectors | None, rows: Mapping[Address, StoredRow]
    ) -> Entries | None:
        """Return what the index is to hold of an item that is to be written, if it is new."""
        before = rows.get((row.path, row.key))
        item: int | None = None
        there: Sequence[Any] = (None, 0, 0)
        if before is not None:
            item = before.id
            there = self._execute(sql.GET_ENTRIES, (item,)).fetchone()
        value = codec.decode(row.data)
        wanted = Wanted.of_row(value, row.indexing, self._description, vectors)
        entry = entries_of(item, row.path, wanted, *there)
        if entry.is_unchanged:
            return None
        self._find_vectors(entry, vectors)
        return entry

    def _find_vectors(
        self, entry: Entries, known: Vectors | None, refused: Collection[str] = ()
    ) -> None:
        if isinstance(known, OwnVectors) and not self._can_use_vectors():
            load_vectors(self._connection)  # says why it cannot
        self._finder.find(entry.wanted, set(entry.slots) if entry.slots else (), known, refused)

    # Writing

    def _is_fresh(self, entry: Entries) -> bool:
        """Whether nothing is in the index of an item yet, and all that belongs there is at hand."""
        return (
            entry.slots is None
            and not entry.is_pending
            and not entry.wanted.own
            and (self._description.model is None or all(entry.wanted.vectors.values()))
        )

    def _write_fresh(self, entries: Sequence[Entries]) -> None:
        """As `_write_entries`, for many items of which nothing is in the index yet."""
        words: list[tuple[int, str, str]] = []
        slots: list[tuple[int, bytearray, bytearray, int]] = []
        vectors: list[VectorChange] = []
        for entry in entries:
            item, path = entry.item, entry.path
            assert item is not None
            wanted = entry.wanted
            if not wanted.texts:
                continue
            for slot, vector in enumerate(wanted.vectors.values()):
                vectors.append(VectorChange(path, slot << sql.ITEM_BITS | item, vector))
            found = Words(wanted.texts.values(), path)
            self._count(path, 1, found.length)
            words.append((item, found.text, namespace_words(path)))
            codes = bytearray().join(wanted.texts)  # bound in half the time of bytes
            slots.append((item, codes, pack_counts(found.counts), found.length))
        self._connection.executemany(sql.ADD_WORDS, words)
        self._connection.executemany(sql.SET_ENTRIES, slots)
        self._add_vectors(vectors)

    def _add_vectors(self, added: list[VectorChange]) -> None:
        """Insert vectors where there are none."""
        if not added:
            return
        if self._description.dimensions is None:
            assert added[0].vector is not None
            self._create_vectors(len(added[0].vector) // 4)
        by_path: dict[str, list[VectorChange]] = {}
        for change in added:
            by_path.setdefault(change.path, []).append(change)
        small: list[VectorChange] = []
        large: list[VectorChange] = []
        for path, changes in by_path.items():
            room = self._room_for(path)
            small += changes[:room]
            large += changes[room:]
            self._room[path] = max(0, room - len(changes))
        self._connection.executemany(sql.INSERT_SMALL, small)
        self._connection.executemany(sql.INSERT_LARGE, large)
        self._note_vectors(by_path, added)

    def _note_vectors(self, paths: Iterable[str], changes: list[VectorChange]) -> None:
        """Take note of vectors that have changed, and in which namespaces."""
        self._touched |= dict.fromkeys(paths)
        if self._setup is not None and self._setup.journal.is_read:
            self._vector_changes += changes

    def _write_entries(self, entry: Entries) -> None:
        """Make the index hold what it is to hold of an item."""
        item = entry.item
        assert item is not None
        wanted, slots = entry.wanted, list(entry.slots or ())
        codes = wanted.codes
        if wanted.own and self._description.model is None:
            self._take_own_vectors()
        has_vectors = self._description.model is not None
        freed = [slot for slot, code in enumerate(slots) if code and code not in codes]
        missing = False
        for code in codes:
            if code in slots:
                continue
            vector = wanted.vectors.get(code)
            if has_vectors and vector is None:
                missing = True
                continue
            slot = freed.pop() if freed else len(slots)
            if slot == len(slots):
                slots.append(code)
                is_free = True
            else:
                is_free = slots[slot] == FREE
                slots[slot] = code
            if has_vectors:
                self._set_vector(entry.path, slot << sql.ITEM_BITS | item, vector or b"", is_free)
        for slot in freed:
            if slots[slot] != FREE:
                slots[slot] = FREE
                if has_vectors:
                    self._set_vector(entry.path, slot << sql.ITEM_BITS | item, b"", is_free=False)
        while slots and slots[-1] == FREE:
            slots.pop()
        if entry.slots is not None:
            self._count(entry.path, -1, -entry.length)
            self._execute(sql.DELETE_WORDS, (item,))
        if codes:
            words = Words(wanted.texts.values(), entry.path)
            self._count(entry.path, 1, words.length)
            self._execute(sql.ADD_WORDS, (item, words.text, namespace_words(entry.path)))
            packed = pack_counts(words.counts)
            self._execute(sql.SET_ENTRIES, (item, b"".join(slots), packed, words.length))
        else:
            self._execute(sql.DELETE_ENTRIES, (item,))
        if missing and not entry.is_pending:
            self._execute(sql.MARK, (item,))
        elif entry.is_pending and not missing:
            self._execute(sql.UNMARK, (item,))

    def _take_own_vectors(self) -> None:
        """Begin to keep vectors, of an index that has no model."""
        assert self._setup is not None
        self._description.model = self._setup.own
        self._description.has_all_vectors = True
        self._keep_description()

    def _count(self, path: str, items: int, length: int) -> None:
        """Take note of an entry that comes or goes."""
        counted = self._counted.setdefault(root_of(path), [0, 0])
        counted[0] += items
        counted[1] += length

    def _set_vector(self, path: str, rowid: int, vector: bytes, is_free: bool) -> None:
        """Write, replace or (with no vector) delete one vector."""
        if not is_free and not self._can_use_vectors():
            self._execute(sql.ADD_GARBAGE, (rowid,))
            self._touched[path] = None
            return
        if self._description.dimensions is None and not vector:
            return  # nothing but vectors without a direction, so far
        change = VectorChange(path, rowid, vector or None)
        if vector and (
            is_free
            or self._description.dimensions is None
            or not any(self._execute(each, (vector, rowid)).rowcount for each in sql.UPDATE_VECTOR)
        ):
            self._add_vectors([change])
            return
        if not vector and not is_free:
            self._delete_vector(rowid)
        self._note_vectors((path,), [change])

    def _room_for(self, path: str) -> int:
        """Return how many vectors of a namespace may yet go to small chunks."""
        room = self._room.get(path)
        if room is not None:
            return room
        if self._execute(sql.HAS_LARGE_CHUNK, (path,)).fetchone():
            return 0
        chunks: int = self._execute(sql.COUNT_SMALL_CHUNKS, (path, sql.SMALL_CHUNKS)).fetchone()[0]
        return (sql.SMALL_CHUNKS - chunks) * sql.SMALL_CHUNK

    def _delete_vector(self, rowid: int) -> None:
        any(self._execute(delete, (rowid,)).rowcount for delete in sql.DELETE_VECTOR)

    def _can_use_vectors(self) -> bool:
        if self._has_vec0 is None:
            try:
                load_vectors(self._connection)
            except MissingDependencyError:
                self._has_vec0 = False
            else:
                self._has_vec0 = True
        return self._has_vec0

    def _create_vectors(self, dimensions: int) -> None:
        load_vectors(self._connection)
        for name, chunk in sql.VECTOR_CHUNKS.items():
            self._execute(sql.CREATE_VECTORS.format(name=name, dimensions=dimensions, chunk=chunk))
            self._execute(sql.CREATE_VECTORS_INDEX.format(name=name))
        self._description.dimensions = dimensions
        self._keep_description()

    # Deleting

    def _drop_deleted(self) -> None:
        """Drop the entries of the items that were deleted."""
        dropped = self._execute(sql.GET_DROPPED).fetchall()
        if not dropped:
            return
        has_vectors = self._description.model is not None
        for item, path, slots, length in dropped:
            if slots is None:
                continue
            self._count(path, -1, -length)
            self._execute(sql.DELETE_WORDS, (item,))
            self._execute(sql.DELETE_ENTRIES, (item,))
            if has_vectors:
                for slot in range(len(slots) // CODE_BYTES):
                    self._set_vector(path, slot << sql.ITEM_BITS | item, b"", is_free=False)
        for statement in sql.FORGET_DROPPED:
            self._execute(statement)

    def _collect_garbage(self, is_inline: bool) -> None:
        """Delete the vectors that a process without sqlite-vec has left."""
        garbage = self._execute(sql.GET_GARBAGE).fetchall()
        if garbage and self._can_use_vectors():
            if is_inline:
                raise NotInlineError
            for (rowid,) in garbage:
                self._delete_vector(rowid)
            self._execute(sql.FORGET_GARBAGE)

    # Reindexing

    def _adopt(self) -> int:
        """Make the index the store's own; return how many items are marked."""
        setup, description = self._setup, self._description
        assert setup is not None
        had_vectors = description.dimensions is not None
        is_dropped, is_marked = adopt(description, setup)
        if is_dropped:
            if had_vectors:
                load_vectors(self._connection)
                for statement in sql.DROP_VECTORS:
                    self._execute(statement)
            for statement in sql.FORGET_VECTORS:
                self._execute(statement)
        if is_marked:
            self._execute(sql.MARK_ALL)
            self._keep_description()
        pending: int = self._execute(sql.COUNT_MARKED).fetchone()[0]
        return pending

    def _plan_reindex(self, op: Reindex) -> list[tuple[int, str, Entries | None]]:
        assert self._setup is not None
        require_adopted(self._description, self._setup)
        planned: list[tuple[int, str, Entries | None]] = []
        for key, *row in self._execute(sql.GET_PENDING, (op.after, op.limit)).fetchall():
            entry = self._entries_of(row, keeps_own=True)
            if entry is not None:
                self._find_vectors(entry, op.vectors, op.refused)
            planned.append((row[0], key, entry))
        return planned

    def _entries_of(self, row: Sequence[Any], *, keeps_own: bool) -> Entries | None:
        item, path, indexing, value, *there = row
        if path is None:
            return None
        paths = unpack_indexing(indexing)
        kept = codes_held(there[0] or b"") if keeps_own else ()
        wanted = Wanted.of_row(codec.decode(value), paths, self._description, None, kept)
        return entries_of(item, path, wanted, *there)

    def _reindex(
        self, planned: list[tuple[int, str, Entries | None]], refused: Collection[str]
    ) -> tuple[int, int, list[Address]]:
        """Index marked items, and answer what `Reindex` says."""
        for item, _, entry in planned:
            if entry is None:
                self._execute(sql.UNMARK, (item,))
            else:
                self._write_entries(entry)
        if not planned:
            assert self._setup is not None
            complete(self._description, self._setup)
            self._keep_description()
            return 0, 0, []
        left = [
            (entry.path, key)
            for _, key, entry in planned
            if entry is not None and entry.wanted.has_one_of(refused)
        ]
        return planned[-1][0], len(planned), left

    def _index_since(self, version: int) -> None:
        """Index what an import has written; its vectors are left to `reindex`."""
        finder = VectorFinder(self._description, None)
        for row in self._execute(sql.GET_SINCE, (version,)).fetchall():
            entry = self._entries_of(row, keeps_own=False)
            if entry is not None and not entry.is_unchanged:
                finder.find(entry.wanted, set(entry.slots or ()), None)
                self._write_entries(entry)
