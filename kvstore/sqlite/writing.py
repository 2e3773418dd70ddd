"""Writes as plain functions on a connection: units of operations inside one transaction.

A unit's conditions are tested before its first write, so a unit that fails has changed nothing,
and its neighbours in the same transaction go on: no savepoint is needed. A `Restore` alone may fail
late; it has no neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import orjson

from kvstore.errors import StoreCorruptError
from kvstore.namespace import show
from kvstore.operations import (
    Admission,
    Check,
    Delete,
    Lease,
    Mutate,
    Operation,
    Put,
    Record,
    Remove,
    Restore,
    Sweep,
    Touch,
    Trim,
    check_version,
    take_piece,
)
from kvstore.sqlite import changes, driver, reading, statements
from kvstore.sqlite.reading import checksum, is_version
from kvstore.types import Item, pack_item

__all__ = ["INLINE_OPS", "Batch", "NotInlineError", "has_restore", "is_plain"]

INLINE_OPS = 16  # on the event loop's thread, of those that cost more than a plain put

_ANY_LENGTH = 2**62
_CHANGES_AT_ONCE = 1_000  # held back before they are written
_ROWS = (128, 64, 32, 16, 8, 4, 2, 1)  # of the statements that many puts share


def is_plain(op: Operation) -> bool:
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
    return any(type(op) is Restore for op in ops)


class NotInlineError(Exception):
    """A write would take too long for the event loop's own thread."""


@dataclass(slots=True)
class _State:
    """What is known of a row before it is written."""

    id: int
    version: int
    expires_at: int | None
    ttl: int | None
    indexing: str | None
    checksum: int
    size: int
    data: bytes | None  # if it was asked for
    is_live: bool


def _data(op: Mutate, state: _State | None) -> bytes | None:
    """Return the present value to change, or `None` if there is none.

    Raises:
        StoreCorruptError: it is not as it was written.
    """
    if state is None or not state.is_live:
        return None
    data = state.data
    if data is None or checksum(op.path, op.key, state.version, data) != state.checksum:
        raise StoreCorruptError(
            f"the row of {show(op.namespace, op.key)} is damaged: its checksum does not match; "
            "restore it from a backup, or put it anew"
        )
    return data


class Batch:
    """The units of one transaction, which the caller has begun and commits.

    Args:
        connection: inside a write transaction.
        now: the instant of all its writes, in microseconds.
        longest: refuse with `NotInlineError` to read or overwrite a value of more bytes.

    Attributes:
        index: the description of the file's search index; `None`: it has none.
    """

    index: str | None

    def __init__(self, connection: driver.Connection, now: int, longest: int | None = None) -> None:
        self._connection = connection
        self._execute = connection.cursor().execute
        self._now = now
        self._longest = longest
        self._most = _ANY_LENGTH if longest is None else longest
        row = self._execute(statements.GET_VERSION_WATCH_AND_INDEX).fetchone()
        if row is None or not is_version(row[0]):
            raise StoreCorruptError("the file has lost its version; restore it from a backup")
        self._version, watched_until, self.index = row
        self._first_version = self._version
        self._is_watched = bool(watched_until)
        self._changes: list[tuple[Any, ...]] = []

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
        outcomes: list[list[Any] | Exception] = []
        puts: list[Put] = []
        shares: list[int] = []  # how many of `puts` are of each of the last units
        for ops in units:
            if is_plain(ops[0]) if len(ops) == 1 else all(map(is_plain, ops)):
                puts += ops  # type: ignore[arg-type]
                shares.append(len(ops))
                continue
            outcomes += self._put_shares(puts, shares)
            puts, shares = [], []
            try:
                plans = [self._plan(op) for op in ops]
                outcomes.append(list(map(self._write, ops, plans)))
            except (driver.Error, NotInlineError):
                raise
            except Exception as exc:
                if has_restore(ops):
                    raise
                outcomes.append(exc)
        outcomes += self._put_shares(puts, shares)
        return outcomes

    def _put_shares(self, puts: list[Put], shares: list[int]) -> Iterator[list[Any]]:
        """Upsert plain items, and give each unit its share of the answers."""
        items = iter(self._put_plain(puts))
        return ([next(items)] if share == 1 else list(islice(items, share)) for share in shares)

    def finish(self) -> None:
        """Write what the transaction's end needs; call it before COMMIT."""
        if self._version != self._first_version:
            self._execute(statements.SET_VERSION, (self._version,))
            if self._changes:
                self._write_changes()

    def committed(self) -> None:
        """Take note that the transaction is committed."""

    @property
    def is_news(self) -> bool:
        """Whether there is something for those who watch."""
        return self._is_watched and self._version != self._first_version

    def _plan(self, op: Operation) -> Any:
        """Test the conditions, and find out what the write needs to know."""
        match op:
            case Put(expected=None, keep=False):
                return None
            case Put() | Delete() | Check():
                state = self._state(op.path, op.key)
                check_version(op, state.version if state is not None and state.is_live else 0)
                return state
            case Mutate():
                state = self._state(op.path, op.key, with_data=True)
                return state, op.change(_data(op, state))
        return None

    def _write(self, op: Operation, plan: Any) -> Any:
        match op:
            case Put():
                indexing = None if op.indexing is None else orjson.dumps(op.indexing).decode()
                return self._put(op, op.data, indexing, plan if op.keep else None)
            case Mutate():
                state, (data, answer) = plan
                if data is not None:
                    self._put(op, data, None, state)
                return answer
            case Delete():
                if plan is None or not plan.is_live:
                    return False
                self._execute(statements.DELETE, (plan.id,))
                self._version += 1
                if self._is_watched:
                    self._note("delete", op.path, op.key, self._version)
                return True
            case Remove():
                if self._longest is not None:
                    self._require_little(op, self._longest)
                statement = statements.remove(op.path, op.subtree, op.pattern, self._now)
                return self._delete_rows("delete", statement.text, statement.params)
            case Touch():
                return self._touch(op)
            case Sweep():
                return self._delete_rows("expire", statements.SWEEP, (self._now, op.limit))
            case Restore():
                return self._restore(op)
            case Lease():
                self._write_changes()
                begin = changes.take_lease(self._connection, op, self._version, self._now)
                self._is_watched = True
                return self._version, begin
            case Trim():
                self._write_changes()
                return changes.trim(self._connection, op, self._version, self._now)
        return None

    def _put_plain(self, puts: list[Put]) -> list[Item]:
        """Upsert plain items; of many puts, those that another one replaces write nothing."""
        if len(puts) <= _ROWS[0] or self._is_watched:
            return self._put_all(puts)
        last = {(op.path, op.key): op for op in puts}
        version = self._version
        self._version += len(puts) - len(last)
        stored = dict(zip(last, self._put_all(list(last.values())), strict=True))
        items = []
        for op in puts:
            item: Any = stored[op.path, op.key]
            if last[op.path, op.key] is not op:
                version += 1
                times = item._created, item._updated
                item = pack_item(op.namespace, op.key, op.data, version, *times, None)
            items.append(item)
        return items

    def _put_all(self, puts: list[Put]) -> list[Item]:
        """Upsert plain items by as few statements as may be."""
        items: list[Item] = []
        for rows in _ROWS:
            while len(puts) - len(items) >= rows:
                items += self._put_rows(puts[len(items) : len(items) + rows])
        return items

    def _put_rows(self, puts: list[Put]) -> list[Item]:
        now = self._now
        if self._is_watched:
            for path, key in dict.fromkeys((op.path, op.key) for op in puts):
                self._note_expired(path, key)
        version = self._version
        params: list[Any] = [now, self._most]
        for op in puts:
            version += 1
            path, key, data = op.path, op.key, op.data
            params += (path, key, version, checksum(path, key, version, data), data.decode())
        rows = self._execute(statements.upsert_plain(len(puts)), params).fetchall()
        stored = {row[0]: row for row in rows}
        version, self._version = self._version, version
        items = []
        for op in puts:
            version += 1
            row = stored.get(version)
            if row is None:
                if self._longest is not None:
                    raise NotInlineError
                items.append(self._upsert(op, op.data, None, None))
                continue
            if self._is_watched:
                self._note("put", op.path, op.key, version)
            _, created, updated = row
            items.append(pack_item(op.namespace, op.key, op.data, version, created, updated, None))
        return items

    def _put(
        self, op: Put | Mutate, data: bytes, indexing: str | None, kept: _State | None
    ) -> Item:
        """Upsert; what is `kept` of a live item is its lifetime and its indexing."""
        if self._is_watched:
            self._note_expired(op.path, op.key)
        return self._upsert(op, data, indexing, kept)

    def _upsert(
        self, op: Put | Mutate, data: bytes, indexing: str | None, kept: _State | None
    ) -> Item:
        now = self._now
        version = self._version + 1
        ttl = op.ttl
        expires_at = None if ttl is None else now + ttl
        if kept is not None and kept.is_live:
            ttl, expires_at, indexing = kept.ttl, kept.expires_at, kept.indexing
        code, text = checksum(op.path, op.key, version, data), data.decode()
        times = None
        if kept is not None and expires_at is None and indexing is None:  # over its like
            params = (now, self._most, op.path, op.key, version, code, text)
            times = self._execute(statements.upsert_plain(1), params).fetchall()
        if not times:
            row = (op.path, op.key, version, now, now, code, text, expires_at, ttl, indexing)
            times = self._execute(statements.UPSERT, row).fetchall()
        self._version = version
        if self._is_watched:
            self._note("put", op.path, op.key, version)
        ((_, created_at, updated_at),) = times
        return pack_item(op.namespace, op.key, data, version, created_at, updated_at, expires_at)

    def _delete_rows(
        self, kind: Literal["delete", "expire"], statement: str, params: tuple[Any, ...]
    ) -> int:
        if self._is_watched:
            statement = f"{statement} {statements.RETURNING_ADDRESS}"
            gone = self._execute(statement, params).fetchall()
            for path, key in gone:
                self._version += 1
                self._note(kind, path, key, self._version)
            return len(gone)
        deleted: int = self._execute(statement, params).rowcount
        self._version += deleted
        return deleted

    def _restore(self, op: Restore) -> int:
        """Write records. What fails here has written, so the transaction must be given up.

        There is no savepoint: each statement inside one costs more the more it has changed.
        """
        if self._is_watched:  # so that no record replaces an expired item, untold
            self._delete_rows("expire", statements.SWEEP, (self._now, -1))
        admission = Admission(op, self._version, self._now)
        records = iter(op.records)
        while some := take_piece(records):
            there = set() if admission.replaces else self._live_among(some)
            rows = []
            for version, record in admission.admit(some, there):
                path, key, data = record.path, record.key, record.data
                if self._is_watched:
                    self._note("put", path, key, version)
                indexing = record.indexing
                rows.append(
                    (
                        path,
                        key,
                        version,
                        record.created_at,
                        record.updated_at,
                        checksum(path, key, version, data),
                        data.decode(),
                        record.expires_at,
                        record.ttl,
                        None if indexing is None else orjson.dumps(indexing).decode(),
                    )
                )
            self._connection.executemany(statements.RESTORE, rows)
        self._version = admission.version
        return admission.written

    def _live_among(self, records: Sequence[Record]) -> set[tuple[str, str]]:
        states = ((each.path, each.key, self._state(each.path, each.key)) for each in records)
        return {(path, key) for path, key, state in states if state is not None and state.is_live}

    def _note(
        self, kind: Literal["put", "delete", "expire"], path: str, key: str, version: int
    ) -> None:
        """Record a change, for those who watch."""
        self._changes.append((version, kind, path, key, self._now))
        if len(self._changes) >= _CHANGES_AT_ONCE:
            self._write_changes()

    def _note_expired(self, path: str, key: str) -> None:
        """Record that a row has expired which is about to be replaced, if it has."""
        (is_expired,) = self._execute(statements.IS_EXPIRED, (path, key, self._now)).fetchone()
        if is_expired:
            self._version += 1
            self._note("expire", path, key, self._version)

    def _write_changes(self) -> None:
        self._connection.executemany(statements.ADD_CHANGE, self._changes)
        self._changes.clear()

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

    def _touch(self, op: Touch) -> dict[str, int]:
        renewed = {}
        for key in op.keys:
            for (expires_at,) in self._execute(
                statements.TOUCH, (self._now, op.path, key, self._now)
            ):
                renewed[key] = expires_at
        return renewed

    def _state(self, path: str, key: str, *, with_data: bool = False) -> _State | None:
        longest = self._most if with_data else -1
        row = self._execute(statements.GET_STATE, (longest, path, key)).fetchone()
        if row is None:
            return None
        id, version, expires_at, ttl, indexing, code, size, data = row
        is_live = expires_at is None or expires_at > self._now
        state = _State(id, version, expires_at, ttl, indexing, code, size, data, is_live)
        if state.size > self._most:
            raise NotInlineError
        return state
