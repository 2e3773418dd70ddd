"""Logs and queues in the file: their state, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.namespace import decode_namespace
from kvstore.sequences import EntryPage, SequenceState, key_of, position_of
from kvstore.sqlite import driver, statements
from kvstore.sqlite.connection import snapshot
from kvstore.sqlite.reading import item_of

__all__ = ["count_state", "entries", "find_state", "length", "save_state"]

_PAGE_BYTES = 4 * 2**20  # of values, roughly

Execute = Callable[[str, tuple[Any, ...]], driver.Cursor]


def find_state(execute: Execute, path: str) -> SequenceState | None:
    """Return what is kept of a namespace that is a log or a queue."""
    row = execute(statements.GET_SEQUENCE, (path,)).fetchone()
    return None if row is None else SequenceState(path, *row)


def count_state(execute: Execute, path: str) -> SequenceState:
    """Return what a log or queue begins with, in a namespace that is none yet."""
    size, last = execute(statements.COUNT_ENTRIES, (path,)).fetchone()
    return SequenceState(path, last=0 if last is None else position_of(last) or 0, size=size)


def save_state(execute: Execute, state: SequenceState) -> None:
    """Keep it."""
    numbers = state.last, state.trimmed, state.size, state.delayed, state.leased, state.dead
    execute(statements.SET_SEQUENCE, (state.path, state.kind, *numbers))


def entries(
    connection: driver.Connection, path: str, after: int | None, limit: int, now: int
) -> EntryPage:
    """Return live entries of a log, oldest first: those after a position, or the last ones."""
    labels = decode_namespace(path)
    with snapshot(connection):
        state = find_state(connection.execute, path) or count_state(connection.execute, path)
        if after is None:
            found = connection.execute(statements.LAST_ENTRIES, (path, now, limit))
        else:
            key = key_of(after) if after else ""
            found = connection.execute(statements.ENTRIES_AFTER, (path, key, now, limit))
        items, size = [], 0
        for key, *row in found:
            items.append(item_of(labels, path, key, row))
            size += len(row[0])
            if after is not None and size > _PAGE_BYTES:
                break
        found.close()
    return EntryPage(state, items if after is not None else items[::-1])


def length(connection: driver.Connection, path: str, now: int) -> int:
    """Count the live entries of a log."""
    with snapshot(connection):
        state = find_state(connection.execute, path) or count_state(connection.execute, path)
        row = connection.execute(statements.COUNT_EXPIRED_ENTRIES, (path, now)).fetchone()
    return state.size - int(row[0])
