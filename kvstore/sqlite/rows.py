"""Rows in a write transaction: read for a decision, written as it was decided, ended.

What an operation comes to is for `kvstore.plan` to decide; what is done to rows, and to what hangs
on them (the past, the notes for those who watch, the states of logs and queues), is here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from kvstore.errors import StoreCorruptError
from kvstore.namespace import decode_namespace
from kvstore.operations import (
    Record,
)
from kvstore.plan import (
    Address,
    Effects,
    Note,
    carry_jobs,
    ends_of,
    gone,
    not_before,
)
from kvstore.rules import pack_indexing, unpack_indexing
from kvstore.sequences import SequenceState
from kvstore.sql import Sql
from kvstore.sqlite import (
    driver,
    past,
    sequences,
    statements,
)
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite.read_cache import ABSENT, Entry
from kvstore.sqlite.reading import checksum, damaged, is_version

__all__ = [
    "ANY_LENGTH",
    "FileState",
    "NotInlineError",
    "Rows",
    "StoredRow",
    "columns_of",
    "read_state",
]

ANY_LENGTH = 2**62
_NOTES_AT_ONCE = 1_000  # held back before they are written


class NotInlineError(Exception):
    """A write would take too long for the event loop's own thread."""


@dataclass(slots=True)
class StoredRow(Record):
    """A row of the file; its `data` is empty where it was not asked for."""

    id: int = 0


class FileState(NamedTuple):
    """What each transaction must know of the file.

    Attributes:
        version: the store's.
        is_watched: whether changes are noted.
        description: of the search index; `None`: there is none.
        has_sequences: whether there is a log or a queue.
        keeps: whether what ceases to be is kept.
        last: the instant of the last change, while changes are noted.
    """

    version: int
    is_watched: bool
    description: str | None
    has_sequences: bool
    keeps: bool = False
    last: int = 0


def read_state(cursor: driver.Cursor) -> FileState:
    """Return the state of a file.

    Raises:
        StoreCorruptError: it has lost it.
    """
    row = cursor.execute(statements.GET_STATE_OF_FILE).fetchone()
    if row is None or not is_version(row[0]):
        raise StoreCorruptError("the file has lost its version; restore it from a backup")
    version, watched_until, index, has_sequences, history = row
    is_watched = bool(watched_until or history)
    last = past.last_instant(cursor.connection) if is_watched else 0
    return FileState(version, is_watched, index, bool(has_sequences), bool(history), last)


class Rows:
    """The rows of one transaction, and what is known of the file in it.

    Args:
        cursor: of a connection that is inside a write transaction; at rest.
        now: the instant of all its writes, in microseconds.
        longest: refuse with `NotInlineError` to read or overwrite a value of more bytes.
        state: that of the file, where it is known.

    Attributes:
        index: the description of the file's search index; `None`: it has none.
        changed: the items written or deleted, as they now are; `None` for one of which that is
            not known. Without it: nobody asked, or it is not known which they are.
        look: gives the items that were there before the transaction, as far as they are known.
    """

    def __init__(
        self,
        cursor: driver.Cursor,
        now: int,
        longest: int | None = None,
        state: FileState | None = None,
    ) -> None:
        self._connection = cursor.connection
        self._execute = cursor.execute
        self._now = now
        self._longest = longest
        self._most = ANY_LENGTH if longest is None else longest
        known = state or read_state(cursor)
        self._version, self._is_watched, self.index, has_sequences, self._keeps, self._last = known
        # By the namespaces looked at so far; `None`: it is no sequence, or there are none at all
        self._sequences: dict[str, SequenceState | None] | None = {} if has_sequences else None
        self._changed: set[str] = set()  # those of them that are to be saved
        self._has_jobs = False  # something is there for who waits for entries or jobs
        self._file_jobs: sequences.FileJobs | None = None  # made at need, until the end
        self._first_version = self._version
        self._is_state_known = True
        self._notes: list[Note] = []
        self.changed: dict[Address, Entry | None] | None = None
        self.look: Callable[[Iterable[Address]], list[Entry | None]] | None = None

    @property
    def _jobs(self) -> sequences.FileJobs:
        """The jobs of the file, which know this batch."""
        if self._file_jobs is None:
            self._file_jobs = sequences.FileJobs(
                self._execute,
                self._now,
                self._known_state,
                self._changed,
                refuse=None if self._longest is None else _refuse,
            )
        return self._file_jobs

    @property
    def state(self) -> FileState | None:
        """That of the file after the commit, as far as it is known."""
        if not self._is_state_known:
            return None
        has_sequences = self._sequences is not None
        return FileState(
            self._version, self._is_watched, self.index, has_sequences, self._keeps, self._last
        )

    def _read_rows(self, wanted: Mapping[Address, bool]) -> dict[Address, StoredRow]:
        """Read the rows at some addresses, and of some their data.

        Raises:
            StoreCorruptError: data is not as it was written.
        """
        rows = {}
        for (path, key), with_data in wanted.items():
            longest = self._most if with_data else -1
            found = self._execute(statements.GET_STATE, (longest, path, key)).fetchone()
            if found is None:
                continue
            id, version, created, updated, expires, ttl, indexing, code, size, data = found
            if size > self._most:
                raise NotInlineError
            is_damaged = with_data and (data is None or checksum(path, key, version, data) != code)
            paths = None
            try:
                paths = unpack_indexing(indexing)
            except ValueError:  # an operation that needs no data is to write over it
                is_damaged = with_data
            row = StoredRow(
                path, key, data or b"", version, created, updated, expires, ttl, paths, id
            )
            if is_damaged and row.is_live(self._now):
                raise damaged(decode_namespace(path), key)
            rows[path, key] = row
        return rows

    def _carry_out(self, effects: Effects, rows: Mapping[Address, StoredRow]) -> None:
        """Do what was decided to the rows that were read, and to what hangs on them."""
        self._write_rows(effects, rows)
        self._take(effects)

    def _write_rows(self, effects: Effects, rows: Mapping[Address, StoredRow]) -> None:
        execute = self._execute
        not_before(effects, self._last)
        if self._keeps:
            self._keep_past(effects, rows)
        for row, _ in effects.writes:
            before = rows.get((row.path, row.key))
            columns = columns_of(row)
            if before is not None and _is_alike(row, before):
                _, _, version, _, *value, _, _, _ = columns
                execute(statements.UPDATE_VALUE, (version, *value, before.id))
            else:
                execute(statements.UPSERT, columns)
        for address in effects.drops:
            execute(statements.DELETE, (rows[address].id,))
        for row in effects.renewals:
            execute(statements.RENEW, (row.expires_at, row.ttl, rows[row.path, row.key].id))
        if self.changed is not None:
            for row, _ in effects.writes:
                times = row.created_at, row.updated_at, row.expires_at
                self.changed[row.path, row.key] = Entry(row.data, row.version, *times)
            self.changed.update(dict.fromkeys(effects.drops, ABSENT))
            self.changed.update(dict.fromkeys((row.path, row.key) for row in effects.renewals))

    def _keep_past(self, effects: Effects, rows: Mapping[Address, StoredRow]) -> None:
        """Keep the rows that effects are about to end, with the changes that do so."""
        data = {(row.path, row.key): row.data for row, _ in effects.writes}
        kept = set()
        for note in ends_of(effects):
            row = rows.get((note.path, note.key))
            if row is not None:
                after = data[note.path, note.key].decode() if note.kind == "put" else None
                self._execute(sql.KEEP, (note.version, note.kind, note.at, after, row.id))
                kept.add(note.version)
        self._are_noted(effects, kept)

    def _are_noted(self, effects: Effects, kept: Collection[int]) -> None:
        """Take note of changes that are written already."""
        if kept:
            self._last = effects.notes[-1].at
            effects.notes = [note for note in effects.notes if note.version not in kept]

    def _take(self, effects: Effects) -> None:
        """Take over the version and the changes that something has come to."""
        self._version = effects.version
        self._notes += effects.notes
        if effects.notes:
            self._last = effects.notes[-1].at
        if len(self._notes) >= _NOTES_AT_ONCE:
            self._write_notes()
        if effects.sequences.changed:
            self._sequences = {**(self._sequences or {}), **effects.sequences.changed}
            self._changed |= effects.sequences.changed.keys()
            self._has_jobs |= bool(effects.writes)
            carry_jobs(effects, self._jobs, self._is_queue)

    def _delete_rows(self, kind: Literal["delete", "expire"], doomed: Sql) -> int:
        """Delete rows, which continue a DELETE as FROM and WHERE; return how many."""
        if not self._is_watched and self._sequences is None:
            statement = statements.delete(doomed)
            deleted: int = self._execute(statement.text, statement.params).rowcount
            self._version += deleted
            if deleted:
                self.changed = None
            return deleted
        return len(self._end_rows(kind, doomed))

    def _end_rows(self, kind: Literal["delete", "expire"], doomed: Sql) -> list[Address]:
        """Delete rows, and keep them as the past if it is kept; return their addresses, sorted."""
        rows: list[tuple[str, str, int]] = []
        if self._keeps:
            ids = statements.ids_of(doomed)
            rows = sorted(self._execute(ids.text, ids.params).fetchall())
            addresses = [(path, key) for path, key, _ in rows]
        else:
            deleted = statements.delete_and_tell(doomed)
            addresses = sorted(self._execute(deleted.text, deleted.params).fetchall())
        states = self._known_states({path for path, _ in addresses})
        watched = self._is_watched
        effects = gone(
            kind, addresses, self._now, self._version, is_watched=watched, sequences=states
        )
        not_before(effects, self._last)
        if self._keeps:
            ends = zip(effects.notes, rows, strict=True)
            kept = ((note.version, kind, note.at, None, id) for note, (_, _, id) in ends)
            self._connection.executemany(sql.KEEP, kept)
            self._connection.executemany(statements.DELETE, ((id,) for _, _, id in rows))
            self._are_noted(effects, {note.version for note in effects.notes})
        self._take(effects)
        if self.changed is not None:
            self.changed.update(dict.fromkeys(addresses, ABSENT))
        return addresses

    def _write_notes(self) -> None:
        if self._notes:
            self._connection.executemany(statements.ADD_CHANGE, self._notes)
            self._notes.clear()

    @property
    def is_heavy(self) -> bool:
        """Whether each write takes others along: an entry of the index or of the change feed."""
        return self._is_watched or self.index is not None

    def _known_states(self, paths: Iterable[str]) -> dict[str, SequenceState]:
        """Return the states of those namespaces that are logs or queues."""
        known = self._sequences
        if known is None:
            return {}
        found = {}
        for path in paths:
            if path not in known:
                known[path] = sequences.find_state(self._execute, path)
            state = known[path]
            if state is not None:
                found[path] = state
        return found

    def _known_state(self, path: str) -> SequenceState:
        return self._known_states((path,))[path]

    def _is_queue(self, path: str) -> bool:
        state = self._known_states((path,)).get(path)
        return state is not None and state.kind == "queue"


def _refuse() -> None:
    raise NotInlineError


def columns_of(row: Record) -> tuple[Any, ...]:
    """Return a row as UPSERT takes it."""
    code = checksum(row.path, row.key, row.version, row.data)
    content = row.version, row.created_at, row.updated_at, code, row.data.decode()
    return row.path, row.key, *content, row.expires_at, row.ttl, pack_indexing(row.indexing)


def _is_alike(row: Record, before: Record) -> bool:
    """Whether two rows of an item differ in nothing but the value and its time."""
    return (
        row.created_at == before.created_at
        and row.expires_at == before.expires_at
        and row.ttl == before.ttl
        and row.indexing == before.indexing
    )
