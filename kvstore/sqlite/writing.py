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
from kvstore.types import Item, make_item

__all__ = ["Batch", "NotInlineError"]

_ANY_LENGTH = 2**62
_ROWS = (64, 8, 1)  # of the statements that many puts share


def _is_plain(op: Operation) -> bool:
    """Whether an operation is a put without conditions, lifetime or indexing of its own."""
    return (
        type(op) is Put
        and op.expected is None
        and op.ttl is None
        and op.indexing is None
        and not op.keep
    )


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
        self._instant = to_datetime(now)
        self._first_version = self._version = self._execute(statements.GET_VERSION).fetchone()[0]

    def apply(self, units: Sequence[Sequence[Operation]]) -> list[list[Any] | Exception]:
        """Apply units, in order; return for each the answers to its operations, or its error.

        A unit that gets an error has changed nothing. Plain puts that follow each other, of one
        unit or of many, share statements.

        Raises:
            driver.Error: the transaction cannot go on.
            NotInlineError: a value is too long for the event loop's own thread.
        """
        outcomes: list[list[Any] | Exception] = []
        puts: list[Put] = []
        takers: list[list[Any]] = []  # for each of `puts`, the answers that its item belongs to
        for ops in units:
            answers: list[Any] = []
            outcomes.append(answers)
            if all(map(_is_plain, ops)):
                puts += ops  # type: ignore[arg-type]
                takers += [answers] * len(ops)
                continue
            self._put_plain(puts, takers)
            puts, takers = [], []
            try:
                plans = [self._plan(op) for op in ops]
                answers += map(self._write, ops, plans)
            except (driver.Error, NotInlineError):
                raise
            except Exception as exc:  # noqa: BLE001 - it belongs to the unit's caller
                outcomes[-1] = exc
        self._put_plain(puts, takers)
        return outcomes

    def finish(self) -> None:
        """Write what the transaction's end needs; call it before COMMIT."""
        if self._version != self._first_version:
            self._execute(statements.SET_VERSION, (self._version,))

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
                state = self._state(op.path, op.key)
                return state, op.change(self._data(op, state))
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
                return True
            case Remove():
                statement = statements.remove(op.path, op.subtree, op.pattern, self._now)
                return self._delete_rows(statement.text, statement.params)
            case Touch():
                return self._touch(op)
            case Sweep():
                return self._delete_rows(statements.SWEEP, (self._now, op.limit))
        return None

    def _put_plain(self, puts: list[Put], takers: list[list[Any]]) -> None:
        """Upsert plain items by as few statements as may be, and hand out the answers."""
        begin = 0
        for rows in _ROWS:
            while len(puts) - begin >= rows:
                end = begin + rows
                for taker, item in zip(
                    takers[begin:end], self._put_rows(puts[begin:end]), strict=True
                ):
                    taker.append(item)
                begin = end

    def _put_rows(self, puts: list[Put]) -> list[Item]:
        now, instant = self._now, self._instant
        version = self._version
        params: list[Any] = []
        for op in puts:
            version += 1
            path, key, data = op.path, op.key, op.data
            code = checksum(path, key, version, data)
            params += (path, key, version, now, now, code, data.decode())
        params.append(_ANY_LENGTH if self._longest is None else self._longest)
        rows = self._execute(statements.upsert_plain(len(puts)), params).fetchall()
        times = {version: (created_at, updated_at) for version, created_at, updated_at in rows}
        version, self._version = self._version, version
        items = []
        for op in puts:
            version += 1
            if version not in times:
                if self._longest is not None:
                    raise NotInlineError
                items.append(self._put(op, op.data, None, None))
                continue
            created_at, updated_at = times[version]
            items.append(
                make_item(
                    op.namespace,
                    op.key,
                    codec.decode(op.data),
                    instant if created_at == now else to_datetime(created_at),
                    instant if updated_at == now else to_datetime(updated_at),
                    version,
                    None,
                )
            )
        return items

    def _put(
        self, op: Put | Mutate, data: bytes, indexing: str | None, kept: _State | None
    ) -> Item:
        """Upsert; what is `kept` of a live item is its lifetime and its indexing."""
        now = self._now
        version = self._version + 1
        ttl = op.ttl
        expires_at = None if ttl is None else now + ttl
        if kept is not None and kept.is_live:
            ttl, expires_at, indexing = kept.ttl, kept.expires_at, kept.indexing
        value = codec.decode(data)
        row = (
            op.path,
            op.key,
            version,
            now,
            now,
            checksum(op.path, op.key, version, data),
            data.decode(),
        )
        times = self._execute(statements.UPSERT, (*row, expires_at, ttl, indexing)).fetchall()
        self._version = version
        ((_, created_at, updated_at),) = times
        instant = self._instant
        return make_item(
            op.namespace,
            op.key,
            value,
            instant if created_at == now else to_datetime(created_at),
            instant if updated_at == now else to_datetime(updated_at),
            version,
            None if expires_at is None else to_datetime(expires_at),
        )

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
        expires_at = row[2]
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
