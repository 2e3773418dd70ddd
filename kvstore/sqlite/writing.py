"""Writes as plain functions on a connection: units of operations inside one transaction.

A unit's conditions are tested before its first write, so a unit that fails has changed nothing,
and its neighbours in the same transaction go on: no savepoint is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from kvstore import codec
from kvstore.errors import StoreCorruptError
from kvstore.instants import to_datetime
from kvstore.namespace import show
from kvstore.operations import (
    Check,
    Delete,
    Mutate,
    Operation,
    Put,
    Remove,
    Sweep,
    Touch,
    check_version,
)
from kvstore.sqlite import driver, statements
from kvstore.sqlite.reading import checksum
from kvstore.types import Item

__all__ = ["Batch", "NotInlineError"]


class NotInlineError(Exception):
    """A write would take too long for the event loop's own thread."""


@dataclass(slots=True)
class _State:
    """What is known of a row before it is written."""

    id: int
    version: int
    created_at: int
    updated_at: int
    expires_at: int | None
    ttl: int | None
    indexing: str | None
    size: int
    is_live: bool


class Batch:
    """The units of one transaction, which the caller has begun and commits.

    Args:
        connection: inside a write transaction.
        now: the instant of all its writes, in microseconds.
        longest: refuse with `NotInlineError` to read or overwrite a value of more bytes.
    """

    def __init__(self, connection: driver.Connection, now: int, longest: int | None = None) -> None:
        self._connection = connection
        self._execute = connection.cursor().execute
        self._now = now
        self._longest = longest
        self._first_version = self._version = self._execute(statements.GET_VERSION).fetchone()[0]

    def apply(self, ops: Sequence[Operation]) -> list[Any]:
        """Apply one unit, and return the answer to each operation.

        Raises:
            StoreError: a condition does not hold, or a change refuses; nothing was written.
            driver.Error: the transaction cannot go on.
        """
        plans = [self._plan(op) for op in ops]
        return [self._write(op, plan) for op, plan in zip(ops, plans, strict=True)]

    def finish(self) -> None:
        """Write what the transaction's end needs; call it before COMMIT."""
        if self._version != self._first_version:
            self._execute(statements.SET_VERSION, (self._version,))

    def _plan(self, op: Operation) -> Any:
        """Test the conditions, and find out what the write needs to know."""
        match op:
            case Put() | Delete() | Check():
                state = self._state(op.path, op.key)
                check_version(op, state.version if state is not None and state.is_live else 0)
                return state
            case Mutate():
                state = self._state(op.path, op.key)
                return state, op.change(self._data(op, state))
        return None

    def _write(self, op: Operation, plan: Any) -> Any:
        match op:
            case Put():
                indexing = None if op.indexing is None else orjson.dumps(op.indexing).decode()
                return self._put(op, op.data, indexing, plan, op.keep)
            case Mutate():
                state, (data, answer) = plan
                if data is not None:
                    self._put(op, data, None, state, keep=True)
                return answer
            case Delete():
                if plan is None or not plan.is_live:
                    return False
                self._execute(statements.DELETE, (plan.id,))
                self._version += 1
                return True
            case Remove():
                statement = statements.remove(op.path, op.subtree, op.pattern, self._now)
                return self._delete_rows(statement.text, statement.params)
            case Touch():
                return self._touch(op)
            case Sweep():
                return self._delete_rows(statements.SWEEP, (self._now, op.limit))
        return None

    def _put(
        self, op: Put | Mutate, data: bytes, indexing: str | None, state: _State | None, keep: bool
    ) -> Item:
        now = created_at = updated_at = self._now
        ttl = op.ttl
        expires_at = None if ttl is None else now + ttl
        if state is not None and state.is_live:
            created_at = state.created_at
            updated_at = max(now, state.updated_at)
            if keep:
                ttl, expires_at, indexing = state.ttl, state.expires_at, state.indexing
        version = self._version + 1
        item = Item(
            op.namespace,
            op.key,
            codec.decode(data),
            to_datetime(created_at),
            to_datetime(updated_at),
            version,
            None if expires_at is None else to_datetime(expires_at),
        )
        row = (
            version,
            created_at,
            updated_at,
            expires_at,
            ttl,
            indexing,
            checksum(op.path, op.key, version, data),
            data.decode(),
        )
        if state is None:
            self._execute(statements.INSERT, (*row, op.path, op.key))
        else:
            self._execute(statements.UPDATE, (*row, state.id))
        self._version = version
        return item

    def _delete_rows(self, statement: str, params: tuple[Any, ...]) -> int:
        deleted: int = self._execute(statement, params).rowcount
        self._version += deleted
        return deleted

    def _touch(self, op: Touch) -> dict[str, int]:
        renewed = {}
        for key in op.keys:
            for (expires_at,) in self._execute(
                statements.TOUCH, (self._now, op.path, key, self._now)
            ):
                renewed[key] = expires_at
        return renewed

    def _state(self, path: str, key: str) -> _State | None:
        row = self._execute(statements.GET_STATE, (path, key)).fetchone()
        if row is None:
            return None
        expires_at = row[4]
        state = _State(*row, expires_at is None or expires_at > self._now)
        if self._longest is not None and state.size > self._longest:
            raise NotInlineError
        return state

    def _data(self, op: Mutate, state: _State | None) -> bytes | None:
        if state is None or not state.is_live:
            return None
        data: bytes
        data, expected = self._execute(statements.GET_DATA, (state.id,)).fetchone()
        if checksum(op.path, op.key, state.version, data) != expected:
            raise StoreCorruptError(
                f"the row of {show(op.namespace, op.key)} is damaged: its checksum does not match"
            )
        return data
