"""Writes as plain functions on a connection: units of operations inside one transaction.

A unit's conditions are tested before its first write, so a unit that fails has changed nothing,
and its neighbours in the same transaction go on: no savepoint is needed. A `Restore` alone may fail
late; it has no neighbours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, assert_never

import orjson

from kvstore.errors import StoreCorruptError
from kvstore.jobs import JobState, SequenceRecord, lease_lost, other_items, require_lease
from kvstore.namespace import decode_namespace, show
from kvstore.operations import (
    NAMED,
    Adopt,
    Append,
    ExtendJob,
    FinishJob,
    Forget,
    GiveBackJob,
    Keep,
    Lease,
    Named,
    Operation,
    PopEntry,
    Put,
    PutJob,
    Record,
    Reindex,
    Remove,
    Restore,
    RetryJob,
    ReviveJobs,
    Rewind,
    Sweep,
    TakeJob,
    Trim,
    TrimLog,
    Wide,
    named_of,
    take_piece,
)
from kvstore.plan import (
    Address,
    Admission,
    Effects,
    Note,
    decide,
    ends_of,
    gone,
    is_rewound,
    named,
    not_before,
    rewound,
)
from kvstore.sequences import SequenceKind, SequenceState, key_of, position_of, require_kind
from kvstore.sql import Sql
from kvstore.sqlite import (
    changes,
    declared,
    driver,
    past,
    quick_jobs,
    reading,
    sequence_statements,
    sequences,
    statements,
)
from kvstore.sqlite import past_statements as sql
from kvstore.sqlite.read_cache import ABSENT, Entry
from kvstore.sqlite.reading import checksum, is_version
from kvstore.types import Item, pack_item

__all__ = [
    "INLINE_OPS",
    "Batch",
    "FileState",
    "NotInlineError",
    "StoredRow",
    "has_restore",
    "is_bare_put",
    "read_state",
]

INLINE_OPS = 16  # on the event loop's thread, of those that cost more than a plain put

_ANY_LENGTH = 2**62
_TOLD = 5_000  # plain puts of which each is told to the cache of reads; of more, none is
_NOTES_AT_ONCE = 1_000  # held back before they are written
_REWIND_SLICE = 500  # items in hand at once
_ROWS = (128, 64, 32, 16, 8, 4, 2, 1)  # of the statements that many puts share
_UPSERT_ONE = statements.upsert_plain(1)
_QUICK = (PutJob, TakeJob, FinishJob)


def is_bare_put(op: Operation) -> bool:
    """Whether an operation is a put without conditions, lifetime or indexing of its own."""
    return (
        type(op) is Put
        and op.expected is None
        and op.ttl is None
        and op.indexing is None
        and not op.keep
    )


def has_restore(ops: Sequence[Operation]) -> bool:
    """Whether a unit writes before it knows that it can, and so needs a transaction of its own."""
    return any(type(op) in (Restore, Rewind) for op in ops)


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


class Batch:
    """The units of one transaction, which the caller has begun and commits.

    Args:
        cursor: of a connection that is inside a write transaction; at rest.
        now: the instant of all its writes, in microseconds.
        longest: refuse with `NotInlineError` to read or overwrite a value of more bytes.
        state: that of the file, where it is known.

    Attributes:
        index: the description of the file's search index; `None`: it has none.
        changed: the items written or deleted, as they now are; `None` for one of which that is
            not known. Without it: nobody asked, or it is not known which they are.
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
        self._most = _ANY_LENGTH if longest is None else longest
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

    def apply(self, units: Sequence[Sequence[Operation]]) -> list[list[Any] | Exception]:
        """Apply units, in order; return for each the answers to its operations, or its error.

        A unit that gets an error has changed nothing. Plain puts that follow each other, of one
        unit or of many, share statements.

        Raises:
            driver.Error: the transaction cannot go on.
            NotInlineError: it would take too long for the event loop's own thread.
            Exception: what a `Restore` met; the transaction must be given up.
        """
        self._require_few(units)
        if len(units) == 1 and len(units[0]) == 1 and not self._is_watched:
            (op,) = units[0]
            if is_bare_put(op) and self._are_outside(units[0]):
                return [[self._put_one(op)]]  # type: ignore[arg-type]
        outcomes: list[list[Any] | Exception] = []
        puts: list[Put] = []
        shares: list[int] = []  # how many of `puts` are of each of the last units
        for ops in units:
            if (
                not self._is_watched
                and (is_bare_put(ops[0]) if len(ops) == 1 else all(map(is_bare_put, ops)))
                and self._are_outside(ops)
            ):
                puts += ops  # type: ignore[arg-type]
                shares.append(len(ops))
                continue
            if puts:
                outcomes += self._put_shares(puts, shares)
                puts, shares = [], []
            item = self._put_kept(ops)
            outcomes.append(self._outcome(ops) if item is None else [item])
        if puts:
            outcomes += self._put_shares(puts, shares)
        return outcomes

    def _are_outside(self, puts: Sequence[Operation]) -> bool:
        """Whether no put of some is in a log or a queue."""
        if self._sequences is None:
            return True
        return not self._known_states({op.path for op in puts if type(op) is Put})

    def _outcome(self, ops: Sequence[Operation]) -> list[Any] | Exception:
        """Return the answers to a unit, or its error."""
        try:
            if len(ops) == 1 and self._sequences is not None and type(ops[0]) in _QUICK:
                answer = self._quick_job(ops[0])  # type: ignore[arg-type]
                if answer is not quick_jobs.LONG_WAY:
                    return [answer]
            return self._apply_unit(ops)
        except (driver.Error, NotInlineError):
            raise
        except Exception as exc:
            if has_restore(ops):
                raise
            return exc  # it belongs to the unit's caller

    def _put_shares(self, puts: list[Put], shares: list[int]) -> Iterator[list[Any]]:
        """Upsert plain items, and give each unit its share of the answers."""
        items = iter(self._put_plain(puts))
        return ([next(items)] if share == 1 else list(islice(items, share)) for share in shares)

    def finish(self) -> None:
        """Write what the transaction's end needs; call it before COMMIT."""
        self._file_jobs = None  # else the two would keep each other, and the connection
        if self._version != self._first_version:
            self._execute(statements.SET_VERSION, (self._version,))
            self._write_notes()
        if self._sequences:
            for path in self._changed:
                state = self._sequences[path]
                assert state is not None
                sequences.save_state(self._execute, state)

    def committed(self) -> None:
        """Take note that the transaction is committed."""

    @property
    def is_news(self) -> bool:
        """Whether there is something for those who watch."""
        return self._has_jobs or (self._is_watched and self._version != self._first_version)

    def _apply_unit(self, ops: Sequence[Operation]) -> list[Any]:
        """Apply operations as `kvstore.plan` decides."""
        asked = named_of(ops)
        effects, rows = self._decide(asked, self._version)
        self._carry_out(effects, rows)
        if len(asked) == len(ops):
            return effects.answers
        answers = iter(effects.answers)
        return [next(answers) if isinstance(op, NAMED) else self._run(op) for op in ops]

    def _decide(
        self, ops: Sequence[Named], version: int
    ) -> tuple[Effects, dict[Address, StoredRow]]:
        """Return what operations come to after a version, and the rows that they name."""
        rows = self._read_rows(named(ops))
        states = self._states_of(ops)
        effects = decide(
            *(ops, rows, self._now, version),
            is_watched=self._is_watched,
            sequences=states,
            jobs=self._jobs,
        )
        return effects, rows

    def _run(self, op: Wide) -> Any:
        match op:
            case PopEntry():
                return self._pop_entry(op)
            case TrimLog():
                return self._trim_log(op)
            case TakeJob() | RetryJob() | ExtendJob() | GiveBackJob() | ReviveJobs():
                return self._run_job(op)
            case Remove():
                if self._longest is not None:
                    self._require_little(op, self._longest)
                doomed = statements.matching(op.path, op.subtree, op.pattern, self._now)
                return self._delete_rows("delete", doomed)
            case Sweep():
                return self._delete_rows("expire", _expired(self._now, op.limit))
            case Restore():
                return self._restore(op)
            case Lease():
                self._write_notes()
                begin = changes.take_lease(self._connection, op, self._version, self._now)
                self._is_watched = True
                return self._version, begin
            case Trim():
                self._is_state_known = False  # it may have ended the recording
                self._write_notes()
                return changes.trim(self._connection, op, self._version, self._now)
            case Keep():
                self._write_notes()
                past.keep(self._connection, op, self._version, self._now)
                self._is_watched = self._keeps = True
                self._last = past.last_instant(self._connection)
                return None
            case Forget():
                forgotten = sql.forget(op.path, op.pattern, op.subtree)
                return self._execute(forgotten.text, forgotten.params).rowcount
            case Rewind():
                return self._rewind(op)
            case Adopt():
                declared.build(self._connection, op.filters)
                return 0
            case Reindex():
                return 0, 0, []
        assert_never(op)

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
            if indexing is not None:
                try:
                    paths = tuple(orjson.loads(indexing))
                except ValueError:  # an operation that needs no data is to write over it
                    is_damaged = with_data
            row = StoredRow(
                path, key, data or b"", version, created, updated, expires, ttl, paths, id
            )
            if is_damaged and row.is_live(self._now):
                raise StoreCorruptError(
                    f"the row of {show(decode_namespace(path), key)} is damaged: its checksum does "
                    "not match; restore it from a backup, or put it anew"
                )
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
            columns = _columns(row)
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
            for path, key in effects.drops:
                position = position_of(key)
                if position is not None and self._is_queue(path):
                    self._jobs.drop(path, position)
            for job in effects.jobs:
                self._jobs.put(job)

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

    # Logs

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

    def _states_of(self, ops: Sequence[Named]) -> dict[str, SequenceState]:
        """Return the states of the logs and queues that operations are about, or begin."""
        begun = {op.path for op in ops if type(op) is Append or type(op) is PutJob}
        if self._sequences is None and not begun:
            return {}
        states = self._known_states({op.path for op in ops})
        for op in ops:
            if type(op) is not PutJob:
                continue
            if op.path in states:
                if op.name is not None and states[op.path].kind == "queue":
                    self._jobs.settle(op.path)
            elif self._execute(sequence_statements.HAS_ITEMS, (op.path, self._now)).fetchone()[0]:
                raise other_items(op.namespace)
        for path in begun - states.keys():
            if self._longest is not None and not reading.is_light(
                self._connection, self._longest, path
            ):
                raise NotInlineError
            states[path] = sequences.count_state(self._execute, path)
        return states

    def _known_state(self, path: str) -> SequenceState:
        return self._known_states((path,))[path]

    def _is_queue(self, path: str) -> bool:
        state = self._known_states((path,)).get(path)
        return state is not None and state.kind == "queue"

    def _begun(self, path: str, kind: SequenceKind) -> SequenceState | None:
        """Return the state of a log or a queue, `None` if it has not begun."""
        state = self._known_states((path,)).get(path)
        if state is not None:
            require_kind(state, kind)
        return state

    def _quick_job(self, op: PutJob | TakeJob | FinishJob) -> Any:
        """Do what a queue lives by in few statements, or answer `LONG_WAY`."""
        assert self._sequences is not None
        is_change = type(op) is not TakeJob
        if is_change and (self._is_watched or self.index is not None):
            return quick_jobs.LONG_WAY
        if type(op) is PutJob and not quick_jobs.is_plain(op):
            return quick_jobs.LONG_WAY
        path, execute, now = op.path, self._execute, self._now
        self._file_jobs = None  # it would not know
        state = self._sequences.pop(path, None)
        if state is not None and path in self._changed:
            sequences.save_state(execute, state)
            self._changed.discard(path)
        match op:
            case PutJob():
                key = quick_jobs.put(execute, op, self._version + 1, now)
                if key is None:
                    return quick_jobs.LONG_WAY
                self._version += 1
                self._has_jobs = True
                if self.changed is not None:
                    self.changed[path, key] = Entry(op.data, self._version, now, now, None)
                return key
            case TakeJob():
                taken = quick_jobs.take(execute, op, now, self._most)
                if taken is quick_jobs.TOO_LONG:
                    raise NotInlineError
                return taken
            case FinishJob():
                if not quick_jobs.finish(execute, op, now, self._most) and self._longest:
                    raise NotInlineError
                self._version += 1
                if self.changed is not None:
                    self.changed[path, op.key] = ABSENT
                return None

    def _run_job(self, op: TakeJob | RetryJob | ExtendJob | GiveBackJob | ReviveJobs) -> Any:
        match op:
            case TakeJob():
                return self._take_job(op)
            case RetryJob():
                self._jobs.retry(self._held(op), op.delay, op.error)
                self._has_jobs |= not op.delay
                return None
            case ExtendJob():
                self._jobs.extend(self._held(op), op.lease)
                return None
            case GiveBackJob():
                if self._begun(op.path, "queue") is not None:
                    self._jobs.give_back(op.path, op.token)
                    self._has_jobs = True
                return None
            case ReviveJobs():
                positions = [position_of(key) for key in op.keys]
                known = [position for position in positions if position is not None]
                if self._begun(op.path, "queue") is None:
                    return 0
                self._has_jobs = True
                return self._jobs.revive(op.path, known)
        assert_never(op)

    def _held(self, op: RetryJob | ExtendJob) -> JobState:
        """Return the job that an operation's token holds."""
        position = position_of(op.key)
        if position is None or self._begun(op.path, "queue") is None:
            raise lease_lost(op.namespace, op.key)
        job = self._jobs.get(op.path, position)
        return require_lease(job, op.token, self._now, op.namespace, op.key)

    def _take_job(self, op: TakeJob) -> tuple[Item, int] | None:
        if self._begun(op.path, "queue") is None:
            return None
        job = self._jobs.take(op.path, op.token, op.lease, op.attempts)
        if job is None:
            return None
        key = key_of(job.position)
        row = self._execute(statements.GET, (op.path, key, self._now)).fetchone()
        if row is None:
            raise StoreCorruptError(f"the job {show(op.namespace, key)} has lost its item")
        return reading.item_of(op.namespace, op.path, key, row), job.attempt

    def _pop_entry(self, op: PopEntry) -> Item | None:
        if self._begun(op.path, "log") is None:
            return None
        found = self._execute(sequence_statements.LAST_ENTRIES, (op.path, self._now, 1)).fetchall()
        if not found:
            return None
        key, *row = found[0]
        item = reading.item_of(op.namespace, op.path, key, row)
        self._end_rows("delete", Sql(sequence_statements.ENTRY, (op.path, key)))
        return item

    def _trim_log(self, op: TrimLog) -> int:
        state = self._begun(op.path, "log")
        if state is None:
            return 0
        self._end_rows("expire", Sql(sequence_statements.EXPIRED_ENTRIES, (op.path, self._now)))
        number = self._known_states((op.path,))[op.path].size - op.keep
        if number <= 0:
            return 0
        trimmed = self._end_rows(
            "delete", Sql(sequence_statements.OLDEST_ENTRIES, (op.path, number))
        )
        self._known_states((op.path,))[op.path].trimmed = position_of(trimmed[-1][1]) or 0
        return len(trimmed)

    def _entries_there(self, records: Sequence[Record]) -> dict[Address, bytes]:
        """Return what is there where records are to become entries of logs, or jobs."""
        inside = self._known_states({record.path for record in records})
        wanted = {(each.path, each.key): True for each in records if each.path in inside}
        rows = self._read_rows(wanted)
        return {address: row.data for address, row in rows.items() if row.is_live(self._now)}

    def _restore_sequences(self, records: Iterable[SequenceRecord]) -> None:
        for record in records:
            path = record.path
            state = self._known_states((path,)).get(path)
            if state is None:
                state = sequences.count_state(self._execute, path)
            record.onto(state)
            self._sequences = {**(self._sequences or {}), path: state}
            self._changed.add(path)

    def _recount(
        self, paths: Iterable[str], jobs: Mapping[tuple[str, int], JobState] | None = None
    ) -> None:
        """Count the entries of logs anew, and add jobs, after records were written."""
        for path, state in self._known_states(paths).items():
            counted = sequences.count_state(self._execute, path)
            state.size, state.last = counted.size, max(state.last, counted.last)
            self._changed.add(path)
            self._has_jobs = True
            if state.kind == "queue":
                self._recount_jobs(path, state.noted, jobs or {})

    def _recount_jobs(
        self, path: str, noted: int, jobs: Mapping[tuple[str, int], JobState]
    ) -> None:
        """Add what is known of jobs that were written, and rows for those that need them."""
        last = key_of(max([noted, *(position for there, position in jobs if there == path)]))
        statement = sequence_statements.ITEMS_WITHOUT_JOB
        for (key,) in self._execute(statement, (path, last)).fetchall():
            position = position_of(key) or 0
            self._jobs.restore(jobs.get((path, position)) or JobState(path, position))

    # The past

    def _rewind(self, op: Rewind) -> int:
        """Bring items back. What fails here has written, so the transaction must be given up."""
        self._write_notes()
        past.require(self._connection, op.moment, self._now)
        found = past.changed_since(self._connection, op.moment.version, op.path, op.subtree)
        inside = self._known_states({path for path, _ in found})
        changed = [at for at in found if at[0] not in inside or is_rewound(inside[at[0]], op)]
        number = 0
        for begin in range(0, len(changed), _REWIND_SLICE):
            some = changed[begin : begin + _REWIND_SLICE]
            known, then = past.then(self._connection, op.moment, some)
            rows = self._read_rows(dict.fromkeys(known, True))
            effects = rewound(known, then, rows, self._now, self._version, inside)
            self._carry_out(effects, rows)
            inside |= effects.sequences.changed
            number += len(effects.answers)
        self._recount(path for path in inside if path == op.path)
        if self._is_queue(op.path):
            self._jobs.release(op.path)
        return number

    def _restore(self, op: Restore) -> int:
        """Write records. What fails here has written, so the transaction must be given up.

        There is no savepoint: each statement inside one costs more the more it has changed.
        """
        self.changed = None
        if self._is_watched:  # so that no record replaces an expired item, untold
            self._delete_rows("expire", _expired(self._now, -1))
        admission = Admission(op, self._version, self._now, is_watched=self._is_watched)
        self._restore_sequences(op.sequences)
        records = iter(op.records)
        touched = {record.path for record in op.sequences}
        while some := take_piece(records):
            there: Mapping[Address, StoredRow] = {}
            if not admission.replaces or self._keeps:
                there = self._read_rows({(each.path, each.key): False for each in some})
            live = {address for address, row in there.items() if row.is_live(self._now)}
            effects = admission.admit(some, live, self._entries_there(some))
            touched |= {row.path for row, _ in effects.writes}
            not_before(effects, self._last)
            if self._keeps:
                self._keep_past(effects, there)
            rows = (_columns(row) for row, _ in effects.writes)
            self._connection.executemany(statements.UPSERT, rows)
            self._take(effects)
        known = {(job.path, job.position): job for each in op.sequences for job in each.jobs}
        self._recount(touched, known)
        return admission.written

    def _write_notes(self) -> None:
        if self._notes:
            self._connection.executemany(statements.ADD_CHANGE, self._notes)
            self._notes.clear()

    @property
    def is_heavy(self) -> bool:
        """Whether each write takes others along: an entry of the index or of the change feed."""
        return self._is_watched or self.index is not None

    def _require_few(self, units: Sequence[Sequence[Operation]]) -> None:
        """Refuse many heavy writes on the event loop's own thread."""
        if self._longest is not None and self.is_heavy and sum(map(len, units)) > INLINE_OPS:
            raise NotInlineError

    def _require_little(self, op: Remove, longest: int) -> None:
        """Refuse a removal that looks at many rows or at long ones, or that is heavy."""
        is_heavy = op.subtree or self.is_heavy
        if is_heavy or not reading.is_light(self._connection, longest, op.path, op.pattern):
            raise NotInlineError


def _refuse() -> None:
    raise NotInlineError


def _expired(now: int, limit: int) -> Sql:
    return Sql(statements.EXPIRED, (now, limit))


def _columns(row: Record) -> tuple[Any, ...]:
    """Return a row as UPSERT takes it."""
    code = checksum(row.path, row.key, row.version, row.data)
    content = row.version, row.created_at, row.updated_at, code, row.data.decode()
    return row.path, row.key, *content, row.expires_at, row.ttl, _indexing(row)


def _indexing(row: Record) -> str | None:
    return None if row.indexing is None else orjson.dumps(row.indexing).decode()


def _is_alike(row: Record, before: Record) -> bool:
    """Whether two rows of an item differ in nothing but the value and its time."""
    return (
        row.created_at == before.created_at
        and row.expires_at == before.expires_at
        and row.ttl == before.ttl
        and row.indexing == before.indexing
    )
