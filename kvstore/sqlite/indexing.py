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

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from kvstore import codec
from kvstore.caching import cache_short
from kvstore.description import Brought, Description
from kvstore.errors import (
    IndexMismatchError,
    MissingDependencyError,
    StoreError,
    ValueTooLargeError,
)
from kvstore.index_plan import Words
from kvstore.operations import (
    Adopt,
    Operation,
    Put,
    Record,
    Reindex,
    Remove,
    Restore,
    Sweep,
    UnembeddedError,
    Wide,
)
from kvstore.plan import Address, Effects, Vectors
from kvstore.sqlite import driver, statements
from kvstore.sqlite import index_statements as sql
from kvstore.sqlite.checking import INDEX_CHECKS
from kvstore.sqlite.connection import transaction
from kvstore.sqlite.layout import made_later
from kvstore.sqlite.openfile import OpenFile
from kvstore.sqlite.passing import Passing
from kvstore.sqlite.words import namespace_words, pack_counts
from kvstore.sqlite.writing import (
    Batch,
    FileState,
    NotInlineError,
    StoredRow,
    is_bare_put,
    read_state,
)
from kvstore.text import WORDS_REVISION, texts_of
from kvstore.types import Item

__all__ = [
    "ITEM_BITS",
    "ITEM_MASK",
    "Journal",
    "Setup",
    "begin_batch",
    "describe",
    "described",
    "find_problems",
    "load_vectors",
    "prepare_index",
]

# A vector's rowid is the item's id, and above it the slot. In that order, because sqlite-vec 0.1.9
# compares only the low 32 bits of the rowids that a search is restricted to (`_cmp` in its
# sqlite-vec.c): so it confuses but vectors of one item, and all of them are in the list anyway.
ITEM_BITS = 40
ITEM_MASK = (1 << ITEM_BITS) - 1
MAX_SLOTS = 1 << 20
HASH_BYTES = 16
SMALL_CHUNK = 8  # vectors; a namespace of five takes one chunk
LARGE_CHUNK = 256
SMALL_CHUNKS = 128  # of a namespace; its vectors beyond them go to large chunks
JOURNAL_VECTORS = 20_000  # changes that are kept for the caches of this process

_FREE = bytes(HASH_BYTES)
_CHECK_SLICE = 1_000  # items looked at by one statement


# Description


def describe(connection: driver.Connection) -> Description | None:
    """Return the description of the file's index, or `None` if there is none."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'index'").fetchone()
    return None if row is None else described(row[0])


@cache_short(64, 10_000)
def described(text: str) -> Description:
    """Return a description for those who only read it: it is shared."""
    return Description.parse(text)


def _store(connection: driver.Connection, description: Description) -> None:
    connection.execute(
        "INSERT INTO meta (name, value) VALUES ('index', ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (description.text,),
    )


@dataclass(slots=True)
class Setup(Brought):
    """What one store brings along for the index.

    Attributes:
        journal: of the vectors that it writes.
        passing: what passes the filters of its searches.
    """

    journal: Journal
    passing: Passing = field(default_factory=Passing)


# Tables

_FORGETS = driver.VERSION >= (3, 43, 0)  # older ones must keep a text to be able to delete it
_CREATE_WORDS = """
CREATE VIRTUAL TABLE words USING fts5(
    text, namespaces, {content}
    tokenize = "ascii tokenchars '.'"
)
"""
_OLDER_WORDS = _CREATE_WORDS.replace(  # until words were made in kvstore/text.py
    "ascii tokenchars '.'", "porter unicode61 remove_diacritics 2 categories 'L* N* M* Co'"
)
_CREATE_TRIGGER = """
CREATE TRIGGER items_dropped AFTER DELETE ON items
BEGIN
    INSERT OR IGNORE INTO index_dropped (item, path) VALUES (old.id, old.path);
END
"""
_CREATE_VECTORS = """
CREATE VIRTUAL TABLE {name} USING vec0(
    path TEXT PARTITION KEY, embedding FLOAT[{dimensions}], chunk_size = {chunk}
)
"""
_CREATE_VECTORS_INDEX = "CREATE INDEX {name}_by_path ON {name}_chunks (partition00)"
_MARK_ALL = "INSERT OR IGNORE INTO index_pending (item) SELECT id FROM items"
_TABLES = {"vectors_small": SMALL_CHUNK, "vectors_large": LARGE_CHUNK}

_CONTENTS = ("content = '', contentless_delete = 1,", "")  # of an SQLite that forgets, or not
made_later(
    *("table", "words", "words"),
    *(
        words.format(content=content)
        for content in _CONTENTS
        for words in (_CREATE_WORDS, _OLDER_WORDS)
    ),
    shadows="data|idx|docsize|config|content",
)
made_later("trigger", "items_dropped", "items", _CREATE_TRIGGER)
for _name, _chunk in _TABLES.items():
    made_later(
        *("table", _name, _name, _CREATE_VECTORS.replace("{name}", _name)),
        dimensions=r"\d+",
        chunk=str(_chunk),
        shadows=r"info|chunks|rowids|vector_chunks\d+",
    )
    _created = _CREATE_VECTORS_INDEX.replace("{name}", _name)
    made_later("index", f"{_name}_by_path", f"{_name}_chunks", _created)


def prepare_index(
    connection: driver.Connection, setup: Setup, timeout: float, file: OpenFile
) -> None:
    """Make the index of a file that has none; what it holds already is marked for `reindex`.

    Args:
        connection: with write access, outside a transaction.
        setup: of the store that has an index.
        timeout: how long to wait for other processes, in seconds.
        file: that of the connection.
    """
    description = describe(connection)
    if description is not None and description.words >= WORDS_REVISION:
        return
    with transaction(connection, timeout, file):
        description = describe(connection)
        if description is not None and description.words >= WORDS_REVISION:
            return  # another process was faster
        is_new = not connection.execute("SELECT EXISTS (SELECT 1 FROM items)").fetchone()[0]
        if description is None:
            connection.execute(_CREATE_TRIGGER)
            description = Description(setup.fields, setup.model, None, has_all_vectors=is_new)
        else:
            connection.execute("DROP TABLE words")
            connection.execute("UPDATE index_entries SET words = x'', length = 0")
            connection.execute("UPDATE meta SET value = 0 WHERE name = 'index_length'")
        content = _CONTENTS[0 if _FORGETS else 1]
        connection.execute(_CREATE_WORDS.format(content=content))
        connection.execute(_MARK_ALL)
        description.has_all_words = is_new
        description.words = WORDS_REVISION
        _store(connection, description)


def _require_words(connection: driver.Connection) -> None:
    """Raise `MissingDependencyError` if this SQLite is too old for the file's `words`."""
    if not _FORGETS:
        sql = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'words'").fetchone()
        if sql is not None and "contentless_delete" in sql[0]:
            raise MissingDependencyError(
                "the search index of this file was made by a newer SQLite, and writing it takes "
                f"3.43 or newer; {driver.NAME} is older: pip install pysqlite3"
            )


def load_vectors(connection: driver.Connection) -> None:
    """Load sqlite-vec into a connection that may lack it.

    Raises:
        MissingDependencyError: this Python's SQLite loads no extensions, or there is no sqlite-vec.
    """
    if connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'vec0'").fetchone():
        return
    driver.require_extensions()
    try:
        import sqlite_vec
    except ImportError:
        raise MissingDependencyError(
            "semantic search needs sqlite-vec, which is not installed: pip install sqlite-vec"
        ) from None
    connection.enable_load_extension(True)
    try:
        sqlite_vec.load(connection)
    except (driver.Error, OSError) as exc:
        raise MissingDependencyError(
            f"semantic search needs sqlite-vec, whose library cannot be loaded from "
            f"{sqlite_vec.loadable_path()}: pip install --force-reinstall sqlite-vec, and have a "
            "frozen program carry it (PyInstaller: --collect-all sqlite_vec)"
        ) from exc
    finally:
        connection.enable_load_extension(False)


# Writing


class Journal:
    """The latest changes of vectors by this process, for its caches.

    Attributes:
        is_read: whether there is a cache that reads it.
    """

    def __init__(self) -> None:
        self.is_read = False
        self._records: deque[tuple[int, list[Change]]] = deque()
        self._length = 0

    def publish(self, version: int, changes: list[Change]) -> None:
        """Add what a committed transaction has changed."""
        self._records.append((version, changes))
        self._length += len(changes)
        while self._length > JOURNAL_VECTORS:
            self._length -= len(self._records.popleft()[1])

    def between(self, after: int, until: int) -> list[list[Change]]:
        """Return the changes of each transaction with `after < version <= until`, in order."""
        records = list(self._records)  # another thread may be adding to them
        begin, end = (bisect_right(records, at, key=itemgetter(0)) for at in (after, until))
        return [changes for _, changes in records[begin:end]]


class Change(NamedTuple):
    """A vector that was written (`None`: deleted)."""

    path: str
    rowid: int
    vector: bytes | None


@dataclass(slots=True)
class _Entries:
    """What the index is to hold of an item, and what it holds.

    Attributes:
        item: its id; `None`: not there yet.
        path: its namespace.
        texts: by their hashes, in order.
        slots: the hashes in the index; `None`: nothing is.
        length: how many words are.
        vectors: the new ones; `None`: left out.
    """

    item: int | None
    path: str
    texts: dict[bytes, str]
    slots: list[bytes] | None
    length: int
    is_pending: bool
    vectors: dict[bytes, bytes | None] = field(default_factory=dict)

    @property
    def is_unchanged(self) -> bool:
        return (
            not self.is_pending
            and (self.slots is not None or not self.texts)
            and self.texts.keys() == set(self.slots or ()) - {_FREE}
        )


def begin_batch(
    connection: driver.Connection,
    now: int,
    longest: int | None,
    setup: Setup | None,
    state: FileState | None = None,
) -> Batch:
    """Return the batch that keeps the file's index, if it has one."""
    state = state or read_state(connection)
    if state.description is None:
        return Batch(connection, now, longest, state)
    return IndexedBatch(connection, now, longest, state, setup)


class IndexedBatch(Batch):
    """A batch in a file with an index: what it writes, it indexes in the same transaction."""

    def __init__(
        self,
        connection: driver.Connection,
        now: int,
        longest: int | None,
        state: FileState,
        setup: Setup | None,
    ) -> None:
        super().__init__(connection, now, longest, state)
        assert self.index is not None
        self._description = Description.parse(self.index)
        self._setup = setup
        self._texts: list[str] = []  # without a vector, in the present unit
        self._embeds = False  # whether new texts are to have vectors, in the present unit
        self._touched: dict[str, None] = {}  # namespaces whose vectors have changed
        self._vector_changes: list[Change] = []
        self._room: dict[str, int] = {}  # vectors that small chunks may yet take, by namespace
        self._has_vec0: bool | None = None
        self._items = self._length = 0  # how many entries have come, and words in them
        _require_words(connection)
        if self._description.dimensions is not None:
            self._collect_garbage(longest is not None)

    def apply(self, units: Sequence[Sequence[Operation]]) -> list[list[Any] | Exception]:
        """Apply units as the base class does.

        A unit may get an `UnembeddedError`: some of its texts need vectors.
        """
        self._require_few(units)
        return [self._outcome(ops) for ops in units]

    def _keep_description(self) -> None:
        _store(self._connection, self._description)
        self.index = self._description.text

    def finish(self) -> None:
        """Note how many entries there are, and for caches what has changed."""
        if self._items or self._length:
            self._execute(statements.ADD_WORD_TOTALS, (self._items, self._length))
        for path in self._touched:
            self._execute(
                "INSERT INTO index_writes (path, writes) VALUES (?, 1) "
                "ON CONFLICT (path) DO UPDATE SET writes = writes + 1",
                (path,),
            )
        if self._touched and self._version == self._first_version:
            self._version += 1
        super().finish()

    def committed(self) -> None:
        """Publish what has changed."""
        if self._setup is not None and self._vector_changes:
            self._setup.journal.publish(self._version, self._vector_changes)

    def _apply_unit(self, ops: Sequence[Operation]) -> list[Any]:
        self._texts = []
        setup = self._setup
        self._embeds = (
            setup is not None
            and setup.model is not None
            and setup.mismatch(self._description) is None
        )
        if not self._is_watched and all(map(is_bare_put, ops)):
            return self._apply_plain(ops)  # type: ignore[arg-type]
        return super()._apply_unit(ops)

    def _carry_out(self, effects: Effects, rows: Mapping[Address, StoredRow]) -> None:
        found = [self._plan_entries(row, vectors, rows) for row, vectors in effects.writes]
        self._require_vectors()
        super()._carry_out(effects, rows)
        for entry, (row, _) in zip(found, effects.writes, strict=True):
            if entry is not None:
                if entry.item is None:
                    entry.item = self._execute(sql.GET_ID, (row.path, row.key)).fetchone()[0]
                self._write_entries(entry)
        if effects.drops:
            self._drop_deleted()

    def _run(self, op: Wide) -> Any:
        first = self._version + 1
        match op:
            case Adopt():
                return self._adopt()
            case Reindex():
                planned = self._plan_reindex(op)
                self._require_vectors()
                return self._reindex(planned, op.refused)
            case Remove() | Sweep() | Restore():
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
        held = self._get_many(sql.GET_MANY_ENTRIES, keys)
        fields = self._description.fields
        entries = []
        for op in ops:
            item, *there = held.get((op.path, op.key), _NOTHING)
            entry = self._entries_of_texts(item, op.path, _planned_texts(op, fields), *there)
            if not entry.is_unchanged:
                self._find_vectors(entry, op.vectors)
                entries.append((op, entry))
        self._require_vectors()
        answers = self._put_plain(list(ops))
        ids = held if len(held) == len(ops) else self._get_many(sql.GET_MANY_IDS, keys)
        fresh = []
        for op, entry in entries:
            entry.item = ids[op.path, op.key][0]
            if self._is_fresh(entry):
                fresh.append(entry)
            else:
                self._write_entries(entry)
        self._write_fresh(fresh)
        return answers

    def _get_many(
        self, statement: str, keys: Mapping[str, list[str]]
    ) -> dict[tuple[str, str], list[Any]]:
        """Return a row for each item that is there of some namespaces."""
        held = {}
        for path, some in keys.items():
            rows = self._execute(statement, (orjson.dumps(some).decode(), path)).fetchall()
            for key, *row in rows:
                held[path, key] = row
        return held

    def _require_vectors(self) -> None:
        if self._texts:
            raise UnembeddedError(list(dict.fromkeys(self._texts)))

    # Planning: what reads, and may refuse

    def _plan_entries(
        self, row: Record, vectors: Vectors | None, rows: Mapping[Address, StoredRow]
    ) -> _Entries | None:
        """Return what the index is to hold of an item that is to be written, if it is new."""
        before = rows.get((row.path, row.key))
        item: int | None = None
        there: Sequence[Any] = (None, 0, 0)
        if before is not None:
            item = before.id
            there = self._execute(sql.GET_ENTRIES, (item,)).fetchone()
        value = codec.decode(row.data)
        entry = self._entries(item, row.path, value, row.indexing, *there)
        if entry.is_unchanged:
            return None
        self._find_vectors(entry, vectors)
        return entry

    def _entries(
        self,
        item: int | None,
        path: str,
        value: Any,
        paths: Iterable[str] | None,
        slots: bytes | None,
        length: int,
        is_pending: int,
    ) -> _Entries:
        fields = self._description.fields if paths is None else paths
        return self._entries_of_texts(item, path, _hashed(value, fields), slots, length, is_pending)

    def _entries_of_texts(
        self,
        item: int | None,
        path: str,
        texts: dict[bytes, str],
        slots: bytes | None,
        length: int,
        is_pending: int,
    ) -> _Entries:
        if len(texts) > MAX_SLOTS:
            raise ValueTooLargeError(f"an item may have {MAX_SLOTS:,} texts, not {len(texts):,}")
        held = None if slots is None else _codes(slots)
        return _Entries(item, path, texts, held, length or 0, bool(is_pending))

    def _find_vectors(
        self, entry: _Entries, known: Mapping[str, bytes] | None, refused: Collection[str] = ()
    ) -> None:
        """Give an item's new texts their vectors, or note that some are missing."""
        description = self._description
        if description.model is None:
            return
        held = set(entry.slots) if entry.slots else ()
        for code, text in entry.texts.items():
            if code in held:
                continue
            if not self._embeds or text in refused:
                entry.vectors[code] = None
                continue
            vector = None if known is None else known.get(text)
            if vector is None:
                self._texts.append(text)
            elif vector and description.dimensions not in (None, len(vector) // 4):
                entry.vectors[code] = None  # the same name, but another model: see `mismatch`
            else:
                entry.vectors[code] = vector

    # Writing

    def _is_fresh(self, entry: _Entries) -> bool:
        """Whether nothing is in the index of an item yet, and all that belongs there is at hand."""
        return (
            entry.slots is None
            and not entry.is_pending
            and (self._description.model is None or all(entry.vectors.values()))
        )

    def _write_fresh(self, entries: Sequence[_Entries]) -> None:
        """As `_write_entries`, for many items of which nothing is in the index yet."""
        words: list[tuple[int, str, str]] = []
        slots: list[tuple[int, bytearray, bytearray, int]] = []
        vectors: list[Change] = []
        for entry in entries:
            item, path = entry.item, entry.path
            assert item is not None
            if not entry.texts:
                continue
            for slot, vector in enumerate(entry.vectors.values()):
                vectors.append(Change(path, slot << ITEM_BITS | item, vector))
            found = Words(entry.texts.values(), path)
            self._count(1, found.length)
            words.append((item, found.text, namespace_words(path)))
            codes = bytearray().join(entry.texts)  # bound in half the time of bytes
            slots.append((item, codes, pack_counts(found.counts), found.length))
        self._connection.executemany(sql.ADD_WORDS, words)
        self._connection.executemany(sql.SET_ENTRIES, slots)
        self._add_vectors(vectors)

    def _add_vectors(self, added: list[Change]) -> None:
        """Insert vectors where there are none."""
        if not added:
            return
        if self._description.dimensions is None:
            assert added[0].vector is not None
            self._create_vectors(len(added[0].vector) // 4)
        by_path: dict[str, list[Change]] = {}
        for change in added:
            by_path.setdefault(change.path, []).append(change)
        small: list[Change] = []
        large: list[Change] = []
        for path, changes in by_path.items():
            room = self._room_for(path)
            small += changes[:room]
            large += changes[room:]
            self._room[path] = max(0, room - len(changes))
        self._connection.executemany(sql.INSERT_SMALL, small)
        self._connection.executemany(sql.INSERT_LARGE, large)
        self._touched |= dict.fromkeys(by_path)
        if self._setup is not None and self._setup.journal.is_read:
            self._vector_changes += added

    def _write_entries(self, entry: _Entries) -> None:
        """Make the index hold what it is to hold of an item."""
        item = entry.item
        assert item is not None
        slots = list(entry.slots or ())
        has_vectors = self._description.model is not None
        freed = [slot for slot, code in enumerate(slots) if code and code not in entry.texts]
        missing = False
        for code in entry.texts:
            if code in slots:
                continue
            vector = entry.vectors.get(code)
            if has_vectors and vector is None:
                missing = True
                continue
            slot = freed.pop() if freed else len(slots)
            if slot == len(slots):
                slots.append(code)
                is_free = True
            else:
                is_free = slots[slot] == _FREE
                slots[slot] = code
            if has_vectors:
                self._set_vector(entry.path, slot << ITEM_BITS | item, vector or b"", is_free)
        for slot in freed:
            if slots[slot] != _FREE:
                slots[slot] = _FREE
                if has_vectors:
                    self._set_vector(entry.path, slot << ITEM_BITS | item, b"", is_free=False)
        while slots and slots[-1] == _FREE:
            slots.pop()
        if entry.slots is not None:
            self._count(-1, -entry.length)
            self._execute("DELETE FROM words WHERE rowid = ?", (item,))
        if entry.texts:
            words = Words(entry.texts.values(), entry.path)
            self._count(1, words.length)
            self._execute(sql.ADD_WORDS, (item, words.text, namespace_words(entry.path)))
            packed = pack_counts(words.counts)
            self._execute(sql.SET_ENTRIES, (item, b"".join(slots), packed, words.length))
        else:
            self._execute("DELETE FROM index_entries WHERE item = ?", (item,))
        if missing and not entry.is_pending:
            self._execute("INSERT OR IGNORE INTO index_pending (item) VALUES (?)", (item,))
        elif entry.is_pending and not missing:
            self._execute("DELETE FROM index_pending WHERE item = ?", (item,))

    def _count(self, items: int, length: int) -> None:
        """Take note of an entry that comes or goes."""
        self._items += items
        self._length += length

    def _set_vector(self, path: str, rowid: int, vector: bytes, is_free: bool) -> None:
        """Write, replace or (with no vector) delete one vector."""
        if not is_free and not self._can_use_vectors():
            self._execute("INSERT OR IGNORE INTO index_garbage (vector) VALUES (?)", (rowid,))
            self._touched[path] = None
            return
        if self._description.dimensions is None and not vector:
            return  # nothing but vectors without a direction, so far
        if vector:
            if self._description.dimensions is None:
                self._create_vectors(len(vector) // 4)
                is_free = True
            if is_free or not self._replace_vector(rowid, vector):
                statement = self._insert_for(path)
                self._execute(statement, (path, rowid, vector))
        elif not is_free:
            self._delete_vector(rowid)
        self._touched[path] = None
        if self._setup is not None and self._setup.journal.is_read:
            self._vector_changes.append(Change(path, rowid, vector or None))

    def _insert_for(self, path: str) -> str:
        """Return the statement that inserts the next vector of a namespace."""
        room = self._room_for(path)
        self._room[path] = max(0, room - 1)
        return sql.INSERT_SMALL if room else sql.INSERT_LARGE

    def _room_for(self, path: str) -> int:
        """Return how many vectors of a namespace may yet go to small chunks."""
        room = self._room.get(path)
        if room is not None:
            return room
        if self._execute(sql.HAS_LARGE_CHUNK, (path,)).fetchone():
            return 0
        chunks: int = self._execute(sql.COUNT_SMALL_CHUNKS, (path, SMALL_CHUNKS)).fetchone()[0]
        return (SMALL_CHUNKS - chunks) * SMALL_CHUNK

    def _replace_vector(self, rowid: int, vector: bytes) -> bool:
        return any(self._execute(update, (vector, rowid)).rowcount for update in sql.UPDATE_VECTOR)

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
        for name, chunk in _TABLES.items():
            self._execute(_CREATE_VECTORS.format(name=name, dimensions=dimensions, chunk=chunk))
            self._execute(_CREATE_VECTORS_INDEX.format(name=name))
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
            self._count(-1, -length)
            self._execute("DELETE FROM words WHERE rowid = ?", (item,))
            self._execute("DELETE FROM index_entries WHERE item = ?", (item,))
            if has_vectors:
                for slot in range(len(slots) // HASH_BYTES):
                    self._set_vector(path, slot << ITEM_BITS | item, b"", is_free=False)
        self._execute("DELETE FROM index_pending WHERE item IN (SELECT item FROM index_dropped)")
        self._execute("DELETE FROM index_dropped")

    def _collect_garbage(self, is_inline: bool) -> None:
        """Delete the vectors that a process without sqlite-vec has left."""
        garbage = self._execute("SELECT vector FROM index_garbage").fetchall()
        if garbage and self._can_use_vectors():
            if is_inline:
                raise NotInlineError
            for (rowid,) in garbage:
                self._delete_vector(rowid)
            self._execute("DELETE FROM index_garbage")

    # Reindexing

    def _adopt(self) -> int:
        """Make the index the store's own; return how many items are marked."""
        setup, description = self._setup, self._description
        assert setup is not None
        has_other_model = setup.model is not None and setup.mismatch(description) is not None
        has_other_fields = setup.fields != description.fields
        if has_other_model:
            if description.dimensions is not None:
                load_vectors(self._connection)
                for table in _TABLES:
                    self._execute(f"DROP TABLE IF EXISTS {table}")
            self._execute("DELETE FROM index_garbage")
            self._execute("UPDATE index_entries SET slots = x''")
            description.model, description.dimensions = setup.model, None
            description.epoch += 1
        if has_other_fields:
            description.fields = setup.fields
        if has_other_model or has_other_fields:
            self._execute(_MARK_ALL)
            description.has_all_vectors = False
            description.has_all_words &= not has_other_fields
            self._keep_description()
        pending: int = self._execute("SELECT count(*) FROM index_pending").fetchone()[0]
        return pending

    def _plan_reindex(self, op: Reindex) -> list[tuple[int, str, _Entries | None]]:
        assert self._setup is not None
        if self._setup.model is not None:
            mismatch = self._setup.mismatch(self._description)
            if mismatch is not None:
                raise IndexMismatchError(
                    f"another store has changed the index meanwhile: {mismatch}"
                )
        planned: list[tuple[int, str, _Entries | None]] = []
        for key, *row in self._execute(sql.GET_PENDING, (op.after, op.limit)).fetchall():
            entry = self._entries_of(row)
            if entry is not None:
                self._find_vectors(entry, op.vectors, op.refused)
            planned.append((row[0], key, entry))
        return planned

    def _entries_of(self, row: Sequence[Any]) -> _Entries | None:
        item, path, indexing, value, *there = row
        if path is None:
            return None
        paths = None if indexing is None else orjson.loads(indexing)
        return self._entries(item, path, codec.decode(value), paths, *there)

    def _reindex(
        self, planned: list[tuple[int, str, _Entries | None]], refused: Collection[str]
    ) -> tuple[int, int, list[Address]]:
        """Index marked items, and answer what `Reindex` says."""
        for item, _, entry in planned:
            if entry is None:
                self._execute("DELETE FROM index_pending WHERE item = ?", (item,))
            else:
                self._write_entries(entry)
        if not planned:
            description = self._description
            assert self._setup is not None
            description.has_all_words = True
            if description.model == self._setup.model:
                description.has_all_vectors = True
            self._keep_description()
            return 0, 0, []
        left = [
            (entry.path, key)
            for _, key, entry in planned
            if entry is not None and any(text in refused for text in entry.texts.values())
        ]
        return planned[-1][0], len(planned), left

    def _index_since(self, version: int) -> None:
        """Index what an import has written; its vectors are left to `reindex`."""
        for row in self._execute(sql.GET_SINCE, (version,)).fetchall():
            entry = self._entries_of(row)
            if entry is not None and not entry.is_unchanged:
                if self._description.model is not None:
                    held = set(entry.slots or ())
                    entry.vectors = dict.fromkeys(code for code in entry.texts if code not in held)
                self._write_entries(entry)


# Checking


def find_problems(connection: driver.Connection) -> Iterator[str]:
    """Hold the index against the items, without any help of sqlite-vec."""
    description = describe(connection)
    if description is None:
        return
    last = -1
    while True:
        rows = connection.execute(sql.GET_CHECKED, (last, _CHECK_SLICE)).fetchall()
        for item, indexing, value, slots, has_words, is_pending in rows:
            try:
                fields = description.fields if indexing is None else orjson.loads(indexing)
                texts = {_hash(text) for text in texts_of(codec.decode(value), fields)}
            except (StoreError, TypeError, ValueError):
                continue  # a damaged row, which is told as such
            codes = _codes(slots or b"")
            if (slots is not None) != bool(has_words):
                yield f"index: item {item} is in one of its tables and not in the other"
            if not is_pending and (set(codes) - {_FREE} != texts or (texts and slots is None)):
                yield f"index: item {item} is not indexed as it is, and not marked for reindex"
        if len(rows) < _CHECK_SLICE:
            break
        last = rows[-1][0]
    checks = dict(sql.CHECKS)
    if description.dimensions is not None:
        for table in statements.VECTOR_TABLES:
            checks[table] = statements.count_orphans(table)
    for what, statement in checks.items():
        number = connection.execute(statement).fetchone()[0]
        if number:
            yield f"index: {number} rows of {what} belong to no item"
    if not connection.execute(sql.IS_COUNTED).fetchone()[0]:
        yield "index: the numbers of its words are not those of its entries"


INDEX_CHECKS.append(find_problems)


def _codes(slots: bytes) -> list[bytes]:
    return [slots[at : at + HASH_BYTES] for at in range(0, len(slots), HASH_BYTES)]


def _planned_texts(op: Put, fields: tuple[str, ...]) -> dict[bytes, str]:
    """Return the texts of a put by their hashes; a unit that is handed in again has them."""
    if op.planned is None or op.planned[0] != fields:
        op.planned = fields, _hashed(codec.decode(op.data), fields)
    return op.planned[1]


def _hashed(value: Any, fields: Iterable[str]) -> dict[bytes, str]:
    return {_hash(text): text for text in texts_of(value, fields)}


def _hash(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=HASH_BYTES).digest()


_NOTHING = (None, None, 0, 0)
