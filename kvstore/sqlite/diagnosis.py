"""What is wrong when SQLite's word for it leaves that open: the file, or a statement of ours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvstore.errors import StoreCorruptError, StoreError
from kvstore.sqlite import driver
from kvstore.sqlite.checking import check_rows
from kvstore.sqlite.connection import is_unclear, translate

__all__ = ["explain"]

_LOOK_S = 2.0  # for how long damage is looked for
_STEPS = 10_000  # of SQLite's machine between two looks at the time


def explain(exc: driver.Error, path: Path, connection: driver.Connection) -> StoreError:
    """Return our error for one that a statement on a connection met.

    Args:
        exc: what the driver raised.
        path: the file, for messages.
        connection: outside of a transaction; this thread's alone, and not the event loop's.
    """
    if is_unclear(exc):
        problem = _damage(connection, path)
        if problem is not None:
            return StoreCorruptError(f"{problem}; restore it from a backup, or put it anew")
    return translate(exc, path)


def _damage(connection: driver.Connection, path: Path) -> str | None:
    """Return what is damaged, of rows and then of their index, if it is found in time."""
    deadline = time.monotonic() + _LOOK_S
    try:
        with _until(connection, deadline):
            for _, problem in check_rows(connection):
                if problem is not None or time.monotonic() > deadline:
                    return problem
            (line,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            return None if line == "ok" else f"{path} is damaged ({line})"
    except driver.Error as exc:
        found = translate(exc, path)
        return f"{path} is damaged" if isinstance(found, StoreCorruptError) else None


@contextmanager
def _until(connection: driver.Connection, deadline: float) -> Iterator[None]:
    """Have statements end at an instant of `time.monotonic()`, with SQLITE_INTERRUPT."""
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
